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
    kind: Literal["counter", "gauge", "histogram"]
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

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Say what a gauge's value is now; labels in the order of their declaration."""


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

# --- drift ------------------------------------------------------------------------------------------------------------


class DriftKind(StrEnum):
    """What a window of photographs may differ in."""

    IMAGE = "image"
    """What is measured of the photographs."""
    SCORE = "score"
    LABEL = "label"
    """How often each label is given."""
    CONFIDENCE = "confidence"
    """The model is less sure than it was."""
    EMBEDDING = "embedding"
    """What the network sees."""


ANY_KIND = "any"
"""The label value that stands for all of `DriftKind`."""


class WindowOutcome(StrEnum):
    """What became of a window."""

    DRIFTED = "drifted"
    STABLE = "stable"
    TOO_FEW = "too_few"
    """Its time passed before there were enough photographs to judge by."""


class SampleOutcome(StrEnum):
    """What became of a photograph that the monitor was to have."""

    KEPT = "kept"
    DROPPED = "dropped"
    """The monitor had no time for it, could not read it, or did not answer."""


class AccuracyBound(StrEnum):
    """Which figure of an interval it is."""

    ESTIMATE = "estimate"
    LOW = "low"
    HIGH = "high"


DRIFT_STATISTIC = Metric(
    PREFIX + "drift_statistic",
    "gauge",
    "How much the last window differs from what it should be like, by feature and statistic (ks, ks_less, mmd, "
    "share_difference, wasserstein).",
    ("model_version", "feature", "statistic"),
)
DRIFT_P_VALUE = Metric(
    PREFIX + "drift_p_value",
    "gauge",
    "How likely so large a statistic is without drift, corrected for all the comparisons of a window.",
    ("model_version", "feature", "statistic"),
)
DRIFT_DETECTED = Metric(
    PREFIX + "drift_detected",
    "gauge",
    "1 if the last window drifted, else 0, by kind (image, score, label, confidence, embedding or any).",
    ("model_version", "kind"),
)
DRIFT_WINDOWS = Metric(
    PREFIX + "drift_windows",
    "counter",
    "Windows of photographs, by outcome (drifted, stable or too_few).",
    ("model_version", "outcome"),
)
DRIFT_SAMPLES = Metric(
    PREFIX + "drift_samples",
    "counter",
    "Photographs that were handed to the monitor, by outcome (kept or dropped).",
    ("outcome",),
)
LIVE_ACCURACY = Metric(
    PREFIX + "live_accuracy",
    "gauge",
    "Share of the photographs with feedback whose label was right, and its 95 % interval (estimate, low or high).",
    ("model_version", "bound"),
)
DRIFT = (DRIFT_STATISTIC, DRIFT_P_VALUE, DRIFT_DETECTED, DRIFT_WINDOWS, DRIFT_SAMPLES, LIVE_ACCURACY)
"""What the monitor measures; the photographs that it was to have are counted by the replicas that hand them over.

Ray Serve itself adds the label `application` to all of them.
"""
