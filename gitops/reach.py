"""Who reaches Ray: what network policies close and open, and the ways in from outside. Who gets in runs code there."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gitops.findings import Finding, refuse
from gitops.objects import Object, Pod, at, dicts, mapping, mappings, name_of, pods

_SERVE_PORTS = ("serve", "serve-grpc")
_OUTWARD = ("LoadBalancer", "NodePort")
_ROUTES = ("Ingress", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute")
_SELECTORS = {
    "NetworkPolicy": ("spec", "podSelector"),
    "PodDisruptionBudget": ("spec", "selector"),
    "PodMonitor": ("spec", "selector"),
}
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
        if pod.is_rays and not any(not at(item, "spec", "ingress") for item in chosen):
            what = f"{pod}: no NetworkPolicy without rules selects these pods, which closes all of Ray's ports first"
            yield refuse("network", what, "give the template the labels that gitops/base/network-policies.yaml selects")
        for item in chosen if pod.is_rays else ():
            if _is_open(item, pod):
                what = f"{name_of(item)} lets everybody reach other ports than Serve's of {pod}"
                yield refuse("network", what, "say in `from` who it is, or in `ports` that it is `serve`")
    yield from _ways_in(objects)


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
        if not any(selects(selector, pod.labels, pod.is_rays) for pod in found) and not any(
            selects(selector, labels, is_rays=True) for labels in _JOB_LABELS
        ):
            remedy = (
                "make its selector and the pods' labels the same: kustomize's `labels` do not reach a RayService's pods"
            )
            yield refuse("reference", f"{name_of(item)} selects no pod that is there", remedy)
    accounts = {"default", *(item["metadata"]["name"] for item in objects if item["kind"] == "ServiceAccount")}
    for pod in found:
        if (account := pod.spec.get("serviceAccountName", "default")) not in accounts:
            remedy = "add it; kustomize's `namePrefix` and `nameSuffix` do not reach a RayService's pods"
            yield refuse("reference", f"{pod}: there is no ServiceAccount {account}", remedy)


def _is_for_ingress(policy: Object) -> bool:
    kinds = at(policy, "spec", "policyTypes")
    return not kinds or "Ingress" in kinds


def _is_open(policy: Object, pod: Pod) -> bool:
    """Whether a network policy lets everybody reach a port of Ray's that neither serves nor measures."""
    ports = [port for container in pod.containers() for port in dicts(container, "ports")]
    harmless: set[object] = {*_SERVE_PORTS}
    for port in ports:
        if (name := str(port.get("name"))) in _SERVE_PORTS or name.endswith("metrics"):
            harmless |= {name, port.get("containerPort")}
    for rule in dicts(policy, "spec", "ingress"):
        named = dicts(rule, "ports")
        wide = not named or any(port.get("port") not in harmless or port.get("endPort") for port in named)
        if wide and (not rule.get("from") or any(map(_is_everybody, dicts(rule, "from")))):
            return True
    return False


def _is_everybody(peer: Mapping[str, Any]) -> bool:
    if str(at(peer, "ipBlock", "cidr")).endswith("/0"):
        return True
    every_namespace = "namespaceSelector" in peer and not peer["namespaceSelector"]
    return every_namespace and not peer.get("podSelector")


def _ways_in(objects: Sequence[Object]) -> Iterator[Finding]:
    """From outside there is a way to Serve, and to nothing else."""
    serving = {f"{item['metadata']['name']}-serve-svc" for item in objects if item["kind"] == "RayService"}
    remedy = f"let it go to {', '.join(sorted(serving)) or 'the Service that KubeRay makes for Serve'}"
    for item in objects:
        if item["kind"] in _ROUTES:
            for backend in sorted(set(_backends(item)) - serving):
                yield refuse("network", f"{name_of(item)} sends requests to {backend}, which is not Serve", remedy)
        elif item["kind"] == "Service" and _is_outward(mapping(item, "spec")):
            ports = [port.get("targetPort", port.get("port")) for port in dicts(item, "spec", "ports")]
            if [port for port in ports if port not in (*_SERVE_PORTS, 8000, 9000)]:
                yield refuse("network", f"{name_of(item)} opens other ports than Serve's to the outside", remedy)
        for path, head in mappings(item):
            if not path.endswith("headGroupSpec"):
                continue
            outward = head.get("serviceType") in _OUTWARD or _is_outward(mapping(head, "headService", "spec"))
            if outward or head.get("enableIngress"):
                yield refuse("network", f"{name_of(item)}: {path} opens Ray's head to the outside", remedy)


def _is_outward(service: Mapping[str, Any]) -> bool:
    return service.get("type") in _OUTWARD or bool(service.get("externalIPs"))


def _backends(route: Object) -> Iterator[str]:
    """The Services that an Ingress or a route sends requests to, those that get a copy included."""
    for path, found in mappings(route):
        last = path.rpartition(".")[2]
        within = last if not last.isdigit() else path.rpartition(".")[0].rpartition(".")[2]
        if within in ("backendRefs", "backendRef") or path.endswith(("backend.service", "defaultBackend.service")):
            yield str(found.get("name"))
