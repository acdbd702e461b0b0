"""Draws an evaluation: ROC curve, confusion matrix, scores, calibration, and the worst mistakes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gitops.contracts.model import EvaluationReport, Prediction
from serve.preprocess import Pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Flags = NDArray[np.bool_]
Scores = NDArray[np.float64]

SHOWN_MISTAKES = 12
GOOD_COLOR, BAD_COLOR, LINE_COLOR = "#2c7fb8", "#d95f0e", "#555555"
DPI = 120


def save(
    report: EvaluationReport,
    predictions: Sequence[Prediction],
    images: Pixels,
    classes: Sequence[str],
    folder: Path,
) -> None:
    """Write the pictures as PNG files: roc, confusion, scores, calibration, mistakes.

    Args:
        report: the evaluation.
        predictions: one an image.
        images: model inputs in the same order, uint8, (n, height, width, channels).
        classes: the good one first.
        folder: where they go.
    """
    bad = np.array([prediction.label != classes[0] for prediction in predictions])
    scores = np.array([prediction.score for prediction in predictions])
    figures = {
        "roc": roc(report, bad, scores),
        "confusion": confusion(report),
        "scores": score_histogram(report, bad, scores, classes),
        "calibration": calibration(report),
        "mistakes": mistakes(report, predictions, images),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=DPI, metadata={"Software": "mergeline"})


def roc(report: EvaluationReport, bad: Flags, scores: Scores) -> "Figure":
    """How many of the bad parts are found for how many false alarms, and where the threshold lies."""
    from sklearn.metrics import roc_curve

    figure, axes = _one((5.0, 5.0))
    alarms, found, _ = roc_curve(bad, scores, drop_intermediate=False)
    axes.plot(alarms, found, color=GOOD_COLOR, linewidth=2, label=f"AUROC {report.metrics['auroc']:.3f}")
    axes.plot([0, 1], [0, 1], color=LINE_COLOR, linewidth=0.8, linestyle=":")
    flagged = scores >= report.threshold.value
    axes.plot(
        flagged[~bad].mean(),
        flagged[bad].mean(),
        "o",
        color=BAD_COLOR,
        label=f"threshold {report.threshold.value:.3f}",
        clip_on=False,
        zorder=3,
    )
    axes.set(xlabel="false alarms: share of good parts", ylabel="found: share of parts that are not good")
    axes.set(title=f"ROC on {report.images} held-out images", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.legend(loc="lower right")
    return figure


def confusion(report: EvaluationReport) -> "Figure":
    """Truth against prediction: images, and their share of the truth's."""
    classes = list(report.confusion)
    counts = np.array([[report.confusion[truth][predicted] for predicted in classes] for truth in classes])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.6 + 1.1 * len(classes)
    figure, axes = _one((side, side))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{count}\n{shares[row, column]:.1%}", ha="center", va="center", color=color)
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes, rotation=90, va="center")
    axes.set(xlabel="predicted", ylabel="truth", title=f"Accuracy {report.metrics['accuracy']:.3f}")
    return figure


def score_histogram(report: EvaluationReport, bad: Flags, scores: Scores, classes: Sequence[str]) -> "Figure":
    """How the scores of good and other parts are spread on either side of the threshold."""
    figure, axes = _one((7.0, 3.8))
    rest = classes[1] if len(classes) == 2 else "not good"
    groups, colors = [scores[~bad], scores[bad]], [GOOD_COLOR, BAD_COLOR]
    labels = [f"{classes[0]} ({np.sum(~bad)})", f"{rest} ({np.sum(bad)})"]
    axes.hist(groups, bins=np.linspace(0, 1, 31).tolist(), color=colors, label=labels, stacked=True)
    axes.axvline(report.threshold.value, color="black", linestyle="--", label=f"threshold {report.threshold.value:.3f}")
    axes.set(xlabel="score: probability that the part is not good", ylabel="images", title="Scores", xlim=(0, 1))
    axes.legend()
    return figure


def calibration(report: EvaluationReport) -> "Figure":
    """Whether a score of 0.8 means that eight of ten such parts are bad."""
    figure, axes = _one((5.0, 5.0))
    axes.plot([0, 1], [0, 1], color=LINE_COLOR, linewidth=0.8, linestyle=":")
    axes.plot(*np.array(report.calibration)[:, :2].T, "o-", color=GOOD_COLOR, clip_on=False, zorder=3)
    for mean, share, count in report.calibration:
        right = mean < 0.5
        axes.annotate(
            str(count),
            (mean, share),
            xytext=(8 if right else -8, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            color=LINE_COLOR,
        )
    error = report.metrics["expected_calibration_error"]
    axes.set(xlabel="mean score", ylabel="share of parts that are not good", aspect="equal")
    axes.set(title=f"Calibration (expected error {error:.3f}; figures: images)", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    return figure


def mistakes(report: EvaluationReport, predictions: Sequence[Prediction], images: Pixels) -> "Figure":
    """Contact sheet of the mistakes, the farthest from the threshold first; without any, of the closest calls."""
    threshold = report.threshold.value
    shown, wrong = worst(report, predictions)
    height, width = images.shape[1:3]
    columns = min(len(shown), max(1, round(math.sqrt(len(shown) * 1.5 * height / width))))
    rows = math.ceil(len(shown) / columns)
    cell = 12 / columns
    figure = _figure((12, rows * (cell * height / width + 0.3) + 0.5))
    for place, row in enumerate(shown, start=1):
        _thumbnail(figure.add_subplot(rows, columns, place), images[row], predictions[row])
    count = f"mistakes: {wrong}" if wrong else "no mistakes"
    order_of = "the farthest from" if wrong else "the nearest to"
    figure.suptitle(f"{report.images} held-out images, {count}; {order_of} the threshold {threshold:.3f} first")
    return figure


def worst(report: EvaluationReport, predictions: Sequence[Prediction]) -> tuple[list[int], int]:
    """Rows of the mistakes, farthest from the threshold first, without any of the closest calls; how many there are."""
    distances = np.abs([item.score - report.threshold.value for item in predictions])
    closest = np.argsort(distances, kind="stable").tolist()
    wrong = [row for row in reversed(closest) if predictions[row].label != predictions[row].predicted]
    return (wrong or closest)[:SHOWN_MISTAKES], len(wrong)


def _thumbnail(axes: "Axes", image: Pixels, prediction: Prediction) -> None:
    axes.imshow(image[:, :, 0] if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=255)
    axes.set_title(
        f"{prediction.filename}: {prediction.label}, called {prediction.predicted} ({prediction.score:.3f})", fontsize=8
    )
    axes.set_axis_off()


def _figure(size: tuple[float, float]) -> "Figure":
    """A figure of its own: pyplot would keep it, and its settings, for the whole process."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def _one(size: tuple[float, float]) -> "tuple[Figure, Axes]":
    figure = _figure(size)
    return figure, figure.add_subplot()
