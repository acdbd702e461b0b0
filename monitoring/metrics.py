"""Every metric that Mergeline exports, declared once; whoever measures makes the instrument from its declaration.

docs/metrics.md lists them: `python -m monitoring.metrics > docs/metrics.md` writes it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

PREFIX = "mergeline_"
OTHER = "other"
"""Stands for every value of a label that is not among the allowed ones, or came when there were enough."""
MOST_VALUES = 100
"""Distinct values of a label that a process exports, where the declaration lists none."""


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
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The values that a label may have; of a label that is not here, the first `MOST_VALUES` count."""
    exporter: Literal["ray", "reconciler"] = "ray"
    """Who exports it: Ray for its processes, or the reconciler for itself and for what the state folder holds."""

    @property
    def exported(self) -> str:
        """Its name in Prometheus; a histogram's without `_bucket`, `_sum` and `_count`."""
        prefix, suffix = "ray_" if self.exporter == "ray" else "", "_total" if self.kind == "counter" else ""
        return f"{prefix}{self.name}{suffix}"


class Meters(Protocol):
    """Where measurements go; labels come in the order of their declaration."""

    def count(self, metric: Metric, *labels: str) -> None:
        """Add one to a counter."""

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Add a value to a histogram."""

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Give a gauge a value."""


class LastingMeters(Meters, Protocol):
    """Meters whose gauges stay until they are replaced or retired."""

    def retire(self, label: str, value: str) -> None:
        """Show no gauge any more that has this value of a label."""


class Bounded:
    """Names the values of labels, and keeps the series of a process few: what is one too many becomes `other`."""

    def __init__(self) -> None:
        self._seen: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self._named: dict[tuple[str, tuple[str, ...]], dict[str, str]] = {}

    def named(self, metric: Metric, labels: tuple[str, ...]) -> dict[str, str]:
        """The labels by their names, in the order of the declaration; not to be changed."""
        key = (metric.name, labels)
        found = self._named.get(key)
        if found is None:
            pairs = zip(metric.labels, labels, strict=True)
            found = {label: self._bounded(metric, label, value) for label, value in pairs}
            if OTHER not in found.values():  # else whoever sends ever new values would fill the memory
                self._named[key] = found
        return found

    def _bounded(self, metric: Metric, label: str, value: str) -> str:
        if label in metric.values:
            return value if value in metric.values[label] else OTHER
        seen = self._seen[metric.name, label]
        if value not in seen and len(seen) >= MOST_VALUES:
            return OTHER
        seen.add(value)
        return value


# --- serving ----------------------------------------------------------------------------------------------------------


class Outcome(StrEnum):
    """How a request to judge ended."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """It was wrong: status 4xx."""
    UNAVAILABLE = "unavailable"
    """No model could judge it: status 503."""
    FAILED = "failed"
    """An error of ours: any other status from 500 on."""
    GONE = "gone"
    """Its client went away, or Ray Serve ended it, before there was an answer."""

    @classmethod
    def of(cls, status: int) -> "Outcome":
        """The outcome of an HTTP status."""
        if status < 400:
            return cls.ANSWERED
        if status < 500:
            return cls.REFUSED
        return cls.UNAVAILABLE if status == 503 else cls.FAILED


class RequestStage(StrEnum):
    """Where a request's time goes, in their order."""

    READ = "read"
    """Its body arrives and is parsed."""
    QUEUE = "queue"
    """It waits for a thread."""
    DECODE = "decode"
    PREPROCESS = "preprocess"
    """Parts are found, straightened and resized."""
    INFER = "infer"
    """The network runs; heat-maps are drawn."""


class ShadowOutcome(StrEnum):
    """What became of a photograph that a shadow was to judge."""

    AGREED = "agreed"
    """It gave the label that was answered."""
    DIFFERED = "differed"
    FAILED = "failed"
    """It could not judge what the model that answered could."""
    DROPPED = "dropped"
    """There was no time for it."""


class Agreement(StrEnum):
    """What feedback says of a judgement."""

    CONFIRMED = "confirmed"
    """The label is the one that was shown."""
    CORRECTED = "corrected"
    UNKNOWN = "unknown"
    """It is not told which label was shown."""


REQUESTS = Metric(
    PREFIX + "requests",
    "counter",
    "Requests to judge, over HTTP and gRPC, by how they ended and the version that was to judge.",
    ("outcome", "model_version"),
    values={"outcome": tuple(Outcome)},
)
REQUEST_SECONDS = Metric(
    PREFIX + "request_seconds",
    "histogram",
    "Time from a request's first byte in the replica to the beginning of its answer, where it was answered.",
    ("model_version",),
    buckets=(0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
REQUEST_STAGE_SECONDS = Metric(
    PREFIX + "request_stage_seconds",
    "histogram",
    "Time of one request in each stage; of several photographs, and of requests that are judged together, the sum.",
    ("stage", "model_version"),
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
    values={"stage": tuple(RequestStage)},
)
REQUEST_PHOTOGRAPHS = Metric(
    PREFIX + "request_photographs",
    "histogram",
    "Photographs of one request that were judged.",
    # Ray exports a histogram's sum as if each value were in the middle of its bucket: of one and of two that is so.
    buckets=(0.5, 1.5, 2.5, 4.5, 8.5, 16.5, 32.5),
)
JUDGEMENTS = Metric(
    PREFIX + "judgements",
    "counter",
    "Photographs that were judged and answered, by the model's version and the label it gave; without those of "
    "requests with X-Count: false.",
    ("model_version", "label"),
)
SCORES = Metric(
    PREFIX + "scores",
    "histogram",
    "Scores of the same photographs: the probability that the part is not good.",
    ("model_version",),
    buckets=(0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0),
)
REFUSALS = Metric(
    PREFIX + "refusals",
    "counter",
    "Photographs and requests of any kind that were refused, by HTTP status.",
    ("status",),
    values={"status": ("400", "403", "404", "405", "413", "415", "500", "503", "507")},
)
MODEL_LOADS = Metric(
    PREFIX + "model_loads",
    "counter",
    "Bundles that a replica tried to load.",
    ("outcome",),
    values={"outcome": ("loaded", "failed")},
)
FEEDBACK = Metric(
    PREFIX + "feedback",
    "counter",
    "What users said of judgements and was kept, by the version that judged (`unknown`: none loaded here so far).",
    ("model_version", "agreement"),
    values={"agreement": tuple(Agreement)},
)
SHADOW_JUDGEMENTS = Metric(
    PREFIX + "shadow_judgements",
    "counter",
    "Photographs that a shadow judged after they were answered, by its version and the label it gave.",
    ("model_version", "label"),
)
SHADOW_PHOTOGRAPHS = Metric(
    PREFIX + "shadow_photographs",
    "counter",
    "Photographs that a shadow was to judge, by its version and what became of them.",
    ("model_version", "outcome"),
    values={"outcome": tuple(ShadowOutcome)},
)
SERVING = (
    REQUESTS,
    REQUEST_SECONDS,
    REQUEST_STAGE_SECONDS,
    REQUEST_PHOTOGRAPHS,
    JUDGEMENTS,
    SCORES,
    REFUSALS,
    MODEL_LOADS,
    FEEDBACK,
    SHADOW_JUDGEMENTS,
    SHADOW_PHOTOGRAPHS,
)
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
    "1 if the last window drifted, else 0, by what it differs in.",
    ("model_version", "kind"),
    values={"kind": (*DriftKind, ANY_KIND)},
)
DRIFT_SINCE = Metric(
    PREFIX + "drift_since_timestamp_seconds",
    "gauge",
    "When the first of the windows in a row that drifted began; 0 if the last one did not.",
    ("model_version",),
)
DRIFT_WINDOWS = Metric(
    PREFIX + "drift_windows",
    "counter",
    "Windows of photographs, by what became of them.",
    ("model_version", "outcome"),
    values={"outcome": tuple(WindowOutcome)},
)
DRIFT_SAMPLES = Metric(
    PREFIX + "drift_samples",
    "counter",
    "Photographs that were handed to the monitor, by what became of them.",
    ("outcome",),
    values={"outcome": tuple(SampleOutcome)},
)
LIVE_ACCURACY = Metric(
    PREFIX + "live_accuracy",
    "gauge",
    "Share of the photographs that were chosen by chance for feedback whose label was right, and its 95 % interval.",
    ("model_version", "bound"),
    values={"bound": tuple(AccuracyBound)},
)
DRIFT = (
    *(DRIFT_STATISTIC, DRIFT_P_VALUE, DRIFT_DETECTED, DRIFT_SINCE, DRIFT_WINDOWS),
    *(DRIFT_SAMPLES, LIVE_ACCURACY),
)
"""What the monitor measures; the photographs that it was to have are counted by the replicas that hand them over.

Ray Serve itself adds the label `application` to all of them.
"""

# --- the reconciler ---------------------------------------------------------------------------------------------------


class AttemptOutcome(StrEnum):
    """How an attempt to make a commit true ended."""

    SUCCEEDED = "succeeded"
    RETRYING = "retrying"
    """It failed, and there will be another."""
    FAILED = "failed"
    INTERRUPTED = "interrupted"


SYNC_STATUS = Metric(
    PREFIX + "sync_status",
    "gauge",
    "1 for the environment's sync status, 0 for the others.",
    ("environment", "status"),
    values={"status": ("Synced", "OutOfSync", "Unknown")},
    exporter="reconciler",
)
HEALTH_STATUS = Metric(
    PREFIX + "health_status",
    "gauge",
    "1 for the environment's health, 0 for the others.",
    ("environment", "status"),
    values={"status": ("Healthy", "Progressing", "Missing", "Degraded", "Unknown")},
    exporter="reconciler",
)
RECONCILED = Metric(
    PREFIX + "reconciled_timestamp_seconds",
    "gauge",
    "When the reconciler looked last, in seconds since 1970.",
    ("environment",),
    exporter="reconciler",
)
SYNC_ATTEMPTS = Metric(
    PREFIX + "sync_attempts",
    "counter",
    "Attempts to make a commit true, by how they ended.",
    ("environment", "outcome"),
    values={"outcome": tuple(AttemptOutcome)},
    exporter="reconciler",
)
SYNC_SECONDS = Metric(
    PREFIX + "sync_seconds",
    "histogram",
    "Time of one attempt, until all was healthy or it was known not to become so.",
    ("environment",),
    buckets=(1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0),
    exporter="reconciler",
)
SYNC_LAG_SECONDS = Metric(
    PREFIX + "sync_lag_seconds",
    "gauge",
    "Time from the date of the commit that is deployed to its being served for the first time.",
    ("environment",),
    exporter="reconciler",
)
DEPLOYMENTS = Metric(
    PREFIX + "deployments",
    "counter",
    "How often a commit was made true, since the state folder was made.",
    ("environment",),
    exporter="reconciler",
)
SERVED = Metric(
    PREFIX + "served",
    "gauge",
    "1 for each version that replicas answered with, and the commit that the environment is at (12 digits).",
    ("environment", "application", "model", "model_version", "bundle", "revision"),
    exporter="reconciler",
)
EVALUATION = Metric(
    PREFIX + "evaluation",
    "gauge",
    "The figures of the served version's evaluation report, where the state folder has it.",
    ("environment", "application", "model", "model_version", "metric"),
    exporter="reconciler",
)
SERVED_DATASET_IMAGES = Metric(
    PREFIX + "served_dataset_images",
    "gauge",
    "Images of the dataset that the served version was trained on, where the state folder has it.",
    ("environment", "application", "model", "model_version", "split"),
    values={"split": ("train", "validation", "test")},
    exporter="reconciler",
)
RECONCILER = (
    SYNC_STATUS,
    HEALTH_STATUS,
    RECONCILED,
    SYNC_ATTEMPTS,
    SYNC_SECONDS,
    SYNC_LAG_SECONDS,
    DEPLOYMENTS,
    SERVED,
    EVALUATION,
    SERVED_DATASET_IMAGES,
)
"""What the reconciler measures, and what it knows of the environment."""

# --- the line ---------------------------------------------------------------------------------------------------------


class StageOutcome(StrEnum):
    """How a run of a stage ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"


STAGES = ("dataset", "etl", "quality", "train", "cross_validate", "export", "evaluate", "register", "drift")
"""What tells in the state folder how it went."""
STAGE_RUNS = Metric(
    PREFIX + "stage_runs",
    "counter",
    "Runs of a stage that came to an end; one that finds all done already succeeds too.",
    ("project", "stage", "outcome"),
    values={"stage": STAGES, "outcome": tuple(StageOutcome)},
    exporter="reconciler",
)
STAGE_SECONDS = Metric(
    PREFIX + "stage_seconds",
    "gauge",
    "How long the run took that ended last.",
    ("project", "stage"),
    values={"stage": STAGES},
    exporter="reconciler",
)
STAGE_RUNNING = Metric(
    PREFIX + "stage_running",
    "gauge",
    "1 while a stage runs, or was killed and not begun again.",
    ("project", "stage"),
    values={"stage": STAGES},
    exporter="reconciler",
)
STAGE_PROGRESS = Metric(
    PREFIX + "stage_progress_timestamp_seconds",
    "gauge",
    "When the stage began, ended or told of progress last, in seconds since 1970.",
    ("project", "stage"),
    values={"stage": STAGES},
    exporter="reconciler",
)
DATASET_IMAGES = Metric(
    PREFIX + "dataset_images",
    "gauge",
    "Images of the project's newest dataset, by class.",
    ("project", "split", "label"),
    values={"split": ("train", "validation", "test")},
    exporter="reconciler",
)
DATASET_SET_ASIDE = Metric(
    PREFIX + "dataset_images_set_aside",
    "gauge",
    "Photographs that the project's newest dataset could not use.",
    ("project",),
    exporter="reconciler",
)
LINE = (STAGE_RUNS, STAGE_SECONDS, STAGE_RUNNING, STAGE_PROGRESS, DATASET_IMAGES, DATASET_SET_ASIDE)
"""What the state folder tells of the line's jobs and datasets."""


# --- the table --------------------------------------------------------------------------------------------------------

GROUPS: Mapping[str, tuple[Metric, ...]] = {
    "The service": SERVING,
    "Drift": DRIFT,
    "The reconciler": RECONCILER,
    "The line": LINE,
}


def table(declared: tuple[Metric, ...]) -> Iterator[str]:
    """The lines of a Markdown table that says what is exported."""
    yield "| metric | kind | labels | |"
    yield "|---|---|---|---|"
    for metric in declared:
        labels = "; ".join(_label(metric, label) for label in metric.labels)
        yield f"| `{metric.exported}` | {metric.kind} | {labels} | {metric.help} |"


def _label(metric: Metric, label: str) -> str:
    values = ", ".join(f"`{value}`" for value in metric.values.get(label, ()))
    return f"`{label}`: {values}" if values else f"`{label}`"


def page() -> str:
    """docs/metrics.md."""
    lines = ["# Metrics", "Declared in `monitoring/metrics.py`, which writes this page; what they are for, and how to"]
    lines += ["see them: [monitoring.md](monitoring.md)."]
    for title, declared in GROUPS.items():
        lines += ["", f"## {title}", *table(declared)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
