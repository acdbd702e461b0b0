"""Replicas follow the load: 1 to 64 clients and back, more than the service takes, and none at all.

make bench
"""

import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.services import Answered, Mergeline, await_no_replica, load_for
from benchmarks.test_request_path import photograph
from gitops.state import State

STEPS = ((1, 10), (8, 20), (64, 40), (8, 20), (1, 40))
"""Clients, and for how many seconds."""
WINDOW_SECONDS = 2
REFUSED = {429, 503}
_DOWNSCALE_SECONDS = 15  # the packaged minute would only lengthen the picture
_WAIT_SECONDS = 120


@dataclass
class Replicas:
    """How many run, seen once a second."""

    served: Mergeline
    seen: list[tuple[float, int]] = field(default_factory=list)
    """Seconds of `time.time`, and replicas."""

    def now(self) -> int:
        """That answer at this moment."""
        (application,) = self.served.api().applications().applications.values()
        (deployment,) = application.deployments.values()
        return len(deployment.running)

    def becomes(self, wanted: int) -> None:
        """Wait until so many run."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while (found := self.now()) != wanted:
            assert time.monotonic() < deadline, f"{found} replicas run, not {wanted}"
            time.sleep(0.5)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note how many run until the block ends."""
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(1):
                self.seen.append((time.time(), self.now()))

        with ThreadPoolExecutor(1) as looking:
            task = looking.submit(look)
            try:
                yield
            finally:
                ended.set()
            task.result()


@pytest.fixture
def served(bundle: Path, tmp_path: Path) -> Iterator[Mergeline]:
    ours = Mergeline(State.at(tmp_path / "state"), bundle, settings={"downscale_delay_s": _DOWNSCALE_SECONDS})
    try:
        ours.start(photograph("png"))
        yield ours
    finally:
        ours.stop()


@pytest.mark.timeout(1200)
def test_replicas_follow_the_load(benchmark: BenchmarkFixture, served: Mergeline, tmp_path: Path) -> None:
    file = tmp_path / "photograph.png"
    file.write_bytes(photograph("png"))
    replicas, answered = Replicas(served), list[Answered]()
    begin = time.time()

    def stepped() -> None:
        with replicas.watched():
            for clients, seconds in STEPS:
                answered.extend(load_for(served, file, clients, seconds))

    benchmark.pedantic(stepped, rounds=1)
    failed = [one.status for one in answered if one.status != httpx.codes.OK]
    benchmark.extra_info |= {
        "steps": STEPS,
        "requests": len(answered),
        "failed": failed,
        "replicas": [(round(at - begin, 1), count) for at, count in replicas.seen],
        "windows": _windows(answered, begin),
    }
    print(benchmark.extra_info)
    counts = [count for _, count in replicas.seen]
    assert not failed
    assert (counts[0], max(counts), counts[-1]) == (2, 3, 2)


def _windows(answered: list[Answered], begin: float) -> list[dict[str, Any]]:
    """Answers a second and latencies, by when the answer came."""
    groups: dict[int, list[float]] = {}
    for one in answered:
        groups.setdefault(int((one.sent + one.seconds - begin) // WINDOW_SECONDS), []).append(one.seconds)
    return [
        {
            "seconds": WINDOW_SECONDS * number,
            "requests_per_second": len(seconds) / WINDOW_SECONDS,
            "p50": round(float(np.percentile(seconds, 50)), 3),
            "p99": round(float(np.percentile(seconds, 99)), 3),
        }
        for number, seconds in sorted(groups.items())
    ]


@pytest.mark.timeout(600)
def test_more_than_it_takes(benchmark: BenchmarkFixture, served: Mergeline) -> None:
    """Who comes when the queue is full is told at once to come again, and who waits is answered."""
    served.settings |= {"max_ongoing_requests": 4, "max_queued_requests": 8, "min_replicas": 1, "max_replicas": 1}
    served.api().put(served.config())
    Replicas(served).becomes(1)
    data = photograph("png")

    def ask(_: int) -> httpx.Response:
        return httpx.post(served.url, content=data, timeout=60, trust_env=False)

    def all_at_once() -> list[httpx.Response]:
        with ThreadPoolExecutor(48) as clients:
            return list(clients.map(ask, range(192)))

    answers = benchmark.pedantic(all_at_once, rounds=1)
    refused = [answer for answer in answers if answer.status_code in REFUSED]
    benchmark.extra_info |= {"requests": len(answers), "refused": len(refused)}
    assert {answer.status_code for answer in answers} <= {httpx.codes.OK, *REFUSED}
    assert 0 < len(refused) < len(answers)
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)


@pytest.mark.timeout(600)
def test_from_zero(benchmark: BenchmarkFixture, served: Mergeline) -> None:
    """Nobody asks, so nothing runs; the first request afterwards is answered."""
    served.settings |= {"min_replicas": 0, "downscale_delay_s": 2}
    served.api().put(served.config())
    data, seconds = photograph("png"), list[float]()

    def first_request() -> None:
        begin = time.perf_counter()
        httpx.post(served.url, content=data, timeout=60, trust_env=False).raise_for_status()
        seconds.append(time.perf_counter() - begin)

    benchmark.pedantic(first_request, setup=lambda: await_no_replica(served), rounds=3, iterations=1)
    benchmark.extra_info |= {
        "seconds_of_the_first_request": [round(value, 2) for value in seconds],
        "median": round(statistics.median(seconds), 2),
    }
    print(benchmark.extra_info)
