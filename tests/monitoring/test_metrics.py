"""The declarations, and what is made of them."""

from itertools import pairwise
from pathlib import Path

import pytest

from monitoring.metrics import GROUPS, MOST_VALUES, OTHER, REQUEST_PHOTOGRAPHS, Bounded, Metric, Outcome, page

ROOT = Path(__file__).parents[2]
DECLARED = [metric for group in GROUPS.values() for metric in group]


def test_the_page_of_metrics_is_what_the_declarations_say() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    assert text == page(), "run `python -m monitoring.metrics > docs/metrics.md`"


@pytest.mark.parametrize("metric", DECLARED, ids=lambda metric: metric.name)
def test_a_declaration_is_whole(metric: Metric) -> None:
    assert metric.name.startswith("mergeline_")
    assert not metric.name.endswith("_total")
    assert metric.help.endswith(".")
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert metric.values.keys() <= set(metric.labels)


def test_the_mean_of_a_requests_photographs_is_right_where_there_are_one_or_two() -> None:
    # Ray exports the sum of a histogram as if each value were the middle of its bucket.
    edges = (0.0, *REQUEST_PHOTOGRAPHS.buckets)
    middles = {(low, high): (low + high) / 2 for low, high in pairwise(edges)}
    for photographs in (1, 2):
        assert [middle for (low, high), middle in middles.items() if low < photographs <= high] == [photographs]


def test_names_are_declared_once() -> None:
    names = [metric.name for metric in DECLARED]
    assert len(set(names)) == len(names)


def test_a_name_is_as_it_is_exported() -> None:
    counter = Metric("mergeline_x", "counter", "X.")
    assert counter.exported == "ray_mergeline_x_total"
    assert Metric("mergeline_x", "gauge", "X.", exporter="reconciler").exported == "mergeline_x"


def test_a_value_that_is_not_allowed_becomes_other() -> None:
    metric = Metric("m", "counter", "M.", ("outcome", "model_version"), values={"outcome": ("loaded",)})
    bounded = Bounded()
    assert bounded.named(metric, ("loaded", "1")) == {"outcome": "loaded", "model_version": "1"}
    assert bounded.named(metric, ("exploded", "1")) == {"outcome": OTHER, "model_version": "1"}
    with pytest.raises(ValueError, match="shorter"):
        bounded.named(metric, ("loaded",))


def test_of_an_open_label_only_the_first_values_count() -> None:
    metric = Metric("m", "counter", "M.", ("label",))
    bounded = Bounded()
    found = [bounded.named(metric, (str(number),))["label"] for number in range(MOST_VALUES + 50)]
    assert found[:MOST_VALUES] == [str(number) for number in range(MOST_VALUES)]
    assert set(found[MOST_VALUES:]) == {OTHER}
    assert bounded.named(metric, ("7",)) == {"label": "7"}


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "answered"), (404, "refused"), (413, "refused"), (500, "failed"), (503, "unavailable")],
)
def test_an_outcome_follows_from_the_status(status: int, outcome: str) -> None:
    assert Outcome.of(status) == outcome
