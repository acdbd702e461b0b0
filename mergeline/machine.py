"""One machine: the line on it, and what it needs for that."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from gitops.repository import user_address
from gitops.state import State
from mergeline.options import (
    PROJECT,
    STATE,
    Environment,
    Json,
    ProjectFile,
    Repo,
    SelfHeal,
    StateFolder,
    UseGpu,
    Workers,
    environment_of,
    repository_of,
    stage_of,
)
from mergeline.output import Prose, out, say, say_json, say_table

if TYPE_CHECKING:
    from ray_jobs.local import Served

app = typer.Typer()


@app.command()
def up(
    data: Annotated[
        str | None, typer.Option("--data", help="rendered, kaggle, or a folder, instead of the project's source.")
    ] = None,
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

    stage = stage_of(project, state)
    options = local.Options(
        environment=env or stage.project.environments[0],
        training=Training(data=data, workers=workers, use_gpu=use_gpu),
        repository=repo,
        port=port,
        self_heal=self_heal,
    )
    served = local.up(stage, options, out)
    for line in _what_next(served, project, state):
        say(line)


def _what_next(served: "Served", project: Path, state: Path) -> Iterator[str]:
    command = Path(sys.argv[0]).absolute()
    typed = command.name == "mergeline" and command.is_relative_to(Path.cwd())
    name = str(command.relative_to(Path.cwd())) if typed else "mergeline"
    of_project = "" if project == PROJECT else f" --project {shlex.quote(str(project))}"
    of_state = "" if state == STATE else f" --state {shlex.quote(str(state))}"
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
    yield f"  {name} status{of_project}{of_state}"
    yield f"  {name} down{of_state}"


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

    stage = stage_of(project, state)
    options = local.Options(environment=environment_of(project, env), self_heal=self_heal)
    with suppress(KeyboardInterrupt):
        local.serve(stage, options, repository_of(stage.state, repo), out)
    say("ended")


@app.command()
def down(state: StateFolder = STATE) -> None:
    """End everything that `up` started for the state folder, and nothing else."""
    from ray_jobs import cluster

    count = cluster.stop(State.at(state))
    say(f"ended {count} processes" if count else f"nothing runs for {state}")


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
        say_json([check.model_dump(mode="json") for check in checks])
    else:
        colors = {"ok": "green", "optional": "yellow", "missing": "red"}
        rows = [
            (check.name, Text(check.level.value, colors[check.level.value]), check.found, check.remedy)
            for check in checks
        ]
        say_table("what", "", Prose("found"), Prose("what to do"), rows=rows)
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
        say(line)
    flag = "" if project == PROJECT else f" --project {shlex.quote(str(project))} --state .mergeline-{written.name}"
    say(f"next: mergeline up{flag}")
