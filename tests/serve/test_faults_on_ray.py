"""Faults on a real Ray Serve: a replica and the proxy are killed while requests come, and the service comes back."""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from gitops.contracts.serving import ServedModel
from tests.bundles import make_bundle
from tests.conftest import RayCluster
from tests.processes import processes_named
from tests.serve.conftest import DEADLINE_SECONDS, Service, encoded

REPLICAS, CLIENTS = 2, 4
PAUSE_SECONDS = 0.05
"""What a client waits after each request: about 80 requests a second from all."""
STEADY = 40
"""So many answers in a row, and the service is back."""


@dataclass
class Load:
    """Clients that ask at a steady pace, each on a connection of its own that it opens again where it broke."""

    port: int
    asked: list[tuple[float, str]] = field(default_factory=list)
    """When each request began, and what went wrong with it; empty: it was answered."""
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._repeat) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def since(self, moment: float) -> list[tuple[float, str]]:
        return sorted(entry for entry in list(self.asked) if entry[0] >= moment)

    def await_steady(self, moment: float) -> list[tuple[float, str]]:
        """What was asked since then, as soon as the latest requests were all answered."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            found = self.since(moment)
            if len(found) >= STEADY and not any(error for _, error in found[-STEADY:]):
                return found
            assert time.monotonic() < deadline, found[-5:]
            time.sleep(0.1)

    def _repeat(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self._over.is_set():
            began, error = time.monotonic(), ""
            try:
                connection.request("POST", "/predict", encoded())
                response = connection.getresponse()
                body = response.read()
                error = "" if response.status == httpx.codes.OK else f"{response.status} {body[:80]!r}"
            except (OSError, http.client.HTTPException) as reason:
                error = type(reason).__name__
                connection.close()
            self.asked.append((began, error))
            self._over.wait(PAUSE_SECONDS)
        connection.close()


@pytest.fixture
def load(service: Service, tmp_path: Path) -> Iterator[Load]:
    model = ServedModel(name="screw", version="1", sha256=make_bundle(tmp_path / "1"), uri=(tmp_path / "1").as_uri())
    service.put(model, num_replicas=REPLICAS, ray_actor_options={"num_cpus": 0.5}, health_check_period_s=2)
    service.wait(lambda answer: answer["version"] == "1", replicas=REPLICAS)
    load = Load(service.port)
    load.start()
    load.await_steady(time.monotonic())
    yield load
    load.stop()


def outage(found: list[tuple[float, str]]) -> tuple[int, float]:
    """Failed requests, and the seconds between the first and the last of them."""
    failed = [began for began, error in found if error]
    return len(failed), failed[-1] - failed[0] if failed else 0.0


def test_of_two_replicas_one_is_killed(service: Service, ray_cluster: RayCluster, load: Load) -> None:
    before, replicas = service.running(), processes_named(ray_cluster.state, "ray::ServeReplica:inspection:Classifier")
    assert len(replicas) == len(before) == REPLICAS
    moment = time.monotonic()
    next(iter(replicas.values())).kill()
    deadline = moment + DEADLINE_SECONDS
    while len(running := service.running()) < REPLICAS or running == before:
        assert time.monotonic() < deadline, running
        time.sleep(0.2)
    replaced = time.monotonic() - moment
    load.await_steady(time.monotonic())
    failed, seconds = outage(asked := load.since(moment))
    print(f"a replica: {failed} of {len(asked)} failed within {seconds:.2f} s; replaced after {replaced:.1f} s")
    assert len(before & service.running()) == REPLICAS - 1, "the other one was left alone"
    # What it had in its hands is lost, and what HAProxy still sent it: a request of each client.
    assert failed <= CLIENTS, [error for _, error in asked if error]


@pytest.mark.parametrize("name", ["ray::HAProxyManager", "haproxy"])
def test_the_proxy_is_killed(name: str, ray_cluster: RayCluster, load: Load) -> None:
    before = processes_named(ray_cluster.state, "haproxy")
    manager = processes_named(ray_cluster.state, "ray::HAProxyManager")
    assert before
    assert manager
    moment = time.monotonic()
    for process in processes_named(ray_cluster.state, name).values():
        process.kill()
    while not processes_named(ray_cluster.state, "haproxy").keys() - before.keys():
        assert time.monotonic() - moment < DEADLINE_SECONDS
        time.sleep(0.2)
    restarted = time.monotonic() - moment
    load.await_steady(time.monotonic())
    failed, seconds = outage(asked := load.since(moment))
    errors = Counter(error for _, error in asked if error)
    print(f"{name}: {failed} of {len(asked)} failed within {seconds:.2f} s; another after {restarted:.1f} s: {errors}")
    assert processes_named(ray_cluster.state, "ray::HAProxyManager").keys() != manager.keys()
