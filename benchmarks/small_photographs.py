"""Many small photographs, drawn fast: noise, and a blob where the part is defective. No two look alike."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ray_jobs.stage import Stage
from tests.photographs import stage_on

SIDE = 64
DEFECTIVE = 0.25
"""Share of the photographs that show a defect."""


def write_photographs(folder: Path, count: int) -> None:
    """Write PNG files, SIDE × SIDE, 8-bit gray, into one folder a class; the same count draws the same ones."""
    for name in ("good", "defective"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        random = np.random.default_rng(number)
        pixels = random.integers(60, 200, (SIDE, SIDE), dtype=np.uint8)
        bad = number < count * DEFECTIVE
        if bad:
            x, y = random.integers(12, SIDE - 12, 2).tolist()
            cv2.circle(pixels, (x, y), 8, 0, -1)
        cv2.imwrite(str(folder / ("defective" if bad else "good") / f"{number:06d}.png"), pixels)


def stage_in(folder: Path, count: int, **settings: Any) -> Stage:
    """A stage under `folder` on so many photographs, which are drawn; `settings` are keys of the project."""
    write_photographs(folder / "photographs", count)
    stage = stage_on(folder / "photographs", folder / "state", **settings)
    stage.project_file.write_text(stage.project.to_json())  # JSON is YAML; the line as a program reads it
    return stage
