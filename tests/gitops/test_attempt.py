"""When a commit is attempted, retried and put back."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gitops.attempt import Goal, Settings, begin, fail, failure_of, is_due, settle
from gitops.errors import StalledError, WaitingError
from gitops.status import OperationState

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
GOAL = Goal("a" * 40, "cluster=one")
ARGO = Settings()
HEALING = Settings(self_heal=True)


def operation(phase: str = "Running", goal: Goal = GOAL, **changed: Any) -> OperationState:
    first = begin(goal, None, ARGO, NOON, resources=("screw",))
    ended = None if phase == "Running" else NOON
    return first.model_copy(update={"phase": phase, "finished_at": ended, **changed})


def due(last: OperationState | None, settings: Settings = ARGO, at: datetime = NOON, **facts: bool) -> bool:
    return is_due(GOAL, last, settings, at, work=facts.get("work", True), valid=facts.get("valid", True))


def test_waits_grow_like_argo_cds() -> None:
    assert [ARGO.wait_before(n).total_seconds() for n in range(1, 9)] == [5, 10, 20, 40, 80, 160, 180, 180]
    assert ARGO.wait_before(10_000).total_seconds() == 180


def test_a_new_commit_is_attempted_if_there_is_work_or_an_error_to_say() -> None:
    for last in (
        None,
        operation("Succeeded", Goal("b" * 40, GOAL.parameters)),
        operation("Failed", Goal(GOAL.revision, "x")),
    ):
        assert due(last)
        assert due(last, work=False, valid=False)
        assert not due(last, work=False)


def test_a_commit_without_work_counts_as_attempted() -> None:
    settled = settle(GOAL, NOON, ("screw",))
    assert GOAL.is_of(settled)
    assert not due(settled)
    assert due(settled, HEALING)
    assert failure_of(settled, GOAL.revision) == ""


def test_a_commit_that_failed_is_not_attempted_again() -> None:
    assert not due(operation("Failed"))
    assert not due(operation("Failed"), HEALING)


@pytest.mark.parametrize("last", [operation("Running"), operation("Error")])
def test_what_was_interrupted_goes_on(last: OperationState) -> None:
    assert due(last, work=False)


def test_what_succeeded_is_put_back_only_with_self_heal() -> None:
    done = operation("Succeeded")
    assert not due(done)
    assert due(done, HEALING)
    assert not due(done, HEALING, work=False)
    assert not due(done, HEALING, valid=False)


def test_self_heals_that_follow_each_other_come_ever_later() -> None:
    once = operation("Succeeded", heals=1)
    assert not due(once, HEALING, NOON + timedelta(seconds=4))
    assert due(once, HEALING, NOON + timedelta(seconds=5))
    assert begin(GOAL, once, HEALING, NOON + timedelta(seconds=5), resources=()).heals == 2
    assert begin(GOAL, once, HEALING, NOON + timedelta(days=1), resources=()).heals == 1
    assert begin(Goal("b" * 40, ""), once, HEALING, NOON, resources=()).heals == 0


def test_retries_are_bounded() -> None:
    settings = Settings(retry_limit=2)
    now, current = NOON, operation()
    waits = []
    while (current := fail(current, WaitingError("later"), settings, now, retrying=True)).retry_at:
        assert not due(current, settings, now)
        waits.append((current.retry_at - now).total_seconds())
        now = current.retry_at
        assert due(current, settings, now)
        current = begin(GOAL, current, settings, now, resources=())
    assert waits == [5, 10]
    assert (current.phase, current.retry_count, current.started_at) == ("Failed", 2, NOON)
    assert current.message == "later (given up after 2 retries; `mergeline sync` tries again)"


def test_what_a_person_must_mend_is_not_retried() -> None:
    failed = fail(operation(), StalledError("wrong digest"), ARGO, NOON, retrying=True)
    assert (failed.phase, failed.message, failed.retry_at) == ("Failed", "wrong digest", None)
    assert fail(operation(), WaitingError("later"), ARGO, NOON, retrying=False).phase == "Failed"


def test_a_request_starts_anew() -> None:
    waiting = fail(operation(), WaitingError("later"), ARGO, NOON, retrying=True)
    asked = begin(GOAL, waiting, ARGO, NOON + timedelta(1), resources=(), request="r")
    assert (asked.retry_count, asked.retry_at, asked.automated, asked.request) == (0, None, False, "r")


def test_what_goes_on_with_an_attempt_answers_for_what_broke_since_that_began() -> None:
    last = operation("Succeeded", Goal("b" * 40, GOAL.parameters))
    first = begin(GOAL, last, ARGO, NOON, resources=(), unhealthy=("other",))
    assert first.unhealthy == ("other",)
    now_unhealthy = ("other", "screw")
    for request in (None, "r"):
        waiting = fail(first, WaitingError("later"), ARGO, NOON, retrying=True)
        ended = [first.model_copy(update={"phase": phase}) for phase in ("Running", "Error", "Failed")]
        for left in (waiting, *ended):
            again = begin(GOAL, left, ARGO, NOON, resources=(), unhealthy=now_unhealthy, request=request)
            assert again.unhealthy == ("other",)
        done = first.model_copy(update={"phase": "Succeeded"})
        healing = begin(GOAL, done, HEALING, NOON, resources=(), unhealthy=now_unhealthy, request=request)
        assert healing.unhealthy == now_unhealthy


def test_a_failure_is_that_of_its_commit() -> None:
    waiting = fail(operation(), WaitingError("later"), ARGO, NOON, retrying=True)
    assert failure_of(waiting, GOAL.revision) == "later"
    assert failure_of(begin(GOAL, waiting, ARGO, NOON, resources=()), GOAL.revision) == "later"
    assert failure_of(waiting, "b" * 40) == ""
    assert failure_of(operation(), GOAL.revision) == ""
    assert failure_of(operation("Succeeded", message="successfully synced"), GOAL.revision) == ""
