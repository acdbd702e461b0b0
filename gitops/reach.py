"""Who reaches Ray: what network policies close and open, and what refers to nothing. Who gets in runs code there."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gitops import pod_security
from gitops.exposure import SERVE_PORTS
from gitops.findings import Finding, refuse
from gitops.objects import Object, Pod, at, dicts, mapping, name_of, pods

_DASHBOARD = 8265
_NAMESPACE = "kubernetes.io/metadata.name"
_NARROWEST = 8
"""Bits of a network's address that is not half the world's."""
_SELECTORS = {
    "NetworkPolicy": ("spec", "podSelector"),
    "PodDisruptionBudget": ("spec", "selector"),
    "PodMonitor": ("spec", "selector"),
}
_OURS = ("app.kubernetes.io/", "ray.io/")
"""How the labels begin that the pods of overlays have, or may have."""
# The pods of `mergeline submit --target kubernetes`, which no overlay makes.
_JOBS = ("training-head", "training-worker", "report-head")
_JOB_LABELS = [
    {"app.kubernetes.io/part-of": "mergeline", "app.kubernetes.io/component": component} for component in _JOBS
]


def refusals(objects: Sequence[Object]) -> Iterator[Finding]:
    """What is open that should be closed, and what refers to nothing.

    Args:
        objects: all of an environment.
    """
    found = [pod for item in objects for pod in pods(item)]
    yield from _references(objects, found)
    policies = [item for item in objects if item["kind"] == "NetworkPolicy" and _is_for_ingress(item)]
    for pod in found:
        chosen = [item for item in policies if selects(at(item, *_SELECTORS[item["kind"]]), pod.labels, pod.is_rays)]
        if pod.is_rays and not any(map(_is_inner, chosen)):
            what = f"{pod}: no NetworkPolicy selects these pods that closes all of Ray's ports to the outside first"
            yield refuse("network", what, "give the template the labels that gitops/base/network-policies.yaml selects")
        for item in chosen if pod.is_rays else ():
            if _is_open(item, pod):
                what = f"{name_of(item)} lets everybody reach other ports than Serve's of {pod}"
                yield refuse("network", what, "say in `from` who it is, or in `ports` that it is `serve`")
        yield from _shut(pod, chosen, found)
    leaving = [item for item in objects if item["kind"] == "NetworkPolicy" and _is_for_egress(item)]
    for pod in found if leaving else ():
        chosen = [item for item in leaving if selects(at(item, "spec", "podSelector"), pod.labels, pod.is_rays)]
        if pod.is_rays and chosen and not any(at(item, "spec", "egress") for item in chosen):
            what = f"{name_of(chosen[0])} lets {pod} reach nobody, Ray's other pods included"
            yield refuse("network", what, "take `Egress` out of `policyTypes`, or say in `egress` whom they may reach")


def selects(selector: Any, labels: Mapping[str, Any], is_rays: bool = False) -> bool:
    """Whether a label selector takes pods of these labels; those that KubeRay gives when it makes them it takes too."""
    if not isinstance(selector, dict):
        return False
    wanted = [
        {"key": key, "operator": "In", "values": [value]} for key, value in mapping(selector, "matchLabels").items()
    ]
    for found in (*wanted, *dicts(selector, "matchExpressions")):
        key, values = str(found.get("key")), found.get("values") or ()
        if is_rays and key.startswith("ray.io/") and key not in labels:
            continue
        met = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not met.get(str(found.get("operator")), False):
            return False
    return True


def _references(objects: Sequence[Object], found: Sequence[Pod]) -> Iterator[Finding]:
    for item in objects:
        way = _SELECTORS.get(item["kind"])
        if way is None or at(item, "spec", "namespaceSelector"):
            continue
        selector = at(item, *way)
        if _is_for_others(selector, found):
            continue
        if not any(selects(selector, pod.labels, pod.is_rays) for pod in found) and not any(
            selects(selector, labels, is_rays=True) for labels in _JOB_LABELS
        ):
            remedy = (
                "make its selector and the pods' labels the same: kustomize's `labels` do not reach a RayService's pods"
            )
            yield refuse("reference", f"{name_of(item)} selects no pod that is there", remedy)
    for item in objects:
        for pod in pods(item) if item["kind"] != "StatefulSet" else ():  # it has volumes of another kind too
            yield from _within(pod, [*pod.containers(), *pod_security.autoscalers(item, pod)])
    accounts = {"default", *(item["metadata"]["name"] for item in objects if item["kind"] == "ServiceAccount")}
    for pod in found:
        if (account := pod.spec.get("serviceAccountName", "default")) not in accounts:
            remedy = "add it; kustomize's `namePrefix` and `nameSuffix` do not reach a RayService's pods"
            yield refuse("reference", f"{pod}: there is no ServiceAccount {account}", remedy)


def _is_for_others(selector: Any, found: Sequence[Pod]) -> bool:
    """Whether it wants a label of some controller's own: of an issuer's or a gateway's pods, which no overlay has."""
    keys = [*mapping(selector, "matchLabels"), *(str(one.get("key")) for one in dicts(selector, "matchExpressions"))]
    others = {key for key in keys if "/" in key and not key.startswith(_OURS)}
    return bool(others.difference(*(pod.labels for pod in found)))


def _within(pod: Pod, containers: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Of the pods of other kinds' objects the API server asks this only when they are made."""
    volumes = {volume.get("name") for volume in dicts(pod.spec, "volumes")}
    for container in containers:
        for mount in dicts(container, "volumeMounts"):
            if mount.get("name") not in volumes:
                what = f"{pod}: container {container.get('name')} mounts {mount.get('name')}, which is no volume of it"
                yield refuse("reference", what, "add it to `volumes`, or take the mount out")
    names = [str(container.get("name")) for container in containers]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield refuse("reference", f"{pod}: two containers are called {name}", "rename one")


def _shut(pod: Pod, chosen: Sequence[Object], found: Sequence[Pod]) -> Iterator[Finding]:
    """KubeRay, which is in another namespace or beside what the overlay makes, reaches the dashboard of a head."""
    if not (pod.is_head and pod.owner.startswith("RayService ") and chosen):
        return
    for rule in (rule for item in chosen for rule in dicts(item, "spec", "ingress")):
        named, peers = dicts(rule, "ports"), dicts(rule, "from")
        if (not peers or any(_may_be_kuberay(peer, found) for peer in peers)) and (
            not named or any(map(_has_the_dashboard, named))
        ):
            return
    what = f"{pod}: no NetworkPolicy lets KubeRay reach the dashboard, by which it applies what is served"
    yield refuse("network", what, "take `ray-from-kuberay` of gitops/base/network-policies.yaml")


def _may_be_kuberay(peer: Mapping[str, Any], found: Sequence[Pod]) -> bool:
    """Whether a peer may be others than the overlay's pods."""
    ours = any(selects(peer.get("podSelector"), pod.labels, pod.is_rays) for pod in found)
    return "namespaceSelector" in peer or "ipBlock" in peer or not ours


def _has_the_dashboard(port: Mapping[str, Any]) -> bool:
    first, last = port.get("port"), port.get("endPort")
    return first in (None, _DASHBOARD, "dashboard") or (
        isinstance(first, int) and isinstance(last, int) and first <= _DASHBOARD <= last
    )


def _is_for_egress(policy: Object) -> bool:
    kinds = at(policy, "spec", "policyTypes")
    return "Egress" in kinds if kinds else bool(at(policy, "spec", "egress"))


def _is_for_ingress(policy: Object) -> bool:
    kinds = at(policy, "spec", "policyTypes")
    return not kinds or "Ingress" in kinds


def _is_inner(policy: Object) -> bool:
    """Whether it lets nobody in but pods of its own namespace."""
    rules = dicts(policy, "spec", "ingress")
    return all(rule.get("from") for rule in rules) and all(
        "podSelector" in peer and "namespaceSelector" not in peer for rule in rules for peer in dicts(rule, "from")
    )


def _is_open(policy: Object, pod: Pod) -> bool:
    """Whether a network policy lets everybody reach a port of Ray's that neither serves nor measures."""
    ports = [port for container in pod.containers() for port in dicts(container, "ports")]
    harmless: set[object] = {*SERVE_PORTS}
    for port in ports:
        if (name := str(port.get("name"))) in SERVE_PORTS or name.endswith("metrics"):
            harmless |= {name, port.get("containerPort")}
    for rule in dicts(policy, "spec", "ingress"):
        named = dicts(rule, "ports")
        wide = not named or any(port.get("port") not in harmless or port.get("endPort") for port in named)
        if wide and (not rule.get("from") or any(map(_is_everybody, dicts(rule, "from")))):
            return True
    return False


def _is_everybody(peer: Mapping[str, Any]) -> bool:
    bits = str(at(peer, "ipBlock", "cidr")).partition("/")[2]
    if bits.isdecimal() and int(bits) < _NARROWEST:
        return True
    every_namespace = "namespaceSelector" in peer and not _is_narrow(peer["namespaceSelector"])
    return every_namespace and not peer.get("podSelector")


def _is_narrow(selector: Any) -> bool:
    """Whether a selector names what it takes, and not only what it leaves out."""
    wanted = dicts(selector, "matchExpressions")
    return bool(at(selector, "matchLabels")) or any(
        found.get("operator") == "In" or (found.get("operator") == "Exists" and found.get("key") != _NAMESPACE)
        for found in wanted
    )
