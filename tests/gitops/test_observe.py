"""What an observer says of a cluster that a local server pretends to be; test_reconcile has it beside a real one."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gitops.contracts.serving import Canary, ServedModel
from gitops.environment import Application, Environment, promote
from gitops.observe import observe
from gitops.seed import seed_environment, with_application
from gitops.serve_api import ServeApi
from gitops.status import Health
from tests.http_server import Handler, listening

ROOT = Path(__file__).parents[2]
OLD, NEW = (ServedModel(name="screw", version=number, uri=f"s3://line/{number}", sha256=number * 64) for number in "12")


class Cluster(Handler):
    """Ray's dashboard, and the replicas behind the same address, which answer by turns."""

    told: str = ""
    """The serve-config.yaml that Serve was told; empty: it runs nothing."""
    replicas: tuple[dict[str, Any], ...] = ()
    """What each replica answers."""
    status: str = "RUNNING"
    asked = 0
    busy_until = 0
    """Before that many questions only the first replica is free to answer."""
    refused_until = 0
    """Before that many questions nobody is."""
    refusal = 503

    def do_GET(self) -> None:
        answer = self.details() if self.path.startswith("/api/") else self.replica()
        refused = not self.path.startswith("/api/") and self.asked <= self.refused_until
        self.say(self.refusal if refused else 200, json.dumps(answer).encode())

    @classmethod
    def replica(cls) -> dict[str, Any]:
        cls.asked += 1
        number = cls.asked % len(cls.replicas) if cls.asked > cls.busy_until else 0
        return {"replica": f"replica {number}", **cls.replicas[number]}

    def details(self) -> dict[str, Any]:
        if not self.told:
            return {"applications": {}}
        told = Environment.parse(self.told, "a test")
        host, port = self.headers["Host"].split(":")
        found = {app.name: self.application(app) for app in told.applications.values()}
        return {"http_options": {"host": host, "port": int(port)}, "applications": found}

    def application(self, app: Application) -> dict[str, Any]:
        running = [{"replica_id": f"replica {i}", "state": "RUNNING"} for i in range(len(self.replicas))]
        deployment = {"name": app.deployment, "status": "HEALTHY", "target_num_replicas": len(running)}
        live = {"name": app.name, "route_prefix": app.route_prefix, "status": self.status}
        deployments = {app.deployment: deployment | {"replicas": running}}
        return live | {"deployed_app_config": app.config, "deployments": deployments}


@pytest.fixture
def cluster() -> type[Cluster]:
    return type("OneCluster", (Cluster,), {})


@pytest.fixture
def address(cluster: type[Cluster]) -> Iterator[str]:
    with listening(cluster) as url:
        yield url


def config(model: ServedModel | None) -> str:
    text = seed_environment("screw", "production")
    return promote(text, None, model) if model else text


def serves(model: ServedModel, wanted: ServedModel | None = None, load_error: str | None = None) -> dict[str, Any]:
    asked = wanted or model
    return {
        "version": model.version,
        "sha256": model.sha256,
        "wanted": {"version": asked.version, "sha256": asked.sha256},
        "load_error": load_error,
        "trial": None,
    }


def seen(address: str, wanted: ServedModel | None) -> tuple[str, str]:
    health = observe(ServeApi(address), Environment.parse(config(wanted), "a test"))
    return health.status, health.message


REFUSED = serves(OLD, NEW, "no bundle in s3://line/2")
STARTING = {"version": None, "sha256": None, "wanted": None, "load_error": None, "trial": None}


@pytest.mark.parametrize(
    ("told", "status", "replicas", "expected"),
    [
        (NEW, "RUNNING", [serves(NEW), serves(NEW)], ("Healthy", "")),
        (NEW, "RUNNING", [serves(NEW), serves(OLD, NEW)], ("Progressing", "1 of 2 replicas serve screw version 2")),
        (NEW, "RUNNING", [serves(NEW), REFUSED], ("Degraded", "version 1 goes on answering: no bundle in s3://line/2")),
        (NEW, "DEPLOYING", [serves(NEW)], ("Progressing", "screw is DEPLOYING")),
        (NEW, "DEPLOY_FAILED", [serves(NEW)], ("Degraded", "screw is DEPLOY_FAILED")),
        (OLD, "RUNNING", [serves(OLD)], ("Progressing", "and Serve was told to serve screw version 1")),
        (None, "RUNNING", [STARTING], ("Progressing", "and Serve was told to serve no model")),
    ],
)
def test_every_replica_must_serve_what_is_wanted(
    cluster: type[Cluster],
    address: str,
    told: ServedModel | None,
    status: str,
    replicas: list[dict[str, Any]],
    expected: tuple[str, str],
) -> None:
    cluster.told, cluster.status, cluster.replicas = config(told), status, tuple(replicas)
    found, message = seen(address, NEW)
    assert found == expected[0]
    assert expected[1] in message


def test_a_busy_replica_is_waited_for_a_while(cluster: type[Cluster], address: str) -> None:
    cluster.told, cluster.replicas, cluster.busy_until = config(NEW), (serves(NEW), serves(NEW)), 24
    assert seen(address, NEW) == ("Healthy", "")
    cluster.busy_until = 10**6
    assert seen(address, NEW) == ("Progressing", "1 of 2 replicas serve screw version 2 (not every replica was met)")


def test_an_application_that_only_has_much_to_do_is_asked_again(cluster: type[Cluster], address: str) -> None:
    cluster.told, cluster.replicas, cluster.refused_until = config(NEW), (serves(NEW),), 20
    assert seen(address, NEW) == ("Healthy", "")
    cluster.asked, cluster.refusal = 0, 404
    assert seen(address, NEW)[0] == "Degraded"
    assert cluster.asked == 8, "nobody is there"


def test_before_the_first_promotion_all_is_well_once_it_runs(cluster: type[Cluster], address: str) -> None:
    assert seen(address, None) == ("Missing", "screw is not deployed")
    cluster.told, cluster.replicas, cluster.status = config(None), (STARTING,), "DEPLOYING"
    assert seen(address, None)[0] == "Progressing"
    cluster.status = "RUNNING"
    assert seen(address, None) == ("Healthy", "nothing was promoted to screw yet")
    assert cluster.asked == 0


def test_a_candidate_must_be_loaded_too(cluster: type[Cluster], address: str) -> None:
    canary = Canary(percent=10, model=NEW)
    cluster.told = promote(config(OLD), None, OLD, trial=canary)
    wanted = Environment.parse(cluster.told, "a test")
    tried = {"kind": "canary", "percent": 10, "version": NEW.version, "sha256": NEW.sha256, "load_error": None}
    for loaded, expected in ((False, "Progressing"), (True, "Healthy")):
        cluster.replicas = (serves(OLD) | {"trial": tried | {"loaded": loaded}},)
        assert observe(ServeApi(address), wanted).status == expected
    assert seen(address, OLD)[0] == "Progressing", "Git has no candidate"


def test_the_worst_of_several_applications_counts(cluster: type[Cluster], address: str) -> None:
    cluster.told = with_application(config(NEW), "nut", "production")
    cluster.replicas = (serves(NEW),)
    wanted = Environment.parse(cluster.told, "a test")
    assert observe(ServeApi(address), wanted).status == "Healthy"
    cluster.told = config(NEW)
    assert observe(ServeApi(address), wanted) == Health(status="Missing", message="nut is not deployed")


def test_no_replica_is_none_to_ask(cluster: type[Cluster], address: str) -> None:
    cluster.told = config(NEW)
    assert seen(address, NEW) == ("Healthy", "screw has no running replica"), "it was scaled to zero"


def test_a_cluster_that_does_not_answer_is_unknown() -> None:
    status, message = seen("http://127.0.0.1:9", NEW)
    assert status == "Unknown"
    assert "does not answer" in message


def wait_for(health: Path, beginning: str) -> None:
    deadline = time.monotonic() + 60
    while not health.read_text().startswith(beginning):
        assert time.monotonic() < deadline, health.read_text()
        time.sleep(0.1)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mergeline", "observe", *arguments]


@pytest.mark.parametrize(
    ("replica", "code", "printed"), [(serves(NEW), 0, "Healthy\n"), (REFUSED, 1, "Degraded: wanted is screw version 2")]
)
def test_the_command_says_it_once(
    cluster: type[Cluster], address: str, tmp_path: Path, replica: dict[str, Any], code: int, printed: str
) -> None:
    cluster.told, cluster.replicas = config(NEW), (replica,)
    (file := tmp_path / "serve-config.yaml").write_text(cluster.told)
    state = ("--state", str(tmp_path / "state"))
    result = subprocess.run(
        command(str(file), "--address", address, *state),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (code, "")
    assert result.stdout.startswith(printed)


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    result = subprocess.run(
        command(str(tmp_path / "none.yaml"), "--address", "http://127.0.0.1:9"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == f"error: cannot read {tmp_path}/none.yaml: No such file or directory\n"


def test_a_watcher_keeps_what_it_sees_in_a_file_until_it_is_ended(
    cluster: type[Cluster], address: str, tmp_path: Path
) -> None:
    """As the base's Deployment runs it; its probe reads the file."""
    cluster.told, cluster.replicas = config(NEW), (REFUSED,)
    (file := tmp_path / "serve-config.yaml").write_text(cluster.told)
    health = tmp_path / "health"
    health.write_text("Healthy\n")  # of a life before, which no probe must believe
    watching = command(str(file), "--address", address, "--health", str(health), "--state", str(tmp_path / "state"))
    with subprocess.Popen(watching, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        wait_for(health, "Degraded: wanted is screw")
        cluster.replicas = (serves(NEW),)
        wait_for(health, "Healthy")
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert [line.partition(":")[0] for line in printed.splitlines()] == ["Degraded", "Healthy"]
