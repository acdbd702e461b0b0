"""Whether nodes can be drained, for their upgrades or to save some, while the service goes on answering."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from gitops import reach
from gitops.findings import Finding, refuse
from gitops.layout import STAGING
from gitops.objects import Object, Pod, at, name_of, pods


def refusals(objects: Sequence[Object], environment: str) -> Iterator[Finding]:
    """Budgets by which no pod may go, and workers that may all go at once.

    Args:
        objects: of an environment.
        environment: its name; what is in staging may go as it likes.
    """
    budgets = [item for item in objects if item["kind"] == "PodDisruptionBudget"]
    found = [pod for item in objects for pod in pods(item) if pod.is_rays]
    for budget in budgets:
        if chosen := [pod for pod in found if reach.selects(_selector(budget), pod.labels, is_rays=True)]:
            yield from _of_budget(budget, chosen)
    for one, other in combinations(budgets, 2):
        # By the labels that are known: those of one group each are no two for a pod.
        for pod in (pod for pod in found if all(reach.selects(_selector(it), pod.labels) for it in (one, other))):
            what = f"{name_of(one)} and {name_of(other)} both select {pod}, and Kubernetes evicts no pod of two budgets"
            yield refuse("disruption", what, "take one of them out, by a patch of the overlay if the base has it")
    if environment != STAGING:
        yield from _without_budget(objects, budgets)


def _selector(budget: Object) -> object:
    return at(budget, "spec", "selector")


def _least(chosen: Sequence[Pod]) -> int:
    """How many there are when the fewest are wanted."""
    groups = (pod.group or {} for pod in chosen if not pod.is_head)
    workers = sum((group.get("minReplicas") or 0) * (group.get("numOfHosts") or 1) for group in groups)
    return workers + sum(pod.is_head for pod in chosen)


def _of_budget(budget: Object, chosen: Sequence[Pod]) -> Iterator[Finding]:
    """It leaves a pod that may go, but for an only worker's sake."""
    kept, there = at(budget, "spec", "minAvailable"), _least(chosen)
    if not isinstance(kept, int):
        found = f"{name_of(budget)}: KubeRay's pods have no controller of which Kubernetes would know their number"
        yield refuse("disruption", found, "give a number as `minAvailable`, and no percentage or `maxUnavailable`")
    elif kept >= there and (kept > 1 or any(pod.is_head for pod in chosen)):
        found = f"{name_of(budget)} keeps {kept} of at least {there} pods, so that no node of theirs can be drained"
        yield refuse("disruption", found, "lower `minAvailable`, or raise the group's `minReplicas`")


def _without_budget(objects: Sequence[Object], budgets: Sequence[Object]) -> Iterator[Finding]:
    """Several workers are wanted so that one answers whatever happens to the others."""
    for service in (item for item in objects if item["kind"] == "RayService"):
        workers = [pod for pod in pods(service) if not pod.is_head and pod.is_rays]
        there = _least(workers)
        if there > 1 and not any(
            reach.selects(_selector(budget), pod.labels, is_rays=True) for budget in budgets for pod in workers
        ):
            what = f"{name_of(service)}: no PodDisruptionBudget selects its workers, of which there are {there} or more"
            remedy = "take gitops/base/pod-disruption-budget.yaml: without one a drain may end all of them at once"
            yield refuse("disruption", what, remedy)
