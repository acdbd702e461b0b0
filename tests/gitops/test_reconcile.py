"""The loop against a real Git repository and a real Ray Serve; the application is tests/gitops/tiny_app.py.

The cluster is one for the session, so each test first makes version 1 the one that is served.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from gitops import bundle
from gitops.attempt import ReconcileSettings
from gitops.contracts.serving import ServedModel
from gitops.difference import with_kept
from gitops.environment import GRPC_SERVICER, Environment
from gitops.errors import StalledError
from gitops.gates import POKE
from gitops.layout import serve_config_path
from gitops.observe import observe
from gitops.reconcile import Reconciler
from gitops.repository import MAIN, Repository, create_bare
from gitops.serve_api import Application, ServeApi
from gitops.state import State
from gitops.status import Health, Journal, Status
from gitops.turn import is_watched
from monitoring import metrics
from monitoring.exporter import ProcessMeters
from monitoring.metrics import AttemptOutcome
from ray_jobs.cluster import free_port
from tests.conftest import RayCluster
from tests.gitops.deployments import unsealed

# Ray 2.60's ray.serve.config raises it when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`:DeprecationWarning")

ENVIRONMENT = "tests"
PATH = serve_config_path(ENVIRONMENT)
QUICK = ReconcileSettings(
    poll_seconds=0.3,
    healthy_seconds=0.5,
    observe_seconds=300,
    look_seconds=0.2,
    retry_limit=1,
    retry_seconds=0.5,
)


def application(name: str, model: ServedModel | None, **args: str) -> dict[str, Any]:
    return {
        "name": name,
        "route_prefix": f"/{name}",
        "import_path": "tests.gitops.tiny_app:build",
        "args": args,
        "deployments": [
            {
                "name": "Tiny",
                "num_replicas": 2 if name == "tiny" else 1,
                "ray_actor_options": {"num_cpus": 0},
                "user_config": {"model": model.model_dump() if model else None},
            }
        ],
    }


def make_model(folder: Path, version: str, *, answers: float = 0.25, **behaviour: object) -> ServedModel:
    """A bundle whose application answers `answers`; its probe expects 0.25."""
    (folder / "saved_model").mkdir(parents=True)
    for name in ("probe.png", "engine.xml", "reference.json", "saved_model/weights"):
        (folder / name).write_text(f"stands for a file of version {version}")
    (folder / "behaviour.json").write_text(json.dumps({"answers": answers, **behaviour}))
    manifest = unsealed().model_copy(update={"name": "tiny", "engine_file": "engine.xml"})
    sha256 = bundle.seal(folder, manifest)
    return ServedModel(name="tiny", version=version, uri=folder.resolve().as_uri(), sha256=sha256)


@dataclass
class Line:
    """A repository, a cluster, and what is between them."""

    api: ServeApi
    repository: Repository
    folder: Path
    port: int
    state: State
    models: dict[str, ServedModel] = field(default_factory=dict)
    measured: CollectorRegistry = field(default_factory=CollectorRegistry)
    """What all of its reconcilers measured."""

    def __post_init__(self) -> None:
        self.meters = ProcessMeters((metrics.SYNC_ATTEMPTS, metrics.SYNC_SECONDS), self.measured)

    def model(self, version: str, **behaviour: Any) -> ServedModel:
        if version not in self.models:
            self.models[version] = make_model(self.folder / version, version, **behaviour)
        return self.models[version]

    def merge(self, *applications: dict[str, Any], text: str | None = None) -> str:
        """Commit an environment to the main branch; one that is there already is not committed again."""
        config = {"http_options": {"host": "127.0.0.1", "port": self.port}, "applications": list(applications)}
        text = text or json.dumps(config, indent=1)
        head = self.repository.tip(MAIN) or ""
        if self.repository.exists(head, PATH) and self.repository.read(head, PATH) == text:
            return head
        return self.repository.commit(head, MAIN, {PATH: text}, "Change the tests' environment")

    def reconciler(self, state: State | None = None, **settings: Any) -> Reconciler:
        chosen = QUICK.model_copy(update=settings)
        return Reconciler(self.repository, MAIN, ENVIRONMENT, self.api, state or self.state, chosen, self.meters)

    def attempts(self, outcome: AttemptOutcome) -> float:
        labels = {"environment": ENVIRONMENT, "outcome": str(outcome)}
        return self.measured.get_sample_value(metrics.SYNC_ATTEMPTS.exported, labels) or 0

    def serve(self, version: str = "1") -> Status:
        """Merge a version and make it so."""
        self.merge(application("tiny", self.model(version)))
        found = self.reconciler(prune=True).sync()
        assert (found.sync.status, found.health.status) == ("Synced", "Healthy"), found.to_json()
        return found

    def live(self, name: str = "tiny") -> Application:
        return self.api.applications().applications[name]

    def change_live(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the live configuration of the application behind Git's back."""
        details = self.api.applications()
        config = details.living["tiny"].deployed_app_config or {}
        change(config)
        others = {name: app for name, app in details.living.items() if name != "tiny" and app.deployed_app_config}
        self.api.put(with_kept({"applications": [config]}, others))

    def delete_all(self) -> None:
        """Leave Serve without applications and their replicas, as after a restart of the machine."""
        self.api.put({"applications": []})
        wait_for(lambda: not self.api.applications().applications, "Serve deleted them")

    def answer(self) -> dict[str, Any]:
        port = (self.api.applications().http_options or pytest.fail("Serve does not run")).port
        response = httpx.post(f"http://127.0.0.1:{port}/tiny/predict", content=b"image", timeout=10)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer


@pytest.fixture(scope="module")
def line(ray_cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp("reconcile")
    create_bare(folder / "deployments.git", {"README": "of the tests\n"}, {})
    api = ServeApi(ray_cluster.dashboard_url, ray_cluster.token)
    repository = Repository(folder / "deployments.git")
    yield Line(api, repository, folder / "bundles", free_port(0), State.at(folder / "state"))
    others = {n: a for n, a in api.applications().living.items() if n not in ("tiny", "second")}
    api.put(with_kept({"applications": []}, {n: a for n, a in others.items() if a.deployed_app_config}))


@contextmanager
def watching(reconciler: Reconciler) -> Iterator[None]:
    thread = threading.Thread(target=reconciler.watch)
    thread.start()
    try:
        yield
    finally:
        reconciler.stop()
        thread.join()


def put_time(line: Line) -> object:
    """Changes with every PUT."""
    raw = httpx.get(f"{line.api.url}/api/serve/applications/", headers=line.api._headers, timeout=20).json()
    return raw["applications"]["tiny"]["last_deployed_time_s"]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_nothing_promoted_then_a_first_model(line: Line, tmp_path: Path) -> None:
    state = State.at(tmp_path)
    line.merge(application("tiny", None))
    empty = line.reconciler(state).run_once()
    assert (empty.sync.status, empty.health.status) == ("Synced", "Missing")
    assert empty.health.message == "nothing promoted yet"

    model = line.model("1")
    commit = line.merge(application("tiny", model))
    assert str(line.reconciler(state).diff()[0]).startswith("~ tiny: deployments.Tiny.user_config")
    found = line.reconciler(state).run_once()
    assert (found.sync.status, found.sync.revision, found.health.status) == ("Synced", commit, "Healthy")
    assert found.operation_state is not None
    assert (found.operation_state.phase, found.operation_state.retry_count) == ("Succeeded", 0)
    assert found.resources[0].served == (f"1@sha256:{model.sha256}",)
    assert line.answer()["model_version"] == "1"
    assert line.reconciler(state).diff() == []

    entries = Journal(state, ENVIRONMENT).history()
    assert [entry.id for entry in entries] == [0, 1]
    assert entries[1].models == {"tiny": model}
    assert entries[1].committed_at <= entries[1].deployed_at
    assert Journal(state, ENVIRONMENT).status() == found
    words = json.loads((state.reconciler / ENVIRONMENT / "status.json").read_text())
    assert words["operationState"]["syncResult"]["revision"] == commit
    assert words["history"][-1]["deployStartedAt"]


def test_what_is_synced_is_left_alone(line: Line) -> None:
    line.serve()
    before = put_time(line)
    line.repository.commit(MAIN, MAIN, {"README": f"{time.time()}"}, "Say something else")
    found = line.reconciler().run_once()
    assert (found.sync.status, found.health.status) == ("Synced", "Healthy")
    assert found.sync.revision == line.repository.tip(MAIN)
    assert put_time(line) == before


def test_a_promotion_loses_no_request(line: Line) -> None:
    line.serve()
    seen: list[str] = []
    done = threading.Event()
    url = f"http://127.0.0.1:{(line.api.applications().http_options or pytest.fail('no Serve')).port}/tiny/predict"

    def ask() -> None:
        with httpx.Client(timeout=20) as client:
            while not done.is_set():
                seen.append(client.post(url, content=b"image").raise_for_status().json()["model_version"])

    asker = threading.Thread(target=ask)
    asker.start()
    line.merge(application("tiny", line.model("2", seconds=0.3)))
    found = line.reconciler().run_once()
    done.set()
    asker.join()
    assert found.health.status == "Healthy", found.to_json()
    assert seen[0] == "1"
    assert seen[-1] == "2"


def test_a_bundle_that_does_not_load_leaves_the_old_one_answering(line: Line) -> None:
    line.serve()
    line.merge(application("tiny", line.model("3", broken=True)))
    found = line.reconciler().run_once()
    assert (found.sync.status, found.health.status) == ("Synced", "Degraded")
    assert "the engine file is not one" in found.health.message
    assert "version 1 goes on answering" in found.health.message
    assert found.operation_state is not None
    assert found.operation_state.phase == "Failed"
    assert found.resources[0].wanted == line.model("3")
    assert found.resources[0].served == (f"1@sha256:{line.model('1').sha256}",)
    assert line.answer()["model_version"] == "1"

    before = put_time(line)
    again = line.reconciler().run_once()
    assert again.operation_state == found.operation_state  # one attempt for a commit
    assert again.health.status == "Degraded"
    assert put_time(line) == before
    line.serve()  # the way back


def test_an_observer_tells_whether_the_replicas_serve_it(line: Line) -> None:
    """Where Argo CD is the reconciler, nobody else does."""

    def seen() -> Health:
        text = line.repository.read(line.repository.tip(MAIN) or "", PATH)
        return observe(line.api, Environment.parse(text, PATH))

    line.serve()
    assert seen() == Health(status="Healthy")
    line.merge(application("tiny", line.model("3", broken=True)))
    assert seen().status == "Progressing"
    assert "shall serve tiny version 3, and Serve was told to serve tiny version 1" in seen().message
    line.reconciler().run_once()
    assert seen().status == "Degraded"
    assert "version 1 goes on answering: the engine file is not one" in seen().message
    line.serve()  # the way back
    assert seen() == Health(status="Healthy")


def test_a_wrong_score_is_no_success(line: Line) -> None:
    line.serve()
    line.merge(application("tiny", line.model("4", answers=0.75)))
    found = line.reconciler().run_once()
    assert found.operation_state is not None
    assert found.operation_state.phase == "Failed"
    assert "the score 0.7500, at its export it was 0.2500" in found.operation_state.message
    assert any(condition.type == "SyncError" for condition in found.conditions)


@pytest.mark.parametrize(
    ("spoil", "reason", "sync"),
    [
        (lambda text: text + "\n}}", "is not YAML", "Unknown"),
        (lambda text: text.replace('"num_replicas"', '"num_replica"'), "did you mean 'num_replicas'", "Unknown"),
        (lambda text: text.replace('"num_replicas": 2', '"num_replicas": -2'), "schema refuses", "Unknown"),
        (lambda text: text.replace("/bundles/1", "/bundles/none"), "no bundle in", "OutOfSync"),
        (lambda text: text.replace('"sha256": "', '"sha256": "0000')[:], "sha256", "Unknown"),
        (lambda text: text.replace('"applications": [', '"applications": [], "x": ['), "unknown key 'x'", "Unknown"),
    ],
)
def test_what_cannot_be_applied_is_not_put(line: Line, spoil: Callable[[str], str], reason: str, sync: str) -> None:
    line.serve()
    before = put_time(line)
    text = line.repository.read(line.repository.tip(MAIN) or "", PATH)
    commit = line.merge(text=spoil(text))
    found = line.reconciler().run_once()
    assert (found.sync.status, found.sync.revision, found.health.status) == (sync, commit, "Degraded"), found.to_json()
    assert reason in found.health.message
    assert found.operation_state is not None
    assert (found.operation_state.phase, found.operation_state.message) == ("Failed", found.health.message)
    assert found.resources[0].health.status == "Healthy"
    assert put_time(line) == before
    assert line.answer()["model_version"] == "1"


def test_a_wrong_digest_is_not_put(line: Line) -> None:
    line.serve()
    succeeded, failed = (line.attempts(outcome) for outcome in (AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED))
    assert succeeded > 0
    before = put_time(line)
    other = line.model("1").model_copy(update={"version": "9", "sha256": "9" * 64})
    line.merge(application("tiny", other))
    found = line.reconciler().run_once()
    assert (found.sync.status, found.health.status) == ("OutOfSync", "Degraded")
    assert "has the digest" in found.health.message
    assert put_time(line) == before
    assert (line.attempts(AttemptOutcome.SUCCEEDED), line.attempts(AttemptOutcome.FAILED)) == (succeeded, failed + 1)


def test_a_bundle_that_was_deployed_and_is_gone_keeps_nothing_else_back(line: Line) -> None:
    first, second = line.model("1"), line.model("8")
    line.merge(application("tiny", first), application("second", second))
    assert line.reconciler().sync().health.status == "Healthy"
    place = Path(second.uri.removeprefix("file://"))
    gone = place.rename(place.with_name("gone"))
    try:
        line.merge(application("tiny", line.model("2")), application("second", second))
        found = line.reconciler().run_once()
        assert (found.sync.status, found.health.status) == ("Synced", "Healthy"), found.to_json()
        assert found.operation_state is not None
        assert found.operation_state.phase == "Succeeded"
        assert "successfully synced; mind: application second, tiny version 8: no bundle in" in (
            found.operation_state.message
        )
        assert line.answer()["model_version"] == "2"

        # As after a restart of the machine: what is whole comes up, and what is not is said.
        line.delete_all()
        found = line.reconciler().sync()
        assert (found.sync.status, found.health.status) == ("Synced", "Degraded"), found.to_json()
        assert found.operation_state is not None
        assert found.operation_state.phase == "Failed"
        assert "application second, tiny version 8: no bundle in" in found.operation_state.message
        assert {one.name: one.health.status for one in found.resources}["tiny"] == "Healthy"
        assert line.answer()["model_version"] == "2"

        # Nor does a later promotion of the one wait for the other, which was unwell before and shall stay as it is.
        line.merge(application("tiny", line.model("1")), application("second", second))
        found = line.reconciler().run_once()
        assert found.sync.status == "Synced"
        assert found.health.status in ("Degraded", "Progressing"), found.to_json()  # Serve tries again at each change
        assert found.operation_state is not None
        assert found.operation_state.phase == "Succeeded", found.operation_state.message
        assert found.operation_state.message.count("mind: ") == 1
        assert "no bundle in" in found.operation_state.message
        last = Journal(line.state, ENVIRONMENT).history()[-1]
        assert (last.models["tiny"], last.revision) == (line.model("1"), found.sync.revision)
        assert line.answer()["model_version"] == "1"

        # What something would be told to load in place of what it serves must be whole.
        line.merge(application("tiny", second), application("second", second))
        found = line.reconciler().run_once()
        assert (found.sync.status, line.answer()["model_version"]) == ("OutOfSync", "1")
        assert found.operation_state is not None
        assert "application tiny, tiny version 8: no bundle in" in found.operation_state.message
    finally:
        gone.rename(place)
    line.serve()  # the way back


def test_a_promotion_neither_waits_for_nor_fails_with_what_was_unwell_before(line: Line, tmp_path: Path) -> None:
    second = application("second", line.model("1"), fail_if=str(tmp_path / "spoiled"))
    line.merge(application("tiny", line.model("1")), second)
    assert line.reconciler().sync().health.status == "Healthy"
    (tmp_path / "spoiled").touch()
    line.delete_all()
    failed = line.reconciler().sync()  # what comes up anew is waited for
    assert failed.operation_state is not None
    assert (failed.operation_state.phase, failed.health.status) == ("Failed", "Degraded")

    line.merge(application("tiny", line.model("2")), second)
    found = line.reconciler().run_once()
    assert found.operation_state is not None
    assert found.operation_state.phase == "Succeeded", found.to_json()
    assert "successfully synced; mind: second was not healthy before, and is" in (found.operation_state.message)
    assert found.sync.status == "Synced"
    assert found.health.status in ("Degraded", "Progressing")  # Serve tries to deploy it at each change
    assert line.answer()["model_version"] == "2"

    assert Journal(line.state, ENVIRONMENT).history()[-1].models == {"tiny": line.model("2"), "second": line.model("1")}

    # Put back by hand or by itself: the same holds.
    line.change_live(lambda config: config["deployments"][0].update(max_ongoing_requests=7))
    healed = line.reconciler(self_heal=True).run_once()
    assert healed.operation_state is not None
    assert (healed.operation_state.phase, healed.operation_state.heals) == ("Succeeded", 1), healed.to_json()
    assert line.reconciler().diff() == []
    (tmp_path / "spoiled").unlink()
    line.serve()


def test_what_a_commit_broke_itself_it_answers_for_however_often_it_is_tried(line: Line) -> None:
    line.merge(application("tiny", line.model("1")), application("second", line.model("1")))
    assert line.reconciler().sync().health.status == "Healthy"
    before = len(Journal(line.state, ENVIRONMENT).history())
    broken = application("second", line.model("1"), fail="on purpose")
    line.merge(application("tiny", line.model("2")), broken)
    for _ in range(2):  # the second time it is unhealthy from the start
        found = line.reconciler().sync()
        assert found.operation_state is not None
        assert found.operation_state.phase == "Failed", found.to_json()
        assert found.operation_state.unhealthy == ()
    assert len(Journal(line.state, ENVIRONMENT).history()) == before

    # But the next one does not, that is about something else.
    line.merge(application("tiny", line.model("1")), broken)
    found = line.reconciler().run_once()
    assert found.operation_state is not None
    assert (found.operation_state.phase, found.operation_state.unhealthy) == ("Succeeded", ("second",))
    assert line.answer()["model_version"] == "1"
    line.serve()


def test_after_a_restart_without_git_what_it_said_last_is_served(line: Line, tmp_path: Path) -> None:
    line.serve("2")
    line.serve()
    place = Path(line.repository.location)
    mirrored = Repository(place.as_uri(), tmp_path)
    reconciler = Reconciler(mirrored, MAIN, ENVIRONMENT, line.api, line.state, QUICK)
    assert reconciler.run_once().sync.status == "Synced"
    line.merge(application("tiny", line.model("2")))  # nobody has seen it when Git goes away
    away = place.rename(place.with_name("away.git"))
    try:
        line.delete_all()
        Reconciler(mirrored, "no-branch", ENVIRONMENT, line.api, line.state, QUICK).sync()
        assert not line.api.applications().living, "a mistake is none to come up with"

        found = reconciler.sync()  # of another life of the cluster it would be due by itself
        assert (found.sync.status, found.health.status) == ("Unknown", "Healthy"), found.to_json()
        assert [condition.type for condition in found.conditions] == ["ComparisonError"]
        assert "deployed is what Git named when it was asked last: git failed" in found.conditions[0].message
        assert line.answer()["model_version"] == "1"

        again = reconciler.run_once()  # as ever while Git is away
        assert (again.sync.status, again.health.status) == ("Unknown", "Healthy"), again.to_json()
        assert again.operation_state == found.operation_state
    finally:
        away.rename(place)
    assert reconciler.run_once().sync.status == "Synced"
    assert line.answer()["model_version"] == "2"
    line.serve()  # the way back


def test_an_empty_environment_is_refused(line: Line) -> None:
    line.serve()
    line.merge()
    found = line.reconciler(prune=True).run_once()
    assert (found.sync.status, found.health.status) == ("OutOfSync", "Degraded")
    assert "--allow-empty" in found.health.message
    assert line.answer()["model_version"] == "1"


def test_a_missing_file_and_an_unknown_revision_are_named(line: Line, tmp_path: Path) -> None:
    for revision, environment, reason in (
        (MAIN, "nowhere", "no file gitops/environments/nowhere/serve-config.yaml"),
        ("no-branch", ENVIRONMENT, "no revision 'no-branch'"),
    ):
        found = Reconciler(line.repository, revision, environment, line.api, State.at(tmp_path), QUICK).run_once()
        assert found.sync.status == "Unknown"
        assert reason in found.conditions[0].message


def test_without_a_cluster_all_is_unknown(line: Line, tmp_path: Path) -> None:
    away = ServeApi(f"http://127.0.0.1:{free_port(0)}")
    found = Reconciler(line.repository, MAIN, ENVIRONMENT, away, State.at(tmp_path), QUICK).run_once()
    assert (found.sync.status, found.health.status) == ("Unknown", "Unknown")
    assert "does not answer" in found.health.message


def test_a_changed_port_is_said(line: Line) -> None:
    line.serve()
    text = line.repository.read(line.repository.tip(MAIN) or "", PATH)
    line.merge(text=text.replace(f'"port": {line.port}', '"port": 1234'))
    found = line.reconciler().run_once()
    assert any(item.type == "RestartRequiredWarning" and ":1234" in item.message for item in found.conditions)


def test_changed_grpc_options_are_said(line: Line) -> None:
    line.serve()
    text = line.repository.read(line.repository.tip(MAIN) or "", PATH)
    options = {"port": 9009, "grpc_servicer_functions": [GRPC_SERVICER]}
    line.merge(text=text.replace("{", f'{{"grpc_options": {json.dumps(options)}, ', 1))
    said = [item.message for item in line.reconciler().run_once().conditions if item.type == "RestartRequiredWarning"]
    assert [text.startswith("Git wants gRPC on port 9009 ") for text in said] == [True]
    assert "Serve has it off" in said[0]


def test_drift_is_reported_and_put_back_only_with_self_heal(line: Line) -> None:
    line.serve()

    def drift(config: dict[str, Any]) -> None:
        config["deployments"][0]["user_config"] = {"model": line.model("2", seconds=0.3).model_dump()}

    line.change_live(drift)
    seen = line.reconciler(prune=True).run_once()
    assert seen.sync.status == "OutOfSync"
    wait_for(lambda: line.answer()["model_version"] == "2", "the drift never came")

    healed = line.reconciler(prune=True, self_heal=True).run_once()
    assert (healed.sync.status, healed.health.status) == ("Synced", "Healthy")
    assert healed.operation_state is not None
    assert healed.operation_state.heals == 1
    assert line.answer()["model_version"] == "1"

    line.change_live(drift)
    soon = line.reconciler(prune=True, self_heal=True, retry_seconds=60).run_once()
    assert soon.sync.status == "OutOfSync"  # a second time it waits, for somebody works against it


def test_a_commit_that_changes_nothing_here_counts_as_attempted(line: Line) -> None:
    line.serve()
    line.merge(text="no YAML: [")
    failed = line.reconciler().run_once()
    assert failed.operation_state is not None
    assert failed.operation_state.phase == "Failed"
    commit = line.merge(application("tiny", line.model("1")))
    before = len(Journal(line.state, ENVIRONMENT).history())
    found = line.reconciler().run_once()
    assert found.operation_state is not None
    assert (found.operation_state.phase, found.operation_state.sync_result.revision) == ("Succeeded", commit)
    assert len(Journal(line.state, ENVIRONMENT).history()) == before  # nothing was deployed

    def drift(config: dict[str, Any]) -> None:
        config["deployments"][0]["max_queued_requests"] = 7

    line.change_live(drift)
    for _ in range(2):  # it would be the commit's first work, if the look above had not counted
        assert line.reconciler().run_once().sync.status == "OutOfSync"
    assert line.reconciler(self_heal=True).run_once().sync.status == "Synced"


def test_what_goes_on_answering_is_named_where_the_new_does_not_deploy(line: Line) -> None:
    line.serve()
    broken = application("tiny", line.model("1"))
    broken["import_path"] = "tests.gitops.nowhere:build"
    line.merge(broken)
    found = line.reconciler(retry_limit=0).run_once()
    assert found.health.status == "Degraded"
    assert [answer.split("@")[0] for item in found.resources for answer in item.served] == ["1"]
    assert line.answer()["model_version"] == "1"


def test_a_failing_application_is_retried_a_little_then_kept_and_pruned(line: Line) -> None:
    line.serve()
    tiny = application("tiny", line.model("1"))
    commit = line.merge(tiny, application("second", line.model("1"), fail="the builder fails on purpose"))

    def is_over() -> bool:
        last = Journal(line.state, ENVIRONMENT).status().operation_state
        return last is not None and last.sync_result.revision == commit and last.phase == "Failed"

    with watching(line.reconciler()):
        wait_for(is_over, "the retries never ended")
        before = put_time(line)
        time.sleep(1.5)  # several polls
        assert put_time(line) == before  # no hammering
    failed = Journal(line.state, ENVIRONMENT).status()
    assert failed.operation_state is not None
    assert failed.operation_state.retry_count == 1
    assert "given up after 1 retries" in failed.operation_state.message
    assert failed.health.status == "Degraded"
    assert "the builder fails on purpose" in failed.health.message
    assert {item.name: item.health.status for item in failed.resources} == {"tiny": "Healthy", "second": "Degraded"}
    assert line.answer()["model_version"] == "1"

    line.merge(tiny)
    kept = line.reconciler().run_once()
    assert (kept.sync.status, kept.health.status) == ("OutOfSync", "Healthy")
    assert {item.name: item.requires_pruning for item in kept.resources} == {"tiny": False, "second": True}
    assert "second" in line.api.applications().living
    pruned = line.reconciler(prune=True).run_once()
    assert (pruned.sync.status, pruned.health.status) == ("Synced", "Healthy")
    assert "second" not in line.api.applications().living


def test_what_others_deployed_is_never_pruned(line: Line, tmp_path: Path) -> None:
    line.serve()
    other = Reconciler(line.repository, MAIN, ENVIRONMENT, line.api, State.at(tmp_path), QUICK)
    other.settings = QUICK.model_copy(update={"prune": True, "allow_empty": True})
    line.merge()
    found = other.run_once()
    assert found.sync.status == "Synced"
    assert any(item.type == "OrphanedResourceWarning" and "tiny" in item.message for item in found.conditions)
    assert line.answer()["model_version"] == "1"


def test_one_writer_that_is_poked_and_asked(line: Line) -> None:
    line.serve()
    with watching(line.reconciler(poll_seconds=500)):
        wait_for(lambda: is_watched(line.state, ENVIRONMENT), "the watcher never started")
        with pytest.raises(StalledError, match=rf"another reconciler \(process {os.getpid()}\)"):
            line.reconciler().run_once()
        time.sleep(1)
        commit = line.merge(application("tiny", line.model("5")))
        (line.repository.git_dir / POKE).touch()
        wait_for(lambda: Journal(line.state, ENVIRONMENT).status().sync.revision == commit, "the poke was not noticed")
        wait_for(lambda: line.answer()["model_version"] == "5", "the commit was not applied")
        asked = line.reconciler().sync()
        assert asked.operation_state is not None
        assert (asked.operation_state.phase, asked.operation_state.automated) == ("Succeeded", False)
    assert not is_watched(line.state, ENVIRONMENT)


def test_an_interrupted_operation_is_taken_up_again(line: Line) -> None:
    line.serve()
    line.merge(application("tiny", line.model("6", seconds=3)))
    with watching(line.reconciler()):
        wait_for(lambda: Journal(line.state, ENVIRONMENT).status().health.status == "Progressing", "it never began")
    stopped = Journal(line.state, ENVIRONMENT).status().operation_state
    assert stopped is not None
    assert stopped.phase == "Error"
    assert "was stopped" in stopped.message
    found = line.reconciler().run_once()
    assert found.operation_state is not None
    assert (found.operation_state.phase, found.health.status) == ("Succeeded", "Healthy")


def test_a_newer_commit_ends_the_wait_for_an_older_one(line: Line) -> None:
    line.serve()
    line.merge(application("tiny", line.model("7", seconds=10)))
    with watching(line.reconciler()):
        wait_for(lambda: Journal(line.state, ENVIRONMENT).status().health.status == "Progressing", "it never began")
        commit = line.merge(application("tiny", line.model("1")))
        wait_for(lambda: Journal(line.state, ENVIRONMENT).status().sync.revision == commit, "it was not superseded")
    assert line.answer()["model_version"] == "1"


def test_the_next_commit_answers_for_what_the_one_before_had_no_time_to_judge(line: Line) -> None:
    line.merge(application("tiny", line.model("1")), application("second", line.model("1")))
    assert line.reconciler().sync().health.status == "Healthy"
    wrong = application("second", line.model("12", seconds=5, answers=0.9))
    line.merge(application("tiny", line.model("1")), wrong)
    first = threading.Thread(target=line.reconciler().run_once)
    first.start()
    wait_for(lambda: Journal(line.state, ENVIRONMENT).status().health.status == "Progressing", "it never began")
    line.merge(application("tiny", line.model("2")), wrong)
    first.join()
    superseded = Journal(line.state, ENVIRONMENT).status().operation_state
    assert superseded is not None
    assert "superseded" in superseded.message
    assert superseded.unjudged == ("second",)
    found = line.reconciler().run_once()
    assert found.operation_state is not None
    assert found.operation_state.phase == "Failed", found.to_json()
    assert "gives its probe image the score 0.9000" in found.operation_state.message
    line.serve()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_watcher_in_order(line: Line, tmp_path: Path, number: signal.Signals) -> None:
    script = (
        "import sys; from pathlib import Path; from gitops.reconcile import Reconciler; "
        "from gitops.repository import Repository; from gitops.serve_api import ServeApi; "
        "from gitops.state import State; "
        "Reconciler(Repository(sys.argv[1]), 'main', 'tests', ServeApi('http://127.0.0.1:9'), "
        "State.at(Path(sys.argv[2]))).watch(); print('in order')"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", script, line.repository.location, str(tmp_path)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        wait_for(
            lambda: Journal(State.at(tmp_path), "tests").status().reconciled_at is not None, "no status was written"
        )
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "in order\n")
