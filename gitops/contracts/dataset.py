"""What extraction and labelling leave behind: datasets and their quality reports."""

from typing import Self

from pydantic import AwareDatetime, Field, model_validator

from gitops.contracts.base import Contract, Name, Sha256, Share, Split, Version
from gitops.contracts.project import Assertion, Preprocessing, SplitShares


class Quarantined(Contract):
    """A file that was set aside."""

    filename: str
    reason: str = Field(description="Why it was set aside, in words.")


class Feedback(Contract):
    """What somebody said of one served photograph: a line of a feedback file; a label once a person confirms it."""

    id: str | None = Field(default=None, max_length=128, description="Of the request that judged the photograph.")
    filename: str | None = Field(
        default=None, max_length=1000, description="Name of the photograph's file, where that is known."
    )
    sha256: Sha256 | None = Field(default=None, description="Of the photograph's file; it counts before the name.")
    photograph: str | None = Field(
        default=None, description="The photograph's file, relative to the feedback's; unset: it is known elsewhere."
    )
    label: str = Field(max_length=200, description="The class that it should have had.")
    said: str | None = Field(default=None, max_length=200, description="The class that was shown, at `threshold`.")
    score: Share | None = Field(default=None, description="The model's probability that the part is not good.")
    threshold: Share | None = Field(
        default=None, description="Smallest score that was shown as not good: whoever looked may have moved it."
    )
    model_name: Name | None = None
    model_version: Version | None = None
    model_digest: str | None = Field(
        default=None, pattern=r"^sha256:[0-9a-f]{64}$", description="Of the bundle that judged it."
    )
    sampled: bool = Field(
        default=False,
        description="Whether the photograph was chosen by chance, whatever it was judged as: only such ones tell how "
        "often a version is right.",
    )
    comment: str | None = Field(default=None, max_length=2000, description="What else there is to say.")
    by: str | None = Field(default=None, max_length=200, description="Who says so.")
    at: AwareDatetime | None = Field(default=None, description="When it was said, RFC 3339.")

    @model_validator(mode="after")
    def _names_a_photograph(self) -> Self:
        if not (self.filename or self.sha256):
            raise ValueError("it names no photograph: give `sha256` or `filename`")
        return self


class ChangedFiles(Contract):
    """Photographs that one kind of change concerns."""

    count: int = 0
    filenames: tuple[str, ...] = Field(default=(), description="The first of their names, sorted; not always all.")


class DatasetChanges(Contract):
    """What a dataset has otherwise than its parent; photographs are told apart by their SHA-256, not by their names."""

    added: ChangedFiles = ChangedFiles()
    removed: ChangedFiles = ChangedFiles()
    relabelled: ChangedFiles = Field(default=ChangedFiles(), description="In both, with another label.")


class LookalikeBars(Contract):
    """In how large a share of their bits the hashes of look-alikes differ at most; null: only copies are alike."""

    photograph: Share | None = Field(default=0.055, description="Of the perceptual hashes of the photographs.")
    part: Share | None = Field(default=0.115, description="Of the difference hashes of the model's inputs.")


class DatasetManifest(Contract):
    """What a dataset is: `datasets/<digest>/manifest.json`."""

    digest: Sha256 = Field(description="Of the images' contents, their labels, splits and the parameters.")
    project: Name
    source: str = Field(description="Where the images came from, as a URI or path.")
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    split: SplitShares | None = Field(default=None, description="How it was split; a child of the same keeps splits.")
    images: int = Field(description="Rows in the Parquet shards.")
    counts: dict[Split, dict[str, int]] = Field(description="Images by split and class.")
    kinds: dict[str, int] = Field(default={}, description="Images by type of defect, where it is known.")
    duplicates: int = Field(description="Images that are a near-duplicate of another.")
    lookalikes: LookalikeBars = Field(
        default=LookalikeBars(), description="What counts as a near-duplicate here; lower where all parts look alike."
    )
    quarantined: tuple[Quarantined, ...] = ()
    shards: tuple[str, ...] = Field(description="Parquet files, relative to the manifest.")
    parent: Sha256 | None = Field(
        default=None, description="The project's dataset when this one was made first; no part of the digest."
    )
    changes: DatasetChanges | None = Field(default=None, description="Since the parent.")


class ImageFinding(Contract):
    """One assertion's outcome."""

    assertion: Assertion
    passed: bool
    failing_share: Share
    failing_images: tuple[str, ...] = Field(default=(), description="File names that break it.")


class QualityReport(Contract):
    """The profile of a dataset and the outcome of its assertions."""

    dataset: Sha256
    images: int
    measures: dict[str, dict[str, float]] = Field(description="Per measure: min, p05, median, p95, max, mean.")
    class_balance: dict[str, int]
    duplicate_groups: tuple[tuple[str, ...], ...] = Field(default=(), description="File names that look the same.")
    findings: tuple[ImageFinding, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every assertion holds."""
        return all(finding.passed for finding in self.findings)
