"""Shows on the photograph where the evidence of a defect is."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gitops.contracts.model import EvidenceGrid
from serve.preprocess import Aligned, Pixels

_COLOURS = cv2.COLORMAP_INFERNO
# Colour begins at this share of the strongest evidence, and covers the photograph by at most so much.
_SHOWN_FROM, _OPACITY = 0.35, 0.6
# Measured on the screws (1024×1024): one filter for all lines is as small as the best for each, in 26 ms, not 48;
# the next useful level of zlib (3) would save a sixth and take twice as long again.
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG)


@dataclass(frozen=True)
class Evidence:
    """Where a model sees that a part is not good, in the photograph's own coordinates."""

    point: tuple[float, float]
    """x, y of the strongest evidence, in pixels."""
    strength: float
    """Its value, in the model's unit: standard deviations of good parts, where it has a memory of them."""
    overlay: bytes
    """PNG in colour, as large as the photograph."""


def show(photograph: Pixels, aligned: Aligned, evidence: NDArray[np.float32], grid: EvidenceGrid) -> Evidence:
    """Lay the evidence over the photograph; colours are relative to the strongest of this photograph.

    Args:
        photograph: uint8, (height, width) or (height, width, 3) in RGB order.
        aligned: the model's input that was cut out of it.
        evidence: float32, (rows, columns).
        grid: where its cells lie in the input.
    """
    to_photograph = _cells_to_photograph(aligned, grid)
    row, column = np.unravel_index(int(np.argmax(evidence)), evidence.shape)
    x, y = to_photograph @ np.array([column, row, 1.0])
    height, width = photograph.shape[:2]
    strongest = float(evidence[row, column])
    heat = cv2.warpAffine(
        np.maximum(evidence, 0.0),
        to_photograph,
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0.0,
    )
    share = np.clip(heat * np.float32(1 / max(strongest, 1e-6)), 0, 1)
    point = (float(np.clip(x, 0, width - 1)), float(np.clip(y, 0, height - 1)))
    return Evidence(point, strongest, _png(_blended(photograph, np.asarray(share, np.float32))))


def _cells_to_photograph(aligned: Aligned, grid: EvidenceGrid) -> NDArray[np.float64]:
    """2×3 affine matrix from a cell (column, row) of the evidence to the photograph."""
    to_input = np.array([[grid.stride, 0.0, grid.offset_x], [0.0, grid.stride, grid.offset_y], [0.0, 0.0, 1.0]])
    return np.asarray(aligned.to_photograph @ to_input)


def _blended(photograph: Pixels, share: NDArray[np.float32]) -> Pixels:
    """The photograph in colour (BGR order), with the heat over it."""
    gray = photograph.ndim == 2
    picture = cv2.cvtColor(photograph, cv2.COLOR_GRAY2BGR if gray else cv2.COLOR_RGB2BGR)
    # Only where there is something to show: most of a photograph stays as it is.
    x, y, width, height = cv2.boundingRect((share > _SHOWN_FROM).astype(np.uint8))
    if width and height:
        place = np.s_[y : y + height, x : x + width]
        level = (share[place] * 255).astype(np.uint8)
        alpha = np.clip((share[place][..., None] - _SHOWN_FROM) / (1 - _SHOWN_FROM), 0, 1) * np.float32(_OPACITY)
        colours = cv2.applyColorMap(level, _COLOURS)
        picture[place] = np.asarray(picture[place] * (1 - alpha) + colours * alpha, np.uint8)
    return np.asarray(picture, np.uint8)


def _png(picture: Pixels) -> bytes:
    return bytes(cv2.imencode(".png", picture, _PNG)[1].tobytes())
