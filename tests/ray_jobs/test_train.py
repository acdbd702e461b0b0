import dataclasses
import fcntl
from pathlib import Path

import numpy as np
import pytest

from gitops.contracts.base import Split
from gitops.contracts.project import Augmentation, Memory, Training
from gitops.errors import TrainingError
from ray_jobs import learner
from ray_jobs.augment import NOTHING, dropout_mask, random_of, vary
from ray_jobs.decoded import load_split
from ray_jobs.learner import Progress
from ray_jobs.stage import Stage
from ray_jobs.train import discard_unreadable_checkpoints, train
from tests.stages import make_stage

TRAINING = Training(backbone="small_cnn", weights="none", epochs=24, patience=24, batch_size=8, learning_rate=3e-3)
SIZES: dict[Split, dict[str, int]] = {
    "train": {"good": 40, "defective": 22},
    "validation": {"good": 9, "defective": 6},
    "test": {"good": 2, "defective": 2},
}


def small_stage(root: Path) -> Stage:
    stage = make_stage(root, sizes=SIZES)
    project = stage.project.model_copy(update={"training": TRAINING})
    stage.project_file.write_text(project.to_json())
    return dataclasses.replace(stage, project=project)


# --- what is refused before anything starts ---------------------------------------------------------------------------


def test_a_batch_that_the_workers_cannot_share_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="batch of 8 images cannot be shared by 3 workers"):
        train(small_stage(tmp_path), workers=3)


def test_fewer_images_than_a_batch_are_refused(tmp_path: Path) -> None:
    stage = make_stage(tmp_path, sizes={**SIZES, "train": {"good": 5, "defective": 5}})
    with pytest.raises(TrainingError, match="fewer training images than a batch"):
        train(stage, workers=2)


def test_a_dataset_without_validation_images_is_refused(tmp_path: Path) -> None:
    stage = make_stage(tmp_path, sizes={**SIZES, "validation": {}})
    with pytest.raises(TrainingError, match=r"no validation images: raise `split\.validation`"):
        train(stage, workers=2)


def test_one_run_is_trained_by_one_process(tmp_path: Path) -> None:
    stage = small_stage(tmp_path)
    stage.run().folder.mkdir(parents=True)
    with (stage.run().folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TrainingError, match="is being trained by another process"):
            train(stage)


@pytest.mark.parametrize("snapshot", ['{"ray_version": "0.0.1"}', '{"ray_ver', "{}"])
def test_checkpoints_that_ray_would_refuse_are_given_up_and_it_says_so(
    snapshot: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small_stage(tmp_path).run()
    folder = run.folder / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "checkpoint_manager_snapshot.json").write_text(snapshot)
    discard_unreadable_checkpoints(run)
    assert not folder.exists()
    assert f"run {run.id} begins anew" in capsys.readouterr().out


# --- the pure parts ---------------------------------------------------------------------------------------------------


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    training = Training(epochs=10, warmup_epochs=2, learning_rate=0.1)
    rates = [learner.learning_rate(step, 5, training) for step in range(51)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == rates[10] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[50] == pytest.approx(0, abs=1e-9)


def test_classes_count_alike_in_the_loss() -> None:
    labels = np.array([0] * 30 + [1] * 10, np.int32)
    weights = learner.class_weights(labels, 3)
    assert weights[0] * 30 == pytest.approx(weights[1] * 10)
    assert weights[labels].mean() == pytest.approx(1)
    assert weights[2] == 0


def test_an_epoch_shows_each_image_at_most_once_and_another_epoch_orders_them_otherwise() -> None:
    training = Training(batch_size=4)
    first, second = (learner.global_batches(18, training, epoch) for epoch in (0, 1))
    assert first.shape == (4, 4)
    assert len(set(first.ravel().tolist())) == 16
    assert first.tolist() != second.tolist()
    assert first.tolist() == learner.global_batches(18, training, 0).tolist()


def test_training_ends_when_the_last_epochs_brought_nothing_better() -> None:
    def after(*losses: float) -> Progress:
        figures = {"loss": 1, "validation_accuracy": 0.5, "learning_rate": 0.1, "seconds": 1}
        epochs = [{"epoch": epoch, "validation_loss": loss, **figures} for epoch, loss in enumerate(losses)]
        return Progress.parse({"epochs": epochs}, "the test")

    training = Training(epochs=9, patience=2)
    assert not after().is_finished(training)
    assert not after(3, 2, 2).is_finished(training)
    assert after(3, 2, 2, 2.5).is_finished(training)
    assert after(3, 2, 2, 2.5).best_epoch == 1
    assert after(*range(9, 0, -1)).is_finished(training)


def test_an_image_varies_with_the_epoch_and_with_nothing_else() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 1)).astype(np.uint8)
    first, again, other = (vary(image, random_of(0, epoch, 5), Augmentation()) for epoch in (0, 0, 1))
    assert first.shape == image.shape
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(vary(image, random_of(0, 0, 5), NOTHING), image)


def test_what_is_not_asked_for_is_not_varied() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 1)).astype(np.uint8)
    for index in range(20):
        moved = vary(image, random_of(0, 0, index), Augmentation(place=0.5, light=0, lens=0))
        assert moved.min() >= image.min()
        assert moved.max() <= image.max()
    # A lens changes some of the images, and no pixel's neighbourhood by much.
    changed = [vary(image, random_of(0, 0, index), Augmentation(place=0, light=0, lens=0.5)) for index in range(60)]
    share = np.mean([not np.array_equal(found, image) for found in changed])
    assert 0.3 < share < 0.7


def test_colour_images_vary_as_well() -> None:
    image = np.full((32, 64, 3), 128, np.uint8)
    everything = Augmentation(place=1, light=1, lens=1)
    assert all(vary(image, random_of(0, 0, index), everything).shape == (32, 64, 3) for index in range(20))


def test_dropout_leaves_the_expectation_as_it_is() -> None:
    mask = dropout_mask(100_000, random_of(0, 0, 0), 0.3)
    assert (mask == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert mask.mean() == pytest.approx(1, abs=0.01)


def test_workers_whose_weights_differ_are_found_out() -> None:
    assert learner.agreed("a" * 64, "a" * 64, worker=1, epoch=2) == "a" * 64
    with pytest.raises(
        TrainingError, match=r"after epoch 2 worker 1 has other weights \(aaaa.*\) than worker 0 \(bbbb"
    ):
        learner.agreed("a" * 64, "b" * 64, worker=1, epoch=2)


@pytest.mark.parametrize("memory", [None, Memory(images=4, dimensions=4)])
def test_the_head_learns_from_every_images_own_features(tmp_path: Path, memory: Memory | None) -> None:
    import tensorflow as tf

    stage = small_stage(tmp_path)
    dataset = stage.dataset()
    training = stage.project.training.model_copy(update={"memory": memory, "augmentation": NOTHING})
    folder = stage.state.datasets / dataset.digest
    split = load_split(folder, dataset, "train")
    assignment = learner.Assignment(
        dataset=dataset,
        dataset_folder=folder,
        training=training,
        groups=tuple(range(len(split.labels))),
        run_folder=tmp_path,
        threads=1,
    )
    images = learner.Images.of(split)
    one = learner.Learner(assignment, tf.distribute.OneDeviceStrategy("/cpu:0"), 0, images)
    one.prepare()
    features = one._embed(
        images.pixels(np.arange(training.batch_size)), one._members_at(np.arange(training.batch_size))
    )
    assert len(np.unique(np.asarray(features), axis=0)) == training.batch_size
    assert one.evaluate(images)[1] > 0.7
    assert np.isfinite(one.epoch(0, None).loss)
