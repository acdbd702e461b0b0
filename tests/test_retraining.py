"""The loop, end to end: the line drifts, an alert asks, people label, a branch comes, and its merge ends the alert."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from gitops.repository import MAIN, Repository
from gitops.state import State
from ray_jobs import cluster, monitor, render, retrain
from serve.windows import windows_below
from tests.line import Line
from tests.monitoring.hurry import in_a_hurry

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, (monitor.PROMETHEUS, monitor.ALERTMANAGER))),
    reason="Prometheus and Alertmanager are not installed: `make test`",
)
PROJECT = """\
name: nut
goal: Prove that the loop closes.
owner: tests@localhost
classes: [good, defective]
data: {{source: rendered, rendered_images: 120, rendered_defective_share: 0.4}}
preprocessing: {{height: 64, width: 192}}
split: {{validation: 0, test: 0.2}}
cross_validation: {{folds: 3}}
training: {{backbone: small_cnn, weights: none, head: fitted, epochs: {epochs}, backbone_rate: 0, batch_size: 8}}
gates:
  - {{metric: accuracy, min: {bar}}}
environments: [local]
"""
DIMMER = 0.6
DEADLINE_SECONDS = 240


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """A line whose monitor is handed every photograph."""
    line = Line(tmp_path_factory.mktemp("loop"), cluster.free_port(0), PROJECT)
    line.write_project(epochs=1)
    try:
        line.run("up", "--port", str(line.port))
        hurry(line)
        yield line
    finally:
        cluster.stop(State.at(line.folder / ".mergeline"))


def hurry(line: Line) -> None:
    """Change `args` by a commit, as anything that is served."""
    repository = Repository(line.folder / ".mergeline/deployments.git")
    path, tip = "gitops/environments/local/serve-config.yaml", repository.fetch(MAIN).id
    text = re.sub(r"( +)(windows: .*)", r"\1\2\n\1sample_seconds: 0", repository.read(tip, path))
    assert "sample_seconds" in text
    repository.commit(tip, "hurry", {path: text}, "Look at every photograph\n")
    repository.merge("hurry", MAIN, "Merge hurry")
    line.await_version("1")


@pytest.fixture(scope="module")
def state(line: Line) -> State:
    return State.at(line.folder / ".mergeline")


@pytest.fixture(scope="module")
def watcher(line: Line, state: State) -> Iterator[str]:
    """`mergeline retrain --watch`, as a user leaves it running; its URL for alerts."""
    command = [sys.executable, "-m", "mergeline", "retrain", "--watch", "--port", "0", "--hours", "0.001"]
    with (line.folder / "watcher.log").open("w") as log:
        process = subprocess.Popen(command, cwd=line.folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        url = until(lambda: re.search(r"--webhook ([^\s`]+)", (line.folder / "watcher.log").read_text()))
        yield url[1]
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def watched(line: Line, state: State, watcher: str) -> Iterator[None]:
    with in_a_hurry(line.folder):
        monitor.up(state, webhook=watcher)
        try:
            yield
        finally:
            monitor.down(state)


def until(reached: Callable[[], Any], act: Callable[[], None] = lambda: time.sleep(0.5)) -> Any:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := reached()):
        assert time.monotonic() < deadline
        act()
    return found


def photographs(folder: Path, light: float) -> list[bytes]:
    """Parts that the model has not seen, lit otherwise."""
    render.write(folder, 120, 0.4, seed=7)
    made = []
    for file in sorted(folder.rglob("*.png")):
        pixels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        assert pixels is not None
        made.append(cv2.imencode(".png", np.asarray(pixels * light, np.uint8))[1].tobytes())
    return made


def firing(state: State) -> set[str]:
    return {alert.name for alert in monitor.status(state).alerts if alert.state == "firing"}


@pytest.mark.usefixtures("watched")
@pytest.mark.timeout(1200)
def test_drift_ends_in_a_pull_request_and_its_merge_ends_the_alert(line: Line, state: State) -> None:
    repository = Repository(state.repository)

    def show(light: float) -> Callable[[], None]:
        parts = photographs(line.folder / "parts", light)

        def ask() -> None:
            with httpx.Client(trust_env=False, timeout=30) as client:
                for part in parts:
                    assert client.post(f"{line.url}/predict", content=part).status_code == 200

        return ask

    # The lamp gets dimmer: a window of it has drifted, an alert fires, and asks.
    until(lambda: any(window.outcome == "drifted" for window in windows_below(state.windows / "local")), show(DIMMER))
    asked = until(lambda: retrain.requested(state, "nut"))
    assert asked.text == "alert MergelineDrift on version 1: what nut is shown has changed"
    assert "MergelineDrift" in firing(state)
    # Nothing is new for a training yet, so nothing is proposed.
    until(lambda: (last := retrain.latest(state, "nut")) and last.outcome == "unchanged")
    assert retrain.requested(state, "nut"), "it goes on asking"

    # Somebody labels what the windows kept; the retraining begins by itself, and ends in a branch.
    line.run("label", "export", "tasks.json", "--windows", ".mergeline/windows/local")
    tasks = json.loads((line.folder / "tasks.json").read_text())
    for task in tasks:
        task["annotations"] = [{"completed_by": 1, "result": task["predictions"][0]["result"]}]
    (line.folder / "labelled.json").write_text(json.dumps(tasks))
    line.run("label", "import", "labelled.json")
    last = until(lambda: (last := retrain.latest(state, "nut")) and last.outcome == "proposed" and last)
    assert "promote/local/nut-2" in last.message
    assert retrain.requested(state, "nut") is None
    commit = repository.fetch("promote/local/nut-2")
    message = subprocess.run(
        ["git", "-C", str(state.repository), "log", "-1", "--format=%B", commit.id],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "Retrained: alert MergelineDrift on version 1: what nut is shown has changed." in message
    assert f"{len(tasks)} added (dataset of nut 1)" in message
    assert "that came since" in message
    line.await_version("1")
    assert "MergelineDrift" in firing(state), "no more than that: nobody has merged it yet"

    # Somebody merges it; the new version is served, and what the old one saw is over.
    line.run("promote", "2", "--to", "local", "--merge")
    line.await_version("2")
    until(lambda: "MergelineDrift" not in firing(state), show(1.0))
