import cv2
import numpy as np

from gitops.contracts.project import Preprocessing
from ray_jobs.measures import dhash, phash
from ray_jobs.split import FULL_BARS, HASH_SIDE
from serve.preprocess import Pixels, align
from tests.photographs import screw


def test_colour_has_the_hashes_of_its_gray() -> None:
    gray = screw(1)
    colour = np.asarray(cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB), np.uint8)
    aligned = align(colour, Preprocessing(channels=3))
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
