"""Measurements in a replica: gauges last, as Ray drops those that are not set again."""

import time
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from monitoring.metrics import DRIFT_DETECTED, DRIFT_WINDOWS
from serve import meters
from serve.meters import RayMeters

LABELS = ({"model_version": "1", "kind": "any"}, {"model_version": "2", "kind": "any"})


class Instrument:
    """In place of Ray's, which want a replica around them."""

    told: ClassVar[list[tuple[float, dict[str, str]]]] = []

    def __init__(self, *_: Any) -> None: ...

    def set(self, value: float, labels: dict[str, str]) -> None:
        self.told.append((value, labels))

    def inc(self, value: float, labels: dict[str, str]) -> None:
        self.told.append((value, labels))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[float, dict[str, str]]]]:
    monkeypatch.setattr(meters, "REPEAT_SECONDS", 0.01)
    monkeypatch.setattr("serve.meters.ray_metrics.Gauge", Instrument)
    monkeypatch.setattr("serve.meters.ray_metrics.Counter", Instrument)
    monkeypatch.setattr(Instrument, "told", [])
    yield Instrument.told
    monkeypatch.undo()


def test_a_gauge_is_set_again_until_it_is_retired(told: list[tuple[float, dict[str, str]]]) -> None:
    measured = RayMeters((DRIFT_DETECTED, DRIFT_WINDOWS))
    for number, labels in enumerate(LABELS):
        measured.set(DRIFT_DETECTED, number, *labels.values())
    measured.count(DRIFT_WINDOWS, "1", "stable")

    def times(value: float, labels: dict[str, str]) -> int:
        return told.count((value, labels))

    deadline = time.monotonic() + 60
    while times(0, LABELS[0]) < 3 or times(1, LABELS[1]) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert times(1, {"model_version": "1", "outcome": "stable"}) == 1, "a counter is counted once"
    measured.set(DRIFT_DETECTED, 5, *LABELS[1].values())
    measured.retire("model_version", "1")
    before, replaced = times(0, LABELS[0]), times(1, LABELS[1])
    while times(5, LABELS[1]) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert times(0, LABELS[0]) == before
    assert times(1, LABELS[1]) == replaced
