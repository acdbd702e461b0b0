"""The threads that judge: each takes the request that has waited longest, and where many wait the next one with it."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from monitoring.metrics import RequestStage
from serve.predictor import Judgement, Predictor
from serve.preprocess import ImageError
from serve.trace import Together, Trace

MOST_TOGETHER = 2
"""Requests that a thread judges in one call. For three and more the network needs longer again (docs/serving.md)."""

T = TypeVar("T")


@dataclass(frozen=True)
class Reading(Generic[T]):
    """What is asked by a request that has been read."""

    photographs: Sequence[bytes]
    write: Callable[[list[Judgement | ImageError]], T]
    """Makes the answer of what was judged: one outcome a photograph, in their order."""


@dataclass(frozen=True)
class Inquiry(Generic[T]):
    """A request to judge, as a thread works on it."""

    predictor: Predictor
    """Who judges."""
    read: Callable[[], Reading[T]]
    max_pixels: int
    """Larger photographs are refused."""
    trace: Trace
    answer: Future[T] = field(default_factory=Future)
    """Fails with whatever reading, judging or writing raises."""

    def goes_with(self, other: "Inquiry[Any]") -> bool:
        """Whether one call can judge both."""
        return self.predictor is other.predictor and self.max_pixels == other.max_pixels


_Asked = tuple[Inquiry[Any], Reading[Any]]


class Workers(ThreadPoolExecutor):
    """Threads that judge photographs, two requests in one call where more wait than threads are free.

    None waits for another to come: who finds a free thread is judged alone. Who wants more than the judgement of one
    photograph (of many, or with the evidence) is worked on aside where a thread for it is free, so that no photograph
    waits until all of that is done.

    Args:
        threads: how many requests, or pairs of them, are worked on at once; as many more are worked on aside.
    """

    def __init__(self, threads: int) -> None:
        """Begin with nothing to do."""
        super().__init__(threads, "judge")
        self._aside = ThreadPoolExecutor(threads, "aside")
        self._guard = threading.Lock()
        self._waiting: deque[Inquiry[Any]] = deque()
        self._free, self._free_aside = threads, threads

    def judge(self, inquiry: Inquiry[T]) -> Future[T]:
        """Have a thread work on a request; the answer to come."""
        with self._guard:
            self._waiting.append(inquiry)
        Predictor.expect(1)
        self.submit(self._work)
        return inquiry.answer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads when they have done what was asked; see `concurrent.futures.Executor.shutdown`."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        self._aside.shutdown(wait, cancel_futures=cancel_futures)

    def _work(self) -> None:
        """Judge what has waited longest; nothing, if another thread took along what this one was started for."""
        with self._guard:
            self._free -= 1
            taken = self._taken()
        try:
            self._answer(taken)
        finally:
            with self._guard:
                self._free += 1

    def _taken(self) -> list[Inquiry[Any]]:
        taken: list[Inquiry[Any]] = []
        while self._waiting and len(taken) < MOST_TOGETHER:
            if taken and (len(self._waiting) <= self._free or not self._waiting[0].goes_with(taken[0])):
                break
            inquiry = self._waiting.popleft()
            Predictor.expect(-1)
            if inquiry.answer.set_running_or_notify_cancel():  # else nobody waits for it any more
                inquiry.trace.lap(RequestStage.QUEUE)
                taken.append(inquiry)
        return taken

    def _answer(self, taken: Sequence[Inquiry[Any]]) -> None:
        single: list[_Asked] = []
        others: list[_Asked] = []
        for inquiry in taken:
            try:
                reading = inquiry.read()
            except BaseException as error:  # as the executor itself hands on what its threads raise
                inquiry.answer.set_exception(error)
                continue
            if len(reading.photographs) == 1:
                single.append((inquiry, reading))
            elif not self._is_judged_aside((inquiry, reading)):
                others.append((inquiry, reading))
        for together in (single, *([one] for one in others)):
            if together:
                _judge(together)

    def _is_judged_aside(self, asked: _Asked) -> bool:
        """Have a free thread aside judge; False if there is none: what has been read must not wait there in memory."""
        with self._guard:
            if not self._free_aside:
                return False
            self._free_aside -= 1

        def work() -> None:
            try:
                _judge([asked])
            finally:
                with self._guard:
                    self._free_aside += 1

        self._aside.submit(work)
        return True


def _judge(asked: Sequence[_Asked]) -> None:
    """Judge in one call."""
    first, trace = asked[0][0], Together([inquiry.trace for inquiry, _ in asked])
    photographs = [photograph for _, reading in asked for photograph in reading.photographs]
    try:
        judged = iter(first.predictor.judge(photographs, max_pixels=first.max_pixels, trace=trace))
    except BaseException as error:
        for inquiry, _ in asked:
            inquiry.answer.set_exception(error)
        return
    for inquiry, reading in asked:
        outcomes = [next(judged) for _ in reading.photographs]
        try:
            inquiry.answer.set_result(reading.write(outcomes))
        except BaseException as error:
            inquiry.answer.set_exception(error)
