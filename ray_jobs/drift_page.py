"""The report on drift as a page: one self-contained HTML file with histograms and the least sure photographs."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gitops.contracts.model import ReferenceSample
from gitops.contracts.project import Project
from monitoring.drift import CONFIDENCE, SCORE
from ray_jobs import page
from ray_jobs.drift_summary import Feature, Summary, Watched, Window, features
from ray_jobs.page import Thumbnail, number
from serve.measures import Measures
from serve.preprocess import ImageError, decode
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

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Report:
    """What the page shows."""

    project: Project
    windows: Path
    """The environment's folder of windows."""
    summary: Summary
    references: Mapping[str, ReferenceSample | str]
    """What the windows were compared with, by the bundle's digest; or why that is not known."""
    until: datetime
    """When this is, in UTC."""
    hours: float
    """That are reported."""


@dataclass(frozen=True)
class HistogramBin:
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
    shown: str
    """Whose values: in words."""
    drifted: bool
    low: str
    high: str
    bars: tuple[HistogramBin, ...]
    outline: str
    """The reference's histogram, as points of an SVG polyline; empty: there is none."""


@dataclass(frozen=True)
class Section:
    """A version on the page."""

    watched: Watched
    features: tuple[Feature, ...]
    photographs: tuple[Thumbnail, ...]
    charts: tuple[Chart, ...]
    no_reference: str
    """Why there is none; empty if there is one."""


def render(report: Report) -> str:
    """Draw the page."""
    watched = report.summary.watched
    return page.render(
        "drift.html.j2",
        report=report,
        sections=[_section(one, report.references[one.model.sha256]) for one in watched],
        drifted=sum(one.drifted for one in watched),
        judged=sum(one.judged for one in watched),
        chart_width=_CHART_WIDTH,
        chart_height=_CHART_HEIGHT,
    )


def _section(watched: Watched, reference: ReferenceSample | str) -> Section:
    summed = features(watched.windows)
    known = reference if isinstance(reference, ReferenceSample) else None
    places = {feature.name: place for place, feature in enumerate(summed) if feature.drifted}
    names = sorted(_DESCRIPTIONS, key=lambda name: places.get(name, len(places)))
    charts = (_chart(name, watched, known) for name in names)
    return Section(
        watched=watched,
        features=tuple(summed),
        photographs=_least_sure(watched),
        charts=tuple(chart for chart in charts if chart),
        no_reference="" if known else str(reference),
    )


def _chart(name: str, watched: Watched, reference: ReferenceSample | None) -> Chart | None:
    """A value in the windows in which it drifted, or in all of them; None: there is nothing to see."""
    commonest = max(watched.labels, key=lambda label: watched.labels[label])
    by_label: dict[str, list[Window]] = {}
    for window in watched.windows:
        if found := window.finding(name):
            by_label.setdefault(found.label or commonest, []).append(window)
    label, drifted = max(by_label.items(), key=lambda item: len(item[1]), default=(commonest, []))
    values = np.concatenate([_values(name, label, window.figures) for window in drifted or watched.windows])
    expected = _expected(name, label, reference)
    if not len(values):
        return None
    both = [np.percentile(some, _TAILS) for some in (values, expected) if len(some)]
    low, high = float(min(ends[0] for ends in both)), float(max(ends[1] for ends in both))
    if low == high:
        if not drifted:
            return None
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    shares, wanted = _shares(values, edges), _shares(expected, edges)
    unit, step = _CHART_HEIGHT / max(*shares, *wanted), _CHART_WIDTH / _BINS
    bars = tuple(
        HistogramBin(
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
    shown = f"called {label}" + (f", of the windows in which it drifted among them ({len(drifted)})" if drifted else "")
    return Chart(name, _DESCRIPTIONS[name], shown, bool(drifted), number(low), number(high), bars, outline)


def _values(name: str, label: str, figures: pa.Table) -> Values:
    """What was measured of the photographs that were called `label`, (n,)."""
    if name not in figures.column_names:  # of an older release
        return np.array([], np.float64)
    return _of_label(figures[name].to_pylist(), figures["label"].to_pylist(), label)


def _expected(name: str, label: str, reference: ReferenceSample | None) -> Values:
    """What the reference has of the images that are called `label`, (n,); empty: it has nothing of it."""
    if reference is None or name not in reference.values:
        return np.array([], np.float64)
    return _of_label(reference.values[name], reference.labels, label)


def _of_label(values: Sequence[float | None], labels: Sequence[str], label: str) -> Values:
    found: Values = np.array(values, np.float64)[np.array(labels, np.str_) == label]
    return np.asarray(found[~np.isnan(found)])


def _shares(values: Values, edges: Values) -> list[float]:
    """How much of the values falls into each bin; empty where there are none."""
    if not len(values):
        return []
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
    return [float(share) for share in counts / len(values)]


def _least_sure(watched: Watched) -> tuple[Thumbnail, ...]:
    """Photographs that the windows kept."""
    windows = {window.file: window for window in watched.windows}
    good, found = next(iter(watched.labels)), []
    for file, sha256 in watched.examples(_PHOTOGRAPHS):
        # A window that the monitor has removed meanwhile, or a photograph that nobody can decode here.
        with suppress(OSError, ValueError, ImageError):
            if (data := photograph_in(file, sha256)) is not None:
                label, score = _judgement(windows[file], sha256)
                pixels = decode(data, 3)[:, :, ::-1]
                caption = f"{label}, score {score:.3f} · {sha256[:12]}"
                found.append(Thumbnail(page.jpeg_uri(pixels, _THUMB_WIDTH), caption, label != good))
        if len(found) == _PHOTOGRAPHS:
            break
    return tuple(found)


def _judgement(window: Window, sha256: str) -> tuple[str, float]:
    """What was said of a photograph of a window, and its score."""
    place = window.figures["sha256"].to_pylist().index(sha256)
    return window.figures["label"][place].as_py(), window.figures[SCORE][place].as_py()
