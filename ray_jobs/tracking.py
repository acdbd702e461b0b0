"""MLflow: where runs are tracked, and the one way to reach it.

By default a SQLite database and a folder under the state folder; `MLFLOW_TRACKING_URI` names another one, or a server.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from gitops.contracts.model import EpochMetrics
from gitops.errors import StageError
from gitops.state import State, locked
from ray_jobs.stage import Run, Stage

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN_TAG = "mergeline.run"
"""Tag of an MLflow run: the id of the training run whose figures it holds."""
FINISHED, FAILED = "FINISHED", "FAILED"

# MLflow reads them when it is imported.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # else it tells of each table of a new store


def tracking_uri(state: State) -> str:
    """`MLFLOW_TRACKING_URI` if it is set, else the SQLite database in the state folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{state.mlflow / 'mlflow.db'}"


def client(state: State) -> "MlflowClient":
    """A client of the tracking server and the registry; its database exists when this returns.

    Raises:
        StageError: there is no such server or database, or it does not answer.
    """
    from mlflow import MlflowClient

    uri = tracking_uri(state)
    with locked(state.mlflow / "lock"):  # two processes that make the tables at once break the database
        try:
            made = MlflowClient(tracking_uri=uri, registry_uri=uri)
            made.search_experiments(max_results=1)
            made.search_registered_models(max_results=1)
        except Exception as error:  # its own, SQLAlchemy's, or that a database's driver is not installed
            place = re.sub(r"//[^/@]*@", "//…@", uri)  # whose password it is nobody else is to read
            raise StageError(
                f"MLflow at {place} cannot be used: {str(error).partition(chr(10))[0]}; set MLFLOW_TRACKING_URI to a "
                "server or database that answers, or not at all for one in the state folder, which needs room there"
            ) from error
    return made


def start_or_resume_run(stage: Stage, run: Run) -> str:
    """The MLflow run of a training run, in the project's experiment; made with its parameters if there is none.

    Returns:
        The MLflow run's id.
    """
    from mlflow.entities import Param

    mlflow = client(stage.state)
    with locked(stage.state.mlflow / "lock"):
        experiment = _experiment(mlflow, stage)
        found = mlflow.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run.id}'", max_results=1)
        name = f"{stage.project.name}-{run.id}"
        run_id = str(
            (found[0] if found else mlflow.create_run(experiment, tags={RUN_TAG: run.id}, run_name=name)).info.run_id
        )
    mlflow.update_run(run_id, status="RUNNING")
    # The number of workers may change between a training and its resumption; a parameter may not.
    settings = stage.project.training.model_dump(mode="json", exclude={"workers"}) | {"dataset": run.dataset.digest}
    mlflow.log_batch(run_id, params=[Param(name, str(value)) for name, value in settings.items()])
    return run_id


def _experiment(mlflow: "MlflowClient", stage: Stage) -> str:
    """The id of the project's experiment."""
    found = mlflow.get_experiment_by_name(stage.project.name)
    if found is not None:
        return str(found.experiment_id)
    # With a database only, the client decides where artifacts lie; a server decides for itself.
    local = tracking_uri(stage.state).startswith("sqlite:")
    folder = (stage.state.mlflow / "artifacts").as_uri() if local else None
    return str(mlflow.create_experiment(stage.project.name, artifact_location=folder))


def logged_epochs(state: State, mlflow_run: str) -> int:
    """How many epochs a run holds already."""
    return len(client(state).get_metric_history(mlflow_run, "loss"))


def log_epochs(state: State, mlflow_run: str, epochs: tuple[EpochMetrics, ...]) -> None:
    """Log each epoch's figures under its number."""
    mlflow = client(state)
    for figures in epochs:
        values = figures.model_dump(exclude={"epoch", "weights"}, exclude_none=True)
        for name, value in values.items():
            mlflow.log_metric(mlflow_run, name, value, step=figures.epoch)


def log_artifact(state: State, mlflow_run: str, file: Path, folder: str | None = None) -> None:
    """Keep a file with a run, in a folder of its artifacts."""
    client(state).log_artifact(mlflow_run, str(file), folder)


def log_metrics(state: State, mlflow_run: str, metrics: dict[str, float]) -> None:
    """Log figures of the whole run, such as an evaluation's."""
    mlflow = client(state)
    for name, value in metrics.items():
        mlflow.log_metric(mlflow_run, name, value)


def finish_run(state: State, mlflow_run: str, status: str = FINISHED) -> None:
    """Close a run as FINISHED or FAILED."""
    client(state).set_terminated(mlflow_run, status=status)
