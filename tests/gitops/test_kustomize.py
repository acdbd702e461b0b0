"""What kustomize renders, and that it tells what lies elsewhere, or is patched and not there."""

import pytest

from gitops import kustomize
from tests.gitops.conftest import (
    ARGO,
    BUDGET,
    OVERLAY,
    SERVICE,
    Changes,
    Refused,
    also,
    expect_refused,
    expect_taken,
    patched,
    refusals,
    with_object,
)

BAD: dict[str, Refused] = {
    "a patch for another name": (
        OVERLAY,
        "target: {kind: RayService, name: mergeline}",
        "target: {kind: RayService, name: mergelin}",
        "overlay",
        "patches.1 is for RayService mergelin, which is not there",
    ),
    "a patch for a kind that is none": (
        OVERLAY,
        "target: {kind: RayService, name: mergeline}",
        "target: {kind: Rayservice, name: mergeline}",
        "overlay",
        "patches.1 is for Rayservice mergeline, which is not there",
    ),
    "a file that is not there": (OVERLAY, "  - ../../base\n", "  - ../../bass\n", "overlay", "gitops/bass"),
    "nothing": (OVERLAY, "resources:\n", "resourcs:\n", "overlay", "resourcs"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_overlay_is_refused(files: dict[str, str], case: str) -> None:
    expect_refused(files, *BAD[case])


ALLOWED: dict[str, Changes] = {
    "a matcher of Alertmanager's, which is `=`": {
        BUDGET: also(
            "apiVersion: external-secrets.io/v1\nkind: ExternalSecret\nmetadata: {name: a}\nspec: {matchType: =}\n"
        )
    },
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_right_is_not_refused(files: dict[str, str], case: str) -> None:
    expect_taken(files, ALLOWED[case])


def test_a_component_s_patch_for_what_is_not_there_is_refused(files: dict[str, str]) -> None:
    """A project of another name would take commits that nobody has signed."""
    signed = "gitops/components/signed-commits/kustomization.yaml"
    changes = {
        ARGO: files[ARGO].replace("# Commits must be signed: components: ", "components: "),
        signed: files[signed]
        .replace("0000000000000000", "D56C4FCA57A46444")
        .replace("name: mergeline}", "name: line}"),
    }
    (found,) = refusals(files | changes)
    assert f"{signed}: patches.0 is for AppProject line, which is not there" in found.reason


def test_a_component_may_be_for_what_another_environment_makes(files: dict[str, str]) -> None:
    shared = (
        "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\npatches:\n"
        "  - target: {kind: Gateway, name: public}\n    patch: |\n"
        "      - {op: add, path: /metadata/labels, value: {team: a}}\n"
    )
    staged = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata:\n  name: public\n"
    changes = {
        OVERLAY: files[OVERLAY].replace("components:\n", "components:\n  - ../../components/team\n"),
        "gitops/components/team/kustomization.yaml": shared,
    }
    (found,) = refusals(files | changes)
    assert "gitops/components/team/kustomization.yaml: patches.0 is for Gateway public" in found.reason
    assert refusals(files | changes | {"gitops/environments/staging/gateway.yaml": staged}) == []


@pytest.mark.parametrize("name", ["app", "'a(?i)pp'"])  # kustomize's regular expressions are Go's
def test_a_patch_for_what_a_generator_makes_is_one(files: dict[str, str], name: str) -> None:
    generated = files[OVERLAY].replace(
        "configMapGenerator:\n", "configMapGenerator:\n  - {name: app, literals: [a=b]}\n"
    )
    labelled = patched(
        {OVERLAY: generated}, "{op: add, path: /metadata/labels, value: {a: b}}", kind="ConfigMap", name=name
    )
    assert refusals(files | labelled) == []


@pytest.mark.parametrize(("name", "is_there"), [("budget", True), ("eu-budget", True), ("budge", False)])
def test_a_patch_may_be_for_a_name_before_a_prefix(files: dict[str, str], name: str, is_there: bool) -> None:
    layer = "gitops/layers/eu"
    budget = (
        "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: budget}\nspec: {minAvailable: 1, "
        "selector: {matchLabels: {gateway.networking.k8s.io/gateway-name: mergeline}}}\n"
    )
    layered = {
        OVERLAY: files[OVERLAY].replace("  - ../../base\n", "  - ../../base\n  - ../../layers/eu\n"),
        f"{layer}/kustomization.yaml": "resources: [budget.yaml]\nnamePrefix: eu-\n",
        f"{layer}/budget.yaml": budget,
    }
    change = "{op: add, path: /metadata/labels, value: {a: b}}"
    found = refusals(files | layered | patched(layered, change, kind="PodDisruptionBudget", name=name))
    assert [finding.key for finding in found] == ([] if is_there else ["overlay"]), found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  - ../../base\n", "  - ../../base\n  - git::file:///srv/line//gitops/base\n"),
        ("  - ../../base\n", "  - ../../base\n  - https://example.com/a.yaml\n"),
        ("  - ../../base\n", "  - github.com/line/deployments//gitops/base?ref=main\n"),
        ("  - ../../components/gateway\n", "  - git@example.com:line/deployments\n"),
        ("    files: [serve-config.yaml]\n", "    files: ['serve-config.yaml=https://example.com/a.yaml']\n"),
        ("patches:\n", "patches:\n  - path: https://example.com/a.yaml\n"),
        ("patches:\n", "generators: [https://example.com/a.yaml]\npatches:\n"),
    ],
)
def test_what_lies_elsewhere_is_refused(files: dict[str, str], old: str, new: str) -> None:
    assert old in files[OVERLAY]
    found = refusals(files | {OVERLAY: files[OVERLAY].replace(old, new, 1)})
    assert [finding.key for finding in found] == ["overlay"]
    assert "not in this repository" in found[0].reason


def test_an_object_without_a_version_is_refused(files: dict[str, str]) -> None:
    found = refusals(files | with_object(files, "kind: ConfigMap\nmetadata: {name: a}\n"))
    assert [finding.key for finding in found] == ["overlay"]
    assert "apiVersion" in found[0].reason


def test_one_machines_environment_is_none_for_a_cluster(files: dict[str, str]) -> None:
    assert "local is no environment for a cluster" in refusals(files, "local")[0].reason


def test_an_error_of_kustomize_names_the_file_in_the_repository(files: dict[str, str]) -> None:
    found = refusals(files | {SERVICE: "kind: [\n"})
    assert "mergeline-overlay" not in found[0].reason
    assert "rayservice.yaml" in found[0].reason


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        (
            'E1127 07:42:55.1 18586 run.go:72] "command failed" err="no \\"gitops/bass\\" there"',
            'no "gitops/bass" there',
        ),
        ('E1127 07:42:55.1 18586 run.go:72] "command failed" err=<\n\ta: first\n\t  second\n >', "a: first\n  second"),
        ("error: no such file", "no such file"),
    ],
)
def test_an_error_of_kustomize_has_its_own_words_only(printed: str, said: str) -> None:
    assert kustomize.words_of(printed) == said
