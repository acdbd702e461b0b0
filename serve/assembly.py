"""Puts a replica's application together: the service's paths, the page, what is served, feedback."""

from collections.abc import Mapping
from pathlib import Path

from fastapi import FastAPI

from gitops.status import Journal
from serve.drifted import Windows, add_windows
from serve.endpoints import Endpoints
from serve.feedback import FeedbackFolder, add_feedback
from serve.figures import ServiceFigures, add_figures
from serve.pages import add_page
from serve.routes import application
from serve.served import Served, add_served


def assemble(
    endpoints: Endpoints,
    name: str,
    *,
    journal: Journal | None,
    feedback: FeedbackFolder | None,
    prometheus: str | None = None,
    labels: Mapping[str, str] | None = None,
    windows: Path | None = None,
) -> FastAPI:
    """The whole ASGI application of a replica.

    Args:
        endpoints: what answers at the service's paths.
        name: the application's in the environment.
        journal: what the reconciler wrote; None: unknown here.
        feedback: where feedback goes; None: it is off.
        prometheus: URL of the one that has this service's metrics; None: the journal's, if there is one.
        labels: of the series of these metrics; None: the application's name is all that tells them apart.
        windows: folder of this application's windows; None: there is no monitor.
    """
    app = application(endpoints)
    add_page(app)
    add_served(app, Served(endpoints, name, journal, feedback=feedback is not None))
    counting = endpoints.counting
    known_by = labels or {"application": name}
    add_figures(app, ServiceFigures(known_by, counting.recent, counting.compared, journal, prometheus))
    add_windows(app, Windows(windows))
    add_feedback(app, endpoints, feedback)
    return app
