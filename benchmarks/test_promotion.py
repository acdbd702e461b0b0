"""From a merge to the first answer of the new version, and what a replica takes: memory, and time to come up.

make bench
"""

import shutil
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.services import Mergeline, await_answer, await_no_replica
from benchmarks.test_request_path import photograph
from gitops import environment
from gitops.bundle import MANIFEST, seal
from gitops.contracts.model import BundleManifest
from gitops.contracts.serving import ServedModel
from gitops.gates import hooks
from gitops.layout import serve_config_path
from gitops.reconcile import Reconciler
from gitops.repository import Repository, create_bare
from gitops.seed import seed_environment
from gitops.state import State
from tests.processes import processes_named

MERGES, STARTS, CLIENTS = 5, 3, 2
_DEADLINE_SECONDS = 120


@dataclass
class Clients:
    """Who asks all the time, and what they were answered: each version first, how late, and what failed."""

    url: str
    data: bytes
    first_seen: dict[str, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    """Of each answer."""
    failed: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask until the block ends."""
        threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _ask(self) -> None:
        with httpx.Client(timeout=30, trust_env=False) as client:
            while not self._stop.is_set():
                asked = time.perf_counter()
                try:
                    answer = client.post(self.url, content=self.data)
                except httpx.HTTPError as error:
                    self.failed.append(repr(error))
                    continue
                if answer.status_code != httpx.codes.OK:
                    self.failed.append(f"{answer.status_code} {answer.text[:200]}")
                    continue
                self.seconds.append(time.perf_counter() - asked)
                self.first_seen.setdefault(answer.headers["x-model-version"], time.perf_counter())


@pytest.fixture(scope="module")
def served(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mergeline]:
    ours = Mergeline(State.at(tmp_path_factory.mktemp("state")), bundle)
    try:
        ours.start(photograph("png"))
        yield ours
    finally:
        ours.stop()


def _texts(served: Mergeline, folder: Path, versions: int) -> list[str]:
    """An environment's text for each version: copies of the bundle that differ enough to be loaded anew."""
    manifest = BundleManifest.read(served.bundle / MANIFEST)
    text = seed_environment(manifest.name, "local", served.port)
    texts = []
    for version in range(2, versions + 2):
        copy = Path(shutil.copytree(served.bundle, folder / f"version-{version}"))
        sha256 = seal(copy, manifest.model_copy(update={"agreement": manifest.agreement + version * 1e-9}))
        model = ServedModel(name=manifest.name, version=str(version), uri=copy.as_uri(), sha256=sha256)
        texts.append(environment.promote(text, None, model))
    return texts


@pytest.mark.timeout(1200)
def test_from_a_merge_to_the_first_answer(benchmark: BenchmarkFixture, served: Mergeline, tmp_path: Path) -> None:
    texts, path = _texts(served, tmp_path, MERGES), serve_config_path("local")
    location = tmp_path / "deployments.git"
    create_bare(location, {path: served.text()}, {"post-receive": hooks()["post-receive"]})
    repository = Repository(location)
    reconciler = Reconciler(repository, "main", "local", served.api(), served.state)
    watcher, clients = threading.Thread(target=reconciler.watch), Clients(served.url, photograph("png"))
    seconds: list[float] = []
    numbers = iter(range(MERGES))

    def merge() -> None:
        number = next(numbers)
        repository.commit("main", "main", {path: texts[number]}, f"Serve version {number + 2}")
        merged, version = time.perf_counter(), str(number + 2)
        while version not in clients.first_seen:
            assert time.perf_counter() - merged < _DEADLINE_SECONDS, (clients.failed, reconciler.journal.status())
            time.sleep(0.02)
        seconds.append(clients.first_seen[version] - merged)
        time.sleep(5)  # the reconciler comes to rest

    watcher.start()
    try:
        with clients.asking():
            time.sleep(5)
            benchmark.pedantic(merge, rounds=MERGES, iterations=1)
    finally:
        reconciler.stop()
        watcher.join()
    benchmark.extra_info |= {
        "seconds_from_merge_to_first_answer": [round(value, 2) for value in seconds],
        "median": round(statistics.median(seconds), 2),
        "answers": len(clients.seconds),
        "median_answer_seconds": round(statistics.median(clients.seconds), 3),
        "longest_answer_seconds": round(max(clients.seconds), 3),  # a replica that waited for its load would show here
        "failed": clients.failed,
    }
    print(benchmark.extra_info)
    assert not clients.failed
    assert statistics.median(seconds) < 10  # it aims at 3; a busy machine must not fail it


@pytest.mark.timeout(1200)
def test_a_replica(benchmark: BenchmarkFixture, served: Mergeline) -> None:
    """Memory of its own (what ending it would free), and the time from a deployment to its first answer."""
    config, data = served.config(), photograph("png")
    memory: list[int] = []

    def away() -> None:
        served.api().put({**config, "applications": []})
        await_no_replica(served)

    def come() -> None:
        served.api().put(config)
        await_answer(served, data, lambda: True)

    def measure() -> None:
        for _ in range(50):
            httpx.post(served.url, content=data, timeout=30, trust_env=False).raise_for_status()
        replicas = processes_named(served.state, "ray::ServeReplica:")
        memory.extend(process.memory_full_info().uss for process in replicas.values())

    measure()
    benchmark.pedantic(come, setup=away, rounds=STARTS, iterations=1)
    measure()
    benchmark.extra_info |= {"unshared_mib_of_a_replica": [value >> 20 for value in memory]}
    print(benchmark.extra_info)
