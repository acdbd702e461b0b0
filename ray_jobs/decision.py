"""From logits to decisions: probabilities that mean what they say, and the threshold that costs least."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logsumexp, softmax

from gitops.contracts.model import Calibration, ThresholdChoice
from gitops.contracts.project import Costs
from serve.predictor import GOOD

THRESHOLD_METHOD = (
    "nearest to {even:.3f}, what probabilities and costs ({missed:g} for a missed defect, {alarm:g} for a false alarm) "
    "ask for, among the thresholds whose cost is within one standard error of the least"
)
# Calibration and threshold become part of a digest, which must not hang on a figure's last digits.
_DIGITS = 5
_LARGEST_SCALE = 100.0

Floats = NDArray[np.float64]


def calibrate(logits: Floats, labels: NDArray[np.integer]) -> Calibration:
    """Fit scale and shift so that a score is a probability.

    Platt, 1999, "Probabilistic Outputs for Support Vector Machines", with his smoothed targets, which keep the scale
    finite where the classes are wholly apart. With more than two classes the same scale goes to every logit.

    Args:
        logits: (n, classes), of images that the model has not seen.
        labels: (n,), indices of classes; there must be good ones and others.
    """
    bad = labels != GOOD
    count = int(bad.sum())
    target = np.where(bad, (count + 1) / (count + 2), 1 / (len(bad) - count + 2))

    def loss(parameters: Floats) -> float:
        scale, shift = float(np.exp(parameters[0])), float(parameters[1])
        margin = _margins(logits, Calibration(scale=scale, shift=shift))
        # log(1 + e^m) − t·m: cross-entropy of a target t and a margin m, safe for large ones
        return float(np.mean(np.logaddexp(0, margin) - target * margin))

    limit = np.log(_LARGEST_SCALE)
    found = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[(-limit, limit), (None, None)])
    return Calibration(scale=round(float(np.exp(found.x[0])), _DIGITS), shift=round(float(found.x[1]), _DIGITS))


def calibrated_scores(logits: Floats, calibration: Calibration) -> Floats:
    """The score of each image, (n,): the probability that its part is not good."""
    return np.asarray(expit(_margins(logits, calibration)))


def calibrated_probabilities(logits: Floats, calibration: Calibration) -> Floats:
    """The probability of each class, (n, classes)."""
    return np.asarray(softmax(_calibrated(logits, calibration), axis=1))


def _calibrated(logits: Floats, calibration: Calibration) -> Floats:
    moved = logits * calibration.scale
    moved[:, GOOD] += calibration.shift
    return moved


def _margins(logits: Floats, calibration: Calibration) -> Floats:
    """Log-odds of "not good", (n,)."""
    moved = _calibrated(logits, calibration)
    return np.asarray(logsumexp(moved[:, GOOD + 1 :], axis=1) - moved[:, GOOD])


def choose_threshold(
    scores: Floats, bad: NDArray[np.bool_], costs: Costs, split: Literal["validation", "out-of-fold"]
) -> ThresholdChoice:
    """Choose the decision threshold by what wrong decisions cost.

    Were the scores exact probabilities, calling a part bad would pay from alarm / (alarm + missed) on (Elkan, 2001,
    "The Foundations of Cost-Sensitive Learning"). So the threshold is the nearest to that among those whose cost here
    is as good as the least: within one standard error of it (the rule of Breiman et al., Classification and Regression
    Trees, 1984), as with a few dozen defective images the very best threshold is mostly chance.

    Args:
        scores: probability that the part is not good, (n,).
        bad: whether it is not, (n,); there must be images of both kinds.
        costs: of the two kinds of mistake.
        split: where the images come from.
    """
    even = costs.false_alarm / (costs.false_alarm + costs.missed_defect)
    edges = np.unique(np.concatenate([[0.0], scores, [1.0]]))
    low, high = edges[:-1], edges[1:]
    middles = (low + high) / 2
    missed = np.array([np.sum(scores[bad] < threshold) for threshold in middles])
    alarms = np.array([np.sum(scores[~bad] >= threshold) for threshold in middles])
    cost = costs.missed_defect * missed + costs.false_alarm * alarms
    best = int(np.argmin(cost))
    error = np.hypot(
        costs.missed_defect * _standard_error(int(missed[best]), int(bad.sum())),
        costs.false_alarm * _standard_error(int(alarms[best]), int((~bad).sum())),
    )
    # A threshold between two neighbouring scores decides as any other between them; the interval's ends are scores.
    nearest = np.where((low < even) & (high >= even), even, middles)
    cheap = np.flatnonzero(cost <= cost[best] + error)
    chosen = cheap[np.argmin(np.abs(nearest[cheap] - even))]
    method = THRESHOLD_METHOD.format(even=even, missed=costs.missed_defect, alarm=costs.false_alarm)
    value = round(float(nearest[chosen]), _DIGITS)
    if not low[chosen] < value <= high[chosen]:  # two scores lie nearer to each other than that
        value = float(nearest[chosen])
    return ThresholdChoice(value=value, method=method, split=split)


def _standard_error(hits: int, count: int) -> float:
    """Of a number of mistakes, with Laplace's estimate of its share, so that none at all is not taken for certain."""
    share = (hits + 1) / (count + 2)
    return float(np.sqrt(share * (1 - share) * count))
