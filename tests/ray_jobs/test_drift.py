"""The report on drift: what the monitor found in the project's windows, in words and on a page."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gitops.errors import DataError
from gitops.manifest import ServedModel
from monitoring import drift
from ray_jobs.drift import run
from ray_jobs.drift_summary import features
from ray_jobs.stage import Stage
from serve.windows import windows_below
from tests.bundles import make_bundle
from tests.photographs import stage_on
from tests.serve.conftest import Tally
from tests.serve.site import open_bundle
from tests.windows import APPLICATION, PHOTOGRAPHS, WINDOW, feed, files, monitor_on, reference

WATCHED, HOURS = "screw of line, version", 24.0


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
def stage(tmp_path: Path) -> Stage:
    return stage_on(tmp_path, tmp_path / "state")


def test_it_says_what_drifted_and_how_often(windows: Path, stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    page = run(stage, windows, HOURS)
    assert page is not None
    assert page.parent == stage.state.drift / "screw"
    second, first, last = capsys.readouterr().out.splitlines()
    assert second == f"{WATCHED} 2: 20 photographs; 1 had too few photographs to be judged"
    said = re.fullmatch(rf"{WATCHED} 1: 192 photographs; 1 of 3 windows drifted: (.*); it drifts since (.*) UTC", first)
    assert said, first
    exposure = next(found.value for found in windows_below(windows)[2].drifted if found.feature == "exposure")
    assert f"exposure (1 window, ks up to {exposure:.2f})" in said[1]
    assert last == f"wrote {page}"


def test_the_page_shows_values_beside_the_reference_and_what_was_least_sure(windows: Path, stage: Stage) -> None:
    page = run(stage, windows, HOURS)
    assert page is not None
    text = page.read_text()
    assert "1 of 3 windows drifted" in text
    one, other = text.split("<h2>")[1:]
    assert "version 2" in one
    assert "no window had photographs enough" in one
    assert other.index('aria-label="Histogram of exposure"') < other.index('aria-label="Histogram of noise"')
    assert "exposure <span" in other
    charts = other.count("<svg")
    assert other.count("<polyline") == charts > 5
    assert other.count("data:image/jpeg") == 12 <= 3 * PHOTOGRAPHS
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', other)]
    assert max(heights) <= 90
    good = windows_below(windows)[0].labels["good"] + windows_below(windows)[1].labels["good"]
    assert f"at first {100 * good / 128:.1f} %" in other
    assert "no reference" not in text


def test_what_drifts_most_often_comes_first(windows: Path) -> None:
    found = features([window for window in windows_below(windows) if window.model.version == "1"])
    assert found[0].drifted == 1
    assert [feature.drifted for feature in found] == sorted((one.drifted for one in found), reverse=True)
    assert all(feature.compared == 3 for feature in found if feature.name == "exposure")


def test_the_same_day_replaces_its_page(windows: Path, stage: Stage) -> None:
    assert run(stage, windows, HOURS) == run(stage, windows, HOURS)
    assert len(list((stage.state.drift / "screw").iterdir())) == 1


@pytest.mark.parametrize(("project", "hours"), [("bolt", HOURS), ("screw", 1e-9)])
def test_only_the_projects_latest_windows_count(
    windows: Path, stage: Stage, project: str, hours: float, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Stage(stage.project.model_copy(update={"name": project}), stage.project_file, stage.state)
    assert run(other, windows, hours) is None
    assert f"no window of {project} ended in the last {hours:g} h" in capsys.readouterr().out
    assert not stage.state.drift.exists()


def test_without_the_bundle_there_is_a_page_without_reference(
    windows: Path, stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = windows.parent / "moved"
    (windows.parent / "1").rename(moved)
    try:
        page = run(stage, windows, HOURS)
    finally:
        moved.rename(windows.parent / "1")
    assert page is not None
    assert f"mind: the page has no reference of {WATCHED} 1: no bundle in" in capsys.readouterr().out
    other = page.read_text().split("<h2>")[2]
    assert "no reference: no bundle in" in other
    assert "<polyline" not in other
    assert "data:image/jpeg" in other


def test_a_window_that_cannot_be_read_is_named(windows: Path, stage: Stage, tmp_path: Path) -> None:
    (tmp_path / APPLICATION).mkdir()
    file = next(windows.glob("*/*.json"))
    (tmp_path / APPLICATION / file.name).write_bytes(file.read_bytes())
    figures = tmp_path / APPLICATION / file.with_suffix(".parquet").name
    figures.write_text("cut off")
    with pytest.raises(DataError, match=rf"{figures.name} cannot be read .*: remove it"):
        run(stage, tmp_path, HOURS)
    assert not stage.state.drift.exists()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [(["--hours", "0"], 2, "must be more than 0"), (["--windows", "nowhere"], 1, "the folder nowhere does not exist")],
)
def test_wrong_options_are_clear_errors(tmp_path: Path, options: list[str], code: int, said: str) -> None:
    stage = stage_on(tmp_path, tmp_path / "state")
    stage.project_file.write_text(stage.project.to_json())
    command = [sys.executable, "-m", "ray_jobs.drift", "--project", str(stage.project_file)]
    command += ["--state", "state", *options]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == code
    assert said in found.stderr
