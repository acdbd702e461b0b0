"""The application behind a real HTTP server in this process, without Ray: what the page's tests look at."""

import asyncio
import functools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import uvicorn

from gitops.bundle import fetch
from gitops.contracts.serving import ServedModel, Trial
from gitops.status import Deployed, Journal
from monitoring.metrics import Meters, Metric
from serve.assembly import assemble
from serve.endpoints import Endpoints, Limits
from serve.feedback import FeedbackFolder
from serve.predictor import Predictor
from serve.shadow import ShadowJudge
from serve.slot import ModelSlot
from serve.workers import Workers

LIMITS = Limits(max_bytes=20_000_000, max_request_bytes=40_000_000, max_pixels=20_000_000, max_files=4)
APPLICATION = "screw"


class NoMeters:
    """Measures nothing."""

    def count(self, metric: Metric, *labels: str) -> None: ...

    def observe(self, metric: Metric, value: float, *labels: str) -> None: ...

    def set(self, metric: Metric, value: float, *labels: str) -> None: ...


def shadow(meters: Meters) -> ShadowJudge:
    """What judges for a shadow."""
    return ShadowJudge(meters, threads=2, max_pixels=LIMITS.max_pixels)


@functools.cache
def open_bundle(model: ServedModel) -> Predictor:
    """Real, and loaded once for all tests here: how bundles come and go is tested with the slot."""
    predictor = Predictor.load(fetch(model.uri, model.sha256, Path("unused")), threads=2)
    predictor.probe()
    return predictor


def deployed(number: int, model: ServedModel | None, trial: Trial | None = None) -> Deployed:
    """A line of a journal: what was deployed on that day of a month."""
    at = datetime(2026, 5, number, tzinfo=UTC)
    return Deployed(
        id=number,
        revision=str(number) * 40,
        deploy_started_at=at,
        deployed_at=at,
        committed_at=at,
        author="Ada <ada@example.com>",
        subject=f"Commit {number}",
        applications=(APPLICATION,),
        models={APPLICATION: model},
        trials={APPLICATION: trial} if trial else {},
    )


@contextmanager
def site(
    model: ServedModel | None,
    folder: Path,
    *,
    trial: Trial | None = None,
    feedback: FeedbackFolder | None = None,
    journal: Journal | None = None,
    windows: Path | None = None,
) -> Iterator[str]:
    """Serve a model; yields the URL.

    Args:
        model: what is served; None: nothing.
        folder: for what the slot remembers.
        trial: what is tried beside it.
        feedback: where feedback goes; None: it is off.
        journal: what the reconciler wrote.
        windows: what the monitor has kept; None: there is none.
    """
    workers = Workers(2)
    slot = ModelSlot(open_bundle, folder / "memory.json", lambda succeeded: None)
    endpoints = Endpoints(slot, LIMITS, workers, NoMeters(), "a-replica", shadow(NoMeters()))
    app = assemble(endpoints, APPLICATION, journal=journal, feedback=feedback, windows=windows)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", ws="none"))

    async def run() -> None:
        await slot.want(model, trial)
        assert slot.load_error is None
        await server.serve()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
        workers.close()
