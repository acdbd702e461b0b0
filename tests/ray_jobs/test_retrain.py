"""Retraining: what it proposes, what keeps it from running, and what is kept when it fails."""

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from gitops.contracts.serving import ModelVersion, ServedModel
from gitops.errors import MergelineError
from gitops.promotion import Destination, Promotion, to_yaml
from gitops.repository import Repository
from gitops.state import locked
from gitops.status import now
from ray_jobs import retrain
from ray_jobs.label_book import KeptLabel, record
from ray_jobs.retrain import Options, Outcome, Retraining, RetrainingError
from ray_jobs.stage import Stage
from tests.bundles import put_bundle
from tests.gitops.deployments import git, make_repository, make_version
from tests.stages import SIZES, make_stage, write_dataset

HOURS = 24.0
LOCAL = Options("local", HOURS)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return make_stage(tmp_path)


@pytest.fixture
def repository(tmp_path: Path, stage: Stage) -> Repository:
    """Serves version 1, which the line has made."""
    repository = make_repository(tmp_path / "deployments.git")
    Destination(repository, "local").promote(made(stage, 1), merge=True)
    return repository


def made(stage: Stage, number: int) -> ModelVersion:
    """A version of the stage's dataset, as the pipeline would leave it."""
    stage.state.bundles.mkdir(parents=True, exist_ok=True)
    digest = put_bundle(stage.state, version_salt=number / 10, dataset=stage.dataset().digest)
    model = ServedModel(name="screw", version=str(number), uri=(stage.state.bundles / digest).as_uri(), sha256=digest)
    version = make_version(stage.state.root / "others", str(number))
    evaluation = version.evaluation.model_copy(update={"bundle": digest})
    version = version.model_copy(update={"model": model, "evaluation": evaluation})
    file = stage.state.models / "screw" / f"{number}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(to_yaml(version))
    run = stage.run()
    run.folder.mkdir(parents=True, exist_ok=True)
    run.bundle_file.write_text(digest + "\n")
    return version


def learning(stage: Stage) -> Callable[[], None]:
    """A pipeline that finds three photographs more, and makes version 2."""

    def run() -> None:
        write_dataset(stage, {**SIZES, "test": {"good": 22, "defective": 11}})
        made(stage, 2)

    return run


def message(repository: Repository, commit: str) -> str:
    return git(Path(repository.location), "log", "-1", "--format=%B", commit)


def nothing() -> None:
    """A pipeline that finds all as it was."""


def test_what_is_new_becomes_a_branch_that_says_why(stage: Stage, repository: Repository) -> None:
    retrain.request(stage.state, "screw", "alert MergelineDrift")
    tip = repository.fetch("main").id
    outcome = retrain.retrain(stage, repository, LOCAL, "alert MergelineDrift", learning(stage))
    assert isinstance(outcome, Promotion)
    assert (outcome.branch, outcome.merged) == ("promote/local/screw-2", False)
    assert repository.fetch("main").id == tip, "nothing that is served changes"
    said = message(repository, outcome.commit)
    assert "Retrained: alert MergelineDrift." in said
    assert "3 added (dataset of screw 1)" in said
    assert "screw 2 against screw 1 on" in said
    last = retrain.latest(stage.state, "screw")
    assert last is not None
    assert (last.outcome, last.reason) == (Outcome.PROPOSED, "alert MergelineDrift")
    assert retrain.requested(stage.state, "screw") is None


def test_nothing_new_proposes_nothing_and_is_asked_again_when_there_are_labels(
    stage: Stage, repository: Repository
) -> None:
    retrain.request(stage.state, "screw", "drift")
    reasons: list[str] = []

    def retrain_for(reason: str) -> None:
        reasons.append(reason)
        said = retrain.retrain(stage, repository, LOCAL, reason, nothing)
        assert "mergeline label export tasks.json --windows" in str(said)

    def look() -> None:
        retrain.watch(stage, HOURS, retrain_for, reasons.append, once=True)

    look()
    last = retrain.latest(stage.state, "screw")
    assert last is not None
    assert last.outcome is Outcome.UNCHANGED
    assert "mergeline label export tasks.json --windows" in last.message
    assert retrain.requested(stage.state, "screw"), "what asks for it goes on asking"
    before = len(reasons)
    look()
    assert len(reasons) == before, "nothing has changed since"
    record(stage, {"a" * 64: KeptLabel(label="good", filename="a.png", file="tasks.json")})
    look()
    assert len(reasons) > before


def test_a_failed_pipeline_keeps_the_request_and_is_not_tried_again_at_once(
    stage: Stage, repository: Repository
) -> None:
    retrain.request(stage.state, "screw", "drift")

    def failing() -> None:
        raise MergelineError("the disk is full")

    with pytest.raises(MergelineError, match="the disk is full"):
        retrain.retrain(stage, repository, LOCAL, "drift", failing)
    last = retrain.latest(stage.state, "screw")
    assert last is not None
    assert (last.outcome, last.message) == (Outcome.FAILED, "the disk is full")
    assert retrain.requested(stage.state, "screw")
    with pytest.raises(RetrainingError, match=r"failed, the disk is full; the next is due from .* with --hours 0"):
        retrain.retrain(stage, repository, LOCAL, "drift", learning(stage))
    assert retrain.retrain(stage, repository, Options("local", 0), "drift", learning(stage)) is not None


def test_a_watcher_says_what_went_wrong_and_goes_on(stage: Stage) -> None:
    retrain.request(stage.state, "screw", "drift")
    said: list[str] = []

    def failing(_: str) -> None:
        raise MergelineError("no Ray runs")

    retrain.watch(stage, HOURS, failing, said.append, once=True)
    assert said == ["not retrained: no Ray runs"]
    (stage.state.retraining / "screw.request.json").write_text("{")
    retrain.watch(stage, HOURS, failing, said.append, once=True)
    assert "screw.request.json" in said[1]

    def breaking(_: str) -> None:
        raise ConnectionError("Ray is gone")

    (stage.state.retraining / "screw.request.json").unlink()
    retrain.request(stage.state, "screw", "drift")
    retrain.watch(stage, HOURS, breaking, said.append, once=True)
    assert said[2] == "not retrained: ConnectionError: Ray is gone"


@pytest.mark.parametrize("outcome", [Outcome.PROPOSED, Outcome.FAILED, None])
def test_the_next_waits_for_its_hours(stage: Stage, repository: Repository, outcome: Outcome | None) -> None:
    file = stage.state.retraining / "screw.json"
    file.parent.mkdir()
    began = now() - timedelta(hours=HOURS - 1)
    file.write_text(Retraining(reason="labels", began_at=began, outcome=outcome).to_json())
    with pytest.raises(RetrainingError, match="24 hours after that"):
        retrain.retrain(stage, repository, LOCAL, "drift", nothing)
    began -= timedelta(hours=2)
    file.write_text(Retraining(reason="labels", began_at=began, outcome=outcome).to_json())
    assert "screw 1 is served" in str(retrain.retrain(stage, repository, LOCAL, "drift", nothing))


def test_one_runs_at_a_time(stage: Stage, repository: Repository) -> None:
    with locked(stage.state.retraining / "screw.lock"), pytest.raises(RetrainingError, match="runs already"):
        retrain.retrain(stage, repository, LOCAL, "drift", nothing)
    assert retrain.latest(stage.state, "screw") is None


def test_a_trial_is_ended_first(stage: Stage, repository: Repository) -> None:
    Destination(repository, "local").try_beside(made(stage, 2), 10, merge=True)
    with pytest.raises(RetrainingError, match="canary of version 2"):
        retrain.retrain(stage, repository, LOCAL, "drift", nothing)


def test_a_dataset_that_is_gone_is_said(stage: Stage, repository: Repository) -> None:
    old = stage.state.datasets / stage.dataset().digest

    def run() -> None:
        learning(stage)()
        old.rename(old.with_name("elsewhere"))

    outcome = retrain.retrain(stage, repository, LOCAL, "drift", run)
    assert isinstance(outcome, Promotion)
    assert "nobody can say what changed" in message(repository, outcome.commit)


def test_each_reason_asks_for_itself(stage: Stage) -> None:
    for reason in ("drift", "accuracy", "drift"):
        retrain.request(stage.state, "screw", reason)
    asked = retrain.requested(stage.state, "screw")
    assert asked is not None
    assert asked.text == "drift; accuracy"
    retrain.withdraw(stage.state, "screw", "drift")
    asked = retrain.requested(stage.state, "screw")
    assert asked is not None
    assert asked.reasons == ("accuracy",)
    retrain.withdraw(stage.state, "screw", "accuracy")
    assert retrain.requested(stage.state, "screw") is None


def test_what_was_proposed_is_not_proposed_again(stage: Stage, repository: Repository) -> None:
    now_and_again = Options("local", 0)
    assert retrain.retrain(stage, repository, now_and_again, "drift", learning(stage)) is not None
    for _ in range(2):  # somebody has closed the pull request, or went back
        said = retrain.retrain(stage, repository, now_and_again, "drift", nothing)
        assert "screw 2 was proposed before" in str(said)
        last = retrain.latest(stage.state, "screw")
        assert last is not None
        assert last.message == said


def test_settings_that_change_meanwhile_are_said(stage: Stage, repository: Repository) -> None:
    changed = stage.project.model_copy(update={"training": stage.project.training.model_copy(update={"seed": 9})})
    with pytest.raises(RetrainingError, match="were they changed meanwhile"):
        retrain.retrain(dataclasses.replace(stage, project=changed), repository, LOCAL, "drift", nothing)
