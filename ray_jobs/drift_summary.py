"""Windows of the served line, summed up by the version that judged their photographs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gitops import bundle
from gitops.errors import ContractError, DataError
from gitops.manifest import BundleManifest, DriftWindow, ReferenceSample, ServedModel
from monitoring import drift
from monitoring.drift import CONFIDENCE, SCORE
from monitoring.metrics import DriftKind, WindowOutcome
from serve.measures import Measures
from serve.windows import baseline_in

_FIGURES = ("sha256", "label", SCORE, CONFIDENCE, *Measures.model_fields)


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
        return f"{self.name} ({windows}, {self.statistic} up to {self.largest:.2f})"


@dataclass(frozen=True)
class Watched:
    """The photographs of a version of a model, as an application's monitor has judged them."""

    application: str
    model: ServedModel
    windows: tuple[DriftWindow, ...]
    """Oldest first."""
    files: tuple[Path, ...]
    """The windows' Parquet files."""
    figures: pa.Table
    """A row a photograph: SHA-256, label, score, confidence and measures."""
    baseline: dict[str, int]
    """How often the version gave each label at first; empty: it has not given enough yet."""

    @property
    def drifted(self) -> int:
        """Windows that did."""
        return sum(window.outcome == WindowOutcome.DRIFTED for window in self.windows)

    @property
    def judged(self) -> int:
        """Windows with enough photographs."""
        return sum(window.outcome != WindowOutcome.TOO_FEW for window in self.windows)

    @property
    def since(self) -> datetime | None:
        """Since when it drifts; None: the last window that was judged did not."""
        judged = [window for window in self.windows if window.outcome != WindowOutcome.TOO_FEW]
        return judged[-1].drifting_since if judged else None

    @property
    def labels(self) -> dict[str, int]:
        """How often each label was given, the good one first."""
        return {label: sum(window.labels.get(label, 0) for window in self.windows) for label in self.windows[-1].labels}

    @property
    def title(self) -> str:
        """Its name."""
        of = "" if self.application == self.model.name else f" of {self.application}"
        return f"{self.model.name}{of}, version {self.model.version}"

    @property
    def text(self) -> str:
        """It in a line."""
        few = len(self.windows) - self.judged
        found = [f"{self.drifted or 'none'} of {self.judged} windows drifted"] if self.judged else []
        found += [f"{few} had too few photographs to be judged"] if few else []
        drifted = [feature.text for feature in features(self.windows) if feature.drifted]
        said = f"{self.title}: {self.figures.num_rows} photographs; {', '.join(found)}"
        if drifted:
            said += f": {', '.join(drifted)}"
        return said + (f"; it drifts since {self.since:%Y-%m-%d %H:%M} UTC" if self.since else "")


@dataclass(frozen=True)
class Reference:
    """What the windows were compared with."""

    manifest: BundleManifest
    sample: ReferenceSample

    @classmethod
    def of(cls, model: ServedModel, cache: Path) -> "Reference":
        """A model's.

        Raises:
            BundleError: its bundle cannot be had.
            ContractError: its reference cannot be read.
        """
        folder = bundle.fetch(model.uri, model.sha256, cache)
        manifest = bundle.verify(folder, model.sha256)
        return cls(manifest, ReferenceSample.read(folder / manifest.reference))


def features(windows: Sequence[DriftWindow]) -> list[Feature]:
    """What windows found, feature by feature: first what drifted most often, then what is farthest off."""
    found: dict[tuple[DriftKind, str], list[tuple[str, float, float | None, bool]]] = {}
    for window in windows:
        for one in window.findings:
            said = (one.statistic, one.value, one.wasserstein, one.drifted)
            found.setdefault((one.kind, one.feature), []).append(said)
    summed = [
        Feature(
            kind=kind,
            name=name,
            statistic=values[-1][0],
            drifted=sum(drifted for *_, drifted in values),
            compared=len(values),
            largest=max((value for _, value, _, _ in values), key=abs),
            distance=max((distance for _, _, distance, _ in values if distance is not None), default=None),
        )
        for (kind, name), values in found.items()
    ]
    return sorted(summed, key=lambda feature: (-feature.drifted, -abs(feature.largest), feature.name))


def watched(project: str, folder: Path, since: datetime) -> list[Watched]:
    """What came to each version of each application, the one first that came last.

    Args:
        project: whose models they are.
        folder: `args.windows` of an environment: one folder in it an application.
        since: windows that ended later are summed up.

    Raises:
        DataError: there is no such folder, or a window in it cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"the folder {folder} does not exist: give the environment's `args.windows` with --windows")
    found: dict[tuple[str, str], list[_Read]] = {}
    for one in sorted(_windows(project, folder, since), key=lambda one: one.window.ended_at):
        found.setdefault((one.window.application, one.window.model.sha256), []).append(one)
    return sorted(map(_sum_up, found.values()), key=lambda one: one.windows[-1].ended_at, reverse=True)


@dataclass(frozen=True)
class _Read:
    window: DriftWindow
    file: Path
    figures: pa.Table


def _windows(project: str, folder: Path, since: datetime) -> Iterator[_Read]:
    for file in folder.glob("*/*.json"):
        figures = file.with_suffix(".parquet")
        try:
            window = DriftWindow.read(file)
            if window.model.name == project and window.ended_at > since:
                there = pq.read_schema(figures).names
                columns = [name for name in _FIGURES if name in there]
                yield _Read(window, figures, pq.read_table(figures, columns=columns))
        except (ContractError, OSError, pa.ArrowException) as error:
            if file.exists():  # else the monitor, which keeps the latest ones only, has removed it meanwhile
                raise DataError(f"the window {figures} cannot be read ({error}): remove it and its .json") from error


def _sum_up(read: Sequence[_Read]) -> Watched:
    last = read[-1].window
    baseline = baseline_in(read[-1].file.parent, last.model)
    return Watched(
        application=last.application,
        model=last.model,
        windows=tuple(one.window for one in read),
        files=tuple(one.file for one in read),
        figures=pa.concat_tables([one.figures for one in read], promote_options="default"),
        baseline=baseline if sum(baseline.values()) >= drift.BASELINE else {},
    )
