"""The memory of good parts, against plain arithmetic."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gitops.contracts.project import Memory, Preprocessing, Training
from ray_jobs import model
from ray_jobs.convert import load
from ray_jobs.memory import FEATURES, PatchMemory, members_of, remember, to_remember

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
SHAPE = (3, 4, 6)  # rows, columns, channels
GOOD_IMAGES, ROOM = 12, 16


def good_images(count: int = GOOD_IMAGES) -> NDArray[np.float64]:
    """Each place has a look of its own, which good images vary a little."""
    random = np.random.default_rng(0)
    return random.normal(0, 5, SHAPE) + random.normal(0, 1, (count, *SHAPE))


@pytest.fixture(scope="module")
def filled() -> Any:
    layer = PatchMemory(ROOM, SHAPE[2])
    layer.build((None, *SHAPE))
    layer.set_weights(remember(good_images(), SHAPE[2], ROOM).arrays())
    return layer


def distances(images: NDArray[np.float64], known: NDArray[np.float64], *, own: bool = False) -> NDArray[np.float64]:
    """To the nearest known image at each place, in standard deviations of the channels: (n, rows, columns)."""
    deviation = good_images().std(axis=(0, 1, 2))
    apart = np.linalg.norm((images[:, None] - known[None]) / deviation, axis=-1)
    if own:
        apart[np.arange(len(images)), np.arange(len(images))] = np.inf
    return np.asarray(apart.min(axis=1))


def test_a_place_is_as_strange_as_its_distance_from_good_ones_there(filled: Any) -> None:
    good = good_images()
    strange = good[:2] + np.random.default_rng(1).normal(0, 3, (2, *SHAPE))
    usual = distances(good, good, own=True)
    spread = np.maximum(usual.std(axis=0), 0.5 * np.median(usual.std(axis=0)))
    expected = (distances(strange, good) - usual.mean(axis=0)) / spread
    features, found = filled(strange.astype(np.float32))
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-3, atol=1e-3)
    largest = expected.reshape(2, -1).max(axis=1)
    np.testing.assert_allclose(np.asarray(features)[:, 0], np.log1p(largest), rtol=1e-3)
    assert np.asarray(features).shape == (2, FEATURES)


def test_a_remembered_image_is_not_compared_with_itself(filled: Any) -> None:
    good = good_images()
    members = np.arange(GOOD_IMAGES, dtype=np.int32)
    _, told = filled(good.astype(np.float32), members)
    _, untold = filled(good.astype(np.float32))
    # Told which it is, good images are as strange as good images are: about the mean, 0, by about one deviation.
    assert np.asarray(told).mean() == pytest.approx(0, abs=0.01)
    assert np.asarray(told).std() == pytest.approx(1, abs=0.1)
    assert np.asarray(untold).max() < 0
    _, nobody = filled(good.astype(np.float32), np.full(GOOD_IMAGES, -1, np.int32))
    np.testing.assert_allclose(np.asarray(nobody), np.asarray(untold), atol=1e-5)


def test_an_empty_memory_finds_everything_strange() -> None:
    layer = PatchMemory(ROOM, 4)
    features, _ = layer(np.zeros((1, *SHAPE), np.float32))
    assert np.asarray(features).min() > 5


def test_fewer_dimensions_keep_what_varies_most() -> None:
    good = good_images()
    good[..., 2:] = 7.0  # channels that say nothing
    found = remember(good, 2, ROOM)
    assert found.projection.shape == (SHAPE[2], 2)
    assert np.abs(found.projection[2:]).max() < 1e-3 * np.abs(found.projection[:2]).max()


def test_a_channel_that_never_varied_does_not_drown_the_others() -> None:
    good = good_images()
    good[..., 5] = 0.0
    layer = PatchMemory(ROOM, SHAPE[2])
    layer.build((None, *SHAPE))
    layer.set_weights(remember(good, SHAPE[2], ROOM).arrays())
    odd = good[:1].copy()
    odd[..., 5] = 0.5  # half of what the other channels vary by
    _, found = layer(odd.astype(np.float32))
    assert np.asarray(found).max() < 50


def test_more_dimensions_than_channels_are_left_empty() -> None:
    assert np.all(remember(good_images(), 10, ROOM).projection[:, SHAPE[2] :] == 0)


def test_good_images_are_remembered_and_the_seed_chooses_them() -> None:
    labels, apart = np.array([0, 1, 0, 0, 1, 0], np.int32), np.arange(6)
    everyone = to_remember(labels, apart, 10, seed=0)
    assert everyone.tolist() == [0, 2, 3, 5]
    assert members_of(everyone, apart).tolist() == [0, -1, 1, 2, -1, 3]
    few = [to_remember(labels, apart, 2, seed=seed) for seed in range(5)]
    assert all(len(chosen) == 2 and np.all(labels[chosen] == 0) for chosen in few)
    assert len({tuple(chosen.tolist()) for chosen in few}) > 1


def test_of_images_that_look_alike_one_is_remembered_and_none_is_compared_with_it() -> None:
    labels = np.array([0, 0, 1, 0, 0, 1], np.int32)
    groups = np.array([7, 2, 7, 7, 3, 0])  # a burst of two good ones and a bad one
    for seed in range(5):
        remembered = to_remember(labels, groups, 10, seed)
        assert len(remembered) == 3
        members = members_of(remembered, groups)
        assert members[0] == members[2] == members[3] >= 0
        assert members[5] == -1
        assert members[remembered].tolist() == [0, 1, 2]
    assert len({tuple(to_remember(labels, groups, 10, seed).tolist()) for seed in range(9)}) == 2


def test_a_model_with_a_memory_is_saved_and_loaded_with_it(tmp_path: Path) -> None:
    training = Training(backbone="small_cnn", weights="none", memory=Memory(images=5, dimensions=8))
    built = model.build(Preprocessing(height=32, width=64), 2, training)
    trained = {variable.path.split("/")[0] for variable in built.trainable_variables}
    assert trained == {"block4_conv", "block4_norm", "logits"}  # below the memory nothing may move any more
    shape = built.get_layer(model.PATCHES_LAYER).output.shape[1:]
    remembered = remember(np.random.default_rng(0).normal(size=(5, *shape)), 8, 5)
    built.get_layer(model.MEMORY_LAYER).set_weights(remembered.arrays())
    built.save(tmp_path / "model.keras")
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 64, 1)).astype(np.uint8)
    np.testing.assert_allclose(np.asarray(load(tmp_path / "model.keras")(images)), np.asarray(built(images)), rtol=1e-5)
