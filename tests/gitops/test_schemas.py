"""Objects are compared with the schemas of their kinds: Kubernetes' own, and those of definitions."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gitops import overlay, schemas
from gitops.errors import ContractError
from gitops.findings import Phase, failed
from tests.gitops.conftest import ARGO, BUDGET, MORE, POLICIES, Refused, expect_refused, no_complaint, refusals


def definition(
    properties: Mapping[str, Any], kind: tuple[str, str] = ("ray.io/v1", "RayService"), required: str = ""
) -> dict[str, Any]:
    """A CustomResourceDefinition of a kind (apiVersion and name) with these properties of its spec."""
    (group, _, version), name = kind[0].partition("/"), kind[1]
    spec = {"type": "object", "properties": properties, "required": required.split()}
    schema = {"type": "object", "properties": {"metadata": {"type": "object"}, "spec": spec}}
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": name, "plural": f"{name.lower()}s"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.{group}"},
        "spec": {"group": group, "names": names, "scope": "Namespaced", "versions": [served]},
    }


KEPT = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
KNOWN = {
    "rayClusterConfig": KEPT,
    "upgradeStrategy": {"type": "object", "properties": {"type": {"type": "string"}}},
    "rayClusterDeletionDelaySeconds": {"type": "integer", "nullable": True},
    "excludeHeadPodFromServeSvc": {"type": "boolean"},
    "serveConfigV2": {"type": "string"},
}

BAD: dict[str, Refused] = {
    "a misspelt key": (
        POLICIES,
        "policyTypes: [Ingress]",
        "policyTipes: [Ingress]",
        "kubernetes",
        "NetworkPolicy ray-closed: spec: Additional properties are not allowed ('policyTipes' was unexpected)",
    ),
    "a wrong type": (
        BUDGET,
        "  selector:\n",
        "  unhealthyPodEvictionPolicy: 1\n  selector:\n",
        "kubernetes",
        "PodDisruptionBudget ray-workers: spec.unhealthyPodEvictionPolicy: 1 is not",
    ),
    "a version that Kubernetes dropped": (
        BUDGET,
        "apiVersion: policy/v1\n",
        "apiVersion: policy/v1beta1\n",
        "kubernetes",
        "Kubernetes 1.37 has no PodDisruptionBudget in policy/v1beta1",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_overlay_is_refused(files: dict[str, str], case: str) -> None:
    expect_refused(files, *BAD[case])


def test_what_argo_cd_is_told_is_compared_with_the_schemas_too(files: dict[str, str], tmp_path: Path) -> None:
    listed = files[ARGO].replace("  - project.yaml\n", "  - project.yaml\n  - more.yaml\n")
    more = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: argocd-cm}\ndat: {}\n"
    (found,) = refusals(files | {ARGO: listed, MORE: more})
    assert found.key == "kubernetes"
    assert "ConfigMap argocd-cm" in found.reason
    assert "'dat' was unexpected" in found.reason
    spec = {"sourceRepos": {"type": "array"}, "destinations": {"type": "array"}}
    crd = definition(spec, ("argoproj.io/v1alpha1", "AppProject"))
    (tmp_path / "crds.json").write_text(json.dumps(crd))
    said = [finding.reason for finding in refusals(files, crds=tmp_path) if finding.reason.startswith("AppProject")]
    assert "AppProject mergeline: spec: Additional properties are not allowed" in said[0]


def test_a_kind_with_a_definition_is_compared_with_it(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "crds.json").write_text(
        json.dumps({"kind": "List", "items": [definition(KNOWN, required="rayClusterConfig")]})
    )
    findings = overlay.check(files, "production", tmp_path / "crds.json", schema=no_complaint)
    assert failed(findings) == []
    skipped = [finding for finding in findings if finding.phase is Phase.SKIPPED]
    assert "RayService" not in skipped[0].reason
    fewer = {key: value for key, value in KNOWN.items() if key != "serveConfigV2"}
    (tmp_path / "crds.json").write_text(json.dumps(definition(fewer)))
    found = refusals(files, crds=tmp_path)
    assert found[0].key == "kubernetes"
    assert "RayService mergeline: spec: Additional properties are not allowed ('serveConfigV2'" in found[0].reason


def test_a_schema_refuses_what_is_missing_and_takes_what_may_be_null(tmp_path: Path) -> None:
    (tmp_path / "crd.yaml").write_text(json.dumps(definition(KNOWN, required="rayClusterConfig")))
    crds = schemas.read_crds(tmp_path / "crd.yaml")
    item = {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": {"name": "a", "labels": {}}}
    assert schemas.complaints(item | {"spec": {}}, crds) == ["spec: 'rayClusterConfig' is a required property"]
    whole = {"rayClusterConfig": {"anything": 1}, "rayClusterDeletionDelaySeconds": None}
    assert schemas.complaints(item | {"spec": whole}, crds) == []
    misspelt = "the definitions of ray.io have no RayJobb in ray.io/v1"
    assert schemas.complaints(item | {"kind": "RayJobb"}, crds) == [misspelt]
    assert schemas.complaints(item | {"kind": "A", "apiVersion": "line.example.com/v1"}, crds) is None
    (tmp_path / "crd.yaml").write_text(json.dumps(definition({}, ("argoproj.io/v1alpha1", "Application"))))
    rollout = item | {"kind": "Rollout", "apiVersion": "argoproj.io/v1alpha1"}
    assert schemas.complaints(rollout, schemas.read_crds(tmp_path / "crd.yaml")) is None  # another project's


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"labels": {"a": "b", "c": ""}, "annotations": {"a": "any text"}, "finalizers": ["a/b"]}, ""),
        ({"namespace": "mergeline-staging", "creationTimestamp": None}, ""),
        ({"labelz": {}}, "metadata: Additional properties are not allowed ('labelz' was unexpected)"),
        ({"anotations": {"a": "b"}}, "'anotations' was unexpected"),
        ({"labels": {"a": 5}}, "metadata.labels.a: 5 is not of type 'string'"),
        ({"labels": {"a": "not a label!"}}, "metadata.labels.a: 'not a label!' does not match"),
        ({"annotations": {"a": True}}, "metadata.annotations.a: True is not of type 'string'"),
        ({"name": "Merge_line"}, "metadata.name: 'Merge_line' does not match"),
    ],
)
def test_the_metadata_of_other_kinds_is_checked(tmp_path: Path, metadata: dict[str, Any], said: str) -> None:
    (tmp_path / "crd.yaml").write_text(json.dumps(definition(KNOWN, required="rayClusterConfig")))
    item = {"apiVersion": "ray.io/v1", "kind": "RayService", "spec": {"rayClusterConfig": {}}}
    found = schemas.complaints(item | {"metadata": {"name": "a", **metadata}}, schemas.read_crds(tmp_path / "crd.yaml"))
    assert found is not None
    assert [said in complaint for complaint in found] == [True] * bool(said)


@pytest.mark.parametrize(
    ("version", "kind"), [("networking.k8s.io/v1", "Ingres"), ("networking.k8s.io/v1beta1", "Ingress")]
)
def test_a_group_of_kubernetes_own_has_the_kinds_that_it_has(version: str, kind: str) -> None:
    found = schemas.complaints({"apiVersion": version, "kind": kind, "metadata": {"name": "a"}}, {})
    assert found == [f"Kubernetes 1.37 has no {kind} in {version}"]


@pytest.mark.parametrize(
    ("text", "said"), [(None, "cannot read"), ("a: [", "is not YAML"), ("kind: Pod\n", "no CustomResourceDefinition")]
)
def test_definitions_that_are_none_are_said_to_be_none(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "crds.yaml").write_text(text)
    with pytest.raises(ContractError, match=said):
        schemas.read_crds(tmp_path / "crds.yaml")
