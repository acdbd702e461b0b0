"""What every answer carries: the request's id, the served version, and JSON even where something of ours broke."""

import asyncio
import logging
import re
import uuid
from collections.abc import Callable, Mapping

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gitops.contracts.base import Contract
from gitops.contracts.serving import VERSION_HEADER
from monitoring.metrics import Outcome
from serve.protocol import RequestError
from serve.trace import Trace

ID_HEADER = "X-Request-Id"
_SANE_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)

log = logging.getLogger("ray.serve")


class Envelope:
    """Middleware around all routes.

    Args:
        app: the routes.
        version: the one that serves, if there is one; the one that was chosen, as the `trace` in the scope's state has
            it, goes before it.
        refuse: makes the answer to a request and an error; the request's id is `id` in the scope's state.
        ended: told of each request that has a `trace` how it ended; None: none has one.
    """

    def __init__(
        self,
        app: ASGIApp,
        version: Callable[[], str | None],
        refuse: Callable[[Scope, RequestError], Response],
        ended: Callable[[Trace, Outcome], None] | None,
    ) -> None:
        self._app = app
        self._version = version
        self._refuse = refuse
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(ID_HEADER.lower().encode(), b"").decode("latin-1")
        around = scope.get("state", {})  # an application around this one has chosen an id already
        request_id = around.get("id") or (given if _SANE_ID.fullmatch(given) else str(uuid.uuid4()))
        scope["state"] = state = {**around, "id": request_id}
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                trace: Trace | None = state.get("trace")
                if trace and self._ended:
                    self._ended(trace, Outcome.of(message["status"]))
                headers = MutableHeaders(scope=message)
                if not given:  # Ray Serve gives an id to a request without one, and repeats every id in the answer
                    headers[ID_HEADER] = request_id
                # The version that judged, even if another one has taken its place meanwhile.
                if version := (trace and trace.version) or self._version():
                    headers[VERSION_HEADER] = version
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except asyncio.CancelledError:  # Ray Serve's: its client went away, or its time is over
            if self._ended and "trace" in state and not started:
                self._ended(state["trace"], Outcome.GONE)
            raise
        except ClientDisconnect:
            if self._ended and "trace" in state and not started:
                self._ended(state["trace"], Outcome.GONE)
            log.info("The client of request %s went away before its body was complete.", request_id)
        except Exception:
            log.exception("Request %s failed.", request_id)
            if started:
                raise
            error = RequestError(500, "an error of ours, not yours; the service's log tells more under this id")
            await self._refuse(scope, error)(scope, receive, send_with_headers)


def as_json(body: Contract, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer whose body is JSON; what is None is left out."""
    return Response(body.model_dump_json(exclude_none=True), status, headers, "application/json")
