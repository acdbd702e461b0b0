"""The loop that makes Git come true: look → fetch → read → compare → check → apply → observe, as Argo CD does it.

Status and history are in Argo CD's words (see gitops.status). A commit is attempted once for each set of parameters,
then retried a few times, ever later; what was serving goes on serving when a commit cannot be applied.
"""

import copy
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from gitops.attempt import Found, Goal, ReconcileSettings, begin, fail, is_due, settle, succeed
from gitops.bundle import Bundles
from gitops.contracts.model import BundleManifest
from gitops.contracts.serving import FleetConfig, ServedModel, UserConfig
from gitops.difference import Difference, applications, differences, left_over, with_kept
from gitops.environment import MEMBERS, Environment
from gitops.errors import BundleError, GitError, MergelineError, StalledError, WaitingError
from gitops.gates import POKE, serve_schema
from gitops.health import awaits_a_model, refusals, serving_status, slot_of
from gitops.layout import serve_config_path
from gitops.replicas import address_of, ask, probe
from gitops.report import Pass, status_of
from gitops.repository import Repository
from gitops.serve_api import Application, ServeApi
from gitops.state import State
from gitops.status import Deployed, Journal, OperationState, Phase, Status, now
from gitops.turn import Turn, stopping_by_signal
from gitops.wire import NO_ANSWERS
from monitoring import metrics
from monitoring.metrics import AttemptOutcome, Meters

_TICK_SECONDS = 0.2  # how soon the watcher notices a poke, a request or the end
# An operation that runs on after an attempt waits for the next one.
_OUTCOMES: Mapping[Phase, AttemptOutcome] = {
    "Succeeded": AttemptOutcome.SUCCEEDED,
    "Running": AttemptOutcome.RETRYING,
    "Failed": AttemptOutcome.FAILED,
    "Error": AttemptOutcome.INTERRUPTED,
}
Step = Callable[[Pass], None]


class _Stopped(Exception):  # noqa: N818 - no error: the reconciler was asked to end
    """Ends a pass early."""


class Reconciler:
    """Makes one environment of a repository come true on one cluster; the only writer of its status.

    Args:
        repository: where environments live.
        revision: the branch, tag or commit to follow.
        environment: name of the environment.
        api: Serve's REST API on the cluster.
        state: the state folder, for status, history, lock and bundles copied from afar.
        settings: how to go about it.
        meters: where its attempts are measured; None: nowhere.
    """

    def __init__(
        self,
        repository: Repository,
        revision: str,
        environment: str,
        api: ServeApi,
        state: State,
        settings: ReconcileSettings | None = None,
        meters: Meters | None = None,
    ) -> None:
        self.repository = repository
        self.revision = revision
        self.environment = environment
        self.api = api
        self.settings = settings or ReconcileSettings()
        self._meters = meters
        self.journal = Journal(state, environment)
        self._turn = Turn(self.journal.folder)
        self._bundles = Bundles(state.bundles)
        self._stop = threading.Event()
        self._comparing: tuple[Step, ...] = (self._look, self._fetch, self._read, self._compare)
        self._syncing: tuple[Step, ...] = (self._check_bundles, self._apply, self._observe)

    # --- what the command line calls ----------------------------------------------------------------------------------

    def diff(self) -> list[Difference]:
        """Where Git and the cluster differ now; nothing is changed or written.

        Raises:
            MergelineError: one of the two cannot be read.
        """
        found = Pass(previous=self.journal.status())
        for step in self._comparing:
            step(found)
        extra = [
            Difference(application=name, path="", kind="removed", live=app.deployed_app_config)
            for name, app in found.left_over.items()
        ]
        return [*(found.differences or []), *extra]

    def run_once(self) -> Status:
        """One pass: at most one attempt, without retries.

        Raises:
            StalledError: another reconciler works for this environment.
        """
        with self._turn.taken():
            return self._pass(request=None, retrying=False)

    def sync(self) -> Status:
        """One attempt now, whatever was attempted before; a reconciler that watches is asked to make it.

        Raises:
            WaitingError: the watching reconciler did not answer in time.
        """
        with self._turn.tried() as taken:
            if taken:
                return self._pass(secrets.token_hex(8), retrying=False)
        return self._answer_to(self._turn.ask())

    def watch(self) -> None:
        """Pass after pass, at each poke and every few seconds, until SIGTERM, Ctrl-C or `stop`.

        Raises:
            StalledError: another reconciler works for this environment.
        """
        with self._turn.taken(), stopping_by_signal(self._stop):
            while not self._stop.is_set():
                poked = self._poke_time()
                with suppress(_Stopped):
                    self._pass(self._turn.take_request(), retrying=True)
                self._rest(poked)

    def stop(self) -> None:
        """Make `watch` return soon; safe to call from another thread."""
        self._stop.set()

    # --- one pass -----------------------------------------------------------------------------------------------------

    def _pass(self, request: str | None, *, retrying: bool) -> Status:
        last = self.journal.status()
        found = Pass(previous=last, request=request, retrying=retrying and request is None)
        found.operation, found.tracked = last.operation_state, frozenset(last.tracked)
        error = _first_error((*self._comparing, self._refuse_empty), found)
        if found.commit and (request or self._is_due(found, error)):
            self._operate(found, error)
        elif found.commit and error is None and not self._work(found) and not self._goal(found).is_of(found.operation):
            found.operation = settle(self._goal(found), found.operation, now(), tuple(applications(found.desired)))
        elif request and error:  # without a commit nothing can be attempted, but who asked wants an answer
            found.operation = fail(self._begin(found), error, self.settings, now(), retrying=False, judged=False)
        self._ask(found)
        return self._publish(found, error)

    def _goal(self, found: Pass) -> Goal:
        options = f"prune={self.settings.prune} allow_empty={self.settings.allow_empty}"
        return Goal(found.commit.id if found.commit else "", f"cluster={found.session} {options}")

    def _is_due(self, found: Pass, error: MergelineError | None) -> bool:
        work, valid = self._work(found), error is None
        return is_due(self._goal(found), found.operation, self.settings, now(), work=work, valid=valid)

    def _work(self, found: Pass) -> bool:
        """Whether there is something to apply."""
        return bool(found.changed or (self.settings.prune and found.prunable))

    def _begin(self, found: Pass) -> OperationState:
        unchanged = found.unchanged()
        self._ask(found, unchanged)
        unhealthy = frozenset(name for name in unchanged if found.health(name).status in ("Degraded", "Progressing"))
        facts = Found(tuple(applications(found.desired)), found.changed, unhealthy)
        return begin(self._goal(found), found.operation, self.settings, now(), facts, found.request)

    def _operate(self, found: Pass, error: MergelineError | None) -> None:
        """Attempt the commit, and keep in `found.operation` how that went."""
        found.operation = operation = self._begin(found)
        begun = time.monotonic()
        try:
            if error is None:
                self._publish(found)
                error = _first_error(self._syncing, found)
        except BaseException as failure:  # whatever it is, it is written down and raised on
            asked = isinstance(failure, _Stopped | KeyboardInterrupt | SystemExit)
            reason = "the reconciler was stopped" if asked else f"{type(failure).__name__}: {failure}"
            message = f"interrupted: {reason}; the next start attempts this commit again"
            found.operation = operation.model_copy(update={"phase": "Error", "message": message, "finished_at": now()})
            self._publish(found)
            self._measure(found.operation, begun)
            raise
        if error is not None:
            found.operation = fail(operation, error, self.settings, now(), retrying=found.retrying, judged=found.judged)
        else:
            found.operation = succeed(operation, self._success(found), now())
            if self.settings.prune:
                found.tracked = frozenset(applications(found.desired))
            self._record(found, found.operation)
        self._measure(found.operation, begun)

    def _measure(self, operation: OperationState, begun: float) -> None:
        """Measure an attempt that began at `begun`, on the monotonic clock."""
        if self._meters:
            self._meters.count(metrics.SYNC_ATTEMPTS, self.environment, _OUTCOMES[operation.phase])
            self._meters.observe(metrics.SYNC_SECONDS, time.monotonic() - begun, self.environment)

    def _success(self, found: Pass) -> str:
        kept = [] if self.settings.prune else found.prunable
        said = [f"kept without --prune: {', '.join(kept)}"] if kept else []
        unhealthy = found.still_unhealthy().items()
        minded = {name: f"{name} was not healthy before, and is {it.status}: {it.message}" for name, it in unhealthy}
        minded |= {name: str(error) for name, error in found.damaged.items()}
        said += [f"mind: {text}" for text in minded.values()]
        return "; ".join(["successfully synced", *said])

    def _record(self, found: Pass, operation: OperationState) -> None:
        before, unhealthy = next(self.journal.newest_first(), None), found.still_unhealthy()
        models = found.wanted.served()
        trials = {name: wanted.trial for name, wanted in found.wanted.wanted().items() if wanted.trial}
        for target in found.wanted.targets():
            if target.application.name in unhealthy:  # so nobody can say what it serves and tries since now
                models[target.name] = before.models.get(target.name) if before else None
                trials.pop(target.name, None)
                if before and target.name in before.trials:
                    trials[target.name] = before.trials[target.name]
        self.journal.append(
            Deployed(
                id=before.id + 1 if before else 0,
                revision=found.at.id,
                deploy_started_at=operation.started_at,
                deployed_at=operation.finished_at or now(),
                committed_at=datetime.fromisoformat(found.at.date),
                author=found.at.author,
                subject=found.at.subject,
                applications=tuple(found.wanted.applications),
                models=models,
                trials=trials,
            )
        )

    def _publish(self, found: Pass, error: MergelineError | None = None) -> Status:
        """Write the status: the one place that does."""
        return self.journal.write(status_of(self.environment, found, error))

    # --- the steps ----------------------------------------------------------------------------------------------------

    def _look(self, found: Pass) -> None:
        """What runs on the cluster."""
        found.session = self.api.session()
        found.live = self.api.applications()

    def _fetch(self, found: Pass) -> None:
        """The commit that the revision names.

        Where Git is away and nothing of ours runs, the one that it named when it was asked last: so a machine that
        comes up without its network serves as it would with it.
        """
        try:
            found.commit = self.repository.fetch(self.revision)
        except GitError as error:
            found.git_error = str(error)
            if not found.running.living.keys() & set(found.previous.tracked):
                with suppress(GitError):
                    found.commit = self.repository.known(self.revision)
            if found.commit is None:
                raise WaitingError(str(error)) from error

    def _read(self, found: Pass) -> None:
        """The environment at that commit, checked strictly and by Ray's own schema."""
        path = serve_config_path(self.environment)
        source = f"{path} at commit {found.at.id[:12]}"
        found.environment = Environment.parse(self.repository.read(found.at.id, path), source)
        found.desired = as_serve_reports_it(found.environment.config, source)

    def _compare(self, found: Pass) -> None:
        """Desired against live, application by application."""
        found.differences = differences(found.desired, found.running)
        found.left_over = left_over(found.desired, found.running)

    def _refuse_empty(self, found: Pass) -> None:
        """An environment without any application is more likely a mistake than a wish."""
        if not found.wanted.applications and not self.settings.allow_empty:
            raise StalledError(
                f"environment {self.environment} has no application at commit {found.at.id[:12]}; "
                "put one back, or allow this with --allow-empty"
            )

    def _check_bundles(self, found: Pass) -> None:
        """The bundle of each model and candidate is there, whole, and what its digest says.

        One that is not keeps the commit back only where something would be told to load it in place of what it serves:
        what stays as it is goes on answering, and what does not run, as after a restart, has nothing to lose. So one
        application's bundle keeps no other from coming up, or from its promotion.
        """
        for target in found.wanted.targets():
            for model in target.wanted.models:
                try:
                    found.bundles[model.sha256] = self._checked(target.name, model)
                except MergelineError as error:
                    if found.would_lose(target, model):
                        raise
                    found.damaged.setdefault(target.application.name, error)

    def _checked(self, name: str, model: ServedModel) -> tuple[Path, BundleManifest]:
        """An application's bundle, in a folder of this machine.

        Raises:
            StalledError: something is wrong with it.
            WaitingError: its store may only be away for a while.
        """
        try:
            verified = self._bundles.fetch(model.uri, model.sha256)
        except BundleError as error:
            text = f"application {name}, {model.name} version {model.version}: {error}"
            kind = StalledError if model.uri.startswith("file:") else WaitingError
            raise kind(text) from error
        if verified.manifest.name != model.name:
            raise StalledError(
                f"application {name}: {model.uri} is a model of {verified.manifest.name}, not {model.name}"
            )
        return verified.folder, verified.manifest

    def _apply(self, found: Pass) -> None:
        """Put the configuration, and with it what must not be deleted."""
        pruned = found.prunable if self.settings.prune else []
        kept = {name: app for name, app in found.left_over.items() if name not in pruned}
        _refuse_shared_routes(found.wanted, kept)
        found.tracked |= applications(found.desired).keys()
        self._publish(found)  # before the PUT, so that a kill in between does not lose what is ours
        self.api.put(with_kept(found.desired, kept))

    def _observe(self, found: Pass) -> None:
        """Wait until all has been healthy for a while, or is known not to become so."""
        begun = asked_git = time.monotonic()
        healthy_since: float | None = None
        found.judged = True
        while True:
            found.live = self.api.applications()
            self._compare(found)
            self._ask(found)
            self._publish(found)
            at = time.monotonic()
            lacking = self._lacking(found)
            healthy_since = None if lacking else (healthy_since or at)
            if healthy_since is not None and time.monotonic() - healthy_since >= self.settings.healthy_seconds:
                if hopeless := [name for name in found.hopeless() if name not in found.not_awaited]:
                    raise found.damaged[hopeless[0]]
                return
            if at - begun > self.settings.observe_seconds:
                raise WaitingError(f"not healthy after {self.settings.observe_seconds:.0f} s: {lacking}")
            if at - asked_git > self.settings.poll_seconds:
                asked_git = at
                self._refuse_superseded(found)
            if self._stop.wait(self.settings.look_seconds):
                raise _Stopped

    def _lacking(self, found: Pass) -> str:
        """What keeps the commit from being healthy; empty if nothing does.

        Raises:
            WaitingError: an application or a model failed.
            StalledError: a model gives its probe a wrong score.
        """
        if found.differences:
            return f"the cluster does not have the configuration yet: {found.differences[0]}"
        if self.settings.prune and found.prunable:
            return f"being deleted: {', '.join(found.prunable)}"
        not_awaited = found.not_awaited.union(found.hopeless())
        for name, config in applications(found.desired).items():
            if name not in not_awaited and (missing := self._lacks(found, name, config)):
                return missing
        return ""

    def _lacks(self, found: Pass, name: str, config: Mapping[str, Any]) -> str:
        live, slot, health = found.living(name), slot_of(config), found.health(name)
        status = serving_status(live) if live else ""
        wanted: UserConfig | FleetConfig = slot.wanted if slot else UserConfig()
        if refusals(wanted, found.answers.get(name, NO_ANSWERS)):
            raise WaitingError(health.message)
        if status == "DEPLOY_FAILED":  # never an old one: a PUT makes it DEPLOYING before it answers
            raise WaitingError("; ".join([health.message, *filter(None, [str(found.damaged.get(name, ""))])]))
        if live and slot and awaits_a_model(live, slot):
            return ""
        if health.status != "Healthy":
            return health.message
        url = address_of(found.running, found.running.applications[name], self.api.url)
        if url is None:
            return ""
        if isinstance(wanted, UserConfig):
            asked = [(url, model) for model in wanted.models if model.sha256 in found.bundles]
        else:  # what was served before has answered its probe; to ask all of a fleet would load them all
            new = found.bundles.keys() - self._served_before()
            models = [model for model in wanted.models.values() if model.sha256 in new]
            asked = [(f"{url}{MEMBERS}/{model.name}", model) for model in models]
        lacking = (probe(place, model, *found.bundles[model.sha256]) for place, model in asked)
        return next(filter(None, lacking), "")

    def _served_before(self) -> set[str]:
        """Digests of what the last deployment served."""
        last = next(self.journal.newest_first(), None)
        return {model.sha256 for model in last.models.values() if model} if last else set()

    def _refuse_superseded(self, found: Pass) -> None:
        with suppress(GitError):  # a Git server that is away is no reason to break off
            latest = self.repository.fetch(self.revision)
            if latest.id != found.at.id:
                found.judged = False
                raise StalledError(f"superseded by commit {latest.id[:12]} before it was healthy")

    def _ask(self, found: Pass, names: Sequence[str] | None = None) -> None:
        """What the replicas of running applications say themselves; None: of all that are the environment's."""
        found.answers = {}
        for name in found.ours() if names is None else names:
            live, slot = found.living(name), found.slot(name)
            if live and slot:
                found.answers[name] = ask(found.running, live, slot, self.api.url)

    # --- waiting ------------------------------------------------------------------------------------------------------

    def _answer_to(self, request: str) -> Status:
        deadline = time.monotonic() + 2 * self.settings.observe_seconds
        while time.monotonic() < deadline:
            status = self.journal.status()
            last = status.operation_state
            if last and last.request == request and last.phase != "Running":
                return status
            time.sleep(_TICK_SECONDS)
        raise WaitingError(f"the reconciler of {self.environment} did not finish the sync; see `mergeline status`")

    def _poke_time(self) -> int:
        if self.repository.remote:
            return 0
        try:
            return (self.repository.git_dir / POKE).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def _rest(self, poked: int) -> None:
        """Wait for the next pass: a poke, a request, or the poll interval."""
        until = time.monotonic() + self.settings.poll_seconds
        while time.monotonic() < until and not self._stop.wait(_TICK_SECONDS):
            if self._poke_time() != poked or self._turn.is_asked():
                return


def as_serve_reports_it(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The configuration as Serve will report it back: checked and coerced by Ray's schema, nothing filled in.

    Raises:
        StalledError: Ray's schema refuses it.
    """
    if complaint := serve_schema(config):
        raise StalledError(f"Ray Serve's schema refuses {source}: {complaint}")
    from ray.serve.schema import ServeDeploySchema

    checked = ServeDeploySchema.model_validate(copy.deepcopy(dict(config)))
    reported: dict[str, Any] = checked.model_dump(mode="json", exclude_unset=True)
    return reported


def _refuse_shared_routes(wanted: Environment, kept: Mapping[str, Application]) -> None:
    holders = {app.route_prefix: name for name, app in kept.items() if app.route_prefix is not None}
    for name, app in wanted.applications.items():
        if app.route_prefix in holders:
            raise StalledError(
                f"application {name} wants the route {app.route_prefix}, which application {holders[app.route_prefix]} "
                "holds and Git does not name; delete that one (--prune does if this environment put it there)"
            )


def _first_error(steps: tuple[Step, ...], found: Pass) -> MergelineError | None:
    try:
        for step in steps:
            step(found)
    except MergelineError as error:
        return error
    return None
