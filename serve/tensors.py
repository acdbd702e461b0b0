"""The model as the Open Inference Protocol shows it: photographs go in and judgements come out, as named tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from serve.heatmap import Evidence
from serve.predictor import INPUT, OUTPUT, Judgement
from serve.preprocess import ImageError
from serve.protocol import RequestError, TensorMetadata

HEATMAP, EVIDENCE_POINT = "heatmap", "evidence_point"
"""The outputs that take time of their own, and are made only for who names them."""
MISSING = -1.0
"""Stands for every number of a photograph that could not be judged; no score, probability or place is negative."""
LONGEST_NAME, MOST_PARTS = 256, 64
"""Of a request. What is wrong is repeated in the answer, and a body has room for millions of wrong things."""
_LENGTH = 4  # bytes that state the length of an element, in the binary form of a BYTES tensor

Datatype = Literal["BYTES", "FP32", "BOOL"]


@dataclass(frozen=True)
class Verdict:
    """What is known of a photograph that could be judged."""

    judgement: Judgement
    evidence: Evidence | None = None
    """Only where an output was asked for that shows it."""


@dataclass(frozen=True)
class Tensor:
    """Named values."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    values: tuple[Any, ...]
    """All elements in row-major order: bytes, float or bool, as the datatype says."""

    def to_binary(self) -> bytes:
        """The elements as the binary tensor extension has them: little-endian, texts each behind their length."""
        if self.datatype == "BYTES":
            return b"".join(len(value).to_bytes(_LENGTH, "little") + value for value in self.values)
        return np.asarray(self.values, "<f4" if self.datatype == "FP32" else np.bool_).tobytes()


@dataclass(frozen=True)
class _Output:
    datatype: Datatype
    values: Callable[[Verdict], Sequence[Any]]
    """Of one photograph."""
    missing: Any
    """Stands for each value of a photograph that could not be judged."""
    columns: Callable[[Sequence[str]], int] | None = None
    """From the model's classes to the number of values; None: one, and no second dimension."""


def _evidence(verdict: Verdict) -> Evidence:
    if verdict.evidence is None:
        raise ValueError("an output shows the evidence, and nobody looked for it")
    return verdict.evidence


_OUTPUTS = {
    "label": _Output("BYTES", lambda verdict: [verdict.judgement.label.encode()], b""),
    "score": _Output("FP32", lambda verdict: [verdict.judgement.score], MISSING),
    OUTPUT: _Output("FP32", lambda verdict: tuple(verdict.judgement.probabilities.values()), MISSING, len),
    "part_found": _Output("BOOL", lambda verdict: [verdict.judgement.part_found], False),
    "error": _Output("BYTES", lambda _: [b""], None),
    HEATMAP: _Output("BYTES", lambda verdict: [_evidence(verdict).overlay], b""),
    EVIDENCE_POINT: _Output("FP32", lambda verdict: _evidence(verdict).point, MISSING, lambda _: 2),
}
DEFAULT_OUTPUTS = tuple(name for name in _OUTPUTS if name not in (HEATMAP, EVIDENCE_POINT))
"""What a request gets that names no output."""


def inputs() -> tuple[TensorMetadata, ...]:
    """What the model takes: image files."""
    return (TensorMetadata(name=INPUT, datatype="BYTES", shape=(-1,)),)


def outputs(classes: Sequence[str]) -> tuple[TensorMetadata, ...]:
    """All that the model can answer with."""
    return tuple(
        TensorMetadata(name=name, datatype=output.datatype, shape=(-1, *_columns(output, classes)))
        for name, output in _OUTPUTS.items()
    )


def tensors(
    outcomes: Sequence[Verdict | ImageError], classes: Sequence[str], names: Sequence[str]
) -> tuple[Tensor, ...]:
    """Judgements as tensors, one row a photograph.

    Args:
        outcomes: of each photograph.
        classes: the model's.
        names: which outputs, in which order.
    """
    return tuple(_tensor(name, outcomes, classes) for name in names)


def _tensor(name: str, outcomes: Sequence[Verdict | ImageError], classes: Sequence[str]) -> Tensor:
    output = _OUTPUTS[name]
    columns = _columns(output, classes)
    values: list[Any] = []
    for outcome in outcomes:
        if isinstance(outcome, Verdict):
            values += output.values(outcome)
        elif name == "error":
            values.append(f"{outcome.status}: {outcome}".encode())
        else:
            values += [output.missing] * (columns[0] if columns else 1)
    return Tensor(name, output.datatype, (len(outcomes), *columns), tuple(values))


def _columns(output: _Output, classes: Sequence[str]) -> tuple[int, ...]:
    return (output.columns(classes),) if output.columns else ()


# --- what a client may ask --------------------------------------------------------------------------------------------


def asked_outputs(names: Sequence[str]) -> tuple[str, ...]:
    """The outputs that a request wants.

    Raises:
        RequestError: 400, one is unknown or named twice.
    """
    for name in names:
        if name not in _OUTPUTS:
            raise RequestError(400, f"there is no output {name!r}; known: {', '.join(_OUTPUTS)}")
        if names.count(name) > 1:
            raise RequestError(400, f"the output {name!r} is asked for twice")
    return tuple(names) or DEFAULT_OUTPUTS


def images_announced(names: Sequence[str], datatype: str, shape: Sequence[int], max_files: int) -> int:
    """How many photographs a request says that it brings.

    Args:
        names: of all its inputs.
        datatype: of the first.
        shape: of the first.
        max_files: how many there may be.

    Raises:
        RequestError: 400, its inputs are not what the model takes.
    """
    if list(names) != [INPUT]:
        raise RequestError(400, f"the model takes one input, {INPUT!r}; the request has {', '.join(names) or 'none'}")
    if datatype != "BYTES":
        raise RequestError(400, f"the input {INPUT!r} is BYTES, an image file each; the request says {datatype}")
    if len(shape) != 1 or shape[0] < 1:
        raise RequestError(400, f"the input {INPUT!r} has the shape [n], n ≥ 1; the request says {list(shape)}")
    if shape[0] > max_files:
        raise RequestError(400, f"at most {max_files} images are judged at once; the request has {shape[0]}")
    return shape[0]


def refuse_parameters(of: str, parameters: Sequence[str]) -> None:
    """Refuse what would change the answer's meaning and is not done here; other parameters do no harm.

    Raises:
        RequestError: 400.
    """
    for name in parameters:
        if name.startswith("shared_memory_") or name == "classification":
            raise RequestError(400, f"{of}: the extensions for shared memory and classification are not served")


def limited(image: bytes, max_bytes: int) -> bytes | ImageError:
    """The image, or why it is not looked at."""
    return image if len(image) <= max_bytes else ImageError(413, f"the image is larger than {max_bytes} bytes")


def elements(data: bytes, count: int) -> list[bytes]:
    """The elements of a BYTES tensor from their binary form.

    Raises:
        RequestError: 400, it does not hold `count` elements, whole and nothing else.
    """
    found: list[bytes] = []
    start = 0
    while start < len(data) and len(found) <= count:
        begin = start + _LENGTH
        end = begin + int.from_bytes(data[start:begin], "little")
        if end > len(data):
            raise RequestError(
                400, f"element {len(found)} of the input {INPUT!r} is cut off: send its length and all of it"
            )
        found.append(data[begin:end])
        start = end
    if len(found) != count:
        more = "more" if len(found) > count else str(len(found))
        raise RequestError(400, f"the input {INPUT!r} has the shape [{count}] and holds {more} elements")
    return found
