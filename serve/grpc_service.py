"""The Open Inference Protocol over gRPC: what each call of the service answers, on Ray Serve's gRPC ingress.

Ray's proxy takes the call and hands its message to the method of the same name of a replica.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

import grpc
from ray.serve.grpc_util import RayServegRPCContext

from gitops.wire import COUNT_HEADER
from monitoring import metrics
from monitoring.metrics import Meters
from serve.counting import counts
from serve.endpoints import Endpoints
from serve.inference import Answer, Question
from serve.metadata import server_metadata
from serve.open_inference_pb2 import (
    InferParameter,
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from serve.predictor import INPUT
from serve.protocol import CLIENT_HEADER, RequestError, TensorMetadata
from serve.tensors import (
    LONGEST_NAME,
    MOST_PARTS,
    asked_outputs,
    elements,
    images_announced,
    limited,
    refuse_parameters,
)
from serve.trace import Trace

_CODES: Mapping[HTTPStatus, grpc.StatusCode] = {
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}
"""The other errors of requests are INVALID_ARGUMENT: sent again they would fail again."""
_CONTENTS = {"BYTES": "bytes_contents", "FP32": "fp32_contents", "BOOL": "bool_contents"}
_LONGEST_DETAILS = 1000  # characters; they travel in the trailers, of which clients take 8 KiB
T = TypeVar("T")

log = logging.getLogger("ray.serve")


class InferenceService(ABC):
    """The calls, over the endpoints that also answer HTTP; a deployment inherits it and says where those are."""

    @abstractmethod
    async def endpoints_of(self, name: str) -> Endpoints:
        """What answers for a model; whether there is such a one is for the endpoints to say.

        Raises:
            RequestError: nothing does.
        """

    @abstractmethod
    async def endpoints_to_judge(self, name: str) -> Endpoints:
        """What answers a request to judge for a model; where nothing does, the request has been measured.

        Raises:
            RequestError: nothing does.
        """

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether there is a model to ask for."""

    @property
    @abstractmethod
    def meters(self) -> Meters:
        """Where refusals are counted."""

    async def ServerLive(self, _: ServerLiveRequest) -> ServerLiveResponse:  # noqa: N802 - the calls' names are given
        """Whether the process answers."""
        return ServerLiveResponse(live=True)

    async def ServerReady(self, _: ServerReadyRequest) -> ServerReadyResponse:  # noqa: N802
        """Whether a model is served."""
        return ServerReadyResponse(ready=self.is_ready())

    async def ModelReady(  # noqa: N802
        self, request: ModelReadyRequest, grpc_context: RayServegRPCContext
    ) -> ModelReadyResponse:
        """Whether a model, in a version if one is named, is served; NOT_FOUND if nobody knows it."""

        async def answer() -> ModelReadyResponse:
            try:
                (await self.endpoints_of(request.name)).judges.served(request.name, request.version)
            except RequestError as error:
                if error.status != HTTPStatus.SERVICE_UNAVAILABLE:
                    raise
                return ModelReadyResponse(ready=False)
            return ModelReadyResponse(ready=True)

        return await self._answered(answer, ModelReadyResponse, grpc_context)

    async def ServerMetadata(self, _: ServerMetadataRequest) -> ServerMetadataResponse:  # noqa: N802
        """What this server is."""
        server = server_metadata()
        return ServerMetadataResponse(name=server.name, version=server.version, extensions=server.extensions)

    async def ModelMetadata(  # noqa: N802
        self, request: ModelMetadataRequest, grpc_context: RayServegRPCContext
    ) -> ModelMetadataResponse:
        """The inputs and outputs of a model; NOT_FOUND if nobody knows it."""

        async def answer() -> ModelMetadataResponse:
            metadata, version = (await self.endpoints_of(request.name)).metadata, request.version
            model = await (metadata.model_version(request.name, version) if version else metadata.model(request.name))
            return ModelMetadataResponse(
                name=model.name,
                versions=model.versions,
                platform=model.platform,
                inputs=[_metadata(tensor) for tensor in model.inputs],
                outputs=[_metadata(tensor) for tensor in model.outputs],
            )

        return await self._answered(answer, ModelMetadataResponse, grpc_context)

    async def ModelInfer(  # noqa: N802
        self, request: ModelInferRequest, grpc_context: RayServegRPCContext
    ) -> ModelInferResponse:
        """Judge photographs, each on its own."""
        trace = Trace()

        async def answer() -> ModelInferResponse:
            endpoints = await self.endpoints_to_judge(request.model_name)
            with endpoints.counting.measured(trace):
                metadata = dict(grpc_context.invocation_metadata())
                chosen = endpoints.judges.choose(
                    request.model_name,
                    request.model_version,
                    lambda: metadata.get(CLIENT_HEADER.lower()),
                    counts=counts(metadata.get(COUNT_HEADER.lower())),
                )
                trace.version = chosen.model.model.version
                limits = endpoints.limits
                if request.ByteSize() > limits.max_request_bytes:
                    raise RequestError(413, f"the request is larger than {limits.max_request_bytes} bytes")
                return await endpoints.judge_tensors(
                    chosen, trace, lambda: read(request, max_files=limits.max_files, max_bytes=limits.max_bytes), write
                )

        return await self._answered(answer, ModelInferResponse, grpc_context)

    async def _answered(
        self, answer: Callable[[], Awaitable[T]], empty: Callable[[], T], context: RayServegRPCContext
    ) -> T:
        """The answer; or an empty one, and the reason in the call's status."""
        # Raising would have Ray Serve write a traceback into its log for every wrong request.
        try:
            return await answer()
        except RequestError as error:
            status, reason = error.status, error.reason
            context.set_code(_CODES.get(status, grpc.StatusCode.INVALID_ARGUMENT))
        except Exception:
            log.exception("Call %s failed.", context.request_id())
            status, reason = (
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "an error of ours, not yours; the service's log tells more",
            )
            context.set_code(grpc.StatusCode.INTERNAL)
        context.set_details(reason[:_LONGEST_DETAILS])
        self.meters.count(metrics.REFUSALS, str(int(status)))
        return empty()


def _metadata(tensor: TensorMetadata) -> ModelMetadataResponse.TensorMetadata:
    return ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)


def read(request: ModelInferRequest, *, max_files: int, max_bytes: int) -> Question:
    """Read a request.

    Args:
        request: photographs as `raw_input_contents`, or as `bytes_contents` of the input.
        max_files: how many images there may be.
        max_bytes: how large one may be; larger ones become errors of their own.

    Raises:
        RequestError: 400, the request cannot be understood.
    """
    parts: tuple[Any, ...] = (*request.inputs, *request.outputs)
    if len(request.inputs) > MOST_PARTS or len(request.outputs) > MOST_PARTS:
        raise RequestError(400, f"a request has at most {MOST_PARTS} inputs, and as many outputs")
    texts = [request.id, *(part.name for part in parts), *(given.datatype for given in request.inputs)]
    if any(len(text) > LONGEST_NAME for text in texts):
        raise RequestError(400, f"an id, name or datatype has at most {LONGEST_NAME} characters")
    if any(len(given.shape) > MOST_PARTS for given in request.inputs):
        raise RequestError(400, f"a shape has at most {MOST_PARTS} dimensions")
    for part in parts:
        refuse_parameters(part.name, tuple(part.parameters))
    outputs = asked_outputs([output.name for output in request.outputs])
    names = [given.name for given in request.inputs]
    first = request.inputs[0] if names else ModelInferRequest.InferInputTensor()
    count = images_announced(names, first.datatype, first.shape, max_files)
    raw, kinds = bool(request.raw_input_contents), [kind.name for kind, _ in first.contents.ListFields()]
    if any(kind != _CONTENTS["BYTES"] for kind in kinds):
        raise RequestError(
            400, f"the input {INPUT!r} is BYTES, sent in {_CONTENTS['BYTES']}; it has {', '.join(kinds)}"
        )
    if raw:
        if len(request.raw_input_contents) != 1 or first.HasField("contents"):
            raise RequestError(400, f"the input {INPUT!r} is sent once: in `contents`, or in one of raw_input_contents")
        images = elements(request.raw_input_contents[0], count)
    else:
        images = list(first.contents.bytes_contents)
        if len(images) != count:
            raise RequestError(400, f"the input {INPUT!r} has the shape [{count}] and {len(images)} elements")
    return Question(
        id=request.id,
        images=tuple(limited(image, max_bytes) for image in images),
        outputs=outputs,
        binary=frozenset(outputs if raw else ()),
    )


def write(answer: Answer) -> ModelInferResponse:
    """The answer: outputs as `raw_output_contents` if that was the form of the request's input."""
    outputs = []
    for tensor in answer.tensors:
        contents = None
        if tensor.name not in answer.question.binary:
            contents = InferTensorContents(**{_CONTENTS[tensor.datatype]: tensor.values})
        outputs.append(
            ModelInferResponse.InferOutputTensor(
                name=tensor.name, datatype=tensor.datatype, shape=tensor.shape, contents=contents
            )
        )
    return ModelInferResponse(
        model_name=answer.model.name,
        model_version=answer.model.version,
        id=answer.question.id,
        parameters={"model_digest": InferParameter(string_param=f"sha256:{answer.model.sha256}")},
        outputs=outputs,
        raw_output_contents=[tensor.to_binary() for tensor in answer.tensors if tensor.name in answer.question.binary],
    )
