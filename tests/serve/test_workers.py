"""The workers: who is judged together and who is not, whose failure is whose, and what nobody waits for any more."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, cast

import pytest

from gitops.contracts.serving import ServedModel
from monitoring.metrics import RequestStage
from serve.predictor import Judgement, Predictor
from serve.preprocess import ImageError
from serve.trace import Together, Trace
from serve.workers import Inquiry, Reading, Workers
from tests.serve.conftest import encoded
from tests.serve.site import open_bundle

HOLD = b"hold"
"""A photograph whose judgement takes until the test lets go."""
SLOW = b"slow"
"""One that takes 0.02 s."""


class Model:
    """Judges a photograph by writing its name back, and notes what it is asked in one call."""

    def __init__(self) -> None:
        self.calls: list[list[bytes]] = []
        self.held, self.go = threading.Event(), threading.Event()

    def judge(self, images: Sequence[bytes], *, max_pixels: int, trace: Together) -> list[Judgement | ImageError]:
        self.calls.append(list(images))
        if HOLD in images:
            self.held.set()
            self.go.wait(10)
        time.sleep(0.02 * list(images).count(SLOW))
        trace.lap(RequestStage.DECODE)
        if b"broken" in images:
            raise ZeroDivisionError
        return [ImageError(400, image.decode()) for image in images]

    @contextmanager
    def busy(self, workers: Workers) -> Iterator[None]:
        """The one thread holds a request while the block asks, and goes on at its end."""
        holding = workers.judge(inquiry(self, HOLD))
        assert self.held.wait(10)
        yield
        self.go.set()
        holding.result(10)


def inquiry(model: Model, *images: bytes, trace: Trace | None = None, max_pixels: int = 9) -> Inquiry[list[str]]:
    """A request with these photographs; its answer is their names."""
    return Inquiry(
        cast("Predictor", model),
        lambda: Reading(images, lambda got: [str(one) for one in got]),
        max_pixels,
        trace or Trace(),
    )


def failing(model: Model, step: str) -> Inquiry[Any]:
    """A request that cannot be read, or whose answer cannot be written."""

    def fail(*_: object) -> Any:
        raise ValueError(step)

    return Inquiry(cast("Predictor", model), fail if step == "read" else lambda: Reading([b"x"], fail), 9, Trace())


@pytest.fixture
def workers() -> Iterator[Workers]:
    with closing(Workers(1)) as one:
        yield one


def ask(workers: Workers, *inquiries: Inquiry[Any]) -> list[Future[Any]]:
    return [workers.judge(one) for one in inquiries]


def test_what_waits_is_judged_in_pairs_and_each_gets_its_own(workers: Workers) -> None:
    model = Model()
    with model.busy(workers):
        answers = ask(workers, *(inquiry(model, name) for name in (b"1", b"2", b"3", b"4", b"5")))
    assert [answer.result(10) for answer in answers] == [["1"], ["2"], ["3"], ["4"], ["5"]]
    assert model.calls == [[HOLD], [b"1", b"2"], [b"3", b"4"], [b"5"]]


def test_nobody_shares_a_thread_while_another_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    model, started = Model(), list[Callable[[], None]]()
    with closing(Workers(2)) as workers:
        monkeypatch.setattr(
            workers._judging, "submit", started.append
        )  # threads that look only when the test has them look
        ask(workers, inquiry(model, b"1"), inquiry(model, b"2"))
        started.pop(0)()
        assert model.calls == [[b"1"]], "the second is for the other thread"
        ask(workers, inquiry(model, b"3"), inquiry(model, b"4"))
        for work in started:
            work()
    assert model.calls == [[b"1"], [b"2", b"3"], [b"4"]]


@pytest.mark.parametrize(
    "other", [lambda model: inquiry(Model(), b"2"), lambda model: inquiry(model, b"2", max_pixels=8)]
)
def test_only_what_one_call_can_judge_goes_together(
    workers: Workers, other: Callable[[Model], Inquiry[list[str]]]
) -> None:
    model = Model()
    with model.busy(workers):
        answers = ask(workers, inquiry(model, b"1"), other(model), inquiry(model, b"3"))
    assert [answer.result(10) for answer in answers] == [["1"], ["2"], ["3"]]
    assert [b"1"] in model.calls
    assert [b"3"] in model.calls


def test_no_photograph_waits_for_many(workers: Workers) -> None:
    model = Model()
    many = workers.judge(inquiry(model, HOLD, b"2"))
    assert model.held.wait(10)
    assert workers.judge(inquiry(model, b"3")).result(10) == ["3"], "the many are judged aside"
    # There is one thread for them: more of them keep the others waiting.
    more, single = ask(workers, inquiry(model, b"4", b"5"), inquiry(model, b"6"))
    assert (more.result(10), single.result(10)) == (["4", "5"], ["6"])
    assert not many.done()
    model.go.set()
    assert many.result(10) == ["hold", "2"]
    assert workers.judge(inquiry(model)).result(10) == [], "none is no error"


def test_no_photograph_waits_for_a_large_one(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.workers.is_large", lambda photograph: photograph == HOLD)
    model = Model()
    large = workers.judge(inquiry(model, HOLD))
    assert model.held.wait(10)
    assert workers.judge(inquiry(model, b"1")).result(10) == ["1"]
    assert not large.done()
    model.go.set()
    assert large.result(10) == ["hold"]


def test_a_pair_of_one_and_many(workers: Workers) -> None:
    model = Model()
    with model.busy(workers):
        answers = ask(workers, inquiry(model, b"1", b"2"), inquiry(model, b"3"), inquiry(model), inquiry(model, b"4"))
    assert [answer.result(10) for answer in answers] == [["1", "2"], ["3"], [], ["4"]]
    assert sorted(model.calls) == sorted([[HOLD], [b"1", b"2"], [b"3"], [], [b"4"]])


@pytest.mark.parametrize("step", ["read", "write"])
def test_what_one_request_raises_is_not_the_others_affair(workers: Workers, step: str) -> None:
    model = Model()
    with model.busy(workers):
        first, second, third = ask(workers, inquiry(model, b"1"), failing(model, step), inquiry(model, b"3"))
    with pytest.raises(ValueError, match=step):
        second.result(10)
    assert (first.result(10), third.result(10)) == (["1"], ["3"])


def test_what_the_model_raises_of_one_is_not_the_others_affair(workers: Workers) -> None:
    model = Model()
    with model.busy(workers):
        first, second, third = ask(workers, inquiry(model, b"1"), inquiry(model, b"broken"), inquiry(model, b"3"))
    with pytest.raises(ZeroDivisionError):
        second.result(10)
    assert (first.result(10), third.result(10)) == (["1"], ["3"])
    assert model.calls == [[HOLD], [b"1", b"broken"], [b"1"], [b"broken"], [b"3"]]


def test_what_nobody_waits_for_is_not_judged(workers: Workers) -> None:
    model = Model()
    with model.busy(workers):
        answers = ask(workers, inquiry(model, b"1"), inquiry(model, b"2"), inquiry(model, b"3"))
        assert answers[1].cancel()
    assert (answers[0].result(10), answers[2].result(10)) == (["1"], ["3"])
    assert model.calls == [[HOLD], [b"1", b"3"]]


def test_both_of_a_pair_spend_the_time_of_both(workers: Workers) -> None:
    model, traces = Model(), (Trace(), Trace())
    with model.busy(workers):
        answers = ask(workers, *(inquiry(model, SLOW, trace=trace) for trace in traces))
        time.sleep(0.02)
    for answer in answers:
        answer.result(10)
    for trace in traces:
        assert trace.seconds[RequestStage.QUEUE] >= 0.02
        assert trace.seconds[RequestStage.DECODE] >= 0.04


def test_a_call_is_not_alone_while_another_waits(workers: Workers) -> None:
    model = Model()
    with model.busy(workers):
        answers = ask(workers, inquiry(model, b"1"), inquiry(model, b"2"))
        assert Predictor._expected == 2
        answers[0].cancel()
    answers[1].result(10)
    assert Predictor._expected == 0


def test_of_hundreds_at_once_each_gets_its_own() -> None:
    model, workers = Model(), Workers(2)

    def client(number: int) -> None:
        name = f"{number}".encode()
        if number % 5 == 0:
            (answer,) = ask(workers, failing(model, "read"))
            with pytest.raises(ValueError, match="read"):
                answer.result(10)
        elif number % 5 == 1:
            other, answer = ask(workers, inquiry(model, b"broken"), inquiry(model, name))
            assert answer.result(10) == [name.decode()]
            with pytest.raises(ZeroDivisionError):
                other.result(10)
        elif number % 5 == 2:
            other, answer = ask(workers, inquiry(model, b"nobody's"), inquiry(model, name, b"beside"))
            assert other.cancel() or other.result(10) == ["nobody's"]
            assert answer.result(10) == [name.decode(), "beside"]
        else:
            (answer,) = ask(workers, inquiry(model, name))
            assert answer.result(10) == [name.decode()]

    with closing(workers), ThreadPoolExecutor(8) as clients:
        assert len(list(clients.map(client, range(500)))) == 500
    assert Predictor._expected == 0


def test_what_no_thread_takes_does_not_wait_for_one() -> None:
    workers = Workers(1)
    workers.close()
    with pytest.raises(RuntimeError, match="after shutdown"):
        workers.judge(inquiry(Model(), b"1"))
    assert Predictor._expected == 0, "or no call would be alone again"


def test_what_no_thread_takes_aside_is_judged_all_the_same(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    start, model = threading.Thread.start, Model()

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("aside"):
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert workers.judge(inquiry(model, b"1", b"2")).result(10) == ["1", "2"]
    holding = workers.judge(inquiry(model, HOLD, b"aside"))
    assert model.held.wait(10)
    assert workers.judge(inquiry(model, b"3")).result(10) == ["3"], "the next one is judged aside"
    model.go.set()
    assert holding.result(10) == ["hold", "aside"]
    assert model.calls == [[b"1", b"2"], [HOLD, b"aside"], [b"3"]], "none is judged twice"


def test_a_pair_gets_what_a_model_says_of_each(model: ServedModel) -> None:
    predictor, answers = open_bundle(model), []
    with closing(Workers(1)) as workers, Model().busy(workers):
        for image in (encoded(), b"no image", encoded(), encoded(".jpg")):
            read = partial(Reading[list[Judgement | ImageError]], [image], list)
            answers.append(workers.judge(Inquiry(predictor, read, 10**6, Trace())))
    first, broken, second, third = (answer.result(10)[0] for answer in answers)
    (alone,) = predictor.judge([encoded()])
    assert first == second == alone
    assert isinstance(broken, ImageError)
    assert isinstance(third, Judgement)
