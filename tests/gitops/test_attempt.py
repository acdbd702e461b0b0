"""When a commit is attempted, retried and put back."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gitops.attempt import Found, Goal, ReconcileSettings, begin, fail, failure_of, is_due, settle, succeed
from gitops.errors import StalledError, WaitingError
from gitops.status import OperationState

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
GOAL = Goal("a" * 40, "cluster=one")
ARGO = ReconcileSettings()
HEALING = ReconcileSettings(self_heal=True)


def operation(phase: str = "Running", goal: Goal = GOAL, **changed: Any) -> OperationState:
    first = begin(goal, None, ARGO, NOON, Found(("screw",)))
    ended = None if phase == "Running" else NOON
    return first.model_copy(update={"phase": phase, "finished_at": ended, **changed})


def due(last: OperationState | None, settings: ReconcileSettings = ARGO, at: datetime = NOON, **facts: bool) -> bool:
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
    settled = settle(GOAL, None, NOON, ("screw",))
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
    assert begin(GOAL, once, HEALING, NOON + timedelta(seconds=5), Found()).heals == 2
    assert begin(GOAL, once, HEALING, NOON + timedelta(days=1), Found()).heals == 1
    assert begin(Goal("b" * 40, ""), once, HEALING, NOON, Found()).heals == 0


def test_retries_are_bounded() -> None:
    settings = ReconcileSettings(retry_limit=2)
    now, current = NOON, operation()
    waits = []
    while (current := fail(current, WaitingError("later"), settings, now, retrying=True)).retry_at:
        assert not due(current, settings, now)
        waits.append((current.retry_at - now).total_seconds())
        now = current.retry_at
        assert due(current, settings, now)
        current = begin(GOAL, current, settings, now, Found())
    assert waits == [5, 10]
    assert (current.phase, current.retry_count, current.started_at) == ("Failed", 2, NOON)
    assert current.message == "later (given up after 2 retries; `mergeline sync` tries again)"


def test_what_a_person_must_mend_is_not_retried() -> None:
    failed = fail(operation(), StalledError("wrong digest"), ARGO, NOON, retrying=True)
    assert (failed.phase, failed.message, failed.retry_at) == ("Failed", "wrong digest", None)
    assert fail(operation(), WaitingError("later"), ARGO, NOON, retrying=False).phase == "Failed"


def test_a_request_starts_anew() -> None:
    waiting = fail(operation(), WaitingError("later"), ARGO, NOON, retrying=True)
    asked = begin(GOAL, waiting, ARGO, NOON + timedelta(1), Found(), "r")
    assert (asked.retry_count, asked.retry_at, asked.automated, asked.request) == (0, None, False, "r")


ALL = ("bolt", "nut", "screw")
OTHER = Goal("b" * 40, GOAL.parameters)


def found(changed: str = "", unhealthy: str = "") -> Found:
    return Found(ALL, frozenset(changed.split()), frozenset(unhealthy.split()))


def test_an_operation_leaves_out_what_was_unhealthy_before() -> None:
    first = begin(GOAL, operation("Succeeded", OTHER), ARGO, NOON, found("bolt", "nut"))
    assert (first.unjudged, first.unhealthy) == (("bolt",), ("nut",))
    done = succeed(first, "done", NOON)
    assert (done.phase, done.unjudged) == ("Succeeded", ())
    healing = begin(GOAL, done, HEALING, NOON, found("bolt", "nut screw"))
    assert healing.unhealthy == ("nut", "screw")
    assert begin(GOAL, done, ARGO, NOON, found("", "nut"), "r").unhealthy == (), "a person asks about these"
    assert begin(GOAL, done, ARGO, NOON, found("bolt", "nut"), "r").unhealthy == ("nut",)


def test_what_goes_on_with_an_attempt_answers_for_what_broke_since_that_began() -> None:
    first = begin(GOAL, operation("Succeeded", OTHER), ARGO, NOON, found("bolt", "nut"))
    waiting = fail(first, WaitingError("later"), ARGO, NOON, retrying=True)
    assert begin(GOAL, waiting, ARGO, NOON, found("", "bolt nut screw")).unhealthy == ("nut",)
    for phase in ("Running", "Error", "Failed"):
        left = first.model_copy(update={"phase": phase})
        for request in (None, "r"):
            assert begin(GOAL, left, ARGO, NOON, found("", "bolt nut screw"), request).unhealthy == ("nut",)
            assert begin(GOAL, left, ARGO, NOON, found("", "bolt"), request).unhealthy == (), "it had recovered"


@pytest.mark.parametrize("how", ["retried", "killed", "superseded", "not applied"])
def test_what_follows_an_unfinished_operation_answers_for_its_changes_too(how: str) -> None:
    first = begin(GOAL, operation("Succeeded", OTHER), ARGO, NOON, found("bolt"))
    left = {
        "retried": fail(first, WaitingError("later"), ARGO, NOON, retrying=True),
        "killed": first.model_copy(update={"phase": "Error"}),
        "superseded": fail(first, StalledError("superseded"), ARGO, NOON, retrying=True, judged=False),
        "not applied": fail(first, StalledError("wrong digest"), ARGO, NOON, retrying=True, judged=False),
    }[how]
    after = begin(OTHER, left, ARGO, NOON, found("screw", "bolt nut"))
    assert (after.unjudged, after.unhealthy) == (("bolt", "screw"), ("nut",))
    settled = settle(OTHER, left, NOON, ALL)
    assert begin(GOAL, settled, ARGO, NOON, found("screw", "bolt nut")).unhealthy == ("nut",)


def test_what_was_given_up_is_left_out_by_the_next_commit() -> None:
    first = begin(GOAL, operation("Succeeded", OTHER), ARGO, NOON, found("bolt"))
    given_up = fail(first, WaitingError("never healthy"), ARGO, NOON, retrying=False)
    assert given_up.unjudged == ()
    after = begin(OTHER, given_up, ARGO, NOON, found("screw", "bolt"))
    assert (after.unjudged, after.unhealthy) == (("screw",), ("bolt",))


def test_a_failure_is_that_of_its_commit() -> None:
    waiting = fail(operation(), WaitingError("later"), ARGO, NOON, retrying=True)
    assert failure_of(waiting, GOAL.revision) == "later"
    assert failure_of(begin(GOAL, waiting, ARGO, NOON, Found()), GOAL.revision) == "later"
    assert failure_of(waiting, "b" * 40) == ""
    assert failure_of(operation(), GOAL.revision) == ""
    assert failure_of(operation("Succeeded", message="successfully synced"), GOAL.revision) == ""
