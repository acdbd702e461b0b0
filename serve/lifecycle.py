"""How a replica of ours starts, changes its models and says that it is well; what both kinds of deployment share."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NoReturn

import numpy as np
from ray import serve

from gitops.errors import MergelineError
from serve.predictor import Predictor

log = logging.getLogger("ray.serve")

FRESH_SECONDS = 2.0
"""A model that answered so lately answers still."""
ASK_AGAIN_SECONDS = 2.0
"""A replica that waits because others answer looks so often whether they still do."""
CONTROLLER_SECONDS = 5.0
"""Longest wait for Serve's controller."""
START_SECONDS = 25.0
"""How long a new replica tries to load a model before it ends. Not longer: meanwhile it hears of no other one."""
STARTS: Final = 1_000_000
"""How often Serve starts a replica that does not: its bundles' store may be back in an hour. Ray's own limit for all
deployments (ray_jobs/ingress.py) is as high."""


class AnswerCheck:
    """Asks models whether they answer, in a thread of its own; lives on one event loop.

    Not behind requests: a busy replica would be replaced by another that is as busy.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "health")
        self._asked: asyncio.Future[Any] | None = None

    async def __call__(self, predictor: Predictor) -> None:
        """Let a model judge a blank image, unless it has just judged something; whatever it raises is raised.

        A busy replica has better to do: each check would take as long as a photograph. It is not the bundle's probe,
        whose file may be gone by now.
        """
        if self._asked is None or self._asked.done():
            if time.monotonic() - predictor.answered_at < FRESH_SECONDS:
                return
            settings = predictor.manifest.preprocessing
            blank = np.zeros((1, settings.height, settings.width, settings.channels), np.uint8)
            self._asked = asyncio.get_running_loop().run_in_executor(self._thread, predictor.predict, blank)
        # One that does not come back is asked for again, and not passed over because others are answered.
        await asyncio.shield(self._asked)


class Change:
    """Changes a replica's models while its deployment answers; lives on one event loop.

    Ray Serve sends a replica no requests until its `reconfigure` has returned. Where others take requests meanwhile, it
    waits until its models are there: only a few load at a time, and a bundle that ends a process ends no others. A
    replica that is alone returns, and goes on answering.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None  # the event loop itself would forget it
        self._thread = ThreadPoolExecutor(1, "others")  # loads may have taken all the others

    async def __call__(self, change: Coroutine[Any, Any, None], *, answers: bool) -> None:
        """Begin `change`, and wait for its end as long as this replica is not the only one that `answers`."""
        self._task = task = asyncio.create_task(change)
        task.add_done_callback(_log_failure)
        while not task.done() and (not answers or await self._others_answer()):
            await asyncio.wait({task}, timeout=ASK_AGAIN_SECONDS if answers else None)

    async def _others_answer(self) -> bool:
        asked = asyncio.get_running_loop().run_in_executor(self._thread, _others_answer)
        try:
            return await asyncio.wait_for(asked, CONTROLLER_SECONDS)
        except Exception as error:  # whatever it is, this replica answers, and Serve would stop one that raises
            log.warning("Cannot ask Serve for the other replicas: %r.", error)
            return False


class Start:
    """The first call of a replica's `reconfigure`: one that could answer nothing ends.

    Serve says why, starts another one, and the application does not count as running: KubeRay would move all requests
    to a cluster of such replicas. Once it `is_over` nothing may raise any more, as Serve would stop a replica that
    answers.
    """

    def __init__(self) -> None:
        self.is_over = False
        self._reason: str | None = None

    def refuse(self, reason: str) -> NoReturn:
        """End the replica.

        Raises:
            MergelineError: with the reason.
        """
        self._reason = " ".join(reason.split())  # people see the last line of a traceback
        raise MergelineError(self._reason)

    def check(self) -> None:
        """Raise the reason again: a Serve that has just come back takes the replica for one that has started."""
        if self._reason:
            raise MergelineError(self._reason)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("A change of the models ended with an error.", exc_info=error)


def _others_answer() -> bool:
    """Whether the deployment has other replicas that take requests; one that is being told something does not."""
    context = serve.get_replica_context()
    deployments = serve.status().applications[context.app_name].deployments
    return "RUNNING" in deployments[context.deployment].replica_states
