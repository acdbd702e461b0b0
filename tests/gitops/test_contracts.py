"""The contracts refuse what breaks them, and say where and what instead."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from gitops.contracts.dataset import ImageFinding, QualityReport
from gitops.contracts.project import Assertion, Project
from gitops.contracts.serving import ModelVersion, ServedModel
from gitops.errors import ContractError
from tests.gitops.deployments import PROJECT, make_version

ROOT = Path(__file__).parents[2]


def test_the_projects_own_file_is_valid() -> None:
    project = Project.read(ROOT / "project.yaml")
    assert project.name == "screw"
    assert {gate.metric: gate.min for gate in project.gates}["accuracy"] == 0.95


@pytest.mark.parametrize(
    ("wrong", "right", "hint"),
    [
        ("ownr: me", "owner: quality@example.com", "ownr: unknown key; did you mean 'owner'?"),
        ("data: {source: rendered, pth: x}", "data: {source: rendered}", "data.pth: unknown key; did you mean 'path'?"),
        (
            "- {metrc: loss, max: 0.4}",
            "- {metric: loss, max: 0.4}",
            "gates.1.metrc: unknown key; did you mean 'metric'?",
        ),
        ("zzzzzz: 1\nowner: me", "owner: quality@example.com", "zzzzzz: unknown key; known: classes, costs, "),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(wrong: str, right: str, hint: str) -> None:
    with pytest.raises(ContractError) as error:
        Project.from_yaml(PROJECT.replace(right, wrong), "project.yaml")
    assert "project.yaml is not a valid Project" in str(error.value)
    assert hint in str(error.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: [", "is not YAML"),
        ("name: a\nname: b", "is not YAML"),
        ("just words", "is not a valid Project"),
        ("", "is not a valid Project"),
        (PROJECT.replace("source: rendered", "source: folder"), "source 'folder' needs `path`"),
        (PROJECT.replace("source: rendered", "source: kaggle"), "source 'kaggle' needs `kaggle: owner/dataset`"),
        (PROJECT.replace("name: screw", "name: Screw_9"), "name: String should match pattern"),
        (PROJECT.replace("[good, defective]", "[good]"), "classes: Tuple should have at least 2 items"),
        (PROJECT.replace("[good, defective]", "[good, good]"), "`classes` names one twice"),
        (PROJECT.replace("metric: loss", "metric: los"), "there is no metric 'los'; did you mean 'loss'?"),
        (PROJECT.replace(", max: 0.4", ""), "the gate 'loss' lets everything pass"),
        (PROJECT + "split: {validation: 0.6, test: 0.4}\n", "leave something to train on"),
        (PROJECT + "split: {test: 0}\n", "`test` must be more than 0"),
        (PROJECT + "split: {validation: 0}\n", "the threshold needs data"),
        (PROJECT + "cross_validation: {folds: 1}\n", "one fold leaves nothing to train on"),
        (PROJECT.replace("metric: loss", "metric: cross_validated_loss"), "there is no metric 'cross_validated_loss'"),
        (PROJECT.replace("metric: loss", "metric: cross_validated_brier"), "needs folds"),
        (PROJECT + "training: {feature_strides: [16, 16]}\n", "names one twice"),
        (PROJECT + "quality: [{measure: sharpness}]\n", "the assertion on 'sharpness' always holds"),
    ],
)
def test_a_project_file_that_is_wrong_says_so(text: str, reason: str) -> None:
    with pytest.raises(ContractError, match=r"project\.yaml") as error:
        Project.from_yaml(text, "project.yaml")
    assert reason in str(error.value)


def test_reading_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"cannot read .*absent\.yaml: No such file"):
        Project.read(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ContractError, match=r"binary\.yaml is not UTF-8"):
        Project.read(tmp_path / "binary.yaml")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ContractError, match=r"broken\.json is not JSON"):
        Project.read(tmp_path / "broken.json")


def test_json_and_yaml_mean_the_same(tmp_path: Path) -> None:
    version = make_version(tmp_path, "3")
    path = tmp_path / "version.json"
    path.write_text(version.to_json())
    assert ModelVersion.read(path) == ModelVersion.from_yaml(version.to_json(), "text") == version


def test_the_same_value_gives_the_same_bytes(tmp_path: Path) -> None:
    version = make_version(tmp_path, "3")
    assert version.to_json() == ModelVersion.model_validate_json(version.to_json()).to_json()


def test_a_contract_is_frozen() -> None:
    model = ServedModel(name="screw", version="1", uri="file:///x", sha256="0" * 64)
    with pytest.raises(ValidationError, match="frozen"):
        model.version = "2"


@pytest.mark.parametrize("version", ["0", "01", "-1", "1.0", "1234567890", ""])
def test_versions_are_counted_from_one(version: str) -> None:
    with pytest.raises(ContractError, match="version"):
        ServedModel.parse({"name": "screw", "version": version, "uri": "file:///x", "sha256": "0" * 64}, "model")


def test_a_quality_report_passes_when_every_assertion_does() -> None:
    held = ImageFinding(assertion=Assertion(measure="sharpness", min=1), passed=True, failing_share=0)
    broken = held.model_copy(update={"passed": False, "failing_share": 1.0, "failing_images": ("a.png",)})
    report = QualityReport(dataset="0" * 64, images=1, measures={}, class_balance={"good": 1}, findings=(held,))
    assert report.passed
    assert not report.model_copy(update={"findings": (held, broken)}).passed
