"""What `mergeline up` promotes, and nothing while a version is on trial; how a second project joins the first."""

import io
import socket
import subprocess
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from gitops.contracts.project import Gate, Project
from gitops.contracts.serving import ModelVersion
from gitops.environment import Environment
from gitops.errors import GateError
from gitops.layout import PROJECT_PATH, project_path, serve_config_path
from gitops.promotion import Destination, to_yaml
from gitops.repository import MAIN, Repository, create_bare
from gitops.seed import seed_environment, with_application
from gitops.state import write_atomically
from gitops.status import now
from ray_jobs import cluster, local
from ray_jobs.cluster import ClusterError, free_port
from ray_jobs.local import Options, _join, _promote, _started, _tell
from ray_jobs.stage import Stage
from tests.gitops.deployments import make_version
from tests.ray_jobs.test_ingress import session
from tests.stages import make_stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """With versions 1 and 2, and a deployments repository that serves neither."""
    stage = make_stage(tmp_path)
    path = serve_config_path("local")
    seed = {PROJECT_PATH: stage.project_file.read_text(), path: seed_environment("screw", "local")}
    create_bare(stage.state.repository, seed, {})
    for number in ("1", "2"):
        version = make_version(tmp_path, number)
        write_atomically(stage.state.models / "screw" / f"{number}.yaml", to_yaml(version))
    return stage


def up(stage: Stage) -> tuple[ModelVersion, str, str]:
    """The version that shall be served, the commit, and what was printed."""
    said = io.StringIO()
    repository = Repository(stage.state.repository)
    version, commit = _promote(stage, Options("local"), repository, Console(file=said, width=200))
    return version, commit, said.getvalue()


def test_the_newest_version_is_promoted(stage: Stage) -> None:
    version, commit, said = up(stage)
    assert (version.model.version, "promoting screw 2 to local" in said) == ("2", True)
    assert up(stage)[1] == commit == Repository(stage.state.repository).tip(MAIN)


def test_a_trial_goes_on_as_whoever_began_it_left_it(stage: Stage) -> None:
    repository, (first, second) = Repository(stage.state.repository), stage.state.versions("screw")
    Destination(repository, "local").promote(first, merge=True)
    tip = Destination(repository, "local").try_beside(second, 10, merge=True).commit
    version, commit, said = up(stage)
    assert (version, commit) == (first, tip)
    assert "not promoting screw 2: local has a canary of version 2 (10 %); finish or abort it first" in said


def test_a_second_project_joins_the_first_at_a_route_of_its_own(stage: Stage, tmp_path: Path) -> None:
    repository, said = Repository(stage.state.repository), io.StringIO()
    text = stage.project.model_copy(update={"name": "bolt"}).to_json()
    (tmp_path / "bolt.yaml").write_text(text)
    second = Stage(Project.read(tmp_path / "bolt.yaml"), tmp_path / "bolt.yaml", stage.state)
    before = repository.read(MAIN, serve_config_path("local"))
    for _ in range(2):
        for joining in (stage, second):
            _join(joining, Options("local"), repository, Console(file=said, width=200))
    assert said.getvalue() == "added bolt beside screw, at the route /bolt\n"
    after = repository.read(MAIN, serve_config_path("local"))
    assert after.startswith(before.rstrip())
    served = Environment.parse(after, "x")
    assert {name: app.route_prefix for name, app in served.applications.items()} == {"screw": "/", "bolt": "/bolt"}
    arguments = served.applications["bolt"].config["args"]
    assert arguments["feedback"] == str(stage.state.feedback / "local" / "bolt")
    assert repository.read(MAIN, project_path("bolt")) == text

    made = make_version(tmp_path / "bolts", "1")
    made = made.model_copy(update={"model": made.model.model_copy(update={"name": "bolt"})})
    write_atomically(stage.state.models / "bolt" / "1.yaml", to_yaml(made))
    with pytest.raises(GateError, match="is a model of screw, not bolt"):  # its bundle: all else passes
        _promote(second, Options("local"), repository, Console(file=said))
    assert up(stage)[0].model.version == "2"


def test_bars_that_merges_are_not_judged_by_are_named(stage: Stage) -> None:
    repository, said = Repository(stage.state.repository), io.StringIO()
    raised = stage.project.model_copy(update={"gates": (Gate(metric="accuracy", min=0.99),)})
    _join(replace(stage, project=raised), Options("local"), repository, Console(file=said, width=500))
    assert f"mind: the gates in {stage.project_file} are not those that merges are judged by" in said.getvalue()
    assert Project.from_yaml(repository.read(MAIN, PROJECT_PATH), PROJECT_PATH) == stage.project


def test_up_looks_whether_the_port_that_git_names_is_free(stage: Stage) -> None:
    repository, path = Repository(stage.state.repository), serve_config_path("local")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        moved = seed_environment("screw", "local", port)
        repository.commit(MAIN, "move", {path: moved}, "Move")
        repository.merge("move", MAIN, "Merge")
        refused = pytest.raises(ClusterError, match=f"port {port} of local is in use by another program: end that, or")
        with refused, _started(stage, Options("local", port=free_port(0)), Console(file=io.StringIO())):
            pass


def test_an_application_that_is_there_already_is_left_as_it_is(stage: Stage, tmp_path: Path) -> None:
    repository, path = Repository(stage.state.repository), serve_config_path("local")
    there = with_application(repository.read(MAIN, path), "bolt", "local")
    repository.commit(MAIN, "by-hand", {path: there}, "Bolts")
    repository.merge("by-hand", MAIN, "Merge")
    (tmp_path / "bolt.yaml").write_text(stage.project.model_copy(update={"name": "bolt"}).to_json())
    second = Stage(Project.read(tmp_path / "bolt.yaml"), tmp_path / "bolt.yaml", stage.state)
    _join(second, Options("local"), repository, Console(file=io.StringIO()))
    assert repository.read(MAIN, path) == there
    assert repository.exists(MAIN, project_path("bolt"))


@pytest.mark.parametrize(("lives", "said"), [(True, "Ray has not answered for 0.5 s"), (False, "Ray has ended, see")])
def test_serving_ends_with_a_ray_that_is_dead_or_dumb(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, *, lives: bool, said: str
) -> None:
    running = session(stage.state.root)
    write_atomically(stage.state.session / "session.json", running.to_json())
    monkeypatch.setattr(local, "_SILENT_SECONDS", 0.5)
    monkeypatch.setattr(local, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(local, "_reconciler", lambda *_: psutil.Process())
    with subprocess.Popen(["sleep", "60"]) as raylet:
        monkeypatch.setattr(cluster, "vital_processes", lambda _: [psutil.Process(raylet.pid)])
        if not lives:
            raylet.kill()
        try:
            with pytest.raises(ClusterError, match=said):
                _tell(stage, Options("local"), running, Repository(stage.state.repository), Console(), now())
        finally:
            raylet.kill()


def test_serving_that_another_command_ends_is_no_failure(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    running, file = session(stage.state.root), stage.state.session / "session.json"
    write_atomically(file, running.to_json())
    monkeypatch.setattr(local, "_LOOK_SECONDS", 0.1)
    with subprocess.Popen(["true"]) as ended:
        dead = psutil.Process(ended.pid)
        ended.wait()
        monkeypatch.setattr(cluster, "vital_processes", lambda _: [dead])
        monkeypatch.setattr(local, "_reconciler", lambda *_: dead)
        threading.Timer(1.5, file.unlink).start()
        _tell(stage, Options("local"), running, Repository(stage.state.repository), Console(), now())
    assert not file.exists()


def test_whoever_joins_a_ray_that_another_command_started_does_not_end_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both commands have seen that nothing ran; only the one that started it is to end it."""
    other = session(stage.state.root)
    monkeypatch.setattr(cluster, "start_or_join", lambda _: (other, False))
    monkeypatch.setattr(cluster, "stop", lambda _: pytest.fail("it is not ours"))
    options = Options("local", port=free_port(0))
    with suppress(GateError), _started(stage, options, Console(file=io.StringIO())) as joined:
        assert joined == other
        raise GateError("refused")
    text = seed_environment("screw", "local", options.port)
    Repository(stage.state.repository).commit(MAIN, MAIN, {serve_config_path("local"): text}, "Another port\n")
    with pytest.raises(ClusterError, match="something runs for"):
        local.serve(stage, options, Repository(stage.state.repository), Console(file=io.StringIO()))
