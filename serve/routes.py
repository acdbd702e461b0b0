"""The paths of a replica's application, and what OpenAPI says of them."""

from collections.abc import Mapping
from importlib.metadata import version as package_version
from typing import Any

from fastapi import FastAPI

from gitops.contracts.serving import VERSION_HEADER
from gitops.wire import COUNT_HEADER
from serve import inference
from serve.endpoints import HEATMAP, Endpoints
from serve.errors import PROTOCOL, answer_errors
from serve.inference import InferenceAnswer
from serve.preprocess import MEDIA_TYPES
from serve.protocol import CLIENT_HEADER, ErrorAnswer, ExplainedAnswer, FormAnswer, ImageAnswer, InferenceError
from serve.reference import add_reference

MODEL = f"{PROTOCOL}/models/{{name}}"
VERSION = f"{MODEL}/versions/{{version}}"
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_FILES = {"type": "object", "properties": {"files": {"type": "array", "items": _BYTES["schema"]}}}
REQUEST_BODY = {
    "required": True,
    "description": "A PNG, JPEG, BMP or TIFF file as it is, under any content type; or a form with several of them.",
    "content": {
        **dict.fromkeys(("application/octet-stream", *MEDIA_TYPES.values()), _BYTES),
        "multipart/form-data": {"schema": _FILES},
    },
}
"""What OpenAPI shall say of the bodies of `/predict`."""
_EXPLAIN = {
    "name": "explain",
    "in": "query",
    "schema": {"type": "string", "enum": [HEATMAP]},
    "description": "Answer with the photograph, coloured where the evidence is; with `Accept: application/json` inside "
    "of the JSON answer, which also says where it is strongest.",
}

_COUNT = {
    "name": COUNT_HEADER,
    "in": "header",
    "schema": {"type": "string", "enum": ["true", "false"]},
    "description": "false: the photographs have been judged before, or are none of the line; they are answered, and "
    "neither counted nor shown to a shadow or the monitor.",
}

_WHO_JUDGES = [
    {
        "name": VERSION_HEADER,
        "in": "header",
        "schema": {"type": "string", "pattern": r"^[1-9][0-9]{0,8}$"},
        "description": "The version that shall judge, of the model and the candidate beside it; without it, as below.",
    },
    {
        "name": CLIENT_HEADER,
        "in": "header",
        "schema": {"type": "string"},
        "description": "Who asks: a canary answers the same clients each time; those who do not say so, by chance.",
    },
]

_BUSY = (
    "The service is full, or the request took too long: Ray Serve says so, in plain text, with `Retry-After` if full."
)
_PLAIN = {"text/plain": {"schema": {"type": "string"}}}


def _errors(answer: Any, unavailable: Any) -> dict[int | str, dict[str, Any]]:
    """How a route's errors are answered by us, and by Ray Serve before a request comes to us."""
    return {
        "4XX": {"model": answer, "description": "The request cannot be answered; the reason says why."},
        "408": {"content": _PLAIN, "description": _BUSY},
        "503": {"model": unavailable, "content": _PLAIN, "description": f"No model is served. {_BUSY}"},
    }


PREDICT: Mapping[str, Any] = {
    "methods": ["POST"],
    "response_model": ImageAnswer | ExplainedAnswer | FormAnswer,
    "responses": {
        **_errors(ErrorAnswer | FormAnswer, ErrorAnswer),  # a form is answered file by file
        200: {"content": {"image/png": {}}, "description": "The judgement, or the heat-map."},
    },
    "openapi_extra": {"requestBody": REQUEST_BODY, "parameters": [_EXPLAIN, _COUNT, *_WHO_JUDGES]},
}
"""What OpenAPI shall say of `/predict`, as FastAPI takes it."""
METADATA: Mapping[str, Any] = {"methods": ["GET"], "responses": _errors(InferenceError, InferenceError)}
"""The same of the paths of the Open Inference Protocol that judge nothing."""


def inferring(*, version_in_path: bool) -> Mapping[str, Any]:
    """What OpenAPI shall say of the paths of the Open Inference Protocol that judge."""
    who_judges = () if version_in_path else _WHO_JUDGES
    return {
        "methods": ["POST"],
        "response_model": InferenceAnswer,
        "responses": {**_errors(InferenceError, InferenceError), 200: inference.RESPONSE},
        "openapi_extra": {
            "requestBody": inference.REQUEST_BODY,
            "parameters": [inference.LENGTH_PARAMETER, _COUNT, *who_judges],
        },
    }


def new_application(description: str) -> FastAPI:
    """An ASGI application without routes, but for its own reference."""
    # FastAPI's own pages for people load scripts from elsewhere.
    app = FastAPI(
        title="Mergeline",
        description=description,
        version=package_version("mergeline"),
        docs_url=None,
        redoc_url=None,
    )
    add_reference(app)
    return app


def application(endpoints: Endpoints) -> FastAPI:
    """The ASGI application over a replica's endpoints."""
    app, metadata = new_application("Judges photographs of parts."), endpoints.metadata
    app.add_api_route("/predict", endpoints.predict, **PREDICT)
    app.add_api_route(PROTOCOL, metadata.server, **METADATA)
    app.add_api_route(f"{PROTOCOL}/health/live", metadata.live, **METADATA)
    app.add_api_route(f"{PROTOCOL}/health/ready", metadata.ready, **METADATA)
    app.add_api_route(MODEL, metadata.model, **METADATA)
    app.add_api_route(f"{MODEL}/ready", metadata.model_ready, **METADATA)
    app.add_api_route(f"{MODEL}/infer", endpoints.infer, **inferring(version_in_path=False))
    app.add_api_route(VERSION, metadata.model_version, **METADATA)
    app.add_api_route(f"{VERSION}/ready", metadata.version_ready, **METADATA)
    app.add_api_route(f"{VERSION}/infer", endpoints.infer_version, **inferring(version_in_path=True))
    slot, ended = endpoints.slot, endpoints.counting.ended
    answer_errors(app, endpoints.meters, lambda: slot.loaded.model.version if slot.loaded else None, ended)
    return app
