import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gitops.bundle import open_folder
from gitops.contracts.drift import DriftWindow
from gitops.contracts.serving import ModelVersion, ServedModel
from gitops.errors import DataError
from gitops.status import now
from monitoring.metrics import WindowOutcome
from ray_jobs import dataset
from ray_jobs.label_tasks import export_tasks, margin
from ray_jobs.labelling import import_labels
from ray_jobs.stage import Stage
from serve.predictor import Judgement, Predictor
from serve.windows import Row, WindowFolder
from tests.bundles import put_bundle
from tests.gitops.deployments import make_version
from tests.photographs import screw, stage_on, write_folder, write_table

LABELLED, UNLABELLED = 4, 6


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Ten screws, lit differently; some have no label."""
    root = tmp_path_factory.mktemp("tasks")
    names = write_folder(root / "data", LABELLED, UNLABELLED)
    for index, name in enumerate(names):
        path = root / "data/train" / name
        pixels = screw(index).astype(float) * (0.35 + 0.065 * ((index * 7) % 10))
        cv2.imwrite(str(path), np.clip(pixels, 0, 255).astype(np.uint8))
    write_table(root / "data", names[:LABELLED])
    (root / "state").mkdir()
    stage = stage_on(root / "data", root / "state")
    dataset.extract(stage)
    return stage


@pytest.fixture(scope="module")
def version(stage: Stage) -> ModelVersion:
    digest = put_bundle(stage.state, version_salt=0.3)
    model = ServedModel(name="screw", version="3", uri=(stage.state.bundles / digest).as_uri(), sha256=digest)
    return make_version(stage.state.root, "3").model_copy(update={"model": model})


def tasks_in(file: Path) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = json.loads(file.read_text())
    return tasks


def names_in(file: Path) -> list[str]:
    return [task["data"]["filename"] for task in tasks_in(file)]


def images_of(stage: Stage) -> Path:
    return stage.project_file.parent / "train"


def test_what_has_no_label_is_exported_the_least_sure_first(
    stage: Stage, version: ModelVersion, tmp_path: Path
) -> None:
    exported = export_tasks(stage, version, tmp_path / "tasks.json")
    assert (exported.tasks, exported.left, exported.refused) == (UNLABELLED, 0, ())
    assert "6 photographs of file://" in exported.text()
    predictor = Predictor.load(open_folder(stage.state.bundles / version.model.sha256))
    scores = {}
    for path in sorted(images_of(stage).iterdir()):
        judgement = predictor.judge([path.read_bytes()])[0]
        assert isinstance(judgement, Judgement)
        scores[path.name] = judgement.score
    assert {score < 0.5 for score in scores.values()} == {True, False}
    unlabelled = [name for name in scores if not name.startswith("ok")]
    assert names_in(tmp_path / "tasks.json") == sorted(unlabelled, key=lambda name: abs(scores[name] - 0.5))
    for task in tasks_in(tmp_path / "tasks.json"):
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == "screw 3"
        assert prediction["score"] == pytest.approx(scores[task["data"]["filename"]])
        (result,) = prediction["result"]
        assert (result["from_name"], result["to_name"], result["type"]) == ("choice", "image", "choices")
        assert result["value"]["choices"] == ["good" if prediction["score"] < 0.5 else "defective"]


def test_limit_all_and_further_photographs(stage: Stage, version: ModelVersion, tmp_path: Path) -> None:
    file = tmp_path / "tasks.json"
    exported = export_tasks(stage, version, file, limit=2)
    assert (exported.tasks, exported.left) == (2, UNLABELLED - 2)
    first = names_in(file)
    export_tasks(stage, version, file)
    assert names_in(file)[:2] == first
    export_tasks(stage, version, file, labelled=True)
    assert {task["data"]["label"] for task in tasks_in(file)} == {"good", None}
    assert len(tasks_in(file)) == LABELLED + UNLABELLED
    more = tmp_path / "more photographs"
    more.mkdir()
    cv2.imwrite(str(more / "x#1.png"), screw(77))
    (more / "copy.png").write_bytes(next(images_of(stage).iterdir()).read_bytes())
    (more / "broken.png").write_text("no image")
    exported = export_tasks(stage, version, file, images=more, root=tmp_path.parent)
    assert [item.filename for item in exported.refused] == ["broken.png"]
    assert "cannot be judged: broken.png" in exported.text()
    (further,) = [task["data"] for task in tasks_in(file) if task["data"]["filename"] == "x#1.png"]
    assert further["image"] == f"/data/local-files/?d={tmp_path.name}/more%20photographs/x%231.png"
    assert exported.tasks == UNLABELLED + 1


def test_what_was_exported_comes_back(version: ModelVersion, tmp_path: Path, stage: Stage) -> None:
    again = stage_on(stage.project_file.parent, tmp_path / "state")
    export_tasks(stage, version, tmp_path / "tasks.json", limit=3)
    tasks = tasks_in(tmp_path / "tasks.json")
    assert import_labels(again, tmp_path / "tasks.json").unlabelled == 3  # as it is, nobody has labelled it
    for task in tasks:
        task["annotations"] = [{"completed_by": 1, "result": task["predictions"][0]["result"]}]
    (tmp_path / "labelled.json").write_text(json.dumps(tasks))
    new = import_labels(again, tmp_path / "labelled.json").new
    assert {item.filename for item in new} == {task["data"]["filename"] for task in tasks}
    exported = export_tasks(again, version, tmp_path / "next.json")
    assert exported.tasks == UNLABELLED - 3
    assert not set(names_in(tmp_path / "next.json")) & set(names_in(tmp_path / "tasks.json"))


def test_what_windows_kept_is_labelled_and_joins_the_next_dataset(
    stage: Stage, version: ModelVersion, tmp_path: Path
) -> None:
    again = stage_on(stage.project_file.parent, tmp_path / "state")
    predictor = Predictor.load(open_folder(stage.state.bundles / version.model.sha256))
    seen = [cv2.imencode(".jpg", screw(80 + number))[1].tobytes() for number in range(3)]
    rows = [Row.of(data, predictor.observe(data), now()) for data in seen]
    rows[2].photograph = None
    for model in (version.model, version.model.model_copy(update={"name": "bolt", "sha256": "0" * 64})):
        window = DriftWindow(
            application="line",
            model=model,
            outcome=WindowOutcome.DRIFTED,
            photographs=3,
            began_at=rows[0].taken_at,
            ended_at=rows[2].taken_at,
            labels={"good": 3, "defective": 0},
            compares_labels=False,
            findings=(),
        )
        place = tmp_path / "windows" / model.name
        WindowFolder(place, 10).keep(window, rows if model == version.model else rows[2:])
    exported = export_tasks(again, version, tmp_path / "tasks.json", windows=tmp_path / "windows")
    assert exported.tasks == UNLABELLED + 2
    tasks = [task for task in tasks_in(tmp_path / "tasks.json") if "window" in task["data"]["filename"]]
    assert {task["data"]["sha256"] for task in tasks} == {row.sha256 for row in rows[:2]}
    for task in tasks:
        task["annotations"] = [{"completed_by": 1, "result": task["predictions"][0]["result"]}]
    (tmp_path / "labelled.json").write_text(json.dumps(tasks))
    assert len(import_labels(again, tmp_path / "labelled.json").new) == 2
    listing = dataset.extract(again)
    assert {row.sha256 for row in rows[:2]} <= {photograph.sha256 for photograph in listing.photographs}
    assert export_tasks(again, version, tmp_path / "next.json", windows=tmp_path / "windows").tasks == UNLABELLED
    with pytest.raises(DataError, match=r"args\.windows"):
        export_tasks(again, version, tmp_path / "next.json", windows=tmp_path / "nowhere")


def test_nothing_to_label_writes_nothing(version: ModelVersion, tmp_path: Path) -> None:
    write_folder(tmp_path / "data", 2, 2)
    stage = stage_on(tmp_path / "data", tmp_path / "state")
    exported = export_tasks(stage, version, tmp_path / "tasks.json")
    assert exported.tasks == 0
    assert "nothing to label" in exported.text()
    assert not (tmp_path / "tasks.json").exists()


def test_wrong_folders_are_clear_errors(stage: Stage, version: ModelVersion, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="correct --images"):
        export_tasks(stage, version, tmp_path / "tasks.json", images=tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"does not lie below .*give --root"):
        export_tasks(stage, version, tmp_path / "tasks.json", root=tmp_path)
    assert not (tmp_path / "tasks.json").exists()


def judged(*probabilities: float, threshold: float = 0.5) -> Judgement:
    names = ("good", "bent", "rusty")[: len(probabilities)]
    score = 1 - probabilities[0]
    others = dict(zip(names[1:], probabilities[1:], strict=True))
    label = "good" if score < threshold else max(others, key=others.__getitem__)
    return Judgement(label, score, threshold, dict(zip(names, probabilities, strict=True)), part_found=True)


def test_the_margin_is_in_log_odds() -> None:
    assert margin(judged(0.5, 0.5)) == pytest.approx(0)
    assert margin(judged(0.75, 0.25)) == pytest.approx(math.log(3)) == margin(judged(0.25, 0.75))
    assert margin(judged(0.9, 0.1, threshold=0.1)) == pytest.approx(0)
    # 0.1 from a threshold of 0.1 is much further than 0.1 from one of 0.5
    assert margin(judged(0.999, 0.001, threshold=0.1)) > margin(judged(0.6, 0.4))
    assert margin(judged(1.0, 0.0)) == pytest.approx(margin(judged(0.0, 1.0)))
    assert margin(judged(1.0, 0.0)) < math.inf
    assert margin(judged(0.5, 0.5, threshold=0.0)) < math.inf


def test_the_margin_knows_several_classes() -> None:
    assert margin(judged(0.01, 0.5, 0.49)) == pytest.approx(math.log(0.5 / 0.49))
    assert margin(judged(0.9, 0.05, 0.05)) == pytest.approx(math.log(9))  # good: the others don't matter
    assert margin(judged(0.45, 0.5, 0.05)) == pytest.approx(math.log(0.55 / 0.45))
