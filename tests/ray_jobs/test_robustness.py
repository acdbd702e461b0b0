"""What happens to photographs: measured with a bundle whose answers are plain arithmetic."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from gitops.bundle import open_folder
from gitops.contracts.model import RobustnessSlice
from gitops.contracts.project import Preprocessing
from ray_jobs.robustness import VARIATIONS, measure
from serve.predictor import Predictor
from serve.preprocess import align
from tests.bundles import expected_score, make_bundle
from tests.photographs import screw

PHOTOGRAPHS = [cv2.imencode(".png", screw(index))[1].tobytes() for index in range(4)]
LABELS = np.array([0, 1, 0, 1])


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RobustnessSlice]:
    folder: Path = tmp_path_factory.mktemp("bundle") / "tiny"
    make_bundle(folder)
    return {found.variation: found for found in measure(Predictor.load(open_folder(folder)), PHOTOGRAPHS, LABELS)}


def test_every_variation_is_measured(slices: dict[str, RobustnessSlice]) -> None:
    assert list(slices) == [variation.name for variation in VARIATIONS]
    assert {found.images for found in slices.values()} == {4}


def test_less_light_is_what_a_bundle_that_measures_light_cannot_bear(slices: dict[str, RobustnessSlice]) -> None:
    assert slices["unchanged"].accuracy == 0.5  # screws on a light ground are bright: all are called good
    assert slices["turned by 180°"].parts_found == 1
    score = {name: _score(name) for name in slices}
    assert score["20 % darker"] > score["unchanged"] + 0.05
    assert score["20 % brighter"] < score["unchanged"] - 0.05
    assert score["JPEG quality 50"] == pytest.approx(score["unchanged"], abs=0.02)


def _score(name: str) -> float:
    """What the tiny bundle says of the first photograph: one minus its brightness, in short."""
    variation = next(item for item in VARIATIONS if item.name == name)
    return expected_score(align(variation.apply(screw(0)), Preprocessing(height=32, width=64)).pixels)


def test_where_no_part_is_looked_for_none_is_missed(tmp_path: Path) -> None:
    make_bundle(tmp_path / "tiny", align="none")
    found = measure(Predictor.load(open_folder(tmp_path / "tiny")), PHOTOGRAPHS, LABELS)
    assert {item.parts_found for item in found} == {None}


@pytest.mark.parametrize("variation", VARIATIONS, ids=lambda variation: variation.name)
def test_a_variation_keeps_size_and_type(variation) -> None:  # type: ignore[no-untyped-def]
    for pixels in (screw(0), np.repeat(screw(0)[..., None], 3, axis=2)):
        varied = variation.apply(pixels)
        assert (varied.shape, varied.dtype) == (pixels.shape, np.uint8)
        assert (variation.name == "unchanged") == np.array_equal(varied, pixels)
