"""The statistics on numbers whose truth is known; what they make of photographs is measured by benchmarks/drift.py."""

import numpy as np
import pytest
from numpy.typing import NDArray

from monitoring import drift
from monitoring.drift import Finding, Observations, judge, ks_p_value, mmd
from monitoring.metrics import DriftKind

CLASSES = ("good", "defective")
DIMENSIONS = 8


def observed(seed: int, count: int = drift.WINDOW, *, defective: float = 0.3, moved: float = 0.0) -> Observations:
    """Photographs of a line; the measure `exposure` is moved by so many standard deviations."""
    rng = np.random.default_rng(seed)
    bad = rng.random(count) < defective
    scores = np.where(bad, rng.beta(8, 2, count), rng.beta(2, 8, count))
    values = {
        "exposure": rng.normal(moved, 1, count),
        "part_length": rng.normal(0, 1, count) + bad,
        "width": np.full(count, 1024.0),
        drift.SCORE: scores,
        drift.CONFIDENCE: np.maximum(scores, 1 - scores),
    }
    embeddings = rng.normal(0, 1, (count, DIMENSIONS)) + bad[:, None]
    return Observations(np.where(bad, "defective", "good"), values, embeddings)


def counts(of: Observations) -> dict[str, int]:
    return {label: int(np.count_nonzero(of.labels == label)) for label in CLASSES}


REFERENCE = observed(0, 400)


def found_in(window: Observations, reference: Observations = REFERENCE) -> dict[tuple[DriftKind, str], Finding]:
    findings = judge(reference, window, CLASSES, counts(observed(1, drift.BASELINE)))
    return {(finding.kind, finding.feature): finding for finding in findings}


def drifted(window: Observations, reference: Observations = REFERENCE) -> set[str]:
    return {feature for (_, feature), finding in found_in(window, reference).items() if finding.drifted}


def changed(window: Observations, **columns: NDArray[np.float64]) -> Observations:
    return Observations(window.labels, {**window.values, **columns}, window.embeddings)


def test_windows_without_drift_are_seldom_called_drifted() -> None:
    # A reference of their own for each, as for one reference the windows share its luck.
    alarms = sum(bool(drifted(observed(2 * seed), observed(2 * seed + 1, 400))) for seed in range(10, 60))
    assert alarms <= 1


@pytest.mark.parametrize("defective", [0.02, 0.9])
def test_a_line_with_another_share_of_defects_is_not_another_line(defective: float) -> None:
    window = observed(2, defective=defective)
    assert drifted(window) == {drift.NOT_GOOD}
    without = judge(REFERENCE, window, CLASSES, None)
    assert not any(finding.drifted or finding.kind is DriftKind.LABEL for finding in without)


@pytest.mark.parametrize(("moved", "found"), [(0.2, set()), (1.0, {"exposure"}), (-1.0, {"exposure"})])
def test_what_is_measured_must_move_far(moved: float, found: set[str]) -> None:
    assert drifted(observed(3, moved=moved)) == found


def test_a_finding_says_how_far_values_moved() -> None:
    finding = found_in(observed(3, moved=2.0))[DriftKind.IMAGE, "exposure"]
    assert finding.statistic == "ks"
    assert finding.value == pytest.approx(0.68, abs=0.1)  # of two normal distributions, two deviations apart
    assert finding.distance == pytest.approx(2.0, abs=0.4)


def test_another_camera_shows_in_what_never_varied() -> None:
    window = observed(4)
    assert drifted(changed(window, width=np.full(len(window.labels), 2048.0))) == {"width"}


def test_a_surer_model_is_no_bad_news_and_a_less_sure_one_is() -> None:
    window = observed(5)
    surer, unsure = (window.values[drift.CONFIDENCE] * share for share in (1.1, 0.85))
    assert drifted(changed(window, confidence=surer)) == set()
    assert drifted(changed(window, confidence=unsure)) == {drift.CONFIDENCE}


def test_scores_are_compared_within_a_label() -> None:
    window = observed(6)
    assert drifted(changed(window, score=window.values[drift.SCORE] * 0.7)) == {drift.SCORE}


def test_a_doubled_defect_rate_is_seen_against_the_first_windows() -> None:
    assert drifted(observed(7, defective=0.6)) == {drift.NOT_GOOD}
    assert found_in(observed(7, defective=0.6))[DriftKind.LABEL, drift.NOT_GOOD].value == pytest.approx(0.3, abs=0.08)


def test_each_defect_is_counted_where_there_are_several() -> None:
    labels = np.array(["good"] * 200 + ["dent"] * 28 + ["scratch"] * 28)
    window = Observations(labels, {}, np.zeros((256, 2)))
    reference = Observations(np.array([], np.str_), {}, np.zeros((0, 2)))
    findings = judge(reference, window, ("good", "dent", "scratch"), {"good": 400, "dent": 56, "scratch": 56})
    assert [finding.feature for finding in findings] == ["dent", drift.NOT_GOOD, "scratch"]
    assert not any(finding.drifted for finding in findings)
    (dent, not_good, _) = judge(reference, window, ("good", "dent", "scratch"), {"good": 400, "scratch": 112})
    assert (dent.drifted, not_good.drifted) == (True, False)


def test_what_the_network_sees_may_change_though_nothing_measured_does() -> None:
    window = observed(8)
    turned = Observations(window.labels, window.values, window.embeddings + 0.6)
    assert drifted(turned) == {drift.EMBEDDING}


def test_without_embeddings_or_enough_of_a_label_there_is_nothing_to_compare() -> None:
    blank = Observations(REFERENCE.labels, REFERENCE.values, np.full((400, DIMENSIONS), np.nan))
    assert DriftKind.EMBEDDING not in {kind for kind, _ in found_in(observed(9), blank)}
    partly = observed(9)
    partly.embeddings[::7] = np.nan
    assert drifted(partly) == set(), "an image without an embedding is not compared by it"
    few = observed(9, 19)
    assert {kind for kind, _ in found_in(few)} == {DriftKind.LABEL}


def test_missing_values_are_left_out_and_unknown_measures_not_compared() -> None:
    window = observed(10)
    some = window.values["exposure"].copy()
    some[::2] = np.nan
    older = Observations(REFERENCE.labels, {"exposure": REFERENCE.values["exposure"]}, REFERENCE.embeddings)
    found = found_in(changed(window, exposure=some), older)
    assert [feature for kind, feature in found if kind is DriftKind.IMAGE] == ["exposure"]
    assert not any(finding.drifted for finding in found.values())


def test_p_values_are_those_of_a_sample_that_differs_by_what_is_tolerated() -> None:
    """Of two uniform samples whose distributions are `TOLERATED` apart, few have a p value below 0.05."""
    rng, small = np.random.default_rng(0), 0
    for _ in range(300):
        one, other = np.sort(rng.random(200)), np.sort(rng.random(256) * (1 - drift.TOLERATED) + drift.TOLERATED)
        both = np.concatenate([one, other])
        value = np.abs(np.searchsorted(one, both, "right") / 200 - np.searchsorted(other, both, "right") / 256).max()
        small += ks_p_value(float(value), 200, 256, one_sided=False) < 0.05
    assert small / 300 <= 0.05
    assert ks_p_value(0.6, 200, 256, one_sided=False) < 1e-6
    assert ks_p_value(0.6, 200, 256, one_sided=True) < 1e-6


def test_the_discrepancy_of_two_samples_is_that_of_its_definition() -> None:
    rng = np.random.default_rng(3)
    reference, window = rng.normal(0, 1, (40, 3)), rng.normal(1, 1, (30, 3))
    pairs = np.linalg.norm(reference[:, None] - reference[None], axis=2) ** 2
    width = np.median(pairs[np.triu_indices(40, 1)])

    def kernel(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.exp(-(np.linalg.norm(one[:, None] - other[None], axis=2) ** 2) / width))

    among = [(kernel(one, one).sum() - len(one)) / (len(one) * (len(one) - 1)) for one in (reference, window)]
    value, p_value = mmd(reference, window, np.random.default_rng(0))
    assert value == pytest.approx(sum(among) - 2 * kernel(reference, window).mean())
    assert p_value == pytest.approx(1 / 5000)


@pytest.mark.parametrize("others", [1, 11])
def test_what_the_network_sees_of_one_label_is_seen_however_many_there_are(others: int) -> None:
    """The smallest p value of the permutations must stay small when it is corrected for all the labels."""
    classes = tuple(f"class-{number}" for number in range(others + 1))
    labels = np.repeat(np.array(classes), 21)

    def seen(seed: int, moved: float) -> Observations:
        embeddings = np.random.default_rng(seed).normal(0, 1, (len(labels), DIMENSIONS))
        embeddings[labels == classes[-1]] += moved
        return Observations(labels, {}, embeddings)

    (finding,) = judge(seen(0, 0.0), seen(1, 5.0), classes, None)
    assert (finding.feature, finding.label, finding.drifted) == (drift.EMBEDDING, classes[-1], True)
