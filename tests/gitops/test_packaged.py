"""What is packaged for a cluster: the base, its components, the environments and what Argo CD is told."""

import json
import os
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gitops import destination, kustomize, overlay, policies
from gitops.findings import failed
from gitops.objects import name_of
from ray_jobs import cluster, ingress
from tests.gitops.conftest import ARGO, DIGEST, ENVIRONMENTS, ROOT, no_complaint, refusals

CLUSTER = ROOT / "monitoring" / "cluster"


@pytest.fixture(scope="module")
def rendered(files: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    return {name: kustomize.render(files, name) for name in ENVIRONMENTS}


def service(objects: list[dict[str, Any]]) -> dict[str, Any]:
    return next(item for item in objects if item["kind"] == "RayService")


def observer(objects: list[dict[str, Any]]) -> dict[str, Any]:
    template: dict[str, Any] = next(item["spec"]["template"] for item in objects if item["kind"] == "Deployment")
    return template


def pods(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    cluster = service(objects)["spec"]["rayClusterConfig"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def kinds(objects: Iterable[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(item["apiVersion"].rpartition("/")[0], item["kind"]) for item in objects}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_service_and_its_observer_get_the_very_file_that_promotions_edit(
    files: dict[str, str], rendered: dict[str, list[dict[str, Any]]], name: str
) -> None:
    placed = service(rendered[name])["spec"]["serveConfigV2"]
    assert placed == files[f"gitops/environments/{name}/serve-config.yaml"]
    assert observer(rendered[name])["metadata"]["annotations"] == {"serve-config": placed}
    assert not [item for item in rendered[name] if item["kind"] == "ConfigMap"]
    assert {item["metadata"]["namespace"] for item in rendered[name]} == {f"mergeline-{name}"}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_worker_holds_a_replica_and_there_may_be_as_many(
    files: dict[str, str], rendered: dict[str, list[dict[str, Any]]], name: str
) -> None:
    config = overlay.embedded(rendered[name], files[f"gitops/environments/{name}/serve-config.yaml"], name)
    deployment = config["applications"][0]["deployments"][0]
    group = service(rendered[name])["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    assert group["rayStartParams"]["num-cpus"] == str(deployment["ray_actor_options"]["num_cpus"])
    scaling = deployment["autoscaling_config"]
    assert (group["minReplicas"], group["maxReplicas"]) == (scaling["min_replicas"], scaling["max_replicas"])


def test_ray_has_the_settings_of_one_machine_everywhere(rendered: dict[str, list[dict[str, Any]]]) -> None:
    for pod in pods(rendered["production"]):
        variables = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
        assert (ingress.SETTINGS | cluster.SILENCE).items() <= variables.items()
        assert {name for name in variables if name.startswith("RAY_SERVE")} == set(ingress.SETTINGS)


def test_the_observer_asks_the_service_that_there_is(rendered: dict[str, list[dict[str, Any]]]) -> None:
    """KubeRay names the head's Service after the RayService; the token is that of its pods."""
    found = service(rendered["production"])
    (container,) = observer(rendered["production"])["spec"]["containers"]
    assert f"http://{found['metadata']['name']}-head-svc:8265" in container["command"]
    file, health = container["command"][2], container["command"][-1]
    (mount,) = (mount for mount in container["volumeMounts"] if Path(file).is_relative_to(mount["mountPath"]))
    volumes = {volume["name"]: volume for volume in observer(rendered["production"])["spec"]["volumes"]}
    (item,) = volumes[mount["name"]]["downwardAPI"]["items"]
    assert file == f"{mount['mountPath']}/{item['path']}"
    assert item["fieldRef"]["fieldPath"] == "metadata.annotations['serve-config']"
    assert health in container["readinessProbe"]["exec"]["command"][-1]
    secret = found["spec"]["rayClusterConfig"]["authOptions"]["secretName"]
    (variable,) = container["env"]
    assert variable["valueFrom"]["secretKeyRef"] == {"name": secret, "key": "auth_token"}


@pytest.mark.parametrize(
    ("health", "seconds", "code"),
    [("Healthy\n", 0, 0), ("Healthy\n", 300, 1), ("Degraded: why\n", 0, 1), ("", 0, 1)],
)
def test_the_observer_is_ready_while_it_says_that_all_is_well(
    rendered: dict[str, list[dict[str, Any]]], tmp_path: Path, health: str, seconds: int, code: int
) -> None:
    probe = observer(rendered["production"])["spec"]["containers"][0]["readinessProbe"]["exec"]["command"]
    (file := tmp_path / "health").write_text(health)
    os.utime(file, (time.time() - seconds, time.time() - seconds))
    script = [part.replace("/tmp/health", str(file)) for part in probe]
    result = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (code, health.strip())


def test_no_pod_runs_as_root_or_writes_beside_its_volumes(rendered: dict[str, list[dict[str, Any]]]) -> None:
    for pod in (*pods(rendered["production"]), observer(rendered["production"])["spec"]):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        container = pod["containers"][0]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_policies_and_monitors_select_the_pods_that_there_are(rendered: dict[str, list[dict[str, Any]]]) -> None:
    """A selector that fits nothing would close nothing, and nothing would say so."""
    objects = rendered["production"]
    cluster = service(objects)["spec"]["rayClusterConfig"]
    groups = (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    added = ({"ray.io/node-type": "head"}, {"ray.io/node-type": "worker"})  # by KubeRay
    labels = [group["template"]["metadata"]["labels"] | more for group, more in zip(groups, added, strict=True)]
    labels.append(observer(objects)["metadata"]["labels"])
    ports = [
        {port[key] for port in pod["containers"][0].get("ports", ()) for key in ("name", "containerPort")}
        for pod in (*pods(objects), observer(objects)["spec"])
    ]
    for item in objects:
        selector = item.get("spec", {}).get("podSelector") or item.get("spec", {}).get("selector")
        if item["kind"] == "RayService" or selector is None:
            continue
        chosen = [i for i, found in enumerate(labels) if selector["matchLabels"].items() <= found.items()]
        assert chosen, name_of(item)
        wanted = {endpoint["port"] for endpoint in item["spec"].get("podMetricsEndpoints", ())}
        wanted |= {port["port"] for rule in item["spec"].get("ingress", ()) for port in rule.get("ports", ())}
        assert wanted <= set().union(*(ports[i] for i in chosen)), name_of(item)


@pytest.mark.parametrize(
    "component", ["gateway", "ingress", "gcs-fault-tolerance", "incremental-upgrade", "gpu-workers", "drift-windows"]
)
def test_a_component_can_be_added(files: dict[str, str], component: str) -> None:
    path = "gitops/environments/staging/kustomization.yaml"
    text = files[path].replace("../../components/gateway", f"../../components/{component}")
    findings = overlay.check(files | {path: text}, "staging", schema=no_complaint)
    assert failed(findings) == []
    project = YAML(typ="safe").load(files["gitops/argocd/project.yaml"])["spec"]
    allowed = {(entry["group"], entry["kind"]) for entry in project["namespaceResourceWhitelist"]}
    rendered = kustomize.render(files | {path: text}, "staging")
    assert {(item["apiVersion"].rpartition("/")[0], item["kind"]) for item in rendered} <= allowed


def test_argo_cd_keeps_no_change_of_a_worker_group_from_the_cluster(files: dict[str, str]) -> None:
    template = YAML(typ="safe").load(files["gitops/argocd/environments.yaml"])["spec"]["template"]["spec"]
    assert {"ServerSideApply=true", "RespectIgnoreDifferences=true"} <= {*template["syncPolicy"]["syncOptions"]}
    # Of what it applies itself Argo CD 3.5.1 was seen to take the whole list from what runs (argo-cd#17694).
    assert {entry["kind"] for entry in template["ignoreDifferences"]} == {"RayCluster"}


@pytest.mark.parametrize("others", ["", "\n  - ../../components/gpu-workers"])
def test_the_monitors_windows_lie_on_a_volume_that_all_pods_mount(files: dict[str, str], others: str) -> None:
    path = "gitops/environments/staging/kustomization.yaml"
    text = files[path].replace("../../components/gateway", f"../../components/drift-windows{others}")
    config = "gitops/environments/staging/serve-config.yaml"
    named = files[config].replace("      threads: 2\n", "      threads: 2\n      windows: /windows\n")
    assert refusals(files | {path: text, config: named}, "staging") == []
    objects = kustomize.render(files | {path: text}, "staging")
    (claim,) = (item for item in objects if item["kind"] == "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert claim["metadata"]["annotations"] == {
        "argocd.argoproj.io/sync-options": "Prune=false,Delete=false",
        "argocd.argoproj.io/compare-options": "IgnoreExtraneous",
    }
    for pod in pods(objects):
        (volume,) = (volume for volume in pod["volumes"] if volume.get("persistentVolumeClaim"))
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert {"name": volume["name"], "mountPath": "/windows"} in pod["containers"][0]["volumeMounts"]


def test_the_nightly_cluster_s_overlay_is_one(files: dict[str, str]) -> None:
    nightly = (ROOT / ".github" / "nightly" / "kustomization.yaml").read_text()
    text = nightly.replace(policies.NO_DIGEST, DIGEST)
    path = "gitops/environments/staging/kustomization.yaml"
    assert failed(overlay.check(files | {path: text}, "staging", schema=no_complaint)) == []
    _, worker = pods(kustomize.render(files | {path: text}, "staging"))
    assert worker["containers"][0]["resources"]["requests"] == {"cpu": "1", "memory": "3Gi"}


def test_a_gpu_worker_is_a_worker_with_a_gpu(files: dict[str, str]) -> None:
    path = "gitops/environments/staging/kustomization.yaml"
    text = files[path].replace("../../components/gateway", "../../components/gpu-workers")
    cpu, gpu = pods(kustomize.render(files | {path: text}, "staging"))[1:]
    assert gpu.pop("tolerations") == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    for kind in ("requests", "limits"):
        assert gpu["containers"][0]["resources"][kind].pop("nvidia.com/gpu") == "1"
    assert gpu == cpu


def test_argo_cd_gets_the_repository_from_one_place(files: dict[str, str]) -> None:
    own = "https://git.example.com/line/deployments.git"
    edited = {ARGO: files[ARGO].replace(destination.NO_REPOSITORY, own)}
    rendered = kustomize.render_folder(files | edited, destination.FOLDER)
    objects = {item["kind"]: item for item in rendered}
    assert objects["AppProject"]["spec"]["sourceRepos"] == [own]
    environments = objects["ApplicationSet"]["spec"]
    assert environments["generators"][0]["git"]["repoURL"] == own
    assert environments["template"]["spec"]["source"]["repoURL"] == own
    (monitoring,) = [item for item in rendered if item["metadata"]["name"] == "mergeline-monitoring"]
    assert monitoring["spec"]["source"]["repoURL"] == own
    *steps, others = (step["matchExpressions"][0] for step in environments["strategy"]["rollingSync"]["steps"])
    assert tuple(step["values"][0] for step in steps) == ENVIRONMENTS
    assert (others["operator"], tuple(others["values"])) == (
        "NotIn",
        ENVIRONMENTS,
    )  # in no step it would never be synced
    allowed = {(kind["group"], kind["kind"]) for kind in objects["AppProject"]["spec"]["namespaceResourceWhitelist"]}
    for name in ENVIRONMENTS:
        assert kinds(kustomize.render(files, name)) <= allowed
    # What watches them is of the same project.
    watching = {file.relative_to(ROOT).as_posix(): file.read_text() for file in CLUSTER.rglob("*") if file.is_file()}
    found = kustomize.render_folder(watching, "monitoring/cluster")
    assert kinds(found) == {("", "ConfigMap"), ("monitoring.coreos.com", "PrometheusRule")} <= allowed
    assert {item["metadata"]["namespace"] for item in found} == {monitoring["spec"]["destination"]["namespace"]}
    maps = [item for item in found if item["kind"] == "ConfigMap"]
    assert all(item["metadata"]["labels"] == {"grafana_dashboard": "1"} for item in maps)
    assert [json.loads(text)["uid"] for item in maps for text in item["data"].values()] == [
        item["metadata"]["name"] for item in maps
    ]
