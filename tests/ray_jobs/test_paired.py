"""Paired statistics: against figures worked out by hand, against the evaluation's own metrics, and by simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ray_jobs import evaluate, paired
from ray_jobs.paired import METRICS, Opinion


def opinion_of(predicted: list[int], scores: list[float] | None = None) -> Opinion:
    return Opinion(np.array(predicted), np.array(scores if scores is not None else predicted, np.float64))


@st.composite
def judged(draw: st.DrawFn) -> tuple[NDArray[np.int64], Opinion, Opinion]:
    """Truth of at least one good and one other image of three classes, and two versions' opinions; scores have ties."""
    labels = [0, draw(st.integers(1, 2)), *draw(st.lists(st.integers(0, 2), max_size=20))]
    label = st.integers(0, 2)
    score = st.integers(0, 8).map(lambda eighths: eighths / 8)

    def opinion() -> Opinion:
        size = len(labels)
        predicted = draw(st.lists(label, min_size=size, max_size=size))
        return opinion_of(predicted, draw(st.lists(score, min_size=size, max_size=size)))

    return np.array(labels), opinion(), opinion()


# --- McNemar's test ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    [
        (0, 0, 1.0),
        (0, 1, 1.0),
        (3, 3, 1.0),
        (0, 5, 2 / 2**5),
        (1, 9, 2 * (1 + 10) / 2**10),
        (2, 8, 2 * (1 + 10 + 45) / 2**10),
        (0, 6, 2 / 2**6),
    ],
)
def test_mcnemar_is_the_binomial_test_of_what_only_one_judges_right(only_a: int, only_b: int, p_value: float) -> None:
    # Images that both judge alike are not counted.
    a = opinion_of([1] * 4 + [1] * only_a + [0] * only_b)
    b = opinion_of([1] * 4 + [0] * only_a + [1] * only_b)
    found = paired.mcnemar(np.ones(4 + only_a + only_b, np.int64), a, b)
    assert (found.only_a_right, found.only_b_right) == (only_a, only_b)
    assert found.p_value == pytest.approx(p_value)


def test_two_wrong_labels_that_differ_are_no_difference_in_being_right() -> None:
    found = paired.mcnemar(np.array([2, 0]), opinion_of([0, 0]), opinion_of([1, 0]))
    assert (found.only_a_right, found.only_b_right, found.p_value) == (0, 0, 1.0)


def test_a_small_p_value_is_written_as_a_bound() -> None:
    found = paired.mcnemar(np.ones(30, np.int64), opinion_of([0] * 30), opinion_of([1] * 30))
    assert found.p_text == "p < 0.001"
    assert found.model_copy(update={"p_value": 0.0215}).p_text == "p = 0.021"


# --- metrics of weighted images ---------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)  # the first call imports scikit-learn
@given(judged())
def test_unweighted_metrics_are_those_of_an_evaluation(case: tuple[NDArray[np.int64], Opinion, Opinion]) -> None:
    labels, opinion, _ = case
    found = dict(zip(METRICS, paired.metrics_of(np.ones((1, len(labels))), labels, opinion)[0], strict=True))
    expected = evaluate.label_metrics(labels, opinion.predicted) | evaluate.score_metrics(labels != 0, opinion.scores)
    assert found == pytest.approx({name: expected[name] for name in METRICS})


@given(judged(), st.data())
def test_a_weight_counts_as_so_many_copies(
    case: tuple[NDArray[np.int64], Opinion, Opinion], data: st.DataObject
) -> None:
    labels, opinion, _ = case
    weights = np.array(data.draw(st.lists(st.integers(1, 4), min_size=len(labels), max_size=len(labels))))
    copied = Opinion(np.repeat(opinion.predicted, weights), np.repeat(opinion.scores, weights))
    weighted = paired.metrics_of(weights[None].astype(np.float64), labels, opinion)
    alone = paired.metrics_of(np.ones((1, int(weights.sum()))), np.repeat(labels, weights), copied)
    assert weighted == pytest.approx(alone)


# --- the bootstrap ----------------------------------------------------------------------------------------------------


def test_a_resample_keeps_the_size_of_every_class() -> None:
    labels = np.array([0] * 7 + [1] * 4 + [2])
    weights = paired.resample(np.random.default_rng(0), labels, 50)
    assert weights.shape == (50, 12)
    for label, size in ((0, 7), (1, 4), (2, 1)):
        assert set(weights[:, labels == label].sum(axis=1)) == {size}
    assert weights.max() > 1


@given(judged())
def test_versions_that_change_places_change_signs(case: tuple[NDArray[np.int64], Opinion, Opinion]) -> None:
    labels, a, b = case
    there, back = (paired.differences(labels, *pair, resamples=300) for pair in ((a, b), (b, a)))
    for name in METRICS:
        assert (there[name].a, there[name].b) == (back[name].b, back[name].a)
        assert there[name].difference == pytest.approx(-back[name].difference)
        assert (there[name].low, there[name].high) == pytest.approx((-back[name].high, -back[name].low))
        assert -1 <= there[name].low <= there[name].high <= 1


@given(judged())
def test_a_version_does_not_differ_from_itself(case: tuple[NDArray[np.int64], Opinion, Opinion]) -> None:
    labels, a, _ = case
    for found in paired.differences(labels, a, a, resamples=50).values():
        assert (found.difference, found.low, found.high) == (0, 0, 0)


def test_the_same_seed_gives_the_same_interval() -> None:
    labels = np.repeat([0, 1], 50)
    scores = np.random.default_rng(3).random((2, 100))
    a, b = (Opinion((row >= 0.5).astype(np.int64), row) for row in scores)
    assert paired.differences(labels, a, b) == paired.differences(labels, a, b)
    assert paired.differences(labels, a, b) != paired.differences(labels, a, b, seed=1)


def test_an_interval_that_ends_at_zero_says_exactly_zero() -> None:
    # One image of twenty that only B judges right: often no resample holds it.
    labels = np.repeat([0, 1], 10)
    a, b = opinion_of([0] * 10 + [0] + [1] * 9), opinion_of([0] * 10 + [1] * 10)
    for found in paired.differences(labels, a, b).values():
        assert found.difference >= 0
        assert str(found.low) == "0.0"


def test_the_interval_is_as_wide_as_theory_says() -> None:
    generator = np.random.default_rng(1)
    labels = np.repeat([0, 1], [240, 160])
    a, b = (opinion_of(np.where(generator.random(400) < right, labels, 1 - labels).tolist()) for right in (0.8, 0.85))
    found = paired.differences(labels, a, b)["accuracy"]
    # Of a mean of paired differences within strata: the classes' variances add up, each weighted by its share.
    gain = (b.predicted == labels).astype(float) - (a.predicted == labels)
    spread = 1.959964 * np.sqrt(sum(gain[labels == label].var() * np.sum(labels == label) for label in (0, 1))) / 400
    assert found.difference == pytest.approx(gain.mean())
    assert found.low == pytest.approx(gain.mean() - spread, abs=0.006)
    assert found.high == pytest.approx(gain.mean() + spread, abs=0.006)


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)
    labels, covered = np.repeat([0, 1], [90, 60]), 0
    for _ in range(100):
        a, b = (
            opinion_of(np.where(generator.random(150) < right, labels, 1 - labels).tolist()) for right in (0.8, 0.9)
        )
        found = paired.differences(labels, a, b, resamples=500)["accuracy"]
        covered += found.low <= 0.1 <= found.high
    assert 0.90 <= covered / 100 <= 0.99
