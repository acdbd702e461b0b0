"""Keras → SavedModel → engine file, so that the files' bytes depend on the checkpoint and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gitops.contracts.model import Calibration
from gitops.contracts.project import Training
from gitops.errors import TrainingError
from ray_jobs.model import LOGITS_LAYER, MEMORY_LAYER, POOLED_LAYER, finest, pooled_features
from serve.predictor import EMBEDDING, EVIDENCE, GOOD, INPUT, OUTPUT
from serve.preprocess import Pixels

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from serve.engine import openvino

_BATCH = 16
_EMBEDDING_DIMENSIONS = 32
# Of the projection: every bundle has the same, so that nothing needs to be fitted.
_EMBEDDING_SEED = 0


def load(checkpoint: Path) -> "keras.Model":
    """Load a `model.keras`.

    Raises:
        TrainingError: it is missing or damaged.
    """
    import keras

    import ray_jobs.memory  # noqa: F401 - makes its layer known to Keras

    try:
        return keras.saving.load_model(checkpoint, compile=False)
    except (OSError, ValueError) as error:
        raise TrainingError(f"the checkpoint {checkpoint} cannot be loaded: {error}. Train again") from error


def logits_of(model: "keras.Model", images: Pixels) -> NDArray[np.float64]:
    """What a model says of images, (n, classes)."""
    return np.concatenate([np.asarray(model(batch, training=False)) for batch in _batches(images)]).astype(np.float64)


def to_saved_model(
    model: "keras.Model", training: Training, calibration: Calibration, saved_model: Path, images: Pixels
) -> NDArray[np.float32]:
    """Write a model as a SavedModel that ends in probabilities, and ask Keras what it should answer.

    The variables are frozen into the graph: a SavedModel with its Keras objects holds random identifiers and counters
    of the process, so that no two are alike.

    Args:
        model: from uint8 (n, height, width, channels) to logits (n, classes); its head is calibrated in place.
        training: how it was built.
        calibration: goes into the head's weights.
        saved_model: the folder to write; its signature `serving_default` is uint8 "image" → float32 "probabilities"
            (n, classes), "evidence" (n, rows, columns) and "embedding" (n, dimensions).
        images: uint8, (n, height, width, channels).

    Returns:
        Keras's probabilities, float32, (n, classes).
    """
    import keras
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    head = model.get_layer(LOGITS_LAYER)
    kernel, bias = (weights * calibration.scale for weights in head.get_weights())
    bias[GOOD] += calibration.shift
    head.set_weights([kernel, bias])
    sources, evidence = _evidence(model, training)
    # A name of its own: Keras would count its models, and the number would get into the graph.
    pooled = model.get_layer(POOLED_LAYER).output
    whole = keras.Model(model.input, [model.output, pooled, *sources], name="whole")
    projection = tf.constant(embedding_projection(pooled.shape[-1]))

    def answer(image: Any) -> tuple[Any, Any, Any]:
        logits, features, *found = whole(image, training=False)
        return tf.nn.softmax(logits), evidence(found), tf.tensordot(features, projection, 1)

    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8, name=INPUT)]
    function = tf.function(answer, input_signature=signature)
    _write_graph(convert_variables_to_constants_v2(function.get_concrete_function()), saved_model)
    return np.concatenate([function(tf.constant(batch))[0].numpy() for batch in _batches(images)])


def embedding_projection(features: int) -> NDArray[np.float32]:
    """What makes an embedding of pooled features: signs drawn once, which keep distances about as they are.

    Achlioptas (2003, "Database-friendly random projections"). It is the features' as the backbone makes them, and not
    the memory's: that has seen the good training images, to which new ones must be compared.

    Returns:
        (features, dimensions).
    """
    signs = np.random.default_rng(_EMBEDDING_SEED).integers(0, 2, (features, _EMBEDDING_DIMENSIONS)) * 2 - 1
    return np.asarray(signs / np.sqrt(features), np.float32)


def _evidence(model: "keras.Model", training: Training) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """Where a model sees that a part is not good, (n, rows, columns): what its memory finds strange.

    Without a memory it is the class activation map (Zhou et al., 2016, "Learning Deep Features for Discriminative
    Localization") of all that is not good against good, over the features that the head pools.

    Returns:
        The outputs of layers that it is made of, and what makes it of their values.
    """
    import tensorflow as tf

    if training.memory:
        return [model.get_layer(MEMORY_LAYER).output[1]], lambda found: found[0]
    kernel, _ = model.get_layer(LOGITS_LAYER).get_weights()
    direction = kernel[:, GOOD + 1 :].mean(axis=1, keepdims=True) - kernel[:, GOOD, None]
    sources = pooled_features(model, training)
    size = tuple(finest(sources).shape[1:3])
    parts = np.split(direction, np.cumsum([source.shape[-1] for source in sources])[:-1])

    def activation(found: list[Any]) -> Any:
        # Not `values @ part`: see ray_jobs.memory.
        maps = [tf.image.resize(tf.tensordot(*pair, 1), size) for pair in zip(found, parts, strict=True)]
        return tf.squeeze(tf.add_n(maps), axis=-1)

    return sources, activation


def _batches(images: Pixels) -> list[Pixels]:
    return [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]


def _write_graph(frozen: "tf.types.experimental.ConcreteFunction", saved_model: Path) -> None:
    """Write a function without variables as a SavedModel: a graph and its signature, without objects around it."""
    import tensorflow as tf
    from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef, TensorInfo
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    def info(tensor: "tf.Tensor") -> TensorInfo:
        return TensorInfo(name=tensor.name, dtype=tensor.dtype.as_datatype_enum, tensor_shape=tensor.shape.as_proto())

    signature = SignatureDef(
        inputs={INPUT: info(frozen.inputs[0])},
        outputs={
            OUTPUT: info(frozen.outputs[0]),
            EVIDENCE: info(frozen.outputs[1]),
            EMBEDDING: info(frozen.outputs[2]),
        },
        method_name=tf.saved_model.PREDICT_METHOD_NAME,
    )
    saved = SavedModel(saved_model_schema_version=1)
    graph = saved.meta_graphs.add()
    graph.meta_info_def.tags.append(tf.saved_model.SERVING)
    graph.meta_info_def.tensorflow_version = tf.__version__
    graph.graph_def.CopyFrom(frozen.graph.as_graph_def())
    graph.signature_def[tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY].CopyFrom(signature)
    saved_model.mkdir()
    (saved_model / "saved_model.pb").write_bytes(saved.SerializeToString(deterministic=True))


def to_engine(saved_model: Path, file: Path) -> None:
    """Convert a SavedModel to OpenVINO's format; `file` is the `.xml`."""
    from serve.engine import openvino

    write_engine(openvino.convert_model(saved_model), file)


def write_engine(model: "openvino.Model", file: Path) -> None:
    """Write an OpenVINO model so that the same model always gives the same bytes.

    Args:
        model: its operations are renamed.
        file: the `.xml`; the weights (float32) go beside it as `.bin`.
    """
    from serve.engine import openvino

    for number, node in enumerate(model.get_ordered_ops()):
        # Names carry counters of the process that converted the model.
        node.set_friendly_name(f"{node.get_type_name()}_{number}")
    # A new model around the same operations: the old one says where on this machine it was converted from.
    plain = openvino.Model(model.get_results(), model.get_parameters(), "model")
    openvino.save_model(plain, file, compress_to_fp16=False)
