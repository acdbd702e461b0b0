import numpy as np
import pytest

from ray_jobs.head import fit_head


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
