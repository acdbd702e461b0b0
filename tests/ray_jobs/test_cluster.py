"""Ray as `mergeline up` starts it."""

import socket
from pathlib import Path

import pytest

from ray_jobs.cluster import SILENCE, free_port
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
