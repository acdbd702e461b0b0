import numpy as np
import pytest

from ray_jobs.head import drawn_alike, fit_head


@pytest.mark.parametrize("classes", [2, 3])
def test_the_fitted_head_separates_what_can_be_separated(classes: int) -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes, dtype=np.int32), [60, 12, 8][:classes])
    # Features of very different size, as pooled averages and maxima have.
    features = random.normal(size=(len(labels), 40)) * np.logspace(-2, 2, 40)
    features[:, :classes] += 6 * np.logspace(-2, 2, 40)[:classes] * (labels[:, None] == np.arange(classes))
    kernel, bias = fit_head(features, labels, classes)
    assert kernel.shape == (40, classes)
    assert kernel.dtype == bias.dtype == np.float32
    predicted = (features @ kernel + bias).argmax(axis=1)
    assert np.mean(predicted == labels) > 0.95


def test_classes_count_alike_however_few_their_images_are() -> None:
    random = np.random.default_rng(1)
    labels = np.repeat(np.array([0, 1], np.int32), [190, 10])
    kernel, bias = fit_head(random.normal(size=(200, 3)), labels, 2)
    # Nothing tells the classes apart, so both are about as likely: not 19 to 1.
    logits = random.normal(size=(500, 3)) @ kernel + bias
    assert 0.2 < np.mean(logits[:, 1] > logits[:, 0]) < 0.8


def test_not_too_many_images_are_all_taken_in_their_order() -> None:
    labels = np.array([1, 0, 0, 1, 0], np.int32)
    assert drawn_alike(labels, 5, seed=0).tolist() == [0, 1, 2, 3, 4]


def test_of_too_many_images_each_class_gives_alike_and_the_seed_chooses() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.array([0, 1, 2], np.int32), [600, 300, 20]))
    chosen = drawn_alike(labels, 200, seed=1)
    assert np.bincount(labels[chosen]).tolist() == [90, 90, 20]
    assert len(np.unique(chosen)) == 200
    assert np.all(np.diff(chosen) > 0)
    assert drawn_alike(labels, 200, seed=1).tolist() == chosen.tolist()
    assert drawn_alike(labels, 200, seed=2).tolist() != chosen.tolist()
