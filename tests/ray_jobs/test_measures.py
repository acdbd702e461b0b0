import cv2
import numpy as np
import pytest

from gitops.manifest import Preprocessing
from ray_jobs.measures import Measures, dhash, measure, phash
from ray_jobs.split import FULL_BARS, HASH_SIDE
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


def test_colour_is_measured_like_its_gray() -> None:
    gray = screw(1)
    colour = np.asarray(cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB), np.uint8)
    aligned = align(colour, Preprocessing(channels=3))
    assert measure(colour, aligned) == measured(gray)
    assert dhash(aligned.pixels) == dhash(align(gray, Preprocessing()).pixels)
    assert phash(colour) == phash(gray)


def copies(photograph: Pixels) -> dict[str, Pixels]:
    shift = np.array([[1.0, 0, 3], [0, 1, -2]])
    small = cv2.resize(photograph, (384, 384), interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", photograph, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    made = {
        "recompressed": cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE),
        "brighter": np.clip(photograph.astype(int) + 12, 0, 255),
        "smaller": small,
        "shifted": cv2.warpAffine(photograph, shift, (512, 512), borderMode=cv2.BORDER_REPLICATE),
        "turned": cv2.rotate(photograph, cv2.ROTATE_90_CLOCKWISE),
    }
    return {name: np.asarray(copy, np.uint8) for name, copy in made.items()}


def test_hashes_tell_copies_from_others() -> None:
    def apart(first: Pixels, second: Pixels) -> tuple[float, float]:
        framing = int(phash(first), 16) ^ int(phash(second), 16)
        parts = [dhash(align(photograph, Preprocessing()).pixels) for photograph in (first, second)]
        turning = int(parts[0], 16) ^ int(parts[1], 16)
        return framing.bit_count() / HASH_SIDE**2, turning.bit_count() / HASH_SIDE**2

    for index in range(4):
        for name, copy in copies(screw(index)).items():
            framing, turning = apart(screw(index), copy)
            assert framing <= (FULL_BARS.photograph or 0) or turning <= (FULL_BARS.part or 0), name
        framing, turning = apart(screw(index), screw(index + 1))
        assert framing > (FULL_BARS.photograph or 0)
        assert turning > (FULL_BARS.part or 0)
