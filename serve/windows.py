"""Windows of photographs on the disk: figures as Parquet, what was found as JSON beside it, the latest ones only."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gitops.contracts.drift import DriftWindow, LabelCounts
from gitops.contracts.serving import ServedModel
from gitops.errors import ContractError
from gitops.state import write_atomically
from monitoring.metrics import WindowOutcome
from serve.measures import Measures
from serve.predictor import Observation

BASELINES = "baselines"
"""Folder of the label counts that later windows are compared with: a file a bundle."""
_TIME = "%Y%m%dT%H%M%S.%fZ"


@dataclass
class Row:
    """A photograph of a window."""

    taken_at: datetime
    sha256: str
    """Of the photograph's file."""
    observation: Observation
    photograph: bytes | None
    """The file, for who labels it later; None: not kept."""

    @classmethod
    def of(cls, data: bytes, observation: Observation, taken_at: datetime) -> "Row":
        """A photograph, and what was seen of it."""
        return cls(taken_at, hashlib.sha256(data).hexdigest(), observation, data)

    @property
    def margin(self) -> float:
        """How far the score is from the threshold: where it is small, the model is least sure."""
        return abs(self.observation.judgement.score - self.observation.judgement.threshold)


@dataclass(frozen=True)
class WindowFolder:
    """The windows of one application; one process writes them."""

    folder: Path
    """Made when a window is kept."""
    most: int
    """Windows that are kept; older ones are removed."""

    def keep(self, window: DriftWindow, rows: Sequence[Row]) -> Path:
        """Write a window, and remove what is too old; returns the Parquet file.

        Raises:
            OSError: it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        stem = self.folder / f"{window.ended_at.strftime(_TIME)}-{window.model.sha256[:12]}"
        _write_rows(stem.with_name(f"{stem.name}.parquet"), rows)
        write_atomically(stem.with_name(f"{stem.name}.json"), window.to_json())  # last: what it names is there
        files = sorted(self.folder.glob("*.json"))
        for old in files[: max(0, len(files) - self.most)]:
            old.unlink()
        for figures in self.folder.glob("*.parquet"):
            if not figures.with_suffix(".json").exists():  # its window is gone, or a crash came before it
                figures.unlink()
        return stem.with_name(f"{stem.name}.parquet")

    def last(self, model: ServedModel) -> DriftWindow | None:
        """The latest window of a bundle that was judged; None: there is none that can be read."""
        for file in sorted(self.folder.glob(f"*-{model.sha256[:12]}.json"), reverse=True):
            with suppress(ContractError):
                window = DriftWindow.read(file)
                if window.outcome != WindowOutcome.TOO_FEW:
                    return window
        return None

    def add_to_baseline(self, model: ServedModel, labels: dict[str, int]) -> None:
        """Count the labels of a window among those of the first.

        Raises:
            OSError: it cannot be written.
        """
        before = baseline_in(self.folder, model)
        sums = {label: before.get(label, 0) + labels.get(label, 0) for label in before | labels}
        write_atomically(_baseline(self.folder, model), LabelCounts(labels=sums).to_json())


def baseline_in(folder: Path, model: ServedModel) -> dict[str, int]:
    """How often a bundle gave each label in its first windows, in an application's folder; empty: it has none yet."""
    file = _baseline(folder, model)
    return dict(LabelCounts.read(file).labels) if file.exists() else {}


def _baseline(folder: Path, model: ServedModel) -> Path:
    return folder / BASELINES / f"{model.sha256}.json"


def read_window(file: Path) -> DriftWindow | None:
    """The window of a file that has been listed; None: the monitor, which keeps the latest only, has removed it since.

    Raises:
        ContractError: it cannot be read; it is named.
    """
    try:
        return DriftWindow.read(file)
    except ContractError:
        if file.exists():
            raise
        return None


def windows_below(folder: Path) -> list[DriftWindow]:
    """The windows of all applications in an environment's folder, oldest first.

    Raises:
        ContractError: one of them cannot be read; it is named.
    """
    windows = filter(None, map(read_window, folder.glob("*/*.json")))
    return sorted(windows, key=lambda window: window.ended_at)


def photograph_in(figures: Path, sha256: str) -> bytes | None:
    """The file of a window's photograph; None: it has no such photograph, or did not keep its file.

    Raises:
        OSError: the window cannot be read.
        ValueError: the same, as Arrow says it.
    """
    import pyarrow.parquet as pq

    rows = pq.read_table(figures, columns=["photograph"], filters=[("sha256", "=", sha256)])
    return next((data for data in rows["photograph"].to_pylist() if data is not None), None)


def _write_rows(file: Path, rows: Sequence[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    observations = [row.observation for row in rows]
    judgements = [observation.judgement for observation in observations]
    columns = {
        "taken_at": pa.array([row.taken_at for row in rows], pa.timestamp("us", tz="UTC")),
        "sha256": pa.array([row.sha256 for row in rows], pa.string()),
        "label": pa.array([judgement.label for judgement in judgements], pa.string()),
        "score": pa.array([judgement.score for judgement in judgements], pa.float64()),
        "confidence": pa.array([observation.confidence for observation in observations], pa.float64()),
        **{name: pa.array([getattr(item.measures, name) for item in observations]) for name in Measures.model_fields},
        "embedding": pa.array([item.embedding.tolist() for item in observations], pa.list_(pa.float32())),
        "photograph": pa.array([row.photograph for row in rows], pa.binary()),
    }
    temporary = file.with_name(f".{file.name}")
    pq.write_table(pa.table(columns), temporary)
    temporary.replace(file)
