"""The monitor in this process: windows that are stable or drifted, kept, published, and never in anybody's way."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from gitops.contracts.dataset import Feedback
from gitops.contracts.drift import DriftWindow
from gitops.contracts.serving import ServedModel
from gitops.errors import ContractError
from monitoring import drift
from monitoring.drift import CONFIDENCE, SCORE
from serve.feedback import LINES
from serve.measures import Measures
from serve.predictor import Predictor
from serve.windows import windows_below
from tests.bundles import make_bundle
from tests.serve.conftest import Tally
from tests.serve.site import open_bundle
from tests.windows import APPLICATION, PHOTOGRAPHS, WINDOW, feed, files, monitor_on, reference

pytestmark = pytest.mark.usefixtures("small_windows")


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "WINDOW", WINDOW)
    monkeypatch.setattr(drift, "BASELINE", 2 * WINDOW)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What the monitor logs."""
    monkeypatch.setattr(logging.getLogger("ray.serve"), "handlers", [caplog.handler])  # Ray does not pass lines on
    return caplog


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, model: ServedModel) -> ServedModel:
    """A model whose bundle says what its line looks like."""
    folder = tmp_path_factory.mktemp("watched") / "bundle"
    digest = make_bundle(folder, reference=reference(open_bundle(model)))
    return ServedModel(name="screw", version="1", sha256=digest, uri=folder.as_uri())


@pytest.fixture(scope="module")
def following(tmp_path_factory: pytest.TempPathFactory, model: ServedModel) -> ServedModel:
    """Another bundle, with the same reference."""
    folder = tmp_path_factory.mktemp("following") / "bundle"
    digest = make_bundle(folder, version_salt=0.01, reference=reference(open_bundle(model)))
    return ServedModel(name="screw", version="2", sha256=digest, uri=folder.as_uri())


def detected(tally: Tally, kind: str, version: str = "1") -> float | None:
    return tally.gauges.get(("mergeline_drift_detected", version, kind))


def test_a_full_window_is_judged_kept_and_published(tmp_path: Path, tally: Tally, watched: ServedModel) -> None:
    monitor = monitor_on(tmp_path, tally)
    feed(monitor, watched, files(1)[:-1])
    assert windows_below(tmp_path) == []
    feed(monitor, watched, files(1)[-1:])
    (window,) = windows_below(tmp_path)
    assert (window.outcome, window.photographs, window.labels) == ("stable", WINDOW, {"good": WINDOW, "defective": 0})
    assert window.model == watched
    assert window.drifted == ()
    assert tally.counts["mergeline_drift_windows", "1", "stable"] == 1
    assert {detected(tally, kind) for kind in ("image", "score", "label", "confidence", "embedding", "any")} == {0}
    exposure = next(finding for finding in window.findings if finding.feature == "exposure")
    of = ("1", "exposure")
    assert tally.gauges["mergeline_drift_statistic", *of, "ks"] == exposure.value
    assert tally.gauges["mergeline_drift_p_value", *of, "ks"] == exposure.p_value
    assert tally.gauges["mergeline_drift_statistic", *of, "wasserstein"] == exposure.wasserstein


def test_the_figures_of_a_window_can_be_read_again(tmp_path: Path, tally: Tally, watched: ServedModel) -> None:
    feed(monitor_on(tmp_path, tally), watched, files(1))
    (file,) = tmp_path.glob("*/*.parquet")
    table, predictor = pq.read_table(file), open_bundle(watched)
    assert set(table.column_names) >= {SCORE, CONFIDENCE, "label", "embedding", "sha256", *Measures.model_fields}
    observed = [predictor.observe(data) for data in files(1)]
    assert table["score"].to_pylist() == [item.judgement.score for item in observed]
    assert table["exposure"].to_pylist() == [item.measures.exposure for item in observed]
    kept = [number for number, data in enumerate(table["photograph"].to_pylist()) if data is not None]
    by_margin = sorted(range(WINDOW), key=lambda number: abs(observed[number].judgement.score - 0.5))
    assert set(kept) == set(by_margin[:PHOTOGRAPHS])
    assert table["photograph"][kept[0]].as_py() == files(1)[kept[0]]
    (window,) = windows_below(tmp_path)
    assert window.examples == tuple(table["sha256"][number].as_py() for number in by_margin[:PHOTOGRAPHS])


def test_a_dimmer_lamp_is_drift_until_it_is_mended(tmp_path: Path, tally: Tally, watched: ServedModel) -> None:
    monitor = monitor_on(tmp_path, tally)
    feed(monitor, watched, files(2, light=0.8))
    assert (detected(tally, "image"), detected(tally, "any")) == (1, 1)
    (window,) = windows_below(tmp_path)
    assert window.outcome == "drifted"
    assert "exposure" in {finding.feature for finding in window.drifted}
    feed(monitor, watched, files(3))
    assert (detected(tally, "image"), detected(tally, "any")) == (0, 0)


def test_it_is_known_since_when_it_drifts(tmp_path: Path, tally: Tally, watched: ServedModel) -> None:
    def since() -> float:
        return tally.gauges["mergeline_drift_since_timestamp_seconds", "1"]

    feed(monitor_on(tmp_path, tally), watched, files(2, light=0.8))
    (first,) = windows_below(tmp_path)
    assert first.drifting_since == first.began_at
    assert since() == first.began_at.timestamp()
    again = monitor_on(tmp_path, tally)  # a restart forgets nothing
    feed(again, watched, files(3, light=0.8))
    assert windows_below(tmp_path)[-1].drifting_since == first.began_at
    feed(again, watched, files(1))
    assert windows_below(tmp_path)[-1].drifting_since is None
    assert since() == 0
    feed(again, watched, files(4, light=0.8))
    assert since() == windows_below(tmp_path)[-1].began_at.timestamp()


def test_labels_are_compared_with_those_of_the_first_stable_windows(
    tmp_path: Path, tally: Tally, watched: ServedModel
) -> None:
    monitor = monitor_on(tmp_path, tally)
    for seed, light, defective in ((4, 0.8, 0.0), (5, 1.0, 0.1), (6, 1.0, 0.1), (7, 1.0, 0.1), (8, 1.0, 0.6)):
        feed(monitor, watched, files(seed, light=light, defective=defective))
    first, second, third = windows_below(tmp_path)  # the latest; the folder keeps no more
    # The first of all drifted otherwise, so that it is no measure of the labels.
    assert [window.compares_labels for window in (first, second, third)] == [False, True, True]
    assert [window.outcome for window in (first, second, third)] == ["stable", "stable", "drifted"]
    assert {finding.kind for finding in third.drifted} == {"label"}
    assert detected(tally, "label") == 1


def test_only_the_latest_windows_are_kept(tmp_path: Path, tally: Tally, watched: ServedModel) -> None:
    monitor = monitor_on(tmp_path, tally)
    for seed in range(10, 15):
        feed(monitor, watched, files(seed))
    kept = windows_below(tmp_path)
    assert len(kept) == len(list(tmp_path.glob("*/*.parquet"))) == 3
    assert kept[-1].photographs == WINDOW
    assert not list(tmp_path.glob("*/.*"))


def test_a_window_whose_time_has_passed_is_judged_if_it_holds_enough(
    tmp_path: Path, tally: Tally, watched: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient, monitor = monitor_on(tmp_path, tally), monitor_on(tmp_path, tally, seconds=0)
    feed(patient, watched, files(1)[:20])
    patient.look_round()
    assert windows_below(tmp_path) == []
    feed(monitor, watched, files(1)[:20])
    monitor.look_round()
    (few,) = windows_below(tmp_path)
    assert (few.outcome, few.photographs, few.findings) == ("too_few", 20, ())
    assert detected(tally, "any") is None
    monkeypatch.setattr(drift, "LEAST_WINDOW", 40)
    feed(monitor, watched, files(1)[:40])
    monitor.look_round()
    assert (windows_below(tmp_path)[-1].outcome, detected(tally, "any")) == ("stable", 0)
    monitor.look_round()
    assert len(windows_below(tmp_path)) == 2


def test_a_restart_forgets_no_drift(tmp_path: Path, tally: Tally, watched: ServedModel) -> None:
    feed(monitor_on(tmp_path, tally), watched, files(2, light=0.8))
    again = Tally()
    feed(monitor_on(tmp_path, again), watched, files(1)[:1])
    assert (detected(again, "image"), detected(again, "any")) == (1, 1)


def test_a_version_that_is_not_served_any_more_drifts_no_longer(
    tmp_path: Path, tally: Tally, watched: ServedModel, following: ServedModel
) -> None:
    monitor = monitor_on(tmp_path / "windows", tally, most=9)
    feed(monitor, watched, files(2, light=0.8))
    assert detected(tally, "any") == 1
    feed(monitor, following, files(1))
    assert (detected(tally, "any"), detected(tally, "any", "2")) == (1, 0)  # it may be asked more seldom
    feed(monitor, watched, files(2)[:3])
    for _ in range(4):
        feed(monitor, following, files(1))
    assert (detected(tally, "any"), detected(tally, "any", "2")) == (None, 0)
    assert not [key for key in tally.gauges if key[1] == "1"]
    _, rest = (window for window in windows_below(tmp_path / "windows") if window.model == watched)
    assert (rest.photographs, rest.outcome) == (3, "too_few"), "the last that it was shown is kept"


def test_a_candidate_that_is_asked_seldom_keeps_its_window(
    tmp_path: Path, tally: Tally, watched: ServedModel, following: ServedModel
) -> None:
    monitor = monitor_on(tmp_path / "windows", tally)
    photographs = files(2)
    for part in (photographs[:-1], photographs[-1:]):
        feed(monitor, following, part)
        feed(monitor, watched, files(1))
    assert detected(tally, "any", "2") == 0


def test_what_cannot_be_watched_is_refused_and_not_tried_at_each_photograph(
    tmp_path: Path, tally: Tally, model: ServedModel, said: pytest.LogCaptureFixture
) -> None:
    opened = []

    def opening(of: ServedModel) -> Predictor:
        opened.append(of)
        return open_bundle(of)

    monitor = monitor_on(tmp_path, tally, opening=opening)
    assert [monitor.take(model, data) for data in files(1)[:3]] == [False] * 3  # its reference is empty
    assert opened == [model]
    assert "cannot watch screw version 1" in said.text
    assert not tmp_path.joinpath(APPLICATION).exists()


def test_a_file_that_is_no_photograph_is_left_out(tmp_path: Path, tally: Tally, watched: ServedModel) -> None:
    monitor = monitor_on(tmp_path, tally)
    assert not monitor.take(watched, b"no photograph")
    assert not monitor.take(watched, cv2.imencode(".png", np.zeros((1100, 1000), np.uint8))[1].tobytes())
    feed(monitor, watched, files(1))
    assert windows_below(tmp_path)[0].photographs == WINDOW


def test_a_folder_that_cannot_be_written_costs_the_files_and_nothing_else(
    tmp_path: Path, tally: Tally, watched: ServedModel, said: pytest.LogCaptureFixture
) -> None:
    (tmp_path / APPLICATION).write_text("a file")
    feed(monitor_on(tmp_path, tally), watched, files(2, light=0.8))
    assert detected(tally, "any") == 1
    assert "A window cannot be kept" in said.text


def test_feedback_says_how_often_a_version_was_right(
    tmp_path: Path, tally: Tally, watched: ServedModel, following: ServedModel
) -> None:
    feedback = tmp_path / "feedback"
    feedback.mkdir()
    monitor = monitor_on(tmp_path / "windows", tally, feedback=feedback)
    monitor.look_round()
    lines = [
        Feedback(
            filename=f"{number}.png",
            label="good",
            said="good" if number else "defective",
            model_name="screw",
            model_version=version,
            sampled=True,
        )
        for version in ("1", "2")
        for number in range(40)
    ]
    (feedback / LINES).write_text("".join(line.model_dump_json() + "\n" for line in lines))
    feed(monitor, watched, files(1)[:1])
    monitor.look_round()
    low, estimate, high = (tally.gauges["mergeline_live_accuracy", "1", bound] for bound in ("low", "estimate", "high"))
    assert estimate == 39 / 40
    assert [low, high] == pytest.approx([0.871, 0.996], abs=0.002)  # Wilson's
    assert ("mergeline_live_accuracy", "2", "estimate") not in tally.gauges
    feed(monitor, following, files(1)[:1])
    monitor.look_round()
    assert tally.gauges["mergeline_live_accuracy", "2", "estimate"] == 39 / 40, "though the file is as it was"


def test_a_window_is_a_contract_that_can_be_read(tmp_path: Path, tally: Tally, watched: ServedModel) -> None:
    feed(monitor_on(tmp_path, tally), watched, files(2, light=0.8))
    (file,) = tmp_path.glob("*/*.json")
    window = DriftWindow.read(file)
    assert window.to_json() == file.read_text()
    assert file.with_suffix(".parquet").exists()


def test_a_window_that_was_removed_meanwhile_is_passed_over_and_a_broken_one_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "screw"
    folder.mkdir()
    (folder / "gone.json").symlink_to(tmp_path / "nowhere")  # it is listed, and cannot be opened any more
    assert windows_below(tmp_path) == []
    (folder / "broken.json").write_text("{}")
    with pytest.raises(ContractError, match=r"broken\.json"):
        windows_below(tmp_path)
