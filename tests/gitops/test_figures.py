"""What the reconciler exports of the environment and of the line."""

import json
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from gitops import promotion
from gitops.contracts.serving import ServedModel
from gitops.figures import Exporter, ExporterError, environment_samples, line_samples
from gitops.state import State, write_atomically
from gitops.status import Deployed, Health, Journal, Resource, Status, Sync, now
from gitops.turn import Turn
from monitoring import metrics
from monitoring.exporter import Sample
from ray_jobs.stage import Stage
from tests.gitops.deployments import make_version
from tests.stages import make_stage

REVISION = "a" * 40


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return make_stage(tmp_path)


@pytest.fixture
def model(stage: Stage, tmp_path: Path) -> ServedModel:
    """Registered, and evaluated on the stage's dataset."""
    version = make_version(tmp_path, "3")
    evaluation = version.evaluation.model_copy(update={"dataset": stage.dataset().digest})
    version = version.model_copy(update={"evaluation": evaluation})
    write_atomically(stage.state.models / "screw" / "3.yaml", promotion.to_yaml(version))
    return version.model


def seen(state: State, model: ServedModel) -> Journal:
    """The journal of an environment that serves `model`."""
    journal = Journal(state, "local")
    served = (f"{model.version}@sha256:{model.sha256}",)
    resource = Resource(name="inspection", status="Synced", wanted=model, served=served)
    at = now()
    journal.append(
        Deployed(
            id=0,
            revision=REVISION,
            deploy_started_at=at,
            deployed_at=at,
            committed_at=at - timedelta(seconds=42),
            author="A",
            subject="S",
            applications=("inspection",),
            models={"inspection": model},
        )
    )
    journal.write(
        Status(
            environment="local",
            sync=Sync(status="Synced", revision=REVISION),
            health=Health(status="Healthy"),
            resources=(resource,),
            reconciled_at=at,
        )
    )
    return journal


def values(samples: list[Sample], metric: metrics.Metric) -> dict[tuple[str, ...], float]:
    return {sample.labels: sample.value for sample in samples if sample.metric is metric}


def test_a_commit_that_is_deployed_again_keeps_its_lag(stage: Stage, model: ServedModel) -> None:
    journal = seen(stage.state, model)
    (first,) = journal.history()
    journal.append(first.model_copy(update={"id": 1, "deployed_at": first.deployed_at + timedelta(days=3)}))
    found = list(environment_samples(journal))
    assert values(found, metrics.SYNC_LAG_SECONDS) == {("local",): 42}
    another = first.model_copy(update={"id": 2, "revision": "0" * 40, "committed_at": first.deployed_at})
    journal.append(another.model_copy(update={"deployed_at": first.deployed_at + timedelta(seconds=7)}))
    assert values(list(environment_samples(journal)), metrics.SYNC_LAG_SECONDS) == {("local",): 7}
    journal.append(first.model_copy(update={"id": 3, "deployed_at": first.deployed_at + timedelta(days=21)}))
    found = list(environment_samples(journal))  # a branch that was reset to an old commit
    assert values(found, metrics.SYNC_LAG_SECONDS) == {("local",): 42}


def test_an_environment_is_exported_as_it_is_seen(stage: Stage, model: ServedModel) -> None:
    journal = seen(stage.state, model)
    with Turn(journal.folder).taken():
        found = list(environment_samples(journal))
    sync = values(found, metrics.SYNC_STATUS)
    assert sync == {("local", "Synced"): 1, ("local", "OutOfSync"): 0, ("local", "Unknown"): 0}
    assert (
        sum(values(found, metrics.HEALTH_STATUS).values()) == values(found, metrics.HEALTH_STATUS)["local", "Healthy"]
    )
    assert values(found, metrics.SYNC_LAG_SECONDS) == {("local",): 42}
    assert values(found, metrics.DEPLOYMENTS) == {("local",): 1}
    served = ("local", "inspection", "screw", "3", model.sha256[:12], REVISION[:12])
    assert values(found, metrics.SERVED) == {served: 1}
    accuracy = values(found, metrics.EVALUATION)["local", "inspection", "screw", "3", "accuracy"]
    assert 0 < accuracy <= 1
    images = values(found, metrics.SERVED_DATASET_IMAGES)
    assert sum(images.values()) == stage.dataset().images


def test_where_nobody_looks_the_status_is_unknown(stage: Stage, model: ServedModel) -> None:
    found = list(environment_samples(seen(stage.state, model)))
    assert values(found, metrics.SYNC_STATUS)["local", "Unknown"] == 1


def test_another_bundle_under_the_same_number_has_no_figures(stage: Stage, model: ServedModel) -> None:
    other = model.model_copy(update={"sha256": "b" * 64})
    found = list(environment_samples(seen(stage.state, other)))
    assert values(found, metrics.SERVED)
    assert values(found, metrics.EVALUATION) == {}


def test_each_model_of_a_fleet_has_figures_of_its_own(stage: Stage, model: ServedModel) -> None:
    journal = seen(stage.state, model)
    other = ServedModel(name="bolt", version="3", uri="file:///bolt", sha256="b" * 64)
    served = tuple(f"{one.name} {one.version}@sha256:{one.sha256}" for one in (other, model))
    fleet = Resource(name="parts", status="Synced", fleet=(other, model), served=served)
    journal.write(journal.status().model_copy(update={"resources": (fleet,)}))
    found = list(environment_samples(journal))
    of_models = {labels[2:5] for labels in values(found, metrics.SERVED)}
    assert of_models == {("bolt", "3", other.sha256[:12]), ("screw", "3", model.sha256[:12])}
    assert {labels[1:4] for labels in values(found, metrics.EVALUATION)} == {("parts", "screw", "3")}


def test_the_line_is_exported_as_the_state_folder_tells_it(stage: Stage) -> None:
    dataset = stage.dataset()
    found = list(line_samples(stage.state))
    images = values(found, metrics.DATASET_IMAGES)
    assert sum(images.values()) == dataset.images
    assert values(found, metrics.DATASET_SET_ASIDE) == {(stage.project.name,): len(dataset.quarantined)}
    assert all(split in metrics.DATASET_IMAGES.values["split"] for _, split, _ in images)


def test_an_empty_state_folder_exports_an_unknown_environment(tmp_path: Path) -> None:
    journal = Journal(State.at(tmp_path), "local")
    assert values(list(environment_samples(journal)), metrics.SYNC_STATUS)["local", "Unknown"] == 1
    assert list(line_samples(journal.state)) == []


def test_prometheus_finds_the_exporter_while_it_listens(stage: Stage, model: ServedModel) -> None:
    journal = seen(stage.state, model)
    exporter = Exporter(journal)
    exporter.meters.count(metrics.SYNC_ATTEMPTS, "local", metrics.AttemptOutcome.SUCCEEDED)
    file = stage.state.targets / "reconciler-local.json"
    with exporter.listening("127.0.0.1", 0) as address:
        (group,) = json.loads(file.read_text())
        assert group == {"targets": [address], "labels": {"job": "mergeline"}}
        text = httpx.get(f"http://{address}/metrics").text
        with pytest.raises(ExporterError, match="choose another with --metrics"):
            Exporter(journal).listening("127.0.0.1", int(address.rpartition(":")[2])).__enter__()
    assert 'mergeline_sync_attempts_total{environment="local",outcome="succeeded"} 1.0' in text
    assert 'mergeline_deployments_total{environment="local"} 1.0' in text
    assert "mergeline_dataset_images{" in text
    assert not file.exists()
    with pytest.raises(OSError, match="the disk is full"), exporter.listening("127.0.0.1", 0):
        raise OSError("the disk is full")  # of the reconciler: not of the address
