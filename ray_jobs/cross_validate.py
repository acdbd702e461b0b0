"""Cross-validate: how good is a model of this kind on images that it has not seen? The estimate that the gates believe.

python -m ray_jobs.cross_validate [--project project.yaml] [--state .mergeline]

Every training image is judged once, by a model that was trained as the served one is, on the other folds.
Near-duplicates share a fold. With a validation split each fold stops early on that, which none is judged on.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gitops.contracts.model import CrossValidationResult, OutOfFold
from gitops.errors import ContractError, TrainingError
from gitops.state import usable_cores, write_atomically
from ray_jobs.decoded import load_split
from ray_jobs.learner import Assignment, Images, Learner, Progress
from ray_jobs.stage import Run, Stage, arguments, open_stage, ray_session, recorded, report_progress, run_main
from ray_jobs.train import assigned_folds, one_at_a_time

# As for a training's workers, Ray counts little: two folds side by side on this machine, beside what is served.
_CPUS_PER_FOLD = 1.5


@recorded("cross_validate")
def cross_validate(stage: Stage, use_gpu: bool = False) -> CrossValidationResult | None:
    """Judge every training image by a model that has not seen it; the folds are Ray tasks.

    Folds that were finished before a stop are not repeated.

    Args:
        stage: project and state.
        use_gpu: one GPU for each fold.

    Returns:
        What is written to the run's `cross-validation.json`; None where the project asks for no folds.

    Raises:
        TrainingError: a fold cannot be trained.
        DataError: a class has fewer images than there are folds.
    """
    folds = stage.project.cross_validation.folds
    if folds == 0:
        print("cross-validate: the project asks for no folds: nothing to do", flush=True)
        return None
    run = stage.run()
    if (done := result_of(run, folds)) is not None:
        print(f"cross-validate: run {run.id} has its {folds} folds already: {run.cross_validation_file}", flush=True)
        return done
    groups, fold_of = assigned_folds(stage, run)
    report_progress(0, folds, "starting")
    with one_at_a_time(run), ray_session():
        run.folds_folder.mkdir(parents=True, exist_ok=True)
        predictions = _judge_all(stage, run, groups, fold_of, use_gpu)
    result = CrossValidationResult(
        dataset=run.dataset.digest,
        folds=folds,
        predictions=tuple(sorted(predictions, key=lambda prediction: prediction.filename)),
    )
    write_atomically(run.cross_validation_file, result.to_json())
    shutil.rmtree(run.folds_folder)
    right = np.mean([int(np.argmax(found.logits)) == found.label for found in result.predictions])
    print(f"cross-validate: accuracy {right:.4f} on {len(result.predictions)} images before the threshold is chosen")
    return result


def result_of(run: Run, folds: int) -> CrossValidationResult | None:
    """The result of so many folds, if the run has it; None for no folds."""
    if not folds or not run.cross_validation_file.exists():
        return None
    try:
        result = CrossValidationResult.read(run.cross_validation_file)
    except ContractError:  # an earlier version of Mergeline wrote it
        return None
    return result if result.folds == folds else None


def _judge_all(
    stage: Stage, run: Run, groups: NDArray[np.int64], fold_of: NDArray[np.int64], use_gpu: bool
) -> list[OutOfFold]:
    """Run the folds that have no file yet, as many at once as fit."""
    import ray

    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    if use_gpu and not resources.get("GPU"):
        raise TrainingError("--use-gpu was asked for, but this Ray has no GPU: leave it out, or use another cluster")
    cpus = min(_CPUS_PER_FOLD, resources.get("CPU", 1))
    folds = stage.project.cross_validation.folds
    at_once = min(folds, max(1, int(resources.get("CPU", 1) // cpus)))
    assignment = Assignment(
        dataset=run.dataset,
        dataset_folder=stage.state.datasets / run.dataset.digest,
        training=stage.project.training,
        groups=tuple(groups.tolist()) if stage.project.training.memory else (),
        run_folder=run.folder,
        threads=max(1, usable_cores() // at_once),
    )
    environment = {"env_vars": {"TF_CPP_MIN_LOG_LEVEL": "2"}}
    task: Any = ray.remote(num_cpus=cpus, num_gpus=int(use_gpu), runtime_env=environment)(judge_fold)
    files = {fold: run.folds_folder / f"{fold}-of-{folds}.json" for fold in range(folds)}
    waiting = [fold for fold, file in files.items() if _fold_in(file, run.dataset.digest) is None]
    running: dict[Any, int] = {}
    report_progress(folds - len(waiting), folds, f"{at_once} of {folds} folds side by side")
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                fold = waiting.pop(0)
                running[task.remote(assignment, fold_of, fold, use_gpu)] = fold
                report_progress(folds - len(waiting) - len(running), folds, f"fold {fold + 1} begins")
            (ready, *_), _ = ray.wait(list(running))
            fold = running.pop(ready)
            found = CrossValidationResult(dataset=run.dataset.digest, folds=folds, predictions=ray.get(ready))
            write_atomically(files[fold], found.to_json())
            done = folds - len(waiting) - len(running)
            report_progress(done, folds, f"fold {fold + 1} judged {len(found.predictions)} images")
    except ray.exceptions.RayError as error:
        reason = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
        raise TrainingError(f"a fold of run {run.id} failed: {reason}") from error
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
    return [found for file in files.values() for found in CrossValidationResult.read(file).predictions]


def _fold_in(file: Path, dataset: str) -> CrossValidationResult | None:
    """What a fold found before a stop; None if there is no such file, or one that cannot be used any more."""
    try:
        found = CrossValidationResult.read(file)
    except ContractError:
        return None
    return found if found.dataset == dataset else None


def judge_fold(
    assignment: Assignment, fold_of: NDArray[np.int64], fold: int, use_gpu: bool = False
) -> tuple[OutOfFold, ...]:
    """Train on the other folds, as a training does with one worker, and judge this one.

    Args:
        assignment: what to train.
        fold_of: (n,), the fold of each image of the training split, in the order of its shards.
        fold: the one to judge.
        use_gpu: train on the GPU that Ray gave to this process.
    """
    os.environ["TF_USE_LEGACY_KERAS"] = "0"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(assignment.threads)
    split = load_split(assignment.dataset_folder, assignment.dataset, "train")
    known, held_out = (Images.of(split, np.flatnonzero(chosen)) for chosen in (fold_of != fold, fold_of == fold))
    validation = None
    if any(assignment.dataset.counts["validation"].values()):
        validation = Images.of(load_split(assignment.dataset_folder, assignment.dataset, "validation"))
    learner = Learner(assignment, tf.distribute.OneDeviceStrategy("/gpu:0" if use_gpu else "/cpu:0"), 0, known)
    learner.prepare()
    progress, best = Progress(), learner.model.get_weights()
    while not progress.is_finished(assignment.training):
        metrics = learner.epoch(len(progress.epochs), validation)
        progress = Progress(epochs=(*progress.epochs, metrics))
        if progress.best_epoch == len(progress.epochs) - 1:
            best = learner.model.get_weights()
    learner.model.set_weights(best)
    judged = zip(held_out.rows.tolist(), learner.logits(held_out), strict=True)
    return tuple(
        OutOfFold(
            filename=split.filenames[row],
            label=int(split.labels[row]),
            kind=split.kinds[row],
            fold=fold,
            logits=tuple(logits.tolist()),
        )
        for row, logits in judged
    )


def main() -> None:
    """Run the stage as a program."""
    parser = arguments("Cross-validate the model on the training split.")
    parser.add_argument("--use-gpu", action="store_true", help="one GPU for each fold")
    options = parser.parse_args()
    cross_validate(open_stage(options), options.use_gpu)


if __name__ == "__main__":
    run_main(main)
