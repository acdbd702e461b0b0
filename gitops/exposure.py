"""The ways to Ray from outside, by Services, routes and listeners: to Serve, by TLS where they are a Gateway's."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gitops.findings import Finding, refuse
from gitops.objects import Object, at, dicts, group_of, mapping, mappings, name_of, pods

SERVE_PORTS = ("serve", "serve-grpc")
"""The ports of Ray's pods that Serve answers at."""
_SERVICE_PORTS = (*SERVE_PORTS, "8000", "9000")
_OUTWARD = ("LoadBalancer", "NodePort")
_ROUTES = ("Ingress", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute")
_OPENSHIFTS = "route.openshift.io"
_ISTIOS = "networking.istio.io"
_TRAEFIKS = ("traefik.io", "traefik.containo.us")
_CONTOURS = "projectcontour.io"
_ANY_PORT = ""
"""Where a route names none, and its controller takes the one that the Service has."""


def refusals(objects: Sequence[Object]) -> Iterator[Finding]:
    """What leads from outside to something else than Serve, or to that without TLS.

    Args:
        objects: all of an environment.
    """
    yield from _ways_in(objects)
    yield from _listeners(objects)


def _ways_in(objects: Sequence[Object]) -> Iterator[Finding]:
    """From outside there is a way to Serve, and to nothing else."""
    services = [item for item in objects if item["kind"] == "RayService"]
    serving = dict(_serving(item) for item in services)
    behind = {*_SERVICE_PORTS}.union(*(found for item in services for found in _serve_ports(item).items()))
    remedy = f"let it go to {', '.join(sorted(serving)) or 'the Service that KubeRay makes for Serve'}"
    for item in objects:
        if item["kind"] in _ROUTES or group_of(item) in (_OPENSHIFTS, _ISTIOS, *_TRAEFIKS, _CONTOURS):
            for backend, port in sorted(set(_backends(item))):
                if _is_answered(item, backend, port):
                    continue
                if backend not in serving:
                    yield refuse("network", f"{name_of(item)} sends requests to {backend}, which is not Serve", remedy)
                elif port not in (_ANY_PORT, *serving[backend]):
                    found = f"{name_of(item)} sends requests to the port {port} of {backend}, which has none such"
                    yield refuse("network", found, f"take one of {', '.join(serving[backend])}")
        elif item["kind"] == "Service" and _opens_others(mapping(item, "spec"), behind):
            yield refuse("network", f"{name_of(item)} opens other ports than Serve's to the outside", remedy)
        elif item["kind"] == "RayService":
            yield from _serve_service(item, behind)
        for path, head in mappings(item):
            if not path.endswith("headGroupSpec"):
                continue
            outward = head.get("serviceType") in _OUTWARD or _is_outward(mapping(head, "headService", "spec"))
            if outward or head.get("enableIngress"):
                yield refuse("network", f"{name_of(item)}: {path} opens Ray's head to the outside", remedy)


def _serve_service(item: Object, behind: set[str]) -> Iterator[Finding]:
    """Where somebody gives KubeRay the Service for Serve, it takes type and ports as they are, but for the selector."""
    own, where = mapping(item, "spec", "serveService", "spec"), f"{name_of(item)}: spec.serveService"
    if _opens_others(own, behind):
        found = f"{where} opens other ports than Serve's to the outside"
        yield refuse(
            "network", found, "say `targetPort: serve` or `serve-grpc` for each of its ports, or take its `type` out"
        )
        return
    known = {
        str(port.get(key))
        for pod in pods(item)
        for container in pod.containers()
        for port in dicts(container, "ports")
        for key in ("name", "containerPort")
    }
    for port in dicts(own, "ports"):
        target = _target(port)
        if not (isinstance(target, int) and "targetPort" in port) and str(target) not in known:
            found = f"{where}: its port {port.get('name')} leads to {target} of the pods, where nothing listens"
            yield refuse("reference", found, "say `targetPort: serve` or `serve-grpc` beside `port`")


def _serving(service: Object) -> tuple[str, list[str]]:
    """The Service that KubeRay makes for Serve, and its ports, by name and by number."""
    own, ports = mapping(service, "spec", "serveService"), _serve_ports(service)
    ports |= {
        str(port["name"]): str(port.get("port")) for port in dicts(own, "spec", "ports") if port.get("name") in ports
    }
    name = at(own, "metadata", "name") or f"{service['metadata']['name']}-serve-svc"
    return str(name), [*ports, *ports.values()]


def _serve_ports(service: Object) -> dict[str, str]:
    """The ports of Ray's pods from which KubeRay makes those of Serve's Service: their numbers by their names."""
    head = at(service, "spec", "rayClusterConfig", "headGroupSpec")
    return {
        str(port["name"]): str(port.get("containerPort"))
        for container in dicts(head, "template", "spec", "containers")[:1]
        for port in dicts(container, "ports")
        if str(port.get("name")).startswith(SERVE_PORTS)
    }


def _opens_others(service: Mapping[str, Any], behind: set[str]) -> bool:
    """Whether a Service is there for the outside, and leads to another port than these of the pods."""
    return _is_outward(service) and any(str(_target(port)) not in behind for port in dicts(service, "ports"))


def _target(port: Mapping[str, Any]) -> Any:
    """Where a port of a Service leads to, by name or number."""
    return port.get("targetPort", port.get("port"))


def _is_outward(service: Mapping[str, Any]) -> bool:
    return service.get("type") in _OUTWARD or bool(service.get("externalIPs"))


def _listeners(objects: Sequence[Object]) -> Iterator[Finding]:
    """What comes to Serve by a Gateway of the environment comes by a listener that is there, and ends TLS."""
    gateways = {item["metadata"]["name"]: item for item in objects if _is_gateway(item)}
    for route in objects:
        if not gateways or route["kind"] not in ("HTTPRoute", "GRPCRoute") or not list(_backends(route)):
            continue
        for parent in dicts(route, "spec", "parentRefs"):
            name, section, port = parent.get("name"), parent.get("sectionName"), parent.get("port")
            if parent.get("namespace") or parent.get("kind", "Gateway") != "Gateway":
                continue
            listeners = [
                found
                for found in dicts(gateways.get(str(name)), "spec", "listeners")
                if section in (None, found.get("name")) and port in (None, found.get("port"))
            ]
            what = f"{name_of(route)} comes by Gateway {name}" + (f", listener {section}" if section else "")
            if not listeners:
                remedy = f"take one that is there: {', '.join(sorted(gateways))}, by the name of one of its listeners"
                yield refuse("reference", f"{what}, which is not there", remedy)
            for found in listeners:
                tls = mapping(found, "tls")  # without it, or with `options`, the controller has the certificate
                ends_tls = tls.get("mode") in (None, "Terminate") and (
                    not tls or tls.get("certificateRefs") or tls.get("options")
                )
                if found.get("protocol") != "HTTPS" or not ends_tls:
                    remedy = "give the listener `protocol: HTTPS` and `tls` as components/gateway does"
                    yield refuse("network", f"{what}: the listener {found.get('name')} does not end TLS", remedy)


def _is_answered(route: Object, backend: str, port: str) -> bool:
    """Whether AWS's controller answers by itself, as an annotation says, and no Service of that name does."""
    action = mapping(route, "metadata", "annotations").get(f"alb.ingress.kubernetes.io/actions.{backend}")
    return port == "use-annotation" and action is not None and "forward" not in str(action).lower()


def _is_gateway(item: Object) -> bool:
    """Whether it is the Gateway API's; Istio has another kind of this name."""
    return item["kind"] == "Gateway" and group_of(item) == "gateway.networking.k8s.io"


def _backends(route: Object) -> Iterator[tuple[str, str]]:
    """The Services that an Ingress or a route sends requests to, and their ports, those that get a copy included."""
    group = group_of(route)
    if group == _OPENSHIFTS:
        spec = mapping(route, "spec")
        for to in (mapping(spec, "to"), *dicts(spec, "alternateBackends")):
            yield str(to.get("name")), str(at(spec, "port", "targetPort") or _ANY_PORT)
        return
    for path, found in mappings(route):
        *before, last = path.split(".")
        within = before[-1] if last.isdigit() and before else last
        if group == _ISTIOS:
            if within in ("destination", "mirror") and "host" in found:
                yield str(found["host"]).partition(".")[0], str(_port(found) or _ANY_PORT)
        elif group in _TRAEFIKS or group == _CONTOURS:
            # A TraefikService is no Service: it stands between, and what it sends is looked at there.
            if within in ("services", "mirroring", "mirrors") and found.get("kind") != "TraefikService":
                yield str(found.get("name")), str(_port(found))
        elif within in ("backendRefs", "backendRef") or path.endswith(("backend.service", "defaultBackend.service")):
            yield str(found.get("name")), str(_port(found))


def _port(backend: Mapping[str, Any]) -> Any:
    """A backend's port, by number or name; an Ingress and Istio say which of both it is."""
    port = backend.get("port")
    return (port.get("number") or port.get("name")) if isinstance(port, dict) else port
