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


class Workers(ThreadPoolExecutor):
    """Threads that judge, two requests in one call where more wait than threads are free.

    None waits for another to come: who finds a free thread is judged alone.

    Args:
        threads: how many requests, or pairs of them, are worked on at once.
    """

    def __init__(self, threads: int) -> None:
        """Begin with nothing to do."""
        super().__init__(threads, "judge")
        self._guard = threading.Lock()
        self._waiting: deque[Inquiry[Any]] = deque()
        self._free = threads

    def judge(self, inquiry: Inquiry[T]) -> Future[T]:
        """Have a thread work on a request; the answer to come."""
        with self._guard:
            self._waiting.append(inquiry)
        Predictor.expect(1)
        self.submit(self._work)
        return inquiry.answer

    def _work(self) -> None:
        """Judge what has waited longest; nothing, if another thread took along what this one was started for."""
        with self._guard:
            self._free -= 1
            taken = self._taken()
        try:
            _answer(taken)
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


def _answer(taken: Sequence[Inquiry[Any]]) -> None:
    asked: list[tuple[Inquiry[Any], Reading[Any]]] = []
    for inquiry in taken:
        try:
            asked.append((inquiry, inquiry.read()))
        except BaseException as error:  # as the executor itself hands on what its threads raise
            inquiry.answer.set_exception(error)
    # Who sends many photographs waits for them alone.
    if all(len(reading.photographs) == 1 for _, reading in asked):
        _judge(asked)
    else:
        for one in asked:
            _judge([one])


def _judge(asked: Sequence[tuple[Inquiry[Any], Reading[Any]]]) -> None:
    """Judge in one call."""
    if not asked:
        return
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
