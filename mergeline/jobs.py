"""A stage as a job: of a Ray that runs, or of a cluster that comes up for it."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gitops.contracts.project import Project
from mergeline.options import PROJECT, STATE, Address, ProjectFile, StateFolder, dashboard_of
from mergeline.output import out, say
from ray_jobs.stage import STAGES

app = typer.Typer()


class Target(StrEnum):
    """Who runs a job."""

    RAY = "ray"
    KUBERNETES = "kubernetes"


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def submit(
    context: typer.Context,
    stage: Annotated[str, typer.Argument(help=f"One of {', '.join(STAGES)}.")],
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
    if stage not in STAGES:
        raise typer.BadParameter(f"there is no stage {stage!r}: take one of {', '.join(STAGES)}")
    if target is Target.KUBERNETES:
        if image is None:
            raise typer.BadParameter("--target kubernetes needs --image, as registry.example.com/mergeline@sha256:…")
        from ray_jobs import kubernetes

        where = kubernetes.Target(image=image, claim=claim, windows_claim=windows_claim, namespace=namespace)
        objects = kubernetes.render(stage, context.args, Project.read(project), project.read_text(), where, schedule)
        sys.stdout.write(kubernetes.to_yaml(objects))
        return
    if schedule is not None:
        raise typer.BadParameter("--schedule is for --target kubernetes; here cron runs `mergeline submit`")
    from ray_jobs import submit as jobs

    # A job of this machine's Ray runs in our Python and our folder; a cluster has its own.
    python, folder = (sys.executable, Path.cwd()) if address is None else ("python", None)
    arguments = ["--project", str(project), "--state", str(state), *context.args]
    command = jobs.entrypoint(python, stage, arguments, folder)
    client, job = jobs.submit(dashboard_of(state, address), command, stage)
    say(f"job {job}")
    raise typer.Exit(jobs.follow(client, job, out))
