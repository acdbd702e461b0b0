"""The monitor on a real Ray: a window from requests to its file and metrics, and requests while it hangs and dies."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from gitops.contracts.serving import ServedModel
from serve.windows import windows_below
from tests.bundles import make_bundle
from tests.conftest import RayCluster
from tests.serve.conftest import APPLICATION, ARGUMENTS, DEADLINE_SECONDS, Service
from tests.serve.site import open_bundle
from tests.serve.test_app import scraped
from tests.windows import files, reference


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("windows")


@pytest.fixture(scope="module")
def url(service: Service, model: ServedModel, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    bundle = tmp_path_factory.mktemp("watched") / "bundle"
    digest = make_bundle(bundle, reference=reference(open_bundle(model)))
    service.arguments = {**ARGUMENTS, "windows": str(folder), "sample_seconds": 0}
    service.put(
        ServedModel(name="screw", version="1", sha256=digest, uri=bundle.as_uri()),
        num_replicas=1,
        ray_actor_options={"num_cpus": 0.5},
    )
    service.wait(lambda answer: answer["version"] == "1")
    yield service.url
    service.arguments = dict(ARGUMENTS)


def until(reached: Callable[[], bool], act: Callable[[], None]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not reached():
        assert time.monotonic() < deadline
        act()


def monitor_of(ray_cluster: RayCluster) -> int | None:
    """The id of the monitor's process; None while there is none."""
    headers = {"Authorization": f"Bearer {ray_cluster.token}"}
    details = httpx.get(f"{ray_cluster.dashboard_url}/api/serve/applications/", headers=headers).json()
    replicas = details["applications"][APPLICATION]["deployments"]["Monitor"]["replicas"]
    running = [replica["pid"] for replica in replicas if replica["state"] == "RUNNING"]
    return running[0] if running else None


def test_a_window_goes_from_requests_to_its_file_and_metrics(url: str, folder: Path, ray_cluster: RayCluster) -> None:
    photographs = files(2, light=0.8)

    def ask() -> None:
        for data in photographs:
            assert httpx.post(f"{url}/predict", content=data).status_code == 200

    until(lambda: bool(windows_below(folder)), ask)
    window = windows_below(folder)[0]
    assert (window.application, window.outcome, window.photographs) == (APPLICATION, "drifted", 256)
    wanted = "ray_mergeline_drift_detected{", "ray_mergeline_drift_windows_total{", 'outcome="kept"'
    until(lambda: all(text in scraped(ray_cluster) for text in wanted), lambda: time.sleep(1))


def test_requests_are_answered_while_the_monitor_hangs_and_dies(url: str, ray_cluster: RayCluster) -> None:
    pid = monitor_of(ray_cluster)
    assert pid

    def ask() -> None:  # the client itself gives up long before the way to the monitor does
        for data in files(3):
            assert httpx.post(f"{url}/predict", content=data).status_code == 200

    ask()
    os.kill(pid, signal.SIGSTOP)
    ask()
    os.kill(pid, signal.SIGKILL)
    ask()
    until(lambda: monitor_of(ray_cluster) not in (None, pid), ask)
