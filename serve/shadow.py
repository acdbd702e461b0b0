"""Lets a shadow judge what has been answered: off the requests' way, and only where there is time for it."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from monitoring import metrics
from monitoring.metrics import Meters
from serve.predictor import Judgement
from serve.recent import RecentComparisons
from serve.slot import Loaded

MOST_WAITING = 4
"""Photographs that may wait for the shadow, in memory; further ones are dropped."""

T = TypeVar("T")

log = logging.getLogger("ray.serve")


class ShadowJudge:
    """One thread that judges what requests have left; lives on one event loop.

    Args:
        meters: where its judgements are counted.
        threads: requests that are judged at once. While there are so many, the shadow would take their CPUs, and drops.
        max_pixels: larger photographs are refused.
    """

    def __init__(self, meters: Meters, *, threads: int, max_pixels: int) -> None:
        self._meters = meters
        self._threads = threads
        self._max_pixels = max_pixels
        self.recent = RecentComparisons()
        """What became of the latest photographs."""
        self.requests = 0
        """That are judged now, or wait for it."""
        self._counting = threading.Lock()
        self._waiting = 0
        self._pool = ThreadPoolExecutor(1, "shadow")
        self._tasks: set[asyncio.Task[None]] = set()  # the event loop itself would forget them

    def make_way(self, work: Future[T]) -> None:
        """Until a request's work is done; one that nobody waits for any more still has its thread."""
        with self._counting:
            self.requests += 1
        work.add_done_callback(self._done)

    def _done(self, _: Future[T]) -> None:
        # In the thread that did the work: before the event loop hears of it, and may ask whether there is time.
        with self._counting:
            self.requests -= 1

    def compare(self, shadow: Loaded, answered: Sequence[tuple[bytes, Judgement]]) -> None:
        """Judge photographs as soon as the event loop is free, which is when their answer is on its way.

        Args:
            shadow: who judges.
            answered: the photographs' files, each with its judgement.
        """
        for image, judgement in answered:
            if self.requests >= self._threads or self._waiting >= MOST_WAITING:
                self._count(shadow, metrics.ShadowOutcome.DROPPED)
                continue
            self._waiting += 1
            task = asyncio.get_running_loop().create_task(self._compare(shadow, image, judgement))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _compare(self, shadow: Loaded, image: bytes, answered: Judgement) -> None:
        try:
            (judged,) = await asyncio.get_running_loop().run_in_executor(
                self._pool, lambda: shadow.predictor.judge([image], max_pixels=self._max_pixels)
            )
        except Exception:  # whatever it is, nobody waits for it and nobody may notice
            log.exception("Shadow %s version %s failed.", shadow.model.name, shadow.model.version)
            self._count(shadow, metrics.ShadowOutcome.FAILED)
            return
        finally:
            self._waiting -= 1
        if not isinstance(judged, Judgement):  # it was fit for the model that answered
            self._count(shadow, metrics.ShadowOutcome.FAILED)
            return
        self._meters.count(metrics.SHADOW_JUDGEMENTS, shadow.model.version, judged.label)
        agreed = judged.label == answered.label
        self._count(shadow, metrics.ShadowOutcome.AGREED if agreed else metrics.ShadowOutcome.DIFFERED)

    def _count(self, shadow: Loaded, outcome: metrics.ShadowOutcome) -> None:
        self.recent.add(shadow.model.version, outcome)
        self._meters.count(metrics.SHADOW_PHOTOGRAPHS, shadow.model.version, outcome)
