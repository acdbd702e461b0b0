"""A replica in this process; and the service on a real Ray, deployed as the reconciler does it: by Serve's REST API."""

import os
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from gitops.contracts.serving import ServedModel, Trial, UserConfig
from gitops.environment import GRPC_SERVICER
from gitops.serve_api import ServeApi
from monitoring.metrics import Metric
from ray_jobs.cluster import free_port
from serve.assembly import assemble
from serve.endpoints import Endpoints, Limits
from serve.slot import ModelSlot
from serve.workers import Workers
from tests.bundles import make_bundle
from tests.conftest import RayCluster
from tests.serve.site import open_bundle, shadow

if TYPE_CHECKING:
    from playwright.sync_api import Browser

APPLICATION = "inspection"
ARGUMENTS = {"max_bytes": 1_000_000, "max_pixels": 1_000_000, "threads": 2}
DEADLINE_SECONDS = 120
LIMITS = Limits(max_bytes=200_000, max_request_bytes=500_000, max_pixels=500_000, max_files=4)


CHROMIUM = next(
    (
        found
        for name in (os.environ.get("MERGELINE_CHROMIUM", "chromium"), "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        pytest.skip("no Chromium here: `make browser` installs it where it can")
    with sync_playwright() as playwright:
        # Chromium's sandbox needs what containers mostly lack; the only site it sees is ours.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Tally:
    """Measurements, kept where a test can see them."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.observed: dict[str, list[float]] = {}
        self.gauges: dict[tuple[str, ...], float] = {}

    def count(self, metric: Metric, *labels: str) -> None:
        assert len(labels) == len(metric.labels)
        self.counts[(metric.name, *labels)] += 1

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        assert len(labels) == len(metric.labels)
        self.observed.setdefault(metric.name, []).append(value)

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        assert len(labels) == len(metric.labels)
        self.gauges[(metric.name, *labels)] = value

    def retire(self, label: str, value: str) -> None:
        assert label == "model_version"
        self.gauges = {key: number for key, number in self.gauges.items() if key[1] != value}

    def of(self, metric: Metric) -> dict[tuple[str, ...], int]:
        """What a counter counted, by its labels."""
        return {
            labels: count
            for (name, *rest), count in self.counts.items()
            for labels in [tuple(rest)]
            if name == metric.name
        }


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    folder = tmp_path_factory.mktemp("bundles") / "one"
    return ServedModel(name="screw", version="1", sha256=make_bundle(folder), uri=folder.as_uri())


@pytest.fixture
def workers() -> Iterator[Workers]:
    with closing(Workers(2)) as workers:
        yield workers


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
def slot(tmp_path: Path) -> ModelSlot:
    return ModelSlot(open_bundle, tmp_path / "memory.json", lambda succeeded: None)


@pytest.fixture
async def empty(slot: ModelSlot, workers: Workers, tally: Tally) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a replica without a model."""
    endpoints = Endpoints(slot, LIMITS, workers, tally, "a-replica", shadow(tally))
    transport = httpx.ASGITransport(assemble(endpoints, "screw", journal=None, feedback=None))
    async with httpx.AsyncClient(transport=transport, base_url="http://replica") as client:
        yield client


@pytest.fixture
async def client(empty: httpx.AsyncClient, slot: ModelSlot, model: ServedModel) -> httpx.AsyncClient:
    """A client of a replica that serves `model`."""
    await slot.want(model)
    assert slot.load_error is None
    return empty


def photograph(dtype: type = np.uint8, channels: int = 1, brightness: float = 0.9) -> NDArray[Any]:
    """A dark bar on a light ground, (120, 160) or (120, 160, 3)."""
    pixels: NDArray[Any] = np.full((120, 160), brightness * np.iinfo(dtype).max, dtype)
    pixels[50:70, 30:130] = 0.2 * np.iinfo(dtype).max
    return pixels if channels == 1 else np.repeat(pixels[..., None], channels, axis=2)


def encoded(extension: str = ".png", pixels: NDArray[Any] | None = None) -> bytes:
    return cv2.imencode(extension, photograph() if pixels is None else pixels)[1].tobytes()


@dataclass
class Service:
    """The application as it is deployed, and the way to change it."""

    api: ServeApi
    port: int
    grpc_port: int | None = None
    """None: without gRPC."""
    deployment: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=lambda: dict(ARGUMENTS))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, model: ServedModel | None, trial: Trial | None = None, **deployment: object) -> None:
        """Ask for another model, and a trial beside it; `deployment` changes further settings, and they stay."""
        self.deployment |= deployment
        user_config = UserConfig.of(model, trial).model_dump()
        classifier = {"name": "Classifier", "user_config": user_config, **self.deployment}
        application: dict[str, Any] = {"name": APPLICATION, "import_path": "serve.app:build", "route_prefix": "/"}
        application["args"] = self.arguments
        config: dict[str, Any] = {"http_options": {"host": "127.0.0.1", "port": self.port}}
        if self.grpc_port:
            config["grpc_options"] = {"port": self.grpc_port, "grpc_servicer_functions": [GRPC_SERVICER]}
        self.api.put({**config, "applications": [{**application, "deployments": [classifier]}]})

    def running(self) -> frozenset[str]:
        """Ids of the replicas that take requests."""
        application = self.api.applications().applications.get(APPLICATION)
        deployment = application.deployments.get("Classifier") if application else None
        return deployment.running if deployment else frozenset()

    def wait(self, reached: Callable[[dict[str, Any]], bool], *, replicas: int = 1, name: str = "screw") -> None:
        """Until each of so many replicas has said of the model what `reached` looks for."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            answers = self._ask_all(f"/v2/models/{name}")
            if len(answers) == replicas and all(reached(answer) for answer in answers.values()):
                return
            assert time.monotonic() < deadline, f"of {self.running()} these answered last: {answers}"
            time.sleep(0.1)

    def _ask_all(self, path: str) -> dict[str, dict[str, Any]]:
        running, answers = self.running(), {}
        for _ in range(8 * len(running)):
            response = httpx.get(self.url + path)
            if response.status_code == httpx.codes.OK and response.json()["replica"] in running:
                answers[response.json()["replica"]] = response.json()
            if answers.keys() == running:
                break
        return answers if answers.keys() == running else {}


@pytest.fixture(scope="module")
def service(ray_cluster: RayCluster) -> Iterator[Service]:
    """Nothing deployed yet; taken away with the module."""
    api = ServeApi(ray_cluster.dashboard_url, ray_cluster.token)
    options = api.applications().http_options
    port = options.port if options else free_port(0)  # once Serve listens, its port stays
    yield Service(api, port)
    api.put({"applications": []})
    deadline = time.monotonic() + DEADLINE_SECONDS
    while api.applications().applications and time.monotonic() < deadline:
        time.sleep(0.2)
