"""How often a served version was right, as far as feedback says."""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from gitops.errors import ContractError
from gitops.evidence import wilson
from gitops.manifest import Feedback

LEAST_FEEDBACK = 30
"""Photographs; of fewer the interval is too wide to be of use."""


@dataclass(frozen=True)
class LiveAccuracy:
    """Of one version, on the photographs that somebody looked at."""

    photographs: int
    estimate: float
    low: float
    """Lower end of the 95 % interval."""
    high: float


def live_accuracy(lines: Iterable[str], models: Collection[str]) -> dict[str, LiveAccuracy]:
    """The accuracy of each version that there is enough feedback on.

    Args:
        lines: a feedback file's; those that say neither what was shown nor by which version tell nothing here.
        models: names of the models that count.

    Returns:
        By version. What was said last of a photograph counts.
    """
    right: dict[str, dict[str, bool]] = {}
    for line in lines:
        try:
            said = Feedback.parse(json.loads(line), "feedback")
        except (ValueError, ContractError):  # cut off by a crash
            continue
        if said.model_name in models and said.model_version and said.said:
            photograph = said.sha256 or said.filename or ""
            right.setdefault(said.model_version, {})[photograph] = said.said == said.label
    return {version: _of(found) for version, found in right.items() if len(found) >= LEAST_FEEDBACK}


def _of(right: dict[str, bool]) -> LiveAccuracy:
    count, total = sum(right.values()), len(right)
    return LiveAccuracy(total, count / total, *wilson(count, total))
