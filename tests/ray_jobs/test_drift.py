"""The report on drift: what the monitor found in the project's windows, in words and on a page."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gitops.contracts.drift import DriftWindow
from gitops.contracts.serving import ServedModel
from gitops.errors import DataError
from gitops.status import now
from monitoring import drift
from monitoring.metrics import WindowOutcome
from ray_jobs import drift_page, drift_summary
from ray_jobs.drift import run
from ray_jobs.drift_summary import Watched, Window, features, reference_of, sum_up
from ray_jobs.stage import Stage
from serve.windows import BASELINES, windows_below
from tests.bundles import make_bundle
from tests.photographs import stage_on
from tests.serve.conftest import Tally
from tests.serve.site import open_bundle
from tests.windows import PHOTOGRAPHS, WINDOW, feed, files, monitor_on, reference

WATCHED, HOURS = "screw of line, version", 24.0
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


def make_model(folder: Path, version: str, salt: float, like: ServedModel | None = None) -> ServedModel:
    """A model; `like` judges what its reference holds."""
    sample = reference(open_bundle(like)) if like else None
    digest = make_bundle(folder / version, version_salt=salt, reference=sample)
    return ServedModel(name="screw", version=version, sha256=digest, uri=(folder / version).as_uri())


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of version 1 two stable ones and a drifted one, then of version 2 one with too few photographs."""
    folder = tmp_path_factory.mktemp("drift")
    like = make_model(folder, "9", 0.0)
    first, second = make_model(folder, "1", 0.02, like), make_model(folder, "2", 0.01, like)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drift, "WINDOW", WINDOW)
        patch.setattr(drift, "BASELINE", 2 * WINDOW)
        monitor = monitor_on(folder / "windows", Tally(), seconds=0, most=10)
        for seed, light in ((4, 1.0), (5, 1.0), (2, 0.8)):
            feed(monitor, first, files(seed, light=light, defective=0.1))
        feed(monitor, second, files(1)[:20])
        monitor.look_round()
        yield folder / "windows"


@pytest.fixture
def copied(windows: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return shutil.copytree(windows, tmp_path / "windows")


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return stage_on(tmp_path, tmp_path / "state")


def test_it_says_what_drifted_and_how_often(windows: Path, stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    page = run(stage, windows, HOURS)
    assert page is not None
    assert page.parent == stage.state.drift / "screw"
    second, first, last = capsys.readouterr().out.splitlines()
    period = r"\d{4}-\d\d-\d\d \d\d:\d\d to \d{4}-\d\d-\d\d \d\d:\d\d UTC"
    few = "20 photographs; 1 not judged, with too few photographs in it or in the reference"
    assert re.fullmatch(rf"{WATCHED} 2, {period}: {few}", second), second
    judged = r"192 photographs; 1 of 3 windows drifted: (.*); drifting since (.*) UTC"
    said = re.fullmatch(rf"{WATCHED} 1, {period}: {judged}", first)
    assert said, first
    drifted = windows_below(windows)[2]
    exposure = next(found.value for found in drifted.drifted if found.feature == "exposure")
    assert f"exposure (1 window, ks {exposure:.2f})" in said[1]
    assert said[2] == f"{drifted.began_at:%Y-%m-%d %H:%M}"
    assert last == f"wrote {page}"


def sections(page: Path | None) -> list[str]:
    assert page is not None
    return page.read_text().split("<h2>")


def chart_of(name: str, section: str) -> str:
    return next(card for card in section.split('<div class="card">') if f'"Histogram of {name}"' in card)


def heights(chart: str) -> list[float]:
    return [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', chart)]


def outline(chart: str) -> list[float]:
    """How high the reference stands in each bin, by the line that is drawn."""
    (points,) = re.findall(r'<polyline points="([^"]*)"', chart)
    return [round(90 - float(point.split(",")[1]), 2) for point in points.split()[::2]]


def test_the_page_shows_values_beside_the_reference_and_what_was_least_sure(windows: Path, stage: Stage) -> None:
    head, few, judged = sections(run(stage, windows, HOURS))
    assert "1 of 3 windows drifted" in head
    assert str(windows) in head
    assert ("version 2" in few, "version 1" in judged) == (True, True)
    assert "What was compared" in few
    assert '<p class="soft">Nothing.</p>' in few
    assert judged.index('"Histogram of exposure"') < judged.index('"Histogram of noise"')
    assert judged.count("data:image/jpeg") == 12 <= 3 * PHOTOGRAPHS
    stable = windows_below(windows)[:2]
    assert f"at first {100 * sum(one.labels['good'] for one in stable) / 128:.1f} %" in judged
    assert "no reference" not in head + few + judged


def test_a_chart_shows_the_windows_that_drifted_apart_from_the_reference(windows: Path, stage: Stage) -> None:
    judged = sections(run(stage, windows, HOURS))[2]
    exposure, noise = chart_of("exposure", judged), chart_of("noise", judged)
    assert "called good, of the windows in which it drifted among them (1)" in exposure
    drawn, expected = heights(exposure), outline(exposure)
    assert len(drawn) == len(expected) == 24
    assert max(*drawn, *expected) == 90
    # The light was a fifth dimmer: what is drawn lies left of the reference and hardly meets it.
    assert drawn[0] > 0 == expected[0]
    assert expected[-1] > 0 == drawn[-1]
    assert "called good." in noise
    assert "drifted" not in noise
    assert sum(min(pair) for pair in zip(heights(noise), outline(noise), strict=True)) > 0


def test_a_value_that_drifts_in_one_of_many_windows_is_drawn_all_the_same(windows: Path, stage: Stage) -> None:
    found = sum_up("screw", windows, LONG_AGO).watched[1]
    many = Watched((*(found.windows[0],) * 200, found.windows[2]), {})
    exposure = drift_page._chart("exposure", many, reference_of(found.model))
    assert exposure is not None
    assert exposure.bars[0].height > 0
    assert exposure.outline.rsplit(",", maxsplit=1)[1] != f"{90:.2f}"


def test_what_drifts_most_often_comes_first(windows: Path) -> None:
    found = features(sum_up("screw", windows, LONG_AGO).watched[1].windows)
    assert found[0].drifted == 1
    assert [feature.drifted for feature in found] == sorted((one.drifted for one in found), reverse=True)
    assert all(feature.compared == 3 for feature in found if feature.name == "exposure")


def test_the_least_sure_come_from_windows_in_turn_those_first_that_drifted(windows: Path) -> None:
    found = sum_up("screw", windows, LONG_AGO).watched[1]
    first, second, drifted = found.windows
    in_turn = found.examples(12)
    assert in_turn[:3] == [(one.file, one.found.examples[0]) for one in (drifted, second, first)]
    assert len(in_turn) == 3 * PHOTOGRAPHS
    assert {file for file, _ in found.examples(1)} == {drifted.file}
    many = Watched((drifted, *(first,) * 50, *(second,) * 50), {})
    assert {file for file, _ in many.examples(5)} == {drifted.file, first.file, second.file}


def test_a_chart_is_of_the_label_under_which_it_drifted_most_often(windows: Path) -> None:
    found = sum_up("screw", windows, LONG_AGO).watched[1]
    drifted = found.windows[2]
    exposure = drifted.finding("exposure")
    assert exposure is not None
    assert exposure.label == "good"
    other = exposure.model_copy(update={"label": "defective"})
    once = Window(drifted.found.model_copy(update={"findings": (other,)}), drifted.file, drifted.figures)
    chart = drift_page._chart("exposure", Watched((drifted, drifted, once), {}), None)
    assert chart is not None
    assert chart.shown == "called good, of the windows in which it drifted among them (2)"


def test_the_project_s_own_windows_count_that_were_judged_lately(
    windows: Path, copied: Path, stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in copied.glob("*/*.json"):
        judged = DriftWindow.read(file).model_copy(update={"judged_at": LONG_AGO})
        file.write_text(judged.to_json())
    other = Stage(stage.project.model_copy(update={"name": "bolt"}), stage.project_file, stage.state)
    for project, folder in ((stage, copied), (other, windows)):
        assert run(project, folder, HOURS) is None
        assert f"no window of {project.project.name} was judged in the last 24 h" in capsys.readouterr().out
    assert not stage.state.drift.exists()
    # One that was judged because its time had passed ended long before that.
    late = next(copied.glob("*/*.json"))
    found = DriftWindow.read(late)
    ended = {"began_at": LONG_AGO, "ended_at": LONG_AGO}
    for judged_at in (now(), None):  # by the file's time, where no other is known
        late.write_text(found.model_copy(update=ended | {"judged_at": judged_at}).to_json())
        assert run(stage, copied, 1) is not None
        assert "1970-01-01 00:00 to 1970-01-01 00:00 UTC" in capsys.readouterr().out
    os.utime(late, (0, 0))
    assert run(stage, copied, 1) is None


def test_without_the_bundle_there_is_a_page_without_reference(
    windows: Path, stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = windows.parent / "moved"
    (windows.parent / "1").rename(moved)
    try:
        page = run(stage, windows, HOURS)
    finally:
        moved.rename(windows.parent / "1")
    assert f"mind: the page has no reference of {WATCHED} 1: no bundle in" in capsys.readouterr().out
    judged = sections(page)[2]
    assert "no reference: no bundle in" in judged
    assert "<polyline" not in judged
    assert "data:image/jpeg" in judged


def test_where_nothing_could_be_judged_nothing_is_called_stable(
    copied: Path, stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in copied.glob("*/*.json"):
        found = DriftWindow.read(file)
        file.write_text(found.model_copy(update={"outcome": WindowOutcome.TOO_FEW, "findings": ()}).to_json())
    head, *_ = sections(run(stage, copied, HOURS))
    assert "No window could be judged" in head
    assert "verdict" not in head.split("</style>")[1]
    assert "windows drifted" not in capsys.readouterr().out


def test_what_cannot_be_read_is_named_and_left_out(
    copied: Path, stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, *_ = sorted(copied.glob("*/*.json"))
    first.with_suffix(".parquet").write_text("cut off")
    second.with_suffix(".parquet").unlink()
    (baseline,) = copied.glob(f"*/{BASELINES}/*.json")
    baseline.write_text("{")
    page = run(stage, copied, HOURS)
    said = capsys.readouterr().out
    for one in (first, second):
        assert f"mind: the window {one.with_suffix('.parquet')} cannot be read" in said
        assert f"Left out: the window {one.with_suffix('.parquet')}" in sections(page)[0]
    assert "mind: how often labels were given at first" in said
    assert f"{WATCHED} 1" in said
    for file in copied.glob("*/*.json"):  # a quiet night: what can be read is old
        if file not in (first, second):
            file.write_text(DriftWindow.read(file).model_copy(update={"judged_at": LONG_AGO}).to_json())
    assert run(stage, copied, HOURS) is None
    assert "no window of screw was judged" in capsys.readouterr().out
    for figures in copied.glob("*/*.parquet"):
        figures.write_text("cut off")
    for file in copied.glob("*/*.json"):
        file.write_text(DriftWindow.read(file).model_copy(update={"judged_at": now()}).to_json())
    with pytest.raises(DataError, match=r"none of the windows in .* can be read"):
        run(stage, copied, HOURS)


def test_a_window_that_the_monitor_removes_meanwhile_is_passed_over(
    copied: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *_ = listed = sorted(copied.glob("*/*.json"))
    monkeypatch.setattr(drift_summary, "window_files", lambda _: listed)
    first.unlink()
    first.with_suffix(".parquet").unlink()
    assert run(stage, copied, HOURS) is not None
    said = capsys.readouterr().out
    assert "mind:" not in said
    assert "1 of 2 windows drifted" in said


def test_a_window_of_an_older_release_lacks_a_value(copied: Path) -> None:
    for figures in copied.glob("*/*.parquet"):
        pq.write_table(pq.read_table(figures).drop_columns(["noise"]), figures)
    found = sum_up("screw", copied, LONG_AGO).watched[1]
    assert drift_page._chart("noise", found, None) is None
    assert drift_page._chart("exposure", found, None) is not None


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], 0, "state/windows/local yet: it takes traffic, and args.windows"),
        (["--hours", "0"], 2, "must be a number of hours above 0"),
        (["--hours", "inf"], 2, "must be a number of hours above 0"),
        (["--hours", "day"], 2, "must be a number of hours above 0"),
        (["--windows", "nowhere"], 1, "the folder nowhere does not exist"),
        (["--windows", "line"], 1, "the folder line is an application's: give the one that it lies in"),
    ],
)
def test_it_says_what_is_missing_or_wrong(tmp_path: Path, options: list[str], code: int, said: str) -> None:
    (tmp_path / "line").mkdir()
    (tmp_path / "line" / "20300101T000000.000000Z-0.json").touch()
    stage = stage_on(tmp_path, tmp_path / "state")
    stage.project_file.write_text(stage.project.to_json())
    command = [sys.executable, "-m", "ray_jobs.drift", "--project", str(stage.project_file)]
    command += ["--state", "state", *options]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == code
    assert said in found.stdout + found.stderr
