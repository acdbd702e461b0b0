"""An environment's overlay as a whole: what is asked of it, and that a bad one is refused in words that help."""

import subprocess
from pathlib import Path

import pytest

from gitops import overlay
from gitops.findings import Phase, failed
from gitops.repository import Repository
from tests.gitops.conftest import (
    CONFIG,
    DIGEST,
    ENVIRONMENTS,
    LIMITED,
    OTHER,
    OVERLAY,
    SERVICE,
    WORKER,
    Refused,
    expect_refused,
    patched,
    refusals,
)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_overlay_passes_and_says_what_was_not_compared(files: dict[str, str], name: str) -> None:
    findings = overlay.check(files, name)
    assert failed(findings) == []
    skipped = [finding for finding in findings if finding.phase is Phase.SKIPPED]
    assert [str(finding) for finding in skipped] == [
        "skipped argocd: Argo CD is told of no repository yet: gitops/argocd names "
        "https://github.com/OWNER/REPOSITORY.git\n"
        "        to do: write the repository's URL into gitops/argocd/kustomization.yaml, from where `replacements` "
        "take it, if Argo CD is to be told by it",
        "skipped kubernetes: not compared with a schema: 1 AppProject (argoproj.io/v1alpha1), "
        "3 Application (argoproj.io/v1alpha1), 1 ApplicationSet (argoproj.io/v1alpha1), "
        "1 GRPCRoute (gateway.networking.k8s.io/v1), "
        "1 Gateway (gateway.networking.k8s.io/v1), 1 HTTPRoute (gateway.networking.k8s.io/v1), "
        "2 PodMonitor (monitoring.coreos.com/v1), 1 RayService (ray.io/v1)\n"
        "        to do: give their definitions with --crds",
    ]
    assert f"Ray's ServeDeploySchema takes gitops/environments/{name}/serve-config.yaml" in str(findings)


BAD: dict[str, Refused] = {
    "an unknown key of Serve": (
        CONFIG,
        "max_surge_percent:",
        "max_surge_percnt:",
        "overlay",
        "did you mean 'max_surge_percent'?",
    ),
    "a Serve configuration that is not YAML": (
        CONFIG,
        "applications:\n",
        "applications: [\n",
        "overlay",
        "is not YAML",
    ),
    "a Serve configuration of its own": (
        OVERLAY,
        "fieldPaths: [spec.serveConfigV2]",
        "fieldPaths: [spec.rayClusterConfig.rayVersion]",
        "overlay",
        "is not gitops/environments/production/serve-config.yaml: a promotion would change nothing",
    ),
    "an observer of something else": (
        OVERLAY,
        "fieldPaths: [spec.template.metadata.annotations.serve-config]",
        "fieldPaths: [spec.template.metadata.annotations.other]\n        options: {create: true}",
        "observer",
        "Deployment observer: spec.template.metadata.annotations.serve-config is not "
        "gitops/environments/production/serve-config.yaml: nobody would look",
    ),
    "an application of ours that is none": (
        CONFIG,
        "serve.app:build",
        "serve.app:biuld",
        "overlay",
        "the `import_path` 'serve.app:biuld' makes no application; did you mean 'serve.app:build'?",
    ),
    "a file in place of an application": (CONFIG, "serve.app:build", "serve/app.py:build", "overlay", "must look like"),
    "a setting of the application that is none": (
        CONFIG,
        "max_bytes: 25000000",
        "max_byte: 25000000",
        "overlay",
        "max_byte: unknown key; did you mean 'max_bytes'",
    ),
    "a bundle at what is no URI": (
        CONFIG,
        "model: null",
        f"model: {{name: screw, version: '1', uri: 'file://[', sha256: {DIGEST}}}",
        "policies",
        "holds what has no sense, and the policies cannot be asked (Invalid IPv6 URL)",
    ),
    "an observer that is always ready": (
        "gitops/base/observer.yaml",
        "  replicas: 1\n",
        "  replicas: 0\n",
        "observer",
        "Deployment observer has no pod",
    ),
    "pods that are not said": (
        SERVICE,
        "          containers:\n            - name: ray-head\n",
        "          container:\n            - name: ray-head\n",
        "overlay",
        "does not say its pods",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_overlay_is_refused(files: dict[str, str], case: str) -> None:
    expect_refused(files, *BAD[case])


def test_an_observer_with_a_container_beside_it_is_one(files: dict[str, str]) -> None:
    security = "securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}"
    beside = f"{{name: beside, image: '{OTHER}', {LIMITED}, {security}}}"
    add = f"{{op: add, path: /spec/template/spec/containers/-, value: {beside}}}"
    assert refusals(files | patched(files, add, kind="Deployment", name="observer")) == []


@pytest.mark.parametrize(
    ("operation", "key", "words"),
    [
        ("{op: replace, path: /spec/upgradeStrategy, value: [NewCluster]}", "upgrade", "None is none that KubeRay"),
        ('{op: replace, path: /spec/upgradeStrategy/type, value: ""}', "upgrade", "'' is none that KubeRay knows"),
        (f"{{op: replace, path: {WORKER}/containers/0/resources/limits, value: 5}}", "limits", "cpu and memory"),
        (f"{{op: replace, path: {WORKER}/containers/0/resources, value: none}}", "limits", "cpu and memory"),
        (f"{{op: replace, path: {WORKER}/containers/0/ports, value: {{metrics: 8080}}}}", "http", "group cpu"),
        ("{op: replace, path: /spec/rayClusterConfig/headGroupSpec/rayStartParams, value: foo}", "folder", "head"),
        ("{op: replace, path: /spec/rayClusterConfig, value: foo}", "overlay", "does not say its pods"),
    ],
)
def test_what_has_no_sense_is_refused_in_words(files: dict[str, str], operation: str, key: str, words: str) -> None:
    config = files[CONFIG].replace("      threads: 2\n", "      threads: 2\n      feedback: /feedback\n")
    found = refusals(files | {CONFIG: config} | patched(files, operation))
    assert any(finding.key == key and words in finding.reason for finding in found), found


def test_only_texts_of_a_commit_are_read(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=tmp_path, check=True)

    (tmp_path / "gitops").mkdir()
    (tmp_path / "gitops" / "a.yaml").write_text("a: ä\n")
    (tmp_path / "gitops" / "logo.png").write_bytes(b"\x89PNG\xff")
    (tmp_path / "gitops" / "link.yaml").symlink_to("/etc/passwd")
    git("init", "--quiet")
    git("add", "--all")
    git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},gitops/submodule")
    git("commit", "--quiet", "--message", "a")
    repository = Repository(tmp_path)
    assert overlay.files_at(repository, repository.fetch("HEAD").id) == {"gitops/a.yaml": "a: ä\n"}


def test_what_is_too_long_to_be_observed_is_refused(files: dict[str, str]) -> None:
    found = refusals(files | {CONFIG: files[CONFIG] + "# a line of a fleet\n" * 14_000})
    assert [finding.key for finding in found] == ["observer"]
    assert "Kubernetes takes annotations of 250 KiB" in found[0].reason


def test_what_rays_schema_says_is_refused(files: dict[str, str]) -> None:
    findings = overlay.check(files, "production", schema=lambda _: "max_replicas is below min_replicas")
    assert "max_replicas is below min_replicas" in failed(findings)[0].reason
