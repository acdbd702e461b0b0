"""Reconciling: what Git wants is made true on the cluster, and what came of it is told."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from gitops import observe as observing
from gitops import overlay
from gitops.attempt import ReconcileSettings
from gitops.environment import Environment as ServedEnvironment
from gitops.errors import MergelineError
from gitops.reconcile import Reconciler
from gitops.repository import MAIN
from gitops.serve_api import ServeApi, ray_token
from gitops.state import State
from gitops.status import Deployed, Health, Journal, Resource, Status
from gitops.turn import is_watched, known_status
from mergeline.options import (
    PROJECT,
    STATE,
    Address,
    Environment,
    Json,
    ProjectFile,
    Repo,
    SelfHeal,
    StateFolder,
    dashboard_of,
    environment_of,
    repository_of,
)
from mergeline.output import Prose, out, say, say_json, say_table
from monitoring.metrics import Meters

app = typer.Typer()
_SHOWN_MODELS = 10
_COLORS = {
    "Synced": "green",
    "Healthy": "green",
    "OutOfSync": "yellow",
    "Progressing": "yellow",
    "Missing": "yellow",
}
"""Of the words for sync and health; others are red."""

Revision = Annotated[str, typer.Option("--revision", help="Branch, tag or commit that the environment follows.")]
Prune = Annotated[bool, typer.Option("--prune", help="Delete applications that Git no longer names.")]
AllowEmpty = Annotated[bool, typer.Option("--allow-empty", help="Accept an environment without any application.")]


@app.command()
def reconcile(
    watch: Annotated[bool, typer.Option("--watch", help="Go on, at each merge and every few seconds.")] = False,
    env: Environment = None,
    repo: Repo = None,
    revision: Revision = MAIN,
    address: Address = None,
    project: ProjectFile = PROJECT,
    state: StateFolder = STATE,
    self_heal: SelfHeal = False,
    prune: Prune = False,
    allow_empty: AllowEmpty = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 3.0,
    metrics: Annotated[
        str, typer.Option("--metrics", metavar="HOST:PORT", help="Where --watch exports metrics; port 0: any.")
    ] = "127.0.0.1:0",
) -> None:
    """Make the environment's commit true on the cluster, as Argo CD does on Kubernetes."""
    settings = ReconcileSettings(self_heal=self_heal, prune=prune, allow_empty=allow_empty, poll_seconds=interval)
    if not watch:
        _exit_with(_reconciler(project, state, env, repo, revision, address, settings).run_once())
        return
    host, _, port = metrics.rpartition(":")
    if not (host and port.isdecimal() and int(port) < 2**16):
        raise typer.BadParameter(
            f"{metrics!r} is no address to listen on: write 127.0.0.1:9464", param_hint="--metrics"
        )
    from gitops.figures import Exporter

    exporter = Exporter(Journal(State.at(state), environment_of(project, env)))
    reconciler = _reconciler(project, state, env, repo, revision, address, settings, exporter.meters)
    with exporter.listening(host, int(port)):
        reconciler.watch()


@app.command()
def sync(
    env: Environment = None,
    repo: Repo = None,
    revision: Revision = MAIN,
    address: Address = None,
    project: ProjectFile = PROJECT,
    state: StateFolder = STATE,
    prune: Prune = False,
    allow_empty: AllowEmpty = False,
) -> None:
    """Try the environment's commit once, now, whatever was tried before."""
    settings = ReconcileSettings(prune=prune, allow_empty=allow_empty)
    found = _reconciler(project, state, env, repo, revision, address, settings).sync()
    _exit_with(found, watched=is_watched(State.at(state), found.environment))


@app.command()
def diff(
    env: Environment = None,
    repo: Repo = None,
    revision: Revision = MAIN,
    base: Annotated[
        str | None,
        typer.Option("--base", help="Compare --revision with this branch instead: what will its merge do?"),
    ] = None,
    address: Address = None,
    project: ProjectFile = PROJECT,
    state: StateFolder = STATE,
    as_json: Json = False,
) -> None:
    """Show where Git and the cluster differ; exit status 1 if they do, as Argo CD's `app diff`.

    With --base: which upgrade the merge of --revision would cause, in place or by a new cluster.
    """
    if base is not None:
        forecast = overlay.forecast(repository_of(State.at(state), repo), base, revision, environment_of(project, env))
        if as_json:
            say_json(forecast.model_dump(mode="json"))
        else:
            say(str(forecast))
        raise typer.Exit(1 if forecast.changes else 0)
    found = _reconciler(project, state, env, repo, revision, address, ReconcileSettings()).diff()
    if as_json:
        say_json([difference.model_dump(mode="json") for difference in found])
    else:
        for difference in found:
            say(str(difference))
    raise typer.Exit(1 if found else 0)


def _reconciler(
    project: Path,
    state: Path,
    env: str | None,
    repo: str | None,
    revision: str,
    address: str | None,
    settings: ReconcileSettings,
    meters: Meters | None = None,
) -> Reconciler:
    place = State.at(state)
    api = ServeApi(dashboard_of(state, address), ray_token())
    environment = environment_of(project, env)
    return Reconciler(repository_of(place, repo), revision, environment, api, place, settings, meters)


@app.command()
def observe(
    config: Annotated[Path, typer.Argument(help="An environment's serve-config.yaml.")],
    address: Address = None,
    state: StateFolder = STATE,
    file: Annotated[
        Path | None, typer.Option("--health", help="Go on, every ten seconds, and keep the health in this file.")
    ] = None,
) -> None:
    """Ask a cluster and its replicas whether they serve what an environment says; exit status 1 if not.

    Where Argo CD applies it, this says what it cannot see: whether every replica has loaded the model.
    """
    try:
        wanted = ServedEnvironment.parse(config.read_text("utf-8"), str(config))
    except OSError as error:
        raise MergelineError(f"cannot read {config}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise MergelineError(f"{config} is not UTF-8 text: {error}") from error
    api = ServeApi(dashboard_of(state, address), ray_token())

    def say_health(health: Health) -> None:
        out.print(observing.in_a_line(health), end="")

    if file:
        observing.watch(api, wanted, file, say_health)
        return
    found = observing.observe(api, wanted)
    say_health(found)
    if found.status != "Healthy":
        raise typer.Exit(1)


@app.command()
def status(
    env: Environment = None, project: ProjectFile = PROJECT, state: StateFolder = STATE, as_json: Json = False
) -> None:
    """Say what is served, from which commit, in sync or not, healthy or not."""
    found, watched = known_status(Journal(State.at(state), environment_of(project, env)))
    if as_json:
        say_json(found.as_words())
        return
    _print_status(found, watched=watched)
    from ray_jobs import cluster

    session = cluster.session_of(State.at(state))
    if session and session.without_haproxy:
        say(f"mind: requests take Ray Serve's own, slower proxy: {session.without_haproxy}")


def _exit_with(found: Status, *, watched: bool = False) -> None:
    _print_status(found, watched=watched)
    if found.sync.status != "Synced" or found.health.status not in ("Healthy", "Missing"):
        raise typer.Exit(1)


def _print_status(found: Status, *, watched: bool) -> None:
    say_table("", Prose(), rows=_rows(found, watched=watched))


def _rows(found: Status, *, watched: bool) -> Iterator[tuple[str, str | Text]]:
    yield "environment", found.environment
    yield "sync", _colored(found.sync.status, (found.sync.revision or "")[:12])
    yield "health", _colored(found.health.status, found.health.message)
    if operation := found.operation_state:
        revision = operation.sync_result.revision
        commit = "" if revision in ("", found.sync.revision) else f" at {revision[:12]}:"
        yield "operation", f"{operation.phase}{commit} {operation.message}"
    for resource in found.resources:
        yield f"application {resource.name}", f"{_wanted(resource)}; served: {_served(resource)}"
    for condition in found.conditions:
        yield condition.type, condition.message
    if found.reconciled_at:
        yield "seen", found.reconciled_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    yield "reconciler", "running" if watched else "not running: `mergeline up` or `mergeline reconcile --watch`"


def _colored(word: str, more: str) -> Text:
    return Text.assemble((word, _COLORS.get(word, "red")), f" {more}")


def _wanted(resource: Resource) -> str:
    if resource.fleet is not None:
        shown = _listed([f"{model.name} {model.version}" for model in resource.fleet])
        return f"wants a fleet of {len(resource.fleet)}: {shown}" if shown else "wants a fleet without models"
    if resource.wanted is None:
        return "what it wants cannot be read" if resource.status == "Unknown" else "wants no model"
    return f"wants version {resource.wanted.version}" + (f" with a {resource.trial}" if resource.trial else "")


def _served(resource: Resource) -> str:
    if resource.fleet is not None:
        return f"{len(resource.served)} of them in memory"
    return ", ".join(map(_shortened, resource.served)) or "no replica answered"


def _shortened(answer: str) -> str:
    """`version@sha256:digest` as people can compare it."""
    version, _, digest = answer.partition("@sha256:")
    return f"{version} (bundle {digest[:12]})"


def _listed(texts: list[str]) -> str:
    """Texts in a row, not all of a fleet's."""
    more = f" and {len(texts) - _SHOWN_MODELS} more" if len(texts) > _SHOWN_MODELS else ""
    return ", ".join(texts[:_SHOWN_MODELS]) + more


@app.command()
def history(
    env: Environment = None, project: ProjectFile = PROJECT, state: StateFolder = STATE, as_json: Json = False
) -> None:
    """List what was deployed to the environment, oldest first."""
    entries = Journal(State.at(state), environment_of(project, env)).history()
    if as_json:
        say_json([entry.as_words() for entry in entries])
        return
    if not entries:
        say("nothing was deployed yet")
        return
    rows: list[Sequence[str]] = []
    for entry in entries:
        models = _listed([_deployed(entry, name) for name in entry.models])
        deployed = entry.deployed_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        rows.append((str(entry.id), entry.revision[:12], deployed, models, entry.author, entry.subject))
    say_table("id", "revision", Prose("deployed"), Prose("models"), "by", Prose("commit"), rows=rows)


def _deployed(entry: Deployed, application: str) -> str:
    """What an application served since a deployment."""
    model, trial = entry.models[application], entry.trials.get(application)
    return f"{application} {model.version if model else '–'}" + (f" with a {trial}" if trial else "")
