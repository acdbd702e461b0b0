"""Says what a change of an environment will do to what runs, before it is merged: pure functions of two versions.

On a cluster KubeRay (1.7) compares the RayService's two halves apart. A changed `serveConfigV2` is handed to Ray Serve
in place; a changed `rayClusterConfig` starts a second cluster. What KubeRay leaves out of its comparison, the bounds of
worker groups say, waits until something else makes it write the cluster anew. All other objects Argo CD applies as they
are: which of them change is said, and not what comes of it.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from pydantic import Field

from gitops import kuberay
from gitops.contracts.base import Contract
from gitops.difference import Difference, between
from gitops.objects import Object, at, group_of, mapping, name_of

RESTARTING = (
    "import_path",
    "runtime_env",
    "args",
    "ray_actor_options",
    "placement_group_bundles",
    "placement_group_strategy",
    "placement_group_bundle_label_selector",
    "max_replicas_per_node",
    "gang_scheduling_config",
    "deployment_actors",
    "request_router_config",
    "autoscaling_policy",
)
"""Keys of an application or a deployment for which Ray Serve 2.60 replaces replicas; others it changes as they run."""
AT_START = ("proxy_location", "http_options", "grpc_options", "controller_options")
"""Keys of the top level that Ray Serve takes when it starts; later it accepts a change, and does not apply it."""
RAY_SERVICE = "RayService"
OBSERVED = "serve-config"
"""The annotation of pods that holds what `mergeline observe` compares the cluster with."""
_TOLD = ("serveConfigV2", "rayClusterConfig")
# What KubeRay leaves out of its comparison, of worker groups and of all pods.
_MUTED_GROUP = ("replicas", "minReplicas", "maxReplicas")
_MUTED_POD = ("tolerations", "schedulingGates")
# What the API server lets nobody change once it is set: rules in CEL of KubeRay's definition.
_FIXED = (
    ("managedBy",),
    ("rayClusterConfig", "managedBy"),
    ("rayClusterConfig", "gcsFaultToleranceOptions", "backend"),
)


class Upgrade(StrEnum):
    """What a change does, from the least to the most."""

    NONE = "nothing changes"
    NOT_APPLIED = "not applied"
    IN_PLACE = "in place"
    RESTART = "in place, with new replicas"
    APPLIED = "applied"
    NEW_CLUSTER = "new cluster"
    INCREMENTAL = "new cluster, step by step"
    REMOVED = "removed"
    REFUSED = "refused"


_MEANING = {
    Upgrade.NONE: "",
    Upgrade.IN_PLACE: "replicas take it as they run",
    Upgrade.RESTART: "replicas are replaced, those that answer last",
    Upgrade.APPLIED: "Argo CD applies it beside the cluster; whether requests still come through is not foretold",
    Upgrade.REMOVED: "it stops answering",
    Upgrade.REFUSED: "the API server takes nothing of this RayService; a value that is set there stays as it is",
    Upgrade.NOT_APPLIED: "accepted, and without effect by itself: a new cluster takes it",
    Upgrade.NEW_CLUSTER: "KubeRay starts a second cluster, moves requests when it answers, and deletes the first",
    Upgrade.INCREMENTAL: "KubeRay starts a second cluster, and moves requests to it in steps",
}


class ForecastChange(Contract):
    """One place that a change touches, and what that does."""

    upgrade: Upgrade
    where: str = Field(description="serve-config.yaml, rayClusterConfig or an object, and the path in it.")

    def __str__(self) -> str:
        """A line as `mergeline diff` prints it."""
        return f"{self.upgrade}: {self.where}"


class Forecast(Contract):
    """What the merge of a change will do to an environment."""

    environment: str
    upgrade: Upgrade = Field(description="The most that any place of the change does.")
    changes: tuple[ForecastChange, ...]

    def __str__(self) -> str:
        """The forecast for a person to read."""
        meaning = _MEANING[self.upgrade]
        head = f"{self.environment}: {self.upgrade}" + (f" ({meaning})" if meaning else "")
        if Upgrade.NOT_APPLIED in {change.upgrade for change in self.changes} - {self.upgrade}:
            head += f"; a part is {Upgrade.NOT_APPLIED} ({_MEANING[Upgrade.NOT_APPLIED]})"
        return "\n".join([head, *(f"  {change}" for change in self.changes)])


def forecast(
    environment: str,
    config: tuple[Mapping[str, Any], Mapping[str, Any]],
    objects: tuple[Sequence[Object], Sequence[Object]] | None,
) -> Forecast:
    """What a change does.

    Args:
        environment: its name.
        config: the Serve configuration before and after.
        objects: all objects before and after, the RayService among them; None: it runs on one machine.
    """
    changes = [*_of_config(*config), *(_of_objects(*objects) if objects else ())]
    order = list(Upgrade)
    most = max((change.upgrade for change in changes), key=order.index, default=Upgrade.NONE)
    return Forecast(environment=environment, upgrade=most, changes=tuple(changes))


def _of_config(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[ForecastChange]:
    for path in AT_START:
        if before.get(path) != after.get(path):
            yield ForecastChange(upgrade=Upgrade.NOT_APPLIED, where=f"serve-config.yaml: {path}")
    for difference in between(before, after):
        where = ".".join(filter(None, ("applications", difference.application, difference.path)))
        yield ForecastChange(upgrade=_of_difference(difference), where=f"serve-config.yaml: {where}")


def _of_difference(difference: Difference) -> Upgrade:
    if not difference.path:
        return Upgrade.REMOVED if difference.kind == "removed" else Upgrade.IN_PLACE
    steps = difference.path.split(".")
    if steps[0] != "deployments":
        return Upgrade.RESTART if steps[0] in RESTARTING else Upgrade.IN_PLACE
    within = steps[2:]
    if not within:  # all that stands under a deployment's name
        keys = {**(difference.live or {}), **(difference.desired or {})}.keys()
        return Upgrade.RESTART if keys & {*RESTARTING, "autoscaling_config"} else Upgrade.IN_PLACE
    # Ray Serve's version of an application covers whether there is autoscaling, and by which policy; not how much.
    autoscaling = within[0] == "autoscaling_config" and (len(within) == 1 or within[1] == "policy")
    return Upgrade.RESTART if autoscaling or within[0] in RESTARTING else Upgrade.IN_PLACE


def _of_objects(before: Sequence[Object], after: Sequence[Object]) -> Iterator[ForecastChange]:
    old, new = ({_identity(item): item for item in objects} for objects in (before, after))
    for key in sorted(old.keys() | new.keys()):
        name = name_of(old.get(key) or new[key])
        is_service = key[1] == RAY_SERVICE
        if key not in new:
            upgrade = Upgrade.REMOVED if is_service else Upgrade.APPLIED
            yield ForecastChange(upgrade=upgrade, where=f"{name} is removed{_whence('from', key[2])}")
        elif key not in old:
            yield ForecastChange(upgrade=Upgrade.APPLIED, where=f"{name} is added{_whence('to', key[2])}")
        elif is_service and (fixed := _fixed(old[key], new[key])):
            for path in fixed:
                yield ForecastChange(upgrade=Upgrade.REFUSED, where=path)
        else:
            if is_service:
                yield from _of_cluster(old[key], new[key])
            for path in _differing(_rest(old[key]), _rest(new[key]), ""):
                suspended = is_service and path == ".spec.suspend" and at(new[key], "spec", "suspend")
                upgrade = Upgrade.REMOVED if suspended else Upgrade.APPLIED
                yield ForecastChange(upgrade=upgrade, where=f"{name}: {path.removeprefix('.')}")


def _fixed(before: Object, after: Object) -> list[str]:
    """What of a RayService is changed although it can't be."""
    changed = []
    for path in _FIXED:
        old, new = at(before, "spec", *path), at(after, "spec", *path)
        if None not in (old, new) and old != new:
            changed.append(".".join(path))
    return changed


def _whence(word: str, namespace: str) -> str:
    return f" {word} the namespace {namespace}" if namespace else ""


def _identity(item: Object) -> tuple[str, str, str, str]:
    """What Argo CD and Kubernetes know an object by."""
    return (
        group_of(item),
        item["kind"],
        str(at(item, "metadata", "namespace") or ""),
        item["metadata"]["name"],
    )


def _rest(item: Object) -> dict[str, Any]:
    """An object without what the Serve configuration and the cluster say of it already."""
    rest: dict[str, Any] = copy.deepcopy(dict(item))
    if item["kind"] == RAY_SERVICE:
        rest["spec"] = {key: value for key, value in rest["spec"].items() if key not in _TOLD}
    mapping(rest, "spec", "template", "metadata", "annotations").pop(OBSERVED, None)
    return rest


def _of_cluster(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[ForecastChange]:
    old, new = _compared(before), _compared(after)
    if old == new:
        for path in _differing(
            before["spec"]["rayClusterConfig"], after["spec"]["rayClusterConfig"], "rayClusterConfig"
        ):
            yield ForecastChange(upgrade=Upgrade.NOT_APPLIED, where=path)
        return
    groups = len(old.get("workerGroupSpecs") or ())
    if old == new | {"workerGroupSpecs": (new.get("workerGroupSpecs") or [])[:groups]}:
        yield ForecastChange(
            upgrade=Upgrade.IN_PLACE, where="rayClusterConfig.workerGroupSpecs: groups are added at the end"
        )
        return
    kind = ((after["spec"].get("upgradeStrategy") or {}).get("type")) or "NewCluster"
    upgrade = {"None": Upgrade.NOT_APPLIED, kuberay.INCREMENTAL: Upgrade.INCREMENTAL}
    for path in _differing(old, new, "rayClusterConfig"):
        yield ForecastChange(upgrade=upgrade.get(kind, Upgrade.NEW_CLUSTER), where=path)


def _compared(service: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a RayService that makes KubeRay start another cluster when it differs."""
    spec: dict[str, Any] = copy.deepcopy(service["spec"]["rayClusterConfig"])
    for key in ("suspend", "upgradeStrategy"):
        spec.pop(key, None)
    groups = spec.get("workerGroupSpecs") or []
    for group in groups:
        for key in _MUTED_GROUP:
            group.pop(key, None)
        (group.get("scaleStrategy") or {}).pop("workersToDelete", None)
    for group in (spec["headGroupSpec"], *groups):
        for key in _MUTED_POD:
            group["template"]["spec"].pop(key, None)
    return spec


def _differing(before: Any, after: Any, path: str) -> Iterator[str]:
    """Where two values differ, as deep as both have the same shape."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _differing(before.get(key), after.get(key), f"{path}.{key}")
    elif _same_length(before, after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _differing(old, new, f"{path}.{index}")
    elif before != after:
        yield path


def _same_length(before: Any, after: Any) -> bool:
    both = isinstance(before, Sequence) and isinstance(after, Sequence)
    return both and not isinstance(before, str) and not isinstance(after, str) and len(before) == len(after)
