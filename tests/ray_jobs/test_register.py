"""Registering: MLflow's numbers, the file that Git keeps, and what happens when it is stopped in between."""

from pathlib import Path

import pytest

from gitops.contracts.model import EvaluationReport, ThresholdChoice
from gitops.contracts.serving import ModelVersion
from gitops.errors import BundleError, ContractError, TrainingError
from gitops.promotion import to_yaml
from ray_jobs import register as registering
from ray_jobs import tracking
from ray_jobs.register import register
from ray_jobs.stage import Stage
from tests.bundles import put_bundle
from tests.stages import finish_training, make_stage

# MLflow 3.17 asks SQLAlchemy 2.1 for what it gives up.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")


def evaluated(stage: Stage, salt: float) -> str:
    """Put a bundle and its report where export and evaluation would have put them."""
    digest = put_bundle(stage.state, version_salt=salt)
    stage.run().bundle_file.write_text(digest + "\n")
    report = EvaluationReport(
        bundle=digest,
        dataset=stage.dataset().digest,
        images=30,
        metrics={"accuracy": 0.9, "loss": 0.25},
        threshold=ThresholdChoice(value=0.5, method="the middle"),
        confusion={"good": {"good": 18, "defective": 2}, "defective": {"good": 1, "defective": 9}},
        per_class={"good": {"recall": 0.9}, "defective": {"recall": 0.9}},
        calibration=((0.1, 0.05, 19), (0.9, 0.8, 11)),
    )
    stage.run().evaluation_file.write_text(report.to_json())
    return digest


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    stage = make_stage(tmp_path_factory.mktemp("register"))
    finish_training(stage, tracking.start_or_resume_run(stage, stage.run()))
    return stage


@pytest.fixture(scope="module")
def first(stage: Stage) -> ModelVersion:
    evaluated(stage, 0.0)
    return register(stage)


def in_registry(stage: Stage) -> dict[str, str]:
    entries = tracking.client(stage.state).search_model_versions("name='screw'")
    return {str(entry.version): entry.tags["sha256"] for entry in entries}


def test_a_version_is_in_the_registry_and_in_a_file(stage: Stage, first: ModelVersion) -> None:
    digest = stage.run().bundle_file.read_text().strip()
    assert first.model.version == "1"
    assert first.model.sha256 == digest
    assert first.model.uri == (stage.state.bundles / digest).as_uri()
    assert ModelVersion.read(stage.state.models / "screw" / "1.yaml") == first
    entry = tracking.client(stage.state).get_model_version("screw", "1")
    assert entry.tags == {"sha256": digest, "dataset": stage.dataset().digest}
    assert entry.source == first.model.uri
    assert entry.run_id == first.mlflow_run_id


def test_the_same_bundle_keeps_its_version(
    stage: Stage, first: ModelVersion, capsys: pytest.CaptureFixture[str]
) -> None:
    assert register(stage) == first
    assert "is version 1 of screw already" in capsys.readouterr().out
    assert list(in_registry(stage)) == ["1"]


def test_stopped_between_registry_and_file_it_is_mended_without_gap_or_double(
    stage: Stage, first: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = evaluated(stage, 0.1)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(registering, "write_atomically", stopped)
        with pytest.raises(KeyboardInterrupt):
            register(stage)
    assert not (stage.state.models / "screw" / "2.yaml").exists()
    assert register(stage).model.version == "2"
    assert in_registry(stage) == {"1": first.model.sha256, "2": digest}
    assert [version.model.version for version in stage.state.versions("screw")] == ["1", "2"]


def test_a_mended_file_is_the_one_that_was_lost(stage: Stage, first: ModelVersion) -> None:
    evaluated(stage, 0.0)
    file = stage.state.models / "screw" / "1.yaml"
    text = file.read_text()
    file.unlink()
    assert register(stage) == first
    assert file.read_text() == text


def test_a_registry_that_was_begun_anew_overwrites_nothing(stage: Stage, first: ModelVersion, tmp_path: Path) -> None:
    other = make_stage(tmp_path)
    finish_training(other, tracking.start_or_resume_run(other, other.run()))
    evaluated(other, 0.7)
    file = other.state.models / "screw" / "1.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(to_yaml(first))
    with pytest.raises(ContractError, match=r"1\.yaml is of another bundle: the registry was begun anew"):
        register(other)
    assert file.read_text() == to_yaml(first)


def test_a_bundle_without_evaluation_is_refused(stage: Stage, first: ModelVersion) -> None:
    kept = stage.run().evaluation_file.read_text()
    evaluated(stage, 0.9)
    stage.run().evaluation_file.write_text(kept)  # of the bundle before
    with pytest.raises(TrainingError, match="run `mergeline submit evaluate`"):
        register(stage)


def test_a_damaged_bundle_is_refused_before_it_gets_a_number(stage: Stage, first: ModelVersion) -> None:
    digest = evaluated(stage, 0.8)
    (stage.state.bundles / digest / "model.bin").write_bytes(b"")
    before = in_registry(stage)
    with pytest.raises(BundleError, match=r"model\.bin was changed"):
        register(stage)
    assert in_registry(stage) == before
