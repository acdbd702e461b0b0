"""The report on drift as a page: one self-contained HTML file with histograms and the least sure photographs."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from gitops.manifest import Project
from monitoring.drift import CONFIDENCE, SCORE
from ray_jobs import page
from ray_jobs.drift_summary import Feature, Reference, Watched, features
from ray_jobs.page import Thumbnail, number
from serve.measures import Measures
from serve.preprocess import MAX_PIXELS, ImageError, decode
from serve.windows import photograph_in

_BINS = 24
_TAILS = (0.5, 99.5)
"""Percentiles between which values are drawn; what lies outside counts into the first bin and the last."""
_PHOTOGRAPHS = 12
_THUMB_WIDTH = 256
_CHART_WIDTH, _CHART_HEIGHT = 300, 90
_DESCRIPTIONS = {
    SCORE: "Probability that the part is not good.",
    CONFIDENCE: "Probability of the likeliest class.",
    **{name: str(field.description) for name, field in Measures.model_fields.items()},
}


@dataclass(frozen=True)
class Bar:
    """One bin of a histogram, in the chart's units."""

    x: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Chart:
    """How a value was distributed, and how it is in the reference: shares of the photographs of one label."""

    name: str
    description: str
    drifted: bool
    low: str
    high: str
    bars: tuple[Bar, ...]
    outline: str
    """The reference's histogram, as points of an SVG polyline; empty: there is none."""


@dataclass(frozen=True)
class Section:
    """A version on the page."""

    watched: Watched
    features: tuple[Feature, ...]
    photographs: tuple[Thumbnail, ...]
    label: str
    """Of the photographs that the charts show: the commonest."""
    charts: tuple[Chart, ...]
    no_reference: str
    """Why there is none; empty if there is one."""


def render(
    project: Project,
    found: Sequence[Watched],
    references: Mapping[str, Reference | str],
    until: datetime,
    hours: float,
) -> str:
    """Draw the page.

    Args:
        project: whose models they are.
        found: what came to each version.
        references: what each was compared with, by the bundle's digest; or why that is not known.
        until: when this is.
        hours: that are reported.
    """
    return page.render(
        "drift.html.j2",
        project=project,
        sections=[_section(watched, references[watched.model.sha256]) for watched in found],
        until=until,
        hours=f"{hours:g}",
        drifted=sum(watched.drifted for watched in found),
        judged=sum(watched.judged for watched in found),
        chart_width=_CHART_WIDTH,
        chart_height=_CHART_HEIGHT,
    )


def _section(watched: Watched, reference: Reference | str) -> Section:
    known = reference if isinstance(reference, Reference) else None
    summed = features(watched.windows)
    label = max(watched.labels, key=lambda name: watched.labels[name])
    drifted = [feature.name for feature in summed if feature.drifted]
    drawn = [name for name in watched.figures.column_names if name in _DESCRIPTIONS]
    ordered = sorted(drawn, key=lambda name: drifted.index(name) if name in drifted else len(drifted))
    charts = [_chart(name, watched, known, label, drifted=name in drifted) for name in ordered]
    return Section(
        watched=watched,
        features=tuple(summed),
        photographs=_least_sure(watched, known),
        label=label,
        charts=tuple(chart for chart in charts if chart),
        no_reference="" if known else str(reference),
    )


def _chart(name: str, watched: Watched, reference: Reference | None, label: str, *, drifted: bool) -> Chart | None:
    """None: there is nothing to see, as nothing was measured or all of it is one value."""
    labels = np.array(watched.figures["label"].to_pylist())
    values = _present(np.array(watched.figures[name].to_pylist(), np.float64)[labels == label])
    expected = _expected(name, reference, label)
    if not len(values):
        return None
    low, high = (float(end) for end in np.percentile(np.concatenate([values, expected]), _TAILS))
    if low == high:
        return None
    edges = np.linspace(low, high, _BINS + 1)
    shares, wanted = _shares(values, edges), _shares(expected, edges)
    unit, step = _CHART_HEIGHT / max(1e-9, *shares, *wanted), _CHART_WIDTH / _BINS
    bars = tuple(
        Bar(
            x=index * step,
            width=step - 1.5,
            height=share * unit,
            title=f"{number(edges[index])} to {number(edges[index + 1])}: {share:.1%}"
            + (f", reference {wanted[index]:.1%}" if wanted else ""),
        )
        for index, share in enumerate(shares)
    )
    outline = " ".join(
        f"{x:.2f},{_CHART_HEIGHT - share * unit:.2f}"
        for index, share in enumerate(wanted)
        for x in (index * step, (index + 1) * step)
    )
    return Chart(name, _DESCRIPTIONS[name], drifted, number(low), number(high), bars, outline)


def _expected(name: str, reference: Reference | None, label: str) -> NDArray[np.float64]:
    """The reference's values of photographs that were called the same; (0,) where there are none."""
    if reference is None or name not in reference.sample.values:
        return np.array([], np.float64)
    labels = np.array(reference.sample.labels)
    return _present(np.array(reference.sample.values[name], np.float64)[labels == label])


def _present(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[~np.isnan(values)]


def _shares(values: NDArray[np.float64], edges: NDArray[np.float64]) -> list[float]:
    """How much of the values falls into each bin; empty where there are none."""
    if not len(values):
        return []
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
    return [float(share) for share in counts / len(values)]


def _least_sure(watched: Watched, reference: Reference | None) -> tuple[Thumbnail, ...]:
    """Photographs that the windows kept, those first whose score is nearest to the threshold."""
    columns = ("sha256", "label", SCORE)
    rows = {row["sha256"]: row for row in watched.figures.select(columns).to_pylist()}
    threshold = reference.manifest.threshold.value if reference else 0.5
    kept = {sha: file for window, file in zip(watched.windows, watched.files, strict=True) for sha in window.examples}
    nearest = sorted(kept.keys() & rows.keys(), key=lambda sha: (abs(rows[sha][SCORE] - threshold), sha))
    good = next(iter(watched.labels))
    found = []
    for sha in nearest[:_PHOTOGRAPHS]:
        # A window that the monitor has removed meanwhile, or a photograph that this machine cannot decode.
        with suppress(OSError, ValueError, ImageError):
            data = photograph_in(kept[sha], sha)
            if data is not None:
                pixels = decode(data, 3, max_pixels=MAX_PIXELS)[:, :, ::-1]
                caption = f"{rows[sha]['label']}, score {rows[sha][SCORE]:.3f} · {sha[:12]}"
                found.append(Thumbnail(page.jpeg_uri(pixels, _THUMB_WIDTH), caption, rows[sha]["label"] != good))
    return tuple(found)
