"""A replica's own figures of the last minutes."""

from monitoring.metrics import Outcome
from serve.recent import WINDOW_SECONDS, Recent


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_without_requests_there_is_nothing_to_say_of_them() -> None:
    figures = Recent(Clock()).figures()
    assert (figures.requests_per_second, figures.error_share, figures.p50_seconds, figures.p99_seconds) == (
        0,
        None,
        None,
        None,
    )


def test_figures_are_of_the_window() -> None:
    clock = Clock()
    recent = Recent(clock)
    recent.add(Outcome.FAILED, 9.0)  # too long ago
    clock.now += WINDOW_SECONDS + 1
    for milliseconds in range(1, 101):
        recent.add(Outcome.ANSWERED, milliseconds / 1000)
    recent.add(Outcome.UNAVAILABLE, 5.0)
    recent.add(Outcome.GONE, 5.0)
    figures = recent.figures()
    assert figures.seconds == WINDOW_SECONDS
    assert figures.requests_per_second == 101 / WINDOW_SECONDS
    assert figures.error_share == 1 / 101
    assert (figures.p50_seconds, figures.p99_seconds) == (0.051, 0.1)


def test_a_young_replica_counts_from_its_beginning() -> None:
    clock = Clock()
    recent = Recent(clock)
    clock.now += 10
    recent.add(Outcome.ANSWERED, 0.1)
    assert recent.figures().requests_per_second == 0.1
