"""The quality report as a page: one self-contained HTML file with thumbnails and histograms."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as pads

from gitops.contracts.dataset import DatasetManifest, QualityReport
from gitops.contracts.project import Assertion, Project
from gitops.state import stable_json
from ray_jobs import page
from ray_jobs.measures import DatasetMeasures
from ray_jobs.page import Thumbnail, number, spread
from serve.measures import Measures

TEMPLATE = "quality.html.j2"
_BINS = 24
_PER_CLASS = 8
_EXTREMES = 4
_FAILING = 16
_THUMB_WIDTH = 256
_CHART_WIDTH, _CHART_HEIGHT = 300, 90
# Extremes of these tell nothing about a photograph's quality.
_UNRANKED = {"part_found", "part_angle", "part_x", "part_y", "width", "height"}

Row = dict[str, Any]


@dataclass(frozen=True)
class StackedBin:
    """One bin of a histogram, in the chart's units: what is good stands below, the rest on top of it."""

    x: float
    width: float
    good: float
    other: float
    title: str


@dataclass(frozen=True)
class Chart:
    """The histogram of a measure, with the images at both its ends."""

    name: str
    description: str
    low: str
    high: str
    median: str
    bars: tuple[StackedBin, ...]
    limits: tuple[float, ...]
    """Where assertions draw a line, in the chart's units."""
    lowest: tuple[Thumbnail, ...]
    highest: tuple[Thumbnail, ...]


@dataclass(frozen=True)
class Check:
    """An assertion's outcome, in words and pictures."""

    text: str
    passed: bool
    share: str
    count: int
    images: tuple[Thumbnail, ...]


def describe(assertion: Assertion) -> str:
    """An assertion in words: `sharpness ≥ 20 for 0.95 of the images`."""
    bounds = [f"≥ {assertion.min:g}"] if assertion.min is not None else []
    bounds += [f"≤ {assertion.max:g}"] if assertion.max is not None else []
    text = f"{assertion.measure} {' and '.join(bounds) or 'is anything'}"
    if assertion.measure in DatasetMeasures.model_fields:
        return text
    return f"{text} for {'all images' if assertion.share == 1 else f'{assertion.share:.3g} of the images'}"


def fingerprint(report: QualityReport, manifest: DatasetManifest, project: Project) -> str:
    """What a page is made of, as a mark in it: the same mark means the same page."""
    parts_of_page = (TEMPLATE, "gallery.html.j2", "page.css", "page.py", "quality_page.py")
    code = [(page.FOLDER / name).read_bytes() for name in parts_of_page]
    parts = [part.model_dump(mode="json") for part in (report, manifest, project)]
    return hashlib.sha256(stable_json(parts).encode() + b"".join(code)).hexdigest()


def render(
    report: QualityReport, manifest: DatasetManifest, rows: Sequence[Row], folder: Path, project: Project
) -> str:
    """Draw the page.

    Args:
        report: what it shows.
        manifest: of the dataset.
        rows: of the shards, without their images.
        folder: of the dataset; images are read from there, only those that are shown.
        project: whose dataset it is.
    """
    good = [row for row in rows if row["label"] == 0]
    samples = [spread(good, _PER_CLASS), _spread_kinds([row for row in rows if row["label"] != 0], 2 * _PER_CLASS)]
    ranked = {name: _ends(rows, name) for name in Measures.model_fields if name not in _UNRANKED}
    by_name = {row["filename"]: row for row in rows}
    failing = [[by_name[name] for name in finding.failing_images[:_FAILING]] for finding in report.findings]
    twins = [[by_name[name] for name in group[:_EXTREMES]] for group in report.duplicate_groups[:_FAILING]]
    wanted = [*samples, *failing, *twins, *(end for ends in ranked.values() for end in ends)]
    thumbs = _Thumbnails(folder, manifest, {row["filename"] for group in wanted for row in group})
    return page.render(
        TEMPLATE,
        mark=fingerprint(report, manifest, project),
        project=project,
        manifest=manifest,
        report=report,
        good=thumbs.of(samples[0]),
        defective=thumbs.of(samples[1]),
        checks=[
            Check(
                describe(finding.assertion),
                finding.passed,
                f"{finding.failing_share:.1%}",
                len(finding.failing_images),
                thumbs.of(shown, finding.assertion.measure),
            )
            for finding, shown in zip(report.findings, failing, strict=True)
        ],
        charts=[_chart(name, rows, project, thumbs, ranked.get(name, ([], []))) for name in Measures.model_fields],
        twins=[thumbs.of(group) for group in twins],
        chart_width=_CHART_WIDTH,
        chart_height=_CHART_HEIGHT,
    )


def _spread_kinds(rows: Sequence[Row], count: int) -> list[Row]:
    """At most `count` rows, as many of one kind as of another."""
    kinds = sorted({str(row["kind"]) for row in rows})
    each = max(1, count // max(1, len(kinds)))
    return [row for kind in kinds for row in spread([row for row in rows if str(row["kind"]) == kind], each)][:count]


def _ends(rows: Sequence[Row], measure: str) -> tuple[list[Row], list[Row]]:
    """The rows with the smallest and those with the largest values."""
    ordered = sorted(rows, key=lambda row: (row[measure], row["filename"]))
    return ordered[:_EXTREMES], ordered[::-1][:_EXTREMES]


class _Thumbnails:
    """The pictures that a page shows, read from the shards in one go."""

    def __init__(self, folder: Path, manifest: DatasetManifest, filenames: Iterable[str]) -> None:
        shards = [str(folder / name) for name in manifest.shards]
        chosen = pads.field("filename").isin(list(filenames))
        table = pads.dataset(shards).to_table(columns=["filename", "image"], filter=chosen)
        self._uris = {
            row["filename"]: page.jpeg_uri(page.decoded(row["image"]), _THUMB_WIDTH) for row in table.to_pylist()
        }

    def of(self, rows: Iterable[Row], measure: str | None = None) -> tuple[Thumbnail, ...]:
        """Thumbnails of rows, with the value of a measure where one is named."""
        return tuple(
            Thumbnail(
                self._uris[row["filename"]],
                row["filename"] + (f" · {number(row[measure])}" if measure else ""),
                row["label"] != 0,
            )
            for row in rows
        )


def _chart(
    name: str, rows: Sequence[Row], project: Project, thumbs: _Thumbnails, ends: tuple[list[Row], list[Row]]
) -> Chart:
    values = np.array([float(row[name]) for row in rows])
    is_good = np.array([row["label"] == 0 for row in rows])
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    good, other = np.histogram(values[is_good], edges)[0], np.histogram(values[~is_good], edges)[0]
    unit = _CHART_HEIGHT / max(1, int((good + other).max()))
    step = _CHART_WIDTH / _BINS
    bars = tuple(
        StackedBin(
            x=index * step,
            width=step - 1.5,
            good=int(below) * unit,
            other=int(above) * unit,
            title=f"{number(edges[index])} to {number(edges[index + 1])}: {below} good, {above} not",
        )
        for index, (below, above) in enumerate(zip(good.tolist(), other.tolist(), strict=True))
    )
    bounds = [bound for item in project.quality if item.measure == name for bound in (item.min, item.max)]
    limits = [(bound - low) / (high - low) * _CHART_WIDTH for bound in bounds if bound is not None]
    return Chart(
        name=name,
        description=str(Measures.model_fields[name].description),
        low=number(float(values.min())),
        high=number(float(values.max())),
        median=number(float(np.median(values))),
        bars=bars,
        limits=tuple(limit for limit in limits if 0 <= limit <= _CHART_WIDTH),
        lowest=thumbs.of(ends[0], name),
        highest=thumbs.of(ends[1], name),
    )
