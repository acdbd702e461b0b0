"""Exports the metrics of a single process over HTTP, as the reconciler does it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from monitoring.metrics import Bounded, Metric

_Instrument = TypeVar("_Instrument", Counter, Gauge, Histogram)


class ProcessMeters:
    """The declared metrics as instruments of this process.

    Args:
        declared: the metrics that may be measured.
        registry: exports them.
    """

    def __init__(self, declared: Iterable[Metric], registry: CollectorRegistry) -> None:
        self._bounded = Bounded()
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        for metric in declared:
            if metric.kind == "counter":
                self._counters[metric.name] = Counter(metric.name, metric.help, metric.labels, registry=registry)
            elif metric.kind == "gauge":
                self._gauges[metric.name] = Gauge(metric.name, metric.help, metric.labels, registry=registry)
            else:
                self._histograms[metric.name] = Histogram(
                    metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets
                )

    def count(self, metric: Metric, *labels: str) -> None:
        """Add one to a counter; labels in the order of their declaration."""
        self._series(self._counters[metric.name], metric, labels).inc()

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Add a value to a histogram; labels in the order of their declaration."""
        self._series(self._histograms[metric.name], metric, labels).observe(value)

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Give a gauge a value; labels in the order of their declaration."""
        self._series(self._gauges[metric.name], metric, labels).set(value)

    def _series(self, instrument: _Instrument, metric: Metric, labels: tuple[str, ...]) -> _Instrument:
        # An instrument without labels is its only series.
        return instrument.labels(**self._bounded.named(metric, labels)) if labels else instrument


@dataclass(frozen=True)
class Sample:
    """A series' value."""

    metric: Metric
    """A gauge or a counter."""
    value: float
    labels: tuple[str, ...]


class Snapshot(Collector):
    """Exports what is found out anew each time that somebody asks.

    Args:
        look: finds the samples.
    """

    def __init__(self, look: Callable[[], Iterable[Sample]]) -> None:
        self._look = look

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Called by `prometheus_client` for each scrape."""
        bounded = Bounded()
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for sample in self._look():
            metric = sample.metric
            if metric.name not in families:
                families[metric.name] = _family(metric)
            families[metric.name].add_metric(list(bounded.named(metric, sample.labels).values()), sample.value)
        yield from families.values()

    def describe(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        """Nothing: `prometheus_client` would otherwise look while it registers."""
        return ()


def _family(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily:
    if metric.kind == "counter":
        return CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)


@contextmanager
def exported(registry: CollectorRegistry, host: str, port: int) -> Iterator[str]:
    """Answer `GET /metrics` while the block runs.

    Args:
        registry: what is exported.
        host: address to listen on.
        port: 0: any that is free.

    Yields:
        The address, as `127.0.0.1:9464`.

    Raises:
        OSError: the port cannot be had.
    """
    server, thread = start_http_server(port, host, registry)
    try:
        bound = server.server_port
        yield f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
