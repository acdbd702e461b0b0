"""What a replica counts of the requests that it answers, and whom it offers their photographs."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from gitops.wire import COUNT_HEADER
from monitoring import metrics
from monitoring.metrics import Meters, Outcome
from serve.predictor import Judgement
from serve.preprocess import ImageError
from serve.protocol import RequestError
from serve.recent import Recent, RecentComparisons
from serve.sampling import Sampler
from serve.shadow import ShadowJudge
from serve.slot import Chosen, ModelSlot
from serve.trace import Trace


class Counting:
    """Counts requests and judgements; lives on one event loop.

    Args:
        slot: its model's version stands for requests that end before one is chosen.
        meters: where it is counted.
        shadow: judges afterwards what a shadow shall see.
        sampler: hands some of the photographs to the monitor; None: there is none.
    """

    def __init__(self, slot: ModelSlot, meters: Meters, shadow: ShadowJudge, sampler: Sampler | None) -> None:
        self._slot = slot
        self._meters = meters
        self._shadow = shadow
        self._sampler = sampler
        self.recent = Recent()
        """What became of the latest requests."""
        self.compared: RecentComparisons = shadow.recent
        """What a shadow made of the latest photographs."""

    def measured(self, trace: Trace) -> AbstractContextManager[None]:
        """Measure a request to judge that does not come over HTTP, where the answer's status says how it ended."""
        return outcome_told(partial(self.ended, trace))

    def ended(self, trace: Trace, outcome: Outcome) -> None:
        """Measure a request to judge whose answer begins, or for whose answer nobody waits any more."""
        loaded, seconds = self._slot.loaded, trace.elapsed()
        version = trace.version or (loaded.model.version if loaded else "none")
        self.recent.add(outcome, seconds, version)
        self._meters.count(metrics.REQUESTS, outcome, version)
        if outcome is Outcome.ANSWERED:
            self._meters.observe(metrics.REQUEST_SECONDS, seconds, version)
            for stage, spent in trace.seconds.items():
                self._meters.observe(metrics.REQUEST_STAGE_SECONDS, spent, stage, version)

    def judged(
        self, chosen: Chosen, images: Sequence[bytes | ImageError], outcomes: Sequence[Judgement | ImageError]
    ) -> None:
        """Count the judgements of images, let the shadow compare its own, and offer them to the monitor.

        Of a request whose photographs do not count, only their number is measured, which is the network's load.
        """
        version = chosen.model.model.version
        judgements = [outcome for outcome in outcomes if isinstance(outcome, Judgement)]
        if judgements:
            self._meters.observe(metrics.REQUEST_PHOTOGRAPHS, len(judgements))
        if not chosen.counts:
            return
        for judgement in judgements:
            self._meters.count(metrics.JUDGEMENTS, version, judgement.label)
            self._meters.observe(metrics.SCORES, judgement.score, version)
        if not (chosen.shadow or self._sampler):
            return
        answered = [
            (image, outcome)
            for image, outcome in zip(images, outcomes, strict=True)
            if isinstance(image, bytes) and isinstance(outcome, Judgement)
        ]
        if chosen.shadow:
            self._shadow.compare(chosen.shadow, answered)
        if self._sampler:
            self._sampler.offer(chosen.model.model, [image for image, _ in answered])


def counts(given: str | None) -> bool:
    """Whether a request's photographs count, by what its `COUNT_HEADER` says; None: it has none, and they do.

    Raises:
        RequestError: 400, it says neither `true` nor `false`.
    """
    if given not in (None, "true", "false"):
        raise RequestError(400, f"{COUNT_HEADER} is true or false, not {given[:20]!r}")
    return given != "false"


@contextmanager
def outcome_told(ended: Callable[[Outcome], None]) -> Iterator[None]:
    """Tell how the block, which answers a request or a part of it, ended; whatever it raises is raised."""
    outcome = Outcome.FAILED
    try:
        yield
        outcome = Outcome.ANSWERED
    except RequestError as error:
        outcome = Outcome.of(error.status)
        raise
    except asyncio.CancelledError:
        outcome = Outcome.GONE
        raise
    finally:
        ended(outcome)
