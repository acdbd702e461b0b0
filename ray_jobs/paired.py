"""What two versions say of the same images, and whether they differ by more than chance: pure functions of values."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from gitops.contracts.comparison import McNemar, MetricDifference
from serve.predictor import GOOD

METRICS = ("accuracy", "balanced_accuracy", "auroc", "recall", "precision")
"""What is compared: columns of `metrics_of`, named and defined as in an evaluation report."""
CONFIDENCE = 0.95
"""Of the differences' intervals."""
RESAMPLES = 2000
SEED = 0
# So many resamples are computed together: enough to be quick, few enough for memory on large splits.
_AT_ONCE = 250
_DIGITS = 12

Floats = NDArray[np.float64]
Labels = NDArray[np.integer]


@dataclass(frozen=True)
class Opinion:
    """What a version says of n images."""

    predicted: Labels
    """(n,), indices of classes."""
    scores: Floats
    """(n,), probability that the part is not good."""


def mcnemar(labels: Labels, a: Opinion, b: Opinion) -> McNemar:
    """McNemar's exact test of whether two versions are right equally often.

    Images that both judge right, or both wrong, say nothing of a difference. Of the others each version should have
    half: the p value is that of a two-sided binomial test. McNemar, Psychometrika 12 (1947) 153–157; for classifiers
    on one test set: Dietterich, Neural Computation 10 (1998) 1895–1923.

    Args:
        labels: the truth, (n,), indices of classes.
        a: what one version says of the n images.
        b: what the other says.
    """
    a_right, b_right = a.predicted == labels, b.predicted == labels
    only_a, only_b = int(np.sum(a_right & ~b_right)), int(np.sum(b_right & ~a_right))
    p_value = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a_right=only_a, only_b_right=only_b, p_value=p_value)


def differences(
    labels: Labels, a: Opinion, b: Opinion, *, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, MetricDifference]:
    """Each metric of both versions, and the difference with its interval by a paired, stratified bootstrap.

    Every resample draws images of each class with replacement, as many as there are, and asks both versions about the
    same draw; the interval is that between the percentiles of the differences. Efron and Tibshirani, An Introduction
    to the Bootstrap (1993), chapter 13; stratified and paired: Robin et al., BMC Bioinformatics 12 (2011) 77.

    An interval without width says that the two never differed on these images, not that they never will.

    Args:
        labels: the truth, (n,), indices of classes; there must be good and other images.
        a: what one version says of the n images.
        b: what the other says.
        resamples: how many.
        seed: the same one gives the same intervals.
    """
    generator = np.random.default_rng(seed)
    found = np.concatenate(
        [
            metrics_of(weights, labels, b) - metrics_of(weights, labels, a)
            for start in range(0, resamples, _AT_ONCE)
            for weights in [resample(generator, labels, min(_AT_ONCE, resamples - start))]
        ]
    )
    tail = (1 - CONFIDENCE) / 2
    # An interval that ends at 0 must not miss it by the last digit of a sum; adding 0 turns −0 into 0.
    low, high = np.round(np.quantile(found, [tail, 1 - tail], axis=0), _DIGITS) + 0.0
    once = np.ones((1, len(labels)))
    of_a, of_b = metrics_of(once, labels, a)[0], metrics_of(once, labels, b)[0]
    return {
        name: MetricDifference(
            a=float(of_a[column]),
            b=float(of_b[column]),
            difference=float(of_b[column] - of_a[column]),
            low=float(low[column]),
            high=float(high[column]),
        )
        for column, name in enumerate(METRICS)
    }


def resample(generator: np.random.Generator, labels: Labels, count: int) -> Floats:
    """Draw images with replacement, within each class as many as it has.

    Returns:
        (count, n): how often each resample holds each image.
    """
    weights = np.zeros((count, len(labels)))
    for label in np.unique(labels):
        (members,) = np.nonzero(labels == label)
        weights[:, members] = generator.multinomial(len(members), np.full(len(members), 1 / len(members)), size=count)
    return weights


def metrics_of(weights: Floats, labels: Labels, opinion: Opinion) -> Floats:
    """The metrics of weighted images; with weights of 1 they are those of an evaluation report.

    Args:
        weights: (r, n): r weightings of the images; each leaves images of every class.
        labels: the truth, (n,), indices of classes.
        opinion: of the n images.

    Returns:
        (r, metrics), a column for each of METRICS; a precision of 0 where nothing is called not good.
    """
    right, bad, flagged = opinion.predicted == labels, labels != GOOD, opinion.predicted != GOOD
    members = [labels == label for label in np.unique(labels)]
    recalls = [weights[:, inside] @ right[inside] / weights[:, inside].sum(axis=1) for inside in members]
    found, called = weights @ (bad & flagged), weights @ flagged
    columns = {
        "accuracy": weights @ right / weights.sum(axis=1),
        "balanced_accuracy": np.mean(recalls, axis=0),
        "auroc": auroc(weights, bad, opinion.scores),
        "recall": found / (weights @ bad),
        "precision": np.divide(found, called, out=np.zeros_like(found), where=called > 0),
    }
    return np.column_stack([columns[name] for name in METRICS])


def auroc(weights: Floats, bad: NDArray[np.bool_], scores: Floats) -> Floats:
    """Area under the ROC curve of weighted images, (r,) for weights (r, n).

    It is the share of pairs of a bad and a good image in which the bad one has the higher score, equal scores counting
    half: Hanley and McNeil, Radiology 143 (1982) 29–36.
    """
    order = np.argsort(scores[~bad])
    good_scores, good_weights = scores[~bad][order], weights[:, ~bad][:, order]
    # Column k: the weight of the k good images with the lowest scores.
    sums = np.cumsum(np.pad(good_weights, ((0, 0), (1, 0))), axis=1)
    below = sums[:, np.searchsorted(good_scores, scores[bad], side="left")]
    not_above = sums[:, np.searchsorted(good_scores, scores[bad], side="right")]
    bad_weights = weights[:, bad]
    won = np.sum(bad_weights * (below + not_above) / 2, axis=1)
    return np.asarray(won / (bad_weights.sum(axis=1) * sums[:, -1]), np.float64)
