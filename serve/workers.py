"""The threads that judge: each takes the request that has waited longest, and where many wait the next one with it."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from monitoring.metrics import RequestStage
from serve.predictor import BATCH, Judgement, Predictor
from serve.preprocess import ImageError, is_large
from serve.trace import Together, Trace

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


class Workers:
    """Threads that judge photographs, two requests in one call where more wait than threads are free.

    None waits for another to come: who finds a free thread is judged alone. Who wants more than the judgement of one
    photograph (of many, or with the evidence), or of a large one, is worked on aside where the thread for that is free,
    so that no photograph waits until all of it is done.

    Args:
        threads: how many requests, or pairs of them, are worked on at once; one more is worked on aside.
    """

    def __init__(self, threads: int) -> None:
        """Begin with nothing to do."""
        self._judging = ThreadPoolExecutor(threads, "judge")
        self._aside = ThreadPoolExecutor(1, "aside")
        self._guard = threading.Lock()
        self._waiting: deque[Inquiry[Any]] = deque()
        self._free = threads
        self._beside: _Asked | None = None

    def judge(self, inquiry: Inquiry[T]) -> Future[T]:
        """Have a thread work on a request; the answer to come."""
        with self._guard:
            self._judging.submit(self._work)  # first: where there is no thread to be had, nothing waits for one
            self._waiting.append(inquiry)
            Predictor.expect(1)
        return inquiry.answer

    def close(self) -> None:
        """End the threads when what was asked is answered."""
        self._judging.shutdown()
        self._aside.shutdown()

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
        while self._waiting and len(taken) < BATCH:
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
            except BaseException as error:  # as an executor hands on what its threads raise
                inquiry.answer.set_exception(error)
                continue
            asked = inquiry, reading
            if len(reading.photographs) == 1 and not is_large(reading.photographs[0]):
                single.append(asked)
            elif not self._is_judged_aside(asked):
                others.append(asked)
        if single:
            _judge(single)
        for asked in others:
            if not self._is_judged_aside(asked):  # it may have become free
                _judge([asked])

    def _is_judged_aside(self, asked: _Asked) -> bool:
        """Have the thread aside judge; False if it is busy: what has been read must not wait there in memory."""
        with self._guard:
            if self._beside:
                return False
            try:
                self._aside.submit(self._work_aside)
            except RuntimeError:  # there is no thread to be had
                return False
            self._beside = asked
        return True

    def _work_aside(self) -> None:
        with self._guard:
            asked = self._beside
        if not asked:  # this was started for one that has been judged since, as there was no thread
            return
        try:
            _judge([asked])
        finally:
            with self._guard:
                self._beside = None


def _judge(asked: Sequence[_Asked]) -> None:
    """Judge in one call."""
    first, trace = asked[0][0], Together([inquiry.trace for inquiry, _ in asked])
    photographs = [photograph for _, reading in asked for photograph in reading.photographs]
    trace.lap(RequestStage.QUEUE)  # until the other was read, or judged
    try:
        judged = iter(first.predictor.judge(photographs, max_pixels=first.max_pixels, trace=trace))
    except BaseException as error:
        if len(asked) > 1:  # whose fault it is, each finds out by itself
            for one in asked:
                _judge([one])
        else:
            first.answer.set_exception(error)
        return
    for inquiry, reading in asked:
        outcomes = [next(judged) for _ in reading.photographs]
        try:
            inquiry.answer.set_result(reading.write(outcomes))
        except BaseException as error:
            inquiry.answer.set_exception(error)
