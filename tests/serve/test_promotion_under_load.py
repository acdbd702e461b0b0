"""Promotions while requests never stop: none of them fails, and the answers name the versions that gave them."""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path

import cv2
import numpy as np
import pytest

from gitops.contracts.serving import ServedModel
from gitops.state import locked
from tests.bundles import make_bundle
from tests.serve.conftest import ARGUMENTS, DEADLINE_SECONDS, Service

REPLICAS = 2
PART = cv2.imencode(".png", np.pad(np.full((40, 120), 60, np.uint8), 60, constant_values=220))[1].tobytes()
Ask = Callable[[], tuple[int, bytes]]


@dataclass(frozen=True)
class Reply:
    """One request, as its client saw it."""

    began: float
    status: int
    version: str | None
    digest: str | None


@dataclass
class Load:
    """Threads that ask without a pause until they are stopped."""

    clients: list[Ask]
    replies: list[Reply] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._repeat, args=(ask,)) for ask in self.clients]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int = 30) -> list[Reply]:
        """So many replies to requests that begin now or later."""
        now = time.monotonic()
        while len(replies := [reply for reply in list(self.replies) if reply.began >= now]) < count:
            assert not self.failures, self.failures
            time.sleep(0.05)
        return replies

    def _repeat(self, ask: Ask) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                status, body = ask()
                answer = json.loads(body)
            except Exception as error:  # whatever hinders a client is a failed request
                self.failures.append(repr(error))
                continue
            if status != HTTPStatus.OK:
                self.failures.append(f"{status}: {answer}")
            self.replies.append(Reply(began, status, answer.get("model_version"), answer.get("model_digest")))


def with_new_connections(port: int) -> tuple[int, bytes]:
    """A request on a connection of its own."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        return on_connection(connection)


def on_connection(connection: http.client.HTTPConnection) -> tuple[int, bytes]:
    """A request on a connection that stays open."""
    connection.request("POST", "/predict", PART)
    response = connection.getresponse()
    return response.status, response.read()


@pytest.fixture
def load(service: Service) -> Iterator[Load]:
    """Two clients that keep their connection, and two that open one a request."""
    kept = [http.client.HTTPConnection("127.0.0.1", service.port, timeout=60) for _ in range(2)]
    load = Load(
        [
            *[partial(on_connection, connection) for connection in kept],
            *[partial(with_new_connections, service.port)] * 2,
        ]
    )
    yield load
    load.stop()
    for connection in kept:
        connection.close()


def model(folder: Path, version: str) -> ServedModel:
    digest = make_bundle(folder / version, version_salt=int(version) / 10)
    return ServedModel(name="screw", version=version, uri=(folder / version).as_uri(), sha256=digest)


def test_no_request_fails_while_models_come_and_go(service: Service, load: Load, tmp_path: Path) -> None:
    first, second, broken = (model(tmp_path, version) for version in "123")
    (tmp_path / "3" / "model.xml").write_text("<net/>")
    digests = {item.version: f"sha256:{item.sha256}" for item in (first, second)}

    def serve(wanted: ServedModel) -> set[str | None]:
        service.put(wanted)
        service.wait(
            lambda answer: answer["version"] == wanted.version and answer["load_error"] is None, replicas=REPLICAS
        )
        return {reply.version for reply in load.wait_for_more()}

    service.put(first, num_replicas=REPLICAS, max_ongoing_requests=16, ray_actor_options={"num_cpus": 0.5})
    service.wait(lambda answer: answer["version"] == "1", replicas=REPLICAS)
    before = service.running()
    load.start()

    assert {reply.version for reply in load.wait_for_more()} == {"1"}
    assert serve(second) == {"2"}
    service.put(broken)
    service.wait(lambda answer: "model.xml was changed" in (answer["load_error"] or ""), replicas=REPLICAS)
    assert {reply.version for reply in load.wait_for_more()} == {"2"}
    service.wait(lambda answer: answer["wanted"]["version"] == "3" and answer["version"] == "2", replicas=REPLICAS)
    assert serve(first) == {"1"}

    load.stop()
    assert load.failures == []
    assert all(reply.digest == digests[str(reply.version)] for reply in load.replies)
    assert service.running() == before  # no replica was replaced


@pytest.fixture
def slow_store(service: Service, tmp_path: Path) -> Iterator[tuple[ServedModel, contextlib.ExitStack]]:
    """A model in a store that gives nothing until the stack is closed: somebody else holds its place in the cache."""
    cache = tmp_path / "cache"
    made = model(tmp_path, "2")
    cache.mkdir()
    (tmp_path / "2").rename(cache / made.sha256)
    service.arguments["cache"] = str(cache)
    with contextlib.ExitStack() as held:
        held.enter_context(locked(cache / f".{made.sha256}.lock"))
        yield made.model_copy(update={"uri": "s3://store/bundle"}), held
    service.arguments = dict(ARGUMENTS)


@pytest.mark.parametrize("replicas", [1, 2])
def test_no_request_waits_for_a_slow_store(
    replicas: int,
    service: Service,
    load: Load,
    slow_store: tuple[ServedModel, contextlib.ExitStack],
    tmp_path: Path,
) -> None:
    first, (second, held) = model(tmp_path, "1"), slow_store
    service.put(first, num_replicas=replicas, max_ongoing_requests=16, ray_actor_options={"num_cpus": 0.5})
    service.wait(lambda answer: answer["version"] == "1", replicas=replicas)
    load.start()
    service.put(second)
    if replicas == 1:
        service.wait(lambda answer: answer["wanted"]["version"] == "2" and answer["version"] == "1")
    # One that is alone goes on taking requests; of two one loads, and Serve sends that one none until it has.
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(service.running()) != 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert {reply.version for reply in load.wait_for_more()} == {"1"}
    assert len(service.running()) == 1
    held.close()
    service.wait(lambda answer: answer["version"] == "2" and answer["load_error"] is None, replicas=replicas)
    load.stop()
    assert load.failures == []
