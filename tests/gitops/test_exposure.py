"""From outside there is a way to Serve only, by TLS where a Gateway is one."""

import pytest
import yaml

from gitops import exposure
from gitops.findings import Finding
from tests.gitops.conftest import (
    GATEWAY,
    HEAD,
    OVERLAY,
    SERVICE,
    Changes,
    Refused,
    expect_patch_refused,
    expect_refused,
    expect_taken,
    refusals,
    with_object,
)

PLAIN = "    - {name: plain, port: 80, protocol: HTTP}\n    # A name of its own"

BAD: dict[str, Refused] = {
    "a listener without TLS": (
        GATEWAY,
        "protocol: HTTPS",
        "protocol: HTTP",
        "network",
        "HTTPRoute mergeline comes by Gateway mergeline, listener http: the listener http does not end TLS",
    ),
    "a listener that is not there": (
        GATEWAY,
        "sectionName: http}",
        "sectionName: https}",
        "reference",
        "listener https, which is not there",
    ),
    "a port that Serve's Service does not have": (
        GATEWAY,
        "mergeline-serve-svc, port: 8000",
        "mergeline-serve-svc, port: 8265",
        "network",
        "sends requests to the port 8265 of mergeline-serve-svc",
    ),
    "a Service for Serve that opens the dashboard": (
        SERVICE,
        "  excludeHead",
        "  serveService: {spec: {type: LoadBalancer, ports: [{name: serve, port: 80, targetPort: dashboard}]}}\n"
        "  excludeHead",
        "network",
        "RayService mergeline: spec.serveService opens other ports than Serve's to the outside",
    ),
    "a Service for Serve that opens a node's ports to anything": (
        SERVICE,
        "  excludeHead",
        "  serveService: {spec: {type: NodePort, ports: [{name: serve, port: 80}]}}\n  excludeHead",
        "network",
        "RayService mergeline: spec.serveService opens other ports than Serve's to the outside",
    ),
    "a Service for Serve that leads nowhere": (
        SERVICE,
        "  excludeHead",
        "  serveService: {spec: {ports: [{name: serve, port: 80}]}}\n  excludeHead",
        "reference",
        "spec.serveService: its port serve leads to 80 of the pods, where nothing listens",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_overlay_is_refused(files: dict[str, str], case: str) -> None:
    expect_refused(files, *BAD[case])


ALLOWED: dict[str, Changes] = {
    "a listener by its port": {
        GATEWAY: [
            ("    # A name of its own", PLAIN),
            ("name: mergeline, sectionName: http}", "name: mergeline, port: 443}"),
        ]
    },
    "a certificate that a controller has": {
        GATEWAY: [
            (
                'certificateRefs:\n          - {group: "", kind: Secret, name: mergeline-tls}\n',
                "options: {networking.gke.io/pre-shared-certs: mine}\n",
            )
        ]
    },
    "a Service for Serve as one wants it": {
        SERVICE: [
            (
                "  excludeHead",
                "  serveService: {metadata: {name: line}, spec: {ports: [{name: serve, port: 80, targetPort: serve}]}}"
                "\n  excludeHead",
            )
        ],
        GATEWAY: [
            ("mergeline-serve-svc, port: 8000", "line, port: 80"),
            ("mergeline-serve-svc, port: 9000", "line, port: 9000"),
        ],
    },
    "a load balancer to Serve": {
        SERVICE: [
            (
                "  excludeHead",
                "  serveService: {spec: {type: LoadBalancer, ports: [{name: serve, port: 443, targetPort: 8000}]}}\n"
                "  excludeHead",
            )
        ],
        GATEWAY: [("mergeline-serve-svc, port: 8000", "mergeline-serve-svc, port: 443")],
    },
    "a proxy beside Serve that names no port": {
        SERVICE: [
            (
                "  excludeHead",
                "  serveService: {spec: {ports: [{name: serve, port: 8000, targetPort: 8443}]}}\n  excludeHead",
            )
        ],
    },
    "a certificate that a Gateway's controller finds": {
        GATEWAY: [
            (
                "      tls: &tls\n        mode: Terminate\n        certificateRefs:\n"
                '          - {group: "", kind: Secret, name: mergeline-tls}\n',
                "",
            ),
            ("      tls: *tls\n", ""),
        ]
    },
    "an Ingress of which AWS's controller redirects a part": {
        OVERLAY: [
            ("components/gateway", "components/ingress"),
            ("target: {kind: Gateway, name: mergeline}", "target: {kind: Gateway}"),
        ],
        "gitops/components/ingress/ingress.yaml": [
            (
                "  name: mergeline\nspec",
                "  name: mergeline\n  annotations:\n    alb.ingress.kubernetes.io/actions.ssl-redirect: "
                '\'{"Type": "redirect", "RedirectConfig": {"Protocol": "HTTPS"}}\'\nspec',
            ),
            (
                "        paths:\n",
                "        paths:\n          - {path: /, pathType: Prefix, backend: "
                "{service: {name: ssl-redirect, port: {name: use-annotation}}}}\n",
            ),
        ],
    },
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_right_is_not_refused(files: dict[str, str], case: str) -> None:
    expect_taken(files, ALLOWED[case])


@pytest.mark.parametrize(
    ("operation", "key", "words"),
    [
        (f"{{op: add, path: {HEAD}/serviceType, value: LoadBalancer}}", "network", "opens Ray's head to the outside"),
        (
            f"{{op: add, path: {HEAD}/headService, value: {{spec: {{type: NodePort}}}}}}",
            "network",
            "opens Ray's head to the outside",
        ),
        (f"{{op: add, path: {HEAD}/enableIngress, value: true}}", "network", "opens Ray's head to the outside"),
    ],
)
def test_a_service_that_breaks_a_policy_is_refused(files: dict[str, str], operation: str, key: str, words: str) -> None:
    expect_patch_refused(files, operation, key, words)


@pytest.mark.parametrize(
    ("service", "port", "is_refused"), [("mergeline-serve-svc", 8000, False), ("mergeline-head-svc", 8265, True)]
)
def test_from_outside_there_is_a_way_to_serve_only(
    files: dict[str, str], service: str, port: int, is_refused: bool
) -> None:
    backend = f"{{service: {{name: {service}, port: {{number: {port}}}}}}}"
    paths = f"{{paths: [{{path: /, pathType: Prefix, backend: {backend}}}]}}"
    ingress = (
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a}\n"
        f"spec: {{rules: [{{http: {paths}}}]}}\n"
    )
    route = (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: b}\n"
        f"spec: {{rules: [{{backendRefs: [{{name: {service}, port: {port}}}]}}]}}\n"
    )
    for text in (ingress, route):
        found = refusals(files | with_object(files, text))
        assert [finding.key for finding in found] == (["network"] if is_refused else [])


SERVICE_OF_SERVE = {
    "apiVersion": "ray.io/v1",
    "kind": "RayService",
    "metadata": {"name": "mergeline"},
    "spec": yaml.safe_load(
        "rayClusterConfig: {headGroupSpec: {template: {spec: {containers: "
        "[{name: head, ports: [{name: serve, containerPort: 8000}, {name: dashboard, containerPort: 8265}]}]}}}}"
    ),
}
TO_SERVE, TO_HEAD = "name: mergeline-serve-svc", "name: mergeline-head-svc"
HOST, CLUSTER_HOST = "host: mergeline-serve-svc", "host: mergeline-serve-svc.mergeline-staging.svc.cluster.local"


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("Route", f"to: {{kind: Service, {TO_SERVE}}}", None),
        ("Route", f"to: {{kind: Service, {TO_SERVE}}}, port: {{targetPort: serve}}", None),
        ("Route", f"to: {{kind: Service, {TO_SERVE}}}, port: {{targetPort: dashboard}}", "to the port dashboard of"),
        ("Route", f"to: {{{TO_SERVE}}}, alternateBackends: [{{kind: Service, {TO_HEAD}}}]", "to mergeline-head-svc"),
        ("VirtualService", f"http: [{{route: [{{destination: {{{HOST}}}}}]}}]", None),
        ("VirtualService", f"http: [{{route: [{{destination: {{{CLUSTER_HOST}, port: {{number: 8000}}}}}}]}}]", None),
        (
            "VirtualService",
            f"http: [{{route: [{{destination: {{{HOST}}}}}], mirror: {{host: mergeline-head-svc}}}}]",
            "to mergeline-head-svc",
        ),
        (
            "VirtualService",
            f"tcp: [{{route: [{{destination: {{{HOST}, port: {{number: 6379}}}}}}]}}]",
            "to the port 6379 of mergeline-serve-svc",
        ),
        ("IngressRoute", f"routes: [{{services: [{{{TO_SERVE}, port: 8000}}]}}]", None),
        ("IngressRoute", f"routes: [{{services: [{{{TO_HEAD}, port: 8265}}]}}]", "to mergeline-head-svc"),
        ("IngressRoute", "routes: [{services: [{name: both, kind: TraefikService}]}]", None),
        ("TraefikService", f"mirroring: {{{TO_SERVE}, port: 8000, mirrors: [{{{TO_HEAD}}}]}}", "to mergeline-head-svc"),
        ("HTTPProxy", f"routes: [{{services: [{{{TO_SERVE}, port: 8000}}]}}]", None),
        ("HTTPProxy", f"tcpproxy: {{services: [{{{TO_HEAD}, port: 10001}}]}}", "to mergeline-head-svc"),
    ],
)
def test_the_routes_of_other_controllers_lead_to_serve_only(kind: str, spec: str, words: str | None) -> None:
    group = {"Route": "route.openshift.io", "VirtualService": "networking.istio.io", "HTTPProxy": "projectcontour.io"}
    route = {
        "apiVersion": f"{group.get(kind, 'traefik.io')}/v1",
        "kind": kind,
        "metadata": {"name": "a"},
        "spec": yaml.safe_load(f"{{{spec}}}"),
    }
    found = [str(finding) for finding in exposure.refusals([SERVICE_OF_SERVE, route])]
    assert len(found) == (words is not None)
    assert all(f"{kind} a sends requests {words}" in text for text in found)


def test_a_load_balancer_to_the_dashboard_is_refused() -> None:
    def found(port: object) -> list[Finding]:
        spec = {"type": "LoadBalancer", "ports": [{"port": 80, "targetPort": port}]}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": spec}
        return list(exposure.refusals([service]))

    assert [finding.key for finding in found(8265)] == ["network"]
    assert found("serve") == found(8000) == []
