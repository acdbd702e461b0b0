"""The packaged overlays, ways to change them, and what is then refused or taken: what the tests of overlays share."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gitops import kustomize, overlay, policies
from gitops.findings import Finding, failed

ROOT = Path(__file__).parents[2]
DIGEST = "5c1f" * 16
ENVIRONMENTS = ("staging", "production")
OVERLAY = "gitops/environments/production/kustomization.yaml"
CONFIG = "gitops/environments/production/serve-config.yaml"
SERVICE = "gitops/base/rayservice.yaml"
ARGO, ARGO_SET = "gitops/argocd/kustomization.yaml", "gitops/argocd/environments.yaml"
ARGO_PROJECT, ARGO_OPERATORS = "gitops/argocd/project.yaml", "gitops/argocd/operators.yaml"
BUDGET = "gitops/base/pod-disruption-budget.yaml"
GATEWAY, POLICIES = "gitops/components/gateway/gateway.yaml", "gitops/base/network-policies.yaml"
MORE = "gitops/argocd/more.yaml"
HEAD = "/spec/rayClusterConfig/headGroupSpec"
WORKER = "/spec/rayClusterConfig/workerGroupSpecs/0/template/spec"
OTHER = f"other@sha256:{DIGEST}"
LIMITED = 'resources: {limits: {cpu: "1", memory: 1Gi}}'

Refused = tuple[str, str, str, str, str]
"""A file, what is replaced in it by what, the key of the gate that refuses that, and words of its reason."""
Changes = Mapping[str, Sequence[tuple[str, str]]]
"""Files, and what is replaced in each of them by what."""


@pytest.fixture(scope="session")
def files() -> dict[str, str]:
    """The packaged overlays, with an image that somebody has built; for tests that render them."""
    if shutil.which("kubectl", path=kustomize.search_path()) is None:
        pytest.skip("no kubectl here: `make kubectl` installs one")
    paths = [path for path in (ROOT / "gitops").rglob("*") if path.suffix in (".yaml", ".lua")]
    texts = {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}
    return {path: text.replace(policies.NO_DIGEST, DIGEST) for path, text in texts.items()}


def no_complaint(_: Mapping[str, Any]) -> None:
    """In place of Ray's schema, which takes seconds to import."""


def refusals(files: Mapping[str, str], name: str = "production", **options: Any) -> list[Finding]:
    return failed(overlay.check(files, name, schema=no_complaint, **options))


def patched(
    files: Mapping[str, str], *operations: str, kind: str = "RayService", name: str = "mergeline"
) -> dict[str, str]:
    """The overlay with a patch of these JSON operations more."""
    lines = "".join(f"      - {operation}\n" for operation in operations)
    return {OVERLAY: f"{files[OVERLAY].rstrip()}\n  - target: {{kind: {kind}, name: {name}}}\n    patch: |\n{lines}"}


def with_object(files: Mapping[str, str], text: str) -> dict[str, str]:
    """The overlay with an object more."""
    overlay = files[OVERLAY].replace("  - ../../base\n", "  - ../../base\n  - more.yaml\n")
    return {OVERLAY: overlay, "gitops/environments/production/more.yaml": text}


def also(text: str) -> list[tuple[str, str]]:
    """In the file with the budget, another object behind it."""
    last = "      app.kubernetes.io/component: ray-worker\n"
    return [(last, f"{last}---\n{text}")]


def expect_refused(files: dict[str, str], path: str, old: str, new: str, key: str, words: str) -> None:
    """As a `Refused` says it, and with a remedy."""
    assert old in files[path]
    found = refusals(files | {path: files[path].replace(old, new)})
    assert key in {finding.key for finding in found}
    assert words in "\n".join(finding.reason for finding in found)
    assert all(finding.remedy for finding in found)


def expect_patch_refused(files: dict[str, str], operation: str, key: str, words: str) -> None:
    """The service with this JSON operation, by the gate of that key in these words."""
    found = refusals(files | patched(files, operation))
    assert [finding for finding in found if finding.key == key and words in finding.reason], found


def expect_taken(files: dict[str, str], changes: Changes) -> None:
    """All of these changes together."""
    changed = dict(files)
    for path, replaced in changes.items():
        for old, new in replaced:
            assert old in changed[path]
            changed[path] = changed[path].replace(old, new)
    assert refusals(changed) == []
