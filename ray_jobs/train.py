"""Train: Ray Train's TensorflowTrainer on a dataset, resumed from its last checkpoint wherever it was stopped.

python -m ray_jobs.train --project project.yaml --state .mergeline [--workers N] [--use-gpu]
"""

import json
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gitops.contracts.model import EpochMetrics, TrainingResult
from gitops.errors import ContractError, TrainingError
from gitops.state import locked, usable_cores, write_atomically
from ray_jobs import tracking
from ray_jobs.decoded import read_samples
from ray_jobs.learner import BEST_MODEL, LEAST_REMEMBERED, PROGRESS_FILE, Assignment, Progress, learn
from ray_jobs.split import Sample, assign_folds, groups_of_lookalikes
from ray_jobs.stage import Run, Stage, arguments, as_count, open_stage, ray_session, recorded, report_progress, run_main

if TYPE_CHECKING:
    from ray.train import Result
    from ray.train.v2.tensorflow.tensorflow_trainer import TensorflowTrainer

MODEL_FILE = "model.keras"
_CHECKPOINTS = "checkpoints"  # Ray Train's folder in the run's
_SNAPSHOT = "checkpoint_manager_snapshot.json"  # in it: Ray Train's list of checkpoints
_MAX_FAILURES = 3
# Training shares the machine with Serve's replicas: Ray counts little, TensorFlow's threads take what is free.
_CPUS_PER_WORKER = 0.5
_WATCH_SECONDS = 0.5


@recorded("train")
def train(stage: Stage, workers: int | None = None, use_gpu: bool = False) -> TrainingResult:
    """Train the model that the project asks for on its current dataset.

    A training that is finished is not repeated; one that was stopped goes on after its last epoch.

    Args:
        stage: project and state.
        workers: Ray Train workers; the project's number if None.
        use_gpu: one GPU for each worker.

    Returns:
        What is written to the run's `result.json`; the best epoch's model lies beside it.

    Raises:
        TrainingError: the settings do not fit the data or the workers, or training failed.
    """
    run, workers = stage.run(), workers or stage.project.training.workers
    with one_at_a_time(run):
        if run.result_file.exists():
            print(f"run {run.id} is trained already: {run.folder / MODEL_FILE}", flush=True)
            return TrainingResult.read(run.result_file)
        _check(stage, run, workers)
        groups = _checked_groups(stage, run)
        report_progress(
            0, stage.project.training.epochs, f"starting {workers} worker(s), which prepare the model first"
        )
        mlflow_run = tracking.start_or_resume_run(stage, run)
        with ray_session(), _reported(stage, run, mlflow_run):
            progress = _fit(_trainer(stage, run, groups, workers, use_gpu), run)
            if not progress.is_finished(stage.project.training):  # Ctrl-C: Ray Train ends as if all were well
                raise TrainingError(
                    f"run {run.id} was stopped after epoch {len(progress.epochs)}: run it again to go on"
                )
            _keep_best(run)
        result = TrainingResult(
            dataset=run.dataset.digest,
            mlflow_run_id=mlflow_run,
            checkpoint=MODEL_FILE,
            best_epoch=progress.best_epoch,
            epochs=progress.epochs,
            workers=workers,
            training=stage.project.training,
            restarts=progress.restarts,
        )
        write_atomically(run.result_file, result.to_json())
        report_progress(1, 1, f"the best of {len(result.epochs)} epochs was epoch {result.best_epoch + 1}")
        return result


@contextmanager
def one_at_a_time(run: Run) -> Iterator[None]:
    """Hold the run's lock: two trainings would write the same checkpoints, two cross-validations the same folds.

    Raises:
        TrainingError: another process holds it.
    """
    with ExitStack() as held:
        try:
            held.enter_context(locked(run.folder / "lock", wait=False))
        except BlockingIOError:
            raise TrainingError(f"run {run.id} is being trained by another process: wait for it, or stop it") from None
        yield


def _check(stage: Stage, run: Run, workers: int) -> None:
    """What would only fail in the workers, minutes later."""
    batch, images = stage.project.training.batch_size, run.dataset.counts
    if batch % workers:
        raise TrainingError(
            f"a global batch of {batch} images cannot be shared by {workers} workers: choose a number of "
            "workers that divides `training.batch_size`"
        )
    if sum(images.get("train", {}).values()) < batch:
        raise TrainingError(
            f"dataset {run.dataset.digest[:12]} has fewer training images than a batch ({batch}): "
            "add photographs, or lower `training.batch_size`"
        )
    if not sum(images.get("validation", {}).values()) and not stage.project.cross_validation.folds:
        raise TrainingError(f"dataset {run.dataset.digest[:12]} has no validation images: raise `split.validation`")


def _checked_groups(stage: Stage, run: Run) -> tuple[int, ...]:
    """The group of look-alikes of each training image: of them a memory keeps one; none where there is no memory."""
    if stage.project.cross_validation.folds:
        assigned_folds(stage, run)  # else the training would be in vain
    if stage.project.training.memory is None:
        return ()
    samples, groups = _lookalikes(stage, run)
    _check_memory(run, samples, groups, np.ones(len(groups), bool))
    return tuple(groups.tolist())


def _lookalikes(stage: Stage, run: Run) -> tuple[list[Sample], NDArray[np.int64]]:
    """The training images, and the group of look-alikes of each, (n,)."""
    samples = read_samples(stage.state.datasets / run.dataset.digest, run.dataset, "train")
    return samples, groups_of_lookalikes(samples, run.dataset.lookalikes)


def assigned_folds(stage: Stage, run: Run) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The group of look-alikes and the fold of each training image, (n,) each.

    Raises:
        TrainingError: without a fold there would be too little to train on.
        DataError: a class has fewer images than there are folds.
    """
    folds, training = stage.project.cross_validation.folds, stage.project.training
    samples, groups = _lookalikes(stage, run)
    fold_of = np.array(assign_folds(samples, groups, run.dataset.classes, folds, stage.project.split.seed))
    least = int(len(fold_of) - np.bincount(fold_of).max())
    if least < training.batch_size:
        raise TrainingError(
            f"without a fold, dataset {run.dataset.digest[:12]} has {least} training images, fewer than a batch "
            f"({training.batch_size}): add photographs, or lower `training.batch_size`"
        )
    if training.memory:
        for fold in range(folds):
            _check_memory(run, samples, groups, fold_of != fold, f"without fold {fold + 1}, ")
    return groups, fold_of


def _check_memory(
    run: Run, samples: list[Sample], groups: NDArray[np.int64], trained: NDArray[np.bool_], when: str = ""
) -> None:
    good = np.array([sample.label == run.dataset.classes[0] for sample in samples])
    count = len(np.unique(groups[good & trained]))
    if count < LEAST_REMEMBERED:
        raise TrainingError(
            f"a memory needs {LEAST_REMEMBERED} good training images that differ, or more, and {when}dataset "
            f"{run.dataset.digest[:12]} has {count}: add photographs, or take out `training.memory`"
        )


def _trainer(stage: Stage, run: Run, groups: tuple[int, ...], workers: int, use_gpu: bool) -> "TensorflowTrainer":
    # ray.train and ray.train.tensorflow export the same; only from here they have the types of version 2.
    from ray.train.v2.api.config import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.v2.tensorflow.tensorflow_trainer import TensorflowTrainer

    assignment = Assignment(
        dataset=run.dataset,
        dataset_folder=stage.state.datasets / run.dataset.digest,
        training=stage.project.training,
        groups=groups,
        run_folder=run.folder,
        threads=max(1, usable_cores() // workers),
    )
    return TensorflowTrainer(
        learn,
        train_loop_config={"assignment": assignment},
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=use_gpu, resources_per_worker={"CPU": _CPUS_PER_WORKER, "GPU": int(use_gpu)}
        ),
        run_config=RunConfig(
            name=_CHECKPOINTS,
            storage_path=str(run.folder),
            failure_config=FailureConfig(max_failures=_MAX_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=1),  # it holds the best model as well
            worker_runtime_env={"env_vars": {"TF_CPP_MIN_LOG_LEVEL": "2"}},
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )


def _fit(trainer: "TensorflowTrainer", run: Run) -> Progress:
    """Run the training until it ends or is stopped, and say how far it came."""
    from ray.train import TrainingFailedError

    discard_unreadable_checkpoints(run)
    try:
        with _own_signals():
            result: Result = trainer.fit()
    except TrainingFailedError as error:
        raise TrainingError(f"training of run {run.id} failed {_MAX_FAILURES + 1} times: {error}") from error
    if result.checkpoint is None:
        return Progress()
    with result.checkpoint.as_directory() as folder:
        temporary = run.folder / f".{MODEL_FILE}"
        shutil.copyfile(Path(folder) / BEST_MODEL, temporary)
        return Progress.read(Path(folder) / PROGRESS_FILE)


def _keep_best(run: Run) -> None:
    """Give the best epoch's model its name, now that no better one can come."""
    (run.folder / f".{MODEL_FILE}").replace(run.folder / MODEL_FILE)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Take Ctrl-C back after Ray Train, whose handler would end a later stage with exit status 0."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def discard_unreadable_checkpoints(run: Run) -> None:
    """Begin anew where Ray Train would refuse to go on: its list was cut off, or another version of Ray wrote it."""
    import ray

    snapshot = run.folder / _CHECKPOINTS / _SNAPSHOT
    if not snapshot.exists():
        return
    try:
        if json.loads(snapshot.read_text())["ray_version"] == ray.__version__:
            return
        reason = "another version of Ray wrote them"
    except (json.JSONDecodeError, KeyError):
        reason = "their list is damaged"
    print(f"run {run.id} begins anew, its checkpoints cannot be used: {reason}", flush=True)
    shutil.rmtree(snapshot.parent)


@contextmanager
def _reported(stage: Stage, run: Run, mlflow_run: str) -> Iterator[None]:
    """Tell the log and MLflow of each epoch while the block runs, and MLflow how it ended."""
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(stage, run, mlflow_run, ended), daemon=True)
    watcher.start()
    status = tracking.FAILED
    try:
        yield
        status = tracking.FINISHED
    finally:
        ended.set()
        watcher.join()
        tracking.finish_run(stage.state, mlflow_run, status)


def _watch(stage: Stage, run: Run, mlflow_run: str, ended: threading.Event) -> None:
    """Follow the file in which the first worker writes every epoch: Ray would put its own prefix before its output."""
    logged, last = tracking.logged_epochs(stage.state, mlflow_run), False
    while not last:
        last = ended.wait(_WATCH_SECONDS)  # once more after the end, for the last epoch
        try:
            epochs = Progress.read(run.folder / PROGRESS_FILE).epochs
        except ContractError:
            continue  # no epoch is done yet
        if len(epochs) <= logged:
            continue
        tracking.log_epochs(stage.state, mlflow_run, epochs[logged:])
        for figures in epochs[logged:]:
            report_progress(figures.epoch + 1, stage.project.training.epochs, _text(figures))
        logged = len(epochs)


def _text(figures: EpochMetrics) -> str:
    validation = ""
    if figures.validation_loss is not None:
        validation = f"validation loss {figures.validation_loss:.4f}, accuracy {figures.validation_accuracy:.3f}, "
    return f"loss {figures.loss:.4f}, {validation}{figures.seconds:.1f} s"


def main() -> None:
    """Read the options, and train."""
    parser = arguments("Train the model on the project's current dataset.")
    parser.add_argument("--workers", type=as_count, help="Ray Train workers (the project's number)")
    parser.add_argument("--use-gpu", action="store_true", help="one GPU for each worker")
    options = parser.parse_args()
    train(open_stage(options), options.workers, options.use_gpu)


if __name__ == "__main__":
    run_main(main)
