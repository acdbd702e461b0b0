"""What people see of the windows: the latest ones, what drifted, and the photographs that were kept."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import pytest

from gitops.contracts.drift import DriftFinding, DriftWindow
from gitops.contracts.serving import ServedModel
from gitops.status import now
from monitoring.metrics import DriftKind, WindowOutcome
from serve.windows import Row, WindowFolder
from tests.serve.conftest import photograph
from tests.serve.site import open_bundle, site

PARTS = [cv2.imencode(suffix, photograph())[1].tobytes() for suffix in (".png", ".jpg", ".bmp")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model: ServedModel) -> Path:
    """Two windows: one without drift, and one with; each has forgotten its last photograph."""
    folder = tmp_path_factory.mktemp("windows") / "screw"
    windows, predictor = WindowFolder(folder, 10), open_bundle(model)
    for drifted in (False, True):
        rows = [Row.of(data, predictor.observe(data), now()) for data in PARTS]
        rows[-1].photograph = None
        found = DriftFinding(
            kind=DriftKind.IMAGE,
            feature="exposure",
            statistic="ks",
            value=0.6,
            p_value=1e-6 if drifted else 0.9,
            drifted=drifted,
        )
        window = DriftWindow(
            application="screw",
            model=model,
            outcome=WindowOutcome.DRIFTED if drifted else WindowOutcome.STABLE,
            photographs=len(rows),
            began_at=rows[0].taken_at,
            ended_at=rows[-1].taken_at,
            labels={"good": 3, "defective": 0},
            compares_labels=False,
            findings=(found,),
            drifting_since=rows[0].taken_at if drifted else None,
            examples=tuple(row.sha256 for row in rows[:-1]),
        )
        windows.keep(window, rows)
    return folder


@pytest.fixture(scope="module")
def url(folder: Path, model: ServedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with site(model, tmp_path_factory.mktemp("site"), windows=folder) as url:
        yield url


def test_the_latest_windows_come_first(url: str, model: ServedModel) -> None:
    answer = httpx.get(f"{url}/served/windows").raise_for_status().json()
    assert answer["watched"]
    last, first = answer["windows"]
    assert (last["outcome"], last["drifted"], last["model_version"]) == ("drifted", ["exposure"], model.version)
    assert last["drifting_since"] < last["ended_at"]
    assert (first["outcome"], first["drifted"], first["drifting_since"]) == ("stable", [], None)


def test_examples_are_the_photographs_themselves(url: str) -> None:
    examples = httpx.get(f"{url}/served/windows").json()["windows"][0]["examples"]
    answers = [httpx.get(f"{url}/served/windows/{sha256}") for sha256 in examples]
    assert [answer.content for answer in answers] == PARTS[:2]
    assert [answer.headers["content-type"] for answer in answers] == ["image/png", "image/jpeg"]
    assert {answer.headers["x-content-type-options"] for answer in answers} == {"nosniff"}


@pytest.mark.parametrize("sha256", ["0" * 64, "..%2F..%2Fsecret", "x"])
def test_what_no_window_has_is_not_found(url: str, sha256: str) -> None:
    answer = httpx.get(f"{url}/served/windows/{sha256}")
    assert answer.status_code == 404


def test_a_window_that_cannot_be_read_is_left_out(url: str, folder: Path) -> None:
    broken = folder / "20990101T000000.000000Z-0.json"
    broken.write_text("{")
    try:
        assert len(httpx.get(f"{url}/served/windows").json()["windows"]) == 2
    finally:
        broken.unlink()


def test_without_a_monitor_there_are_none(model: ServedModel, tmp_path: Path) -> None:
    with site(model, tmp_path) as url:
        assert httpx.get(f"{url}/served/windows").json() == {"watched": False, "windows": []}
