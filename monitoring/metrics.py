"""Every metric that Mergeline exports, declared once; whoever measures makes the instrument from its declaration."""

from dataclasses import dataclass
from typing import Literal

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


JUDGEMENTS = Metric(
    PREFIX + "judgements",
    "counter",
    "Photographs that were judged, by the model's version and the label it gave.",
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
    "Time to decode and judge the photographs of one request, the wait for a thread included.",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
)
MODEL_LOADS = Metric(
    PREFIX + "model_loads",
    "counter",
    "Bundles that a replica tried to load, by outcome (loaded or failed).",
    ("outcome",),
)
SERVING = (JUDGEMENTS, REFUSALS, JUDGING_SECONDS, MODEL_LOADS)
"""What the replicas of the service measure."""
