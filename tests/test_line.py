"""The line end to end on one machine: drawn parts in, a merged and served model out, as a user types it."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from gitops.state import State
from ray_jobs import cluster, processes
from tests.line import Line
from tests.processes import processes_named

PROJECT = """\
name: bolt
goal: Prove that the line runs.
owner: tests@localhost
classes: [good, defective]
data: {{source: rendered, rendered_images: 60, rendered_defective_share: 0.4}}
preprocessing: {{height: 64, width: 192}}
quality:
  - {{measure: part_found, min: 1}}
training:
  {{backbone: small_cnn, weights: none, head: random, epochs: {epochs}, learning_rate: 0.001, backbone_rate: 0.3,
   dropout: 0.3, batch_size: 8, seed: {seed}}}
gates:
  - {{metric: accuracy, min: {bar}}}
environments: [local, production]
"""


@dataclass
class Load:
    """Continuous requests, counted by the version that answered."""

    line: Line
    versions: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> "Load":
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(3)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        photograph = self.line.photograph()
        with httpx.Client(timeout=30, trust_env=False) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post(f"{self.line.url}/predict", content=photograph)
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    continue
                if answer.status_code == httpx.codes.OK:
                    self.versions[answer.json()["model_version"]] += 1
                else:
                    self.failures.append(answer.text)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    line = Line(tmp_path_factory.mktemp("line"), cluster.free_port(0), PROJECT)
    line.write_project()
    state = State.at(line.folder / ".mergeline")
    try:
        result = line.run("up", "--port", str(line.port))
        assert f"endpoint    {line.url}/predict" in result.stdout
        yield line
    finally:
        cluster.stop(state)


def test_up_ends_with_a_served_model(line: Line) -> None:
    answer = httpx.post(f"{line.url}/predict", content=line.photograph(), trust_env=False)
    assert answer.status_code == httpx.codes.OK
    assert answer.json()["label"] in ("good", "defective")
    assert answer.json()["model_version"] == "1"
    line.await_version("1")


def test_the_page_knows_the_environment_and_keeps_feedback_for_the_next_dataset(line: Line) -> None:
    served = httpx.get(f"{line.url}/served", trust_env=False).json()
    assert (served["environment"]["sync"], served["environment"]["health"]) == ("Synced", "Healthy")
    assert served["model"]["version"] == served["environment"]["history"][0]["version"] == "1"
    report = httpx.get(f"{line.url}/served/evaluation/{served['model']['sha256']}", trust_env=False)
    assert "Evaluation of bolt" in report.text
    photograph = line.photograph() + b"\0"  # another file, of the same picture: the source has no such one
    form = {"files": {"photograph": ("part.png", photograph)}, "data": {"label": "defective"}}
    httpx.post(f"{line.url}/feedback", **form, trust_env=False).raise_for_status()  # type: ignore[arg-type]
    listed = line.run("label", "import", ".mergeline/feedback/local/feedback.jsonl")
    assert "not in the source, taken from the feedback: 1: feedback/" in listed.stdout


def test_predict_asks_what_is_served(line: Line) -> None:
    photograph = next((line.folder / ".mergeline/sources").rglob("*.png"))
    good = httpx.post(f"{line.url}/predict", content=line.photograph(), trust_env=False).json()["label"] == "good"
    result = line.run("predict", str(photograph), "--json", code=0 if good else 3)
    assert json.loads(result.stdout)[0]["model_version"] == "1"


def test_up_again_changes_nothing(line: Line) -> None:
    before = line.status()
    line.run("up")
    after = line.status()
    assert after["history"] == before["history"]
    assert [path.name for path in (line.folder / ".mergeline/models/bolt").iterdir()] == ["1.yaml"]


def test_promotion_and_rollback_under_load_lose_no_request(line: Line) -> None:
    line.write_project(seed=1)
    line.run("submit", "pipeline")
    with Load(line) as load:
        line.run("promote", "--to", "local", "--merge")
        line.await_version("2")
        line.run("rollback", "local")
        line.await_version("1")
        time.sleep(0.5)
    assert load.failures == []
    assert set(load.versions) == {"1", "2"}
    deadline = time.monotonic() + 180
    while (versions := deployed(line)) != ["1", "2", "1"]:  # it is written when the reconciler has seen the answer
        assert time.monotonic() < deadline, versions
        time.sleep(0.5)


def deployed(line: Line) -> list[str]:
    history = json.loads(line.run("history", "--json").stdout)
    return [entry["models"]["bolt"]["version"] for entry in history if entry["models"]["bolt"]]


def test_a_version_under_the_bar_is_refused_and_serving_goes_on(line: Line) -> None:
    manifest = line.folder / ".mergeline/models/bolt/2.yaml"
    text = manifest.read_text()
    # The bar that counts is the one in the repository: the project file of whoever promotes changes nothing.
    repository = line.folder / ".mergeline/deployments.git"
    clone = line.folder / "clone"
    subprocess.run(["git", "clone", "-q", str(repository), str(clone)], check=True)
    project = clone / "project.yaml"
    project.write_text(project.read_text().replace("min: 0.0", "min: 1.01"))
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run(["git", *identity, "-C", str(clone), "commit", "-qam", "Raise the bar"], check=True)
    subprocess.run(["git", "-C", str(clone), "push", "-q", "origin", "HEAD:main"], check=True, capture_output=True)
    result = line.run("promote", "2", "--to", "local", "--merge", code=1)
    assert "accuracy" in result.stdout + result.stderr
    assert manifest.read_text() == text
    line.await_version("1")


def test_a_change_behind_gits_back_is_seen_and_healed_when_asked(line: Line) -> None:
    state = State.at(line.folder / ".mergeline")
    session = cluster.session_of(state)
    assert session is not None
    headers = {"Authorization": f"Bearer {Path(session.token_file).read_text().strip()}"}
    url = f"{session.dashboard}/api/serve/applications/"
    live = httpx.get(url, headers=headers, trust_env=False).json()["applications"]["bolt"]["deployed_app_config"]
    live["deployments"][0]["max_queued_requests"] = 7
    options = {"http_options": {"host": "127.0.0.1", "port": line.port}, "proxy_location": "HeadOnly"}
    httpx.put(url, headers=headers, json={**options, "applications": [live]}, trust_env=False).raise_for_status()
    shown = line.run("diff", code=1)
    assert "max_queued_requests" in shown.stdout
    with Load(line) as load:
        line.run("sync")
    assert load.failures == []
    assert line.run("diff").stdout == ""


def test_what_was_deployed_comes_up_again_where_the_photographs_are_away(line: Line) -> None:
    line.await_version("1")
    line.run("down")
    failed = line.run("up", "--port", str(line.port), "--data", "no-such-folder", code=1)
    assert "no-such-folder" in failed.stdout + failed.stderr
    assert "left running, as Git has something to serve" in failed.stdout
    line.await_version("1")


def test_down_ends_everything_that_up_started_and_nothing_else(line: Line) -> None:
    state = State.at(line.folder / ".mergeline")
    session = cluster.session_of(state)
    assert session is not None
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "ray", "reconcile", "--watch"])
    try:
        assert processes.of(session.id)
        line.run("down")
        assert processes.of(session.id) == []
        assert "Draining" not in (state.session / "ray.log").read_text(), "no other node could take over"
        assert bystander.poll() is None
        assert not any(str(line.folder) in " ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"]))
    finally:
        bystander.kill()
        bystander.wait()


def test_a_machine_can_serve_what_git_wants_and_nothing_else(line: Line) -> None:
    state = State.at(line.folder / ".mergeline")
    with serving(line) as service:
        line.await_version("1")
        session = cluster.session_of(state)
        assert session is not None
        (head,) = processes_named(state, "gcs_server").values()
        posix_session = os.getsid(head.pid)
        head.kill()
        assert service.wait(timeout=120) == 1
        assert service.stderr is not None
        assert "Ray has ended, see" in service.stderr.read()
        assert processes.of(session.id) == []
        assert living_in(posix_session) == [], "Ray's agents outlive its other processes, and have lost their mark"
    with serving(line) as service:
        line.await_version("1")
        assert "something runs for" in line.run("serve", code=1).stderr
        assert line.run("predict", str(next((line.folder / ".mergeline/sources").rglob("*.png")))).stdout
        session = cluster.session_of(state)
        assert session is not None
        service.terminate()
        assert service.wait(timeout=60) == 0
        assert service.stdout is not None
        said = service.stdout.read()
        assert "Synced, Healthy, served: bolt 1" in said
        assert said.endswith("ended\n")
        assert processes.of(session.id) == []
    with serving(line) as service:
        line.await_version("1")
        session = cluster.session_of(state)
        assert session is not None
        line.run("down")
        assert service.wait(timeout=90) is not None
        assert processes.of(session.id) == [], "nothing was started while all of it was being ended"


def living_in(posix_session: int) -> list[psutil.Process]:
    """Processes of a POSIX session that have not ended."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) == posix_session and processes.is_alive(process):
                found.append(process)
    return found


@contextmanager
def serving(line: Line) -> Iterator[subprocess.Popen[str]]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    command = [sys.executable, "-m", "mergeline", "serve"]
    with subprocess.Popen(
        command, cwd=line.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as service:
        try:
            yield service
        finally:
            service.terminate()
