"""The evaluation report as a page that a quality engineer can read: one self-contained HTML file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gitops.contracts.model import BundleManifest, EvaluationReport, Prediction
from gitops.contracts.project import ESTIMATE_PREFIX, Project
from gitops.contracts.serving import ModelVersion
from gitops.evidence import describe, meets, wilson
from ray_jobs import page
from ray_jobs.page import Thumbnail
from ray_jobs.pictures import worst
from serve.heatmap import show
from serve.predictor import Predictor
from serve.preprocess import Aligned, Pixels

TEMPLATE = "evaluation.html.j2"
PICTURES = {
    "roc": "ROC curve with the threshold",
    "scores": "Scores of good and other parts",
    "calibration": "Whether a score is a probability",
    "confusion": "Confusion matrix",
}
"""Pictures of ray_jobs.pictures that the page shows, and what they are."""
_WIDTH = 640
_COMPARED = ("accuracy", "balanced_accuracy", "auroc", "recall", "precision")


@dataclass(frozen=True)
class GateLine:
    """A gate and the figure that it is about."""

    metric: str
    bar: str
    value: float | None
    passed: bool


@dataclass(frozen=True)
class ComparisonRow:
    """A line of the comparison: figures by metric, None where one is not known."""

    name: str
    images: int
    figures: tuple[float | None, ...]


@dataclass(frozen=True)
class Kind:
    """How a kind of part is judged, held out and out of fold."""

    name: str
    held_out: str
    out_of_fold: str


@dataclass(frozen=True)
class Mistake:
    """An image with the evidence that the model sees in it."""

    plain: Thumbnail
    heat: Thumbnail


def render(
    project: Project,
    predictor: Predictor,
    report: EvaluationReport,
    predictions: Sequence[Prediction],
    images: Pixels,
    pictures: Path,
    earlier: Sequence[ModelVersion],
) -> str:
    """Draw the page.

    Args:
        project: whose bars apply.
        predictor: the bundle, for its evidence.
        report: what the page shows.
        predictions: one an image of the split.
        images: model inputs in the same order, uint8, (n, height, width, channels).
        pictures: folder with the pictures that `ray_jobs.pictures` drew.
        earlier: registered versions to compare with, oldest first.
    """
    shown, wrong = worst(report, predictions)
    return page.render(
        TEMPLATE,
        project=project,
        manifest=predictor.manifest,
        report=report,
        bars=_bars(project, report),
        compared=_COMPARED,
        rows=list(_rows(report, predictor.manifest, earlier)),
        kinds=_kinds(report),
        mistakes=[_mistake(predictor, predictions[row], images[row]) for row in shown],
        wrong=wrong,
        pictures={caption: page.png_uri(pictures / f"{name}.png") for name, caption in PICTURES.items()},
        interval=_interval(round(report.metrics["accuracy"] * report.images), report.images),
    )


def _bars(project: Project, report: EvaluationReport) -> list[GateLine]:
    found = [(gate, report.metrics.get(gate.metric)) for gate in project.gates]
    return [
        GateLine(gate.metric, describe(gate), value, value is not None and meets(gate, value)) for gate, value in found
    ]


def _rows(
    report: EvaluationReport, manifest: BundleManifest, earlier: Sequence[ModelVersion]
) -> Iterator[ComparisonRow]:
    yield ComparisonRow("this bundle, held-out images", report.images, _figures(report.metrics))
    if report.cross_validation:
        estimate = {
            name.removeprefix(ESTIMATE_PREFIX): value
            for name, value in report.metrics.items()
            if ESTIMATE_PREFIX in name
        }
        yield ComparisonRow("its like, out of fold", report.cross_validation.images, _figures(estimate))
    good = sum(report.confusion[manifest.classes[0]].values()) / report.images
    judged = sum(any(row.values()) for row in report.confusion.values())  # a class may have no held-out image
    chance = {"accuracy": good, "balanced_accuracy": 1 / judged, "auroc": 0.5, "recall": 0.0}
    yield ComparisonRow("calling everything good", report.images, _figures(chance))
    for version in earlier[-2:]:
        same = "the same" if version.evaluation.dataset == report.dataset else "other"
        name = f"version {version.model.version}, {same} held-out images"
        yield ComparisonRow(name, version.evaluation.images, _figures(version.evaluation.metrics))


def _figures(metrics: Mapping[str, float]) -> tuple[float | None, ...]:
    return tuple(metrics.get(name) for name in _COMPARED)


def _kinds(report: EvaluationReport) -> list[Kind]:
    estimate = report.cross_validation.per_kind if report.cross_validation else {}
    names = sorted(report.per_kind.keys() | estimate.keys())
    return [Kind(name, _recall(report.per_kind.get(name)), _recall(estimate.get(name))) for name in names]


def _recall(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "–"
    images = round(found["images"])
    right = round(found["recall"] * images)
    return f"{right} of {images} · {found['recall']:.2f} ({_interval(right, images)})"


def _interval(right: int, images: int) -> str:
    low, high = wilson(right, images)
    return f"{low:.2f}–{high:.2f}"


def _mistake(predictor: Predictor, prediction: Prediction, image: Pixels) -> Mistake:
    """The input as it is, and with its evidence."""
    pixels = image[:, :, 0] if image.shape[2] == 1 else image
    identity: NDArray[np.float64] = np.eye(2, 3)
    evidence = show(
        pixels, Aligned(image, identity, None), predictor.evidence(image[None])[0], predictor.manifest.evidence
    )
    plain = pixels if pixels.ndim == 2 else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), np.uint8)
    bad = prediction.label != predictor.manifest.classes[0]
    text = f"{prediction.filename}: {prediction.label}, called {prediction.predicted} ({prediction.score:.3f})"
    strongest = f"evidence, strongest {evidence.strength:.1f}"
    return Mistake(
        Thumbnail(page.jpeg_uri(plain, _WIDTH), text, bad),
        Thumbnail(page.jpeg_uri(page.decoded(evidence.overlay), _WIDTH), strongest, bad),
    )
