"""What several tests need: a Ray in this process, and a real head node as `mergeline up` starts it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gitops.state import State

LONGEST = ("test_retraining.py", "test_line.py", "test_image.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes: begun last, one keeps a worker busy while the others have nothing."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="module")
def ray_local() -> Iterator[None]:
    """A Ray that lives in the test process's own session and ends with the module."""
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@dataclass(frozen=True)
class RayCluster:
    """A head node of its own, with dashboard, Serve API and token authentication."""

    address: str
    dashboard_url: str
    environment: dict[str, str]
    token: str
    state: State


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A real head node, started and ended as `mergeline up` and `mergeline down` do it."""
    from ray_jobs import cluster

    state = State.at(tmp_path_factory.mktemp("cluster"))
    # Test modules hold the applications and bundles that some tests deploy.
    root = str(Path(__file__).parents[1])
    session = cluster.start(state, dashboard_port=cluster.free_port(0), variables={"PYTHONPATH": root})
    try:
        token = Path(session.token_file).read_text().strip()
        yield RayCluster(session.ray_address, session.dashboard, session.environment(), token, state)
    finally:
        cluster.stop(state)
