"""Small photographs for tests: drawn screws at half size, in Kaggle's layout, and a project that reads them."""

from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gitops.contracts.project import Project
from gitops.state import State
from ray_jobs.render import KINDS, render
from ray_jobs.stage import Stage
from serve.preprocess import Pixels


@cache
def screw(index: int, kind: str | None = None) -> Pixels:
    """A drawn screw, uint8, (512, 512)."""
    return np.asarray(cv2.resize(render(0, index, kind), (512, 512), interpolation=cv2.INTER_AREA), np.uint8)


def write_table(folder: Path, names: list[str]) -> None:
    """Write train.csv: what begins with ok is good."""
    rows = [f"{name},{int(not name.startswith('ok'))}\n" for name in names]
    (folder / "train.csv").write_text("filename,anomaly\n" + "".join(rows))


def write_folder(folder: Path, good: int, defective: int) -> list[str]:
    """Write a folder of screws in Kaggle's layout; every call draws the same ones.

    Returns:
        The file names.
    """
    kinds = [None] * good + [KINDS[index % len(KINDS)] for index in range(defective)]
    names = [f"{kind or 'ok'}{index:03d}.png" for index, kind in enumerate(kinds)]
    (folder / "train").mkdir(parents=True)
    for index, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        cv2.imwrite(str(folder / "train" / name), screw(index, kind))
    write_table(folder, names)
    return names


def stage_on(folder: Path, state: Path, **settings: Any) -> Stage:
    """A stage whose project reads `folder`; `settings` replace keys of the project."""
    data = {"source": "folder", "path": str(folder), "kind_pattern": r"^(?P<kind>[a-z_]+?)_?\d+\.\w+$"}
    project = Project.parse(
        {
            "name": "screw",
            "goal": "Sort screws.",
            "owner": "me",
            "classes": ["good", "defective"],
            "environments": ["local"],
            **settings,
            "data": data | settings.get("data", {}),
        },
        "a test's project",
    )
    return Stage(project, folder / "project.yaml", State.at(state))
