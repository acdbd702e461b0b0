"""What KubeRay would refuse only on the cluster is refused before."""

from typing import Any

import pytest

from gitops import policies
from tests.gitops.conftest import (
    HEAD,
    OVERLAY,
    SERVICE,
    WORKER,
    Changes,
    Refused,
    expect_patch_refused,
    expect_refused,
    expect_taken,
    patched,
    refusals,
)

PROBES = ("liveness", "readiness")
GROUP = "/spec/rayClusterConfig/workerGroupSpecs/0"

BAD: dict[str, Refused] = {
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
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_overlay_is_refused(files: dict[str, str], case: str) -> None:
    expect_refused(files, *BAD[case])


ALLOWED: dict[str, Changes] = {
    "a timeout without an autoscaler": {
        SERVICE: [
            ("enableInTreeAutoscaling: true", "enableInTreeAutoscaling: false"),
            ("        priority: 0\n", "        priority: 0\n        idleTimeoutSeconds: 60\n        suspend: true\n"),
        ]
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
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_right_is_not_refused(files: dict[str, str], case: str) -> None:
    expect_taken(files, ALLOWED[case])


def test_kuberay_gives_pods_the_probes_that_they_do_not_have(files: dict[str, str]) -> None:
    """Its operator injects them unless its variable ENABLE_PROBES_INJECTION is false."""
    probes = [f"{pod}/containers/0/{probe}Probe" for pod in (HEAD + "/template/spec", WORKER) for probe in PROBES]
    removed = patched(files, *(f"{{op: remove, path: {path}}}" for path in probes))
    assert refusals(files | removed) == []


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
    expect_patch_refused(files, operation, "kuberay", words)


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
