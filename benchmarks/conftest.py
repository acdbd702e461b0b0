"""What several benchmarks need: the real model, and what the record says of the machine."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from benchmarks.peers.judging import BUNDLE_VARIABLE
from gitops.contracts.project import Project
from gitops.state import State, usable_cores

ROOT = Path(__file__).parents[1]
STATE = State.at(ROOT / ".mergeline-benchmarks")
"""Where the real model is kept between runs."""
_PACKAGES = (
    "ray",
    "openvino",
    "opencv-python-headless",
    "kornia-rs",
    "simplejpeg",
    "numpy",
    "tensorflow-cpu",
    "keras",
    "fastapi",
    "uvicorn",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--peers", default="all", help="peers to compare serving with: all, none, or names with commas")


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    machine_info |= {
        "packages": versions,
        "cores": usable_cores(),
        "load": [round(value, 1) for value in os.getloadavg()],
    }


@pytest.fixture(scope="session")
def bundle() -> Path:
    """A bundle of the model that project.yaml makes, trained on drawn screws, or a bundle that is named.

    `MERGELINE_BENCHMARK_BUNDLE` names one. Speed and size do not depend on how well a network was trained, so one epoch
    and two folds do here.
    """
    if BUNDLE_VARIABLE in os.environ:
        return Path(os.environ[BUNDLE_VARIABLE])
    if not any(STATE.bundles.glob("*/manifest.json")):
        project = YAML(typ="safe").load((ROOT / "project.yaml").read_text())
        project["training"] = {**project.get("training", {}), "epochs": 1}
        project["cross_validation"] = {"folds": 2}
        STATE.root.mkdir(exist_ok=True)
        file = STATE.root / "project.yaml"
        file.write_text(Project.model_validate(project).to_json())
        command = [sys.executable, "-m", "ray_jobs.pipeline", "--project", str(file), "--state", str(STATE.root)]
        subprocess.run(command, check=True, cwd=ROOT)
    return next(STATE.bundles.glob("*/manifest.json")).parent
