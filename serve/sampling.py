"""Hands answered photographs over to the monitor: now and then, and never in a request's way."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from gitops.contracts.serving import ServedModel
from monitoring import metrics
from monitoring.metrics import Meters, SampleOutcome

MOST_WAITING = 4
"""Photographs that may be on their way to the monitor, in memory; further ones are dropped."""
TIMEOUT_SECONDS = 30.0
"""After which a photograph is given up."""

log = logging.getLogger("ray.serve")


class Sampler:
    """Takes one of the photographs that are answered, and then none for a while; lives on one event loop.

    Args:
        hand_over: sends a photograph with the model that judged it; answers whether it was kept.
        meters: where it is counted what becomes of them.
        seconds: between two photographs, so that a monitor costs as much however busy the line is.
    """

    def __init__(
        self,
        hand_over: Callable[[ServedModel, bytes], Awaitable[bool]],
        meters: Meters,
        *,
        seconds: float,
    ) -> None:
        self._hand_over = hand_over
        self._meters = meters
        self._seconds = seconds
        self._next = 0.0
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()  # the event loop itself would forget them

    def offer(self, model: ServedModel, photographs: Sequence[bytes]) -> None:
        """Take one of the photographs that a model judged, if it is time; it is sent when the event loop is free."""
        now = time.monotonic()
        if not photographs or now < self._next:
            return
        self._next = now + self._seconds
        if self._waiting >= MOST_WAITING:
            self._count(SampleOutcome.DROPPED)
            return
        self._waiting += 1
        task = asyncio.get_running_loop().create_task(self._send(model, random.choice(photographs)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, model: ServedModel, photograph: bytes) -> None:
        kept = False
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                kept = await self._hand_over(model, photograph)
        except Exception as error:  # the monitor is dead or full: nobody waits for it and nobody may notice
            log.debug("The monitor did not take a photograph: %r", error)
        finally:
            self._waiting -= 1
        self._count(SampleOutcome.KEPT if kept else SampleOutcome.DROPPED)

    def _count(self, outcome: SampleOutcome) -> None:
        self._meters.count(metrics.DRIFT_SAMPLES, outcome)
