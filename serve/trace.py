"""What is measured of one request to judge: the time of each stage, and who judged."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from monitoring.metrics import RequestStage


class Trace:
    """A clock that is started by making it; a request's threads use it one after the other."""

    def __init__(self) -> None:
        self.version: str | None = None
        """The version that judges, once it is chosen."""
        self.seconds: dict[RequestStage, float] = dict.fromkeys(RequestStage, 0.0)
        self.begun = self._last = time.perf_counter()

    def lap(self, stage: RequestStage) -> None:
        """Say that the time since the last lap was spent in a stage."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now

    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self.begun


@dataclass(frozen=True)
class Together:
    """The clocks of requests that are judged together: each spends the time of all."""

    traces: Sequence[Trace]

    def lap(self, stage: RequestStage) -> None:
        """As `Trace.lap`, for each."""
        for trace in self.traces:
            trace.lap(stage)
