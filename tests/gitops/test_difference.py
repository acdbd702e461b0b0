"""What counts as a difference between Git and the cluster, and what doesn't."""

from typing import Any

import pytest

from gitops.difference import Difference, differences, left_over, with_kept
from gitops.serve_api import ServeDetails


def app(name: str = "screw", **changed: Any) -> dict[str, Any]:
    deployments = [{"name": "Classifier", "num_replicas": 2, "user_config": {"model": {"version": "1"}}}]
    return {"name": name, "import_path": "serve.app:build", "deployments": deployments, **changed}


def live(*configs: dict[str, Any], **changed: Any) -> ServeDetails:
    entries = {
        config["name"]: {"name": config["name"], "status": "RUNNING", "deployed_app_config": config, **changed}
        for config in configs
    }
    return ServeDetails.parse({"applications": entries}, "a test")


def found(desired: dict[str, Any], running: ServeDetails) -> list[tuple[str, str, Any, Any]]:
    return [(d.path, d.kind, d.desired, d.live) for d in differences({"applications": [desired]}, running)]


@pytest.mark.parametrize(
    "same",
    [
        {},
        {"route_prefix": "/", "args": {}, "runtime_env": {}, "logging_config": None},
        {"deployments": [{"name": "Other"}, *app()["deployments"]]},
        {
            "deployments": [
                {"user_config": {"model": {"version": "1"}}, "num_replicas": 2.0, "name": "Classifier"},
            ]
        },
    ],
)
def test_what_makes_no_difference(same: dict[str, Any]) -> None:
    assert found(app(), live(app(**same))) == []
    assert found(app(**same), live(app())) == []


def test_a_changed_model_is_one_line() -> None:
    other = app()
    other["deployments"] = [{**other["deployments"][0], "user_config": {"model": {"version": "2"}}}]
    path = "deployments.Classifier.user_config.model.version"
    assert found(other, live(app())) == [(path, "changed", "2", "1")]
    assert str(differences({"applications": [other]}, live(app()))[0]) == f'~ screw: {path}: "1" → "2"'


def test_what_only_one_side_has() -> None:
    assert found(app(args={"threads": 2}), live(app(args={"bytes": 1}))) == [
        ("args.bytes", "removed", None, 1),
        ("args.threads", "added", 2, None),
    ]
    assert found(app(route_prefix="/a"), live(app())) == [("route_prefix", "added", "/a", None)]


def test_true_is_not_one() -> None:
    assert found(app(args={"fast": True}), live(app(args={"fast": 1}))) == [("args.fast", "changed", True, 1)]


def test_lists_are_compared_whole() -> None:
    assert found(app(args={"sizes": [1, 2]}), live(app(args={"sizes": [2, 1]}))) == [
        ("args.sizes", "changed", [1, 2], [2, 1])
    ]


def test_a_missing_application_is_added() -> None:
    missing = differences({"applications": [app()]}, live(app("other")))
    assert missing == [Difference(application="screw", path="", kind="added", desired=app())]
    assert str(missing[0]) == "+ screw"
    assert found(app(), live(app(), status="DELETING"))[0][1] == "added"


def test_an_application_that_code_put_there_is_different() -> None:
    assert found(app(), live(app(), source="imperative")) == [("source", "changed", "declarative", "imperative")]


def test_logging_of_the_top_level_is_handed_down_as_serve_does() -> None:
    logging = {"encoding": "JSON"}
    desired = {"logging_config": logging, "applications": [app()]}
    assert differences(desired, live(app(logging_config=logging))) == []
    assert [item.path for item in differences(desired, live(app()))] == ["logging_config"]


def test_what_git_does_not_name_is_kept_in_a_put() -> None:
    desired = {"http_options": {"port": 1}, "applications": [app()]}
    running = live(app(), app("other"))
    assert left_over(desired, running).keys() == {"other"}
    assert with_kept(desired, left_over(desired, running)) == {
        "http_options": {"port": 1},
        "applications": [app(), app("other")],
    }
    assert left_over(desired, live(app("other"), source="imperative")) == {}
