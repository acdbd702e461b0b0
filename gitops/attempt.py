"""When a commit is attempted, retried or put back: pure functions of the last operation and the settings."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import Field

from gitops.contracts.base import Contract
from gitops.errors import MergelineError, WaitingError
from gitops.status import OperationState, SyncResult


class ReconcileSettings(Contract):
    """How the reconciler goes about it; the defaults of retrying are Argo CD's."""

    self_heal: bool = Field(default=False, description="Put back what was changed on the cluster behind Git's back.")
    prune: bool = Field(default=False, description="Delete applications that Git no longer names.")
    allow_empty: bool = Field(default=False, description="Accept an environment without any application.")
    poll_seconds: float = Field(default=3.0, gt=0, description="Between two looks at Git and the cluster.")
    healthy_seconds: float = Field(default=2.0, ge=0, description="Success is said after being healthy for so long.")
    observe_seconds: float = Field(default=120.0, gt=0, description="Longest wait for an applied commit to be healthy.")
    look_seconds: float = Field(default=0.4, gt=0, description="Between two looks while a commit is being applied.")
    retry_limit: int = Field(default=5, ge=0, description="Retries of a commit after its first attempt.")
    retry_seconds: float = Field(default=5.0, gt=0, description="Wait before the first retry, or the second self-heal.")
    retry_factor: float = Field(default=2.0, ge=1, description="How much longer each further wait is.")
    retry_max_seconds: float = Field(default=180.0, gt=0, description="Longest wait before a retry.")

    def wait_before(self, attempt: int) -> timedelta:
        """How long to wait before retry number `attempt`, counted from 1."""
        waits = min(attempt - 1, 64)  # beyond any sensible maximum, and far from overflowing
        return timedelta(seconds=min(self.retry_seconds * self.retry_factor**waits, self.retry_max_seconds))


@dataclass(frozen=True)
class Goal:
    """What is attempted once: a commit, and the parameters that it is attempted with."""

    revision: str
    parameters: str
    """The options and the cluster's life: a change of them allows another attempt."""

    def is_of(self, operation: OperationState | None) -> bool:
        """Whether an operation had this goal."""
        return operation is not None and self == Goal(operation.sync_result.revision, operation.parameters)


def is_due(
    goal: Goal, last: OperationState | None, settings: ReconcileSettings, at: datetime, *, work: bool, valid: bool
) -> bool:
    """Whether to attempt `goal` now without anybody asking for it.

    Args:
        goal: the commit as it is now, and its parameters.
        last: the last operation.
        settings: how to go about it.
        at: the time.
        work: whether there is something to apply.
        valid: whether the commit could be read and compared; one that couldn't is attempted once, so that this is said.
    """
    if last is None or not goal.is_of(last):
        return work or not valid
    if last.phase == "Running":  # waits for its next attempt, or was killed in its middle
        return last.retry_at is None or at >= last.retry_at
    if last.phase == "Error":
        return True
    return last.phase == "Succeeded" and settings.self_heal and work and valid and at >= _next_heal(last, settings)


@dataclass(frozen=True)
class Found:
    """What an operation finds when it begins."""

    resources: tuple[str, ...] = ()
    """The applications that Git wants."""
    changed: frozenset[str] = frozenset()
    """Those that are not as Git wants them."""
    unhealthy: frozenset[str] = frozenset()
    """Those that are as Git wants them, and not healthy."""


def begin(
    goal: Goal,
    last: OperationState | None,
    settings: ReconcileSettings,
    at: datetime,
    found: Found,
    request: str | None = None,
) -> OperationState:
    """The operation that starts now: the next attempt of the last one where that waits for it, else a new one.

    It answers for what it changes, and for what the last one had changed if nobody knows yet how that ended. Of the
    others it leaves out those that are not healthy, unless a person asks it for nothing else than to look at them.

    Args:
        goal: what is attempted.
        last: the last operation.
        settings: how to go about it.
        at: the time.
        found: how the applications are.
        request: of the `mergeline sync` that asks for it.
    """
    result = SyncResult(revision=goal.revision, resources=found.resources)
    same = last if last and goal.is_of(last) else None
    automated = same if request is None else None
    if automated and automated.retry_at:
        return automated.model_copy(
            update={"sync_result": result, "retry_count": automated.retry_count + 1, "retry_at": None}
        )
    heals = 0
    if automated and automated.phase == "Succeeded":
        recent = at - _end(automated) < timedelta(seconds=settings.retry_max_seconds)
        heals = automated.heals + 1 if recent else 1
    unjudged = found.changed | (frozenset(last.unjudged) & frozenset(found.resources) if last else frozenset())
    unhealthy = found.unhealthy - unjudged
    if same and same.phase != "Succeeded":  # it may have made the others so itself
        unhealthy &= frozenset(same.unhealthy)
    elif request and not found.changed:
        unhealthy = frozenset()
    return OperationState(
        phase="Running",
        started_at=at,
        sync_result=result,
        parameters=goal.parameters,
        automated=request is None,
        heals=heals,
        request=request,
        unjudged=tuple(sorted(unjudged)),
        unhealthy=tuple(sorted(unhealthy)),
    )


def settle(goal: Goal, last: OperationState | None, at: datetime, resources: tuple[str, ...]) -> OperationState:
    """The operation of a commit that the cluster is as already; of the last one's changes nobody knows more by it.

    It counts as attempted: what is changed on the cluster afterwards is put back by self-healing only.
    """
    return OperationState(
        phase="Succeeded",
        message="nothing to apply: the cluster was as this commit says",
        started_at=at,
        finished_at=at,
        sync_result=SyncResult(revision=goal.revision, resources=resources),
        parameters=goal.parameters,
        unjudged=last.unjudged if last else (),
    )


def succeed(operation: OperationState, message: str, at: datetime) -> OperationState:
    """The operation after an attempt that made the commit true."""
    return operation.model_copy(update={"phase": "Succeeded", "message": message, "finished_at": at, "unjudged": ()})


def fail(
    operation: OperationState,
    error: MergelineError,
    settings: ReconcileSettings,
    at: datetime,
    *,
    retrying: bool,
    judged: bool = True,
) -> OperationState:
    """The operation after a failed attempt: waiting for the next one if that may help and is allowed, else Failed.

    Args:
        operation: as it began.
        error: why the attempt failed.
        settings: how to go about it.
        at: the time.
        retrying: whether there may be another attempt.
        judged: whether it is known how what was changed is; not where nothing was applied, or another commit came.
    """
    if retrying and isinstance(error, WaitingError) and operation.retry_count < settings.retry_limit:
        retry_at = at + settings.wait_before(operation.retry_count + 1)
        return operation.model_copy(update={"message": str(error), "retry_at": retry_at})
    spent = f" (given up after {operation.retry_count} retries; `mergeline sync` tries again)"
    message = str(error) + (spent if operation.retry_count else "")
    ended = {"phase": "Failed", "message": message, "finished_at": at}
    return operation.model_copy(update=ended | ({"unjudged": ()} if judged else {}))


def failure_of(operation: OperationState | None, revision: str | None) -> str:
    """Why the last attempt of a commit failed; empty if it didn't, or its first one runs."""
    if operation is None or operation.sync_result.revision != revision:
        return ""
    failed = operation.phase == "Failed" or (operation.phase == "Running" and bool(operation.message))
    return operation.message if failed else ""


def _next_heal(last: OperationState, settings: ReconcileSettings) -> datetime:
    """The first self-heal comes at once; where they come again and again, somebody works against them."""
    return _end(last) + settings.wait_before(last.heals) if last.heals else _end(last)


def _end(operation: OperationState) -> datetime:
    return operation.finished_at or operation.started_at
