"""The service on a real Ray, deployed as the reconciler does it: by Serve's REST API."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from gitops.manifest import ServedModel
from gitops.serve_api import ServeApi
from ray_jobs.cluster import free_port
from tests.conftest import RayCluster

APPLICATION = "inspection"
ARGUMENTS = {"max_bytes": 1_000_000, "max_pixels": 1_000_000, "threads": 2}
GRPC_SERVICER = "serve.open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server"
DEADLINE_SECONDS = 120


@dataclass
class Service:
    """The application as it is deployed, and the way to change it."""

    api: ServeApi
    port: int
    grpc_port: int | None = None
    """None: without gRPC."""
    deployment: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, model: ServedModel | None, **deployment: object) -> None:
        """Ask for another model; `deployment` changes further settings, and they stay."""
        self.deployment |= deployment
        user_config = {"model": model.model_dump() if model else None}
        classifier = {"name": "Classifier", "user_config": user_config, **self.deployment}
        application = {"name": APPLICATION, "import_path": "serve.app:build", "route_prefix": "/", "args": ARGUMENTS}
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
