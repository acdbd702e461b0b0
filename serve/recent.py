"""A replica's own figures of the last minutes, for who has no Prometheus."""

import time
from collections import deque
from collections.abc import Callable

from pydantic import Field

from gitops.contracts.base import Contract
from monitoring.metrics import Outcome

WINDOW_SECONDS = 300.0
_MOST = 10_000  # requests that are kept: 33/s for all of the window, in half a megabyte


class Figures(Contract):
    """How requests to judge went lately."""

    seconds: float = Field(description="The time that they are about.")
    requests_per_second: float
    error_share: float | None = Field(description="Of requests that failed or found no model; None: there were none.")
    p50_seconds: float | None = Field(description="Half of the answers came within it; None: there were none.")
    p99_seconds: float | None


class Recent:
    """The requests of the last minutes; lives on one event loop.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = clock()
        self._ended: deque[tuple[float, bool, float]] = deque(maxlen=_MOST)

    def add(self, outcome: Outcome, seconds: float) -> None:
        """Remember a request that has just ended."""
        if outcome is not Outcome.GONE:
            self._ended.append((self._clock(), outcome in (Outcome.FAILED, Outcome.UNAVAILABLE), seconds))

    def figures(self) -> Figures:
        """What is remembered, in figures."""
        now = self._clock()
        # Where more came than is kept, the window is as long as what is kept.
        full = len(self._ended) == _MOST
        window = min(WINDOW_SECONDS, now - (self._ended[0][0] if full else self._begun)) or 1.0
        kept = [entry for entry in self._ended if entry[0] >= now - window]
        answered = sorted(seconds for _, failed, seconds in kept if not failed)
        return Figures(
            seconds=window,
            requests_per_second=len(kept) / window,
            error_share=sum(failed for _, failed, _ in kept) / len(kept) if kept else None,
            p50_seconds=_quantile(answered, 0.5),
            p99_seconds=_quantile(answered, 0.99),
        )


def _quantile(ordered: list[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
