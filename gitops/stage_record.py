"""How a stage's runs went, for the metrics: `stages/<project>/<stage>.json` in the state folder.

A job is over before anybody scrapes it. So it writes down how it goes, and the reconciler exports that.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from pydantic import AwareDatetime, Field

from gitops.contracts.base import Contract, Name
from gitops.errors import ContractError
from gitops.state import State, write_atomically
from gitops.status import now
from monitoring.metrics import StageOutcome


class StageRecord(Contract):
    """A stage of one project."""

    project: Name
    stage: str
    running: bool = Field(description="True too where the run was killed, and not begun again.")
    begun_at: AwareDatetime = Field(description="When the last run began.")
    progress_at: AwareDatetime = Field(description="When it began, ended or told of progress last.")
    seconds: float | None = Field(default=None, description="How long the run took that ended last.")
    outcomes: dict[StageOutcome, int] = Field(default={}, description="How many runs ended so.")

    def begun(self, at: datetime) -> "StageRecord":
        """After another run has begun."""
        return self.model_copy(update={"running": True, "begun_at": at, "progress_at": at})

    def progressed(self, at: datetime) -> "StageRecord":
        """After the run has told of progress."""
        return self.model_copy(update={"progress_at": at})

    def ended(self, outcome: StageOutcome, at: datetime) -> "StageRecord":
        """After the run has ended."""
        outcomes = {**self.outcomes, outcome: self.outcomes.get(outcome, 0) + 1}
        seconds = (at - self.begun_at).total_seconds()
        return self.model_copy(update={"running": False, "progress_at": at, "seconds": seconds, "outcomes": outcomes})


class StageRecorder:
    """Keeps a stage's record while it runs; of two runs at once the later word counts.

    Args:
        state: the state folder.
        project: the project's name.
        stage: the stage's name.
    """

    def __init__(self, state: State, project: str, stage: str) -> None:
        self._file = state.stages / project / f"{stage}.json"
        at = now()
        before = _read(self._file)
        fresh = StageRecord(project=project, stage=stage, running=True, begun_at=at, progress_at=at)
        self._record = (before or fresh).begun(at)
        self._write()

    def progress(self, at_least_seconds: float) -> None:
        """The run goes on; written down where the last word is older than `at_least_seconds`."""
        at = now()
        if (at - self._record.progress_at).total_seconds() >= at_least_seconds:
            self._record = self._record.progressed(at)
            self._write()

    def end(self, outcome: StageOutcome) -> None:
        """The run is over."""
        self._record = self._record.ended(outcome, now())
        self._write()

    def _write(self) -> None:
        write_atomically(self._file, self._record.to_json())


def stage_records(state: State) -> Iterator[StageRecord]:
    """The records in a state folder; what another version wrote is passed over."""
    for file in sorted(state.stages.glob("*/*.json")):
        if record := _read(file):
            yield record


def _read(file: Path) -> StageRecord | None:
    try:
        return StageRecord.read(file)
    except ContractError:
        return None
