"""Nodes can be drained while the service answers: budgets, and how many pods they keep."""

import pytest

from tests.gitops.conftest import BUDGET, OVERLAY, SERVICE, Changes, Refused, expect_refused, expect_taken, refusals

DELETED_BUDGET = (
    "  - patch: |\n      apiVersion: policy/v1\n      kind: PodDisruptionBudget\n"
    "      metadata: {name: ray-workers}\n      $patch: delete\n"
)

BAD: dict[str, Refused] = {
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
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_overlay_is_refused(files: dict[str, str], case: str) -> None:
    expect_refused(files, *BAD[case])


ALLOWED: dict[str, Changes] = {
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
    "a budget of a group with several hosts": {
        SERVICE: [("numOfHosts: 1", "numOfHosts: 4")],
        BUDGET: [("minAvailable: 1", "minAvailable: 3")],
    },
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_right_is_not_refused(files: dict[str, str], case: str) -> None:
    expect_taken(files, ALLOWED[case])


def test_staging_s_workers_may_all_go_at_once(files: dict[str, str]) -> None:
    path = "gitops/environments/staging/kustomization.yaml"
    assert refusals(files | {path: files[path].replace("patches:\n", f"patches:\n{DELETED_BUDGET}")}, "staging") == []
