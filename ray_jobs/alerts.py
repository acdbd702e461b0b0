"""Takes alerts from Alertmanager over HTTP: those whose rule says so ask for a retraining."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from gitops.errors import MergelineError
from gitops.state import State
from ray_jobs import retrain

PATH = "/alerts"
RETRAIN_LABEL = "retrain"
"""A rule's label; where it is `true`, the alert asks for a retraining."""
_MOST_BYTES, _SECONDS = 1_000_000, 30


class AlertsError(MergelineError):
    """Alerts cannot be taken."""


class Alert(BaseModel):
    """An alert of a notification."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] = Field(default={})

    def asks_for(self, application: str) -> bool:
        """Whether it asks for a retraining of what an application serves."""
        return self.labels.get(RETRAIN_LABEL) == "true" and self.labels.get("application") == application

    @property
    def reason(self) -> str:
        """Why, in a few words."""
        version = self.labels.get("model_version")
        said = f"alert {self.labels.get('alertname', 'without a name')}"
        said += f" on version {version}" if version else ""
        return f"{said}: {self.annotations['summary']}" if self.annotations.get("summary") else said


class Notification(BaseModel):
    """What Alertmanager sends to a webhook (its version 4); what else it says is not looked at."""

    alerts: tuple[Alert, ...]


def take(state: State, project: str, application: str, notification: Notification) -> None:
    """Ask for a retraining of the project where an alert fires; ask no more where the very alert has resolved."""
    for alert in notification.alerts:
        if not alert.asks_for(application):
            continue
        if alert.status == "firing":
            retrain.request(state, project, alert.reason)
        else:
            retrain.withdraw(state, project, alert.reason)


@contextmanager
def listening(state: State, project: str, application: str, port: int) -> Iterator[str]:
    """Take notifications on loopback while the block runs.

    Args:
        state: where requests are kept.
        project: which is retrained.
        application: whose alerts count.
        port: 0: any that is free.

    Yields:
        The URL for Alertmanager.

    Raises:
        AlertsError: the port cannot be had.
    """

    class Handler(BaseHTTPRequestHandler):
        """Answers one request."""

        timeout = _SECONDS

        def do_POST(self) -> None:
            """Take a notification."""
            try:
                notification = self._notification()
            except (ValueError, ValidationError) as error:
                self._say(HTTPStatus.BAD_REQUEST, f"this is no notification of Alertmanager's: {error}")
                return
            try:
                take(state, project, application, notification)
            except (MergelineError, OSError) as error:  # Alertmanager sends it again
                self._say(HTTPStatus.INTERNAL_SERVER_ERROR, f"the request cannot be kept: {error}")
                return
            self._say(HTTPStatus.OK, "taken")

        def _notification(self) -> Notification:
            if self.path != PATH:
                raise ValueError(f"it belongs to {PATH}, not {self.path}")
            # A page in somebody's browser can send a form here, and no JSON without being asked for leave first.
            if self.headers.get_content_type() != "application/json":
                raise ValueError(f"it is {self.headers.get_content_type()}, and must be application/json")
            length = int(self.headers.get("Content-Length", 0))
            if not 0 <= length <= _MOST_BYTES:
                raise ValueError(f"it has {length} bytes; up to {_MOST_BYTES} are taken")
            return Notification.model_validate_json(self.rfile.read(length))

        def _say(self, status: HTTPStatus, text: str) -> None:
            body = json.dumps({"message": text}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Keep quiet."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise AlertsError(
            f"alerts cannot be taken at port {port}: {error.strerror}; choose another with --port"
        ) from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{PATH}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
