"""A split of a dataset, decoded once into a file that every process maps: memory does not grow with the images.

Shards hold PNG files, and a training wants any image at any time. So the first that asks decodes a split, a few images
at a time, into `datasets/<digest>/.decoded/<split>.npy`; workers and folds then share the pages that the kernel keeps
of it, and that it may drop. The folder can be removed at any time: whoever needs it makes it again.
"""

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gitops.contracts.base import Split
from gitops.contracts.dataset import DatasetManifest
from gitops.errors import DataError
from gitops.state import locked
from ray_jobs.split import Sample

FOLDER = ".decoded"
"""In the dataset's folder; no part of the dataset."""
_BATCH = 64
_NO_PLACE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


@dataclass(frozen=True)
class SplitImages:
    """A split: what is known of its images in memory, their pixels in a file."""

    images: NDArray[np.uint8]
    """(n, height, width, channels), mapped and read-only: index it a few images at a time. RGB order where there are
    three channels."""
    labels: NDArray[np.int64]
    """(n,), indices into the manifest's classes."""
    kinds: tuple[str | None, ...]
    """Type of defect, where it is known."""
    filenames: tuple[str, ...]
    sha256: tuple[str, ...]
    """Of the photographs' files."""


def load_split(dataset_folder: Path, manifest: DatasetManifest, split: Split) -> SplitImages:
    """Open a split; the first call decodes it.

    Args:
        dataset_folder: in which the manifest's shards lie.
        manifest: of that dataset.
        split: which part of it.

    Raises:
        DataError: the dataset has no shard of that split or cannot be read, or there is no room for the decoded images.
    """
    shards = [dataset_folder / name for name in manifest.shards if name.startswith(f"{split}-")]
    if not shards:
        raise DataError(f"dataset {manifest.digest[:12]} in {dataset_folder} has no {split} split: run the ETL again")
    columns = ["label", "kind", "filename", "sha256"]
    with _readable(dataset_folder, manifest):
        rows = [pq.read_table(shard, columns=columns) for shard in shards]
        labels = np.concatenate([np.asarray(part["label"].to_numpy(), np.int64) for part in rows])
        inputs = manifest.preprocessing
        shape = len(labels), inputs.height, inputs.width, inputs.channels
        images = _mapped(dataset_folder / FOLDER / f"{split}.npy", shards, shape)
    return SplitImages(
        images=images,
        labels=labels,
        kinds=tuple(kind for part in rows for kind in part["kind"].to_pylist()),
        filenames=tuple(name for part in rows for name in part["filename"].to_pylist()),
        sha256=tuple(digest for part in rows for digest in part["sha256"].to_pylist()),
    )


def read_samples(dataset_folder: Path, manifest: DatasetManifest, *splits: Split) -> list[Sample]:
    """The images of some splits as splitting sees them, each in the order of `load_split`.

    Raises:
        DataError: the dataset cannot be read.
    """
    columns = ["sha256", "phash", "dhash", "label", "kind"]
    return [Sample.of(row, manifest.classes) for row in read_rows(dataset_folder, manifest, columns, *splits)]


def read_rows(
    dataset_folder: Path, manifest: DatasetManifest, columns: Sequence[str], *splits: Split
) -> list[dict[str, Any]]:
    """Some columns of the rows of some splits; of all rows, in the order of the shards, if none is named.

    Raises:
        DataError: the dataset cannot be read.
    """
    named = [name for split in splits for name in manifest.shards if name.startswith(f"{split}-")]
    with _readable(dataset_folder, manifest):
        tables = [
            pq.read_table(dataset_folder / name, columns=columns) for name in (named if splits else manifest.shards)
        ]
        return [row for table in tables for row in table.to_pylist()]


@contextmanager
def _readable(dataset_folder: Path, manifest: DatasetManifest) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"dataset {manifest.digest[:12]} cannot be read ({error}): remove {dataset_folder} and run the ETL again"
        ) from error


def discard_old(datasets: Path) -> None:
    """Remove the decoded images of all datasets but those that a project reads now.

    Whoever has one of them mapped keeps it; whoever needs it again decodes it again.

    Args:
        datasets: the state's folder of them, with a `<project>.current` for each project.
    """
    current = {pointer.read_text().strip() for pointer in datasets.glob("*.current")}
    for lock in datasets.glob(f"*/{FOLDER}/*.lock"):
        if lock.parents[1].name not in current:
            with locked(lock):  # which stays: whoever waits for it must go on waiting for the same file
                lock.with_suffix(".npy").unlink(missing_ok=True)


def _mapped(file: Path, shards: Sequence[Path], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The decoded images of shards, of this shape; one process makes the file, and others wait for it."""
    found = _opened(file, shape)
    if found is not None:  # it appears whole: to look takes no lock, and no right to write
        return found
    try:
        with locked(file.with_suffix(".lock")):
            found = _opened(file, shape)
            if found is None:
                for leftover in file.parent.glob(f".{file.name}.*"):  # of one that was killed
                    shutil.rmtree(leftover)
                _decode(file, shards, shape)
                found = _load(file)
            return found
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        raise DataError(
            f"the decoded images cannot be kept in {file.parent} ({error.strerror}): they take "
            f"{math.prod(shape) / 2**20:.0f} MiB, and the dataset's folder must be writable"
        ) from error


def _opened(file: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The mapped file; None if there is none that fits."""
    try:
        images = _load(file)
    except (FileNotFoundError, ValueError, EOFError):  # the last two are NumPy's words for a damaged file
        return None
    return images if images.shape == shape and images.dtype == np.uint8 else None


def _load(file: Path) -> NDArray[np.uint8]:
    return np.asarray(np.load(file, mmap_mode="r"))


def _decode(file: Path, shards: Sequence[Path], shape: tuple[int, ...]) -> None:
    """Write the file, whole or not at all, a few images at a time.

    It is written, not mapped: a full disk is then an error, and no SIGBUS.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    color = cv2.IMREAD_GRAYSCALE if shape[3] == 1 else cv2.IMREAD_COLOR_RGB
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.name}.") as scratch:
        written = Path(scratch) / file.name
        with written.open("wb") as output:
            np.lib.format.write_array_header_1_0(output, header)
            for shard in shards:
                for batch in pq.ParquetFile(shard).iter_batches(batch_size=_BATCH, columns=["image"]):
                    for cell in batch["image"]:
                        pixels = cv2.imdecode(np.frombuffer(cell.as_py(), np.uint8), color)
                        output.write(np.asarray(pixels, np.uint8).reshape(shape[1:]).tobytes())
            output.flush()
            os.fsync(output.fileno())
        written.replace(file)
