"""What goes over the wire: the bodies of requests' answers, and the error that carries its HTTP status."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Literal

from pydantic import Field

from gitops.contracts.base import Contract, Name, Share, Version
from gitops.wire import ReplicaMetadata

CLIENT_HEADER = "X-Client-Id"
"""By which a client may say who it is, so that a canary does not change its mind about it."""


class RequestError(Exception):
    """A request that cannot be answered; one handler makes every one of them an `ErrorAnswer`."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        """Keep what the answer needs: its status, the reason in words, further headers."""
        super().__init__(reason)
        self.status = HTTPStatus(status)
        self.reason = reason
        self.headers = dict(headers or {})


class ErrorDetail(Contract):
    """Why something was refused."""

    status: int = Field(description="The HTTP status that says so.", examples=[413])
    reason: str = Field(description="What was found and what to do, in words.")


class ErrorAnswer(Contract):
    """The body of every answer that is an error, but for the inference protocol's."""

    error: ErrorDetail
    id: str = Field(description="The request's id.")


class InferenceError(Contract):
    """The same at the Open Inference Protocol's paths: its clients show `error` as it is."""

    error: str = Field(description="What was found and what to do, in words.")
    id: str = Field(description="The request's id.")


class JudgedImage(Contract):
    """What the model says of one photograph."""

    label: str = Field(description="One of the model's classes.", examples=["defective"])
    score: Share = Field(description="Probability that the part is not good.")
    threshold: Share = Field(description="Smallest score that is not good.")
    probabilities: dict[str, Share] = Field(description="Probability of each class.")
    part_found: bool = Field(description="Whether a part was found and straightened.")


class NamedFile(Contract):
    """Which file of a form is meant."""

    filename: str = Field(description="The name that the form gives it.")


class JudgedFile(JudgedImage, NamedFile):
    """What the model says of one file of a form."""


class RefusedFile(NamedFile):
    """A file of a form that could not be judged."""

    error: ErrorDetail


class Answered(Contract):
    """What each answer with judgements says of itself."""

    id: str = Field(description="The request's id: the client's X-Request-Id, else a new one.")
    model_name: Name
    model_version: Version
    model_digest: str = Field(description="The bundle's digest.", pattern=r"^sha256:[0-9a-f]{64}$")


class ImageAnswer(JudgedImage, Answered):
    """The answer to one photograph, sent as it is."""


class Point(Contract):
    """A place in a photograph."""

    x: float = Field(description="Pixels from the left.")
    y: float = Field(description="Pixels from the top.")


class Explanation(Contract):
    """Why a photograph was judged as it was."""

    point: Point = Field(description="Where the strongest evidence is, in the photograph.")
    strength: float = Field(description="Its value, in the model's unit: standard deviations of good parts, mostly.")
    heatmap: str = Field(description="The photograph with the evidence over it: a PNG file, base64.")


class ExplainedAnswer(ImageAnswer):
    """The answer to one photograph with `?explain=heatmap` and `Accept: application/json`."""

    explanation: Explanation


class FormAnswer(Answered):
    """The answer to a form with files."""

    predictions: tuple[JudgedFile | RefusedFile, ...] = Field(description="One entry a file, in their order.")
    error: ErrorDetail | None = Field(default=None, description="Of the first file, where none could be judged.")


class Liveness(Contract):
    """The process answers."""

    live: Literal[True] = True


class Readiness(Contract):
    """A model is served."""

    ready: Literal[True] = True
    name: Name
    version: Version


class FleetReadiness(Contract):
    """There are models to ask for, each below its own path."""

    ready: Literal[True] = True


class ServerMetadata(Contract):
    """What the server is, in the Open Inference Protocol's words."""

    name: str
    version: str
    extensions: tuple[str, ...] = ()


class TensorMetadata(Contract):
    """An input or output of the model."""

    name: str
    datatype: Literal["BYTES", "FP32", "BOOL"]
    shape: tuple[int, ...] = Field(description="−1 is the number of images.")


class ProtocolMetadata(Contract):
    """A model, in the Open Inference Protocol's words."""

    name: Name
    versions: tuple[Version, ...] = Field(description="Those that can be asked: the model's, and the candidate's.")
    platform: Literal["openvino"] = "openvino"
    inputs: tuple[TensorMetadata, ...] = ()
    outputs: tuple[TensorMetadata, ...] = ()


class ModelMetadata(ReplicaMetadata, ProtocolMetadata):
    """What one replica serves under a name, and what it should: the reconciler compares the two."""

    classes: tuple[str, ...] = Field(default=(), description="The first is the good one.")
    threshold: Share | None = Field(default=None, description="Smallest score that is not good.")
