"""Whether pods keep what Kubernetes calls `restricted`: a namespace that enforces it makes no other ones."""

from collections.abc import Iterator, Mapping
from typing import Any

from gitops.findings import Finding, refuse
from gitops.objects import Object, Pod, at, dicts, mapping, mappings, name_of, pods

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
_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
_SELINUX = (None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
LEVEL = "pod-security.kubernetes.io/enforce"


def refusals(item: Object) -> Iterator[Finding]:
    """What the pods of an object may do beyond `restricted`."""
    remedy = "do it as the pods in gitops/base/rayservice.yaml"
    if (
        item["kind"] == "Namespace"
        and (level := mapping(item, "metadata", "labels").get(LEVEL, "restricted")) != "restricted"
    ):
        yield refuse("pod-security", f"{name_of(item)} enforces {level} only", f"take `{LEVEL}: restricted`")
    for pod in pods(item):
        if found := [*_of_pod(pod.spec), *_of_annotations(pod)]:
            yield refuse("pod-security", f"{pod}: {', '.join(found)}", remedy)
        for container in (*pod.containers(), *autoscalers(item, pod)):
            if found := [*_of_container(container, mapping(pod.spec, "securityContext"))]:
                yield refuse("pod-security", f"{pod}: container {container.get('name')}: {', '.join(found)}", remedy)


def autoscalers(item: Object, pod: Pod) -> Iterator[dict[str, Any]]:
    """The container that KubeRay adds to Ray's head, as far as a manifest says it."""
    for path, cluster in mappings(item):
        if cluster.get("enableInTreeAutoscaling") is True and f"{path}.headGroupSpec.template".lstrip(".") == pod.path:
            yield {"name": "autoscaler", **mapping(cluster, "autoscalerOptions")}


def _of_annotations(pod: Pod) -> Iterator[str]:
    for key, value in pod.annotations.items():
        if key.startswith(_APPARMOR) and value != "runtime/default" and not str(value).startswith("localhost/"):
            yield f"the annotation {key} is {value}"


def _of_pod(spec: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{key} is on" for key in _HOST if spec.get(key))
    for volume in dicts(spec, "volumes"):
        if others := volume.keys() - _VOLUMES - {"name"}:
            yield f"the volume {volume.get('name')} is a {', '.join(sorted(others))}"
    if unsafe := [
        str(found.get("name"))
        for found in dicts(spec, "securityContext", "sysctls")
        if found.get("name") not in _SYSCTLS
    ]:
        yield f"it sets {', '.join(unsafe)}"


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
    if at(both, "appArmorProfile", "type") == "Unconfined":
        yield "`appArmorProfile.type` is Unconfined"
    labels = mapping(both, "seLinuxOptions")
    if labels.get("type") not in _SELINUX or labels.get("user") or labels.get("role"):
        yield "it has other `seLinuxOptions`"
    if at(both, "windowsOptions", "hostProcess"):
        yield "it is a process of its host"
    dropped, added = (at(own, "capabilities", key) or () for key in ("drop", "add"))
    if "ALL" not in dropped:
        yield "`capabilities.drop` is not [ALL]"
    if [capability for capability in added if capability != "NET_BIND_SERVICE"]:
        yield "it adds capabilities"
    if any(port.get("hostPort") for port in dicts(container, "ports")):
        yield "it takes a port of its node"
    if own.get("procMount", "Default") != "Default":
        yield "it has another `procMount`"
