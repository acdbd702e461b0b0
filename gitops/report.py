"""What one pass of the reconciler finds out, and the status that follows from it: pure functions of values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gitops.attempt import failure_of
from gitops.contracts.model import BundleManifest
from gitops.contracts.serving import FleetConfig, ServedModel, UserConfig
from gitops.difference import Difference, applications
from gitops.environment import Environment, ModelTarget
from gitops.errors import MergelineError, StalledError, WaitingError
from gitops.health import Slot, assess, live_slot, slot_of
from gitops.repository import Commit
from gitops.serve_api import Application, GrpcOptions, ServeDetails
from gitops.status import Condition, Health, OperationState, Resource, Status, Sync, SyncCode, now, worst
from gitops.wire import NO_ANSWERS, Answers

_T = TypeVar("_T")


@dataclass
class Pass:
    """What one pass has found out so far; each step adds to it."""

    previous: Status
    request: str | None = None
    """Id of the `mergeline sync` that asked for this pass."""
    retrying: bool = True
    """Whether a failed attempt may be followed by another one."""
    session: str = ""
    live: ServeDetails | None = None
    commit: Commit | None = None
    git_error: str = ""
    """Why Git could not be asked; with a `commit` that is what it named when it was asked last."""
    environment: Environment | None = None
    desired: dict[str, Any] = field(default_factory=dict)
    """The configuration that Git wants, as Serve reports it back."""
    differences: list[Difference] | None = None
    left_over: Mapping[str, Application] = field(default_factory=dict)
    """Applications of the cluster that Git does not name."""
    bundles: dict[str, tuple[Path, BundleManifest]] = field(default_factory=dict)
    """The bundles that were checked, by their digests."""
    damaged: dict[str, MergelineError] = field(default_factory=dict)
    """Applications of which a bundle cannot be had, though that kept nothing back, and why."""
    judged: bool = False
    """Whether what was applied has been waited for to the end."""
    answers: dict[str, Answers] = field(default_factory=dict)
    operation: OperationState | None = None
    tracked: frozenset[str] = frozenset()

    @property
    def at(self) -> Commit:
        """The commit that was fetched."""
        return _found(self.commit, "commit")

    @property
    def wanted(self) -> Environment:
        """The environment that was read."""
        return _found(self.environment, "environment")

    @property
    def running(self) -> ServeDetails:
        """What was seen on the cluster."""
        return _found(self.live, "cluster")

    @property
    def changed(self) -> frozenset[str]:
        """The applications that are not as Git has them."""
        return frozenset(difference.application for difference in self.differences or [])

    @property
    def prunable(self) -> list[str]:
        """The applications that this environment once put there, and that Git does not name any more."""
        return [name for name in self.left_over if name in self.tracked]

    def living(self, name: str) -> Application | None:
        """The application as it is; None if there is none."""
        return self.live.living.get(name) if self.live else None

    def slot(self, name: str) -> Slot | None:
        """What an application is to serve: Git's word where the cluster has it, else the cluster's own."""
        config, live = applications(self.desired).get(name), self.living(name)
        if config is not None and name not in self.changed:
            return slot_of(config)
        return live_slot(live) if live else None

    def health(self, name: str) -> Health:
        """How an application is."""
        return assess(name, self.living(name), self.slot(name), self.asked(name))

    def asked(self, name: str) -> Answers:
        """What an application's replicas said; nothing where they were not asked."""
        return self.answers.get(name, NO_ANSWERS)

    def has_replicas(self, name: str) -> bool:
        """Whether replicas run that have a model to answer with."""
        live, slot = self.living(name), self.slot(name)
        deployment = live.deployments.get(slot.deployment) if live and slot and not slot.is_empty else None
        return bool(deployment and deployment.running)

    def would_lose(self, target: ModelTarget, model: ServedModel) -> bool:
        """Whether something runs at a target that would be told to load `model`, and has not been told so yet."""
        app = self.living(target.application.name)
        slot = live_slot(app) if app else None
        return app is not None and not (slot and model in slot.models)

    def hopeless(self) -> list[str]:
        """Applications of which a bundle cannot be had and nothing answers: there is nothing to wait for."""
        silent = [name for name in self.damaged if not self.asked(name).by_replica]
        waiting = [name for name in silent if (app := self.living(name)) and app.status != "DEPLOY_FAILED"]
        return [name for name in waiting if self.health(name).status != "Healthy"]

    def unchanged(self) -> list[str]:
        """Applications that the cluster has as Git wants them."""
        return [name for name in applications(self.desired) if name not in self.changed and self.living(name)]

    @property
    def not_awaited(self) -> frozenset[str]:
        """Applications that the operation neither waits for nor fails with."""
        return frozenset(self.operation.unhealthy if self.operation else ())

    def still_unhealthy(self) -> dict[str, Health]:
        """Those of them that are not healthy yet."""
        found = {name: self.health(name) for name in sorted(self.not_awaited)}
        return {name: health for name, health in found.items() if health.status != "Healthy"}

    def ours(self) -> list[str]:
        """What Git names (what was ever put, where Git cannot be read), then what it names no longer."""
        live = self.live.living if self.live else {}
        named = list(applications(self.desired)) if self.desired else sorted(self.tracked & live.keys())
        return named + [name for name in self.prunable if name not in named]


def status_of(environment: str, found: Pass, error: MergelineError | None) -> Status:
    """The environment's status.

    Args:
        environment: its name.
        found: what is known.
        error: why not all of it could be found out.
    """
    resources = tuple(_resource(found, name) for name in found.ours()) if found.live else found.previous.resources
    sync = _sync(found)
    return Status(
        environment=environment,
        sync=sync,
        health=_health(found, sync, resources, error),
        operation_state=found.operation,
        resources=resources,
        conditions=tuple(_conditions(found, error)),
        tracked=tuple(sorted(found.tracked)),
        reconciled_at=now(),
    )


def _resource(found: Pass, name: str) -> Resource:
    app = found.environment.applications.get(name) if found.environment else None
    wanted = app.wanted if app and isinstance(app.wanted, UserConfig) else None
    health, served = _health_and_served(found, name)
    extra = name in found.left_over
    code: SyncCode = "Unknown"
    if found.differences is not None:
        code = "OutOfSync" if extra or name in found.changed else "Synced"
    return Resource(
        name=name,
        status=code,
        health=health,
        requires_pruning=extra,
        wanted=wanted.model if wanted else None,
        trial=wanted.trial if wanted else None,
        fleet=tuple(app.wanted.models.values()) if app and isinstance(app.wanted, FleetConfig) else None,
        served=served,
    )


def _health_and_served(found: Pass, name: str) -> tuple[Health, tuple[str, ...]]:
    health, answers = found.health(name), found.asked(name)
    before = next((resource for resource in found.previous.resources if resource.name == name), None)
    if before and answers == NO_ANSWERS and found.has_replicas(name):
        # Nobody asks them while Serve tells them of a change, or just before one is applied: they go on answering.
        return (health if name in found.answers else before.health), before.served
    return health, tuple(sorted({model for answer in answers.by_replica.values() for model in answer.in_memory}))


def _sync(found: Pass) -> Sync:
    revision = found.commit.id if found.commit else found.previous.sync.revision
    if found.differences is None or found.git_error:
        return Sync(status="Unknown", revision=revision)
    return Sync(status="OutOfSync" if found.changed or found.prunable else "Synced", revision=revision)


def _health(found: Pass, sync: Sync, resources: tuple[Resource, ...], error: MergelineError | None) -> Health:
    if found.live is None:
        return Health(status="Unknown", message=str(error or "the cluster was not looked at yet"))
    health = worst([resource.health for resource in resources if not resource.requires_pruning])
    failure = failure_of(found.operation, found.commit.id if found.commit else None)
    if failure and not (sync.status == "Synced" and health.status in ("Healthy", "Degraded")):
        return Health(status="Degraded", message=failure)
    return health


def _conditions(found: Pass, error: MergelineError | None) -> Iterator[Condition]:
    if error is not None:
        invalid = found.commit is not None and not isinstance(error, WaitingError)
        yield Condition(type="InvalidSpecError" if invalid else "ComparisonError", message=str(error))
    if found.git_error and found.commit:
        text = f"deployed is what Git named when it was asked last: {found.git_error}"
        yield Condition(type="ComparisonError", message=text)
    failure = failure_of(found.operation, found.commit.id if found.commit else None)
    if failure and failure != str(error):
        yield Condition(type="SyncError", message=failure)
    if foreign := sorted(found.left_over.keys() - found.tracked):
        text = f"the cluster has applications that this environment never named: {', '.join(foreign)}"
        yield Condition(type="OrphanedResourceWarning", message=text)
    http, wanted = found.live.http_options if found.live else None, found.environment
    if http and wanted and (http.host, http.port) != (wanted.http_host, wanted.http_port):
        text = (
            f"Git wants HTTP on {wanted.http_host}:{wanted.http_port}, but Serve listens on {http.host}:{http.port} "
            "and cannot move while it runs: `mergeline down`, then `mergeline up`"
        )
        yield Condition(type="RestartRequiredWarning", message=text)
    if http and wanted:
        options = (found.live and found.live.grpc_options) or GrpcOptions()
        if (live := (options.port, options.grpc_servicer_functions)) != wanted.grpc:
            text = (
                f"Git wants gRPC {_grpc(*wanted.grpc)}, but Serve has it {_grpc(*live)} and cannot change that while "
                "it runs: `mergeline down`, then `mergeline up`"
            )
            yield Condition(type="RestartRequiredWarning", message=text)


def _grpc(port: int, functions: Sequence[str]) -> str:
    return f"on port {port} ({', '.join(functions)})" if functions else "off"


def _found(value: _T | None, noun: str) -> _T:
    if value is None:
        raise StalledError(f"the step that finds the {noun} has not run: a mistake in Mergeline, please report it")
    return value
