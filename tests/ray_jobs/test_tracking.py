import multiprocessing
from pathlib import Path

import pytest

from gitops.contracts.model import EpochMetrics
from gitops.errors import StageError
from gitops.state import State
from ray_jobs import tracking
from tests.stages import make_stage


@pytest.fixture(autouse=True)
def _own_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_the_database_lies_in_the_state_folder_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    state = State.at(Path("/somewhere"))
    assert tracking.tracking_uri(state) == "sqlite:////somewhere/mlflow/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.com")
    assert tracking.tracking_uri(state) == "https://mlflow.example.com"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("postgresql+nothing://ada:secret@127.0.0.1:1/mlflow", "MLflow at postgresql+nothing://…@127.0.0.1:1/mlflow "),
        ("http://[x", "MLflow at http://[x cannot be used: "),
        ("sqlite:////dev/null/mlflow.db", "MLflow at sqlite:////dev/null/mlflow.db cannot be used: "),
    ],
)
def test_a_server_that_cannot_be_had_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, said: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(StageError) as caught:
        tracking.client(State.at(tmp_path))
    assert str(caught.value).startswith(said)
    assert "set MLFLOW_TRACKING_URI to a server or database that answers" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_processes_may_make_the_database_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=tracking.client, args=(State.at(tmp_path),)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


def test_a_run_is_found_again_and_holds_parameters_figures_and_files(tmp_path: Path) -> None:
    stage = make_stage(tmp_path)
    mlflow_run = tracking.start_or_resume_run(stage, stage.run())
    assert tracking.start_or_resume_run(stage, stage.run()) == mlflow_run

    figures = EpochMetrics(
        epoch=3, loss=0.5, validation_loss=0.6, validation_accuracy=0.7, learning_rate=1e-3, seconds=2
    )
    tracking.log_epochs(stage.state, mlflow_run, (figures,))
    tracking.log_metrics(stage.state, mlflow_run, {"auroc": 0.9})
    tracking.log_artifact(stage.state, mlflow_run, stage.project_file, "scope")
    tracking.finish_run(stage.state, mlflow_run)

    found = tracking.client(stage.state).get_run(mlflow_run)
    assert found.info.status == "FINISHED"
    assert found.data.params["backbone"] == "small_cnn"
    assert found.data.params["dataset"] == stage.dataset().digest
    assert found.data.metrics["validation_accuracy"] == 0.7
    assert found.data.metrics["auroc"] == 0.9
    assert tracking.logged_epochs(stage.state, mlflow_run) == 1
    assert list(stage.state.mlflow.glob("artifacts/**/scope/project.yaml"))
