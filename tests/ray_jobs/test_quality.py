import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest

from gitops.contracts.dataset import DatasetManifest, QualityReport, Quarantined
from gitops.contracts.project import Assertion, Preprocessing
from gitops.errors import ContractError, StageError
from ray_jobs import dataset, etl, quality
from ray_jobs.quality_page import describe
from ray_jobs.stage import Stage
from serve.measures import Measures
from tests.photographs import screw, stage_on, write_folder, write_table

# Ray Data warns about settings of its own that nobody has made.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")

DIGEST = "0" * 64


def row(number: int, label: int = 0, look: int | None = None, **measures: float) -> dict[str, Any]:
    """A row of a shard without its image; every number looks different unless `look` says how."""
    neutral = dict.fromkeys(Measures.model_fields, 1.0)
    appearance = (f"{(number if look is None else look) * 2654435761 % 2**32:08x}" * 32)[:256]
    identity = {
        "filename": f"{number}.png",
        "label": label,
        "kind": None,
        "sha256": f"{number:064x}",
        "phash": appearance,
        "dhash": appearance,
    }
    return identity | neutral | measures


def profile(rows: list[dict[str, Any]], *assertions: Assertion, aside: int = 0) -> QualityReport:
    manifest = DatasetManifest(
        digest=DIGEST,
        project="part",
        source="here",
        classes=("good", "defective"),
        preprocessing=Preprocessing(),
        images=len(rows),
        counts={},
        duplicates=0,
        quarantined=tuple(Quarantined(filename=f"{number}.bad", reason="broken") for number in range(aside)),
        shards=(),
    )
    return quality.profile(rows, manifest, assertions)


def test_measures_are_summed_up() -> None:
    report = profile([row(number, sharpness=float(number)) for number in range(101)])
    assert report.measures["sharpness"] == {"min": 0, "p05": 5, "median": 50, "p95": 95, "max": 100, "mean": 50}
    assert set(report.measures) == set(Measures.model_fields)


@pytest.mark.parametrize(("share", "passed"), [(1.0, False), (0.91, False), (0.9, True), (0.5, True)])
def test_an_assertion_holds_for_a_share_of_the_images(share: float, passed: bool) -> None:
    rows = [row(number, exposure=100.0) for number in range(9)] + [row(9, exposure=250.0)]
    (finding,) = profile(rows, Assertion(measure="exposure", min=50, max=200, share=share)).findings
    assert finding.passed is passed
    assert finding.failing_images == ("9.png",)
    assert finding.failing_share == pytest.approx(0.1)


def test_limits_are_inclusive() -> None:
    rows = [row(0, exposure=50.0), row(1, exposure=200.0)]
    assert profile(rows, Assertion(measure="exposure", min=50, max=200)).passed
    assert not profile(rows, Assertion(measure="exposure", min=50.1)).passed
    assert not profile(rows, Assertion(measure="exposure", max=199.9)).passed


@pytest.mark.parametrize(
    ("assertion", "passed"),
    [
        (Assertion(measure="images", min=6), True),
        (Assertion(measure="images", min=7), False),
        (Assertion(measure="smallest_class", min=2), True),
        (Assertion(measure="smallest_class", min=3), False),
        (Assertion(measure="smallest_class_share", min=0.34), False),
        (Assertion(measure="duplicates", max=4), True),
        (Assertion(measure="duplicates", max=3), False),
        (Assertion(measure="contradictions", max=1), False),
        (Assertion(measure="contradictions", max=2), True),
        (Assertion(measure="quarantined", max=2), False),
        (Assertion(measure="quarantined", max=3), True),
    ],
)
def test_measures_of_the_whole_dataset(assertion: Assertion, passed: bool) -> None:
    # 0 and 1 look the same; so do 2 and 5, which are of different classes.
    rows = [row(0), row(1, look=0), row(2), row(3), row(4, 1), row(5, 1, look=2)]
    report = profile(rows, assertion, aside=3)
    assert report.passed is passed
    assert report.class_balance == {"good": 4, "defective": 2}
    assert set(report.duplicate_groups) == {("0.png", "1.png"), ("2.png", "5.png")}


@pytest.mark.parametrize(
    ("name", "hint"),
    [("sharpnes", "did you mean 'sharpness'"), ("smalest_class", "'smallest_class'"), ("q", "known: width")],
)
def test_an_unknown_measure_names_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ContractError, match=f"no measure '{name}'.*{hint}"):
        profile([row(0), row(1, 1)], Assertion(measure=name, min=1))


def test_assertions_in_words() -> None:
    assert describe(Assertion(measure="sharpness", min=20, share=0.95)) == "sharpness ≥ 20 for 0.95 of the images"
    assert describe(Assertion(measure="exposure", min=1, max=2)) == "exposure ≥ 1 and ≤ 2 for all images"
    assert describe(Assertion(measure="smallest_class", min=20)) == "smallest_class ≥ 20"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Path:
    """A dataset of screws with a blurred one, a near-duplicate and a file that is no image."""
    base = tmp_path_factory.mktemp("quality")
    names = write_folder(base / "data", 12, 5)
    cv2.imwrite(str(base / "data/train/ok002.png"), cv2.GaussianBlur(screw(2), (0, 0), 5))
    cv2.imwrite(str(base / "data/train/ok-copy003.png"), cv2.convertScaleAbs(screw(3), alpha=1.02))
    (base / "data/train/ok-note<b>.png").write_text("no image")
    write_table(base / "data", [*names, "ok-copy003.png", "ok-note<b>.png"])
    stage = stage_on(base / "data", base / "state", data={"max_quarantine_share": 0.5})
    dataset.extract(stage)
    etl.run(stage)
    return base


def stage_asserting(photographs: Path, *assertions: dict[str, Any]) -> Stage:
    return stage_on(photographs / "data", photographs / "state", quality=list(assertions))


def test_the_report_is_written_once(photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = stage_asserting(photographs, {"measure": "part_found", "min": 1})
    report = quality.run(stage)
    folder = stage.state.datasets / report.dataset
    assert QualityReport.read(folder / "quality.json") == report
    assert report.duplicate_groups == (("ok-copy003.png", "ok003.png"),)
    written = (folder / "quality.html").stat().st_mtime_ns
    capsys.readouterr()
    assert quality.run(stage) == report
    assert "nothing to do" in capsys.readouterr().out
    assert (folder / "quality.html").stat().st_mtime_ns == written
    quality.run(stage_asserting(photographs, {"measure": "part_found", "min": 0}))
    assert (folder / "quality.html").stat().st_mtime_ns != written
    aimed = stage.project.model_copy(update={"goal": "Find what is bent."})
    quality.run(replace(stage, project=aimed))
    assert "Find what is bent." in (folder / "quality.html").read_text()


def test_the_page_is_self_contained_and_shows_what_is_wrong(photographs: Path) -> None:
    stage = stage_asserting(
        photographs, {"measure": "sharpness", "min": 20, "share": 0.5}, {"measure": "images", "min": 5}
    )
    report = quality.run(stage)
    page = (stage.state.datasets / report.dataset / "quality.html").read_text()
    assert set(re.findall(r'(?:src|href)="(\w+:)', page)) == {"data:"}
    assert "url(" not in page
    assert page.count("<svg") == len(Measures.model_fields)
    assert "ok002.png" in page
    assert "ok-note&lt;b&gt;.png" in page
    assert "this is not an image" in page
    assert "prefers-color-scheme: dark" in page


def test_a_failed_assertion_stops_the_line_and_names_the_images(photographs: Path) -> None:
    stage = stage_asserting(
        photographs,
        {"measure": "sharpness", "min": 20},
        {"measure": "smallest_class", "min": 100},
        {"measure": "images", "min": 1},
    )
    for _ in range(2):  # a second run finds the report written, and fails all the same
        with pytest.raises(StageError, match="2 of 3 assertions") as caught:
            quality.run(stage)
        text = str(caught.value)
        assert re.search(r"sharpness ≥ 20 for all images: broken by 1 \(5\.\d%\): ok002\.png", text)
        assert "smallest_class ≥ 100" in text
        assert "quality.html" in text
