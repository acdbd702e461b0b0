"""Evidence on the photograph: it comes back through the straightening to where it belongs."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from gitops.contracts.model import EvidenceGrid
from gitops.contracts.project import Preprocessing
from serve.heatmap import Evidence, show
from serve.preprocess import Pixels, align

SETTINGS = Preprocessing(height=64, width=192)
CELL = 8
GRID = EvidenceGrid(stride=CELL, offset_x=(CELL - 1) / 2, offset_y=(CELL - 1) / 2)


def bar(angle: float, spot: tuple[float, float]) -> tuple[Pixels, NDArray[np.float64]]:
    """A photograph with a dark bar, one end heavier, a bright spot on it; and where the spot lies, (x, y)."""
    upright = np.full((400, 400), 220, np.uint8)
    cv2.rectangle(upright, (80, 185), (320, 215), 60, -1)
    cv2.rectangle(upright, (80, 165), (120, 235), 60, -1)
    cv2.circle(upright, (int(spot[0]), int(spot[1])), 6, 255, -1)
    matrix = cv2.getRotationMatrix2D((200, 200), angle, 0.9)
    turned = cv2.warpAffine(upright, matrix, (400, 400), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(turned, np.uint8), np.asarray(matrix @ np.array([*spot, 1.0]))


def brightest(photograph: Pixels) -> Evidence:
    """The evidence of a model that looks for what is bright on the part."""
    aligned = align(photograph, SETTINGS)
    assert aligned.part is not None
    # The two middle rows of cells hold nothing but the bar.
    cells = aligned.pixels[24:40, :, 0].astype(np.float32)
    middle = cells.reshape(16 // CELL, CELL, 192 // CELL, CELL).mean(axis=(1, 3))
    evidence = np.zeros((64 // CELL, 192 // CELL), np.float32)
    evidence[3:5, 2:-2] = middle[:, 2:-2]
    return show(photograph, aligned, evidence, GRID)


@pytest.mark.parametrize("angle", [0, 30, 90, 160, 250])
@pytest.mark.parametrize("spot", [(150.0, 200.0), (280.0, 195.0)])
def test_the_strongest_evidence_lies_on_the_spot(angle: float, spot: tuple[float, float]) -> None:
    photograph, place = bar(angle, spot)
    found = brightest(photograph)
    assert np.hypot(*(np.array(found.point) - place)) < 12  # a cell is 10 pixels wide here
    overlay = cv2.imdecode(np.frombuffer(found.overlay, np.uint8), cv2.IMREAD_COLOR)
    assert overlay is not None
    colour = np.ptp(overlay.astype(int), axis=2)
    hottest = np.array(np.unravel_index(cv2.blur(colour.astype(np.float32), (9, 9)).argmax(), colour.shape))[::-1]
    assert np.hypot(*(hottest - place)) < 25


def test_where_there_is_no_evidence_the_photograph_stays_as_it_is() -> None:
    photograph, _ = bar(20, (200.0, 200.0))
    found = show(photograph, align(photograph, SETTINGS), np.full((8, 24), -1.0, np.float32), GRID)
    overlay = cv2.imdecode(np.frombuffer(found.overlay, np.uint8), cv2.IMREAD_COLOR)
    assert overlay is not None
    assert np.array_equal(overlay, cv2.cvtColor(photograph, cv2.COLOR_GRAY2BGR))


def test_a_colour_photograph_keeps_its_colours() -> None:
    photograph = np.zeros((60, 80, 3), np.uint8)
    photograph[..., 0] = 200  # red, in RGB order
    settings = Preprocessing(align="none", height=32, width=48, channels=3)
    evidence = np.zeros((4, 6), np.float32)
    evidence[0, 0] = 5
    found = show(photograph, align(photograph, settings), evidence, GRID)
    overlay = cv2.imdecode(np.frombuffer(found.overlay, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert overlay is not None
    assert overlay[50, 70].tolist() == [200, 0, 0]
    assert found.strength == 5
    assert found.point[0] < 15
    assert found.point[1] < 15
