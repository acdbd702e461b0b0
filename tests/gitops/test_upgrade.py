"""What a change will do to what runs, said before it is merged."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from gitops.contracts.serving import ServedModel
from gitops.environment import Environment, promote
from gitops.seed import seed_environment
from gitops.upgrade import AT_START, RESTARTING, Upgrade, forecast

MODEL = ServedModel(name="screw", version="3", uri="s3://bundles/b", sha256="ab" * 32)
TEXT = seed_environment("screw", "production")
# Ray imports them when it reads the configuration.
ROUTER = "ray.serve._private.request_router:PowerOfTwoChoicesRequestRouter"
POLICY = "ray.serve.autoscaling_policy:default_autoscaling_policy"


def config(text: str = TEXT) -> dict[str, Any]:
    return Environment.parse(text, "a test").config


def group(**changed: Any) -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "ray-worker", "image": "mergeline@sha256:a"}]}}
    return {"groupName": "cpu", "replicas": 2, "minReplicas": 2, "maxReplicas": 4, "template": template, **changed}


def service(*groups: dict[str, Any], strategy: str = "NewCluster", image: str = "mergeline@sha256:a") -> dict[str, Any]:
    head = {"template": {"spec": {"containers": [{"name": "ray-head", "image": image}]}}}
    spec = {"headGroupSpec": head, "workerGroupSpecs": list(groups or (group(),))}
    metadata = {"name": "mergeline", "namespace": "mergeline-production"}
    whole = {"upgradeStrategy": {"type": strategy}, "rayClusterConfig": spec, "serveConfigV2": image}
    return {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": metadata, "spec": whole}


def policy(name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "mergeline-production"}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def of_config(change: Callable[[dict[str, Any]], object]) -> tuple[Upgrade, list[str]]:
    after = copy.deepcopy(config())
    change(after)
    found = forecast("production", (config(), after), None)
    return found.upgrade, [change.where for change in found.changes]


def deployment(config: dict[str, Any]) -> Any:
    return config["applications"][0]["deployments"][0]


def test_nothing_changes() -> None:
    found = forecast("production", (config(), config()), ([service()], [service()]))
    assert (found.upgrade, found.changes) == (Upgrade.NONE, ())
    assert str(found) == "production: nothing changes"


def test_a_promotion_is_taken_in_place() -> None:
    promoted = promote(TEXT, None, MODEL)
    found = forecast("production", (config(), config(promoted)), ([service()], [service()]))
    assert found.upgrade is Upgrade.IN_PLACE
    assert str(found).splitlines() == [
        "production: in place (replicas take it as they run)",
        "  in place: serve-config.yaml: applications.screw.deployments.Classifier.user_config.model",
    ]


SERVE_CHANGES: list[tuple[Callable[[dict[str, Any]], object], Upgrade, str]] = [
    (
        lambda c: deployment(c).update(max_queued_requests=1),
        Upgrade.IN_PLACE,
        "deployments.Classifier.max_queued_requests",
    ),
    (
        lambda c: deployment(c)["autoscaling_config"].update(max_replicas=9),
        Upgrade.IN_PLACE,
        "deployments.Classifier.autoscaling_config.max_replicas",
    ),
    (
        lambda c: deployment(c).pop("autoscaling_config"),
        Upgrade.RESTART,
        "deployments.Classifier.autoscaling_config",
    ),
    (
        lambda c: deployment(c).update(request_router_config={"request_router_class": ROUTER}),
        Upgrade.RESTART,
        "deployments.Classifier.request_router_config",
    ),
    (lambda c: c["applications"][0]["args"].update(threads=4), Upgrade.RESTART, "args.threads"),
    (
        lambda c: deployment(c)["ray_actor_options"].update(num_cpus=1),
        Upgrade.RESTART,
        "deployments.Classifier.ray_actor_options.num_cpus",
    ),
    (lambda c: c["applications"][0].update(import_path="other:build"), Upgrade.RESTART, "import_path"),
    (lambda c: c["applications"][0].update(route_prefix="/a"), Upgrade.IN_PLACE, "route_prefix"),
    (
        lambda c: deployment(c)["autoscaling_config"].update(policy={"policy_function": POLICY}),
        Upgrade.RESTART,
        "deployments.Classifier.autoscaling_config.policy",
    ),
    (
        lambda c: deployment(c).update(max_ongoing_requests=64),
        Upgrade.IN_PLACE,
        "deployments.Classifier.max_ongoing_requests",
    ),
]


@pytest.mark.parametrize(("change", "upgrade", "where"), SERVE_CHANGES)
def test_what_serve_does_with_a_change(
    change: Callable[[dict[str, Any]], object], upgrade: Upgrade, where: str
) -> None:
    assert of_config(change) == (upgrade, [f"serve-config.yaml: applications.screw.{where}"])


def test_what_is_not_applied_does_not_hide_what_is() -> None:
    found = forecast(
        "production", (config(), config(promote(TEXT, None, MODEL))), ([service()], [service(group(maxReplicas=9))])
    )
    assert found.upgrade is Upgrade.IN_PLACE
    head, *lines = str(found).splitlines()
    assert head.startswith("production: in place (replicas take it as they run); a part is not applied (accepted")
    assert "  not applied: rayClusterConfig.workerGroupSpecs.0.maxReplicas" in lines


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # by Ray, when imported
@pytest.mark.parametrize(("change", "upgrade", "where"), SERVE_CHANGES)
def test_an_application_has_another_version_for_ray_where_it_restarts(
    change: Callable[[dict[str, Any]], object], upgrade: Upgrade, where: str
) -> None:
    from ray.serve._private.deploy_utils import get_app_code_version
    from ray.serve.schema import ServeApplicationSchema

    after = copy.deepcopy(config())
    change(after)
    old, new = (ServeApplicationSchema.model_validate(one["applications"][0]) for one in (config(), after))
    # Actors' options are in each deployment's own version: test_the_keys_that_restart_replicas_are_rays.
    restarts = upgrade is Upgrade.RESTART and "ray_actor_options" not in where
    assert (get_app_code_version(old) != get_app_code_version(new)) == restarts


def test_what_serve_takes_at_its_start_only_is_said_to_have_no_effect() -> None:
    assert of_config(lambda c: c["http_options"].update(port=8001)) == (
        Upgrade.NOT_APPLIED,
        ["serve-config.yaml: http_options"],
    )


def test_an_application_that_goes_stops_answering() -> None:
    assert of_config(lambda c: c.update(applications=[])) == (
        Upgrade.REMOVED,
        ["serve-config.yaml: applications.screw"],
    )


def test_a_deployment_that_gets_actor_options_is_restarted() -> None:
    monitor = {"name": "Monitor", "ray_actor_options": {"num_cpus": 1}}
    assert of_config(lambda c: c["applications"][0]["deployments"].append(monitor))[0] is Upgrade.RESTART


@pytest.mark.parametrize(
    ("after", "upgrade", "where"),
    [
        (
            service(group(replicas=3, maxReplicas=9)),
            Upgrade.NOT_APPLIED,
            ["rayClusterConfig.workerGroupSpecs.0.maxReplicas", "rayClusterConfig.workerGroupSpecs.0.replicas"],
        ),
        (
            service(group(), group(groupName="more")),
            Upgrade.IN_PLACE,
            ["rayClusterConfig.workerGroupSpecs: groups are added at the end"],
        ),
        (
            service(image="mergeline@sha256:b"),
            Upgrade.NEW_CLUSTER,
            ["rayClusterConfig.headGroupSpec.template.spec.containers.0.image"],
        ),
        (
            service(image="mergeline@sha256:b", strategy="NewClusterWithIncrementalUpgrade"),
            Upgrade.INCREMENTAL,
            [
                "rayClusterConfig.headGroupSpec.template.spec.containers.0.image",
                "RayService mergeline: spec.upgradeStrategy.type",
            ],
        ),
        (
            service(image="mergeline@sha256:b", strategy="None"),
            Upgrade.APPLIED,
            [
                "rayClusterConfig.headGroupSpec.template.spec.containers.0.image",
                "RayService mergeline: spec.upgradeStrategy.type",
            ],
        ),
        (service(group(groupName="gpu")), Upgrade.NEW_CLUSTER, ["rayClusterConfig.workerGroupSpecs.0.groupName"]),
        (service(strategy="None"), Upgrade.APPLIED, ["RayService mergeline: spec.upgradeStrategy.type"]),
    ],
)
def test_what_kuberay_does_with_a_change(after: dict[str, Any], upgrade: Upgrade, where: list[str]) -> None:
    found = forecast("production", (config(), config()), ([service()], [after]))
    assert (found.upgrade, [change.where for change in found.changes]) == (upgrade, where)


def changed(item: dict[str, Any], *way: str, to: object) -> dict[str, Any]:
    """A copy with another value there."""
    copied = copy.deepcopy(item)
    inner = copied
    for step in way[:-1]:
        inner = inner.setdefault(step, {})
    inner[way[-1]] = to
    return copied


CLOSED = policy("ray-closed", podSelector={"matchLabels": {"a": "b"}})
TIMEOUT = "ray.io/initializing-timeout"


@pytest.mark.parametrize(
    ("after", "upgrade", "where"),
    [
        (
            [changed(service(), "spec", "suspend", to=True), CLOSED],
            Upgrade.REMOVED,
            ["RayService mergeline: spec.suspend"],
        ),
        (
            [changed(service(), "spec", "serveService", to={"spec": {"type": "LoadBalancer"}}), CLOSED],
            Upgrade.APPLIED,
            ["RayService mergeline: spec.serveService"],
        ),
        (
            [changed(service(), "metadata", "annotations", to={TIMEOUT: "1s"}), CLOSED],
            Upgrade.APPLIED,
            ["RayService mergeline: metadata.annotations"],
        ),
        ([service()], Upgrade.APPLIED, ["NetworkPolicy ray-closed is removed from the namespace mergeline-production"]),
        (
            [service(), CLOSED, policy("more")],
            Upgrade.APPLIED,
            ["NetworkPolicy more is added to the namespace mergeline-production"],
        ),
        (
            [service(), changed(CLOSED, "spec", "podSelector", "matchLabels", "a", to="c")],
            Upgrade.APPLIED,
            ["NetworkPolicy ray-closed: spec.podSelector.matchLabels.a"],
        ),
        (
            [changed(service(), "metadata", "namespace", to="elsewhere"), CLOSED],
            Upgrade.REMOVED,
            [
                "RayService mergeline is added to the namespace elsewhere",
                "RayService mergeline is removed from the namespace mergeline-production",
            ],
        ),
        (
            [changed(service(), "metadata", "name", to="x-mergeline"), CLOSED],
            Upgrade.REMOVED,
            [
                "RayService mergeline is removed from the namespace mergeline-production",
                "RayService x-mergeline is added to the namespace mergeline-production",
            ],
        ),
    ],
)
def test_what_argo_cd_applies_beside_the_cluster_is_said(
    after: list[dict[str, Any]], upgrade: Upgrade, where: list[str]
) -> None:
    found = forecast("production", (config(), config()), ([service(), CLOSED], after))
    assert (found.upgrade, [change.where for change in found.changes]) == (upgrade, where)


@pytest.mark.parametrize(
    "way",
    [("managedBy",), ("rayClusterConfig", "managedBy"), ("rayClusterConfig", "gcsFaultToleranceOptions", "backend")],
)
def test_what_the_api_server_lets_nobody_change_is_said_to_be_refused(way: tuple[str, ...]) -> None:
    one, other = (changed(service(), "spec", *way, to=value) for value in ("one", "other"))
    found = forecast("production", (config(), config()), ([one], [changed(other, "spec", "suspend", to=True)]))
    assert (found.upgrade, [change.where for change in found.changes]) == (Upgrade.REFUSED, [".".join(way)])
    for before, after in ((service(), one), (one, service())):  # set at first, and taken away
        assert forecast("production", (config(), config()), ([before], [after])).upgrade is not Upgrade.REFUSED


def test_what_the_observer_looks_for_is_said_once() -> None:
    template = {"metadata": {"annotations": {"serve-config": "a"}}, "spec": {}}
    one = policy("observer", template=template) | {"kind": "Deployment"}
    other = changed(one, "spec", "template", "metadata", "annotations", "serve-config", to="b")
    assert forecast("production", (config(), config()), ([service(), one], [service(), other])).changes == ()


def test_the_most_that_a_change_does_stands_first() -> None:
    after = service(image="mergeline@sha256:b")
    found = forecast("production", (config(), config(promote(TEXT, None, MODEL))), ([service()], [after]))
    assert found.upgrade is Upgrade.NEW_CLUSTER
    assert {change.upgrade for change in found.changes} == {Upgrade.IN_PLACE, Upgrade.NEW_CLUSTER}


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # by Ray, when imported
def test_the_keys_that_restart_replicas_are_rays() -> None:
    from ray.serve._private.config import DeploymentConfig
    from ray.serve._private.utils import DeploymentOptionUpdateType
    from ray.serve._private.version import DeploymentVersion
    from ray.serve.schema import DeploymentSchema, ServeDeploySchema

    def weight(name: str) -> object:
        extra = DeploymentConfig.model_fields[name].json_schema_extra
        return extra.get("update_type") if isinstance(extra, dict) else None

    heavy = {name for name in DeploymentConfig.model_fields if weight(name) == DeploymentOptionUpdateType.HeavyWeight}
    assert heavy
    shown = set(DeploymentSchema.model_fields)
    assert heavy & shown <= set(RESTARTING)
    assert set(AT_START) <= set(ServeDeploySchema.model_fields)

    def version(**changed: Any) -> Any:
        given: dict[str, Any] = {"code_version": "1", "deployment_config": DeploymentConfig(), "ray_actor_options": {}}
        return DeploymentVersion(**(given | changed))

    assert not version().requires_actor_restart(version(deployment_config=DeploymentConfig(user_config={"a": 1})))
    assert version().requires_actor_restart(version(ray_actor_options={"num_cpus": 2}))
    assert version().requires_actor_restart(version(max_replicas_per_node=1))
