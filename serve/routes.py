"""The paths of a replica's application, and what OpenAPI says of them."""

from importlib.metadata import version as package_version
from typing import Any

from fastapi import FastAPI

from gitops.manifest import VERSION_HEADER
from gitops.wire import COUNT_HEADER
from serve import inference
from serve.endpoints import HEATMAP, Endpoints
from serve.errors import PROTOCOL, answer_errors
from serve.inference import InferenceAnswer
from serve.preprocess import MEDIA_TYPES
from serve.protocol import CLIENT_HEADER, ErrorAnswer, ExplainedAnswer, FormAnswer, ImageAnswer, InferenceError
from serve.reference import add_reference

_BYTES = {"schema": {"type": "string", "format": "binary"}}
_FILES = {"type": "object", "properties": {"files": {"type": "array", "items": _BYTES["schema"]}}}
REQUEST_BODY = {
    "required": True,
    "description": "A PNG, JPEG, BMP or TIFF file as it is, under any content type; or a form with several of them.",
    "content": {
        **dict.fromkeys(("application/octet-stream", *MEDIA_TYPES), _BYTES),
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
    app = new_application("Judges photographs of parts.")
    errors: dict[int | str, dict[str, Any]] = {
        "4XX": {"model": ErrorAnswer, "description": "The request cannot be answered; the reason says why."},
        "503": {"model": ErrorAnswer, "description": "No model is served, or the service is full."},
    }
    app.add_api_route(
        "/predict",
        endpoints.predict,
        methods=["POST"],
        response_model=ImageAnswer | ExplainedAnswer | FormAnswer,
        responses={
            **errors,
            "4XX": {**errors["4XX"], "model": ErrorAnswer | FormAnswer},  # a form is answered file by file
            200: {"content": {"image/png": {}}, "description": "The judgement, or the heat-map."},
        },
        openapi_extra={"requestBody": REQUEST_BODY, "parameters": [_EXPLAIN, _COUNT, *_WHO_JUDGES]},
    )
    inference_errors = {status: {**answer, "model": InferenceError} for status, answer in errors.items()}
    metadata = endpoints.metadata
    for path, endpoint in (
        (PROTOCOL, metadata.server),
        (f"{PROTOCOL}/health/live", metadata.live),
        (f"{PROTOCOL}/health/ready", metadata.ready),
        (f"{PROTOCOL}/models/{{name}}", metadata.model),
        (f"{PROTOCOL}/models/{{name}}/ready", metadata.model_ready),
        (f"{PROTOCOL}/models/{{name}}/versions/{{version}}", metadata.model_version),
        (f"{PROTOCOL}/models/{{name}}/versions/{{version}}/ready", metadata.version_ready),
    ):
        app.add_api_route(path, endpoint, methods=["GET"], responses=inference_errors)
    for path, infer in (
        (f"{PROTOCOL}/models/{{name}}/infer", endpoints.infer),
        (f"{PROTOCOL}/models/{{name}}/versions/{{version}}/infer", endpoints.infer_version),
    ):
        app.add_api_route(
            path,
            infer,
            methods=["POST"],
            response_model=InferenceAnswer,
            responses={**inference_errors, 200: inference.RESPONSE},
            openapi_extra={
                "requestBody": inference.REQUEST_BODY,
                "parameters": [inference.LENGTH_PARAMETER, _COUNT, *(_WHO_JUDGES if infer == endpoints.infer else ())],
            },
        )

    slot, ended = endpoints.slot, endpoints.counting.ended
    answer_errors(app, endpoints.meters, lambda: slot.loaded.model.version if slot.loaded else None, ended)
    return app
