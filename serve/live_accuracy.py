"""How often a served version was right, by feedback on photographs that were chosen by chance."""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from gitops.contracts.dataset import Feedback
from gitops.errors import ContractError
from gitops.evidence import wilson

LEAST_FEEDBACK = 30
"""Photographs; of fewer the interval is too wide to be of use."""


@dataclass(frozen=True)
class LiveAccuracy:
    """Of one version, on photographs that were chosen by chance."""

    photographs: int
    estimate: float
    low: float
    """Lower end of the 95 % interval."""
    high: float


def live_accuracy(lines: Iterable[str], models: Collection[str]) -> dict[str, LiveAccuracy]:
    """The accuracy of each version that there is enough feedback on.

    People report mistakes and pass over what is right, so that of other feedback the share that is right says nothing.

    Args:
        lines: a feedback file's; those count that are `sampled`, and say what was shown and by which version.
        models: names of the models that count.

    Returns:
        By version. What was said last of a photograph counts.
    """
    right: dict[str, dict[str, bool]] = {}
    for line in lines:
        try:
            feedback = Feedback.parse(json.loads(line), "feedback")
        except (ValueError, ContractError):  # cut off by a crash
            continue
        if feedback.sampled and feedback.model_name in models and feedback.model_version and feedback.said:
            photograph = feedback.sha256 or feedback.filename or ""
            right.setdefault(feedback.model_version, {})[photograph] = feedback.said == feedback.label
    return {version: _of(judged) for version, judged in right.items() if len(judged) >= LEAST_FEEDBACK}


def _of(right: dict[str, bool]) -> LiveAccuracy:
    count, total = sum(right.values()), len(right)
    return LiveAccuracy(total, count / total, *wilson(count, total))
