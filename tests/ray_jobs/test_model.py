import pickle
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gitops.errors import TrainingError
from gitops.manifest import Preprocessing, Training
from ray_jobs import model

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
    weights = model.read_torch_weights(model.lite0_weights_file())
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
    weights = model.read_torch_weights(model.lite0_weights_file())
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


# --- torch's file format ----------------------------------------------------------------------------------------------


def test_a_tensors_strides_and_offset_are_honoured(tmp_path: Path) -> None:
    values = np.arange(10, dtype=np.float32)
    file = write_checkpoint(tmp_path / "w.pth", shape=(2, 3), strides=(1, 2), offset=4, values=values)
    weights = model.read_torch_weights(file)
    assert weights["w"].tolist() == [[4, 6, 8], [5, 7, 9]]


def test_a_tensor_that_reaches_outside_its_storage_is_refused(tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path / "w.pth", shape=(2, 3), strides=(3, 2), offset=4, values=np.zeros(10, np.float32))
    with pytest.raises(TrainingError, match="reaches outside its 10 values"):
        model.read_torch_weights(file)


def test_a_checkpoint_that_names_anything_but_tensors_runs_nothing(tmp_path: Path) -> None:
    trap, file = tmp_path / "sprung", tmp_path / "w.pth"
    payload = b"cos\nsystem\n(Vtouch " + str(trap).encode() + b"\ntR."
    file.write_bytes(header() + payload)
    with pytest.raises(TrainingError, match=r"names os\.system"):
        model.read_torch_weights(file)
    assert not trap.exists()


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    whole = write_checkpoint(tmp_path / "w.pth", shape=(10,), strides=(1,), offset=0, values=np.zeros(10, np.float32))
    data = whole.read_bytes()
    for length in (0, 5, len(header()), len(data) - 4):
        whole.write_bytes(data[:length])
        with pytest.raises(TrainingError, match=r"w\.pth is not a checkpoint"):
            model.read_torch_weights(whole)


def header() -> bytes:
    return b"".join(pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))


def write_checkpoint(
    path: Path, *, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, values: np.ndarray
) -> Path:
    """One tensor named w. Written opcode by opcode, as torch itself is not installed."""

    def integers(numbers: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"K" + bytes([number]) for number in numbers) + b"t"

    reference = b"(Vstorage\nctorch\nFloatStorage\nV7\nVcpu\n" + b"K" + bytes([len(values)]) + b"NtQ"
    arguments = b"(" + reference + b"K" + bytes([offset]) + integers(shape) + integers(strides)
    arguments += b"I00\n" + b"ccollections\nOrderedDict\n)R" + b"t"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"
    state = b"\x80\x02ccollections\nOrderedDict\n)R(Vw\n" + tensor + b"u."
    keys = pickle.dumps(["7"], protocol=2)
    path.write_bytes(header() + state + keys + struct.pack("<q", len(values)) + values.tobytes())
    return path
