"""Training with real Ray Train workers: they move alike, one moves as two do, and a killed one is replaced."""

import dataclasses
import threading
from pathlib import Path

import psutil
import pytest

from gitops.contracts.base import Split
from gitops.contracts.model import EpochMetrics, TrainingResult
from gitops.contracts.project import Augmentation, Memory, Training
from ray_jobs.learner import PROGRESS_FILE, Progress
from ray_jobs.stage import Stage
from ray_jobs.train import MODEL_FILE, train
from tests.stages import make_stage

pytestmark = [
    pytest.mark.usefixtures("ray_local"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
]

# All that a training can do at once: a memory, a fitted head, gradients in what lies above the memory.
TRAINING = Training(
    backbone="small_cnn",
    weights="none",
    head="fitted",
    memory=Memory(images=8, dimensions=4),
    epochs=12,  # enough for a worker to be killed in their middle
    patience=12,
    frozen_epochs=1,
    learning_rate=1e-3,
    backbone_rate=0.3,
    dropout=0.2,
    augmentation=Augmentation(place=0.3, light=0.3, lens=0.3),
    batch_size=8,
)
SIZES: dict[Split, dict[str, int]] = {
    "train": {"good": 20, "defective": 14},
    "validation": {"good": 9, "defective": 6},
    "test": {"good": 2, "defective": 2},
}
# Sums over one worker's images, or over two workers' sums: float32 rounds them differently, and steps add up. Measured
# over these twelve epochs: one worker's losses differ from two's by 1.5e-7 of them at most. This is seventy times that,
# for processors that round otherwise; workers that saw other batches, or variations, differ in the second digit.
TOLERANCE = 1e-5


def stage_in(root: Path) -> Stage:
    stage = make_stage(root, sizes=SIZES)
    return dataclasses.replace(stage, project=stage.project.model_copy(update={"training": TRAINING}))


def losses(epochs: tuple[EpochMetrics, ...]) -> list[float]:
    return [value for epoch in epochs for value in (epoch.loss, epoch.validation_loss or 0.0)]


def is_worker(process: psutil.Process) -> bool:
    """Whether it is one of Ray Train's; what other tests have left, and nobody has waited for, is none."""
    try:
        return "RayTrainWorker" in process.name() + " ".join(process.cmdline())
    except psutil.Error:
        return False


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> tuple[Stage, TrainingResult]:
    """A training on two workers, of which one is killed in the middle."""
    stage = stage_in(tmp_path_factory.mktemp("two"))
    killed: list[int] = []
    ended = threading.Event()

    def kill_a_worker() -> None:
        file = stage.run().folder / PROGRESS_FILE
        # Three epochs: by then Ray Train has heard of a checkpoint, which it does a little after it was written.
        while not (file.exists() and len(Progress.read(file).epochs) >= 3):
            if ended.wait(0.05):
                return
        worker = next(process for process in psutil.Process().children(recursive=True) if is_worker(process))
        worker.kill()
        killed.append(worker.pid)

    thread = threading.Thread(target=kill_a_worker)
    thread.start()
    try:
        result = train(stage, workers=2)
    finally:
        ended.set()
        thread.join()
    assert killed
    return stage, result


def test_two_workers_have_the_same_weights_after_every_epoch(interrupted: tuple[Stage, TrainingResult]) -> None:
    _, result = interrupted
    # The training itself compares them, and fails if they differ: a digest says that it has.
    assert [epoch.epoch for epoch in result.epochs] == list(range(12))
    assert all(epoch.weights for epoch in result.epochs)
    assert len({epoch.weights for epoch in result.epochs}) == 12
    assert result.workers == 2


def test_a_killed_worker_is_replaced_and_training_goes_on_from_the_last_checkpoint(
    interrupted: tuple[Stage, TrainingResult],
) -> None:
    stage, result = interrupted
    assert result.restarts == 1
    assert (stage.run().folder / MODEL_FILE).exists()
    assert Progress.read(stage.run().folder / PROGRESS_FILE).restarts == 1


def test_one_worker_has_the_loss_curve_of_two_even_when_they_were_interrupted(
    interrupted: tuple[Stage, TrainingResult], tmp_path: Path
) -> None:
    one = train(stage_in(tmp_path), workers=1)
    assert losses(one.epochs) == pytest.approx(losses(interrupted[1].epochs), rel=TOLERANCE)
