"""Whether a window of photographs is like the model's reference: pure functions of numbers.

Values are compared within a label, as the reference rarely holds defects as often as the line makes them; how often
that is, is a question of its own, to which the line's first windows are the reference.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from monitoring.metrics import DriftKind

WINDOW = 256
"""Photographs of a window."""
LEAST_WINDOW = 64
"""Fewer are not judged."""
BASELINE = 2 * WINDOW
"""Photographs, the first that a version judges, whose labels later ones are compared with."""
FALSE_ALARMS = 0.005
"""Share of windows without drift that may be called drifted, at most."""
TOLERATED = 0.1
"""Largest difference of two distribution functions that is no drift: the line is never quite as the reference."""
TOLERATED_EMBEDDING = 0.05
"""The same of the embeddings' squared maximum mean discrepancy, whose largest value is 2."""
SCORE, CONFIDENCE = "score", "confidence"
"""Names of values that are not measured of the image."""
NOT_GOOD, EMBEDDING = "not_good", "embedding"
"""Names of the features that have no column."""
_LEAST_ROWS = 20  # of a label, on both sides: fewer say nothing of a distribution
_PERMUTATIONS, _PERMUTATIONS_OF_A_LABEL = 4999, 1250
"""At least so many, and more where so many labels are compared that even the smallest p value, one in all of them,
would not be small any more once it is corrected for the labels and the kinds."""
_LEAST_VARIANCE = 0.05  # of the mean over the axes: else those in which nothing varies would shout down all others


@dataclass(frozen=True)
class Observations:
    """Photographs as they were measured and judged, n of them."""

    labels: NDArray[np.str_]
    """(n,): what the model said."""
    values: Mapping[str, NDArray[np.float64]]
    """(n,) each: the score, the confidence and what was measured of the image, by name; NaN where there is none."""
    embeddings: NDArray[np.float64]
    """(n, dimensions); a row of NaN where there is none."""


@dataclass(frozen=True)
class Finding:
    """A comparison of a window with what it should be like."""

    kind: DriftKind
    feature: str
    statistic: str
    """ks, ks_less, mmd or share_difference."""
    value: float
    p_value: float
    """How likely so large a value is without drift, corrected for all the comparisons of a window."""
    distance: float | None = None
    """Of a single value: Wasserstein's, in standard deviations of the reference; None: it has none."""
    label: str | None = None
    """Only photographs that were called this were compared; None: all."""

    @property
    def drifted(self) -> bool:
        """Whether it is too unlikely to be chance."""
        return self.p_value <= FALSE_ALARMS


def judge(
    reference: Observations,
    window: Observations,
    classes: Sequence[str],
    baseline: Mapping[str, int] | None,
    *,
    seed: int = 0,
) -> tuple[Finding, ...]:
    """Compare a window with its reference; a value that one of the two lacks is not compared.

    Args:
        reference: judged by models that had not seen the images.
        window: what the served model judged.
        classes: the good one first.
        baseline: how often each label was given before; None: nobody knows yet, and labels are not compared.
        seed: of the permutations.

    Returns:
        One finding a feature that could be compared: of the label under which it differs most. Each kind may raise
        as many false alarms as each other; within it they are shared out by Holm's method (1979).
    """
    shared = [label for label in classes if _rows(reference, label) >= _LEAST_ROWS <= _rows(window, label)]
    found = [*_of_values(reference, window, shared), *_of_embeddings(reference, window, shared, seed)]
    if baseline is not None:
        found += _of_labels(window, classes, baseline)
    corrected = [finding for kind in DriftKind for finding in _corrected([item for item in found if item.kind is kind])]
    return tuple(_most_different(corrected))


def _rows(observations: Observations, label: str) -> int:
    return int(np.count_nonzero(observations.labels == label))


def _corrected(findings: Sequence[Finding]) -> list[Finding]:
    """Holm's step-down correction within a kind, and Bonferroni's for the number of kinds."""
    ordered = sorted(findings, key=lambda finding: finding.p_value)
    corrected, so_far = [], 0.0
    for place, finding in enumerate(ordered):
        so_far = max(so_far, finding.p_value * (len(ordered) - place) * len(DriftKind))
        corrected.append(replace(finding, p_value=min(1.0, so_far)))
    return corrected


def _most_different(findings: Sequence[Finding]) -> list[Finding]:
    """Of each feature the finding with the least p value, and of equal ones the largest value."""
    kept: dict[tuple[DriftKind, str], Finding] = {}
    for finding in sorted(findings, key=lambda finding: (finding.p_value, -finding.value)):
        kept.setdefault((finding.kind, finding.feature), finding)
    return sorted(kept.values(), key=lambda finding: (list(DriftKind).index(finding.kind), finding.feature))


# --- single values ----------------------------------------------------------------------------------------------------


def _of_values(reference: Observations, window: Observations, labels: Sequence[str]) -> Iterator[Finding]:
    for name in sorted(reference.values.keys() & window.values.keys()):
        for label in labels:
            expected = _present(reference.values[name][reference.labels == label])
            found = _present(window.values[name][window.labels == label])
            if min(len(expected), len(found)) >= _LEAST_ROWS:
                yield replace(_of_value(name, expected, found), label=label)


def _present(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[~np.isnan(values)]


def _of_value(name: str, expected: NDArray[np.float64], found: NDArray[np.float64]) -> Finding:
    # Only a loss of confidence is bad news.
    kind, one_sided = {SCORE: (DriftKind.SCORE, False), CONFIDENCE: (DriftKind.CONFIDENCE, True)}.get(
        name, (DriftKind.IMAGE, False)
    )
    value = float(stats.ks_2samp(found, expected, "greater" if one_sided else "two-sided", "asymp").statistic)
    deviation = float(expected.std())
    distance = float(stats.wasserstein_distance(expected, found)) / deviation if deviation else None
    p_value = ks_p_value(value, len(expected), len(found), one_sided=one_sided)
    return Finding(kind, name, "ks_less" if one_sided else "ks", value, p_value, distance)


def ks_p_value(value: float, reference: int, window: int, *, one_sided: bool) -> float:
    """How likely Kolmogorov's and Smirnov's statistic is as large, if the true difference is at most `TOLERATED`.

    By the triangle inequality, what exceeds the true difference is the statistic of two samples that do not differ.

    Args:
        value: the largest difference of the two empirical distribution functions.
        reference: values in the reference.
        window: values in the window.
        one_sided: only smaller values in the window count.
    """
    excess, effective = max(0.0, value - TOLERATED), reference * window / (reference + window)
    if one_sided:
        return float(np.exp(-2 * effective * excess**2))
    return float(stats.kstwo.sf(excess, max(1, round(effective))))


# --- embeddings -------------------------------------------------------------------------------------------------------


def _of_embeddings(
    reference: Observations, window: Observations, labels: Sequence[str], seed: int
) -> Iterator[Finding]:
    known, measured = (~np.isnan(of.embeddings).any(axis=1) for of in (reference, window))
    if np.count_nonzero(known) < _LEAST_ROWS:
        return
    whiten = _Whitening.of(reference.embeddings[known])
    rng = np.random.default_rng(seed)
    permutations = max(_PERMUTATIONS, _PERMUTATIONS_OF_A_LABEL * len(labels) - 1)
    for label in labels:
        expected = whiten(reference.embeddings[known & (reference.labels == label)])
        shown = whiten(window.embeddings[measured & (window.labels == label)])
        if len(expected) >= _LEAST_ROWS and len(shown) >= _LEAST_ROWS:
            value, p_value = mmd(expected, shown, rng, permutations)
            yield Finding(DriftKind.EMBEDDING, EMBEDDING, "mmd", value, p_value, label=label)


@dataclass(frozen=True)
class _Whitening:
    """Makes the reference's axes alike: what rarely varies must be seen beside what always does."""

    center: NDArray[np.float64]
    axes: NDArray[np.float64]
    """(dimensions, dimensions)."""

    @classmethod
    def of(cls, embeddings: NDArray[np.float64]) -> "_Whitening":
        variances, axes = np.linalg.eigh(np.cov(embeddings, rowvar=False))
        least = max(_LEAST_VARIANCE * float(variances.mean()), np.finfo(np.float64).tiny)
        return cls(embeddings.mean(axis=0), axes / np.sqrt(np.maximum(variances, least)))

    def __call__(self, embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
        return (embeddings - self.center) @ self.axes


def mmd(
    reference: NDArray[np.float64],
    window: NDArray[np.float64],
    rng: np.random.Generator,
    permutations: int = _PERMUTATIONS,
) -> tuple[float, float]:
    """Squared maximum mean discrepancy of two samples, and how likely it is as large by chance.

    The unbiased estimate of Gretton et al. (2012, "A Kernel Two-Sample Test"), with a Gaussian kernel as wide as the
    median distance in the reference, and the p value from permutations.

    Args:
        reference: (n, dimensions), n ≥ 2.
        window: (m, dimensions), m ≥ 2.
        rng: draws the permutations.
        permutations: how many; the smallest p value is one in one more.

    Returns:
        The estimate; and its p value, 1 where the estimate is at most `TOLERATED_EMBEDDING`.
    """
    joined = np.concatenate([window, reference])
    lengths = (joined**2).sum(axis=1)
    squares = np.maximum(lengths[:, None] + lengths[None, :] - 2 * joined @ joined.T, 0)
    among = squares[len(window) :, len(window) :][np.triu_indices(len(reference), 1)]
    kernel = np.exp(-squares / max(float(np.median(among)), np.finfo(np.float64).tiny))
    np.fill_diagonal(kernel, 0)
    of_window = np.zeros((1, len(joined)), bool)
    of_window[0, : len(window)] = True
    (value,) = _discrepancies(kernel, of_window, len(window))
    if value <= TOLERATED_EMBEDDING:
        return float(value), 1.0
    shuffled = rng.permuted(np.repeat(of_window, permutations, axis=0), axis=1)
    as_large = np.count_nonzero(_discrepancies(kernel, shuffled, len(window)) >= value)
    return float(value), float((1 + as_large) / (1 + permutations))


def _discrepancies(kernel: NDArray[np.float64], of_window: NDArray[np.bool_], size: int) -> NDArray[np.float64]:
    """The estimate for each way to tell `size` rows of a window from the rest, (ways, n) → (ways,)."""
    chosen, others = of_window.astype(np.float64), kernel.shape[0] - size
    to_all = chosen @ kernel
    within = (to_all * chosen).sum(axis=1)
    across = to_all.sum(axis=1) - within
    rest = kernel.sum() - 2 * across - within
    return np.asarray(within / (size * (size - 1)) + rest / (others * (others - 1)) - 2 * across / (size * others))


# --- labels -----------------------------------------------------------------------------------------------------------


def _of_labels(window: Observations, classes: Sequence[str], baseline: Mapping[str, int]) -> Iterator[Finding]:
    """Fisher's exact test of how often there is something wrong, and of each defect where there are several."""
    others = list(classes[1:])
    asked = {NOT_GOOD: others} | ({label: [label] for label in others} if len(others) > 1 else {})
    total, before = len(window.labels), sum(baseline.values())
    for name, labels in asked.items():
        now, then = int(np.isin(window.labels, labels).sum()), sum(baseline.get(label, 0) for label in labels)
        p_value = stats.fisher_exact(np.array([[now, total - now], [then, before - then]])).pvalue
        yield Finding(DriftKind.LABEL, name, "share_difference", now / total - then / before, float(p_value))
