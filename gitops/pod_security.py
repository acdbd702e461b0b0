"""Whether pods keep what Kubernetes calls `restricted`: a namespace that enforces it makes no other ones."""

from collections.abc import Iterator, Mapping
from typing import Any

from gitops.findings import Finding, refuse
from gitops.objects import Object, Pod, at, dicts, mapping, mappings, pods

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_PROFILES = ("RuntimeDefault", "Localhost")
_HOST = ("hostNetwork", "hostPID", "hostIPC")


def refusals(item: Object) -> Iterator[Finding]:
    """What the pods of an object may do beyond `restricted`."""
    remedy = "do it as the pods in gitops/base/rayservice.yaml"
    for pod in pods(item):
        if found := [*_of_pod(pod.spec)]:
            yield refuse("pod-security", f"{pod}: {', '.join(found)}", remedy)
        for container in (*pod.containers(), *_autoscaler(item, pod)):
            if found := [*_of_container(container, mapping(pod.spec, "securityContext"))]:
                yield refuse("pod-security", f"{pod}: container {container.get('name')}: {', '.join(found)}", remedy)


def _autoscaler(item: Object, pod: Pod) -> Iterator[dict[str, Any]]:
    """The container that KubeRay adds to Ray's head."""
    for path, cluster in mappings(item):
        if cluster.get("enableInTreeAutoscaling") is True and f"{path}.headGroupSpec.template".lstrip(".") == pod.path:
            yield {"name": "autoscaler", "securityContext": at(cluster, "autoscalerOptions", "securityContext")}


def _of_pod(spec: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{key} is on" for key in _HOST if spec.get(key))
    for volume in dicts(spec, "volumes"):
        if others := volume.keys() - _VOLUMES - {"name"}:
            yield f"the volume {volume.get('name')} is a {', '.join(sorted(others))}"


def _of_container(container: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[str]:
    own = mapping(container, "securityContext")
    both = {**pod, **own}
    if own.get("privileged"):
        yield "it is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "`allowPrivilegeEscalation` is not false"
    if both.get("runAsNonRoot") is not True:
        yield "`runAsNonRoot` is not true"
    if both.get("runAsUser") == 0:
        yield "it runs as root"
    if at(both, "seccompProfile", "type") not in _PROFILES:
        yield f"`seccompProfile.type` is none of {', '.join(_PROFILES)}"
    dropped, added = (at(own, "capabilities", key) or () for key in ("drop", "add"))
    if "ALL" not in dropped:
        yield "`capabilities.drop` is not [ALL]"
    if [capability for capability in added if capability != "NET_BIND_SERVICE"]:
        yield "it adds capabilities"
    if any(port.get("hostPort") for port in dicts(container, "ports")):
        yield "it takes a port of its node"
    if own.get("procMount", "Default") != "Default":
        yield "it has another `procMount`"
