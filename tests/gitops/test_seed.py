"""The packaged environments are what Ray and our application take, and fit this machine."""

from pathlib import Path

import pytest

from gitops.environment import BUILDERS, Environment
from gitops.errors import ContractError
from gitops.seed import seed_environment, with_application, with_port
from gitops.state import State

pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # by Ray, when imported

LOCAL = seed_environment("screw", "local")


@pytest.mark.parametrize("environment", ["local", "staging", "production"])
def test_rays_schema_takes_the_seeds(environment: str) -> None:
    from ray.serve.config import AutoscalingConfig
    from ray.serve.schema import ServeDeploySchema

    seed = Environment.parse(seed_environment("screw", environment), environment)
    parsed = ServeDeploySchema.model_validate(seed.config)
    deployment = parsed.applications[0].deployments[0]
    assert deployment.max_surge_percent == 100
    AutoscalingConfig.model_validate(deployment.autoscaling_config)
    assert seed.served() == {"screw": None}


def test_the_local_environment_answers_on_loopback() -> None:
    seed = Environment.parse(LOCAL, "local")
    assert (seed.http_host, seed.http_port) == ("127.0.0.1", 8000)
    assert seed.applications["screw"].route_prefix == "/"
    assert seed.applications["screw"].deployment == BUILDERS["serve.app:build"].deployment


def test_a_seed_bears_the_projects_name() -> None:
    assert list(Environment.parse(seed_environment("bolt", "staging"), "x").applications) == ["bolt"]
    assert seed_environment("bolt", "line-7") == seed_environment("bolt", "local") == LOCAL.replace("screw", "bolt")
    assert list(Environment.parse(seed_environment("123", "local"), "x").applications) == ["123"]


def test_another_port_changes_that_line_only() -> None:
    assert with_port(LOCAL, 8123) == LOCAL.replace("  port: 8000\n", "  port: 8123\n")
    with pytest.raises(ContractError, match="'http_options' must stand there"):
        with_port("applications: []\n", 8123)


def test_a_seed_for_this_machine_names_folders_of_its_state(tmp_path: Path) -> None:
    state = State.at(tmp_path / "with space")
    text = seed_environment("bolt", "local", 8123, state)
    environment = Environment.parse(text, "x")
    application = environment.applications["bolt"]
    assert application.config["args"]["feedback"] == str(state.feedback / "local")
    assert application.config["args"]["journal"] == str(state.reconciler / "local")
    assert application.config["args"]["windows"] == str(state.windows / "local")
    assert environment.url(environment.find(None, "bolt", "x")) == "http://127.0.0.1:8123"
    # An environment that is made for other machines has no such folders, and gets none.
    assert seed_environment("bolt", "production", None, state) == seed_environment("bolt", "production")


@pytest.mark.parametrize(
    ("cores", "threads", "alone", "replicas", "requests"),
    [(1, 1, 1, (1, 1), 4), (2, 1, 2, (2, 3), 24), (3, 1, 2, (2, 3), 4), (15, 1, 2, (2, 8), 4), (64, 8, 8, (2, 8), 32)],
)
def test_a_seed_for_this_machine_has_replicas_for_its_cores(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    threads: int,
    alone: int,
    replicas: tuple[int, int],
    requests: int,
) -> None:
    monkeypatch.setattr("gitops.seed.usable_cores", lambda: cores)
    here = Environment.parse(seed_environment("screw", "local", None, State.at(tmp_path)), "x")
    application = here.applications["screw"].config
    scaling = application["deployments"][0]["autoscaling_config"]
    assert (application["args"]["threads"], application["args"]["threads_alone"]) == (threads, alone)
    assert (scaling["min_replicas"], scaling["max_replicas"]) == replicas
    assert scaling["target_ongoing_requests"] == requests
    # What is written for another machine knows nothing of this one's cores.
    assert seed_environment("screw", "local") == LOCAL


def test_a_second_project_joins_an_environment_that_keeps_no_feedback(tmp_path: Path) -> None:
    joined = with_application(seed_environment("screw", "staging"), "bolt", "staging", State.at(tmp_path))
    assert set(Environment.parse(joined, "x").applications) == {"screw", "bolt"}
