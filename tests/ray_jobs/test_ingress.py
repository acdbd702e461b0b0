"""How requests come in: by HAProxy where it can, and where it cannot, that is said wherever somebody looks."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from gitops.state import State
from mergeline.verbs import app
from ray_jobs import cluster, doctor, ingress
from ray_jobs.cluster import Session
from tests.test_mergeline import ROOT


def session(folder: Path) -> Session:
    return Session(
        id="1",
        ray_address="127.0.0.1:1",
        dashboard="http://127.0.0.1:1",
        token_file=str(folder / "token"),
        folder=str(folder),
        without_haproxy=ingress.obstacle(folder),
    )


def test_a_short_folder_has_room_for_haproxy_s_sockets() -> None:
    folder = Path("/tmp/mergeline-ray-12345678")
    assert ingress.obstacle(folder) == ""
    assert ingress.variables(folder, lambda port: 1)["RAY_SERVE_HAPROXY_SOCKET_PATH"] == f"{folder}/a.sock"


def test_a_long_folder_leaves_haproxy_out_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / "a-folder-whose-name-is-long"
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    reason = ingress.obstacle(cluster.next_folder())
    assert f"the paths of sockets below {long}/mergeline-ray-xxxxxxxx are too long for HAProxy" in reason
    assert "set TMPDIR to a folder whose path has" in reason
    assert ingress.variables(cluster.next_folder(), lambda port: 1) == {}

    state = State.at(tmp_path / "state")
    (check,) = (check for check in doctor.examine(state, 0) if check.name == "HAProxy")
    assert (check.level, check.remedy) == (doctor.Level.OPTIONAL, reason)

    state.session.mkdir(parents=True)
    (state.session / "session.json").write_text(session(cluster.next_folder()).to_json())
    command = ["status", "--project", str(ROOT / "project.yaml"), "--state", str(state.root)]
    assert reason in CliRunner().invoke(app, command, env={"COLUMNS": "400"}).stdout
