"""Options that several verbs have, and what their values stand for."""

import os
from pathlib import Path
from typing import Annotated

import typer

from gitops.contracts.project import Project
from gitops.contracts.serving import ModelVersion
from gitops.errors import MergelineError
from gitops.repository import Repository
from gitops.state import State
from ray_jobs.stage import Stage

ProjectFile = Annotated[Path, typer.Option("--project", help="Project file.")]
StateFolder = Annotated[Path, typer.Option("--state", file_okay=False, help="State folder.")]
Environment = Annotated[str | None, typer.Option("--env", help="Environment; the project's first if not given.")]
Repo = Annotated[
    str | None, typer.Option("--repo", help="Deployments repository: a path or URL; the state folder's if not given.")
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Ray's dashboard, as http://127.0.0.1:8265; what `up` started if not given."),
]
Application = Annotated[str | None, typer.Option(help="Application; that of the model's name if not given.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LastData = Annotated[
    str | None, typer.Option("--data", help="rendered, kaggle, or a folder, instead of what `dataset` read last.")
]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Ray Train workers, instead of the project's.")]
UseGpu = Annotated[bool, typer.Option("--use-gpu", help="Train on GPUs.")]
SelfHeal = Annotated[bool, typer.Option("--self-heal", help="Put back what was changed on the cluster by hand.")]

PROJECT, STATE = Path("project.yaml"), Path(".mergeline")


def stage_of(project: Path, state: Path) -> Stage:
    """The surroundings of a project's stages."""
    return Stage(Project.read(project), project.resolve(), State.at(state))


def environment_of(project: Path, name: str | None) -> str:
    """The environment of that name; None: the project's first.

    Raises:
        MergelineError: the project cannot be read, or has none of that name.
    """
    environments = Project.read(project).environments
    if name is None:
        return environments[0]
    if name not in environments:
        raise MergelineError(f"{project} has no environment {name!r}; it has {', '.join(environments)}")
    return name


def repository_of(state: State, location: str | None, otherwise: str = "--repo") -> Repository:
    """The deployments repository at a path or URL; None: the state folder's own.

    Args:
        state: the state folder.
        location: a path or URL.
        otherwise: the option that does without the state folder's, for the error.

    Raises:
        MergelineError: the state folder has none.
    """
    if location is None and not state.repository.exists():
        raise MergelineError(
            f"there is no deployments repository in {state.root}: run `mergeline up`, or give {otherwise}"
        )
    return Repository(location or state.repository)


def version_of(state: State, name: str, number: str | None) -> ModelVersion:
    """A registered version of a model; None: the newest.

    Raises:
        MergelineError: there is no such version.
    """
    versions = {version.model.version: version for version in state.versions(name)}
    if not versions:
        raise MergelineError(f"{name} has no registered version in {state.root}: run `mergeline submit pipeline`")
    number = list(versions)[-1] if number is None else number
    if number not in versions:
        raise MergelineError(f"{name} has no version {number!r}; it has {', '.join(versions)}")
    return versions[number]


def dashboard_of(state: Path, address: str | None) -> str:
    """URL of Ray's dashboard; None: of the Ray that `up` started. What Ray's clients need for that one is set.

    Raises:
        MergelineError: no Ray runs for the state folder.
    """
    from ray_jobs import cluster

    session = cluster.session_of(State.at(state))
    if session and address in (None, session.dashboard):
        os.environ.update(session.environment())
    if address:
        return address
    if session is None or not session.is_running():
        raise MergelineError(f"no Ray runs for {state}: run `mergeline up`, or give --address")
    return session.dashboard
