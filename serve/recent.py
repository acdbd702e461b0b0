"""A replica's own figures of the last minutes, for who has no Prometheus."""

import time
from collections import Counter, deque
from collections.abc import Callable

from pydantic import Field

from gitops.contracts.base import Contract
from monitoring.metrics import Outcome, ShadowOutcome

WINDOW_SECONDS = 300.0
_MOST = 10_000  # requests that are kept: 33/s for all of the window, in half a megabyte


class Figures(Contract):
    """How requests to judge went lately."""

    seconds: float = Field(description="The time that they are about.")
    requests_per_second: float
    error_share: float | None = Field(description="Of requests that failed or found no model; None: there were none.")
    p50_seconds: float | None = Field(description="Half of the answers came within it; None: there were none.")
    p99_seconds: float | None


class ShadowFigures(Contract):
    """What became lately of the photographs that a shadow was to judge."""

    agreed: float = Field(description="It gave the label that was answered. Prometheus estimates how many those were.")
    differed: float
    failed: float = Field(description="It could not judge what the model that answered could.")
    dropped: float = Field(description="There was no time for them.")


class Recent:
    """The requests of the last minutes; lives on one event loop.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = clock()
        self._ended: deque[tuple[float, bool, float, str]] = deque(maxlen=_MOST)

    def add(self, outcome: Outcome, seconds: float, version: str) -> None:
        """Remember a request that has just ended, and the version that was to judge."""
        if outcome is not Outcome.GONE:
            self._ended.append((self._clock(), outcome in (Outcome.FAILED, Outcome.UNAVAILABLE), seconds, version))

    def figures(self) -> tuple[Figures, dict[str, Figures]]:
        """What is remembered, in figures: of all requests, and by version."""
        now = self._clock()
        # Where more came than is kept, the window is as long as what is kept.
        full = len(self._ended) == _MOST
        window = min(WINDOW_SECONDS, now - (self._ended[0][0] if full else self._begun)) or 1.0
        kept = [(failed, seconds, version) for at, failed, seconds, version in self._ended if at >= now - window]
        by_version: dict[str, list[tuple[bool, float]]] = {}
        for failed, seconds, version in kept:
            by_version.setdefault(version, []).append((failed, seconds))
        of_versions = {version: _figures(window, requests) for version, requests in sorted(by_version.items())}
        return _figures(window, [(failed, seconds) for failed, seconds, _ in kept]), of_versions


class RecentComparisons:
    """What a shadow made of the photographs of the last minutes; lives on one event loop.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ended: deque[tuple[float, str, ShadowOutcome]] = deque(maxlen=_MOST)

    def add(self, version: str, outcome: ShadowOutcome) -> None:
        """Remember what has just become of a photograph."""
        self._ended.append((self._clock(), version, outcome))

    def figures(self) -> dict[str, ShadowFigures]:
        """What is remembered, by the shadow's version."""
        since = self._clock() - WINDOW_SECONDS
        found = Counter((version, outcome) for at, version, outcome in self._ended if at >= since)
        return {
            shadow: ShadowFigures(**{str(outcome): found[shadow, outcome] for outcome in ShadowOutcome})
            for shadow in sorted({version for version, _ in found})
        }


def _figures(window: float, requests: list[tuple[bool, float]]) -> Figures:
    answered = sorted(seconds for failed, seconds in requests if not failed)
    return Figures(
        seconds=window,
        requests_per_second=len(requests) / window,
        error_share=sum(failed for failed, _ in requests) / len(requests) if requests else None,
        p50_seconds=_quantile(answered, 0.5),
        p99_seconds=_quantile(answered, 0.99),
    )


def _quantile(ordered: list[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
