"""How a bundle bears what happens to cameras: less light, a soft lens, a turned part, a compressed file."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gitops.contracts.model import RobustnessSlice
from gitops.state import usable_cores
from serve.predictor import GOOD, Predictor, decide, scores_of
from serve.preprocess import Pixels, align, decode

UNCHANGED = "unchanged"
"""The slice that the others are read against."""


@dataclass(frozen=True)
class Variation:
    """Something that happens to a photograph."""

    name: str
    apply: Callable[[Pixels], Pixels]


def _lit(share: float) -> Callable[[Pixels], Pixels]:
    return lambda pixels: np.clip(pixels.astype(np.float32) * share, 0, 255).astype(np.uint8)


def _blurred(deviation: float) -> Callable[[Pixels], Pixels]:
    """Gaussian blur; the deviation is in pixels of a photograph whose longer side has 1024."""

    def blur(pixels: Pixels) -> Pixels:
        return np.asarray(cv2.GaussianBlur(pixels, (0, 0), deviation * max(pixels.shape[:2]) / 1024), np.uint8)

    return blur


def _turned(degrees: float) -> Callable[[Pixels], Pixels]:
    def turn(pixels: Pixels) -> Pixels:
        height, width = pixels.shape[:2]
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
        return np.asarray(cv2.warpAffine(pixels, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)

    return turn


def _compressed(quality: int) -> Callable[[Pixels], Pixels]:
    def compress(pixels: Pixels) -> Pixels:
        data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), np.uint8)

    return compress


VARIATIONS = (
    Variation(UNCHANGED, lambda pixels: pixels),
    Variation("20 % darker", _lit(0.8)),
    Variation("20 % brighter", _lit(1.2)),
    Variation("blurred by 1 px", _blurred(1)),
    Variation("blurred by 2 px", _blurred(2)),
    Variation("turned by 17°", _turned(17)),
    Variation("turned by 180°", _turned(180)),
    Variation("JPEG quality 50", _compressed(50)),
    Variation("JPEG quality 20", _compressed(20)),
)
"""What is tried. A turn may push a part that lies near the rim out of the picture."""


def measure(predictor: Predictor, photographs: Sequence[bytes], labels: NDArray[np.integer]) -> list[RobustnessSlice]:
    """Judge varied photographs, from decoding on as the service does.

    Args:
        predictor: the bundle.
        photographs: the bytes of image files, n of them.
        labels: (n,), indices of classes; there must be good ones and others.

    Returns:
        One slice a variation, in the order of VARIATIONS.
    """
    from sklearn.metrics import roc_auc_score

    settings, threshold = predictor.manifest.preprocessing, predictor.manifest.threshold.value

    def judge(data: bytes) -> tuple[NDArray[np.float32], list[bool]]:
        pixels = decode(data, settings.channels)
        aligned = [align(variation.apply(pixels), settings) for variation in VARIATIONS]
        return predictor.predict(np.stack([item.pixels for item in aligned])), [bool(item.part) for item in aligned]

    with ThreadPoolExecutor(usable_cores()) as pool:
        probabilities, found = zip(*pool.map(judge, photographs), strict=True)
    slices = []
    for number, variation in enumerate(VARIATIONS):
        judged = np.stack([rows[number] for rows in probabilities])
        slices.append(
            RobustnessSlice(
                variation=variation.name,
                images=len(labels),
                accuracy=float(np.mean(decide(judged, threshold) == labels)),
                auroc=float(roc_auc_score(labels != GOOD, scores_of(judged))),
                parts_found=float(np.mean([flags[number] for flags in found])) if settings.align != "none" else None,
            )
        )
    return slices
