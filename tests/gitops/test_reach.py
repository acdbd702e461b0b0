"""Network policies close Ray and leave the ways that it needs, and what refers to something finds it."""

import pytest

from tests.gitops.conftest import (
    BUDGET,
    OVERLAY,
    POLICIES,
    WORKER,
    Changes,
    Refused,
    also,
    expect_patch_refused,
    expect_refused,
    expect_taken,
    patched,
    refusals,
    with_object,
)

BAD: dict[str, Refused] = {
    "KubeRay shut out": (
        POLICIES,
        "        - {port: 8265, protocol: TCP}\n",
        "",
        "network",
        "no NetworkPolicy lets KubeRay reach the dashboard",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_overlay_is_refused(files: dict[str, str], case: str) -> None:
    expect_refused(files, *BAD[case])


ALLOWED: dict[str, Changes] = {
    "KubeRay let in by a range of ports": (
        {
            POLICIES: [
                (
                    "        - {port: 8265, protocol: TCP}\n        - {port: 8000,",
                    "        - {port: 8000, endPort: 8300,",
                )
            ]
        }
    ),
    "policies and budgets for what controllers make": {
        BUDGET: also(
            "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: gateway}\nspec: {minAvailable: 1, "
            "selector: {matchLabels: {gateway.networking.k8s.io/gateway-name: mergeline}}}\n---\n"
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: solver}\nspec: {podSelector: "
            "{matchLabels: {acme.cert-manager.io/http01-solver: 'true'}}, ingress: [{ports: [{port: 8089}]}]}\n"
        )
    },
    "one policy that closes Ray and lets it reach itself": {
        POLICIES: [
            (
                "metadata:\n  name: ray-closed\nspec:\n  podSelector:\n    matchLabels:\n"
                "      app.kubernetes.io/part-of: mergeline\n",
                "metadata:\n  name: ray-closed\nspec:\n  podSelector:\n    matchLabels:\n"
                "      app.kubernetes.io/component: observer\n",
            )
        ]
    },
    "KubeRay in the same namespace": {
        POLICIES: [
            (
                "namespaceSelector:\n            matchLabels:\n"
                "              kubernetes.io/metadata.name: kuberay-operator",
                "podSelector: {matchLabels: {app.kubernetes.io/name: kuberay-operator}}",
            )
        ]
    },
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_right_is_not_refused(files: dict[str, str], case: str) -> None:
    expect_taken(files, ALLOWED[case])


@pytest.mark.parametrize(
    ("operation", "key", "words"),
    [
        (
            "{op: remove, path: /spec/rayClusterConfig/workerGroupSpecs/0/template/metadata/labels"
            "/app.kubernetes.io~1part-of}",
            "network",
            "no NetworkPolicy selects these pods that closes",
        ),
        (f"{{op: replace, path: {WORKER}/serviceAccountName, value: admin}}", "reference", "no ServiceAccount admin"),
        (
            f"{{op: add, path: {WORKER}/containers/0/volumeMounts/-, value: {{name: nope, mountPath: /x}}}}",
            "reference",
            "container ray-worker mounts nope, which is no volume of it",
        ),
        (
            f"{{op: copy, from: {WORKER}/containers/0, path: {WORKER}/containers/-}}",
            "reference",
            "two containers are called ray-worker",
        ),
    ],
)
def test_a_service_that_breaks_a_policy_is_refused(files: dict[str, str], operation: str, key: str, words: str) -> None:
    expect_patch_refused(files, operation, key, words)


def test_a_policy_for_what_leaves_lets_something_leave(files: dict[str, str]) -> None:
    policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: more}\nspec: {podSelector: {}, "
    shut = refusals(files | with_object(files, f"{policy}policyTypes: [Egress]}}\n"))
    assert {finding.key for finding in shut} == {"network"}
    assert "lets RayService mergeline: spec.rayClusterConfig.headGroupSpec.template reach nobody" in str(shut)
    assert refusals(files | with_object(files, f"{policy}policyTypes: [Egress], egress: [{{}}]}}\n")) == []


def test_a_group_that_no_network_policy_selects_is_refused(files: dict[str, str]) -> None:
    labels = "/spec/rayClusterConfig/workerGroupSpecs/0/template/metadata/labels"
    found = refusals(files | patched(files, f"{{op: replace, path: {labels}, value: {{a: b}}}}"))
    assert {finding.key for finding in found} == {"network", "reference", "disruption"}
    said = "workerGroupSpecs.0.template: no NetworkPolicy selects these pods that closes"
    assert said in str(found)
    assert "PodDisruptionBudget ray-workers selects no pod that is there" in str(found)


@pytest.mark.parametrize(
    ("more", "keys"),
    [
        ("commonLabels: {team: a}\n", {"network", "reference", "disruption"}),
        ("labels:\n  - pairs: {team: a}\n    includeSelectors: true\n", {"network", "reference", "disruption"}),
        ("labels:\n  - pairs: {team: a}\n", set()),
        ("commonAnnotations: {team: a}\n", set()),
        ("namePrefix: x-\n", {"network", "reference"}),
    ],
)
def test_what_kustomize_adds_reaches_both_a_selector_and_its_pods(
    files: dict[str, str], more: str, keys: set[str]
) -> None:
    assert {finding.key for finding in refusals(files | {OVERLAY: files[OVERLAY] + more})} == keys


ANYBODY = "from: [{namespaceSelector: {}}]"


@pytest.mark.parametrize(
    ("rule", "is_open"),
    [
        ("{}", True),
        (f"{{{ANYBODY}}}", True),
        (f"{{{ANYBODY}, ports: [{{port: 8265}}]}}", True),
        ("{from: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: dashboard}]}", True),
        ("{ports: [{port: 8000, endPort: 9000}]}", True),
        ("{ports: [{port: serve}, {port: 9000}]}", False),
        (f"{{{ANYBODY}, ports: [{{port: metrics}}]}}", False),
        ("{from: [{namespaceSelector: {matchLabels: {a: b}}}]}", False),
        ("{from: [{ipBlock: {cidr: 128.0.0.0/1}}]}", True),
        ("{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}", False),
        ("{from: [{namespaceSelector: {matchExpressions: [{key: a, operator: NotIn, values: [b]}]}}]}", True),
        ("{from: [{namespaceSelector: {matchExpressions: [{key: a, operator: Exists}]}}]}", False),
        ("{from: [{podSelector: {}}]}", False),
    ],
)
def test_only_serve_s_ports_may_be_open_to_everybody(files: dict[str, str], rule: str, is_open: bool) -> None:
    policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: more}\n"
    found = refusals(files | with_object(files, f"{policy}spec: {{podSelector: {{}}, ingress: [{rule}]}}\n"))
    assert {finding.key for finding in found} == ({"network"} if is_open else set())
