"""Whether Argo CD takes an environment's objects, from a repository and into a namespace that it was told of."""

import pytest

from gitops import destination, overlay
from gitops.findings import Phase, failed
from tests.gitops.conftest import (
    ARGO,
    ARGO_PROJECT,
    ARGO_SET,
    OVERLAY,
    Changes,
    Refused,
    expect_refused,
    expect_taken,
    no_complaint,
    refusals,
    with_object,
)

MINE = "https://git.example.com/line/deployments.git"

BAD: dict[str, Refused] = {
    "a patch that lets Argo CD take all": (
        ARGO,
        "configMapGenerator:\n",
        "patches:\n  - target: {kind: AppProject}\n    patch: |\n"
        "      - {op: add, path: /spec/sourceRepos/-, value: '*'}\nconfigMapGenerator:\n",
        "argocd",
        "AppProject mergeline: spec.sourceRepos takes every repository",
    ),
    "a patch for a project that is not there": (
        ARGO,
        "configMapGenerator:\n",
        "patches:\n  - target: {kind: AppProject, name: mergelin}\n    patch: |\n"
        "      - {op: remove, path: /spec/syncWindows}\nconfigMapGenerator:\n",
        "argocd",
        "gitops/argocd/kustomization.yaml: patches.0 is for AppProject mergelin, which is not there",
    ),
    "what Argo CD is told by a file that is not there": (
        ARGO,
        "  - monitoring.yaml\n",
        "  - monitorin.yaml\n",
        "argocd",
        "gitops/argocd/kustomization.yaml: `resources` names monitorin.yaml",
    ),
    "a repository's URL for a field that is not there": (
        ARGO,
        "fieldPaths: [spec.sourceRepos.0]",
        "fieldPaths: [spec.sourceRepo.0]",
        "argocd",
        "sourceRepo",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_overlay_is_refused(files: dict[str, str], case: str) -> None:
    expect_refused(files, *BAD[case])


ALLOWED: dict[str, Changes] = {
    "a repository of one's own": {ARGO: [("url=https://github.com/OWNER", "url=https://git.example.com/line")]},
    "no alerts by Argo CD": {ARGO: [("  - monitoring.yaml\n", "")]},
    "namespaces of another name": {
        ARGO_SET: [("namespace: mergeline-{{", "namespace: line-{{")],
        ARGO_PROJECT: [("      namespace: mergeline-*", "      namespace: line-*")],
        OVERLAY: [("namespace: mergeline-production", "namespace: line-production")],
    },
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_right_is_not_refused(files: dict[str, str], case: str) -> None:
    expect_taken(files, ALLOWED[case])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "{kind: AppProject, name: mergeline}",
            "{kind: AppProject, name: mergelin}",
            f"ApplicationSet mergeline: its AppProject mergeline does not take the repository {MINE}",
        ),
        (
            "{kind: ApplicationSet, name: mergeline}",
            "{kind: ApplicationSet, name: mergelin}",
            f"its AppProject mergeline does not take the repository {destination.NO_REPOSITORY}",
        ),
        (
            "      - select: {kind: Application, name: mergeline-monitoring}\n"
            "        fieldPaths: [spec.source.repoURL]\n",
            "",
            "Application mergeline-monitoring: spec.source.repoURL is still https://github.com/OWNER/REPOSITORY.git",
        ),
        (
            "spec.generators.0.git.repoURL, ",
            "",
            "ApplicationSet mergeline: spec.generators.0.git.repoURL is still https://github.com/OWNER/REPOSITORY.git",
        ),
    ],
)
def test_the_repository_s_url_reaches_every_place(files: dict[str, str], old: str, new: str, words: str) -> None:
    text = files[ARGO].replace(destination.NO_REPOSITORY, MINE)
    assert old in text
    found = refusals(files | {ARGO: text.replace(old, new)})
    assert {finding.key for finding in found} == {"argocd"}
    assert words in "\n".join(finding.reason for finding in found)


@pytest.mark.parametrize(
    "more",
    [
        "resources:\n  - https://raw.githubusercontent.com/argoproj/argo-cd/v3.5.1/manifests/install.yaml\n",
        "resources:\n  - github.com/argoproj/argo-cd//manifests/cluster-install?ref=v3.5.1\n",
        "helmCharts: [{name: argo-cd, repo: 'https://argoproj.github.io/argo-helm', version: 9.0.0}]\nresources:\n",
        "generators: [secrets.yaml]\nresources:\n",
    ],
)
def test_what_kustomize_makes_elsewhere_only_is_said_to_be_not_rendered(files: dict[str, str], more: str) -> None:
    plugin = "apiVersion: viaduct.ai/v1\nkind: ksops\nmetadata: {name: a}\nfiles: [a.enc.yaml]\n"
    changed = files | {ARGO: files[ARGO].replace("resources:\n", more), "gitops/argocd/secrets.yaml": plugin}
    findings = overlay.check(changed, "production", schema=no_complaint)
    assert failed(findings) == []
    skipped = [finding.reason for finding in findings if finding.phase is Phase.SKIPPED and finding.key == "argocd"]
    assert ["what gitops/argocd makes was not rendered" in reason for reason in skipped] == [True]
    bad = changed[ARGO_SET].replace("type: RollingSync", "type: AllAtOnce")
    assert {found.key for found in refusals(changed | {ARGO_SET: bad})} == {"argocd"}  # its files are judged


def test_what_argo_cd_is_told_without_kustomize_is_judged_file_by_file(files: dict[str, str]) -> None:
    plain = {path: text for path, text in files.items() if path != ARGO}
    assert refusals(plain) == []
    bad = plain[ARGO_PROJECT].replace("    - https://github.com/OWNER/REPOSITORY.git", '    - "*"')
    assert "spec.sourceRepos takes every repository" in str(refusals(plain | {ARGO_PROJECT: bad}))


@pytest.mark.parametrize(
    ("kind", "version"),
    [
        ("StatefulSet", "apps/v1"),
        ("RoleBinding", "rbac.authorization.k8s.io/v1"),
        ("ClusterRole", "rbac.authorization.k8s.io/v1"),
    ],
)
def test_what_argo_cd_would_not_take_is_refused(files: dict[str, str], kind: str, version: str) -> None:
    found = refusals(files | with_object(files, f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n"))
    assert f"{kind} a: the AppProject takes no {kind} of the group" in str(found)
    here = {path: text for path, text in files.items() if not path.startswith("gitops/argocd/")}
    found = refusals(here | with_object(files, f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n"))
    assert "argocd" not in {finding.key for finding in found}  # it is none of ours


@pytest.mark.parametrize(
    ("kind", "version"),
    [
        ("ExternalSecret", "external-secrets.io/v1"),
        ("SealedSecret", "bitnami.com/v1alpha1"),
        ("Certificate", "cert-manager.io/v1"),
    ],
)
def test_what_makes_secrets_in_the_cluster_is_taken(files: dict[str, str], kind: str, version: str) -> None:
    assert refusals(files | with_object(files, f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n")) == []


@pytest.mark.parametrize("line", ["namespace: mergeline-staging\n", "namespace: kube-system\n", ""])
def test_an_environment_has_its_own_namespace(files: dict[str, str], line: str) -> None:
    found = refusals(files | {OVERLAY: files[OVERLAY].replace("namespace: mergeline-production\n", line)})
    assert {finding.key for finding in found} == {"argocd"}
    assert "and production goes to mergeline-production" in found[0].reason
