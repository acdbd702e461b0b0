"""A trial from its commit to the answers of a real Ray Serve: canary, larger share, finish; shadow, abort; failure."""

import json
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from gitops import bundle
from gitops.attempt import ReconcileSettings
from gitops.contracts.serving import ModelVersion
from gitops.layout import PROJECT_PATH, serve_config_path
from gitops.promotion import Destination
from gitops.reconcile import Reconciler
from gitops.repository import MAIN, Repository, create_bare
from gitops.serve_api import ServeApi
from gitops.state import State
from gitops.status import Status
from tests.bundles import make_bundle
from tests.conftest import RayCluster
from tests.gitops.deployments import PROJECT, make_version
from tests.serve.conftest import ARGUMENTS, DEADLINE_SECONDS, Service, encoded
from tests.serve.test_app import scraped

REPLICAS = 2
CLIENTS = [f"camera-{number}" for number in range(40)]


@dataclass
class Line:
    """A deployments repository, and the service that follows it."""

    repository: Repository
    reconciler: Reconciler
    service: Service
    folder: Path

    def version(self, number: str, *, loads: bool = True) -> ModelVersion:
        """A registered version; whether its bundle loads is seen only by who loads it."""
        place, made = self.folder / number, make_version(self.folder / "reports", number)
        digest = make_bundle(place, version_salt=int(number) / 10)
        if not loads:
            manifest = bundle.verify(place, digest).manifest
            wrong = manifest.probe.model_copy(update={"score": 0.999})
            digest = bundle.seal(place, manifest.model_copy(update={"probe": wrong}))
        model = made.model.model_copy(update={"uri": place.as_uri(), "sha256": digest})
        report = made.evaluation.model_copy(update={"bundle": digest})
        return made.model_copy(update={"model": model, "evaluation": report})

    def sync(self) -> Status:
        found = self.reconciler.run_once()
        assert found.sync.status == "Synced", found.to_json()
        return found

    def healthy(self) -> Status:
        found = self.sync()
        assert found.health.status == "Healthy", found.to_json()
        assert found.operation_state
        assert found.operation_state.phase == "Succeeded"
        return found

    def asked(self, clients: list[str], count: int = 1) -> dict[str, Counter[str]]:
        """The versions that answered each client, on a new connection each time, so that both replicas are met."""
        found: dict[str, Counter[str]] = {}
        for who in clients * count:
            response = httpx.post(f"{self.service.url}/predict", content=encoded(), headers={"X-Client-Id": who})
            assert response.status_code == 200, response.text
            version = response.json()["model_version"]
            assert response.headers["x-model-version"] == version
            found.setdefault(who, Counter())[version] += 1
        return found


@pytest.fixture
def line(service: Service, ray_cluster: RayCluster, tmp_path: Path) -> Line:
    (tmp_path / "reports").mkdir()
    deployment = {
        "name": "Classifier",
        "num_replicas": REPLICAS,
        "ray_actor_options": {"num_cpus": 0.5},
        "user_config": {"model": None},
    }
    application = {"name": "screw", "route_prefix": "/", "import_path": "serve.app:build", "args": ARGUMENTS}
    http = {"host": "127.0.0.1", "port": service.port}
    config = {"http_options": http, "applications": [application | {"deployments": [deployment]}]}
    seed = {PROJECT_PATH: PROJECT, serve_config_path("local"): json.dumps(config, indent=1)}
    create_bare(tmp_path / "bare.git", seed, {})
    repository = Repository(tmp_path / "bare.git")
    settings = ReconcileSettings(healthy_seconds=0.5, look_seconds=0.2, observe_seconds=DEADLINE_SECONDS, retry_limit=0)
    api, state = ServeApi(ray_cluster.dashboard_url, ray_cluster.token), State.at(tmp_path / "state")
    return Line(repository, Reconciler(repository, MAIN, "local", api, state, settings), service, tmp_path)


def test_a_version_is_tried_finished_and_aborted(line: Line, ray_cluster: RayCluster) -> None:
    first, second, third = (line.version(number) for number in "123")
    Destination(line.repository, "local").promote(first, merge=True)
    line.healthy()
    before = line.reconciler.api.applications().applications["screw"].deployments["Classifier"].running
    assert len(before) == REPLICAS

    Destination(line.repository, "local").try_beside(second, 30, merge=True)
    found = line.healthy()
    assert str(found.resources[0].trial) == "canary of version 2 (30 %)"
    answered = line.asked(CLIENTS, count=4)
    assert all(len(versions) == 1 for versions in answered.values()), "who names itself is answered by one version"
    of_canary = {who for who, versions in answered.items() if "2" in versions}
    assert 3 <= len(of_canary) <= 24, "of 40 clients about 12"
    without = Counter(
        httpx.post(f"{line.service.url}/predict", content=encoded()).json()["model_version"] for _ in range(60)
    )
    assert 5 <= without["2"] <= 35, without

    Destination(line.repository, "local").try_beside(second, 60, merge=True)
    line.healthy()
    more = {who for who, versions in line.asked(CLIENTS).items() if "2" in versions}
    assert of_canary < more

    Destination(line.repository, "local").finish("screw", "2", merge=True)
    line.healthy()
    assert {version for versions in line.asked(CLIENTS).values() for version in versions} == {"2"}

    Destination(line.repository, "local").try_beside(third, None, merge=True)
    line.healthy()
    assert {version for versions in line.asked(CLIENTS).values() for version in versions} == {"2"}
    wanted = {
        r'ray_mergeline_judgements_total\{.*version="1"',
        r'ray_mergeline_judgements_total\{.*version="2"',
        r'ray_mergeline_request_seconds_count\{.*version="2"',
        r'ray_mergeline_shadow_judgements_total\{.*version="3"',
        r'ray_mergeline_shadow_photographs_total\{(?=.*outcome="agreed").*version="3"',
    }
    deadline = time.monotonic() + DEADLINE_SECONDS
    while missing := {pattern for pattern in wanted if not re.search(pattern, scraped(ray_cluster))}:
        assert time.monotonic() < deadline, missing
        time.sleep(0.5)  # Ray exports every few seconds

    Destination(line.repository, "local").abort("screw", merge=True)
    line.healthy()
    metadata = httpx.get(f"{line.service.url}/v2/models/screw").json()
    assert (metadata["version"], metadata["versions"], metadata["trial"]) == ("2", ["2"], None)
    after = line.reconciler.api.applications().applications["screw"].deployments["Classifier"].running
    assert after == before, "nothing was restarted"


def test_a_candidate_that_does_not_load_is_degraded_and_the_model_answers_all(line: Line) -> None:
    first, second = line.version("1"), line.version("2", loads=False)
    Destination(line.repository, "local").promote(first, merge=True)
    line.healthy()
    Destination(line.repository, "local").try_beside(second, 99, merge=True)
    found = line.sync()
    assert found.health.status == "Degraded", found.to_json()
    assert "wanted is a canary of version 2 (99 %), but version 1 answers alone" in found.health.message
    assert "its probe" in found.health.message
    assert {version for versions in line.asked(CLIENTS[:20]).values() for version in versions} == {"1"}
    Destination(line.repository, "local").abort("screw", merge=True)
    line.healthy()
