"""What a pass makes of bundles that cannot be had: what they keep back, and what is not waited for."""

from typing import Any

import pytest

from gitops.contracts.serving import Canary, FleetConfig, ServedModel, UserConfig
from gitops.environment import Environment
from gitops.errors import BundleError
from gitops.report import Pass, status_of
from gitops.serve_api import Application, ServeDetails
from gitops.state import stable_json
from gitops.status import Health, Resource, Status
from gitops.wire import NO_ANSWERS, Answers, ReplicaMetadata

ONE, TWO, THREE = (
    ServedModel(name="screw", version=version, uri="file:///bundle", sha256=version * 64) for version in "123"
)


def entry(wanted: UserConfig | FleetConfig) -> dict[str, Any]:
    """An application's configuration."""
    kind = "fleet" if isinstance(wanted, FleetConfig) else "app"
    deployment = "Fleet" if kind == "fleet" else "Classifier"
    config = wanted.model_dump(mode="json", exclude_none=True)
    if kind == "app":
        config.setdefault("model", None)
    return {
        "name": "screw",
        "route_prefix": "/",
        "import_path": f"serve.{kind}:build",
        "deployments": [{"name": deployment, "user_config": config}],
    }


def live(wanted: UserConfig | FleetConfig, status: str = "RUNNING", replicas: str = "") -> ServeDetails:
    running = [{"replica_id": replica, "state": "RUNNING"} for replica in replicas]
    deployments = {"Classifier": {"name": "Classifier", "status": "UPDATING", "replicas": running}} if running else {}
    raw = {"name": "screw", "status": status, "deployed_app_config": entry(wanted), "deployments": deployments}
    app = Application.parse(raw, "a test")
    return ServeDetails(applications={"screw": app})


NOTHING = ServeDetails(applications={})
FLEET = FleetConfig(models={"screw": ONE})
CANARY = UserConfig(model=ONE, canary=Canary(percent=10, model=TWO))


@pytest.mark.parametrize(
    ("running", "wanted", "model", "loses"),
    [
        (NOTHING, UserConfig(model=ONE), ONE, False),  # as after a restart
        (live(UserConfig(model=ONE)), UserConfig(model=ONE), ONE, False),  # another application changes
        (live(UserConfig(model=ONE), "DEPLOYING"), UserConfig(model=ONE), ONE, False),
        (live(UserConfig(model=ONE)), UserConfig(model=TWO), TWO, True),
        (live(UserConfig()), UserConfig(model=ONE), ONE, True),
        (live(CANARY), UserConfig(model=ONE), ONE, False),  # the canary is aborted
        (live(CANARY), UserConfig(model=TWO), TWO, False),  # it is finished
        (live(UserConfig(model=ONE)), CANARY, TWO, True),
        (live(FLEET), FLEET, ONE, False),
        (live(FLEET), FleetConfig(models={"screw": TWO}), TWO, True),
    ],
)
def test_a_bundle_that_is_gone_keeps_a_commit_back_where_it_would_take_the_place_of_what_runs(
    running: ServeDetails, wanted: UserConfig | FleetConfig, model: ServedModel, *, loses: bool
) -> None:
    environment = Environment.parse(stable_json({"applications": [entry(wanted)]}), "a test")
    found = Pass(previous=Status(environment="local"), live=running, environment=environment)
    (target,) = environment.targets()
    assert found.would_lose(target, model) is loses


ANSWERING = Answers(
    {"a": ReplicaMetadata(version=None, sha256=None, wanted=None, load_error=None, trial=None, replica="a")}
)


@pytest.mark.parametrize(
    ("status", "answers", "hopeless"),
    [
        ("DEPLOYING", NO_ANSWERS, ["screw"]),
        ("DEPLOYING", ANSWERING, []),  # its model is in memory
        ("DEPLOY_FAILED", NO_ANSWERS, []),  # Serve says why
    ],
)
def test_what_has_no_bundle_and_no_replica_is_not_waited_for(
    status: str, answers: Answers, hopeless: list[str]
) -> None:
    found = Pass(previous=Status(environment="local"), live=live(UserConfig(model=ONE), status))
    assert found.hopeless() == []
    found.damaged, found.answers = {"screw": BundleError("gone")}, {"screw": answers}
    assert found.hopeless() == hopeless


@pytest.mark.parametrize(
    ("running", "answers", "status", "served"),
    [
        # Before a change is applied, and while Serve tells the replicas of it, nobody asks them.
        (live(CANARY, replicas="a"), {}, "Healthy", ("1",)),
        (live(CANARY, "DEPLOYING", "a"), {"screw": NO_ANSWERS}, "Progressing", ("1",)),
        (live(CANARY, "DEPLOYING"), {"screw": NO_ANSWERS}, "Progressing", ()),  # a new cluster: none is there yet
        (live(CANARY, replicas="a"), {"screw": Answers({}, "connection refused")}, "Degraded", ()),
        (NOTHING, {}, "Missing", ()),
    ],
)
def test_replicas_that_are_not_asked_serve_what_they_served(
    running: ServeDetails, answers: dict[str, Answers], status: str, served: tuple[str, ...]
) -> None:
    before = Resource(name="screw", health=Health(status="Healthy"), served=("1",))
    found = Pass(previous=Status(environment="local", resources=(before,)), live=running, answers=answers)
    found.desired = {"applications": [entry(CANARY)]}
    (resource,) = status_of("local", found, None).resources
    assert (resource.health.status, resource.served) == (status, served)
