"""The declared metrics as Ray Serve's instruments, which Ray exports for each replica."""

import copy
import threading
import time
from typing import cast

from ray.serve import metrics as ray_metrics

from monitoring.metrics import Bounded, Metric

REPEAT_SECONDS = 5.0
"""Ray drops a gauge that was not set again within two of its reports (`_gauge_metric_ttl_s` of Ray 2.60: 20 s)."""


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
        self._gauges: dict[str, _LastingGauge] = {}
        self._histograms: dict[str, ray_metrics.Histogram] = {}
        for metric in declared:
            labels = cast("tuple[str]", (*metric.labels, *further))  # Ray means a tuple of any length
            if metric.kind == "counter":
                self._counters[metric.name] = ray_metrics.Counter(metric.name, metric.help, labels)
            elif metric.kind == "gauge":
                self._gauges[metric.name] = _LastingGauge(ray_metrics.Gauge(metric.name, metric.help, labels))
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
        """Give a gauge a value, which stays; labels in the order of their declaration."""
        self._gauges[metric.name].set(value, self._named(metric, labels))

    def retire(self, label: str, value: str) -> None:
        """Show no gauge any more that has this value of a label; Ray drops it a little later."""
        for gauge in self._gauges.values():
            gauge.retire(label, value)

    def _named(self, metric: Metric, labels: tuple[str, ...]) -> dict[str, str]:
        return {**self._bounded.named(metric, labels), **self._further}


class _LastingGauge:
    """Sets a gauge again and again to what it was set to."""

    def __init__(self, gauge: ray_metrics.Gauge) -> None:
        self._gauge = gauge
        self._values: dict[tuple[tuple[str, str], ...], float] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def set(self, value: float, labels: dict[str, str]) -> None:
        with self._lock:
            self._values[tuple(labels.items())] = value
            self._gauge.set(value, labels)
            if self._thread is None:
                self._thread = threading.Thread(target=self._repeat, name="gauge", daemon=True)
                self._thread.start()

    def retire(self, label: str, value: str) -> None:
        with self._lock:
            self._values = {labels: number for labels, number in self._values.items() if (label, value) not in labels}

    def _repeat(self) -> None:
        while True:
            time.sleep(REPEAT_SECONDS)
            with self._lock:
                for labels, value in self._values.items():
                    self._gauge.set(value, dict(labels))
