"""What the reconciler says about an environment: Argo CD's words, in a status file and an append-only history."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from gitops.contracts.base import Contract
from gitops.contracts.serving import ServedModel, Trial
from gitops.errors import ContractError
from gitops.state import State, append_line, lines_backwards, write_atomically

SyncCode = Literal["Synced", "OutOfSync", "Unknown"]
HealthCode = Literal["Healthy", "Progressing", "Missing", "Degraded", "Unknown"]
Phase = Literal["Running", "Succeeded", "Failed", "Error"]
ConditionType = Literal[
    "ComparisonError", "InvalidSpecError", "SyncError", "OrphanedResourceWarning", "RestartRequiredWarning"
]
_WORSE: tuple[HealthCode, ...] = ("Healthy", "Progressing", "Missing", "Degraded", "Unknown")
_HISTORY_IN_STATUS = 10
"""As many deployments as Argo CD keeps; history.jsonl keeps all."""


class Words(Contract):
    """Base of the status contracts: their JSON has Argo CD's camelCase keys."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    def to_json(self) -> str:
        """Indented JSON with a final newline."""
        return json.dumps(self.as_words(), indent=2, ensure_ascii=False) + "\n"

    def as_words(self) -> dict[str, Any]:
        """The JSON value, with camelCase keys."""
        return self.model_dump(mode="json", by_alias=True)


class Sync(Words):
    """Whether the cluster's configuration is that of Git."""

    status: SyncCode = "Unknown"
    revision: str | None = Field(default=None, description="The commit that was compared with.")


class Health(Words):
    """Whether what runs is well."""

    status: HealthCode = "Unknown"
    message: str = ""


class Condition(Words):
    """Something a person should know."""

    type: ConditionType
    message: str


class Resource(Words):
    """An application of the environment."""

    name: str
    kind: Literal["Application"] = "Application"
    status: SyncCode = "Unknown"
    health: Health = Health()
    requires_pruning: bool = Field(default=False, description="Git does not name it any more.")
    wanted: ServedModel | None = Field(default=None, description="The model that Git wants.")
    trial: Trial | None = Field(default=None, description="What Git wants to be tried beside it.")
    fleet: tuple[ServedModel, ...] | None = Field(
        default=None, description="The models that Git wants, each to be loaded when it is asked for; None: no fleet."
    )
    served: tuple[str, ...] = Field(
        default=(), description="`version@sha256` that replicas answered with; of a fleet `name version@sha256`."
    )


class SyncResult(Words):
    """What an operation was about."""

    revision: str
    resources: tuple[str, ...] = Field(default=(), description="Names of the applications that were put.")


class OperationState(Words):
    """The last operation: a commit that was made true, or not."""

    phase: Phase
    message: str = ""
    started_at: datetime
    finished_at: datetime | None = None
    sync_result: SyncResult
    retry_count: int = 0
    retry_at: datetime | None = Field(default=None, description="When the next attempt is due.")
    parameters: str = Field(description="The options and the cluster's life; a change of them allows a new attempt.")
    automated: bool = Field(default=True, description="False: a person asked with `mergeline sync`.")
    heals: int = Field(default=0, description="How often in a row the same commit was put back.")
    request: str | None = Field(default=None, description="Id of the `mergeline sync` that this answers.")
    unjudged: tuple[str, ...] = Field(
        default=(),
        description="Applications that it changes, or that one before it changed which did not come to its end; empty "
        "once it is known how they are.",
    )
    unhealthy: tuple[str, ...] = Field(
        default=(),
        description="Other applications that were not healthy when it began: it neither waits for them nor fails with "
        "them.",
    )


class Deployed(Words):
    """A line of history: a commit that was made true."""

    id: int
    revision: str
    deploy_started_at: datetime
    deployed_at: datetime
    committed_at: datetime = Field(description="The commit's own date; deployed_at less this is the lag.")
    author: str
    subject: str
    applications: tuple[str, ...]
    models: dict[str, ServedModel | None] = Field(
        description="Application, or `application/model` of a fleet → the model served since then."
    )
    trials: dict[str, Trial] = Field(default={}, description="Application → what was tried beside it since then.")


class Status(Words):
    """An environment as the reconciler saw it last: `reconciler/<environment>/status.json`."""

    environment: str
    sync: Sync = Sync()
    health: Health = Health()
    operation_state: OperationState | None = None
    resources: tuple[Resource, ...] = ()
    conditions: tuple[Condition, ...] = ()
    history: tuple[Deployed, ...] = Field(default=(), description="The latest deployments, oldest first.")
    tracked: tuple[str, ...] = Field(
        default=(), description="Applications that this environment put into the cluster: only these are ever pruned."
    )
    reconciled_at: datetime | None = None


def worst(healths: list[Health]) -> Health:
    """The worst of several, in Argo CD's order; Healthy if there are none."""
    return max(healths, key=lambda health: _WORSE.index(health.status), default=Health(status="Healthy"))


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


class Journal:
    """The reconciler's files of one environment; only the reconciler writes."""

    def __init__(self, state: State, environment: str) -> None:
        self.state = state
        self.environment = environment
        self.folder = state.reconciler / environment
        self._status = self.folder / "status.json"
        self._history = self.folder / "history.jsonl"

    @classmethod
    def at(cls, folder: Path) -> "Journal":
        """The journal whose folder is `<state>/reconciler/<environment>`.

        Raises:
            ContractError: it is no such folder.
        """
        state = State.at(folder.parent.parent)
        if not folder.name or folder.parent.name != state.reconciler.name:
            raise ContractError(f"{folder} is no journal: it must be <state folder>/reconciler/<environment>")
        return cls(state, folder.name)

    def status(self) -> Status:
        """The status as written last; all Unknown before the first."""
        if not self._status.exists():
            return Status(environment=self.environment)
        return Status.read(self._status)

    def write(self, status: Status) -> Status:
        """Replace the status; returns it as written, with the end of the history in it."""
        written = status.model_copy(update={"history": self.latest(_HISTORY_IN_STATUS)})
        write_atomically(self._status, written.to_json())
        return written

    def newest_first(self) -> Iterator[Deployed]:
        """Yield the deployments, reading no more than is asked for; a line that a crash cut off is passed over."""
        if not self._history.exists():
            return
        for line in lines_backwards(self._history):
            try:
                words = json.loads(line)
            except ValueError:
                continue
            yield Deployed.parse(words, str(self._history))

    def history(self) -> list[Deployed]:
        """Every deployment, oldest first."""
        return list(self.newest_first())[::-1]

    def latest(self, count: int) -> tuple[Deployed, ...]:
        """The latest deployments, oldest first."""
        return tuple(islice(self.newest_first(), count))[::-1]

    def append(self, entry: Deployed) -> None:
        """Add a line to the history, on the disk before this returns."""
        append_line(self._history, json.dumps(entry.as_words(), ensure_ascii=False))
