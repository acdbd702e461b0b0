"""Every metric that Mergeline exports, declared once; whoever measures makes the instrument from its declaration."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

PREFIX = "mergeline_"


@dataclass(frozen=True)
class Metric:
    """A metric's declaration."""

    name: str
    """With its unit, without Ray's prefix `ray_`, and for counters without Prometheus's suffix `_total`."""
    kind: Literal["counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds, histograms only."""


class Meters(Protocol):
    """Where measurements go."""

    def count(self, metric: Metric, *labels: str) -> None:
        """Add one to a counter; labels in the order of their declaration."""

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Add a value to a histogram; labels in the order of their declaration."""


class ShadowOutcome(StrEnum):
    """What became of a photograph that a shadow was to judge."""

    AGREED = "agreed"
    """It gave the label that was answered."""
    DIFFERED = "differed"
    FAILED = "failed"
    """It could not judge what the model that answered could."""
    DROPPED = "dropped"
    """There was no time for it."""


JUDGEMENTS = Metric(
    PREFIX + "judgements",
    "counter",
    "Photographs that were judged and answered, by the model's version and the label it gave.",
    ("version", "label"),
)
REFUSALS = Metric(
    PREFIX + "refusals",
    "counter",
    "Photographs and requests that were refused, by HTTP status (400, 404, 405, 413, 415, 500 or 503).",
    ("status",),
)
JUDGING_SECONDS = Metric(
    PREFIX + "judging_seconds",
    "histogram",
    "Time to decode and judge the photographs of one request, the wait for a thread included, by the model's version.",
    ("version",),
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
)
MODEL_LOADS = Metric(
    PREFIX + "model_loads",
    "counter",
    "Bundles that a replica tried to load, by outcome (loaded or failed).",
    ("outcome",),
)
FAILURES = Metric(
    PREFIX + "failures",
    "counter",
    "Requests that a model failed to judge by an error of ours, by its version; refusals of status 500 hold them too.",
    ("version",),
)
SHADOW_JUDGEMENTS = Metric(
    PREFIX + "shadow_judgements",
    "counter",
    "Photographs that a shadow judged after they were answered, by its version and the label it gave.",
    ("version", "label"),
)
SHADOW_PHOTOGRAPHS = Metric(
    PREFIX + "shadow_photographs",
    "counter",
    "Photographs that a shadow was to judge, by its version and what became of them (agreed, differed, failed or "
    "dropped).",
    ("version", "outcome"),
)
SERVING = (JUDGEMENTS, REFUSALS, JUDGING_SECONDS, MODEL_LOADS, FAILURES, SHADOW_JUDGEMENTS, SHADOW_PHOTOGRAPHS)
"""What the replicas of the service measure."""
