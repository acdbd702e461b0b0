"""Draws a comparison: what the metrics gain or lose, with intervals, and both versions' scores of every image."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gitops.contracts.comparison import Comparison
from ray_jobs.pictures import BAD_COLOR, DPI, GOOD_COLOR, LINE_COLOR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Flags = NDArray[np.bool_]
Scores = NDArray[np.float64]

# Where the two hardly differ, the axis still spans so much, lest noise look like news.
_LEAST_SPAN = 0.02
_SHADE_COLOR = "#eeeeee"
_FOOTNOTE_CHARACTERS = 160


def draw(comparison: Comparison, bad: Flags, a: Scores, b: Scores, classes: tuple[str, ...]) -> "Figure":
    """The picture of a comparison.

    Args:
        comparison: the figures.
        bad: whether a part is not good, (n,), one an image.
        a: the scores of version A, (n,).
        b: the scores of version B, (n,).
        classes: the good one first.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
    _metrics(left, comparison)
    _scores(right, comparison, bad, a, b, classes)
    figure.suptitle(f"{comparison.b.model} against {comparison.a.model}, {comparison.images} held-out images")
    figure.supxlabel(_footnote(comparison), fontsize=9, color=LINE_COLOR)
    return figure


def save(figure: "Figure", path: Path) -> None:
    """Write the picture as a PNG file; the same figures always give the same bytes."""
    figure.savefig(path, dpi=DPI, metadata={"Software": "mergeline"})


def _metrics(axes: "Axes", comparison: Comparison) -> None:
    """A row for each metric: the difference, its interval, and the two values."""
    metrics = comparison.metrics
    reach = max(_LEAST_SPAN, *(abs(end) for found in metrics.values() for end in (found.low, found.high)))
    axes.axvline(0, color=LINE_COLOR, linewidth=0.8, linestyle=":")
    for row, found in enumerate(metrics.values()):
        color = LINE_COLOR if found.low <= 0 <= found.high else GOOD_COLOR if found.difference > 0 else BAD_COLOR
        axes.plot([found.low, found.high], [row, row], color=color, linewidth=3, solid_capstyle="butt")
        axes.plot(found.difference, row, "o", color=color, markersize=9)
        interval = f"{found.difference:+.3f}  ({found.low:+.3f} to {found.high:+.3f})"
        axes.annotate(
            interval,
            (found.difference, row),
            xytext=(0, 10),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            bbox={"facecolor": "white", "linewidth": 0, "pad": 1},
        )
    labels = [f"{name.replace('_', ' ')}\n{found.a:.3f} → {found.b:.3f}" for name, found in metrics.items()]
    axes.set_yticks(range(len(metrics)), [label.replace("auroc", "AUROC") for label in labels])
    axes.set(xlim=(-1.25 * reach, 1.25 * reach), ylim=(len(metrics) - 0.5, -0.6))
    axes.set(xlabel=f"← {comparison.a.model} is better      difference      {comparison.b.model} is better →")
    axes.set(title="Metrics: difference and its 95 % interval (gray: it holds 0)")


def _scores(axes: "Axes", comparison: Comparison, bad: Flags, a: Scores, b: Scores, classes: tuple[str, ...]) -> None:
    """Every image by the score that each version gives it; in the shaded quarters only one says that it is good."""
    from matplotlib.patches import Rectangle

    at_a, at_b = comparison.a.threshold, comparison.b.threshold
    for corner, width, height in (((-1, at_b), at_a + 1, 2), ((at_a, -1), 2, at_b + 1)):  # beyond the picture's rim
        axes.add_patch(Rectangle(corner, width, height, color=_SHADE_COLOR, linewidth=0, zorder=0))
    rest = classes[1] if len(classes) == 2 else "not good"
    for members, name, color in ((~bad, classes[0], GOOD_COLOR), (bad, rest, BAD_COLOR)):
        label = f"{name} ({np.sum(members)})"
        axes.scatter(
            a[members], b[members], s=36, color=color, alpha=0.65, edgecolor="white", linewidth=0.5, label=label
        )
    axes.axvline(at_a, color="black", linewidth=1, linestyle="--", label=f"threshold A {at_a:.3f}, B {at_b:.3f}")
    axes.axhline(at_b, color="black", linewidth=1, linestyle="--")
    _mark_disagreements(axes, comparison)
    shown = np.concatenate([a, b, [at_a, at_b]])
    room = 0.05 * float(np.ptp(shown)) + 0.01
    ends = float(shown.min()) - room, float(shown.max()) + room
    axes.set(xlim=ends, ylim=ends, aspect="equal", title="Scores: probability that a part is not good")
    axes.set(xlabel=f"by {comparison.a.model} (A)", ylabel=f"by {comparison.b.model} (B)")
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.1), ncols=2, frameon=False)


def _mark_disagreements(axes: "Axes", comparison: Comparison) -> None:
    found = comparison.disagreements
    if not found:
        return
    label = f"judged differently ({len(found)})"
    x, y = [item.a_score for item in found], [item.b_score for item in found]
    axes.scatter(x, y, s=90, facecolor="none", edgecolor="black", linewidth=1.2, label=label)


def _footnote(comparison: Comparison) -> str:
    test, left_out = comparison.mcnemar, len(comparison.left_out)
    lines = [
        f"right where the other is wrong: {comparison.a.model} {test.only_a_right}×, "
        f"{comparison.b.model} {test.only_b_right}× (McNemar's exact test: {test.p_text})",
        *([f"{left_out} images left out: one of the two was fitted to them or lookalikes"] if left_out else []),
        *comparison.warnings,
    ]
    return "\n".join(textwrap.fill(line, _FOOTNOTE_CHARACTERS) for line in lines)
