"""One machine: the whole line (`mergeline up`), or only what Git wants to be served (`mergeline serve`)."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import psutil
from rich.console import Console

from gitops import environment, gates, layout, status
from gitops.contracts.project import Project
from gitops.contracts.serving import ModelVersion
from gitops.errors import GitError, MergelineError
from gitops.promotion import Destination
from gitops.repository import MAIN, Repository, create_bare
from gitops.seed import seed_environment, with_application
from ray_jobs import cluster, doctor, processes, submit
from ray_jobs.cluster import ClusterError, Session
from ray_jobs.stage import Stage

DEFAULT_PORT = 8000
_SYNC_SECONDS = 180
_POLL_SECONDS = 0.5
_LOOK_SECONDS = 5.0
"""Between two looks at what must run."""
_SILENT_SECONDS = 30
"""A Ray that does not answer for so long has ended."""
_CRASH_SECONDS = 2
"""What is left of it gets so long to end by itself: a Ray without its GCS takes 20, in which nothing is served."""


@dataclass(frozen=True)
class Options:
    """What `mergeline up` was asked for."""

    environment: str
    training: submit.Training = field(default_factory=submit.Training)
    repository: str | None = None
    port: int = DEFAULT_PORT
    self_heal: bool = False


@dataclass(frozen=True)
class Served:
    """What `mergeline up` ends with."""

    version: ModelVersion
    url: str
    dashboard: str
    repository: str


def up(stage: Stage, options: Options, console: Console) -> Served:
    """Start what does not run yet, run the line, promote its version, and wait until that answers.

    Ctrl-C ends what this call started; what ran before goes on running.

    Raises:
        MergelineError: a stage, a gate or the deployment failed. What was served is served on, and what was deployed
            before is left to the reconciler: a folder of photographs that is away must not keep a line from answering.
    """
    if options.environment not in stage.project.environments:
        known = ", ".join(stage.project.environments)
        raise MergelineError(f"{stage.project_file} has no environment {options.environment!r}; it has {known}")
    with _started(stage, options, console) as session:
        os.environ.update(session.environment())
        repository = Repository(options.repository or _deployments(stage, options))
        reconciler = _reconciler(stage, options, session, repository)
        if options.repository is None:
            _join(stage, options, repository, console)
        submit.run_pipeline(stage, session.dashboard, options.training, console)
        version, commit = _promote(stage, options, repository, console)
        return _await_served(stage, options, session, repository, reconciler, version, commit)


def serve(stage: Stage, options: Options, repository: Repository, console: Console) -> None:
    """Serve what Git wants, and tell what changes, until this is interrupted; then all of it has ended.

    No stage is run and nothing is promoted. Where Git is away, what it said last is served.

    Raises:
        ClusterError: something runs for the state folder already, the port is taken, or Ray has ended.
        MergelineError: Git was never asked yet and is away, or what it wants cannot be read.
    """
    running = cluster.session_of(stage.state)
    if running and running.is_running():
        raise _runs_already(stage)
    wanted = _wanted(repository, options.environment)
    if doctor.in_use(wanted.http_port):
        raise ClusterError(
            f"port {wanted.http_port} is in use by another program: end that, or give {options.environment} another one"
        )
    begun = status.now()
    console.print(f"serving {options.environment} of {repository.location} at http://127.0.0.1:{wanted.http_port}/")
    session, ours = cluster.start_or_join(stage.state)
    if not ours:  # another command has begun meanwhile
        raise _runs_already(stage)
    try:
        os.environ.update(session.environment())
        grace: float = processes.STOP_SECONDS
        try:
            _tell(stage, options, session, repository, console, begun)
        except ClusterError:
            grace = _CRASH_SECONDS
            raise
        finally:  # where another command ended the session meanwhile, what was started since is in no file
            processes.end(session.id, session.folder, grace=grace)
    finally:
        cluster.stop(stage.state)


def _runs_already(stage: Stage) -> ClusterError:
    return ClusterError(
        f"something runs for {stage.state.root} already: `mergeline status` says what, `mergeline down` ends it"
    )


def _wanted(repository: Repository, name: str) -> environment.Environment:
    """What Git wants in the environment, as far as it can be asked."""
    try:
        commit = repository.fetch(MAIN).id
    except GitError:
        commit = repository.known(MAIN).id
    path = layout.serve_config_path(name)
    return environment.Environment.parse(repository.read(commit, path), f"{path} at commit {commit[:12]}")


def _tell(
    stage: Stage, options: Options, session: Session, repository: Repository, console: Console, since: datetime
) -> None:
    """Keep a reconciler at work and print what it says, until `mergeline down` ends the session.

    Raises:
        ClusterError: Ray has ended, or does not answer any more.
    """
    journal, said = status.Journal(stage.state, options.environment), ""
    reconciler, looked, answered = _reconciler(stage, options, session, repository), 0.0, time.monotonic()
    vital = cluster.vital_processes(session)
    while cluster.session_of(stage.state) == session:
        if time.monotonic() - looked > _LOOK_SECONDS:  # not at each round: it costs more than to read a file
            looked = time.monotonic()
            # `mergeline down` ends the reconciler too, and no error is told of it.
            if processes.is_alive(reconciler) and not all(map(processes.is_alive, vital)):
                raise ClusterError(f"Ray has ended, see {stage.state.session / 'ray.log'}; so all of it was ended")
            if session.is_running():
                answered = looked
                if not processes.is_alive(reconciler):
                    console.print(f"the reconciler ended, and is started again: {_last_words(stage, options)}")
                    reconciler = _reconciler(stage, options, session, repository)
            elif looked - answered > _SILENT_SECONDS:
                raise ClusterError(f"Ray has not answered for {_SILENT_SECONDS} s, so all of it was ended")
        now = journal.status()
        if now.reconciled_at and now.reconciled_at >= since and (text := _told(now)) != said:
            console.print(f"{now.reconciled_at.astimezone():%H:%M:%S} {text}")
            said = text
        time.sleep(_POLL_SECONDS)


def _last_words(stage: Stage, options: Options) -> str:
    """The last line of the reconciler's log."""
    lines = _log(stage, options).read_text(errors="replace").splitlines()
    return lines[-1] if lines else "it said nothing"


def _log(stage: Stage, options: Options) -> Path:
    return stage.state.session / f"reconciler-{options.environment}.log"


def _told(now: status.Status) -> str:
    served = [f"{one.name} {answer.partition('@')[0]}" for one in now.resources for answer in one.served]
    health = now.health.status + (f" ({now.health.message})" if now.health.message else "")
    return f"{now.sync.status}, {health}, served: {', '.join(served) or 'nothing'}"


@contextmanager
def _started(stage: Stage, options: Options, console: Console) -> Iterator[Session]:
    """The state folder's Ray; one that this call started ends with a failure, unless there is something to serve."""
    running = cluster.session_of(stage.state)
    fresh = not (running and running.is_running())
    if fresh and doctor.in_use(port := _port(stage, options)):
        given = "choose another with `mergeline up --port`" if port == options.port else "change it in its serve-config"
        raise ClusterError(f"port {port} of {options.environment} is in use by another program: end that, or {given}")
    if fresh:
        console.print("starting Ray")
    session, fresh = cluster.start_or_join(stage.state)
    try:
        if fresh and session.without_haproxy:
            console.print(f"mind: requests take Ray Serve's own, slower proxy: {session.without_haproxy}")
        yield session
    except MergelineError:
        if fresh and _serves_anyway(stage, options):
            console.print("left running, as Git has something to serve: `mergeline status`, `mergeline down`")
        elif fresh:
            cluster.stop(stage.state)
        raise
    except BaseException:
        if fresh:
            cluster.stop(stage.state)
        raise


def _port(stage: Stage, options: Options) -> int:
    """Where the environment answers: as Git says, and as was asked where that does not say it yet."""
    if options.repository or stage.state.repository.exists():
        with suppress(MergelineError):  # it is said later what is wrong there
            return _wanted(Repository(options.repository or stage.state.repository), options.environment).http_port
    return options.port


def _serves_anyway(stage: Stage, options: Options) -> bool:
    """Whether a reconciler goes on serving what was deployed before, whatever became of the line."""
    session = cluster.session_of(stage.state)
    if session is None or not session.is_running() or not _reconcilers(session):
        return False
    with suppress(MergelineError):  # a history that cannot be read
        return any(status.Journal(stage.state, options.environment).newest_first())
    return False


def _deployments(stage: Stage, options: Options) -> str:
    """The state folder's own bare repository, made from the project where there is none yet."""
    seed = {layout.PROJECT_PATH: stage.project_file.read_text()}
    for name in stage.project.environments:
        served_here = name == options.environment
        port, state = (options.port, stage.state) if served_here else (None, None)
        seed[layout.serve_config_path(name)] = seed_environment(stage.project.name, name, port, state)
    create_bare(stage.state.repository, seed, gates.hooks())
    return str(stage.state.repository)


def _join(stage: Stage, options: Options, repository: Repository, console: Console) -> None:
    """Give a further project bars and an application of its own, in a repository that was made for another one."""
    name, tip = stage.project.name, repository.fetch(MAIN).id
    first = Project.from_yaml(repository.read(tip, layout.PROJECT_PATH), layout.PROJECT_PATH)
    own = layout.project_path(name)
    if repository.exists(tip, own):
        _mind_bars(stage, Project.from_yaml(repository.read(tip, own), own), own, console)
        return
    if name == first.name:
        _mind_bars(stage, first, layout.PROJECT_PATH, console)
        return
    files = {own: stage.project_file.read_text()}
    for place in stage.project.environments:
        path = layout.serve_config_path(place)
        if not repository.exists(tip, path):
            continue
        text = repository.read(tip, path)
        served = environment.Environment.parse(text, path)
        if name in served.applications or any(target.member == name for target in served.targets()):
            continue  # somebody has written it there already
        state = stage.state if place == options.environment else None
        files[path] = with_application(text, name, place, state)
    branch, title = f"project/{name}", f"Add the project {name} beside {first.name}"
    repository.commit(tip, branch, files, f"{title}\n", replace=repository.tip(branch))
    repository.merge(branch, MAIN, f"Merge {branch}\n\n{title}")  # through the gates, as everything
    console.print(f"added {name} beside {first.name}" + (f", at the route /{name}" if len(files) > 1 else ""))


def _mind_bars(stage: Stage, merged: Project, path: str, console: Console) -> None:
    """Say where the bars in the project file are not those that merges are judged by."""
    if stage.project.gates != merged.gates:
        console.print(
            f"mind: the gates in {stage.project_file} are not those that merges are judged by; "
            f"these stand in {path} of {stage.state.repository} and change there, by a commit"
        )


def _reconciler(stage: Stage, options: Options, session: Session, repository: Repository) -> psutil.Process:
    """The session's reconciler for this environment, started where there is none."""
    command = [
        *[sys.executable, "-m", "mergeline", "reconcile", "--watch"],
        *["--env", options.environment, "--repo", str(repository.location), "--state", str(stage.state.root)],
        *["--address", session.dashboard, "--project", str(stage.project_file)],
        *(["--self-heal"] if options.self_heal else []),
    ]
    for process in _reconcilers(session):
        with suppress(psutil.NoSuchProcess):
            if process.cmdline() == command:
                return process
            process.terminate()  # it was started with other options
            for still in psutil.wait_procs([process], timeout=30)[1]:
                still.kill()
    return psutil.Process(cluster.spawn(session, command, _log(stage, options)))


def _reconcilers(session: Session) -> list[psutil.Process]:
    """The session's processes that follow Git."""
    found = []
    for process in processes.of(session.id):
        with suppress(psutil.NoSuchProcess):
            if process.cmdline()[1:5] == ["-m", "mergeline", "reconcile", "--watch"]:
                found.append(process)
    return found


def _promote(stage: Stage, options: Options, repository: Repository, console: Console) -> tuple[ModelVersion, str]:
    """Promote the newest version, unless one is on trial: the version that shall be served, and the commit."""
    version = stage.state.versions(stage.project.name)[-1]
    destination = Destination(repository, options.environment)
    wanted = destination.target(stage.project.name)
    if wanted.model and wanted.trial:  # it is for whoever began it to end it, and what is served must come up again
        console.print(
            f"not promoting {version.model}: {options.environment} has a {wanted.trial}; finish or abort it first"
        )
        path, tip = layout.model_path(wanted.model.name, wanted.model.version), repository.fetch(MAIN).id
        return ModelVersion.from_yaml(repository.read(tip, path), path), tip
    console.print(f"promoting {version.model} to {options.environment}")
    from ray_jobs import compare  # slow, and a failed pipeline has no use for it

    comparison = compare.with_served(stage, wanted.model, version.model)
    return version, destination.promote(version, merge=True, comparison=comparison).commit


def _await_served(
    stage: Stage,
    options: Options,
    session: Session,
    repository: Repository,
    reconciler: psutil.Process,
    version: ModelVersion,
    commit: str,
) -> Served:
    """Wait until the reconciler says that the merged commit is served and healthy."""
    journal = status.Journal(stage.state, options.environment)
    text = repository.read(commit, layout.serve_config_path(options.environment))
    wanted = environment.Environment.parse(text, repository.location)
    target = wanted.find(None, version.model.name, options.environment)
    deadline = time.monotonic() + _SYNC_SECONDS
    while time.monotonic() < deadline:
        now = journal.status()
        # Another project's application, which may have nothing yet, is not waited for.
        ours = next((one for one in now.resources if one.name == target.application.name), None)
        healthy = ours is not None and ours.status == "Synced" and ours.health.status == "Healthy"
        reached = now.sync.revision == commit and now.sync.status == "Synced" and healthy
        # While the attempt runs, the deployment is not in the history yet, and whoever looks there would miss it.
        if reached and not (now.operation_state and now.operation_state.phase == "Running"):
            return Served(version, wanted.url(target), session.dashboard, str(repository.location))
        if now.sync.revision == commit and now.operation_state and now.operation_state.phase in ("Failed", "Error"):
            break
        if not processes.is_alive(reconciler):
            raise MergelineError(f"the reconciler has ended: {_last_words(stage, options)}")
        time.sleep(_POLL_SECONDS)
    now = journal.status()
    said = now.operation_state.message if now.operation_state else now.health.message
    raise MergelineError(
        f"{options.environment} did not become healthy at {commit[:12]}: {said or 'the reconciler said nothing'}; "
        f"see `mergeline status` and {stage.state.session}/reconciler-{options.environment}.log"
    )
