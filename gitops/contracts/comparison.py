"""What comparing two versions leaves behind."""

from pydantic import Field

from gitops.contracts.base import Contract, Sha256, Share, Split
from gitops.contracts.serving import ServedModel

LEAST_P = 0.001
"""Below it a p value is not written out: three digits say enough."""


class ComparedVersion(Contract):
    """One of the two versions of a comparison."""

    model: ServedModel
    threshold: Share = Field(description="Its bundle's: a photograph whose score is at least this is not good.")
    dataset: Sha256 = Field(description="What it was trained on.")


class MetricDifference(Contract):
    """A metric of both versions on the same images."""

    a: float
    b: float
    difference: float = Field(description="b − a: above 0, B is better.")
    low: float = Field(description="Lower end of the difference's 95 % interval.")
    high: float = Field(description="Its upper end.")


class McNemar(Contract):
    """McNemar's exact test: the images that only one of the two judges right."""

    only_a_right: int
    only_b_right: int
    p_value: Share = Field(description="Two-sided: how likely so uneven a split is where both are right equally often.")

    @property
    def p_text(self) -> str:
        """The p value as it is written."""
        return f"p = {self.p_value:.3f}" if self.p_value >= LEAST_P else f"p < {LEAST_P}"


class Disagreement(Contract):
    """An image that the two versions judge differently."""

    filename: str
    label: str = Field(description="The truth.")
    a: str = Field(description="What A says.")
    b: str = Field(description="What B says.")
    a_score: Share = Field(description="Probability that the part is not good, by A.")
    b_score: Share = Field(description="The same by B.")


class Newcomers(Contract):
    """What two versions say of photographs that are in the dataset of the second, and not in that of the first.

    The first had not seen them. Of the second, held-out ones are judged by itself, the others out of fold.
    """

    images: int
    labels: dict[str, int] = Field(description="The truth: how many of each class, in their order.")
    held_out: int = Field(description="Those of them in the test split.")
    left_out: int = Field(default=0, description="Further ones, which look like some that the first was made of.")
    not_judged: int = Field(
        default=0, description="Further ones, in the validation split: the second was chosen by them."
    )
    a_right: int = Field(description="Judged right by the first.")
    b_right: int = Field(description="Judged right by the second.")
    mcnemar: McNemar

    @property
    def summary(self) -> str:
        """What it came to, in a line."""
        if not self.images:
            chosen = f", {self.not_judged} chose the threshold" if self.not_judged else ""
            return f"no photograph that came since and tells something: {self.left_out} look like older ones{chosen}"
        kinds = ", ".join(f"{count} {label}" for label, count in self.labels.items() if count)
        alike = f"; {self.left_out} more look like older ones" if self.left_out else ""
        alike += f"; {self.not_judged} more chose the threshold" if self.not_judged else ""
        return (
            f"{self.images} photographs that came since ({kinds}; {self.held_out} held out, the others judged out of "
            f"fold): {self.b_right} right against {self.a_right}, McNemar {self.mcnemar.p_text}{alike}"
        )


class Comparison(Contract):
    """Two versions on the same images, to none of which either was fitted: `comparisons/<name>/<A>-<B>/…`."""

    a: ComparedVersion
    b: ComparedVersion
    dataset: Sha256 = Field(description="Whose images both judged.")
    split: Split = "test"
    images: int
    metrics: dict[str, MetricDifference] = Field(
        description="accuracy, balanced_accuracy, auroc, recall, precision, by name."
    )
    mcnemar: McNemar
    resamples: int = Field(description="Of the bootstrap that the intervals come from.")
    disagreements: tuple[Disagreement, ...] = ()
    left_out: tuple[str, ...] = Field(
        default=(), description="File names of the split that one of the two was fitted to, or to lookalikes of them."
    )
    newcomers: Newcomers | None = Field(
        default=None, description="None: none came since, or nobody can say which, or how the second would judge them."
    )
    warnings: tuple[str, ...] = Field(default=(), description="What makes the figures less sure, in words.")

    @property
    def summary(self) -> str:
        """What it came to, in a line."""
        one, other = self.a.model, self.b.model
        found = self.metrics["accuracy"]
        mind = f"; mind: {'; '.join(self.warnings)}" if self.warnings else ""
        newcomers = f"; {self.newcomers.summary}" if self.newcomers else ""
        return (
            f"{other} against {one} on {self.images} held-out images: "
            f"accuracy {found.b:.4f} against {found.a:.4f} ({found.difference:+.4f}; 95 %: {found.low:+.4f} to "
            f"{found.high:+.4f}), McNemar {self.mcnemar.p_text}{newcomers}{mind}"
        )
