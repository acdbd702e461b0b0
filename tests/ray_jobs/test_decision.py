"""From logits to decisions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from gitops.contracts.model import Calibration
from gitops.contracts.project import Costs
from ray_jobs.decision import calibrate, calibrated_probabilities, calibrated_scores, choose_threshold
from serve.predictor import scores_of


def choose(good: list[float], bad: list[float], missed_defect: float = 1.0, false_alarm: float = 1.0) -> float:
    flags = np.array([False] * len(good) + [True] * len(bad))
    costs = Costs(missed_defect=missed_defect, false_alarm=false_alarm)
    return choose_threshold(np.array([*good, *bad]), flags, costs, "validation").value


def test_what_the_costs_ask_for_is_kept_where_the_data_do_not_speak_against_it() -> None:
    assert choose([0.1, 0.2], [0.6, 0.9]) == 0.5
    # 0.7 would be right once more, which four images of either class do not prove.
    assert choose([0.1, 0.1, 0.1, 0.5], [0.3, 0.9, 0.9, 0.9]) == 0.5
    assert choose([0.05, 0.1], [0.6, 0.9], missed_defect=4) == pytest.approx(0.2)
    assert choose([0.05, 0.1], [0.85, 0.9], false_alarm=4) == pytest.approx(0.8)


def test_clear_data_move_the_threshold() -> None:
    assert choose([0.05] * 50, [0.2] * 20) == pytest.approx(0.125)
    assert choose([0.7] * 50, [0.9] * 20) == pytest.approx(0.8)


def test_a_dear_defect_lowers_the_threshold() -> None:
    random = np.random.default_rng(0)
    good, bad = random.beta(2, 5, 400).tolist(), random.beta(5, 2, 100).tolist()
    thresholds = [choose(good, bad, missed_defect=cost) for cost in (0.2, 1, 5, 25)]
    assert thresholds == sorted(thresholds, reverse=True)
    assert thresholds[0] - thresholds[-1] > 0.2


def test_scores_that_say_nothing_still_give_a_threshold() -> None:
    assert 0 <= choose([0.0, 0.0], [0.0]) <= 1
    assert 0 <= choose([1.0], [1.0, 1.0]) <= 1


def test_rounding_never_moves_the_threshold_over_a_score() -> None:
    assert 0 < choose([1e-9, 2e-9], [0.5, 0.6], missed_defect=1e6) <= 0.5
    assert 1e-7 < choose([1e-7] * 50, [3e-7] * 20) <= 3e-7


def test_the_method_names_the_costs_and_the_split() -> None:
    found = choose_threshold(np.array([0.1, 0.9]), np.array([False, True]), Costs(missed_defect=5), "out-of-fold")
    assert "5 for a missed defect, 1 for a false alarm" in found.method
    assert found.split == "out-of-fold"


@pytest.mark.parametrize(("scale", "shift"), [(3.0, 0.5), (0.4, -1.0)])
def test_calibration_finds_how_logits_were_distorted(scale: float, shift: float) -> None:
    random = np.random.default_rng(1)
    margin = random.normal(0, 3, 20_000)  # true log-odds of "not good"
    labels = (random.random(len(margin)) < expit(margin)).astype(int)
    distorted = np.stack([np.zeros_like(margin), (margin + shift) / scale], axis=1)
    found = calibrate(distorted, labels)
    assert found.scale == pytest.approx(scale, rel=0.1)
    assert found.shift == pytest.approx(shift, abs=0.1)
    scores = calibrated_scores(distorted, found)
    for low in np.arange(0.1, 0.9, 0.2):
        inside = (scores >= low) & (scores < low + 0.2)
        assert labels[inside].mean() == pytest.approx(scores[inside].mean(), abs=0.05)


def test_classes_that_are_wholly_apart_give_no_certainty() -> None:
    logits = np.array([[0.0, -5.0]] * 30 + [[0.0, 5.0]] * 10)
    labels = np.array([0] * 30 + [1] * 10)
    scores = calibrated_scores(logits, calibrate(logits, labels))
    # Platt's targets: 1/(30 + 2) and (10 + 1)/(10 + 2).
    assert scores[0] == pytest.approx(1 / 32, abs=1e-3)
    assert scores[-1] == pytest.approx(11 / 12, abs=1e-3)


def test_several_classes_share_the_scale() -> None:
    random = np.random.default_rng(2)
    labels = random.integers(0, 3, 3000)
    logits = np.eye(3)[labels] + random.normal(0, 0.5, (3000, 3))
    found = calibrate(logits, labels)
    assert found.scale == pytest.approx(4, rel=0.15)  # of equal normals a distance d apart: d²/σ² for d = 1
    assert np.mean(calibrated_probabilities(logits, found).argmax(axis=1) == labels) > 0.8


@settings(deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-30, 30)] * 3), min_size=1, max_size=20),
    st.floats(0.05, 20),
    st.floats(-5, 5),
)
def test_scores_and_probabilities_agree(rows: list[tuple[float, ...]], scale: float, shift: float) -> None:
    logits, calibration = np.array(rows), Calibration(scale=scale, shift=shift)
    probabilities = calibrated_probabilities(logits, calibration)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert scores_of(probabilities) == pytest.approx(calibrated_scores(logits, calibration), abs=1e-9)
