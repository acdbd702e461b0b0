"""Judging: the running service is asked about photographs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from gitops.contracts.project import Project
from gitops.environment import Environment as ServedEnvironment
from gitops.layout import serve_config_path
from gitops.repository import MAIN
from gitops.state import State
from mergeline.options import (
    PROJECT,
    STATE,
    Environment,
    Json,
    ProjectFile,
    Repo,
    StateFolder,
    environment_of,
    repository_of,
)
from mergeline.output import Prose, err, say_json, say_table

if TYPE_CHECKING:
    from serve.asking import Answer

app = typer.Typer()
_NOT_GOOD = 3
"""Exit status of `predict` where a part is not good: 1 is an error, 2 a command line that cannot be read."""


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
    from rich.progress import Progress

    from serve import asking

    files = asking.photographs(paths)
    url = (url or _served_url(project, state, env, repo)).rstrip("/")
    service = asking.Asking(url, threshold, explain, client or asking.default_client())
    with Progress(console=err, transient=True, disable=not err.is_terminal) as bar:
        answers = list(bar.track(service.ask(files), total=len(files), description="judging"))
    if as_json:
        say_json([answer.model_dump(mode="json", exclude_none=True) for answer in answers])
    else:
        _print_answers(answers)
    if others := asking.left_out(paths):
        err.print(f"not looked at, as no photographs by their names: {len(others)}, {others[0]} the first of them")
    if any(answer.error for answer in answers):
        raise typer.Exit(1)
    if not all(answer.good for answer in answers):
        raise typer.Exit(_NOT_GOOD)


def _served_url(project: Path, state: Path, env: str | None, repo: str | None) -> str:
    """Where the environment's application answers on this machine, as `up` prints it."""
    name, repository = environment_of(project, env), repository_of(State.at(state), repo, "--url or --state")
    path = serve_config_path(name)
    wanted = ServedEnvironment.parse(repository.read(repository.fetch(MAIN).id, path), path)
    return wanted.url(wanted.find(None, Project.read(project).name, path))


def _print_answers(answers: Sequence["Answer"]) -> None:
    say_table("file", "label", "score", "threshold", Prose("part"), rows=_rows(answers))
    bad, failed = sum(answer.good is False for answer in answers), sum(answer.error is not None for answer in answers)
    err.print(f"{len(answers) - bad - failed} good, {bad} not good" + (f", {failed} not judged" if failed else ""))


def _rows(answers: Sequence["Answer"]) -> Iterator[Sequence[str | Text]]:
    for answer in answers:
        if answer.error or answer.score is None or answer.threshold is None:
            yield answer.file, Text("not judged", "red"), "", "", answer.error or ""
            continue
        label = Text(answer.label or "", "green" if answer.good else "red")
        part = "found" if answer.part_found else "not found"
        yield answer.file, label, f"{answer.score:.4f}", f"{answer.threshold:.4f}", part
