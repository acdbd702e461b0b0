"""A replica's own figures of the last minutes."""

from monitoring.metrics import Outcome, ShadowOutcome
from serve.recent import WINDOW_SECONDS, Recent, RecentComparisons


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_without_requests_there_is_nothing_to_say_of_them() -> None:
    figures, versions = Recent(Clock()).figures()
    assert versions == {}
    assert (figures.requests_per_second, figures.error_share, figures.p50_seconds, figures.p99_seconds) == (
        0,
        None,
        None,
        None,
    )


def test_figures_are_of_the_window() -> None:
    clock = Clock()
    recent = Recent(clock)
    recent.add(Outcome.FAILED, 9.0, "1")  # too long ago
    clock.now += WINDOW_SECONDS + 1
    for milliseconds in range(1, 101):
        recent.add(Outcome.ANSWERED, milliseconds / 1000, "1")
    recent.add(Outcome.UNAVAILABLE, 5.0, "1")
    recent.add(Outcome.GONE, 5.0, "1")
    figures, _ = recent.figures()
    assert figures.seconds == WINDOW_SECONDS
    assert figures.requests_per_second == 101 / WINDOW_SECONDS
    assert figures.error_share == 1 / 101
    assert (figures.p50_seconds, figures.p99_seconds) == (0.051, 0.1)


def test_a_young_replica_counts_from_its_beginning() -> None:
    clock = Clock()
    recent = Recent(clock)
    clock.now += 10
    recent.add(Outcome.ANSWERED, 0.1, "1")
    assert recent.figures()[0].requests_per_second == 0.1


def test_each_version_has_figures_of_its_own() -> None:
    clock = Clock()
    recent = Recent(clock)
    recent.add(Outcome.ANSWERED, 0.1, "1")  # too long ago to be told of
    clock.now += WINDOW_SECONDS + 1
    for seconds in (0.2, 0.2, 0.2):
        recent.add(Outcome.ANSWERED, seconds, "2")
    recent.add(Outcome.FAILED, 0.7, "3")
    recent.add(Outcome.ANSWERED, 0.4, "3")
    figures, versions = recent.figures()
    assert figures.error_share == 0.2
    assert {version: (each.p50_seconds, each.error_share) for version, each in versions.items()} == {
        "2": (0.2, 0.0),
        "3": (0.4, 0.5),
    }
    assert sum(each.requests_per_second for each in versions.values()) == figures.requests_per_second


def test_what_a_shadow_made_of_photographs_is_of_the_window() -> None:
    clock = Clock()
    compared = RecentComparisons(clock)
    compared.add("2", ShadowOutcome.FAILED)  # too long ago
    clock.now += WINDOW_SECONDS + 1
    for outcome in (ShadowOutcome.AGREED, ShadowOutcome.AGREED, ShadowOutcome.DIFFERED, ShadowOutcome.DROPPED):
        compared.add("3", outcome)
    (found,) = compared.figures().items()
    assert found[0] == "3"
    assert (found[1].agreed, found[1].differed, found[1].failed, found[1].dropped) == (2, 1, 0, 1)
