"""Versions: listed, compared, and put into an environment through the gates."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from gitops import gates, overlay
from gitops.contracts.comparison import Comparison
from gitops.contracts.project import Project
from gitops.contracts.serving import ServedModel
from gitops.errors import MergelineError
from gitops.findings import explain, failed
from gitops.promotion import Destination, Promotion
from gitops.pull_request import change_markdown
from gitops.repository import MAIN
from gitops.state import State
from mergeline.options import (
    PROJECT,
    STATE,
    Application,
    Environment,
    Json,
    ProjectFile,
    Repo,
    StateFolder,
    environment_of,
    repository_of,
    stage_of,
    version_of,
)
from mergeline.output import err, say, say_json, say_table
from ray_jobs.stage import Stage

app = typer.Typer()
_SHOWN_DISAGREEMENTS = 20


@app.command()
def models(project: ProjectFile = PROJECT, state: StateFolder = STATE, as_json: Json = False) -> None:
    """List the registered versions of the project's model, newest last."""
    name = Project.read(project).name
    versions = State.at(state).versions(name)
    if as_json:
        say_json([version.model_dump(mode="json") for version in versions])
        return
    if not versions:
        say(f"{name} has no registered version in {state} yet: `mergeline up` makes one")
        return
    rows = []
    for version in versions:
        found = [version.evaluation.metrics.get(name) for name in ("accuracy", "balanced_accuracy", "auroc")]
        figures = ["–" if value is None else f"{value:.3f}" for value in found]
        images = str(version.evaluation.images)
        rows.append((version.model.version, *figures, images, version.created, version.model.sha256[:12]))
    say_table("version", "accuracy", "balanced", "AUROC", "images", "created", "bundle", rows=rows)


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
    stage = stage_of(project, state)
    name = stage.project.name
    other = version_of(stage.state, name, b).model
    one = version_of(stage.state, name, a).model if a is not None else _served(stage, env, repo)
    from ray_jobs import compare as comparing

    found, folder = comparing.compare_and_draw(stage, one, other)
    if as_json:
        say_json(found.model_dump(mode="json"))
        return
    _print_comparison(found)
    say(f"written to {folder}")


def _served(stage: Stage, env: str | None, repo: str | None) -> ServedModel:
    environment = environment_of(stage.project_file, env)
    served = Destination(repository_of(stage.state, repo), environment).target(stage.project.name).model
    if served is None:
        raise MergelineError(f"{environment} serves no version yet: name two, as `mergeline compare 1 2`")
    return served


def _print_comparison(found: Comparison) -> None:
    one, other = (f"{version.model.name} {version.model.version}" for version in (found.a, found.b))
    rows = []
    for name, metric in found.metrics.items():
        figures = (f"{metric.a:.4f}", f"{metric.b:.4f}", f"{metric.difference:+.4f}")
        rows.append((name, *figures, f"{metric.low:+.4f} to {metric.high:+.4f}"))
    say_table("metric", one, other, "difference", "95 % interval", rows=rows)
    for line in _remarks(found, one, other):
        say(line)
    if found.disagreements:
        differing = [
            (item.filename, item.label, f"{item.a} ({item.a_score:.3f})", f"{item.b} ({item.b_score:.3f})")
            for item in found.disagreements[:_SHOWN_DISAGREEMENTS]
        ]
        say_table("judged differently", "truth", one, other, rows=differing)
    if (more := len(found.disagreements) - _SHOWN_DISAGREEMENTS) > 0:
        say(f"… and {more} more")


def _remarks(found: Comparison, one: str, other: str) -> Iterator[str]:
    left_out, test = len(found.left_out), found.mcnemar
    because = f"; {left_out} left out, because one of the two was fitted to them or lookalikes" if left_out else ""
    yield f"{found.images} held-out images of dataset {found.dataset[:12]}{because}"
    yield (
        f"images that only {one} judges right: {test.only_a_right}; only {other}: {test.only_b_right}; "
        f"McNemar's exact test: {test.p_text}"
    )
    if found.newcomers:
        yield f"on {found.newcomers.summary}"
    for warning in found.warnings:
        yield f"mind: {warning}"


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
    application: Application = None,
    project: ProjectFile = PROJECT,
    state: StateFolder = STATE,
    repo: Repo = None,
) -> None:
    """Make a branch that puts a version into an environment; with a GitHub remote, the pull request too."""
    if sum((canary is not None, shadow, finish, abort)) > 1:
        raise typer.BadParameter("take one of --canary, --shadow, --finish and --abort")
    stage = stage_of(project, state)
    name = stage.project.name
    chosen = None if finish or abort else version_of(stage.state, name, version)
    destination = Destination(repository_of(stage.state, repo), environment_of(project, to), application)
    if abort:
        print_promotion(destination.abort(name, version, merge=merge is not False))
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
    print_promotion(outcome)


def _compared(stage: Stage, served: ServedModel | None, candidate: ServedModel) -> Comparison | str | None:
    """How a version does beside the one now served, which is printed too."""
    from ray_jobs import compare as comparing

    with err.status("comparing with what is served now"):
        comparison = comparing.with_served(stage, served, candidate)
    if isinstance(comparison, Comparison):
        say(comparison.summary)
    elif comparison is not None:
        say(f"not compared with what is served now: {comparison}")
    return comparison


def print_promotion(outcome: Promotion) -> None:
    """Say what a promotion came to."""
    if outcome.findings:
        say(explain(outcome.findings))
    say(outcome.text)


@app.command()
def rollback(
    env: Annotated[str, typer.Argument(help="Environment.")],
    merge: Annotated[bool, typer.Option("--merge/--no-merge", help="Merge as well, where the gates pass.")] = True,
    application: Application = None,
    project: ProjectFile = PROJECT,
    state: StateFolder = STATE,
    repo: Repo = None,
) -> None:
    """Return an environment to the model before, by a commit that reverts, through the same gates."""
    destination = Destination(repository_of(State.at(state), repo), environment_of(project, env), application)
    print_promotion(destination.rollback(Project.read(project).name, merge=merge))


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
    repository = repository_of(State.at(state), repo)
    change, into = repository.fetch(head).id, repository.fetch(base).id
    findings = gates.check(repository, into, change)
    if env:
        files = overlay.files_at(repository, change)
        # What Argo CD is told concerns all environments, and is said once.
        findings += dict.fromkeys(finding for name in env for finding in overlay.check(files, name, crds))
    if as_json:
        say_json([finding.model_dump(mode="json") for finding in findings])
    elif markdown:
        print(change_markdown(findings, gates.brought(repository, into, change)), end="")
    else:
        say(explain(findings) or f"{head} changes nothing in {base} that a gate judges")
    if failed(findings):
        raise typer.Exit(1)
