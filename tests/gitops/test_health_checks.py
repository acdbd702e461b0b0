"""Argo CD's health checks in Lua, on statuses as KubeRay 1.7 writes them."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from lupa.lua51 import LuaRuntime

CHECKS = Path(__file__).parents[2] / "gitops" / "health"
OLD, NEW = "mergeline-2xkqp", "mergeline-7hd4w"
RUNNING = {"screw": {"status": "RUNNING", "serveDeploymentStatuses": {"Classifier": {"status": "HEALTHY"}}}}


def health(check: str, obj: dict[str, Any]) -> tuple[str, str]:
    """Status and message that Argo CD would show; its Lua has `base`, `table`, and two functions of `os`."""
    lua = LuaRuntime(unpack_returned_tuples=True)
    lua.execute('getmetatable("").__index = nil')
    lua.execute("package.loaded.os = {time = os.time, date = os.date}")
    lua.execute("for _, name in ipairs({'string', 'math', 'io', 'os', 'debug', 'python'}) do _G[name] = nil end")
    lua.globals().obj = lua.table_from(_dated(obj), recursive=True)
    found = lua.execute((CHECKS / f"{check}.lua").read_text())
    assert set(found.keys()) == {"status", "message"}
    return found.status, found.message


def _dated(value: Any) -> Any:
    """The value with times in place of what says how long ago they are: tests run long after they were collected."""
    if isinstance(value, timedelta):
        return (datetime.now(UTC) - value).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, dict):
        return {key: _dated(inner) for key, inner in value.items()}
    return [_dated(inner) for inner in value] if isinstance(value, list) else value


def condition(name: str, status: str, reason: str, message: str = "", *, minutes: float = 60) -> dict[str, Any]:
    """A condition that has been so for so long."""
    said = {"type": name, "status": status, "reason": reason, "message": message, "observedGeneration": 3}
    return said | {"lastTransitionTime": timedelta(minutes=minutes)}


READY = condition("Ready", "True", "NonZeroServeEndpoints", "Number of serve endpoints is greater than 0")
STILL = condition("UpgradeInProgress", "False", "NoPendingCluster")
UPGRADING = condition("UpgradeInProgress", "True", "BothActivePendingClustersExist")


def headed(minutes: float) -> dict[str, Any]:
    """A head that has been ready for so long."""
    return condition("HeadPodReady", "True", "HeadPodRunningAndReady", minutes=minutes)


def cluster(name: str, head: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    head = head or headed(60)
    return {"rayClusterName": name, "rayClusterStatus": {"conditions": [head]}, **status}


def service(
    *conditions: dict[str, Any],
    active: dict[str, Any] | None = None,
    pending: dict[str, Any] | None = None,
    generation: int = 3,
    minutes: float = 1,
) -> dict[str, Any]:
    """A RayService of which KubeRay wrote the status so long ago."""
    status: dict[str, Any] = {"conditions": list(conditions), "observedGeneration": 3, "numServeEndpoints": 2}
    status["lastUpdateTime"] = timedelta(minutes=minutes)
    status |= {"activeServiceStatus": active or {}, "pendingServiceStatus": pending or {}}
    return {"kind": "RayService", "metadata": {"generation": generation}, "status": status}


def failing(status: str, message: str, deployment: str = "HEALTHY", why: str = "") -> dict[str, Any]:
    deployments = {"Classifier": {"status": deployment, "message": why}}
    return {"screw": {"status": status, "message": message, "serveDeploymentStatuses": deployments}}


def watched(status: str, message: str, monitor: str, classifier: str = "HEALTHY") -> dict[str, Any]:
    """An application with a drift monitor."""
    deployments = {"Classifier": {"status": classifier}, "Monitor": {"status": monitor, "message": "no such folder"}}
    return {"screw": {"status": status, "message": message, "serveDeploymentStatuses": deployments}}


ONLY_MONITOR_FAILED = watched("DEPLOY_FAILED", "Failed to update the deployments ['Monitor'].", "DEPLOY_FAILED")

PULLING = condition(
    "HeadPodReady", "False", "ImagePullBackOff", 'ray-head: Back-off pulling image "mergeline@sha256:…"'
)

# As it stays while the head's image cannot be pulled: KubeRay 1.7 writes the copy anew only with the applications.
JUST_MADE = {"rayClusterName": NEW, "rayClusterStatus": {"desiredCPU": "0", "desiredMemory": "0", "head": {}}}

SERVICES: dict[str, tuple[dict[str, Any], str, str]] = {
    "new": ({"metadata": {"generation": 1}}, "Progressing", "not seen it yet"),
    "starting": (
        service(
            condition("Ready", "False", "Initializing", "RayService is initializing"),
            condition("UpgradeInProgress", "False", "Initializing"),
            pending=cluster(OLD, condition("HeadPodReady", "False", "ContainersNotReady")),
        ),
        "Progressing",
        f"the new cluster {OLD} starts",
    ),
    "serving": (service(READY, STILL, active=cluster(OLD, applicationStatuses=RUNNING)), "Healthy", ""),
    "the application's import or builder raises, and the old one answers": (
        service(
            READY,
            STILL,
            active=cluster(OLD, applicationStatuses=failing("DEPLOY_FAILED", "No module named 'serve.ap'")),
        ),
        "Degraded",
        "screw is DEPLOY_FAILED: No module named 'serve.ap'",
    ),
    "reconfigure() raises, and every request fails": (
        service(
            READY,
            STILL,
            active=cluster(OLD, applicationStatuses=failing("DEPLOY_FAILED", "ValueError", "DEPLOY_FAILED")),
        ),
        "Degraded",
        "screw is DEPLOY_FAILED: ValueError",
    ),
    "a deployment is unhealthy while its application is called running": (
        service(
            READY, STILL, active=cluster(OLD, applicationStatuses=failing("RUNNING", "", "UNHEALTHY", "no replica"))
        ),
        "Degraded",
        "UNHEALTHY: no replica",
    ),
    "serveConfigV2 cannot be read": (
        service(READY, STILL, active=cluster(OLD, applicationStatuses=RUNNING), generation=4),
        "Progressing",
        "KubeRay is at generation 3 of 4; if it stays there, it cannot read serveConfigV2",
    ),
    "an upgrade strategy that does not exist": (
        service(
            condition("Ready", "False", "ValidationFailed", "Spec.UpgradeStrategy.Type value Bogus is invalid"),
            STILL,
            active=cluster(OLD, applicationStatuses=RUNNING),
            generation=4,
        ),
        "Degraded",
        "KubeRay refuses it, and goes on with what was there: Spec.UpgradeStrategy.Type value Bogus is invalid",
    ),
    "an image that cannot be pulled": (
        service(READY, UPGRADING, active=cluster(OLD), pending=cluster(NEW, PULLING)),
        "Degraded",
        f"the new cluster {NEW} does not come up: ImagePullBackOff",
    ),
    "an image that cannot be pulled, and KubeRay does not say so": (
        service(READY, UPGRADING, active=cluster(OLD), pending=JUST_MADE, minutes=16),
        "Degraded",
        f"the new cluster {NEW} did not come up within 15 minutes (no application yet): the RayCluster and its pods",
    ),
    "a new cluster without room for its workers": (
        service(
            READY,
            UPGRADING,
            active=cluster(OLD),
            pending=cluster(NEW, applicationStatuses=failing("DEPLOYING", "", "UPSCALING")),
            minutes=16,
        ),
        "Degraded",
        f"the new cluster {NEW} did not come up within 15 minutes (screw is DEPLOYING): the RayCluster and its pods",
    ),
    "a first cluster that does not come up": (
        service(
            condition("Ready", "False", "Initializing"),
            condition("UpgradeInProgress", "False", "Initializing"),
            pending=JUST_MADE,
            minutes=16,
        ),
        "Degraded",
        f"the new cluster {NEW} did not come up within 15 minutes (no application yet): the RayCluster and its pods",
    ),
    "the old cluster is gone while the new one comes up": (
        service(condition("Ready", "False", "ZeroServeEndpoints", "dropped to 0"), UPGRADING, pending=JUST_MADE),
        "Degraded",
        f"nothing answers while the new cluster {NEW} comes up: dropped to 0",
    ),
    "requests that have stopped moving": (
        service(
            READY,
            UPGRADING,
            active=cluster(OLD),
            pending=cluster(NEW, applicationStatuses=failing("DEPLOYING", ""), trafficRoutedPercent=25),
            minutes=600,
        ),
        "Degraded",
        f"for more than 60 minutes no requests moved to the new cluster {NEW} (screw is DEPLOYING)",
    ),
    "a whole cluster that gets no requests": (
        service(READY, UPGRADING, active=cluster(OLD), pending=cluster(NEW, applicationStatuses=RUNNING), minutes=600),
        "Degraded",
        f"for more than 60 minutes no requests moved to the new cluster {NEW}: the RayService's events say why",
    ),
    "the first version was invalid, and the next one comes up": (
        service(
            condition("Ready", "False", "ValidationFailed", "Bogus"),
            condition("UpgradeInProgress", "False", "Initializing"),
            pending=cluster("mergeline-corrected", headed(1), applicationStatuses=failing("DEPLOYING", "")),
        ),
        "Progressing",
        "the new cluster mergeline-corrected starts",
    ),
    "it initializes for hours": (
        service(
            condition("Ready", "False", "Initializing", "RayService is initializing"),
            STILL,
            active=cluster(OLD, applicationStatuses=RUNNING),
            minutes=600,
        ),
        "Degraded",
        "it did not come up within 15 minutes: RayService is initializing",
    ),
    "a model that changes while requests move, step by step": (
        service(
            READY,
            UPGRADING,
            active=cluster(OLD),
            pending=cluster(NEW, applicationStatuses=failing("DEPLOYING", ""), trafficRoutedPercent=60),
            minutes=16,
        ),
        "Progressing",
        f"requests move to the new cluster {NEW}",
    ),
    "the new cluster's application fails": (
        service(
            READY,
            UPGRADING,
            active=cluster(OLD),
            pending=cluster(NEW, applicationStatuses=failing("DEPLOY_FAILED", "no such module")),
        ),
        "Degraded",
        "screw is DEPLOY_FAILED: no such module; the old cluster answers",
    ),
    "an upgrade, or the third cluster after a revert": (
        service(
            READY,
            UPGRADING,
            active=cluster(OLD),
            pending=JUST_MADE,
        ),
        "Progressing",
        f"the new cluster {NEW} starts; the old cluster answers",
    ),
    "an incremental upgrade that goes back": (
        service(
            READY,
            UPGRADING,
            condition("RollbackInProgress", "True", "DesiredClusterSpecChanged"),
            active=cluster(OLD),
            pending=cluster(NEW, applicationStatuses=RUNNING),
        ),
        "Progressing",
        "requests go back",
    ),
    "an incremental upgrade that goes back from a cluster that fails": (
        service(
            READY,
            UPGRADING,
            condition("RollbackInProgress", "True", "DesiredClusterSpecChanged"),
            active=cluster(OLD),
            pending=cluster("mergeline-wrong", applicationStatuses=failing("DEPLOY_FAILED", "no such module")),
        ),
        "Progressing",
        "requests go back to the cluster before mergeline-wrong",
    ),
    "an incremental upgrade that went back for hours": (
        service(
            READY,
            UPGRADING,
            condition("RollbackInProgress", "True", "DesiredClusterSpecChanged"),
            active=cluster(OLD),
            pending=cluster("mergeline-stuck", applicationStatuses=RUNNING),
            minutes=600,
        ),
        "Degraded",
        "for more than 60 minutes no requests moved to the new cluster mergeline-stuck",
    ),
    "the initializing timeout": (
        service(
            condition("Ready", "False", "InitializingTimeout", "RayService failed to become ready within 5m0s"),
            condition("UpgradeInProgress", "Unknown", "NoActiveCluster"),
        ),
        "Degraded",
        "for good: delete the RayService",
    ),
    "no endpoint is left": (
        service(
            condition("Ready", "False", "ZeroServeEndpoints", "Number of serve endpoints dropped to 0"),
            STILL,
            active=cluster(OLD, applicationStatuses=RUNNING),
        ),
        "Degraded",
        "nothing answers: Number of serve endpoints dropped to 0",
    ),
    "requests have just moved to a pod that is not ready": (
        service(
            condition("Ready", "False", "ZeroServeEndpoints", "Number of serve endpoints dropped to 0"),
            condition("UpgradeInProgress", "False", "NoPendingCluster", minutes=0.5),
            active=cluster(OLD, applicationStatuses=RUNNING),
        ),
        "Progressing",
        "requests have just moved: Number of serve endpoints dropped to 0",
    ),
    "the new cluster's replicas do not start": (
        service(
            READY,
            UPGRADING,
            active=cluster(OLD),
            pending=cluster(
                NEW, applicationStatuses=failing("DEPLOY_FAILED", "Failed to update", "DEPLOY_FAILED", "no bundle")
            ),
        ),
        "Degraded",
        "screw is DEPLOY_FAILED: Failed to update; Classifier is DEPLOY_FAILED: no bundle; the old cluster answers",
    ),
    "the new cluster's replicas do not start yet": (
        service(
            READY,
            UPGRADING,
            active=cluster(OLD),
            pending=cluster(
                NEW, headed(14), applicationStatuses=failing("DEPLOYING", "", "UPDATING", "retrying: no bundle")
            ),
        ),
        "Progressing",
        f"the new cluster {NEW} starts (screw is DEPLOYING; Classifier is UPDATING: retrying: no bundle); the old",
    ),
    "the replicas of the third cluster after a revert do not start yet": (
        service(
            READY,
            UPGRADING,
            active=cluster(OLD),
            pending=cluster(NEW, headed(2), applicationStatuses=failing("DEPLOYING", "", "UPDATING", "it is slow")),
        ),
        "Progressing",
        f"the new cluster {NEW} starts (screw is DEPLOYING; Classifier is UPDATING: it is slow); the old",
    ),
    "the new cluster's replicas have not started for long, and its head's state is not known": (
        service(
            READY,
            UPGRADING,
            active=cluster(OLD),
            pending=JUST_MADE | {"applicationStatuses": failing("DEPLOYING", "", "UPDATING", "again: no bundle")},
        ),
        "Degraded",
        "(screw is DEPLOYING; Classifier is UPDATING: again: no bundle): the RayCluster and its pods say why",
    ),
    "the new cluster's replicas have not started for long": (
        service(
            READY,
            UPGRADING,
            active=cluster(OLD),
            pending=cluster(
                NEW, headed(16), applicationStatuses=failing("DEPLOYING", "", "UPDATING", "retrying: no bundle")
            ),
        ),
        "Degraded",
        "(screw is DEPLOYING; Classifier is UPDATING: retrying: no bundle): the RayCluster and its pods say why",
    ),
    "an application is being deployed": (
        service(READY, STILL, active=cluster(OLD, applicationStatuses=failing("DEPLOYING", "", "UPDATING"))),
        "Progressing",
        "screw is DEPLOYING",
    ),
    "only the drift monitor fails": (
        service(READY, STILL, active=cluster(OLD, applicationStatuses=ONLY_MONITOR_FAILED)),
        "Healthy",
        "nothing watches screw for drift: screw is DEPLOY_FAILED: Failed to update the deployments ['Monitor'].; "
        "Monitor is DEPLOY_FAILED: no such folder",
    ),
    "only the drift monitor died": (
        service(
            READY,
            STILL,
            active=cluster(
                OLD,
                applicationStatuses=watched(
                    "UNHEALTHY", "The deployments ['Monitor'] are UNHEALTHY.", "UNHEALTHY", "UPSCALING"
                ),
            ),
        ),
        "Healthy",
        "nothing watches screw for drift: screw is UNHEALTHY",
    ),
    "only the drift monitor starts again": (
        service(READY, STILL, active=cluster(OLD, applicationStatuses=watched("DEPLOYING", "", "UPDATING"))),
        "Healthy",
        "nothing watches screw for drift: screw is DEPLOYING; Monitor is UPDATING: no such folder",
    ),
    "the drift monitor and the replicas": (
        service(
            READY,
            STILL,
            active=cluster(
                OLD,
                applicationStatuses=watched(
                    "UNHEALTHY", "The deployments ['Classifier', 'Monitor'] are UNHEALTHY.", "UNHEALTHY", "UNHEALTHY"
                ),
            ),
        ),
        "Degraded",
        "screw is UNHEALTHY: The deployments ['Classifier', 'Monitor']",
    ),
    "replicas change models while the drift monitor fails": (
        service(
            READY,
            STILL,
            active=cluster(
                OLD,
                applicationStatuses=watched(
                    "DEPLOY_FAILED", "Failed to update the deployments ['Monitor'].", "DEPLOY_FAILED", "UPDATING"
                ),
            ),
        ),
        "Progressing",
        "screw is DEPLOY_FAILED: Failed to update the deployments ['Monitor'].; Monitor is DEPLOY_FAILED",
    ),
    "the replicas fail, and the drift monitor starts": (
        service(
            READY, STILL, active=cluster(OLD, applicationStatuses=watched("DEPLOYING", "", "UPDATING", "UNHEALTHY"))
        ),
        "Degraded",
        "screw is DEPLOYING; Monitor is UPDATING",
    ),
    "an application that cannot be built, while its monitor ails": (
        service(
            READY, STILL, active=cluster(OLD, applicationStatuses=watched("DEPLOY_FAILED", "ImportError", "UNHEALTHY"))
        ),
        "Degraded",
        "screw is DEPLOY_FAILED: ImportError",
    ),
    "a new cluster whose drift monitor fails, for which KubeRay waits": (
        service(READY, UPGRADING, active=cluster(OLD), pending=cluster(NEW, applicationStatuses=ONLY_MONITOR_FAILED)),
        "Degraded",
        f"the new cluster {NEW} does not come up: screw is DEPLOY_FAILED: Failed to update the deployments ['Monitor']",
    ),
    "a new cluster whose drift monitor starts after its replicas": (
        service(
            READY,
            UPGRADING,
            active=cluster(OLD),
            pending=cluster(NEW, headed(1), applicationStatuses=watched("DEPLOYING", "", "UPDATING")),
        ),
        "Progressing",
        f"the new cluster {NEW} starts (screw is DEPLOYING; Monitor is UPDATING",
    ),
    "the head does not answer": (
        service(READY, STILL, active=cluster(OLD)),
        "Progressing",
        "Ray's head does not answer",
    ),
    "suspended": (
        service(condition("Suspended", "True", "SuspendComplete"), condition("Ready", "False", "SuspendComplete")),
        "Suspended",
        "no cluster",
    ),
}


@pytest.mark.parametrize("case", SERVICES)
def test_a_ray_service_is_as_well_as_it_is(case: str) -> None:
    obj, status, message = SERVICES[case]
    assert health("ray_service", obj)[0] == status
    assert message in health("ray_service", obj)[1]


def test_the_cases_are_told_apart() -> None:
    said = [health("ray_service", obj) for obj, _, _ in SERVICES.values()]
    assert len(set(said)) == len(said)


EXCEEDED = condition("ReplicaFailure", "True", "FailedCreateWorkerPod", "exceeded quota")

JOBS: dict[str, tuple[dict[str, Any], str, str]] = {
    "new": ({}, "Progressing", "not seen it yet"),
    "waiting for its cluster": ({"jobDeploymentStatus": "Initializing"}, "Progressing", "Initializing"),
    "running": ({"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, "Progressing", "Running"),
    "retrying": ({"jobDeploymentStatus": "Retrying", "jobStatus": ""}, "Progressing", "Retrying"),
    "retrying what failed": (
        {"jobDeploymentStatus": "Retrying", "jobStatus": "FAILED", "reason": "AppFailed", "message": "exit code 1"},
        "Progressing",
        "Retrying",
    ),
    "failed, and KubeRay has not decided yet": (
        {"jobDeploymentStatus": "Running", "jobStatus": "FAILED"},
        "Progressing",
        "Running",
    ),
    "ended by failing": ({"jobDeploymentStatus": "Complete", "jobStatus": "FAILED"}, "Degraded", ""),
    "done": ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, "Healthy", ""),
    "failed": (
        {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": "exit code 1"},
        "Degraded",
        "AppFailed: exit code 1",
    ),
    "too late": (
        {"jobDeploymentStatus": "Failed", "jobStatus": "RUNNING", "reason": "DeadlineExceeded"},
        "Degraded",
        "DeadlineExceeded",
    ),
    "refused": (
        {"jobDeploymentStatus": "ValidationFailed", "reason": "ValidationFailed", "message": "no entrypoint"},
        "Degraded",
        "no entrypoint",
    ),
    "stopped": ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, "Degraded", "somebody stopped it"),
    "suspended": ({"jobDeploymentStatus": "Suspended"}, "Suspended", "no cluster"),
    "suspended as it ran": ({"jobDeploymentStatus": "Suspending", "jobStatus": "STOPPED"}, "Suspended", "no cluster"),
    "its cluster's image cannot be pulled": (
        {"jobDeploymentStatus": "Initializing", "rayClusterStatus": {"conditions": [PULLING]}},
        "Degraded",
        "its cluster does not come up: ImagePullBackOff",
    ),
    "its cluster exceeds a quota": (
        {"jobDeploymentStatus": "Initializing", "rayClusterStatus": {"conditions": [EXCEEDED]}},
        "Degraded",
        "its cluster does not come up: FailedCreateWorkerPod: exceeded quota",
    ),
    "its cluster fails without a reason": (
        {
            "jobDeploymentStatus": "Initializing",
            "rayClusterStatus": {"conditions": [{"type": "ReplicaFailure", "status": "True"}]},
        },
        "Degraded",
        "its cluster does not come up",
    ),
    "its head died as it ran": (
        {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING", "rayClusterStatus": {"conditions": [PULLING]}},
        "Progressing",
        "Running",
    ),
}


@pytest.mark.parametrize("case", JOBS)
def test_a_ray_job_is_what_became_of_the_job(case: str) -> None:
    status, expected, message = JOBS[case]
    found = health("ray_job", {"metadata": {"generation": 1}, "status": status})
    assert found[0] == expected
    assert message in found[1]


PROVISIONED = condition("RayClusterProvisioned", "True", "AllPodRunningAndReadyFirstTime")
HEAD = condition("HeadPodReady", "True", "HeadPodRunningAndReady")

CLUSTERS: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "new": ([], "Progressing", "not seen it yet"),
    "pods are made": (
        [condition("RayClusterProvisioned", "False", "RayClusterPodsProvisioning"), HEAD],
        "Progressing",
        "",
    ),
    "ready": ([HEAD, PROVISIONED], "Healthy", ""),
    "the head is gone": (
        [condition("HeadPodReady", "False", "HeadPodNotFound", "Head Pod not found"), PROVISIONED],
        "Progressing",
        "Head Pod not found",
    ),
    "an image that cannot be pulled": ([PULLING], "Degraded", "ImagePullBackOff"),
    "a quota": (
        [HEAD, EXCEEDED],
        "Degraded",
        "exceeded quota",
    ),
    "suspended": ([condition("RayClusterSuspended", "True", "RayClusterSuspended")], "Suspended", "no pods"),
}


@pytest.mark.parametrize("zone", ["UTC", "America/Bogota", "Asia/Tokyo"])
def test_fifteen_minutes_are_as_long_everywhere(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for minutes, expected in ((14, "Progressing"), (16, "Degraded")):
            found = service(READY, UPGRADING, active=cluster(OLD), pending=JUST_MADE, minutes=minutes)
            assert health("ray_service", found)[0] == expected
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("case", CLUSTERS)
def test_a_ray_cluster_is_as_well_as_its_pods(case: str) -> None:
    conditions, expected, message = CLUSTERS[case]
    status = {"conditions": conditions, "observedGeneration": 1}
    found = health("ray_cluster", {"metadata": {"generation": 1}, "status": status})
    assert found[0] == expected
    assert message in found[1]


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ({"desiredWorkerReplicas": 2}, ("Progressing", "none of 2 workers is ready")),
        ({"desiredWorkerReplicas": 2, "readyWorkerReplicas": 0}, ("Progressing", "none of 2 workers is ready")),
        ({"desiredWorkerReplicas": 2, "readyWorkerReplicas": 1}, ("Healthy", "")),
        ({"desiredWorkerReplicas": 0}, ("Healthy", "")),
    ],
)
def test_a_ray_cluster_without_its_workers_is_progressing(workers: dict[str, int], expected: tuple[str, str]) -> None:
    status = {"conditions": [HEAD, PROVISIONED], "observedGeneration": 1, **workers}
    assert health("ray_cluster", {"metadata": {"generation": 1}, "status": status}) == expected


def test_a_ray_cluster_whose_change_was_not_taken_is_progressing() -> None:
    status = {"conditions": [HEAD, PROVISIONED], "observedGeneration": 1}
    assert health("ray_cluster", {"metadata": {"generation": 2}, "status": status})[0] == "Progressing"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, ("Progressing", "")),
        ({"health": {"status": "Healthy"}}, ("Healthy", "")),
        ({"health": {"status": "Degraded", "message": "a pod fails"}}, ("Degraded", "a pod fails")),
        (
            {"health": {"status": "Healthy"}, "operationState": {"phase": "Running"}},
            ("Progressing", "it is being synced"),
        ),
        ({"health": {"status": "Healthy"}, "operationState": {"phase": "Succeeded"}}, ("Healthy", "")),
    ],
)
def test_an_application_in_an_application_has_its_own_health(status: dict[str, Any], expected: tuple[str, str]) -> None:
    assert health("application", {"status": status}) == expected


def test_an_application_whose_sync_is_about_to_begin_is_not_healthy_yet() -> None:
    asked = {"operation": {"sync": {"revision": "a"}}, "status": {"health": {"status": "Healthy"}}}
    assert health("application", asked) == ("Progressing", "it is being synced")
