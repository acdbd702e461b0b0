"""The declared metrics as Ray Serve's instruments, which Ray exports for each replica."""

import copy
from typing import cast

from ray.serve import metrics as ray_metrics

from monitoring.metrics import Bounded, Metric


class RayMeters:
    """Measures inside of a replica; Ray Serve adds the labels `application`, `deployment` and `replica`.

    Args:
        declared: the metrics that may be measured.
        further: a label that all of them have besides their own, each with its value.
    """

    def __init__(self, declared: tuple[Metric, ...], **further: str) -> None:
        self._bounded = Bounded()
        self._further = further
        self._counters: dict[str, ray_metrics.Counter] = {}
        self._gauges: dict[str, ray_metrics.Gauge] = {}
        self._histograms: dict[str, ray_metrics.Histogram] = {}
        for metric in declared:
            labels = cast("tuple[str]", (*metric.labels, *further))  # Ray means a tuple of any length
            if metric.kind == "counter":
                self._counters[metric.name] = ray_metrics.Counter(metric.name, metric.help, labels)
            elif metric.kind == "gauge":
                self._gauges[metric.name] = ray_metrics.Gauge(metric.name, metric.help, labels)
            else:
                buckets = list(metric.buckets)
                self._histograms[metric.name] = ray_metrics.Histogram(metric.name, metric.help, buckets, labels)

    def with_labels(self, **further: str) -> "RayMeters":
        """The same instruments, with these values of the further labels."""
        other = copy.copy(self)
        other._further = further
        return other

    def count(self, metric: Metric, *labels: str) -> None:
        """Add one to a counter; labels in the order of their declaration."""
        self._counters[metric.name].inc(1, self._named(metric, labels))

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Add a value to a histogram; labels in the order of their declaration."""
        self._histograms[metric.name].observe(value, self._named(metric, labels))

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Give a gauge a value; labels in the order of their declaration."""
        self._gauges[metric.name].set(value, self._named(metric, labels))

    def _named(self, metric: Metric, labels: tuple[str, ...]) -> dict[str, str]:
        return {**self._bounded.named(metric, labels), **self._further}
