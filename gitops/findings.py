"""What a gate says of a change: which gate, how it decided, why, and what to do next."""

from collections.abc import Iterable
from enum import StrEnum

from gitops.contracts.base import Contract


class Phase(StrEnum):
    """How a gate decided."""

    SUCCESS = "success"
    FAILURE = "failure"
    SKIPPED = "skipped"
    """What it would decide upon is not to be had here."""


class Finding(Contract):
    """What one gate says of a change."""

    key: str
    """The gate: environment, schema, scope, history, project, manifest, bundle, report, or a metric for its bar; of an
    overlay also overlay, kubernetes, argocd, policies, image, limits, secret, pod-security, token, network, reference,
    kuberay, upgrade, disruption, capacity, working-dir, http, folder, observer."""
    phase: Phase
    reason: str
    """Which object, and what was found."""
    remedy: str = ""
    """What to do next; empty where all is well."""

    def __str__(self) -> str:
        """The finding for a person to read."""
        word = {Phase.SUCCESS: "passed ", Phase.FAILURE: "REFUSED", Phase.SKIPPED: "skipped"}[self.phase]
        return f"{word} {self.key}: {self.reason}" + (f"\n        to do: {self.remedy}" if self.remedy else "")


def accept(key: str, reason: str) -> Finding:
    """A gate that lets pass."""
    return Finding(key=key, phase=Phase.SUCCESS, reason=reason)


def refuse(key: str, reason: str, remedy: str) -> Finding:
    """A gate that stands against the merge."""
    return Finding(key=key, phase=Phase.FAILURE, reason=reason, remedy=remedy)


def skip(key: str, reason: str, remedy: str) -> Finding:
    """A gate that could not decide."""
    return Finding(key=key, phase=Phase.SKIPPED, reason=reason, remedy=remedy)


def failed(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that stand against a merge."""
    return [finding for finding in findings if finding.phase is Phase.FAILURE]


def explain(findings: Iterable[Finding]) -> str:
    """Findings for a person to read: what was refused first, what passed last, each with its remedy."""
    return "\n".join(str(finding) for finding in in_order(findings))


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """What was refused first, what passed last."""
    order = (Phase.FAILURE, Phase.SKIPPED, Phase.SUCCESS)
    return sorted(findings, key=lambda finding: order.index(finding.phase))
