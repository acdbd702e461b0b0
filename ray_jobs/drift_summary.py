"""Windows of the served line, summed up by the version that judged their photographs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, zip_longest
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gitops import bundle
from gitops.contracts.drift import DriftFinding, DriftWindow
from gitops.contracts.model import ReferenceSample
from gitops.contracts.serving import ServedModel
from gitops.errors import ContractError, DataError
from monitoring import drift
from monitoring.drift import CONFIDENCE, SCORE
from monitoring.metrics import DriftKind, WindowOutcome
from ray_jobs.page import spread
from ray_jobs.window_photographs import window_files
from serve.measures import Measures
from serve.windows import baseline_in

_FIGURES = ("sha256", "label", SCORE, CONFIDENCE, *Measures.model_fields)


@dataclass(frozen=True)
class Window:
    """A window on the disk."""

    found: DriftWindow
    file: Path
    """Its Parquet file."""
    figures: pa.Table
    """A row a photograph: SHA-256, label, score, confidence and measures."""

    @property
    def drifted(self) -> bool:
        """Whether anything did."""
        return self.found.outcome == WindowOutcome.DRIFTED

    @property
    def judged(self) -> bool:
        """Whether it could be: with enough photographs, and enough in the reference."""
        return self.found.outcome != WindowOutcome.TOO_FEW

    def finding(self, feature: str) -> DriftFinding | None:
        """What drifted of a value that is measured of each photograph; None: it did not."""
        of_values = (one for one in self.found.drifted if one.kind is not DriftKind.LABEL)
        return next((one for one in of_values if one.feature == feature), None)


@dataclass(frozen=True)
class Feature:
    """What all the windows of a version found of a feature."""

    kind: DriftKind
    name: str
    statistic: str
    drifted: int
    """Windows in which it did."""
    compared: int
    largest: float
    """Of the statistic's values the one that is farthest from 0."""
    distance: float | None
    """The largest of Wasserstein's, in standard deviations of the reference; None: it has none."""

    @property
    def text(self) -> str:
        """It in words, for a feature that drifted."""
        windows = "1 window" if self.drifted == 1 else f"{self.drifted} windows"
        return f"{self.name} ({windows}, {self.statistic} {self.largest:.2f})"


@dataclass(frozen=True)
class Watched:
    """The photographs of a version of a model, as an application's monitor has judged them."""

    windows: tuple[Window, ...]
    """Oldest first."""
    baseline: dict[str, int]
    """How often the version gave each label at first; empty: it has not given enough yet."""

    @property
    def application(self) -> str:
        """Whose monitor it was."""
        return self.windows[-1].found.application

    @property
    def model(self) -> ServedModel:
        """The version."""
        return self.windows[-1].found.model

    @property
    def photographs(self) -> int:
        """How many there are in all the windows."""
        return sum(window.found.photographs for window in self.windows)

    @property
    def judged(self) -> int:
        """Windows that could be."""
        return sum(window.judged for window in self.windows)

    @property
    def drifted(self) -> int:
        """Windows that did."""
        return sum(window.drifted for window in self.windows)

    @property
    def labels(self) -> dict[str, int]:
        """How often each label was given, the good one first."""
        names = self.windows[-1].found.labels
        return {name: sum(window.found.labels.get(name, 0) for window in self.windows) for name in names}

    @property
    def since(self) -> datetime | None:
        """Since when it drifts; None: the last window that was judged did not."""
        judged = [window.found for window in self.windows if window.judged]
        return judged[-1].drifting_since if judged else None

    def examples(self, most: int) -> list[tuple[Path, str]]:
        """Photographs that the windows kept, each once: of `most` of them the least sure, then of each the next one.

        Windows that drifted come first, newest first, and then others from all of the time.
        """
        newest_first = self.windows[::-1]
        drifted = [window for window in newest_first if window.drifted]
        others = [window for window in newest_first if not window.drifted]
        chosen = [*spread(drifted, most), *spread(others, max(0, most - len(drifted)))]
        kept = [[(sha256, window.file) for sha256 in window.found.examples] for window in chosen]
        files: dict[str, Path] = {}
        for one in chain.from_iterable(zip_longest(*kept)):
            if one:
                files.setdefault(*one)
        return [(file, sha256) for sha256, file in files.items()]

    @property
    def title(self) -> str:
        """Its name."""
        of = "" if self.application == self.model.name else f" of {self.application}"
        return f"{self.model.name}{of}, version {self.model.version}"

    @property
    def period(self) -> str:
        """From the first photograph to the last one."""
        return f"{_minute(self.windows[0].found.began_at)} to {_minute(self.windows[-1].found.ended_at)} UTC"

    @property
    def text(self) -> str:
        """It in a line."""
        said = []
        if self.judged:
            drifted = ", ".join(feature.text for feature in features(self.windows) if feature.drifted)
            said.append(f"{self.drifted or 'none'} of {self.judged} windows drifted" + (drifted and f": {drifted}"))
        if self.since:
            said.append(f"drifting since {_minute(self.since)} UTC")
        if other := len(self.windows) - self.judged:
            said.append(f"{other} not judged, with too few photographs in it or in the reference")
        return f"{self.title}, {self.period}: {self.photographs} photographs; {'; '.join(said)}"


def _minute(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M}"


def features(windows: Sequence[Window]) -> list[Feature]:
    """What windows found, feature by feature: first what drifted most often, then what is farthest off."""
    found: dict[tuple[DriftKind, str], list[DriftFinding]] = {}
    for window in windows:
        for one in window.found.findings:
            found.setdefault((one.kind, one.feature), []).append(one)
    summed = [
        Feature(
            kind=kind,
            name=name,
            statistic=ones[-1].statistic,
            drifted=sum(one.drifted for one in ones),
            compared=len(ones),
            largest=max((one.value for one in ones), key=abs),
            distance=max((one.wasserstein for one in ones if one.wasserstein is not None), default=None),
        )
        for (kind, name), ones in found.items()
    ]
    return sorted(summed, key=lambda feature: (-feature.drifted, -abs(feature.largest), feature.name))


@dataclass(frozen=True)
class Summary:
    """What lies in a folder of windows."""

    watched: tuple[Watched, ...]
    """Each version of each application, the one first that came last."""
    unreadable: tuple[str, ...]
    """What cannot be read, and why."""


def sum_up(project: str, folder: Path, since: datetime) -> Summary:
    """Read the windows that were judged lately.

    Args:
        project: whose models they are.
        folder: `args.windows` of an environment: one folder in it an application.
        since: what was judged before is left out. A window is judged when it is full or its time has passed, which
            may be long after its last photograph.

    Raises:
        DataError: there is no such folder, or none of the windows in it can be read.
    """
    files, unreadable = window_files(folder), list[str]()
    found: dict[tuple[str, str, str], list[Window]] = {}
    for window in sorted(_read(project, files, since, unreadable), key=lambda one: one.found.ended_at):
        model = window.found.model
        found.setdefault((window.found.application, model.version, model.sha256), []).append(window)
    if files and len(unreadable) == len(files):
        raise DataError(f"none of the windows in {folder} can be read: {'; '.join(unreadable)}")
    summed = [_watched(windows, unreadable) for windows in found.values()]
    newest_first = sorted(summed, key=lambda one: one.windows[-1].found.ended_at, reverse=True)
    return Summary(tuple(newest_first), tuple(unreadable))


def _read(project: str, files: Sequence[Path], since: datetime, unreadable: list[str]) -> Iterator[Window]:
    for file in files:
        figures = file.with_suffix(".parquet")
        try:
            found = DriftWindow.read(file)
            if found.model.name == project and _judged_at(found, file) > since:
                there = pq.read_schema(figures).names
                columns = [name for name in _FIGURES if name in there]
                yield Window(found, figures, pq.read_table(figures, columns=columns))
        except (ContractError, OSError, pa.ArrowException) as error:
            if file.exists():  # else the monitor, which keeps the latest ones only, has removed it meanwhile
                unreadable.append(f"the window {figures} cannot be read: {error}")


def _judged_at(found: DriftWindow, file: Path) -> datetime:
    return found.judged_at or datetime.fromtimestamp(file.stat().st_mtime, UTC)


def _watched(windows: Sequence[Window], unreadable: list[str]) -> Watched:
    last, baseline = windows[-1], {}
    try:
        baseline = baseline_in(last.file.parent, last.found.model)
    except ContractError as error:
        unreadable.append(f"how often labels were given at first: {error}")
    return Watched(tuple(windows), baseline if sum(baseline.values()) >= drift.BASELINE else {})


def reference_of(model: ServedModel) -> ReferenceSample:
    """What a model's windows were compared with.

    Raises:
        BundleError: its bundle cannot be had.
        ContractError: its reference cannot be read.
    """
    manifest = bundle.read_manifest(model.uri, model.sha256)
    data = bundle.read_file(model.uri, manifest, manifest.reference)
    return ReferenceSample.from_json(data.decode(errors="replace"), f"{model.uri}/{manifest.reference}")
