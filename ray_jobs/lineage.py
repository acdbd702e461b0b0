"""What a dataset owes to the one before it: the splits that its images keep, and a list of what changed."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitops.contracts.base import Split
from gitops.contracts.dataset import ChangedFiles, DatasetChanges, DatasetManifest
from gitops.contracts.project import SplitShares
from ray_jobs.decoded import read_rows
from ray_jobs.stage import Stage

NAMED_FILES = 50
"""Most file names that a manifest lists for one kind of change."""


@dataclass(frozen=True)
class Image:
    """What is compared of an image."""

    filename: str
    sha256: str
    """Of the photograph's file: the image's identity, whatever it is called."""
    label: str


@dataclass(frozen=True)
class Parent:
    """The dataset that the project had before."""

    manifest: DatasetManifest
    images: tuple[Image, ...]
    split_of: dict[str, Split]
    """By SHA-256."""

    def kept_splits(self, shares: SplitShares) -> dict[str, Split]:
        """The splits that images keep, by SHA-256: all of them, or none if the project's shares or seed are others."""
        # A dataset from before manifests said how they were split is taken to be split alike: rather a seed that
        # changes nothing once, than an image to train on that was held out.
        return self.split_of if self.manifest.split in (None, shares) else {}


def parent_of(stage: Stage) -> Parent | None:
    """Read the project's current dataset; None if there is none, or if its folder is gone.

    Raises:
        ContractError: its manifest is no manifest.
        DataError: it cannot be read.
    """
    pointer = stage.dataset_pointer
    if not pointer.exists():
        return None
    folder = stage.state.datasets / pointer.read_text().strip()
    if not (folder / "manifest.json").exists():
        print(f"dataset {folder.name[:12]} is gone: the new one names no parent, and its images are split anew")
        return None
    manifest = stage.dataset()
    rows = _rows(folder, manifest, "split")
    return Parent(manifest, images_of(rows, manifest.classes), {row["sha256"]: row["split"] for row in rows})


def changes_since(stage: Stage, digest: str) -> DatasetChanges | None:
    """What the project's current dataset has, and an earlier one has not; None if that one is gone.

    Raises:
        DataError: the project has no dataset, or one of the two cannot be read.
    """
    current = stage.dataset()
    folder = stage.state.datasets / digest
    if not (folder / "manifest.json").exists():
        return None
    earlier = DatasetManifest.read(folder / "manifest.json")
    before = images_of(_rows(folder, earlier), earlier.classes)
    after = images_of(_rows(stage.state.datasets / current.digest, current), current.classes)
    return changes(before, after)


def _rows(folder: Path, manifest: DatasetManifest, *more: str) -> list[dict[str, Any]]:
    return read_rows(folder, manifest, ["filename", "sha256", "label", *more])


def images_of(rows: Iterable[dict[str, Any]], classes: tuple[str, ...]) -> tuple[Image, ...]:
    """The images of rows with the shards' columns `filename`, `sha256` and `label`."""
    return tuple(Image(row["filename"], row["sha256"], classes[row["label"]]) for row in rows)


def changes(before: Iterable[Image], after: Iterable[Image]) -> DatasetChanges:
    """What changed, by content: a renamed image is the same one, and one that is written anew is another."""
    old, new = tuple(before), tuple(after)
    was, has = {image.sha256 for image in old}, {image.sha256 for image in new}
    labelled = {(image.sha256, image.label) for image in old}
    return DatasetChanges(
        added=_files(image for image in new if image.sha256 not in was),
        removed=_files(image for image in old if image.sha256 not in has),
        relabelled=_files(
            image for image in new if image.sha256 in was and (image.sha256, image.label) not in labelled
        ),
    )


def _files(images: Iterable[Image]) -> ChangedFiles:
    names = sorted(image.filename for image in images)
    return ChangedFiles(count=len(names), filenames=tuple(names[:NAMED_FILES]))


def summary(parent: str, changed: DatasetChanges) -> str:
    """One line that says what changed, such as `changes since 0123456789ab: 3 added, 1 relabelled`."""
    kinds = {"added": changed.added, "removed": changed.removed, "relabelled": changed.relabelled}
    counts = [f"{files.count} {kind}" for kind, files in kinds.items() if files.count]
    return f"changes since {parent[:12]}: {', '.join(counts) or 'no photograph and no label'}"
