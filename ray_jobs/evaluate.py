"""Evaluate: the very bundle that will be served, on the split that nothing was fitted to.

python -m ray_jobs.evaluate [--project project.yaml] [--state .mergeline]
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gitops import bundle
from gitops.contracts.model import (
    BundleManifest,
    CrossValidationResult,
    EvaluationReport,
    OutOfFoldEstimate,
    Prediction,
    RobustnessSlice,
    TrainingResult,
)
from gitops.contracts.project import ESTIMATE_PREFIX
from gitops.errors import ContractError, DataError, TrainingError
from gitops.evidence import wilson
from gitops.state import folder_written_whole, usable_cores, write_atomically
from ray_jobs import evaluation_page, pictures, robustness, tracking
from ray_jobs.cross_validate import result_of
from ray_jobs.dataset import read_listing, read_photograph
from ray_jobs.decision import calibrated_probabilities
from ray_jobs.decoded import SplitImages, load_split
from ray_jobs.stage import Run, Stage, arguments, open_stage, recorded, report_progress, run_main
from serve.predictor import GOOD, Predictor, decide, scores_of
from serve.preprocess import ImageError

DETAILS = "evaluation"
"""Folder beside the report, and of the MLflow run's artifacts: predictions and pictures."""
_INPUTS = "evaluation.inputs"
PREDICTIONS, PAGE = "predictions.jsonl", "report.html"
VARIED_IMAGES = 120
"""Most photographs that are varied for the robustness slices."""
CALIBRATION_BINS = 10
METRIC_PREFIX = "test_"
"""Of the metrics' names in MLflow, where those of the training stand beside them."""

Floats = NDArray[np.float64]
Labels = NDArray[np.integer]


@recorded("evaluate")
def evaluate(stage: Stage) -> EvaluationReport:
    """Judge the test split with the current run's bundle.

    Returns:
        What is written to the run's `evaluation.json`; predictions and pictures lie in `evaluation/` beside it, and
        in MLflow.

    Raises:
        TrainingError: there is no bundle yet.
        BundleError: the bundle cannot be loaded.
        DataError: the test split lacks good or other images.
    """
    run = stage.run()
    digest = bundle_of(run)
    gates = [gate.model_dump() for gate in stage.project.gates]  # the page shows them
    inputs = run.inputs_of(digest, stage.project.cross_validation.model_dump(), gates)
    if (done := evaluation_of(run, digest)) is not None and _read(run.folder / _INPUTS) == inputs:
        print(f"evaluate: bundle {digest[:12]} is evaluated already: {run.evaluation_file}; nothing to do")
        return done
    predictor = Predictor.load(bundle.verify(stage.state.bundles / digest, digest), threads=usable_cores())
    test = load_split(stage.state.datasets / run.dataset.digest, run.dataset, "test")
    _check(test, run)
    report_progress(0, 3, f"judging {len(test.labels)} images")
    probabilities = predictor.predict(test.images)
    report = assess(predictor, test, probabilities)
    if predictor.inference_precision != "f32":
        exact = Predictor.load(predictor.bundle, threads=usable_cores(), inference_precision="f32")
        changed = bf16_metrics(exact.predict(test.images), probabilities, report.threshold.value)
        report = report.model_copy(update={"metrics": report.metrics | changed})
    if (folds := result_of(run, stage.project.cross_validation.folds)) is not None:
        report = with_estimate(report, folds, predictor.manifest)
    report_progress(1, 3, "varying the photographs")
    report = report.model_copy(update={"robustness": _robustness(stage, predictor, test)})
    report_progress(2, 3, "drawing")
    details = run.folder / DETAILS
    with folder_written_whole(details, replace=True) as folder:  # there may be one of another bundle
        predictions = _predictions(report, predictor, test, probabilities)
        (folder / PREDICTIONS).write_text("".join(line.model_dump_json() + "\n" for line in predictions))
        pictures.save(report, predictions, test.images, run.dataset.classes, folder)
        earlier = [version for version in stage.state.versions(stage.project.name) if version.model.sha256 != digest]
        page = evaluation_page.render(stage.project, predictor, report, predictions, test.images, folder, earlier)
        (folder / PAGE).write_text(page)
    _log(stage, run, report, details)
    write_atomically(run.folder / _INPUTS, inputs)
    write_atomically(run.evaluation_file, report.to_json())  # last: it says that all the rest is there
    report_progress(3, 3, "evaluated")
    print(f"evaluate: bundle {digest[:12]}: {summary(report, stage.project.measurement)}")
    print(f"evaluate: wrote {details / PAGE}")
    return report


def bundle_of(run: Run) -> str:
    """The digest of the run's bundle.

    Raises:
        TrainingError: nothing was exported yet.
    """
    if not run.bundle_file.exists():
        raise TrainingError(f"run {run.id} has no bundle yet: run `mergeline submit export`")
    return run.bundle_file.read_text().strip()


def _read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def evaluation_of(run: Run, digest: str) -> EvaluationReport | None:
    """The report on a bundle, if the run has one."""
    if not run.evaluation_file.exists():
        return None
    try:
        report = EvaluationReport.read(run.evaluation_file)
    except ContractError:  # an earlier version of Mergeline wrote it
        return None
    return report if report.bundle == digest else None


def summary(report: EvaluationReport, measurement: Sequence[str]) -> str:
    """The metrics that the project shows first, in a line."""
    shown = [f"{name} {report.metrics[name]:.4f}" for name in measurement if name in report.metrics]
    low, high = report.metrics["accuracy_low"], report.metrics["accuracy_high"]
    text = f"{', '.join(shown)} on {report.images} images (accuracy between {low:.3f} and {high:.3f}, 95 %)"
    if report.cross_validation:
        accuracy, low, high = (report.metrics[f"{ESTIMATE_PREFIX}accuracy{end}"] for end in ("", "_low", "_high"))
        text += f"; {accuracy:.4f} on {report.cross_validation.images} out of fold (between {low:.3f} and {high:.3f})"
    return text


def assess(predictor: Predictor, test: SplitImages, probabilities: NDArray[np.float32]) -> EvaluationReport:
    """The report on probabilities that a bundle gave; nothing is read or written.

    Args:
        predictor: the bundle: classes, threshold, digest.
        test: the truth.
        probabilities: (n, classes).
    """
    manifest = predictor.manifest
    threshold = manifest.threshold.value
    predicted = decide(probabilities, threshold)
    scores, bad = scores_of(probabilities), test.labels != GOOD
    return EvaluationReport(
        bundle=predictor.digest,
        dataset=manifest.dataset,
        images=len(test.labels),
        metrics={
            **label_metrics(test.labels, predicted),
            **score_metrics(bad, scores),
            "loss": cross_entropy(test.labels, probabilities),
        },
        threshold=manifest.threshold,
        confusion=confusion(test.labels, predicted, manifest.classes),
        per_class=per_class(test.labels, predicted, manifest.classes),
        per_kind=per_kind(test.kinds, bad, predicted != GOOD),
        calibration=calibration(bad, scores),
    )


def bf16_metrics(exact: NDArray[np.float32], probabilities: NDArray[np.float32], threshold: float) -> dict[str, float]:
    """What computing in bf16 changes: `bf16_moved`, decisions, and `bf16_change`, the largest of a score.

    Args:
        exact: (n, classes), computed in f32.
        probabilities: (n, classes), in bf16.
        threshold: smallest score that is not good.
    """
    return {
        "bf16_moved": float(np.sum(decide(exact, threshold) != decide(probabilities, threshold))),
        "bf16_change": float(np.max(np.abs(scores_of(exact) - scores_of(probabilities)))),
    }


def with_estimate(
    report: EvaluationReport, result: CrossValidationResult, manifest: BundleManifest
) -> EvaluationReport:
    """The report with what the folds found, at the bundle's calibration and threshold.

    These three numbers were chosen on the same judgements, so the estimate is better than the truth by as much as three
    numbers can be fitted.
    """
    logits = np.array([prediction.logits for prediction in result.predictions])
    labels = np.array([prediction.label for prediction in result.predictions])
    probabilities = calibrated_probabilities(logits, manifest.calibration)
    predicted, bad = decide(probabilities, manifest.threshold.value), labels != GOOD
    found = {**label_metrics(labels, predicted), **score_metrics(bad, scores_of(probabilities))}
    estimate = OutOfFoldEstimate(
        folds=result.folds,
        images=len(labels),
        confusion=confusion(labels, predicted, manifest.classes),
        per_kind=per_kind([prediction.kind for prediction in result.predictions], bad, predicted != GOOD),
    )
    metrics = report.metrics | {f"{ESTIMATE_PREFIX}{name}": value for name, value in found.items()}
    return report.model_copy(update={"metrics": metrics, "cross_validation": estimate})


# --- metrics ----------------------------------------------------------------------------------------------------------


def label_metrics(labels: Labels, predicted: Labels) -> dict[str, float]:
    """Metrics of decisions: accuracy with its interval, balanced_accuracy, and precision, recall, f1 of "not good".

    Args:
        labels: the truth, (n,), indices of classes.
        predicted: (n,), indices of classes.
    """
    from sklearn import metrics

    bad, flagged = labels != GOOD, predicted != GOOD
    right = int(np.sum(labels == predicted))
    low, high = wilson(right, len(labels))
    recalls = metrics.recall_score(labels, predicted, labels=np.unique(labels), average=None)
    return {
        "accuracy": right / len(labels),
        "accuracy_low": low,
        "accuracy_high": high,
        "balanced_accuracy": float(np.mean(recalls)),
        "precision": float(metrics.precision_score(bad, flagged, zero_division=0.0)),
        "recall": float(metrics.recall_score(bad, flagged)),
        "f1": float(metrics.f1_score(bad, flagged, zero_division=0.0)),
    }


def score_metrics(bad: NDArray[np.bool_], scores: Floats) -> dict[str, float]:
    """Metrics of scores, good against the rest: auroc, average_precision, brier, expected_calibration_error.

    Args:
        bad: whether a part is not good, (n,); there must be both.
        scores: probability that it is not, (n,).
    """
    from sklearn import metrics

    bins = calibration(bad, scores)
    return {
        "auroc": float(metrics.roc_auc_score(bad, scores)),
        "average_precision": float(metrics.average_precision_score(bad, scores)),
        "brier": float(metrics.brier_score_loss(bad, scores)),
        "expected_calibration_error": sum(abs(mean - share) * count for mean, share, count in bins) / len(bad),
    }


def cross_entropy(labels: Labels, probabilities: NDArray[np.floating]) -> float:
    """Mean cross-entropy, in nats, of labels (n,) under probabilities (n, classes)."""
    from sklearn import metrics

    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    return float(metrics.log_loss(labels, exact, labels=range(exact.shape[1])))


def calibration(bad: NDArray[np.bool_], scores: Floats) -> tuple[tuple[float, float, int], ...]:
    """Reliability bins of equal width: mean score, share of parts that are not good, images; empty ones left out."""
    bins = np.minimum((scores * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    members = [bins == number for number in np.unique(bins)]
    return tuple((float(scores[inside].mean()), float(bad[inside].mean()), int(inside.sum())) for inside in members)


def confusion(labels: Labels, predicted: Labels, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Truth → predicted → images."""
    from sklearn import metrics

    table = metrics.confusion_matrix(labels, predicted, labels=range(len(classes)))
    return {truth: dict(zip(classes, row.tolist(), strict=True)) for truth, row in zip(classes, table, strict=True)}


def per_class(labels: Labels, predicted: Labels, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Class → precision, recall, f1, images; 0 where there is nothing to divide by."""
    from sklearn import metrics

    columns = metrics.precision_recall_fscore_support(labels, predicted, labels=range(len(classes)), zero_division=0.0)
    names = ("precision", "recall", "f1", "images")
    rows = zip(*columns, strict=True)
    return {
        name: {key: float(value) for key, value in zip(names, row, strict=True)}
        for name, row in zip(classes, rows, strict=True)
    }


def per_kind(
    kinds: Sequence[str | None], bad: NDArray[np.bool_], flagged: NDArray[np.bool_]
) -> dict[str, dict[str, float]]:
    """Kind of image → recall (share judged right, as good or not good), images."""
    of = np.array([kind or "" for kind in kinds])
    return {
        kind: {"recall": float(np.mean((bad == flagged)[of == kind])), "images": float(np.sum(of == kind))}
        for kind in sorted(set(of.tolist()) - {""})
    }


# --- around it --------------------------------------------------------------------------------------------------------


def _check(test: SplitImages, run: Run) -> None:
    bad = int(np.sum(test.labels != GOOD))
    if bad in (0, len(test.labels)):
        raise DataError(
            f"the test split of dataset {run.dataset.digest[:12]} has {bad} images that are not good and "
            f"{len(test.labels) - bad} good ones; an evaluation needs both: raise `split.test` or change `split.seed` "
            f"in the project file"
        )


def _robustness(stage: Stage, predictor: Predictor, test: SplitImages) -> tuple[RobustnessSlice, ...]:
    """Slices on the original photographs, of which there may be too many, or which may be gone."""
    try:
        paths = {photograph.sha256: Path(photograph.path) for photograph in read_listing(stage).photographs}
        rows = drawn_evenly(test.labels, VARIED_IMAGES)
        data = [_photograph(paths, test.sha256[row]) for row in rows]
        return tuple(robustness.measure(predictor, data, test.labels[rows]))
    except (ContractError, DataError, ImageError) as error:
        print(f"evaluate: without robustness, as a photograph cannot be read any more: {error}", flush=True)
        return ()


def _photograph(paths: Mapping[str, Path], sha256: str) -> bytes:
    if sha256 not in paths:
        raise DataError(f"the photograph {sha256[:12]} is not in the source any more")
    return read_photograph(paths[sha256], sha256)


def drawn_evenly(labels: Labels, most: int) -> NDArray[np.intp]:
    """At most about `most` rows, every class in its share, and at least one of each that there is: indices, sorted."""
    share = min(1.0, most / len(labels))
    chosen = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = max(1, round(share * len(rows)))
        chosen.append(rows[np.linspace(0, len(rows) - 1, count).round().astype(int)])
    return np.sort(np.concatenate(chosen))


def _predictions(
    report: EvaluationReport, predictor: Predictor, test: SplitImages, probabilities: NDArray[np.float32]
) -> list[Prediction]:
    classes = predictor.manifest.classes
    decided = decide(probabilities, report.threshold.value)
    rows = zip(test.filenames, test.labels, decided, scores_of(probabilities), test.kinds, strict=True)
    return [
        Prediction(filename=name, label=classes[label], predicted=classes[choice], score=float(score), kind=kind)
        for name, label, choice, score, kind in rows
    ]


def _log(stage: Stage, run: Run, report: EvaluationReport, details: Path) -> None:
    """Add the evaluation to the training's MLflow run."""
    mlflow_run = TrainingResult.read(run.result_file).mlflow_run_id
    mlflow = tracking.client(stage.state)
    mlflow.log_artifacts(mlflow_run, str(details), DETAILS)
    mlflow.log_text(mlflow_run, report.to_json(), f"{DETAILS}/report.json")
    tracking.log_metrics(
        stage.state, mlflow_run, {f"{METRIC_PREFIX}{name}": value for name, value in report.metrics.items()}
    )


def main() -> None:
    """Run the stage as a program."""
    evaluate(open_stage(arguments("Evaluate the exported bundle on the test split.").parse_args()))


if __name__ == "__main__":
    run_main(main)
