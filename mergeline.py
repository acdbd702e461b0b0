"""The command line: each verb parses, calls the package that owns the matter, and prints."""

import sys
from pathlib import Path

from gitops import interrupt

if Path(sys.argv[0]).stem == "mergeline":  # it is run, and imports for a second
    interrupt.end_at_once()

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from gitops import gates, overlay
from gitops import observe as observing
from gitops.attempt import ReconcileSettings
from gitops.environment import Environment as ServedEnvironment
from gitops.errors import GateError, MergelineError
from gitops.figures import Exporter
from gitops.findings import explain, failed
from gitops.layout import serve_config_path
from gitops.manifest import Comparison, ModelVersion, Project, ServedModel
from gitops.monitor import monitor_of
from gitops.promotion import Destination, Promotion
from gitops.pull_request import change_markdown
from gitops.reconcile import Reconciler
from gitops.repository import MAIN, Repository, user_address
from gitops.serve_api import ServeApi, ray_token
from gitops.state import State, write_atomically
from gitops.status import Deployed, Health, Journal, Status
from gitops.turn import is_watched, known_status
from monitoring.metrics import Meters

if TYPE_CHECKING:
    from ray_jobs.local import Served
    from ray_jobs.monitor import MonitorStatus
    from ray_jobs.stage import Stage
    from serve.asking import Answer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Merge a pull request, and the model on the line changes.",
)
label = typer.Typer(no_args_is_help=True, help="Labels that grow: take them in, and hand out what to label next.")
app.add_typer(label, name="label")
monitor = typer.Typer(no_args_is_help=True, help="Watch it: Prometheus, Alertmanager, and dashboards for Grafana.")
app.add_typer(monitor, name="monitor")
_PIPED_WIDTH = 200
_NOT_GOOD = 3
"""Exit status of `predict` where a part is not good: 1 is an error, 2 a command line that cannot be read."""
_SHOWN_DISAGREEMENTS = 20
_SHOWN_MODELS = 10
out = Console(soft_wrap=True, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
err = Console(stderr=True, soft_wrap=True)

ProjectFile = Annotated[Path, typer.Option("--project", help="Project file.")]
StateFolder = Annotated[Path, typer.Option("--state", help="State folder.")]
Environment = Annotated[str | None, typer.Option("--env", help="Environment; the project's first if not given.")]
Repo = Annotated[
    str | None, typer.Option("--repo", help="Deployments repository: a path or URL; the state folder's if not given.")
]
Revision = Annotated[str, typer.Option("--revision", help="Branch, tag or commit that the environment follows.")]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Ray's dashboard, as http://127.0.0.1:8265; what `up` started if not given."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Data = Annotated[
    str | None, typer.Option("--data", help="rendered, kaggle, or a folder, instead of the project's source.")
]
LastData = Annotated[
    str | None, typer.Option("--data", help="rendered, kaggle, or a folder, instead of what `dataset` read last.")
]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Ray Train workers, instead of the project's.")]
UseGpu = Annotated[bool, typer.Option("--use-gpu", help="Train on GPUs.")]
SelfHeal = Annotated[bool, typer.Option("--self-heal", help="Put back what was changed on the cluster by hand.")]
Prune = Annotated[bool, typer.Option("--prune", help="Delete applications that Git no longer names.")]
AllowEmpty = Annotated[bool, typer.Option("--allow-empty", help="Accept an environment without any application.")]

PROJECT, STATE = Path("project.yaml"), Path(".mergeline")


class Target(StrEnum):
    """Who runs a job."""

    RAY = "ray"
    KUBERNETES = "kubernetes"


# --- one machine ------------------------------------------------------------------------------------------------------


@app.command()
def up(
    data: Data = None,
    project: ProjectFile = PROJECT,
    state: StateFolder = STATE,
    env: Environment = None,
    repo: Repo = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="HTTP port of a new local environment.")] = 8000,
    workers: Workers = None,
    use_gpu: UseGpu = False,
    self_heal: SelfHeal = False,
) -> None:
    """Run the whole line here: photographs in, a trained, gated, merged and served model out."""
    from ray_jobs import local
    from ray_jobs.submit import Training

    stage = _stage(project, state)
    options = local.Options(
        environment=env or stage.project.environments[0],
        training=Training(data=data, workers=workers, use_gpu=use_gpu),
        repository=repo,
        port=port,
        self_heal=self_heal,
    )
    served = local.up(stage, options, out)
    for line in _what_next(served, state):
        out.print(line, markup=False, highlight=False)


def _what_next(served: "Served", state: Path) -> Iterator[str]:
    command = Path(sys.argv[0]).absolute()
    name = str(command.relative_to(Path.cwd())) if command.is_relative_to(Path.cwd()) else "mergeline"
    flags = "" if state == STATE else f" --state {state}"
    metrics = served.version.evaluation.metrics
    yield ""
    yield f"{served.version.model.name} version {served.version.model.version} is served"
    yield f"  accuracy {metrics['accuracy']:.3f} on {served.version.evaluation.images} held-out images"
    yield f"  page        {served.url}/"
    yield f"  endpoint    {served.url}/predict"
    yield f"  OpenAPI     {served.url}/docs"
    yield f"  Ray         {served.dashboard}"
    yield f"  repository  {served.repository}"
    yield ""
    yield "next"
    yield f"  curl --data-binary @part.png {served.url}/predict"
    yield f"  {name} status{flags}"
    yield f"  {name} down{flags}"


@app.command(name="serve")
def serve_only(
    project: ProjectFile = PROJECT,
    state: StateFolder = STATE,
    env: Environment = None,
    repo: Repo = None,
    self_heal: SelfHeal = False,
) -> None:
    """Serve what Git wants here until Ctrl-C: no photographs, no training, no promotion."""
    from ray_jobs import local

    stage = _stage(project, state)
    options = local.Options(environment=_environment(project, env), self_heal=self_heal)
    with suppress(KeyboardInterrupt):
        local.serve(stage, options, _repository(stage.state, repo), out)
    out.print("ended")


@app.command()
def down(state: StateFolder = STATE) -> None:
    """End everything that `up` started for the state folder, and nothing else."""
    from ray_jobs import cluster

    count = cluster.stop(State.at(state))
    out.print(f"ended {count} processes" if count else f"nothing runs for {state}")


@app.command()
def doctor(
    state: StateFolder = STATE,
    port: Annotated[int, typer.Option(min=1, max=65535, help="HTTP port that `up` would take.")] = 8000,
    as_json: Json = False,
) -> None:
    """Say what this machine has and lacks; exit status 1 if the line cannot run."""
    from ray_jobs import doctor as examination

    checks = examination.examine(State.at(state), port)
    if as_json:
        _print_json([check.model_dump(mode="json") for check in checks])
    else:
        colors = {"ok": "green", "optional": "yellow", "missing": "red"}
        table = Table("what", "", "found", "what to do", box=None)
        for check in checks:
            color = colors[check.level.value]
            table.add_row(check.name, f"[{color}]{check.level.value}[/]", check.found, check.remedy)
        out.print(table)
    if any(check.level is examination.Level.MISSING for check in checks):
        raise typer.Exit(1)


@app.command()
def init(
    photographs: Annotated[
        Path, typer.Argument(help="Folder: train/ and train.csv, or folders of good ones and others.")
    ],
    project: ProjectFile = PROJECT,
    name: Annotated[str | None, typer.Option("--name", help="Of the project; the folder's if not given.")] = None,
    good: Annotated[
        list[str] | None, typer.Option("--good", help="Folder with good ones, if no name says so; may be repeated.")
    ] = None,
    owner: Annotated[
        str | None, typer.Option("--owner", help="Who answers for it; Git's user.email if not given.")
    ] = None,
) -> None:
    """Look at a folder of photographs, and write the project file that suits them."""
    from ray_jobs import scope

    written = scope.propose(photographs, project, name=name, good=good or (), owner=owner or user_address())
    for line in scope.summary(written, project):
        out.print(line, markup=False, highlight=False)
    flag = "" if project == PROJECT else f" --project {project} --state .mergeline-{written.name}"
    out.print(f"next: mergeline up{flag}", markup=False, highlight=False)


# --- jobs -------------------------------------------------------------------------------------------------------------


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def submit(
    context: typer.Context,
    stage: Annotated[
        str,
        typer.Argument(
            help="dataset, etl, quality, train, cross_validate, export, evaluate, register; pipeline; drift."
        ),
    ],
    project: ProjectFile = PROJECT,
    state: StateFolder = STATE,
    address: Address = None,
    target: Annotated[
        Target, typer.Option("--target", help="kubernetes: print a RayJob for `kubectl apply -f -` instead.")
    ] = Target.RAY,
    image: Annotated[str | None, typer.Option("--image", help="kubernetes: the image, by digest.")] = None,
    claim: Annotated[
        str, typer.Option("--claim", help="kubernetes: the PersistentVolumeClaim that holds the state folder.")
    ] = "mergeline-state",
    windows_claim: Annotated[
        str, typer.Option("--windows-claim", help="kubernetes, drift: the claim that holds the environment's windows.")
    ] = "mergeline-drift-windows",
    namespace: Annotated[str | None, typer.Option("--namespace", help="kubernetes: where.")] = None,
    schedule: Annotated[
        str | None, typer.Option("--schedule", help="kubernetes: again and again, as cron says it: '0 3 * * *'.")
    ] = None,
) -> None:
    """Run a stage as a Ray job and follow it; further options go to the stage. Exits as the job does."""
    from ray_jobs import submit as jobs

    if stage not in jobs.STAGES:
        raise typer.BadParameter(f"there is no stage {stage!r}: take one of {', '.join(jobs.STAGES)}")
    if schedule is not None and target is not Target.KUBERNETES:
        raise typer.BadParameter("--schedule is for --target kubernetes; here cron runs `mergeline submit`")
    if target is Target.KUBERNETES:
        if image is None:
            raise typer.BadParameter("--target kubernetes needs --image, as registry.example.com/mergeline@sha256:…")
        from ray_jobs import kubernetes

        where = kubernetes.Target(image=image, claim=claim, windows_claim=windows_claim, namespace=namespace)
        text = project.read_text()
        objects = kubernetes.render(stage, context.args, Project.read(project), text, where, schedule)
        sys.stdout.write(kubernetes.to_yaml(objects))
        return
    here = address is None
    # A job of this machine's Ray runs in our Python and our folder; a cluster has its own.
    python, folder = (sys.executable, Path.cwd()) if here else ("python", None)
    arguments = ["--project", str(project), "--state", str(state), *context.args]
    client, job = jobs.submit(_ray(state, address), jobs.entrypoint(python, stage, arguments, folder), stage)
    out.print(f"job {job}", highlight=False)
    raise typer.Exit(jobs.follow(client, job, out))


# --- labels -----------------------------------------------------------------------------------------------------------


@label.command(name="import")
def import_labels(
    file: Annotated[Path, typer.Argument(help="Label Studio's JSON or JSON-MIN export, or feedback as JSON lines.")],
    confirm: Annotated[bool, typer.Option("--confirm", help="Take feedback; without, it is only listed.")] = False,
    by: Annotated[str | None, typer.Option("--by", help="Who confirms feedback, or labelled if FILE says not.")] = None,
    data: LastData = None,
    project: ProjectFile = PROJECT,
    state: StateFolder = STATE,
    as_json: Json = False,
) -> None:
    """Keep the labels of FILE: the next `dataset` stage uses them over the source's own and `data.labels`."""
    from ray_jobs import labelling

    report = labelling.import_labels(_stage(project, state), file, data=data, confirm=confirm, by=by)
    if as_json:
        _print_json(report.model_dump(mode="json"))
    else:
        out.print(report.text(), markup=False, highlight=False)


@label.command(name="export")
def export_labels(
    file: Annotated[Path, typer.Argument(help="Label Studio tasks to write.")],
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Most photographs; all if not given.")] = None,
    labelled: Annotated[
        bool, typer.Option("--all/--unlabelled", help="Also those that have a label, or only those without.")
    ] = False,
    images: Annotated[Path | None, typer.Option("--images", help="A folder of further photographs.")] = None,
    windows: Annotated[
        Path | None,
        typer.Option("--windows", help="Also what an environment's windows kept; its `args.windows`."),
    ] = None,
    version: Annotated[str | None, typer.Option("--version", help="Who judges; the newest if not given.")] = None,
    root: Annotated[Path, typer.Option("--root", help="Label Studio's LOCAL_FILES_DOCUMENT_ROOT.")] = Path("/"),
    data: LastData = None,
    project: ProjectFile = PROJECT,
    state: StateFolder = STATE,
    as_json: Json = False,
) -> None:
    """Write the photographs to label next for Label Studio, those first that the model is least sure of."""
    stage = _stage(project, state)
    chosen = _version(stage.state, stage.project.name, version)
    from ray_jobs import label_tasks

    exported = label_tasks.export_tasks(
        stage, chosen, file, data=data, images=images, windows=windows, labelled=labelled, limit=limit, root=root
    )
    if as_json:
        _print_json(exported.model_dump(mode="json"))
    else:
        out.print(exported.text(), markup=False, highlight=False)


# --- judging ----------------------------------------------------------------------------------------------------------


@app.command()
def predict(
    paths: Annotated[list[Path], typer.Argument(help="Photographs, and folders of them.")],
    url: Annotated[
        str | None, typer.Option("--url", help="The service, as http://127.0.0.1:8000; what Git serves if not given.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", min=0, max=1, help="Judge at this one instead of the model's own.")
    ] = None,
    explain: Annotated[Path | None, typer.Option("--explain", help="Folder to write heat-maps into.")] = None,
    client: Annotated[
        str | None,
        typer.Option("--client", help="Who asks: a canary judges all of a client's or none; this user if not given."),
    ] = None,
    env: Environment = None,
    repo: Repo = None,
    project: ProjectFile = PROJECT,
    state: StateFolder = STATE,
    as_json: Json = False,
) -> None:
    """Ask the running service about photographs.

    Exit status 0: all are good; 3: all were judged, and some are not good; 1: some could not be judged.
    """
    from serve import asking

    files = asking.photographs(paths)
    url = (url or _served_url(project, state, env, repo)).rstrip("/")
    service = asking.Asking(url, threshold, explain, client or asking.default_client())
    with Progress(console=err, transient=True, disable=not err.is_terminal) as bar:
        answers = list(bar.track(service.ask(files), total=len(files), description="judging"))
    if as_json:
        _print_json([answer.model_dump(mode="json", exclude_none=True) for answer in answers])
    else:
        _print_answers(answers)
    if any(answer.error for answer in answers):
        raise typer.Exit(1)
    if not all(answer.good for answer in answers):
        raise typer.Exit(_NOT_GOOD)


# --- promotion --------------------------------------------------------------------------------------------------------


@app.command()
def models(project: ProjectFile = PROJECT, state: StateFolder = STATE, as_json: Json = False) -> None:
    """List the registered versions of the project's model, newest last."""
    name = Project.read(project).name
    versions = State.at(state).versions(name)
    if as_json:
        _print_json([version.model_dump(mode="json") for version in versions])
        return
    if not versions:
        out.print(f"{name} has no registered version in {state} yet: `mergeline up` makes one", highlight=False)
        return
    table = Table("version", "accuracy", "balanced", "AUROC", "images", "created", "bundle", box=None)
    for version in versions:
        metrics = version.evaluation.metrics
        figures = [f"{metrics[name]:.3f}" for name in ("accuracy", "balanced_accuracy", "auroc")]
        images = str(version.evaluation.images)
        table.add_row(version.model.version, *figures, images, version.created, version.model.sha256[:12])
    out.print(table)


@app.command()
def compare(
    a: Annotated[str | None, typer.Argument(help="Version; the one now served if not given.")] = None,
    b: Annotated[str | None, typer.Argument(help="Version; the newest if not given.")] = None,
    env: Environment = None,
    repo: Repo = None,
    project: ProjectFile = PROJECT,
    state: StateFolder = STATE,
    as_json: Json = False,
) -> None:
    """Let two versions judge the same held-out images, and say whether they differ by more than chance."""
    stage = _stage(project, state)
    name = stage.project.name
    other = _version(stage.state, name, b).model
    if a is not None:
        one = _version(stage.state, name, a).model
    else:
        environment = _environment(project, env)
        served = Destination(_repository(stage.state, repo), environment).target(name).model
        if served is None:
            raise MergelineError(f"{environment} serves no version yet: name two, as `mergeline compare 1 2`")
        one = served
    from ray_jobs import compare as comparing

    found, folder = comparing.compare_and_draw(stage, one, other)
    if as_json:
        _print_json(found.model_dump(mode="json"))
        return
    _print_comparison(found)
    out.print(f"written to {folder}", markup=False, highlight=False)


@app.command()
def promote(
    version: Annotated[str | None, typer.Argument(help="Version; the newest if not given.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Environment; the project's first if not given.")] = None,
    canary: Annotated[
        int | None,
        typer.Option("--canary", min=1, max=99, metavar="PERCENT", help="Let it answer this share of the requests."),
    ] = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Let it judge beside what is served, and not answer.")
    ] = False,
    finish: Annotated[bool, typer.Option("--finish", help="Promote the version of the canary or shadow.")] = False,
    abort: Annotated[bool, typer.Option("--abort", help="Take the canary or shadow away.")] = False,
    merge: Annotated[
        bool | None,
        typer.Option("--merge/--no-merge", help="Merge as well, where the gates pass; by default only an abort."),
    ] = None,
    application: Annotated[str | None, typer.Option(help="Application; that of the model's name if not given.")] = None,
    project: ProjectFile = PROJECT,
    state: StateFolder = STATE,
    repo: Repo = None,
) -> None:
    """Make a branch that puts a version into an environment; with a GitHub remote, the pull request too."""
    if sum((canary is not None, shadow, finish, abort)) > 1:
        raise typer.BadParameter("take one of --canary, --shadow, --finish and --abort")
    stage = _stage(project, state)
    name = stage.project.name
    chosen = None if finish or abort else _version(stage.state, name, version)
    destination = Destination(_repository(stage.state, repo), _environment(project, to), application)
    if abort:
        _print_promotion(destination.abort(name, version, merge=merge is not False))
        return
    target = destination.target(name)
    candidate = chosen.model if chosen else target.trial and target.trial.model
    comparison = _compared(stage, target.model, candidate) if candidate else None
    if chosen is None:
        outcome = destination.finish(name, version, merge=bool(merge), comparison=comparison)
    elif shadow or canary is not None:
        outcome = destination.try_beside(chosen, canary, merge=bool(merge), comparison=comparison)
    else:
        outcome = destination.promote(chosen, merge=bool(merge), comparison=comparison)
    _print_promotion(outcome)


def _compared(stage: "Stage", served: ServedModel | None, candidate: ServedModel) -> Comparison | str | None:
    """How a version does beside the one now served, which is printed too."""
    from ray_jobs import compare as comparing

    with err.status("comparing with what is served now"):
        comparison = comparing.with_served(stage, served, candidate)
    if comparison is not None:
        reason = f"not compared with what is served now: {comparison}"
        out.print(comparison.summary if isinstance(comparison, Comparison) else reason, markup=False, highlight=False)
    return comparison


@app.command()
def rollback(
    env: Annotated[str, typer.Argument(help="Environment.")],
    merge: Annotated[bool, typer.Option("--merge/--no-merge", help="Merge as well, where the gates pass.")] = True,
    application: Annotated[str | None, typer.Option(help="Application; that of the model's name if not given.")] = None,
    project: ProjectFile = PROJECT,
    state: StateFolder = STATE,
    repo: Repo = None,
) -> None:
    """Return an environment to the model before, by a commit that reverts, through the same gates."""
    destination = Destination(_repository(State.at(state), repo), _environment(project, env), application)
    _print_promotion(destination.rollback(Project.read(project).name, merge=merge))


@app.command(name="gates")
def check_gates(
    base: Annotated[str, typer.Option(help="What the change would be merged into.")] = MAIN,
    head: Annotated[str, typer.Option(help="The change: a branch or commit.")] = "HEAD",
    env: Annotated[
        list[str] | None, typer.Option("--env", help="Judge this environment's overlay for a cluster too; repeatable.")
    ] = None,
    crds: Annotated[
        Path | None, typer.Option("--crds", help="File or folder with CustomResourceDefinitions, for --env.")
    ] = None,
    state: StateFolder = STATE,
    repo: Repo = None,
    markdown: Annotated[
        bool,
        typer.Option("--markdown", help="Print a pull request's comment, with the evaluation of what is promoted."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Judge a change as the merge would; exit status 1 if it is refused. For any CI."""
    if markdown and as_json:
        raise typer.BadParameter("take --json or --markdown", param_hint="--markdown")
    repository = _repository(State.at(state), repo)
    change, into = repository.fetch(head).id, repository.fetch(base).id
    findings = gates.check(repository, into, change)
    if env:
        files = overlay.files_at(repository, change)
        findings += [finding for name in env for finding in overlay.check(files, name, crds)]
    if as_json:
        _print_json([finding.model_dump(mode="json") for finding in findings])
    elif markdown:
        print(change_markdown(findings, gates.brought(repository, into, change)), end="")
    else:
        out.print(explain(findings), markup=False, highlight=False)
    if failed(findings):
        raise typer.Exit(1)


# --- reconciling ------------------------------------------------------------------------------------------------------


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
    exporter = Exporter(Journal(State.at(state), _environment(project, env)))
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
        _print_forecast(_repository(State.at(state), repo), base, revision, _environment(project, env), as_json)
        return
    found = _reconciler(project, state, env, repo, revision, address, ReconcileSettings()).diff()
    if as_json:
        _print_json([difference.model_dump(mode="json") for difference in found])
    else:
        for difference in found:
            out.print(str(difference), markup=False, highlight=False)
    if found:
        raise typer.Exit(1)


def _print_forecast(repository: Repository, base: str, revision: str, environment: str, as_json: bool) -> None:
    new = repository.fetch(revision).id
    target = repository.fetch(base).id
    old = repository.merge_base(target, new) or target
    found = overlay.forecast(overlay.files_at(repository, old), overlay.files_at(repository, new), environment)
    if as_json:
        _print_json(found.model_dump(mode="json"))
    else:
        out.print(str(found), markup=False, highlight=False)
    if found.changes:
        raise typer.Exit(1)


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
        wanted = ServedEnvironment.parse(config.read_text(), str(config))
    except OSError as error:
        raise MergelineError(f"cannot read {config}: {error.strerror}") from error
    api = ServeApi(_ray(state, address), ray_token())

    def say(health: Health) -> None:
        out.print(observing.in_a_line(health), markup=False, highlight=False, end="")

    if file:
        observing.watch(api, wanted, file, say)
        return
    found = observing.observe(api, wanted)
    say(found)
    if found.status != "Healthy":
        raise typer.Exit(1)


@app.command()
def status(
    env: Environment = None, project: ProjectFile = PROJECT, state: StateFolder = STATE, as_json: Json = False
) -> None:
    """Say what is served, from which commit, in sync or not, healthy or not."""
    found, watched = known_status(Journal(State.at(state), _environment(project, env)))
    if as_json:
        _print_json(found.as_words())
        return
    _print_status(found, watched=watched)
    from ray_jobs import cluster

    session = cluster.session_of(State.at(state))
    if session and session.without_haproxy:
        slower = f"mind: requests take Ray Serve's own, slower proxy: {session.without_haproxy}"
        out.print(slower, markup=False, highlight=False)


@app.command()
def history(
    env: Environment = None, project: ProjectFile = PROJECT, state: StateFolder = STATE, as_json: Json = False
) -> None:
    """List what was deployed to the environment, oldest first."""
    entries = Journal(State.at(state), _environment(project, env)).history()
    if as_json:
        _print_json([entry.as_words() for entry in entries])
        return
    table = Table("id", "revision", "deployed", "models", "by", "commit", box=None)
    for entry in entries:
        models = _listed([_deployed(entry, name) for name in entry.models])
        deployed = entry.deployed_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(str(entry.id), entry.revision[:12], deployed, models, entry.author, entry.subject)
    out.print(table)


# --- watching ---------------------------------------------------------------------------------------------------------


@monitor.command(name="up")
def monitor_up(
    state: StateFolder = STATE,
    webhook: Annotated[
        str | None, typer.Option("--webhook", help="URL that alerts are sent to; empty: none any more.")
    ] = None,
    retention: Annotated[str, typer.Option("--retention", help="How long samples are kept, as 12h or 15d.")] = "15d",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Prometheus's port, if it is free.")] = 9090,
    print_config: Annotated[
        bool,
        typer.Option("--print-config", help="Print the configuration for a Prometheus of your own; start nothing."),
    ] = False,
) -> None:
    """Start Prometheus and Alertmanager for the state folder, on loopback; ones that run read their rules anew."""
    from ray_jobs import monitor as monitoring

    place = State.at(state)
    if print_config:
        for name, text in monitoring.configurations(place, "127.0.0.1:9093", webhook).items():
            print(f"--- # {name}\n{text}", end="")
        return
    running = monitoring.up(place, webhook=webhook, retention=retention, port=port)
    out.print(f"Prometheus    {running.prometheus}", markup=False, highlight=False)
    out.print(f"Alertmanager  {running.alertmanager}", markup=False, highlight=False)


@monitor.command(name="down")
def monitor_down(state: StateFolder = STATE) -> None:
    """End what `monitor up` started for the state folder; what was measured stays."""
    from ray_jobs import monitor as monitoring

    count = monitoring.down(State.at(state))
    out.print(f"ended {count} processes" if count else f"nothing watches {state}")


@monitor.command(name="status")
def monitor_status(state: StateFolder = STATE, as_json: Json = False) -> None:
    """Say what is scraped and which alerts there are; exit status 1 if something is not, or an alert fires."""
    from ray_jobs import monitor as monitoring

    found = monitoring.status(State.at(state))
    if as_json:
        _print_json(found.model_dump(mode="json"))
    else:
        _print_monitor(found)
    if not all(target.up for target in found.targets) or any(alert.state == "firing" for alert in found.alerts):
        raise typer.Exit(1)


@monitor.command(name="dashboards")
def monitor_dashboards(
    folder: Annotated[Path, typer.Argument(help="Folder to write into: a JSON file for each.")],
) -> None:
    """Write the dashboards as JSON, for Grafana's provisioning or its sidecar."""
    from monitoring.dashboards import dashboards

    for dashboard in dashboards():
        write_atomically(folder / f"{dashboard.uid}.json", dashboard.json)
    out.print(f"written to {folder}", markup=False, highlight=False)


@monitor.command(name="publish")
def monitor_publish(
    grafana: Annotated[str, typer.Option("--grafana", help="Grafana's URL; its token in GRAFANA_TOKEN.")],
    prometheus: Annotated[
        str | None,
        typer.Option("--prometheus", help="Prometheus's URL as Grafana reaches it; the state folder's if not given."),
    ] = None,
    state: StateFolder = STATE,
) -> None:
    """Publish the dashboards, their folder and the data source to a Grafana; removes only what it once put there."""
    from ray_jobs import grafana as publishing

    running = None if prometheus else monitor_of(State.at(state))
    url = prometheus or (running and running.prometheus)
    if not url:
        raise MergelineError(
            f"no Prometheus is known for {state}: run `mergeline monitor up`, or give --prometheus URL"
        )
    for line in publishing.publish(grafana, os.environ.get(publishing.TOKEN_VARIABLE, ""), url):
        out.print(line, markup=False, highlight=False)


@app.command()
def drift(
    env: Environment = None,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="`args.windows` of the environment; the state folder's if not given."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Windows to list, the latest ones.")] = 20,
    project: ProjectFile = PROJECT,
    state: StateFolder = STATE,
    as_json: Json = False,
) -> None:
    """List the windows of photographs that were judged, oldest first, and what drifted in them."""
    place = folder or State.at(state).windows / _environment(project, env)
    from serve import windows

    found = windows.windows_below(place)[-limit:]
    if as_json:
        _print_json([window.model_dump(mode="json") for window in found])
        return
    if not found:
        out.print(f"no window of photographs lies in {place} yet: it takes traffic, and args.windows", highlight=False)
        return
    table = Table("ended", "application", "version", "photographs", "outcome", "what drifted", box=None)
    for window in found:
        ended = window.ended_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        color = {"drifted": "red", "stable": "green", "too_few": "yellow"}[window.outcome]
        said = f"[{color}]{window.outcome.replace('_', ' ')}[/]"
        drifted = ", ".join(f"{one.feature} ({one.statistic} {one.value:.2f})" for one in window.drifted)
        count = str(window.photographs)
        table.add_row(ended, window.application, window.model.version, count, said, escape(drifted))
    out.print(table)


# --- retraining -------------------------------------------------------------------------------------------------------


@app.command()
def retrain(
    reason: Annotated[str, typer.Option("--reason", help="Why; it stands in the pull request.")] = "somebody asked",
    watch: Annotated[
        bool, typer.Option("--watch", help="Stay, take alerts from Alertmanager, and retrain when one asks for it.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port for alerts, on loopback.")] = 9095,
    hours: Annotated[
        float, typer.Option("--hours", min=0, help="That must have passed since the latest retraining began.")
    ] = 24,
    env: Environment = None,
    application: Annotated[str | None, typer.Option(help="Application; that of the model's name if not given.")] = None,
    data: LastData = None,
    workers: Workers = None,
    use_gpu: UseGpu = False,
    project: ProjectFile = PROJECT,
    state: StateFolder = STATE,
    repo: Repo = None,
) -> None:
    """Train on all photographs and labels there are by now, and make a branch that promotes what comes of it.

    Nothing that is served changes before somebody merges it.
    """
    from ray_jobs import dataset
    from ray_jobs import retrain as retraining
    from ray_jobs import submit as jobs

    stage = _stage(project, state)
    environment, repository = _environment(project, env), _repository(stage.state, repo)
    options = retraining.Options(environment, hours, application)

    def retrain_for(why: str) -> None:
        stage = _stage(project, state)  # anew: the job reads the file as it is by now
        training = jobs.Training(data=data or dataset.last_data(stage), workers=workers, use_gpu=use_gpu)
        address = _ray(state, None)  # before anything is written down: without Ray nothing has begun
        say(f"retraining {stage.project.name}: {why}")

        def run_pipeline() -> None:
            jobs.run_pipeline(stage, address, training, out)

        outcome = retraining.retrain(stage, repository, options, why, run_pipeline)
        if outcome is None:
            last = retraining.latest(stage.state, stage.project.name)
            out.print(f"nothing to propose: {last.message if last else ''}", markup=False, highlight=False)
        else:
            _print_promotion(outcome)

    def say(text: str) -> None:
        out.print(text, markup=False, highlight=False)

    if not watch:
        retrain_for(reason)
        return
    from ray_jobs import alerts

    served = Destination(repository, environment, application).target(stage.project.name).application.name
    with alerts.listening(stage.state, stage.project.name, served, port) as url:
        say(f"alerts of {served} are taken at {url}: name it with `mergeline monitor up --webhook {url}`")
        retraining.watch(stage, hours, retrain_for, say)


# --- parts ------------------------------------------------------------------------------------------------------------


def _stage(project: Path, state: Path) -> "Stage":
    from ray_jobs.stage import Stage

    return Stage(Project.read(project), project.resolve(), State.at(state))


def _environment(project: Path, name: str | None) -> str:
    environments = Project.read(project).environments
    if name is None:
        return environments[0]
    if name not in environments:
        raise MergelineError(f"{project} has no environment {name!r}; it has {', '.join(environments)}")
    return name


def _repository(state: State, location: str | None, otherwise: str = "--repo") -> Repository:
    if location is None and not state.repository.exists():
        raise MergelineError(
            f"there is no deployments repository in {state.root}: run `mergeline up`, or give {otherwise}"
        )
    return Repository(location or state.repository)


def _version(state: State, name: str, number: str | None) -> ModelVersion:
    versions = {version.model.version: version for version in state.versions(name)}
    if not versions:
        raise MergelineError(f"{name} has no registered version in {state.root}: run `mergeline submit pipeline`")
    number = number or list(versions)[-1]
    if number not in versions:
        raise MergelineError(f"{name} has no version {number!r}; it has {', '.join(versions)}")
    return versions[number]


def _ray(state: Path, address: str | None) -> str:
    """The dashboard's URL; the environment gets what Ray's clients need for the session's own Ray."""
    from ray_jobs import cluster

    session = cluster.session_of(State.at(state))
    if session and address in (None, session.dashboard):
        os.environ.update(session.environment())
    if address:
        return address
    if session is None or not session.is_running():
        raise MergelineError(f"no Ray runs for {state}: run `mergeline up`, or give --address")
    return session.dashboard


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
    api = ServeApi(_ray(state, address), ray_token())
    return Reconciler(_repository(place, repo), revision, _environment(project, env), api, place, settings, meters)


def _served_url(project: Path, state: Path, env: str | None, repo: str | None) -> str:
    """Where the environment's application answers on this machine, as `up` prints it."""
    name, repository = _environment(project, env), _repository(State.at(state), repo, "--url or --state")
    path = serve_config_path(name)
    wanted = ServedEnvironment.parse(repository.read(repository.fetch(MAIN).id, path), path)
    return wanted.url(wanted.find(None, Project.read(project).name, path))


def _print_answers(answers: list["Answer"]) -> None:
    table = Table("file", "label", "score", "threshold", "part", box=None)
    for answer in answers:
        if answer.error or answer.score is None or answer.threshold is None:
            table.add_row(escape(answer.file), "[red]not judged[/]", "", "", escape(answer.error or ""))
            continue
        label = f"[{'green' if answer.good else 'red'}]{escape(answer.label or '')}[/]"
        part = "found" if answer.part_found else "not found"
        table.add_row(escape(answer.file), label, f"{answer.score:.4f}", f"{answer.threshold:.4f}", part)
    out.print(table)
    bad, failed = sum(answer.good is False for answer in answers), sum(answer.error is not None for answer in answers)
    summary = f"{len(answers) - bad - failed} good, {bad} not good" + (f", {failed} not judged" if failed else "")
    err.print(summary, markup=False, highlight=False)


def _print_monitor(found: "MonitorStatus") -> None:
    out.print(f"Prometheus    {found.monitor.prometheus}", markup=False, highlight=False)
    out.print(f"Alertmanager  {found.monitor.alertmanager}", markup=False, highlight=False)
    table = Table("scraped", "address", "", box=None)
    for target in found.targets:
        said = "[green]up[/]" if target.up else f"[red]down[/] {escape(target.error)}"
        table.add_row(target.job, target.address, said)
    out.print(table)
    if found.alerts:
        table = Table("alert", "", "what", "what to do", box=None)
        for alert in found.alerts:
            color = "red" if alert.state == "firing" else "yellow"
            table.add_row(alert.name, f"[{color}]{alert.state}[/]", escape(alert.summary), alert.runbook)
        out.print(table)
    else:
        out.print("no alerts")


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _print_comparison(found: Comparison) -> None:
    one, other = (f"{version.model.name} {version.model.version}" for version in (found.a, found.b))
    table = Table("metric", one, other, "difference", "95 % interval", box=None)
    for name, metric in found.metrics.items():
        figures = [f"{metric.a:.4f}", f"{metric.b:.4f}", f"{metric.difference:+.4f}"]
        table.add_row(name, *figures, f"{metric.low:+.4f} to {metric.high:+.4f}")
    out.print(table)
    test = found.mcnemar
    lines = [
        f"{found.images} held-out images of dataset {found.dataset[:12]}"
        + (
            f"; {len(found.left_out)} left out, because one of the two was fitted to them or lookalikes"
            if found.left_out
            else ""
        ),
        f"images that only {one} judges right: {test.only_a_right}; only {other}: {test.only_b_right}; "
        f"McNemar's exact test: {test.p_text}",
        *([f"on {found.newcomers.summary}"] if found.newcomers else []),
        *(f"mind: {warning}" for warning in found.warnings),
    ]
    for line in lines:
        out.print(line, markup=False, highlight=False)
    if found.disagreements:
        table = Table("judged differently", "truth", one, other, box=None)
        for item in found.disagreements[:_SHOWN_DISAGREEMENTS]:
            said = (f"{item.a} ({item.a_score:.3f})", f"{item.b} ({item.b_score:.3f})")
            table.add_row(escape(item.filename), item.label, *said)
        out.print(table)
    if (more := len(found.disagreements) - _SHOWN_DISAGREEMENTS) > 0:
        out.print(f"… and {more} more")


def _print_promotion(outcome: Promotion) -> None:
    if outcome.findings:
        out.print(explain(outcome.findings), markup=False, highlight=False)
    out.print(outcome.text, markup=False, highlight=False)


def _print_status(found: Status, *, watched: bool) -> None:
    colors = {
        "Synced": "green",
        "Healthy": "green",
        "OutOfSync": "yellow",
        "Progressing": "yellow",
        "Missing": "yellow",
    }

    def colored(word: str) -> str:
        return f"[{colors.get(word, 'red')}]{word}[/]"

    rows = Table(box=None, show_header=False)
    rows.add_row("environment", found.environment)
    rows.add_row("sync", f"{colored(found.sync.status)} {(found.sync.revision or '')[:12]}")
    rows.add_row("health", f"{colored(found.health.status)} {found.health.message}")
    if operation := found.operation_state:
        revision = operation.sync_result.revision
        commit = "" if revision == found.sync.revision else f" at {revision[:12]}:"
        rows.add_row("operation", f"{operation.phase}{commit} {operation.message}")
    for resource in found.resources:
        wanted = f"wants version {resource.wanted.version}" if resource.wanted else "wants no model"
        wanted += f" with a {resource.trial}" if resource.trial else ""
        if resource.fleet is not None:
            shown = _listed([f"{model.name} {model.version}" for model in resource.fleet])
            wanted = f"wants a fleet of {len(resource.fleet)}: {shown}" if shown else "wants a fleet without models"
        if resource.wanted is None and resource.status == "Unknown":
            wanted = "what it wants cannot be read"
        served = ", ".join(_shortened(answer) for answer in resource.served) or "nothing answers"
        if resource.fleet is not None:
            served = f"{len(resource.served)} of them in memory"
        rows.add_row(f"application {resource.name}", f"{wanted}; served: {served}")
    for condition in found.conditions:
        rows.add_row(condition.type, condition.message)
    if found.reconciled_at:
        rows.add_row("seen", found.reconciled_at.astimezone().strftime("%Y-%m-%d %H:%M:%S"))
    rows.add_row("reconciler", "running" if watched else "not running: `mergeline up` or `mergeline reconcile --watch`")
    out.print(rows)


def _deployed(entry: Deployed, application: str) -> str:
    """What an application served since a deployment."""
    model, trial = entry.models[application], entry.trials.get(application)
    return f"{application} {model.version if model else '–'}" + (f" with a {trial}" if trial else "")


def _listed(texts: list[str]) -> str:
    """Texts in a row, not all of a fleet's."""
    more = f" and {len(texts) - _SHOWN_MODELS} more" if len(texts) > _SHOWN_MODELS else ""
    return ", ".join(texts[:_SHOWN_MODELS]) + more


def _shortened(answer: str) -> str:
    """`version@sha256:digest` as people can compare it."""
    version, _, digest = answer.partition("@sha256:")
    return f"{version} (bundle {digest[:12]})"


def _exit_with(found: Status, *, watched: bool = False) -> None:
    _print_status(found, watched=watched)
    if found.sync.status != "Synced" or found.health.status not in ("Healthy", "Missing"):
        raise typer.Exit(1)


@contextmanager
def _errors_as_messages() -> Iterator[None]:
    try:
        yield
    except GateError as error:
        err.print(f"refused: {error}", markup=False, highlight=False)
        sys.exit(1)
    except MergelineError as error:
        err.print(f"error: {error}", markup=False, highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(interrupt.STATUS)


def main() -> None:
    """Run the command line; errors that a user can mend are one message and exit status 1."""
    interrupt.raise_again()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite end unwinds like Ctrl-C
    with _errors_as_messages():
        app()


if __name__ == "__main__":
    main()
