"""Answers every error in our form, or in that of the Open Inference Protocol below its paths."""

from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import Scope

from monitoring import metrics
from monitoring.metrics import Meters, Outcome
from serve.envelope import Envelope, as_json
from serve.protocol import ErrorAnswer, ErrorDetail, InferenceError, RequestError
from serve.trace import Trace

PROTOCOL = "/v2"
"""Where the Open Inference Protocol's paths begin."""


def answer_errors(
    app: FastAPI,
    meters: Meters,
    version: Callable[[], str | None],
    ended: Callable[[Trace, Outcome], None] | None = None,
) -> None:
    """Let an application answer every error in our form, and bear the headers of every answer.

    Args:
        app: what `serve.routes.new_application` made.
        meters: where refusals are counted.
        version: the one that serves, for answers without a judgement; None: none.
        ended: told of each request to judge how it ended; None: there are none.
    """

    def refuse(scope: Scope, error: RequestError) -> Response:
        meters.count(metrics.REFUSALS, str(int(error.status)))
        request_id = scope["state"]["id"]
        if f"{scope['path'].removeprefix(scope.get('root_path', ''))}/".startswith(f"{PROTOCOL}/"):
            return as_json(InferenceError(error=error.reason, id=request_id), error.status, error.headers)
        detail = ErrorDetail(status=error.status, reason=error.reason)
        return as_json(ErrorAnswer(error=detail, id=request_id), error.status, error.headers)

    @app.exception_handler(RequestError)
    async def refuse_ours(request: Request, error: RequestError) -> Response:
        return refuse(request.scope, error)

    @app.exception_handler(HTTPException)
    async def refuse_theirs(request: Request, error: HTTPException) -> Response:
        return refuse(request.scope, _in_our_words(request, error))

    app.add_middleware(Envelope, version=version, refuse=refuse, ended=ended)


def _in_our_words(request: Request, error: HTTPException) -> RequestError:
    """An error of the framework in our words, where its own say little."""
    reasons = {
        404: f"there is nothing at {request.url.path}: POST /predict takes photographs, GET /docs lists the rest",
        405: f"{request.method} is not possible at {request.url.path}: see GET /docs",
    }
    return RequestError(error.status_code, reasons.get(error.status_code, error.detail), error.headers)
