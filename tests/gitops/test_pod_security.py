"""Pods keep the level `restricted`, and so does their namespace."""

import pytest

from tests.gitops.conftest import WORKER, expect_patch_refused, refusals, with_object


@pytest.mark.parametrize(
    ("operation", "key", "words"),
    [
        (f"{{op: add, path: {WORKER}/hostNetwork, value: true}}", "pod-security", "hostNetwork is on"),
        (
            f"{{op: add, path: {WORKER}/volumes/-, value: {{name: a, hostPath: {{path: /}}}}}}",
            "pod-security",
            "the volume a is a hostPath",
        ),
        (f"{{op: replace, path: {WORKER}/securityContext/runAsUser, value: 0}}", "pod-security", "it runs as root"),
        (f"{{op: replace, path: {WORKER}/securityContext/runAsNonRoot, value: false}}", "pod-security", "NonRoot"),
        (f"{{op: remove, path: {WORKER}/securityContext/seccompProfile}}", "pod-security", "`seccompProfile.type`"),
        (f"{{op: remove, path: {WORKER}/containers/0/securityContext}}", "pod-security", "`capabilities.drop` is not"),
        (
            f"{{op: add, path: {WORKER}/containers/0/securityContext/privileged, value: true}}",
            "pod-security",
            "it is privileged",
        ),
        (
            f"{{op: add, path: {WORKER}/containers/0/securityContext/capabilities/add, value: [SYS_ADMIN]}}",
            "pod-security",
            "it adds capabilities",
        ),
        (
            "{op: remove, path: /spec/rayClusterConfig/autoscalerOptions/securityContext}",
            "pod-security",
            "headGroupSpec.template: container autoscaler: `allowPrivilegeEscalation` is not false",
        ),
        (
            f"{{op: add, path: {WORKER}/securityContext/sysctls, value: [{{name: kernel.msgmax, value: '1'}}]}}",
            "pod-security",
            "it sets kernel.msgmax",
        ),
        (
            f"{{op: add, path: {WORKER}/securityContext/seLinuxOptions, value: {{type: spc_t}}}}",
            "pod-security",
            "`seLinuxOptions`",
        ),
        (
            f"{{op: add, path: {WORKER}/containers/0/securityContext/appArmorProfile, value: {{type: Unconfined}}}}",
            "pod-security",
            "`appArmorProfile.type` is Unconfined",
        ),
    ],
)
def test_a_service_that_breaks_a_policy_is_refused(files: dict[str, str], operation: str, key: str, words: str) -> None:
    expect_patch_refused(files, operation, key, words)


def test_a_namespace_keeps_the_level(files: dict[str, str]) -> None:
    text = (
        "apiVersion: v1\nkind: Namespace\n"
        "metadata: {name: mergeline-production, labels: {pod-security.kubernetes.io/enforce: privileged}}\n"
    )
    found = refusals(files | with_object(files, text))
    assert [finding.key for finding in found] == ["pod-security"]
    assert "enforces privileged only" in found[0].reason
