"""Retraining: on what there is by now, by hand or when an alert asks for it."""

from typing import Annotated

import typer

from gitops.promotion import Destination, Promotion
from mergeline.options import (
    PROJECT,
    STATE,
    Application,
    Environment,
    LastData,
    ProjectFile,
    Repo,
    StateFolder,
    UseGpu,
    Workers,
    dashboard_of,
    environment_of,
    repository_of,
    stage_of,
)
from mergeline.output import out, say
from mergeline.promoting import print_promotion

app = typer.Typer()


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
    application: Application = None,
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
    from ray_jobs import alerts, dataset
    from ray_jobs import retrain as retraining
    from ray_jobs import submit as jobs

    stage = stage_of(project, state)
    environment, repository = environment_of(project, env), repository_of(stage.state, repo)
    options = retraining.Options(environment, hours, application)

    def retrain_for(why: str) -> None:
        stage = stage_of(project, state)  # anew: the job reads the file as it is by now
        training = jobs.Training(data=data or dataset.last_data(stage), workers=workers, use_gpu=use_gpu)
        address = dashboard_of(state, None)  # before anything is written down: without Ray nothing has begun
        say(f"retraining {stage.project.name}: {why}")

        def run_pipeline() -> None:
            jobs.run_pipeline(stage, address, training, out)

        outcome = retraining.retrain(stage, repository, options, why, run_pipeline)
        if isinstance(outcome, Promotion):
            print_promotion(outcome)
        else:
            say(f"nothing to propose: {outcome}")

    if not watch:
        retrain_for(reason)
        return
    served = Destination(repository, environment, application).target(stage.project.name).application.name
    with alerts.listening(stage.state, stage.project.name, served, port) as url:
        say(f"alerts of {served} are taken at {url}: name it with `mergeline monitor up --webhook {url}`")
        retraining.watch(stage, hours, retrain_for, say)
