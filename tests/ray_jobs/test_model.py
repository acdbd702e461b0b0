from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gitops.contracts.project import Preprocessing, Training
from gitops.errors import TrainingError
from ray_jobs import model
from ray_jobs.torch_weights import read_torch_weights

SMALL = Training(backbone="small_cnn", weights="none")
DAISY = 985  # of ImageNet's classes


@pytest.fixture(scope="module")
def lite0() -> Any:
    return model.build(Preprocessing(height=224, width=224, channels=3), 2, Training())


def test_small_cnn_takes_bytes_and_gives_logits() -> None:
    built = model.build(Preprocessing(height=32, width=96), 3, SMALL)
    logits = built(np.zeros((2, 32, 96, 1), np.uint8))
    assert built.input.dtype == "uint8"
    assert logits.shape == (2, 3)
    assert logits.dtype == "float32"
    assert 0.1e6 < built.count_params() < 0.3e6


def test_the_seed_decides_the_initial_weights() -> None:
    first, again, other = (
        np.concatenate(
            [weights.ravel() for weights in model.build(Preprocessing(height=32, width=32), 2, t).get_weights()]
        )
        for t in (SMALL, SMALL, SMALL.model_copy(update={"seed": 1}))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_image_is_judged_by_itself() -> None:
    """No statistics of the batch: else workers that share a batch would each train another model."""
    built = model.build(Preprocessing(height=32, width=64), 2, SMALL)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 64, 1)).astype(np.uint8)
    together = np.asarray(built(images, training=True))
    alone = np.concatenate([np.asarray(built(image[None], training=True)) for image in images])
    assert together == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize(("strides", "features"), [((32,), 2 * 320), ((16, 32), 2 * (112 + 320)), ((8,), 2 * 40)])
def test_the_head_pools_the_features_it_is_told_to(strides: tuple[Any, ...], features: int) -> None:
    training = Training(weights="none", feature_strides=strides)
    built = model.build(Preprocessing(height=64, width=64), 2, training)
    assert built.get_layer(model.POOLED_LAYER).output.shape[-1] == features
    assert built.get_layer(model.LOGITS_LAYER).output.shape[-1] == 2


def test_the_imagenet_weights_know_a_daisy(lite0: Any) -> None:
    """The photograph comes with scikit-learn; the class is told by the checkpoint's own last layer."""
    import keras
    import sklearn

    photograph = cv2.imread(str(Path(sklearn.__file__).parent / "datasets" / "images" / "flower.jpg"))
    assert photograph is not None
    square = cv2.cvtColor(photograph[:, 107:534], cv2.COLOR_BGR2RGB)
    image = cv2.resize(square, (224, 224), interpolation=cv2.INTER_AREA)
    weights = read_torch_weights(model.lite0_weights_file())
    features = np.asarray(keras.Model(lite0.input, lite0.get_layer("average_32").input)(image[None]))
    kernel, bias = model.folded(weights, "_conv_head", "_bn1")  # the widening that the backbone leaves out
    top = np.clip(features @ kernel[:, :, 0, 0].T + bias, 0, 6)
    classes = top.mean((1, 2)) @ weights["_fc.weight"].T + weights["_fc.bias"]
    assert int(classes.argmax()) == DAISY


def test_gray_is_shown_to_the_backbone_as_rgb(lite0: Any) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 1)).astype(np.uint8)
    gray = model.build(Preprocessing(height=224, width=224, channels=1), 2, Training())
    assert np.asarray(gray(image)) == pytest.approx(np.asarray(lite0(image.repeat(3, axis=-1))), abs=1e-5)


def test_weights_that_do_not_fit_are_refused(lite0: Any) -> None:
    weights = read_torch_weights(model.lite0_weights_file())
    with pytest.raises(TrainingError, match="layer stem"):
        model.load_lite0(lite0, {**weights, "_conv_stem.weight": weights["_conv_stem.weight"][:, :2]})
    with pytest.raises(TrainingError, match=r"block3_expand.*_blocks\.3\._bn0"):
        model.load_lite0(lite0, {name: value for name, value in weights.items() if name != "_blocks.3._bn0.bias"})


@pytest.mark.parametrize(("height", "width"), [(224, 352), (160, 250)])
@pytest.mark.parametrize("stride", [8, 16])
def test_the_evidence_lies_where_the_network_looks(height: int, width: int, stride: Any) -> None:
    """A small spot moves most what the features see whose cells are centred next to it."""
    import keras

    training = Training(feature_strides=(stride,))
    built = model.build(Preprocessing(height=height, width=width), 2, training)
    features = keras.Model(built.input, model.pooled_features(built, training)[0])
    grid = model.grid_of(built, training)
    assert grid.stride == stride
    plain = np.full((1, height, width, 1), 128, np.uint8)
    before = np.asarray(features(plain))[0]
    distances = []
    for y, x in ((height // 2, width // 2), (height // 3, width // 3), (2 * height // 3, 3 * width // 4)):
        spot = plain.copy()
        spot[0, y - 1 : y + 2, x - 1 : x + 2] = 255
        change = np.abs(np.asarray(features(spot))[0] - before).sum(axis=2)
        rows, columns = np.mgrid[: change.shape[0], : change.shape[1]]
        middle_y = grid.stride * (rows * change).sum() / change.sum() + grid.offset_y
        middle_x = grid.stride * (columns * change).sum() / change.sum() + grid.offset_x
        distances.append((middle_y - y, middle_x - x))
    assert np.abs(np.mean(distances, axis=0)).max() < stride / 4
