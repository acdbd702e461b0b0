"""Cross-validation: every training image is judged once, by a model that has not seen it."""

import dataclasses
import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from gitops.contracts.base import Split
from gitops.contracts.model import CrossValidationResult
from gitops.contracts.project import Augmentation, CrossValidation, Memory, Training
from gitops.errors import DataError, TrainingError
from ray_jobs import cross_validate as stage_module
from ray_jobs.cross_validate import cross_validate
from ray_jobs.stage import PROGRESS_MARK, Stage
from ray_jobs.train import train
from tests.stages import make_stage, write_dataset

TRAINING = Training(
    backbone="small_cnn",
    weights="none",
    head="fitted",
    memory=Memory(images=8, dimensions=4),
    epochs=1,
    batch_size=4,
    backbone_rate=0,
    augmentation=Augmentation(place=0.1, light=0.1, lens=0),
)
SIZES: dict[Split, dict[str, int]] = {
    "train": {"good": 16, "defective": 12},
    "validation": {"good": 0, "defective": 0},
    "test": {"good": 4, "defective": 4},
}


Judged = tuple[Stage, CrossValidationResult, str]
"""A stage, what its folds found, and what was said of them."""


def stage_with(root: Path, folds: int, training: Training = TRAINING) -> Stage:
    stage = make_stage(root, sizes=SIZES)
    settings = {"training": training, "cross_validation": CrossValidation(folds=folds)}
    return dataclasses.replace(stage, project=stage.project.model_copy(update=settings))


def test_without_folds_there_is_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cross_validate(stage_with(tmp_path, 0)) is None
    assert "asks for no folds" in capsys.readouterr().out


def test_folds_that_leave_less_than_a_batch_are_refused(tmp_path: Path) -> None:
    training = TRAINING.model_copy(update={"batch_size": 16})
    with pytest.raises(TrainingError, match="has 14 training images, fewer than a batch"):
        cross_validate(stage_with(tmp_path, 2, training))


def test_folds_that_leave_a_memory_nothing_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    stage = stage_with(tmp_path, 2, TRAINING.model_copy(update={"workers": 1}))
    few: dict[Split, dict[str, int]] = {**SIZES, "train": {"good": 4, "defective": 12}}
    write_dataset(stage, few)
    for refused in (cross_validate, train):
        with pytest.raises(TrainingError, match=r"without fold 1, dataset .* has 2: add photographs"):
            refused(stage)


def test_more_folds_than_images_of_a_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'defective' has 12 images that differ, and needs 13"):
        cross_validate(stage_with(tmp_path, 13))


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Judged:
    stage = stage_with(tmp_path_factory.mktemp("folds"), 2)
    with redirect_stdout(io.StringIO()) as said:
        result = cross_validate(stage)
    assert result is not None
    return stage, result, said.getvalue()


def test_every_image_is_judged_once(judged: Judged) -> None:
    stage, result, _ = judged
    names = [prediction.filename for prediction in result.predictions]
    assert len(names) == len(set(names)) == 28
    assert names == sorted(names)
    assert {prediction.fold for prediction in result.predictions} == {0, 1}
    assert {len(prediction.logits) for prediction in result.predictions} == {2}
    assert CrossValidationResult.read(stage.run().cross_validation_file) == result
    assert not stage.run().folds_folder.exists()


def test_unseen_images_are_told_apart(judged: Judged) -> None:
    """Bright is good here, and every seventh image is of the other brightness: those must be mistaken."""
    _, result, _ = judged
    right = [int(np.argmax(prediction.logits)) == prediction.label for prediction in result.predictions]
    assert 0.7 <= np.mean(right) < 1


def test_it_says_when_a_fold_begins_and_ends(judged: Judged) -> None:
    lines = [line.removeprefix(PROGRESS_MARK) for line in judged[2].splitlines() if line.startswith(PROGRESS_MARK)]
    steps = [json.loads(line) for line in lines]
    assert [step["done"] for step in steps] == [0, 0, 0, 0, 1, 2]
    assert [step["text"] for step in steps[1:4]] == ["2 of 2 folds side by side", "fold 1 begins", "fold 2 begins"]
    assert {step["text"] for step in steps[4:]} == {"fold 1 judged 14 images", "fold 2 judged 14 images"}


def test_running_again_does_nothing(judged: Judged, capsys: pytest.CaptureFixture[str]) -> None:
    assert cross_validate(judged[0]) == judged[1]
    assert "has its 2 folds already" in capsys.readouterr().out


def test_a_fold_that_was_finished_is_not_repeated(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, result, _ = judged
    run = stage.run()
    run.cross_validation_file.unlink()
    run.folds_folder.mkdir()
    for fold in (0, 1):
        done = [found for found in result.predictions if found.fold == fold]
        part = CrossValidationResult(dataset=result.dataset, folds=2, predictions=tuple(done))
        (run.folds_folder / f"{fold}-of-2.json").write_text(part.to_json())

    def never(*_: object) -> None:
        raise AssertionError("a finished fold was judged again")

    monkeypatch.setattr(stage_module, "judge_fold", never)
    assert cross_validate(stage) == result
