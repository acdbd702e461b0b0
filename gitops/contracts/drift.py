"""What the monitor leaves behind: windows of photographs, and how they differ from the reference."""

from pydantic import AwareDatetime, Field

from gitops.contracts.base import Contract, Sha256, Share
from gitops.contracts.serving import ServedModel
from monitoring.metrics import DriftKind, WindowOutcome


class DriftFinding(Contract):
    """A feature of a window, compared with what it should be like."""

    kind: DriftKind
    feature: str
    statistic: str = Field(description="ks, ks_less (only smaller values count), mmd or share_difference.")
    value: float
    p_value: Share = Field(description="How likely so large a value is without drift, corrected for the whole window.")
    wasserstein: float | None = Field(
        default=None,
        description="How far values moved, in standard deviations of the reference; None: no single value.",
    )
    drifted: bool
    label: str | None = Field(
        default=None,
        description="Under which it differs most; None where labels were compared, and in older windows.",
    )


class LabelCounts(Contract):
    """How often a version gave each label at first: what later windows are compared with."""

    labels: dict[str, int]


class DriftWindow(Contract):
    """A window of photographs and what was found; the photographs' figures are in the Parquet file of the same name."""

    application: str
    model: ServedModel
    outcome: WindowOutcome
    photographs: int
    began_at: AwareDatetime
    ended_at: AwareDatetime = Field(description="When its last photograph came.")
    judged_at: AwareDatetime | None = Field(
        default=None, description="When it was judged, which may be long after its end; None: nobody kept it."
    )
    labels: dict[str, int] = Field(description="How often each label was given.")
    compares_labels: bool = Field(description="Whether there were earlier windows to compare the labels with.")
    findings: tuple[DriftFinding, ...] = ()
    drifting_since: AwareDatetime | None = Field(
        default=None, description="When the first of the windows in a row that drifted began; None: this one did not."
    )
    examples: tuple[Sha256, ...] = Field(
        default=(),
        description="Photographs whose files the window keeps, those first that the model was least sure of.",
    )

    @property
    def drifted(self) -> tuple[DriftFinding, ...]:
        """What drifted, the least likely first."""
        return tuple(sorted((found for found in self.findings if found.drifted), key=lambda found: found.p_value))
