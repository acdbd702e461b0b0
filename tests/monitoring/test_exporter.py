"""Metrics of a single process, over HTTP."""

import httpx
import pytest
from prometheus_client import CollectorRegistry

from monitoring.exporter import ProcessMeters, Sample, Snapshot, exported
from monitoring.metrics import Metric

COUNTER = Metric("mergeline_tries", "counter", "Tries.", ("outcome",), values={"outcome": ("good",)})
GAUGE = Metric("mergeline_level", "gauge", "The level.", ("tank",))
HISTOGRAM = Metric("mergeline_seconds", "histogram", "Time.", buckets=(0.1, 1.0))


def test_what_is_measured_and_what_is_looked_up_is_exported() -> None:
    registry = CollectorRegistry()
    meters = ProcessMeters((COUNTER, GAUGE, HISTOGRAM), registry)
    meters.count(COUNTER, "good")
    meters.count(COUNTER, "unheard of")
    meters.set(GAUGE, 0.5, "north")
    meters.observe(HISTOGRAM, 0.5)
    looks: list[int] = []

    def look() -> list[Sample]:
        looks.append(1)
        level = Metric("mergeline_looked", "gauge", "Looks.", ("by",))
        return [Sample(level, len(looks), ("me",))]

    registry.register(Snapshot(look))
    assert looks == []
    with exported(registry, "127.0.0.1", 0) as address:
        httpx.get(f"http://{address}/metrics")
        text = httpx.get(f"http://{address}/metrics").text
    assert 'mergeline_tries_total{outcome="good"} 1.0' in text
    assert 'mergeline_tries_total{outcome="other"} 1.0' in text
    assert 'mergeline_level{tank="north"} 0.5' in text
    assert 'mergeline_seconds_bucket{le="1.0"} 1.0' in text
    assert 'mergeline_looked{by="me"} 2.0' in text
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{address}/metrics")
