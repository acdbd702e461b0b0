"""Ray as `mergeline up` starts it."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gitops.state import State, write_atomically
from ray_jobs import cluster
from ray_jobs.cluster import SILENCE, Session, free_port
from tests.ray_jobs.test_ingress import session

ROOT = Path(__file__).parents[2]


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # by Ray, when imported
def test_ray_tells_nobody_about_its_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in session(tmp_path).environment().items():
        monkeypatch.setenv(name, value)
    from ray._common.usage import usage_lib

    assert not usage_lib.usage_stats_enabled()
    assert usage_lib._usage_stats_report_url().startswith("http://127.0.0.1:")  # type: ignore[no-untyped-call]


def test_nor_does_it_in_the_image() -> None:
    text = (ROOT / "Containerfile").read_text()
    assert all(f"{name}={value}" in text for name, value in SILENCE.items())


def test_a_port_that_is_free_stays_so_until_it_is_used() -> None:
    """Ray binds some of its ports a minute after they were chosen, when it has opened hundreds of others."""
    assert all(20_000 <= free_port(0) < 30_000 for _ in range(3))
    with socket.create_server(("127.0.0.1", preferred := free_port(0))):
        assert free_port(preferred) != preferred
    assert free_port(preferred) == preferred


def test_of_two_commands_at_once_one_starts_ray_and_both_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = []

    def launch(state: State, *_: object) -> Session:
        launched.append(session(tmp_path))
        time.sleep(0.3)
        write_atomically(state.session / "session.json", launched[-1].to_json())
        return launched[-1]

    monkeypatch.setattr(cluster, "_launch", launch)
    monkeypatch.setattr(Session, "is_running", lambda _: True)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: cluster.start_or_join(State.at(tmp_path)), range(2)))
    assert [one for one, _ in found] == [launched[0]] * 2
    assert sorted(ours for _, ours in found) == [False, True]
    assert len(launched) == 1


def test_a_session_that_cannot_be_written_down_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "state" / "session" / "session.json").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        cluster._launch(State.at(tmp_path / "state"), free_port(0), {})
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
