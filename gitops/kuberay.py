"""What KubeRay 1.7 refuses once the API server has taken it: with an event, while what was there before goes on.

Most of its own rules (`ray-operator/controllers/ray/utils/validation.go`): not those of what wants a feature gate, of a
job's `deletionStrategy`, and of variables and annotations in place of which there are fields now. And two that it does
not have: no entrypoint, and two groups of one name.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gitops import cron
from gitops.findings import Finding, refuse
from gitops.objects import Object, at, dicts, mapping, mappings, name_of

INCREMENTAL = "NewClusterWithIncrementalUpgrade"
UPGRADES = ("NewCluster", INCREMENTAL, "None")
"""What it knows as `upgradeStrategy.type`; the API server takes any text there."""
TOKENS_SINCE = (2, 52)
"""The first version of Ray that asks for tokens."""
SUBMISSIONS = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
"""What it knows as `submissionMode`; the API server takes any text there."""
LONGEST_NAMES = {"RayCluster": 53, "RayService": 47, "RayJob": 47, "RayCronJob": 36}
"""Letters; it derives names from them."""
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?\Z")
_VERSION = re.compile(r"v?(\d+)\.(\d+)")
_RESOURCES = ("num-cpus", "num-gpus", "memory", "resources")
_TIMEOUT = "ray.io/initializing-timeout"
_TOLERANT = "ray.io/ft-enabled"
"""The annotation by which Ray's head kept its state in Redis before there were options for it."""
_DURATION = re.compile(r"[1-9]\d*\Z|(\d+(\.\d+)?(ns|us|ms|s|m|h))+\Z")


def refusals(item: Object) -> Iterator[Finding]:
    """What stands against an object of KubeRay's, or of one that holds such."""
    yield from _upgrade(item)
    complaints = list(_of_object(item))
    tolerant = str(mapping(item, "metadata", "annotations").get(_TOLERANT)).lower() == "true"
    for path, found in mappings(item):
        where = f"{path}: " if path else ""
        if "headGroupSpec" in found:
            complaints += [f"{where}{complaint}" for complaint in _of_cluster(found, tolerant)]
        if (item["kind"], path) in (("RayJob", "spec"), ("RayCronJob", "spec.jobTemplate")):
            complaints += [f"{where}{complaint}" for complaint in _of_job(found)]
    for complaint in complaints:
        remedy = "correct it: KubeRay would go on with what was there, and say so in an event only"
        yield refuse("kuberay", f"{name_of(item)}: {complaint}", remedy)


def _of_object(item: Object) -> Iterator[str]:
    kind, name = item["kind"], item["metadata"]["name"]
    longest = LONGEST_NAMES.get(kind)
    if longest is None:
        return
    if len(name) > longest or not _NAME.match(name):
        yield f"the name must begin with a letter, hold small letters, digits and dashes, and no more than {longest}"
    if kind == "RayService":
        timeout = mapping(item, "metadata", "annotations").get(_TIMEOUT, "")
        if timeout and not _DURATION.match(str(timeout)):
            yield f"the annotation {_TIMEOUT} is {timeout}, which is no duration such as 30m"
        if _is_negative(at(item, "spec", "rayClusterDeletionDelaySeconds")):
            yield "spec.rayClusterDeletionDelaySeconds is below 0"
        cluster = mapping(item, "spec", "rayClusterConfig")
        if at(cluster, "authOptions", "enableK8sTokenAuth"):
            yield "spec.rayClusterConfig.authOptions.enableK8sTokenAuth is not for a RayService; take `secretName`"
        if at(cluster, "upgradeStrategy", "type"):
            yield "spec.rayClusterConfig.upgradeStrategy is for a RayCluster of its own; take spec.upgradeStrategy"
        if at(cluster, "headGroupSpec", "headService", "metadata", "name"):
            yield "spec.rayClusterConfig.headGroupSpec.headService must have no name"
    if kind == "RayCronJob" and (obstacle := cron.obstacle(str(at(item, "spec", "schedule")))):
        yield f"spec.schedule: {obstacle}"


def _of_cluster(cluster: Mapping[str, Any], tolerant: bool) -> Iterator[str]:
    head, workers = mapping(cluster, "headGroupSpec"), dicts(cluster, "workerGroupSpecs")
    scales = cluster.get("enableInTreeAutoscaling") is True
    is_v2 = at(cluster, "autoscalerOptions", "version") == "v2"
    named = {"headGroupSpec": head, **{f"group {group.get('groupName')}": group for group in workers}}
    if len(named) <= len(workers):
        yield "two groups of workers have the same `groupName`, by which their pods are told apart"
    for name, group in named.items():
        parameters = mapping(group, "rayStartParams")
        if group.get("resources") and any(parameters.get(key) for key in _RESOURCES):
            yield f"{name}: resources stand in `resources` and in `rayStartParams`; take one of them"
        if "labels" in parameters:
            yield f"{name}: `rayStartParams` takes no `labels`; they have a key of their own beside it"
        if scales and is_v2 and at(group, "template", "spec", "restartPolicy") not in (None, "", "Never"):
            yield f"{name}: with the autoscaler's version 2 `restartPolicy` must be Never"
    for group in workers:
        yield from (f"group {group.get('groupName')}: {found}" for found in _of_workers(group, scales, is_v2))
    if _is_negative(at(cluster, "autoscalerOptions", "idleTimeoutSeconds")):
        yield "autoscalerOptions.idleTimeoutSeconds is below 0"
    if at(cluster, "authOptions", "mode") == "token":
        version = _VERSION.match(str(cluster.get("rayVersion")))
        if version is None or (int(version[1]), int(version[2])) < TOKENS_SINCE:
            since = ".".join(map(str, TOKENS_SINCE))
            yield f"rayVersion is {cluster.get('rayVersion')}, and tokens want {since} or later"
    yield from _of_state(cluster, head, tolerant)


def _of_workers(group: Mapping[str, Any], scales: bool, is_v2: bool) -> Iterator[str]:
    low, high = group.get("minReplicas"), group.get("maxReplicas")
    if not scales and (low is None or high is None):
        yield "without the autoscaler it needs `minReplicas` and `maxReplicas`"
    if _is_negative(low) or _is_negative(high):
        yield "`minReplicas` or `maxReplicas` is below 0"
    if isinstance(low, int) and isinstance(high, int) and low > high:
        yield f"minReplicas is {low}, above maxReplicas, which is {high}"
    if scales and group.get("suspend") is True:
        yield "it is suspended, which no group may be beside the autoscaler"
    if _is_negative(group.get("idleTimeoutSeconds")):
        yield "idleTimeoutSeconds is below 0"
    for key in ("idleTimeoutSeconds", "priority"):
        if group.get(key) and not is_v2:
            yield f"`{key}` wants `autoscalerOptions.version: v2`"


def _of_state(cluster: Mapping[str, Any], head: Mapping[str, Any], by_annotation: bool) -> Iterator[str]:
    """Where Ray's head keeps its state is said in one place: by options, or as it was done before these."""
    pod = mapping(head, "template", "spec")
    variables = {found.get("name") for container in dicts(pod, "containers")[:1] for found in dicts(container, "env")}
    tolerant = bool(cluster.get("gcsFaultToleranceOptions"))
    parameters = mapping(head, "rayStartParams")
    if "RAY_REDIS_ADDRESS" in variables and (tolerant or not by_annotation):
        yield "headGroupSpec: RAY_REDIS_ADDRESS is set; take `gcsFaultToleranceOptions.redisAddress`"
    if tolerant and ("REDIS_PASSWORD" in variables or parameters.get("redis-password")):
        yield "headGroupSpec: Redis' password is set; take `gcsFaultToleranceOptions.redisPassword`"
    if "REDIS_USERNAME" in variables or parameters.get("redis-username"):
        yield "headGroupSpec: Redis' user is set; take `gcsFaultToleranceOptions.redisUsername`"


def _of_job(job: Mapping[str, Any]) -> Iterator[str]:
    mode = job.get("submissionMode") or SUBMISSIONS[0]
    if mode not in SUBMISSIONS:
        yield f"submissionMode is {mode}, which is none of {', '.join(SUBMISSIONS)}"
    if not job.get("entrypoint") and mode != "InteractiveMode":
        yield "it has no `entrypoint`"
    selector = mapping(job, "clusterSelector")
    if not job.get("rayClusterSpec") and not selector:
        yield "it has neither `rayClusterSpec` nor `clusterSelector`"
    if selector and not selector.get("ray.io/cluster"):
        yield "its `clusterSelector` names no cluster, as `ray.io/cluster`"
    if selector and (mode == "SidecarMode" or job.get("suspend") is True):
        yield "`clusterSelector` is not for SidecarMode, nor for a job that is suspended"
    ends = job.get("shutdownAfterJobFinishes") is True
    if job.get("suspend") is True and not ends:
        yield "it is suspended, which wants `shutdownAfterJobFinishes: true`"
    if job.get("ttlSecondsAfterFinished") and not ends:
        yield "`ttlSecondsAfterFinished` wants `shutdownAfterJobFinishes: true`"
    for key in ("ttlSecondsAfterFinished", "backoffLimit"):
        if _is_negative(job.get(key)):
            yield f"{key} is below 0"
    for key in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if job.get(key) is not None and not _is_in(job[key], 1):
            yield f"{key} is not above 0"
    if job.get("backoffLimit") and (selector or mode == "InteractiveMode"):
        yield "`backoffLimit` wants a cluster of the job's own, and a job that is submitted by itself"
    if mode == "SidecarMode" and (job.get("submitterPodTemplate") or job.get("submitterConfig")):
        yield "in SidecarMode there is no pod that submits: take `submitterPodTemplate` and `submitterConfig` out"


def _is_negative(value: Any) -> bool:
    return isinstance(value, int) and value < 0


def _upgrade(item: Object) -> Iterator[Finding]:
    if item["kind"] != "RayService":
        return
    strategy = at(item, "spec", "upgradeStrategy")
    if isinstance(strategy, dict) and "type" not in strategy:  # KubeRay's own default
        return
    kind = UPGRADES[0] if strategy is None else at(strategy, "type")
    if kind not in UPGRADES:
        found = f"{name_of(item)}: upgradeStrategy.type {kind!r} is none that KubeRay knows"
        yield refuse("upgrade", found, f"take one of {', '.join(UPGRADES)}, or leave out `upgradeStrategy`")
    elif kind == INCREMENTAL:
        yield from _incremental(item, mapping(strategy, "clusterUpgradeOptions"))


def _incremental(item: Mapping[str, Any], options: Mapping[str, Any]) -> Iterator[Finding]:
    """KubeRay refuses these with an event only, when they are applied; steps of nothing it takes, and never ends."""
    surge, step = options.get("maxSurgePercent", 100), options.get("stepSizePercent")
    cluster = mapping(item, "spec", "rayClusterConfig")
    needs = {
        "`rayClusterConfig.enableInTreeAutoscaling: true`": cluster.get("enableInTreeAutoscaling") is True,
        "a `gatewayClassName`": bool(options.get("gatewayClassName")),
        "a `maxSurgePercent` of 1 to 100": _is_in(surge, 1, 100),
        "a `stepSizePercent` of 1 to `maxSurgePercent`": _is_in(step, 1, surge if _is_in(surge, 1, 100) else 100),
        "`intervalSeconds` above 0": _is_in(options.get("intervalSeconds"), 1),
    }
    missing = [need for need, is_met in needs.items() if not is_met]
    if missing:
        found = f"{name_of(item)}: {INCREMENTAL} needs {', '.join(missing)}"
        yield refuse("upgrade", found, "the component incremental-upgrade has the options, and the base the autoscaler")


def _is_in(value: Any, low: int, high: int | None = None) -> bool:
    return isinstance(value, int) and value >= low and (high is None or value <= high)


def missing_services(objects: Sequence[Object]) -> Iterator[Finding]:
    """Where requests move in steps they come by KubeRay's own Gateway: it makes no Service for all clusters then."""
    for service in objects:
        if service["kind"] != "RayService" or at(service, "spec", "upgradeStrategy", "type") != INCREMENTAL:
            continue
        name = f"{service['metadata']['name']}-serve-svc"
        for item in objects:
            if any(found.get("name") == name for _, found in mappings(item)):
                found = f"{name_of(item)} sends requests to {name}, which is not there with {INCREMENTAL}"
                yield refuse("upgrade", found, f"take it out: KubeRay makes {service['metadata']['name']}-gateway")
