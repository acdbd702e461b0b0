"""The overlays for a cluster: what they render to, and that a bad one is refused in words that help."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gitops import clear_text, destination, exposure, kustomize, overlay, policies, schemas
from gitops.errors import ContractError
from gitops.findings import Finding, Phase, failed
from gitops.objects import name_of
from gitops.repository import Repository
from ray_jobs import cluster, ingress

ROOT = Path(__file__).parents[2]
DIGEST = "5c1f" * 16
ENVIRONMENTS = ("staging", "production")
CLUSTER = ROOT / "monitoring" / "cluster"

pytestmark = pytest.mark.skipif(shutil.which("kubectl", path=kustomize.search_path()) is None, reason="no kubectl here")


def no_complaint(_: Mapping[str, Any]) -> None:
    """In place of Ray's schema, which takes seconds to import."""


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    """The packaged overlays, with an image that somebody has built."""
    paths = [path for path in (ROOT / "gitops").rglob("*") if path.suffix in (".yaml", ".lua")]
    texts = {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}
    return {path: text.replace(policies.NO_DIGEST, DIGEST) for path, text in texts.items()}


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


# --- what is packaged -------------------------------------------------------------------------------------------------


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
    options = template["syncPolicy"]["syncOptions"]
    assert "ServerSideApply=true" in options
    # With it Argo CD 3.5.1 was seen to take the whole list from what runs (argo-cd#17694).
    assert not [option for option in options if option.startswith("RespectIgnoreDifferences")]


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
    nightly = (Path(__file__).parents[2] / ".github" / "nightly" / "kustomization.yaml").read_text()
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


def kinds(objects: Iterable[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(item["apiVersion"].rpartition("/")[0], item["kind"]) for item in objects}


# --- what is refused --------------------------------------------------------------------------------------------------

OVERLAY = "gitops/environments/production/kustomization.yaml"
CONFIG = "gitops/environments/production/serve-config.yaml"
SERVICE = "gitops/base/rayservice.yaml"
RESPECTFUL = "          - RespectIgnoreDifferences=true\n"
ARGO, ARGO_SET = "gitops/argocd/kustomization.yaml", "gitops/argocd/environments.yaml"
ARGO_PROJECT, ARGO_OPERATORS = "gitops/argocd/project.yaml", "gitops/argocd/operators.yaml"
BUDGET = "gitops/base/pod-disruption-budget.yaml"
DELETED_BUDGET = (
    "  - patch: |\n      apiVersion: policy/v1\n      kind: PodDisruptionBudget\n"
    "      metadata: {name: ray-workers}\n      $patch: delete\n"
)
IMAGE = f"    newName: registry.example.com/mergeline\n    digest: sha256:{DIGEST}"

BAD: dict[str, tuple[str, str, str, str, str]] = {
    "latest": (OVERLAY, f"digest: sha256:{DIGEST}", "newTag: latest", "image", "mergeline:latest is `latest`"),
    "no tag": (OVERLAY, IMAGE, "    newName: registry.example.com/mergeline", "image", "mergeline is `latest`"),
    "no digest": (OVERLAY, f"digest: sha256:{DIGEST}", "newTag: 1.2.0", "image", "mergeline:1.2.0 has no digest"),
    "the placeholder": (OVERLAY, DIGEST, policies.NO_DIGEST, "image", "the digest that stands for none yet"),
    "working_dir": (
        CONFIG,
        "    import_path: serve.app:build\n",
        "    import_path: serve.app:build\n    runtime_env: {working_dir: https://example.com/code.zip}\n",
        "working-dir",
        "applications.0.runtime_env: `working_dir` wins over the code in the image",
    ),
    "no limits": (
        SERVICE,
        '                limits: {cpu: "2", memory: 4Gi, ephemeral-storage: 12Gi}\n',
        "                limits: {memory: 4Gi}\n",
        "limits",
        "container ray-head has no limit of cpu",
    ),
    "a token in clear": (
        SERVICE,
        '{name: RAY_USAGE_STATS_ENABLED, value: "0"}',
        '{name: RAY_AUTH_TOKEN, value: "s3cr3t"}',
        "secret",
        "RAY_AUTH_TOKEN stands there in clear",
    ),
    "a key in the Serve configuration": (
        CONFIG,
        "          num_cpus: 2\n",
        "          num_cpus: 2\n          runtime_env: {env_vars: {AWS_SECRET_ACCESS_KEY: abc}}\n",
        "secret",
        "AWS_SECRET_ACCESS_KEY stands there in clear",
    ),
    "an unknown strategy": (
        SERVICE,
        "type: NewCluster\n",
        "type: Bogus\n",
        "upgrade",
        "'Bogus' is none that KubeRay knows",
    ),
    "an incremental upgrade without options": (
        SERVICE,
        "type: NewCluster\n",
        "type: NewClusterWithIncrementalUpgrade\n",
        "upgrade",
        "needs a `gatewayClassName`, a `stepSizePercent` of 1 to `maxSurgePercent`, `intervalSeconds` above 0",
    ),
    "an incremental upgrade without steps": (
        SERVICE,
        "type: NewCluster\n",
        "type: NewClusterWithIncrementalUpgrade\n"
        "    clusterUpgradeOptions: {gatewayClassName: envoy, stepSizePercent: 0}\n",
        "upgrade",
        "needs a `stepSizePercent` of 1 to `maxSurgePercent`, `intervalSeconds` above 0",
    ),
    "an incremental upgrade with steps beyond the surge": (
        SERVICE,
        "type: NewCluster\n",
        "type: NewClusterWithIncrementalUpgrade\n    clusterUpgradeOptions: "
        "{gatewayClassName: envoy, maxSurgePercent: 20, stepSizePercent: 25, intervalSeconds: 60}\n",
        "upgrade",
        "needs a `stepSizePercent` of 1 to `maxSurgePercent`",
    ),
    "an incremental upgrade behind a gateway of one's own": (
        OVERLAY,
        "  - ../../components/gateway\n",
        "  - ../../components/gateway\n  - ../../components/incremental-upgrade\n",
        "upgrade",
        "HTTPRoute mergeline sends requests to mergeline-serve-svc, which is not there with NewCluster",
    ),
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
    "loopback": (CONFIG, "host: 0.0.0.0", "host: 127.0.0.1", "http", "Serve would listen on 127.0.0.1"),
    "another loopback": (CONFIG, "host: 0.0.0.0", 'host: "::1"', "http", "Serve would listen on ::1"),
    "a proxy where nobody asks": (CONFIG, "proxy_location: EveryNode", "proxy_location: HeadOnly", "http", "HeadOnly"),
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
    "a bundle on somebody's machine": (
        CONFIG,
        "model: null",
        f"model: {{name: screw, version: '1', uri: 'file:///home/me/it', sha256: {DIGEST}}}",
        "folder",
        "uri is file:///home/me/it, and in RayService mergeline, group cpu, nothing is there",
    ),
    "a bundle at what is no URI": (
        CONFIG,
        "model: null",
        f"model: {{name: screw, version: '1', uri: 'file://[', sha256: {DIGEST}}}",
        "policies",
        "holds what has no sense, and the policies cannot be asked (Invalid IPv6 URL)",
    ),
    "a replica that no pod holds": (
        CONFIG,
        "num_cpus: 2",
        "num_cpus: 4",
        "capacity",
        "screw, Classifier: a replica asks for 4 CPUs, and no pod has as many: head 0 CPUs, group cpu 2 CPUs",
    ),
    "a GPU that no pod has": (CONFIG, "num_cpus: 2", "num_gpus: 1", "capacity", "asks for 1 CPUs and 1 GPUs"),
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
    "a listener without TLS": (
        "gitops/components/gateway/gateway.yaml",
        "protocol: HTTPS",
        "protocol: HTTP",
        "network",
        "HTTPRoute mergeline comes by Gateway mergeline, listener http: the listener http does not end TLS",
    ),
    "a listener that is not there": (
        "gitops/components/gateway/gateway.yaml",
        "sectionName: http}",
        "sectionName: https}",
        "reference",
        "listener https, which is not there",
    ),
    "a port that Serve's Service does not have": (
        "gitops/components/gateway/gateway.yaml",
        "mergeline-serve-svc, port: 8000",
        "mergeline-serve-svc, port: 8265",
        "network",
        "sends requests to the port 8265 of mergeline-serve-svc",
    ),
    "KubeRay shut out": (
        "gitops/base/network-policies.yaml",
        "        - {port: 8265, protocol: TCP}\n",
        "",
        "network",
        "no NetworkPolicy lets KubeRay reach the dashboard",
    ),
    "a budget that keeps all": (
        BUDGET,
        "minAvailable: 1",
        "minAvailable: 2",
        "disruption",
        "PodDisruptionBudget ray-workers keeps 2 of at least 2 pods",
    ),
    "a budget in percent": (
        BUDGET,
        "minAvailable: 1",
        "minAvailable: 50%",
        "disruption",
        "KubeRay's pods have no controller",
    ),
    "a budget for the head": (
        BUDGET,
        "ray-worker\n",
        "ray-head\n",
        "disruption",
        "keeps 1 of at least 1 pods",
    ),
    "an observer that is always ready": (
        "gitops/base/observer.yaml",
        "  replicas: 1\n",
        "  replicas: 0\n",
        "observer",
        "Deployment observer has no pod",
    ),
    "an environment before staging": (
        ARGO_SET,
        "operator: In, values: [staging]",
        "operator: In, values: [stagin]",
        "argocd",
        "takes production no later than staging",
    ),
    "no order of environments": (
        ARGO_SET,
        "type: RollingSync",
        "type: AllAtOnce",
        "argocd",
        "no step of a RollingSync",
    ),
    "a label that no step asks for": (
        ARGO_SET,
        '        environment: "{{ .path.basename }}"\n',
        '        env: "{{ .path.basename }}"\n',
        "argocd",
        "takes production no later than staging",
    ),
    "a client-side apply": (ARGO_SET, "          - ServerSideApply=true\n", "", "argocd", "lacks ServerSideApply=true"),
    "worker groups from what runs": (
        ARGO_SET,
        "          - ServerSideApply=true\n",
        "          - ServerSideApply=true\n" + RESPECTFUL,
        "argocd",
        "RespectIgnoreDifferences=true, and `ignoreDifferences` has .spec.rayClusterConfig.workerGroupSpecs[].replicas",
    ),
    "promotions that count as synced": (
        ARGO_SET,
        '[".spec.rayClusterConfig.workerGroupSpecs[].replicas"]',
        "[.spec.serveConfigV2]",
        "argocd",
        "`ignoreDifferences` leaves out .spec.serveConfigV2",
    ),
    "namespaces that take any pod": (ARGO_SET, "enforce: restricted", "enforce: privileged", "argocd", "privileged"),
    "another project": (
        ARGO_SET,
        "project: mergeline\n",
        "project: default\n",
        "argocd",
        "its project default is none",
    ),
    "another revision": (
        ARGO_SET,
        "        revision: main",
        "        revision: dev",
        "argocd",
        "at dev, and applies main",
    ),
    "every repository": (
        ARGO_PROJECT,
        "    - https://github.com/OWNER/REPOSITORY.git\n",
        '    - https://github.com/OWNER/REPOSITORY.git\n    - "*"\n',
        "argocd",
        "takes every repository",
    ),
    "every repository by https": (
        ARGO_PROJECT,
        "    - https://github.com/OWNER/REPOSITORY.git\n",
        "    - https://github.com/OWNER/REPOSITORY.git\n    - https://**\n",
        "argocd",
        "takes every repository",
    ),
    "the system's namespaces": (
        ARGO_PROJECT,
        "      namespace: mergeline-*",
        "      namespace: '*-*'",
        "argocd",
        "every namespace",
    ),
    "an operator in a range": (
        ARGO_OPERATORS,
        "targetRevision: 1.7.0",
        "targetRevision: ^1.7.0",
        "argocd",
        "Application kuberay-operator: targetRevision '^1.7.0' is another one tomorrow",
    ),
    "every namespace": (
        ARGO_PROJECT,
        "      namespace: mergeline-*",
        '      namespace: "*"',
        "argocd",
        "every namespace",
    ),
    "every kind": (
        ARGO_PROJECT,
        "{group: ray.io, kind: RayService}",
        '{group: "*", kind: "*"}',
        "argocd",
        "takes every kind",
    ),
    "Secrets from Git": (
        ARGO_PROJECT,
        "    - {group: ray.io, kind: RayService}\n",
        '    - {group: ray.io, kind: RayService}\n    - {group: "", kind: Secret}\n',
        "argocd",
        "takes the kind Secret, which no merge should bring",
    ),
    "rights in every namespace": (
        ARGO_PROJECT,
        '    - group: ""\n      kind: Namespace\n      name: mergeline-*\n',
        "    - {group: rbac.authorization.k8s.io, kind: ClusterRoleBinding}\n",
        "argocd",
        "takes the kind ClusterRoleBinding, which no merge should bring",
    ),
    "every kind but quotas": (
        ARGO_PROJECT,
        "  namespaceResourceWhitelist:\n",
        "  namespaceResourceBlacklist: [{group: '', kind: ResourceQuota}]\n  other:\n",
        "argocd",
        "AppProject mergeline: spec.namespaceResourceBlacklist takes the kind Secret, which no merge should bring",
    ),
    "a window that never opens": (
        ARGO_PROJECT,
        "schedule: 0 20 * * *",
        "schedule: 0 26 * * *",
        "argocd",
        "the schedule '0 26 * * *' cannot have '26' as its hour",
    ),
    "an operator of tomorrow": (
        ARGO_OPERATORS,
        "targetRevision: v0.93.0",
        "targetRevision: main",
        "argocd",
        "Application prometheus-operator: targetRevision 'main' is another one tomorrow",
    ),
    "another port": (CONFIG, "port: 8000", "port: 8001", "http", "http_options.port is 8001"),
    "another port of gRPC": (CONFIG, "port: 9000", "port: 9001", "http", "grpc_options.port is 9001"),
    "a worker's other port": (
        "gitops/base/rayservice.yaml",
        "                  - {name: serve, containerPort: 8000, protocol: TCP}",
        "                  - {name: serve, containerPort: 8001, protocol: TCP}",
        "http",
        "the port `serve` of RayService mergeline, group cpu, another one: 8001",
    ),
    "windows that end with their pod": (
        CONFIG,
        "      threads: 2\n",
        "      threads: 2\n      windows: /tmp/windows\n",
        "folder",
        "screw: args.windows is /tmp/windows, and in RayService mergeline, head, the volume tmp ends with the pod",
    ),
    "feedback without a volume": (
        CONFIG,
        "      threads: 2\n",
        "      threads: 2\n      feedback: /feedback\n",
        "folder",
        "in RayService mergeline, group cpu, no volume is mounted there: the root file system is read-only",
    ),
    "a cache that cannot be written": (
        CONFIG,
        "      threads: 2\n",
        "      threads: 2\n      cache: /var/cache/bundles\n",
        "folder",
        "args.cache is /var/cache/bundles",
    ),
    "a misspelt key": (
        "gitops/base/network-policies.yaml",
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
    "no budget": (
        OVERLAY,
        "patches:\n",
        f"patches:\n{DELETED_BUDGET}",
        "disruption",
        "RayService mergeline: no PodDisruptionBudget selects its workers, of which there are 2 or more",
    ),
    "two budgets": (
        BUDGET,
        "      app.kubernetes.io/component: ray-worker\n",
        "      app.kubernetes.io/component: ray-worker\n---\napiVersion: policy/v1\nkind: PodDisruptionBudget\n"
        "metadata: {name: all}\nspec: {minAvailable: 1, selector: {}}\n",
        "disruption",
        "PodDisruptionBudget all and PodDisruptionBudget ray-workers both select RayService mergeline: "
        "spec.rayClusterConfig.workerGroupSpecs.0.template, and Kubernetes evicts no pod of two budgets",
    ),
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
    "commits that nobody signs": (
        ARGO,
        "# Commits must be signed: components: ",
        "components: ",
        "argocd",
        "AppProject mergeline: spec.sourceIntegrity.git.policies.0.gpg.keys.0 is the key that stands for none",
    ),
    "a repository's password in Git": (
        ARGO,
        "configMapGenerator:\n",
        "secretGenerator:\n  - {name: deployments, literals: [password=hunter2]}\nconfigMapGenerator:\n",
        "secret",
        "would lie in Git in clear",
    ),
    "a password in a chart's values": (
        ARGO_OPERATORS,
        "    chart: kuberay-operator\n",
        "    chart: kuberay-operator\n    helm: {valuesObject: {adminPassword: hunter2}}\n",
        "secret",
        "Application kuberay-operator: spec.source.helm.valuesObject: adminPassword stands there in clear",
    ),
    "a version that Kubernetes dropped": (
        BUDGET,
        "apiVersion: policy/v1\n",
        "apiVersion: policy/v1beta1\n",
        "kubernetes",
        "Kubernetes 1.37 has no PodDisruptionBudget in policy/v1beta1",
    ),
    "pods that are not said": (
        SERVICE,
        "          containers:\n            - name: ray-head\n",
        "          container:\n            - name: ray-head\n",
        "overlay",
        "does not say its pods",
    ),
    "a file that is not there": (OVERLAY, "  - ../../base\n", "  - ../../bass\n", "overlay", "gitops/bass"),
    "nothing": (OVERLAY, "resources:\n", "resourcs:\n", "overlay", "resourcs"),
}


def refusals(files: Mapping[str, str], name: str = "production", **options: Any) -> list[Finding]:
    return failed(overlay.check(files, name, schema=no_complaint, **options))


DISK = {"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}
TMP = {"name": "tmp", "emptyDir": {}}


def _pod(*mounts: Any, volumes: Any = (DISK, TMP), read_only_root: bool = True) -> dict[str, Any]:
    container = {
        "volumeMounts": list(mounts),
        "securityContext": {"readOnlyRootFilesystem": read_only_root},
        "env": [{"name": "HOME", "value": "/home/ray"}],
    }
    return {"containers": [container], "volumes": list(volumes)}


def _folders(
    pod: dict[str, Any], arguments: Any, *, import_path: str = "serve.app:build", **start_params: str
) -> list[str]:
    """What the policy says of an application whose only pod is this one."""
    cluster = {"headGroupSpec": {"rayStartParams": start_params, "template": {"spec": pod}}}
    service = {"kind": "RayService", "metadata": {"name": "a"}, "spec": {"rayClusterConfig": cluster}}
    application = {"name": "screw", "import_path": import_path, "args": arguments}
    found = policies.check([service], {"applications": [application]}, "staging")
    return [finding.reason for finding in found if finding.key == "folder" and "args." in finding.reason]


def _at(path: Any, name: str = "disk", **more: Any) -> dict[str, Any]:
    return {"name": name, "mountPath": path, **more}


@pytest.mark.parametrize(
    ("arguments", "pod", "words"),
    [
        ({"windows": "/data/it"}, _pod(_at("/data")), None),
        ({"windows": "//data/it"}, _pod(_at("/data/")), None),
        ({"windows": "/data/it"}, _pod(_at("/dat")), "no volume is mounted there: the root file system is read-only"),
        ({"windows": "/data/../tmp"}, _pod(_at("/data")), "no volume is mounted there"),
        ({"windows": "~/it"}, _pod(_at("/home/ray")), None),
        ({"windows": "/data/it"}, _pod(_at("/"), _at("/data/", "tmp")), "the volume tmp ends with the pod"),
        ({"windows": "/data/it"}, _pod(_at("/data"), _at("/", "tmp")), None),
        ({"windows": "/data/it"}, _pod(_at("/data", readOnly=True)), "to be read only"),
        ({"windows": "/data/it"}, _pod(_at("/data", "other")), "the volume other ends with the pod"),
        ({"windows": "/data/it"}, _pod(_at("/data"), volumes=[{"name": "disk"}]), "ends with the pod"),
        ({"windows": "/data/it"}, _pod(_at("/data"), volumes=[{"name": "disk", "ephemeral": {}}]), "ends with the pod"),
        ({"windows": "/data/it"}, _pod(read_only_root=False), "no volume is mounted there"),
        ({"cache": "/data/it"}, _pod(read_only_root=False), None),
        ({"cache": "/data/it"}, _pod(_at("/data", "tmp")), None),
        ({"cache": "/data/it"}, _pod(_at("/data"), volumes=[{"name": "disk", "configMap": {}}]), "to be read only"),
        (
            {"cache": "/data/it"},
            _pod(_at("/data"), volumes=[{"name": "disk", "persistentVolumeClaim": {"readOnly": True}}]),
            "to be read only",
        ),
        ({"cache": "beside/it"}, _pod(), None),
        # What other gates refuse is not this one's, and no reason to break off.
        ({"cache": "/data/it"}, _pod(_at(None), {}, "text", volumes=[None]), "no volume is mounted there"),
        (["a"], _pod(), None),
        ("text", _pod(), None),
    ],
)
def test_a_folder_lies_on_the_innermost_volume(arguments: Any, pod: dict[str, Any], words: str | None) -> None:
    found = _folders(pod, arguments)
    assert len(found) == (words is not None)
    assert (words or "") in "".join(found)


def test_only_pods_that_may_run_the_application_need_the_volume() -> None:
    assert _folders(_pod(), {"feedback": "/data"}, **{"num-cpus": "0"}) == []
    assert len(_folders(_pod(), {"feedback": "/data"}, **{"num-cpus": "2"})) == 1
    # The monitor asks for no CPU, and reads what users say.
    assert len(_folders(_pod(), {"feedback": "/data", "windows": "/windows"}, **{"num-cpus": "0"})) == 2
    assert _folders(_pod(), {"feedback": "/data"}, import_path="other:build") == []  # its arguments are its own


@pytest.mark.parametrize("case", BAD)
def test_a_bad_overlay_is_refused(files: dict[str, str], case: str) -> None:
    path, old, new, key, words = BAD[case]
    assert old in files[path]
    found = refusals(files | {path: files[path].replace(old, new)})
    assert key in {finding.key for finding in found}
    assert words in "\n".join(finding.reason for finding in found)
    assert all(finding.remedy for finding in found)


HEAD = "/spec/rayClusterConfig/headGroupSpec"
WORKER = "/spec/rayClusterConfig/workerGroupSpecs/0/template/spec"
PROBES = ("liveness", "readiness")
GATEWAY, POLICIES = "gitops/components/gateway/gateway.yaml", "gitops/base/network-policies.yaml"
PLAIN = "    - {name: plain, port: 80, protocol: HTTP}\n    # A name of its own"
MORE = "gitops/argocd/more.yaml"
APPLICATION = (
    "{{apiVersion: argoproj.io/v1alpha1, kind: {kind}, metadata: {{name: tools}}, spec: {spec}}}\n"  # of the team's own
)
TOOLS = "targetRevision: 1.2.0}], destination: {namespace: tools}, syncPolicy: {}"


def _also(text: str) -> list[tuple[str, str]]:
    """In the file with the budget, another object behind it."""
    last = "      app.kubernetes.io/component: ray-worker\n"
    return [(last, f"{last}---\n{text}")]


ALLOWED = {
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
    "another port everywhere": {
        CONFIG: [("port: 8000", "port: 8080")],
        SERVICE: [("containerPort: 8000", "containerPort: 8080")],
        GATEWAY: [("port: 8000", "port: 8080")],
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
    "no budget for an only worker": {
        SERVICE: [("minReplicas: 2", "minReplicas: 1")],
        OVERLAY: [("patches:\n", f"patches:\n{DELETED_BUDGET}")],
    },
    "a budget for each group": {
        OVERLAY: [
            ("  - ../../components/gateway\n", "  - ../../components/gateway\n  - ../../components/gpu-workers\n")
        ],
        BUDGET: [
            (
                "      app.kubernetes.io/component: ray-worker\n",
                "      ray.io/group: cpu\n---\napiVersion: policy/v1\nkind: PodDisruptionBudget\n"
                "metadata: {name: gpu}\nspec: {minAvailable: 1, selector: {matchLabels: {ray.io/group: gpu}}}\n",
            )
        ],
    },
    "a budget by KubeRay's labels": {
        BUDGET: [
            (
                "      app.kubernetes.io/component: ray-worker\n",
                "      app.kubernetes.io/created-by: kuberay-operator\n      ray.io/node-type: worker\n",
            )
        ],
    },
    "a repository of one's own": {ARGO: [("url=https://github.com/OWNER", "url=https://git.example.com/line")]},
    "a repository that the project names otherwise": {
        ARGO: [
            ("url=https://github.com/OWNER/REPOSITORY.git", "url=git@git.example.com:Line/deployments.git"),
            ("      - select: {kind: AppProject, name: mergeline}\n        fieldPaths: [spec.sourceRepos.0]\n", ""),
        ],
        ARGO_PROJECT: [("https://github.com/OWNER/REPOSITORY.git", "ssh://git@git.example.com/line/*")],
    },
    "no alerts by Argo CD": {ARGO: [("  - monitoring.yaml\n", "")]},
    "commits that somebody signs": {
        ARGO: [("# Commits must be signed: components: ", "components: ")],
        "gitops/components/signed-commits/kustomization.yaml": [("0000000000000000", "D56C4FCA57A46444")],
    },
    "operators in a project that takes what they need": {
        ARGO_PROJECT: [
            (
                "      manualSync: true\n",
                "      manualSync: true\n---\napiVersion: argoproj.io/v1alpha1\nkind: AppProject\n"
                "metadata: {name: operators}\nspec:\n  sourceRepos: ['*']\n"
                "  destinations: [{namespace: '*', server: https://kubernetes.default.svc}]\n"
                "  clusterResourceWhitelist: [{group: '*', kind: '*'}]\n",
            )
        ],
        ARGO_OPERATORS: [("project: default", "project: operators")],
    },
    "a project for each environment": {
        ARGO_SET: [("project: mergeline\n", 'project: "line-{{ .path.basename }}"\n')],
        ARGO_PROJECT: [
            ("name: mergeline\n", "name: line-production\n"),
            ("namespace: mergeline-*", "namespace: mergeline-production"),
            (
                "      manualSync: true\n",
                "      manualSync: true\n---\napiVersion: argoproj.io/v1alpha1\nkind: AppProject\n"
                "metadata: {name: line-staging}\nspec:\n  sourceRepos: [https://github.com/OWNER/REPOSITORY.git]\n"
                "  destinations: [{namespace: mergeline-staging, server: https://kubernetes.default.svc}]\n",
            ),
        ],
        "gitops/argocd/monitoring.yaml": [("project: mergeline", "project: default")],
    },
    "a repository that anybody can read": {
        "gitops/argocd/monitoring.yaml": [
            (
                "CreateNamespace=true, ServerSideApply=true]\n",
                "CreateNamespace=true, ServerSideApply=true]\n---\napiVersion: v1\nkind: Secret\n"
                "metadata: {name: charts, labels: {argocd.argoproj.io/secret-type: repository}}\n"
                "stringData: {type: helm, enableOCI: 'true', url: registry.example.com/charts}\n",
            )
        ]
    },
    "GPUs by `resources`, in small letters": {
        SERVICE: [
            ('        rayStartParams:\n          num-cpus: "2"', '        resources: {cpu: "2", nvidia.com/gpu: "1"}')
        ],
        CONFIG: [("num_cpus: 2", "num_cpus: 2\n          num_gpus: 1")],
    },
    "a part of a GPU": {
        SERVICE: [('limits: {cpu: "3",', 'limits: {cpu: "3", nvidia.com/mig-1g.5gb: 1,')],
        CONFIG: [("num_cpus: 2", "num_gpus: 1")],
    },
    "a timeout without an autoscaler": {
        SERVICE: [
            ("enableInTreeAutoscaling: true", "enableInTreeAutoscaling: false"),
            ("        priority: 0\n", "        priority: 0\n        idleTimeoutSeconds: 60\n        suspend: true\n"),
        ]
    },
    "a budget of a group with several hosts": {
        SERVICE: [("numOfHosts: 1", "numOfHosts: 4")],
        BUDGET: [("minAvailable: 1", "minAvailable: 3")],
    },
    "namespaces that somebody else makes": {
        ARGO_SET: [
            ("          - CreateNamespace=true\n", ""),
            (
                "        managedNamespaceMetadata:\n          labels:\n"
                "            pod-security.kubernetes.io/enforce: restricted\n",
                "",
            ),
        ]
    },
    "namespaces of another name": {
        ARGO_SET: [("namespace: mergeline-{{", "namespace: line-{{")],
        ARGO_PROJECT: [("      namespace: mergeline-*", "      namespace: line-*")],
        OVERLAY: [("namespace: mergeline-production", "namespace: line-production")],
    },
    "templates as they were": {
        ARGO_SET: [
            ("  goTemplate: true\n  goTemplateOptions: [missingkey=error]\n", ""),
            ("{{ .path.basename }}", "{{path.basename}}"),
        ]
    },
    "differences that are respected, in no list": {
        ARGO_SET: [
            (
                "          - ServerSideApply=true\n",
                "          - ServerSideApply=true\n" + RESPECTFUL,
            ),
            ("kind: RayService", "kind: Deployment"),
            ("group: ray.io", "group: apps"),
            ("kind: RayCluster", "kind: StatefulSet"),
            ('[".spec.rayClusterConfig.workerGroupSpecs[].replicas"]', "[.spec.replicas]"),
            ('jqPathExpressions: [".spec.workerGroupSpecs[].replicas"]', "jsonPointers: [/spec/replicas]"),
        ]
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
    "policies and budgets for what controllers make": {
        BUDGET: _also(
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
    "windows in a bucket": {
        SERVICE: [
            (
                "- {name: tmp, mountPath: /tmp}\n    #",
                "- {name: tmp, mountPath: /tmp}\n        - {name: line, mountPath: /line}\n    #",
            ),
            (
                "              emptyDir: {sizeLimit: 8Gi}\n",
                "              emptyDir: {sizeLimit: 8Gi}\n            - {name: line, csi: "
                "{driver: gcsfuse.csi.storage.gke.io, volumeAttributes: {bucketName: line}}}\n",
            ),
        ],
        CONFIG: [("      threads: 2\n", "      threads: 2\n      windows: /line/windows\n")],
    },
    "Redis as it was said before there were options": {
        SERVICE: [
            ("spec:\n  upgrade", "  annotations: {ray.io/ft-enabled: 'true'}\nspec:\n  upgrade"),
            (
                "              env: &ray_environment\n",
                "              env: &ray_environment\n"
                "                - {name: RAY_REDIS_ADDRESS, value: 'redis:6379'}\n",
            ),
        ]
    },
    "Vault's agent, and what only says where a secret is": {
        SERVICE: [
            (
                "              app.kubernetes.io/component: ray-worker\n          spec",
                "              app.kubernetes.io/component: ray-worker\n            annotations:\n"
                "              vault.hashicorp.com/agent-inject-secret-db-password: secret/data/line/db\n"
                "          spec",
            ),
            (
                "              env: &ray_environment\n",
                "              env: &ray_environment\n"
                "                - {name: GOOGLE_APPLICATION_CREDENTIALS, value: /gcp/key.json}\n"
                "                - {name: AWS_KMS_KEY_ID, value: 1234abcd-12ab-34cd-56ef-1234567890ab}\n"
                "                - {name: DB_SECRET, value: 'arn:aws:secretsmanager:eu-central-1:1:secret:db-AbCdEf'}\n"
                "                - {name: DB_PASSWORD, value: 'vault:secret/data/line#password'}\n",
            ),
        ]
    },
    "kinds that a project refuses, in place of those that it takes": {
        ARGO_PROJECT: [
            (
                "  namespaceResourceWhitelist:\n",
                "  namespaceResourceBlacklist:\n    - {group: '', kind: Secret}\n    "
                "- {group: rbac.authorization.k8s.io, kind: '*'}\n  other:\n",
            )
        ]
    },
    "environments that are rendered into branches": {
        ARGO_SET: [
            (
                "      source:\n        repoURL: https://github.com/OWNER/REPOSITORY.git\n"
                '        targetRevision: main\n        path: "{{ .path.path }}"\n',
                "      sourceHydrator:\n        drySource: {repoURL: https://github.com/OWNER/REPOSITORY.git, "
                "targetRevision: main, path: '{{ .path.path }}'}\n"
                "        syncSource: {targetBranch: 'env/{{ .path.basename }}', path: '{{ .path.basename }}'}\n",
            )
        ],
        ARGO: [("spec.template.spec.source.repoURL", "spec.template.spec.sourceHydrator.drySource.repoURL")],
    },
    "the default branch by its other name": {ARGO_SET: [("        revision: main", "        revision: HEAD")]},
    "definitions that are replaced, as Ray's guide does": {
        ARGO_OPERATORS: [
            (
                "    path: .\n    targetRevision: v0.93.0\n    kustomize:\n      namespace: monitoring\n",
                "    path: example/prometheus-operator-crd\n    targetRevision: v0.93.0\n",
            ),
            (
                "    namespace: monitoring\n  syncPolicy:\n    automated: {prune: true, selfHeal: true}\n"
                "    syncOptions: [CreateNamespace=true, ServerSideApply=true]\n",
                "    namespace: monitoring\n  syncPolicy: {syncOptions: [Replace=true]}\n",
            ),
        ]
    },
    "a project for each environment, by a template of one's own": {
        ARGO_SET: [("project: mergeline\n", "project: 'line-{{ .env }}'\n")],
        ARGO_PROJECT: [
            ("name: mergeline\n", "name: line-production\n"),
            (
                "      manualSync: true\n",
                "      manualSync: true\n---\napiVersion: argoproj.io/v1alpha1\nkind: AppProject\n"
                "metadata: {name: operators}\nspec: {sourceRepos: ['*'], destinations: [{namespace: '*'}]}\n",
            ),
        ],
        "gitops/argocd/monitoring.yaml": [("project: mergeline", "project: default")],
    },
    "a matcher of Alertmanager's, which is `=`": {
        BUDGET: _also(
            "apiVersion: external-secrets.io/v1\nkind: ExternalSecret\nmetadata: {name: a}\nspec: {matchType: =}\n"
        )
    },
    "names from a generator of another kind": {ARGO_SET: [(".path.basename", ".environment")]},
    "a label beside": {
        ARGO_SET: [
            (
                '        environment: "{{ .path.basename }}"\n',
                '        environment: "{{ .path.basename }}"\n        team: a\n',
            ),
            ("values: [staging]}\n", "values: [staging]}\n            - {key: team, operator: In, values: [a]}\n"),
        ]
    },
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_right_is_not_refused(files: dict[str, str], case: str) -> None:
    changed = dict(files)
    for path, changes in ALLOWED[case].items():
        for old, new in changes:
            assert old in changed[path]
            changed[path] = changed[path].replace(old, new)
    assert refusals(changed) == []


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Application", f"{{sources: [{{chart: tools, {TOOLS}}}"),
        ("ApplicationSet", f"{{generators: [], template: {{spec: {{project: default, sources: [{{{TOOLS}}}}}}}"),
        ("AppProject", "{destinations: [{namespace: tools}]}"),
    ],
)
def test_what_argo_cd_has_beside_environments_is_the_team_s(files: dict[str, str], kind: str, spec: str) -> None:
    listed = files[ARGO].replace("  - project.yaml\n", "  - project.yaml\n  - more.yaml\n")
    assert refusals(files | {ARGO: listed, MORE: APPLICATION.format(kind=kind, spec=spec)}) == []


def test_staging_s_workers_may_all_go_at_once(files: dict[str, str]) -> None:
    path = "gitops/environments/staging/kustomization.yaml"
    assert refusals(files | {path: files[path].replace("patches:\n", f"patches:\n{DELETED_BUDGET}")}, "staging") == []


def test_kuberay_gives_pods_the_probes_that_they_do_not_have(files: dict[str, str]) -> None:
    """Its operator injects them unless its variable ENABLE_PROBES_INJECTION is false."""
    probes = [f"{pod}/containers/0/{probe}Probe" for pod in (HEAD + "/template/spec", WORKER) for probe in PROBES]
    removed = patched(files, *(f"{{op: remove, path: {path}}}" for path in probes))
    assert refusals(files | removed) == []


MINE = "https://git.example.com/line/deployments.git"


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


def test_an_environment_by_an_application_alone_does_not_wait_for_staging(files: dict[str, str]) -> None:
    plain = APPLICATION.format(
        kind="Application",
        spec="{source: {repoURL: https://git.example.com/line, targetRevision: main, "
        "path: gitops/environments/production}, "
        "syncPolicy: {syncOptions: [ServerSideApply=true]}}",
    )
    (found,) = refusals(files | {ARGO: "resources: [more.yaml]\n", MORE: plain})
    assert "Application tools: nothing keeps it behind staging" in found.reason
    without = {path: text for path, text in files.items() if "/staging/" not in path}
    assert refusals(without | {ARGO: "resources: [more.yaml]\n", MORE: plain}) == []


def test_an_observer_with_a_container_beside_it_is_one(files: dict[str, str]) -> None:
    security = "securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}"
    beside = f"{{name: beside, image: '{OTHER}', {LIMITED}, {security}}}"
    add = f"{{op: add, path: /spec/template/spec/containers/-, value: {beside}}}"
    assert refusals(files | patched(files, add, kind="Deployment", name="observer")) == []


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


OTHER = f"other@sha256:{DIGEST}"
LIMITED = 'resources: {limits: {cpu: "1", memory: 1Gi}}'


@pytest.mark.parametrize(
    ("operation", "key", "words"),
    [
        (f"{{op: remove, path: {WORKER}/containers/0/image}}", "image", "container ray-worker has no image"),
        (f'{{op: replace, path: {WORKER}/containers/0/image, value: ""}}', "image", "ray-worker has no image"),
        (
            f'{{op: replace, path: {WORKER}/containers/0/image, value: "https://r/m @sha256:{DIGEST}"}}',
            "image",
            "is no reference of an image",
        ),
        (
            f'{{op: replace, path: {WORKER}/containers/0/image, value: "R/M@sha256:{DIGEST}"}}',
            "image",
            "is no reference of an image",
        ),
        (
            f"{{op: add, path: {WORKER}/volumes/-, value: {{name: a, image: {{reference: 'q.io/m:latest'}}}}}}",
            "image",
            "the image q.io/m:latest is `latest`",
        ),
        (
            f"{{op: add, path: {WORKER}/initContainers, value: [{{name: a, image: 'b:1', {LIMITED}}}]}}",
            "image",
            "the image b:1 has no digest",
        ),
        (f'{{op: replace, path: {WORKER}/containers/0/resources/limits/memory, value: "0"}}', "limits", "of memory"),
        (
            f"{{op: replace, path: {WORKER}/containers/0/resources/limits/memory, value: 1Gi}}",
            "limits",
            "requests 4Gi of memory, and its limit is 1Gi",
        ),
        (f"{{op: replace, path: {WORKER}/containers/0/resources/limits/cpu, value: 1500m}}", "limits", "is 1500m"),
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
        ("{op: remove, path: /spec/rayClusterConfig/authOptions}", "token", "authOptions.mode is not `token`"),
        ("{op: replace, path: /spec/rayClusterConfig/authOptions/mode, value: disabled}", "token", "is not `token`"),
        (f"{{op: add, path: {HEAD}/serviceType, value: LoadBalancer}}", "network", "opens Ray's head to the outside"),
        (
            f"{{op: add, path: {HEAD}/headService, value: {{spec: {{type: NodePort}}}}}}",
            "network",
            "opens Ray's head to the outside",
        ),
        (f"{{op: add, path: {HEAD}/enableIngress, value: true}}", "network", "opens Ray's head to the outside"),
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
        (f"{{op: remove, path: {WORKER}/containers/0/volumeMounts/0}}", "folder", "Ray writes to /tmp, and no volume"),
        (f"{{op: replace, path: {WORKER}/automountServiceAccountToken, value: true}}", "pod-security", "has a token"),
        (
            f"{{op: add, path: {WORKER}/volumes/-, value: "
            "{name: a, projected: {sources: [{serviceAccountToken: {path: token}}]}}}",
            "pod-security",
            "has a token",
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
        (
            "{op: replace, path: /spec/rayClusterConfig/autoscalerOptions/resources, value: {limits: {memory: 1Gi}}}",
            "limits",
            "container autoscaler has no limit of cpu",
        ),
        (f"{{op: replace, path: {WORKER}/containers/0/resources/limits/memory, value: 8000m}}", "limits", "8 bytes"),
        (f"{{op: add, path: {WORKER}/containers/0/args, value: ['--password', 'a b']}}", "secret", "--password stands"),
        (
            f"{{op: add, path: {WORKER}/containers/0/args, value: ['export API_TOKEN=abc; ray start']}}",
            "secret",
            "API_TOKEN stands there in clear",
        ),
    ],
)
def test_a_service_that_breaks_a_policy_is_refused(files: dict[str, str], operation: str, key: str, words: str) -> None:
    found = refusals(files | patched(files, operation))
    assert [finding for finding in found if finding.key == key and words in finding.reason], found


GROUP = "/spec/rayClusterConfig/workerGroupSpecs/0"


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (f"{{op: replace, path: {GROUP}/minReplicas, value: 9}}", "group cpu: minReplicas is 9, above maxReplicas"),
        (f"{{op: replace, path: {GROUP}/minReplicas, value: -1}}", "is below 0"),
        (f"{{op: add, path: {GROUP}/suspend, value: true}}", "it is suspended, which no group may be beside"),
        (f"{{op: copy, from: {GROUP}, path: /spec/rayClusterConfig/workerGroupSpecs/-}}", "the same `groupName`"),
        (f"{{op: add, path: {GROUP}/resources, value: {{CPU: '2'}}}}", "take one of them"),
        (f"{{op: add, path: {GROUP}/rayStartParams/labels, value: a=b}}", "takes no `labels`"),
        (f"{{op: add, path: {WORKER}/restartPolicy, value: Always}}", "`restartPolicy` must be Never"),
        ("{op: replace, path: /spec/rayClusterConfig/rayVersion, value: 2.46.0}", "rayVersion is 2.46.0, and tokens"),
        ("{op: remove, path: /spec/rayClusterConfig/rayVersion}", "rayVersion is None"),
        (
            "{op: add, path: /spec/rayClusterConfig/upgradeStrategy, value: {type: Recreate}}",
            "take spec.upgradeStrategy",
        ),
        ("{op: add, path: /spec/rayClusterConfig/authOptions/enableK8sTokenAuth, value: true}", "not for a RayService"),
        ("{op: replace, path: /spec/rayClusterDeletionDelaySeconds, value: -1}", "DeletionDelaySeconds is below 0"),
        ("{op: add, path: /metadata/annotations, value: {ray.io/initializing-timeout: soon}}", "which is no duration"),
        (f"{{op: add, path: {HEAD}/headService, value: {{metadata: {{name: a}}}}}}", "headService must have no name"),
        (
            f"{{op: add, path: {HEAD}/template/spec/containers/0/env/-, value: {{name: RAY_REDIS_ADDRESS, value: a}}}}",
            "take `gcsFaultToleranceOptions.redisAddress`",
        ),
    ],
)
def test_what_kuberay_would_refuse_is_refused_before(files: dict[str, str], operation: str, words: str) -> None:
    found = refusals(files | patched(files, operation))
    assert [finding for finding in found if finding.key == "kuberay" and words in finding.reason], found


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, None),
        ({"submissionMode": "K8sjobMode"}, "submissionMode is K8sjobMode, which is none of K8sJobMode"),
        ({"entrypoint": ""}, "it has no `entrypoint`"),
        ({"rayClusterSpec": None}, "neither `rayClusterSpec` nor `clusterSelector`"),
        ({"clusterSelector": {"app": "ray"}}, "names no cluster, as `ray.io/cluster`"),
        ({"clusterSelector": {"ray.io/cluster": "a"}}, None),
        ({"clusterSelector": {"ray.io/cluster": "a"}, "submissionMode": "SidecarMode"}, "is not for SidecarMode"),
        ({"suspend": True}, "wants `shutdownAfterJobFinishes: true`"),
        ({"ttlSecondsAfterFinished": 60}, "wants `shutdownAfterJobFinishes: true`"),
        ({"backoffLimit": -1}, "backoffLimit is below 0"),
        ({"activeDeadlineSeconds": 0}, "activeDeadlineSeconds is not above 0"),
        ({"runtimeEnvYAML": "{env_vars: {DB_PASSWORD: '1234'}}"}, "DB_PASSWORD stands there in clear"),
    ],
)
def test_a_job_that_would_not_run_is_refused(spec: dict[str, Any], words: str | None) -> None:
    job = {"entrypoint": "python -m ray_jobs.etl", "clusterSelector": {}, "rayClusterSpec": {"a": "b"}, **spec}
    for kind, whole in (
        ("RayJob", job),
        ("RayCronJob", {"schedule": "0 3 * * 1-5", "jobTemplate": job}),
    ):
        found = policies.refusals([{"kind": kind, "metadata": {"name": "etl"}, "spec": whole}])
        assert [(words or "") in finding.reason for finding in found] == ([True] if words else []), found


def test_a_namespace_keeps_the_level(files: dict[str, str]) -> None:
    text = (
        "apiVersion: v1\nkind: Namespace\n"
        "metadata: {name: mergeline-production, labels: {pod-security.kubernetes.io/enforce: privileged}}\n"
    )
    found = refusals(files | with_object(files, text))
    assert [finding.key for finding in found] == ["pod-security"]
    assert "enforces privileged only" in found[0].reason


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


def test_a_load_balancer_to_the_dashboard_is_refused() -> None:
    def found(port: object) -> list[Finding]:
        spec = {"type": "LoadBalancer", "ports": [{"port": 80, "targetPort": port}]}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": spec}
        return list(exposure.refusals([service]))

    assert [finding.key for finding in found(8265)] == ["network"]
    assert found("serve") == found(8000) == []


@pytest.mark.parametrize(
    "runtime",
    [
        "{py_modules: ['https://example.com/a.zip']}",
        "{pip: [requests]}",
        "{uv: [requests]}",
        "{conda: {dependencies: [pip]}}",
        "{py_executable: uv run}",
        "{worker_process_setup_hook: a.b}",
        "{image_uri: 'rayproject/ray:latest'}",
        "{container: {image: 'rayproject/ray:latest'}}",
        "{env_vars: {PYTHONPATH: /tmp}}",
    ],
)
def test_code_comes_from_the_image(files: dict[str, str], runtime: str) -> None:
    for line in ("    import_path: serve.app:build\n", "          num_cpus: 2\n"):
        indent = line[: len(line) - len(line.lstrip())]
        text = files[CONFIG].replace(line, f"{line}{indent}runtime_env: {runtime}\n")
        assert "working-dir" in {finding.key for finding in refusals(files | {CONFIG: text})}
        harmless = files[CONFIG].replace(line, f"{line}{indent}runtime_env: {{env_vars: {{OMP_NUM_THREADS: '2'}}}}\n")
        assert refusals(files | {CONFIG: harmless}) == []


@pytest.mark.parametrize(("text", "count"), [("pip: [a]", 1), ("env_vars: {A: b}", 0), ("a: [", 1)])
def test_a_job_s_code_comes_from_the_image_too(text: str, count: int) -> None:
    job = {"kind": "RayJob", "metadata": {"name": "a"}, "spec": {"runtimeEnvYAML": text}}
    for item in (job, {"kind": "RayCronJob", "metadata": {"name": "a"}, "spec": {"jobTemplate": job["spec"]}}):
        found = [one for one in policies.check([item], {}, "production") if one.key == "working-dir"]
        assert len(found) == count
        assert policies.check([item], {}, "staging")[0].key != "working-dir"


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


def test_an_environment_of_another_name_is_judged_as_strictly_as_production(files: dict[str, str]) -> None:
    moved = {
        path.replace("environments/production", "environments/hall-2"): text.replace(
            "mergeline-production", "mergeline-hall-2"
        )
        for path, text in files.items()
        if path in (OVERLAY, CONFIG)
    }
    assert refusals(files | moved, "hall-2") == []
    _, old, new, _, _ = BAD["working_dir"]
    path = CONFIG.replace("production", "hall-2")
    assert [found.key for found in refusals(files | moved | {path: files[CONFIG].replace(old, new)}, "hall-2")] == [
        "working-dir"
    ]


def test_an_object_without_a_version_is_refused(files: dict[str, str]) -> None:
    found = refusals(files | with_object(files, "kind: ConfigMap\nmetadata: {name: a}\n"))
    assert [finding.key for finding in found] == ["overlay"]
    assert "apiVersion" in found[0].reason


def test_what_is_too_long_to_be_observed_is_refused(files: dict[str, str]) -> None:
    found = refusals(files | {CONFIG: files[CONFIG] + "# a line of a fleet\n" * 14_000})
    assert [finding.key for finding in found] == ["observer"]
    assert "Kubernetes takes annotations of 250 KiB" in found[0].reason


def test_staging_may_try_code_that_is_in_no_image(files: dict[str, str]) -> None:
    _, old, new, _, _ = BAD["working_dir"]
    path = "gitops/environments/staging/serve-config.yaml"
    assert refusals(files | {path: files[path].replace(old, new)}, "staging") == []


def test_a_secret_in_git_is_refused(files: dict[str, str]) -> None:
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: ray-token}\nstringData: {auth_token: abc}\n"
    text = files[OVERLAY].replace("  - ../../base\n", "  - ../../base\n  - secret.yaml\n")
    found = refusals(files | {OVERLAY: text, "gitops/environments/production/secret.yaml": secret})
    assert {finding.key for finding in found} == {"secret", "argocd"}
    assert "Secret ray-token would lie in Git in clear" in str(found)


def test_what_only_names_a_secret_is_not_refused() -> None:
    sealed = {"kind": "SealedSecret", "metadata": {"name": "a"}, "spec": {"encryptedData": {"auth_token": "AgBy3"}}}
    keys = [{"secretKey": "auth_token", "remoteRef": {"key": "line/ray"}}]
    external = {"kind": "ExternalSecret", "metadata": {"name": "a"}, "spec": {"data": keys}}
    reference = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "ray-token", "key": "auth_token"}}}
    pod = {"kind": "ConfigMap", "metadata": {"name": "a"}, "env": [reference], "secretName": "ray-token"}
    assert policies.refusals([sealed, external, pod]) == []
    redis = {"kind": "RayCluster", "metadata": {"name": "a"}, "spec": {"redisPassword": {"value": "hunter2"}}}
    assert [finding.key for finding in policies.refusals([redis])] == ["secret"]


NAMED = (
    "AZURE_STORAGE_KEY ACCOUNT_KEY KAGGLE_KEY SIGNING_KEY ENCRYPTION_KEY SSH_KEY TLS_KEY DB_PASS MYSQL_PWD PGPASSWORD "
)
NAMED += "REDIS_AUTH PASSPHRASE GITHUB_PAT SECRETS TOKEN_2 AZURE_STORAGE_CONNECTION_STRING AWS_ACCESS_KEY_ID "
NAMED += "apiToken example.com/token redis-password Authorization API_KEY apiKey"
HARMLESS = (
    "PASSWORD_FILE topologyKey PUBLIC_KEY PARTITION_KEY PWD secretName COMPASS KEYS OMP_NUM_THREADS tokenizer bypass"
)


@pytest.mark.parametrize("name", NAMED.split())
def test_a_name_says_that_a_value_is_secret(name: str) -> None:
    for value in ({"name": name, "value": "abc"}, {name: "abc"}, {name: {"value": "abc"}}):
        assert [found.key for found in clear_text.refusals_in({"env": [value]}, "it")] == ["secret"]
    for nothing in ("", "$REDIS_PASSWORD", "$(RAY_AUTH_TOKEN)", "${A}", "{{ .password }}", "false"):
        assert list(clear_text.refusals_in({"env": [{"name": name, "value": nothing}]}, "it")) == []


@pytest.mark.parametrize("name", HARMLESS.split())
def test_other_names_do_not(name: str) -> None:
    assert list(clear_text.refusals_in({name: "abc", "env": [{"name": name, "value": "abc"}]}, "it")) == []


@pytest.mark.parametrize(
    ("value", "is_secret"),
    [
        ("postgres://u:hunter2@db/x", True),
        ("https://user:hunter2@mlflow.example.com", True),
        ("redis://:hunter2@redis:6379", True),
        ("s3://AKIA:abc@bucket/key?region=us-east-1", True),
        ("https://hooks.slack.com/services/T0123ABCD/B0123ABCD/abcdefghijklmnop", True),
        ("--pass-access-token=true", False),
        ("--access-token=trueish", True),
        ("ray start --redis-password=hunter2", True),
        ("Bearer eyJhbGciOi", True),
        ("DefaultEndpointsProtocol=https;AccountName=a;AccountKey=abc==", True),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE", True),
        (f"ghp_{'a' * 36}", True),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N", True),
        ("https://user:$PASSWORD@mlflow.example.com", False),
        ("https://mlflow.example.com:5000/a@b", False),
        ("s3://line/bundles/a?scheme=https&endpoint_override=minio.example.com:9000", False),
        ("ray start --redis-password=$REDIS_PASSWORD", False),
        ("-----BEGIN CERTIFICATE-----", False),
        ("line@example.com", False),
        (OTHER, False),
    ],
)
def test_a_value_can_say_it_itself(value: str, is_secret: bool) -> None:
    found = [*clear_text.refusals_in({"args": [value]}, "it"), *clear_text.refusals_in({"uri": value}, "it")]
    assert [finding.key for finding in found] == ["secret", "secret"] * is_secret


@pytest.mark.parametrize(
    ("item", "count"),
    [
        ({"kind": "ConfigMap", "data": {"app.env": "# of the app\nexport AWS_SECRET_ACCESS_KEY='abc'\n"}}, 1),
        ({"kind": "ConfigMap", "data": {"app.sh": "TOKEN=$(cat /token)\nOTHER=abc\n"}}, 0),
        ({"kind": "ConfigMap", "data": {"secret": "hunter2"}}, 1),
        ({"kind": "ConfigMap", "data": {"a.json": '{"user": "me", "password": "hunter2"}'}}, 1),
        ({"kind": "ConfigMap", "data": {"a.yaml": "db:\n  password: hunter2\n"}}, 1),
        ({"kind": "ConfigMap", "data": {"a.ini": "[db]\npassword = 123456\n"}}, 1),
        ({"kind": "ConfigMap", "data": {"a.json": '{"user": "me", "password": 123456}'}}, 1),
        ({"kind": "ConfigMap", "data": {"a.json": '{"title": "A, token: b", "expr": "x{token=\\"a\\"}"}'}}, 0),
        ({"kind": "ConfigMap", "data": {"a.json": '{"url": "https://me:hunter2@example.com"}'}}, 1),
        ({"kind": "ConfigMap", "data": {"a.ini": "max_tokens = -1"}}, 0),
        ({"kind": "ConfigMap", "data": {"a.yaml": 'headers: {authorization: "Bearer ${env:TOKEN}"}\n'}}, 0),
        ({"kind": "ConfigMap", "data": {"a.yaml": "passwordSecret: {name: creds, key: password}\n"}}, 0),
        ({"kind": "Deployment", "env": [{"name": "TLS_PRIVATE_KEY", "value": "/certs/tls.key"}]}, 0),
        ({"kind": "Deployment", "env": [{"name": "API_KEY", "value": "/bPxRfiCYEXAMPLEKEY"}]}, 1),
        (
            {
                "kind": "Deployment",
                "spec": {"env": [{"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": "/var/run/key.json"}]},
            },
            0,
        ),
        ({"kind": "ConfigMap", "data": {"a.ini": "max_tokens = 4096\ntoken_file = /run/token\n"}}, 0),
        ({"kind": "Deployment", "spec": {"env": [{"name": "DB_PASSWORD", "value": "123456"}]}}, 1),
        (
            {"kind": "Ingress", "metadata": {"annotations": {"nginx.ingress.kubernetes.io/auth-secret": "basic-auth"}}},
            0,
        ),
        (
            {
                "kind": "Application",
                "metadata": {
                    "annotations": {
                        "argocd-image-updater.argoproj.io/line.pull-secret": "pullsecret:argocd/registry",
                        "argocd-image-updater.argoproj.io/page.pull-secret": "secret:argocd/registry#token",
                    }
                },
            },
            0,
        ),
        ({"kind": "ResourceQuota", "spec": {"hard": {"count/secrets": "10"}}}, 0),
        ({"kind": "Middleware", "spec": {"basicAuth": {"secret": "line/users"}}}, 0),
        ({"kind": "ServiceAccount", "automountServiceAccountToken": "false"}, 0),
        ({"kind": "Deployment", "spec": {"env": [{"name": "MAX_TOKENS", "value": "4096"}]}}, 0),
        ({"kind": "Redis", "spec": {"existingSecret": "redis-auth"}}, 0),
        ({"kind": "Redis", "spec": {"existingSecret": "Hunter2!"}}, 1),
        ({"kind": "Ingress", "metadata": {"annotations": {"about": "needs Bearer authentication here"}}}, 0),
        ({"kind": "MySecretThing", "spec": {"password": "hunter2"}}, 1),
        ({"kind": "SecretStore", "spec": {"provider": {"vault": {"auth": {"token": "s3cr3t"}}}}}, 1),
        ({"kind": "ExternalSecret", "spec": {"target": {"template": {"data": {"password": "hunter2"}}}}}, 1),
        ({"kind": "ExternalSecret", "spec": {"target": {"template": {"data": {"password": "{{ .a }}"}}}}}, 0),
        ({"kind": "SealedSecret", "spec": {"encryptedData": {"password": "AgBy3"}, "template": {"token": "abc"}}}, 1),
    ],
)
def test_a_reference_is_no_secret_and_a_kind_s_name_no_excuse(item: dict[str, Any], count: int) -> None:
    whole = {**item, "metadata": {"name": "a", **item.get("metadata", {})}}
    assert [found.key for found in clear_text.refusals(whole)] == ["secret"] * count


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("registry:5000/a", "`latest`"),
        ("registry:5000/a:latest", "`latest`"),
        (f"a:latest@sha256:{DIGEST}", "`latest`"),
        ("registry:5000/a:1.2", "no digest"),
        ("a@sha256:abc", "no digest"),
        (f"a@sha256:{policies.NO_DIGEST}", "stands for none"),
        (f"registry:5000/a:1.2@sha256:{DIGEST}", ""),
        (f"registry:5000/a@sha256:{DIGEST}", ""),
    ],
)
def test_an_image_is_named_by_digest(image: str, said: str) -> None:
    found = policies.refusals([{"kind": "RayCluster", "metadata": {"name": "a"}, "spec": {"image": image}}])
    assert [said in finding.reason for finding in found] == ([True] if said else [])


def test_what_rays_schema_says_is_refused(files: dict[str, str]) -> None:
    findings = overlay.check(files, "production", schema=lambda _: "max_replicas is below min_replicas")
    assert "max_replicas is below min_replicas" in failed(findings)[0].reason


def test_one_machines_environment_is_none_for_a_cluster(files: dict[str, str]) -> None:
    assert "local is no environment for a cluster" in refusals(files, "local")[0].reason


def test_an_error_of_kustomize_names_the_file_in_the_repository(files: dict[str, str]) -> None:
    found = refusals(files | {"gitops/base/rayservice.yaml": "kind: [\n"})
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


# --- definitions of other kinds ---------------------------------------------------------------------------------------


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


def test_requests_move_in_steps_only_where_the_autoscaler_runs() -> None:
    options = {"gatewayClassName": "envoy", "stepSizePercent": 25, "intervalSeconds": 60}
    strategy = {"type": "NewClusterWithIncrementalUpgrade", "clusterUpgradeOptions": options}

    def found(**cluster: bool) -> list[str]:
        spec = {"upgradeStrategy": strategy, "rayClusterConfig": cluster}
        service = {"kind": "RayService", "metadata": {"name": "mergeline"}, "spec": spec}
        return [finding.reason for finding in policies.refusals([service])]

    assert found(enableInTreeAutoscaling=True) == []
    needs = (
        "RayService mergeline: NewClusterWithIncrementalUpgrade needs `rayClusterConfig.enableInTreeAutoscaling: true`"
    )
    assert found() == found(enableInTreeAutoscaling=False) == [needs]


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
