"""Sides that are measured in turns, so that a busy machine is as busy for each of them."""

import statistics
from collections.abc import Callable, Sequence


def ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    """How many times as fast: the median of the turns' own ratios, as both sides of a turn saw the same machine."""
    return round(statistics.median(one / other for one, other in zip(ours, others, strict=True)), 3)


def in_turns(sides: dict[str, Callable[[], float]], turns: int) -> dict[str, list[float]]:
    """Measure sides one after the other, so many times, each turn beginning with another one.

    Returns:
        What each measured, turn by turn.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for turn in range(turns):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(sides[name]())
    return found
