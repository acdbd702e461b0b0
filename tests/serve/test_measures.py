import cv2
import numpy as np
import pytest

from gitops.contracts.project import Preprocessing
from serve.measures import Measures, measure
from serve.preprocess import Pixels, align
from tests.photographs import screw


def measured(photograph: Pixels, align_by: str = "foreground") -> Measures:
    return measure(photograph, align(photograph, Preprocessing(align=align_by)))  # type: ignore[arg-type]


def test_size_exposure_contrast_and_clipping() -> None:
    picture = np.full((100, 200), 10, np.uint8)
    picture[:, :100] = 250
    picture[:10, :20] = 255
    found = measured(picture, "none")
    assert (found.width, found.height) == (200, 100)
    assert found.exposure == pytest.approx(picture.mean())
    assert found.contrast == pytest.approx(picture.std())
    assert found.clipped == pytest.approx(0.01)


def test_sharpness_falls_with_blur() -> None:
    values = [
        measured(np.asarray(cv2.GaussianBlur(screw(0), (0, 0), blur), np.uint8)).sharpness
        for blur in (0.5, 1.0, 2.0, 4.0)
    ]
    assert values == sorted(values, reverse=True)
    assert values[0] > 20 > values[-1]


def test_the_part_is_measured() -> None:
    picture = np.full((400, 400), 200, np.uint8)
    cv2.rectangle(picture, (100, 180), (299, 219), 80, -1)
    found = measured(picture)
    assert found.part_found == 1
    assert found.part_area == pytest.approx(200 * 40 / 400**2, rel=0.1)
    assert found.part_length == pytest.approx(200, abs=6)
    assert found.part_breadth == pytest.approx(40, abs=6)
    assert abs(found.part_angle) % 180 == pytest.approx(0, abs=1)


def test_no_part_is_no_area() -> None:
    found = measured(np.full((100, 100), 200, np.uint8))
    assert (found.part_found, found.part_area, found.part_length) == (0, 0, 0)


def test_where_the_part_lies_is_a_share_of_the_photograph() -> None:
    picture = np.full((400, 800), 200, np.uint8)
    cv2.rectangle(picture, (500, 80), (699, 119), 80, -1)
    found = measured(picture)
    assert [found.part_x, found.part_y] == pytest.approx([0.75, 0.25], abs=0.01)


@pytest.mark.parametrize("deviation", [1.0, 3.0, 6.0])
def test_noise_is_measured_beside_a_part_and_on_uneven_light(deviation: float) -> None:
    slope = np.linspace(120, 200, 400)[None, :].repeat(300, axis=0)
    cv2.rectangle(slope, (100, 120), (299, 159), 60, -1)
    noisy = slope + np.random.default_rng(0).normal(0, deviation, slope.shape)
    assert measured(np.rint(noisy).astype(np.uint8)).noise == pytest.approx(deviation, rel=0.1)


def test_an_image_of_a_pixel_has_no_noise() -> None:
    assert measured(np.full((1, 1), 7, np.uint8), "none").noise == 0


def test_colour_is_measured_like_its_gray() -> None:
    gray = screw(1)
    colour = np.asarray(cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB), np.uint8)
    aligned = align(colour, Preprocessing(channels=3))
    assert measure(colour, aligned) == measured(gray)
