"""Inference requests of the Open Inference Protocol over HTTP: JSON, with tensors in it or as bytes behind it."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict, Field, JsonValue, StrictInt
from pydantic_core import from_json

from gitops.contracts.base import Contract, Name, Version
from gitops.contracts.serving import ServedModel
from gitops.errors import ContractError
from serve.predictor import INPUT, Judgement, Predictor
from serve.preprocess import ImageError
from serve.protocol import RequestError
from serve.tensors import (
    EVIDENCE_POINT,
    HEATMAP,
    LONGEST_NAME,
    MOST_PARTS,
    Tensor,
    Verdict,
    asked_outputs,
    elements,
    images_announced,
    limited,
    refuse_parameters,
)
from serve.trace import Trace

LENGTH_HEADER = "Inference-Header-Content-Length"
"""How many bytes of the body are JSON; what follows are tensors."""
# Of `,`, `[` and `{` in the JSON. Base64 has none of them, and a tree of empty lists takes 50 times its text.
_MOST_STRUCTURE = 10_000

Parameters = dict[str, JsonValue] | None


@dataclass(frozen=True)
class Question:
    """What a request wants to know, however it came."""

    id: str
    """The client's; empty: none."""
    images: tuple[bytes | ImageError, ...]
    """Image files; an error where one is not to be looked at."""
    outputs: tuple[str, ...]
    binary: frozenset[str]
    """Outputs that the client wants as bytes."""


@dataclass(frozen=True)
class Answer:
    """What a request is answered."""

    question: Question
    model: ServedModel
    """The model that judged."""
    tensors: tuple[Tensor, ...]


def to_judge(question: Question) -> list[bytes]:
    """The photographs that only need a judgement: none where an output shows the evidence, which comes with its own.

    Raises:
        RequestError: 400, the evidence is asked for of several images: each one's overlay may take hundreds of
            megabytes, and all would be held until the last is drawn.
    """
    if not _shows_evidence(question):
        return [image for image in question.images if isinstance(image, bytes)]
    if len(question.images) > 1:
        raise RequestError(
            400,
            f"ask for {HEATMAP} and {EVIDENCE_POINT} of one image at a time; the request has "
            f"{len(question.images)} images",
        )
    return []


def verdicts(
    predictor: Predictor,
    question: Question,
    judged: Sequence[Judgement | ImageError],
    max_pixels: int,
    trace: Trace,
) -> list[Verdict | ImageError]:
    """What is answered of each image of a request, in their order; the evidence is looked for if an output shows it.

    Args:
        predictor: who judges.
        question: the request.
        judged: what became of the photographs that `to_judge` returned.
        max_pixels: larger photographs are refused.
        trace: is told what took how long.
    """
    if _shows_evidence(question):
        (image,) = question.images
        return [image if isinstance(image, ImageError) else _explained(predictor, image, max_pixels, trace)]
    rest = iter(judged)
    outcomes = [image if isinstance(image, ImageError) else next(rest) for image in question.images]
    return [outcome if isinstance(outcome, ImageError) else Verdict(outcome) for outcome in outcomes]


def _shows_evidence(question: Question) -> bool:
    return bool({HEATMAP, EVIDENCE_POINT} & set(question.outputs))


def _explained(predictor: Predictor, image: bytes, max_pixels: int, trace: Trace) -> Verdict | ImageError:
    try:
        return Verdict(*predictor.explain(image, max_pixels=max_pixels, trace=trace))
    except ImageError as error:
        return error


# --- the bodies -------------------------------------------------------------------------------------------------------


class Foreign(Contract):
    """A part of a request that other people's clients write: keys that we do not know do no harm."""

    model_config = ConfigDict(extra="ignore")


class RequestInput(Foreign):
    """An input: `data` holds its elements, or `parameters.binary_data_size` says how many bytes of the body do."""

    name: str = Field(max_length=LONGEST_NAME, examples=[INPUT])
    datatype: str = Field(max_length=LONGEST_NAME, examples=["BYTES"])
    shape: tuple[StrictInt, ...] = Field(max_length=MOST_PARTS, description="[n]: n images.", examples=[[1]])
    parameters: Parameters = None
    data: list[JsonValue] | None = Field(default=None, description="Image files in base64.", examples=[["iVBORw0K…"]])


class RequestOutput(Foreign):
    """An output that the client wants; `parameters.binary_data`: as bytes behind the JSON."""

    name: str = Field(max_length=LONGEST_NAME, examples=["score"])
    parameters: Parameters = None


class InferenceRequest(Foreign):
    """The JSON of a request."""

    id: str | None = Field(default=None, max_length=LONGEST_NAME, description="Comes back in the answer.")
    parameters: Parameters = Field(default=None, description="`binary_data_output`: all outputs as bytes.")
    inputs: tuple[RequestInput, ...] = Field(max_length=MOST_PARTS)
    outputs: tuple[RequestOutput, ...] | None = Field(
        default=None,
        max_length=MOST_PARTS,
        description=f"None: all but {HEATMAP} and {EVIDENCE_POINT}, which take time of their own.",
    )


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """A JSON schema without references: OpenAPI keeps definitions elsewhere than JSON schema does."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
        return {key: _inlined(value, definitions) for key, value in schema.items() if key != "$defs"}
    return [_inlined(value, definitions) for value in schema] if isinstance(schema, list) else schema


class AnswerOutput(Contract):
    """An output: its elements, or how many bytes behind the JSON hold them."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, int] | None = None
    data: tuple[bool | float | str, ...] | None = Field(default=None, description=f"{HEATMAP}: PNG files in base64.")


class InferenceAnswer(Contract):
    """The JSON of an answer."""

    model_name: Name
    model_version: Version
    id: str = Field(description="The request's; the X-Request-Id if it has none.")
    parameters: dict[str, str] = Field(description="`model_digest`: of the bundle that judged.")
    outputs: tuple[AnswerOutput, ...]


_SCHEMA = InferenceRequest.model_json_schema()
_BINARY = {"schema": {"type": "string", "format": "binary"}}
REQUEST_BODY = {
    "required": True,
    "description": f"JSON; with {LENGTH_HEADER}, JSON of that many bytes and the binary tensor behind it.",
    "content": {
        "application/json": {"schema": _inlined(_SCHEMA, _SCHEMA["$defs"])},
        "application/octet-stream": _BINARY,
    },
}
LENGTH_PARAMETER = {
    "name": LENGTH_HEADER,
    "in": "header",
    "schema": {"type": "integer", "minimum": 0},
    "description": "How many bytes of the body are JSON; without it, all.",
}
RESPONSE: dict[str, Any] = {
    "description": f"The outputs; those in binary form stand behind JSON of {LENGTH_HEADER} bytes.",
    "content": {"application/octet-stream": _BINARY},
}
"""What OpenAPI shall say of the bodies."""


def read(body: bytes, json_length: str | None, *, max_files: int, max_bytes: int) -> Question:
    """Read a request's body.

    Args:
        body: JSON, and tensors behind it.
        json_length: the header that says how many bytes are JSON; None: all.
        max_files: how many images there may be.
        max_bytes: how large one may be; larger ones become errors of their own.

    Raises:
        RequestError: 400, the request cannot be understood.
    """
    text, binary = _parted(body, json_length)
    if (structure := sum(text.count(sign) for sign in (b",", b"[", b"{"))) > _MOST_STRUCTURE:
        raise RequestError(
            400, f"the request's JSON has {structure} commas and opening brackets; at most {_MOST_STRUCTURE} are read"
        )
    try:
        request = InferenceRequest.parse(from_json(text, allow_inf_nan=False), "the request")
    except ValueError as error:
        raise RequestError(400, f"the request is not JSON: {error}") from None
    except ContractError as error:
        raise RequestError(400, str(error)) from None
    wanted = request.outputs or ()
    parts: tuple[RequestInput | RequestOutput, ...] = (*request.inputs, *wanted)
    for part in parts:
        refuse_parameters(part.name, tuple(part.parameters or ()))
    outputs = asked_outputs([output.name for output in wanted])
    by_default = _flag("the request", request.parameters, "binary_data_output", default=False)
    as_bytes = {output.name: _flag(output.name, output.parameters, "binary_data", by_default) for output in wanted}
    return Question(
        id=request.id or "",
        images=_images(request.inputs, binary, max_files, max_bytes),
        outputs=outputs,
        binary=frozenset(name for name in outputs if as_bytes.get(name, by_default)),
    )


def _parted(body: bytes, json_length: str | None) -> tuple[bytes, bytes | None]:
    if json_length is None:
        return body, None
    # No body has more digits than this; without a bound the number itself could take a second to read.
    if not (json_length.isascii() and json_length.isdecimal() and len(json_length) < 20):
        raise RequestError(400, f"{LENGTH_HEADER} is no number of bytes")
    length = int(json_length)
    if length > len(body):
        raise RequestError(400, f"{LENGTH_HEADER} is {length}, and the body has {len(body)} bytes")
    return body[:length], body[length:]


def _flag(of: str, parameters: Parameters, name: str, default: bool) -> bool:
    value = (parameters or {}).get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise RequestError(400, f"{name} of {of} is true or false")
    return value


def _images(
    inputs: Sequence[RequestInput], binary: bytes | None, max_files: int, max_bytes: int
) -> tuple[bytes | ImageError, ...]:
    first = inputs[0] if inputs else RequestInput(name="", datatype="", shape=())
    count = images_announced([given.name for given in inputs], first.datatype, first.shape, max_files)
    size = (first.parameters or {}).get("binary_data_size")
    if first.data is not None:
        if size is not None or binary:
            raise RequestError(
                400, f"the input {INPUT!r} has `data`, and the body more bytes besides: send one of them"
            )
        if len(first.data) != count:
            raise RequestError(400, f"the input {INPUT!r} has the shape [{count}] and {len(first.data)} elements")
        return tuple(_from_base64(element, max_bytes) for element in first.data)
    if size is None:
        raise RequestError(400, f"the input {INPUT!r} needs `data`, or the parameter `binary_data_size`")
    if binary is None:
        raise RequestError(400, f"binary_data_size needs the header {LENGTH_HEADER}, which says where the JSON ends")
    if isinstance(size, bool) or size != len(binary):
        raise RequestError(400, f"binary_data_size is not {len(binary)}, the number of bytes that follow the JSON")
    return tuple(limited(image, max_bytes) for image in elements(binary, count))


def _from_base64(element: JsonValue, max_bytes: int) -> bytes | ImageError:
    if not isinstance(element, str):
        raise RequestError(400, f"an element of the input {INPUT!r} is no text: in JSON, images are sent in base64")
    try:
        return limited(base64.b64decode(element, validate=True), max_bytes)
    except (binascii.Error, ValueError):
        return ImageError(400, "this is not base64: in JSON, images are sent in base64 (or as binary data behind it)")


def write(answer: Answer, request_id: str) -> tuple[bytes, int | None]:
    """The body of an answer.

    Args:
        answer: what to say.
        request_id: its id, if the client gave none.

    Returns:
        The body, and how many bytes of it are JSON; None: all.
    """
    behind = {tensor.name: tensor.to_binary() for tensor in answer.tensors if tensor.name in answer.question.binary}
    text = InferenceAnswer(
        model_name=answer.model.name,
        model_version=answer.model.version,
        id=answer.question.id or request_id,
        parameters={"model_digest": f"sha256:{answer.model.sha256}"},
        outputs=tuple(_output(tensor, behind.get(tensor.name)) for tensor in answer.tensors),
    ).model_dump_json(exclude_none=True)
    encoded = text.encode()
    return b"".join([encoded, *behind.values()]), len(encoded) if behind else None


def _output(tensor: Tensor, behind: bytes | None) -> AnswerOutput:
    head: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
    if behind is None:
        return AnswerOutput(**head, data=_json_values(tensor))
    return AnswerOutput(**head, parameters={"binary_data_size": len(behind)})


def _json_values(tensor: Tensor) -> tuple[Any, ...]:
    if tensor.name == HEATMAP:
        return tuple(base64.b64encode(value).decode() for value in tensor.values)
    if tensor.datatype == "BYTES":
        return tuple(value.decode() for value in tensor.values)
    return tensor.values
