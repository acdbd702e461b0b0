"""Transform and load: photographs become Parquet shards of model inputs.

python -m ray_jobs.etl --project project.yaml --state .mergeline
"""

import hashlib
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa
import pyarrow.parquet as pq

from gitops.contracts.base import Split
from gitops.contracts.dataset import DatasetManifest, Quarantined
from gitops.contracts.project import Preprocessing, Project
from gitops.errors import DataError
from gitops.state import folder_written_whole, locked, stable_json, write_atomically
from ray_jobs import lineage, measures
from ray_jobs import split as splitting
from ray_jobs.dataset import Listing, Photograph, read_listing
from ray_jobs.decoded import discard_old
from ray_jobs.lineage import Image, Parent
from ray_jobs.split import Sample
from ray_jobs.stage import Stage, arguments, open_stage, ray_session, recorded, report_progress, run_main
from serve import measures as measuring
from serve import preprocess
from serve.preprocess import ImageError, Pixels, align, decode

SHARD_IMAGES = 128
"""Most images in a shard."""
# Photographs that one task reads: few enough for all cores and a progress bar, and as many as that allows: a task costs
# 70 ms of CPU and lets a core wait for 90, a photograph of a megapixel costs 14.
_LEAST_BATCH, _MOST_BATCH, _TASKS_PER_CPU = 16, 96, 4
_ROWS_AT_ONCE = 16  # of the staged file
_NAMED_FILES = 10

COLUMNS: dict[str, tuple[Any, str]] = {
    "filename": (pa.string(), "Name in the source."),
    "label": (pa.int32(), "Index into the manifest's classes."),
    "kind": (pa.string(), "Type of defect; null for good ones and where it is not known."),
    "image": (pa.binary(), "The model's input as PNG, height × width × channels."),
    "sha256": (pa.string(), "Of the photograph's file."),
    "phash": (pa.string(), "Perceptual hash of the photograph, hexadecimal."),
    "dhash": (pa.string(), "Difference hash of the model's input, hexadecimal."),
    "split": (pa.string(), "train, validation or test."),
    **{
        name: (pa.int64() if field.annotation is int else pa.float64(), str(field.description))
        for name, field in measuring.Measures.model_fields.items()
    },
}
"""Type and meaning of every column of the shards."""

_SCHEMA = pa.schema([(name, kind) for name, (kind, _) in COLUMNS.items()])
# Before splitting there is no split, but perhaps a reason why a file cannot be used.
_STAGED = pa.schema([field for field in _SCHEMA if field.name != "split"] + [pa.field("error", pa.string())])


@recorded("etl")
def run(stage: Stage) -> DatasetManifest:
    """Make a dataset of the extracted photographs, or find the one that was made of the same before.

    Raises:
        DataError: too many files cannot be read, or a class is too small to be split.
    """
    listing = read_listing(stage)
    datasets = stage.state.datasets
    made_before = datasets / ".made" / _key(stage.project, listing)
    with _alone(datasets):
        if made_before.exists():
            digest = made_before.read_text().strip()
            if (datasets / digest / "manifest.json").exists():
                _use(stage, digest)
                manifest = stage.dataset()
                print(f"nothing to do: dataset {digest[:12]} ({manifest.images} images) was made of the same input")
                return manifest
        with ray_session():
            manifest = _make(stage, listing)
        write_atomically(made_before, manifest.digest + "\n")
        _use(stage, manifest.digest)
    counts = ", ".join(f"{name} {sum(by_class.values())}" for name, by_class in manifest.counts.items())
    print(f"dataset {manifest.digest[:12]}: {manifest.images} images ({counts}), {len(manifest.quarantined)} set aside")
    if manifest.lookalikes != splitting.FULL_BARS:
        print(
            "mind: all these parts look so alike that only very close copies are kept on one side of a split: if some "
            "were photographed several times, the figures flatter; keep one photograph of each"
        )
    if manifest.parent is not None and manifest.changes is not None:
        print(lineage.summary(manifest.parent, manifest.changes))
    return manifest


def _use(stage: Stage, digest: str) -> None:
    """Let the later stages read a dataset; what they decoded of the one before takes no more room."""
    stage.use_dataset(digest)
    discard_old(stage.state.datasets)


def _key(project: Project, listing: Listing) -> str:
    """What a dataset depends on, known before anything is decoded: files, labels, parameters and code."""
    # Where the files lie is no part of it, and neither is the dataset before: the same input is the same dataset.
    files = [photograph.model_dump(mode="json", exclude={"path"}) for photograph in listing.photographs]
    aside = [item.model_dump(mode="json") for item in listing.quarantined]
    code = [
        hashlib.sha256(Path(str(m.__file__)).read_bytes()).hexdigest()
        for m in (preprocess, measuring, splitting, measures, lineage)
    ]
    code += [hashlib.sha256(Path(__file__).read_bytes()).hexdigest(), cv2.__version__]
    settings = [*_parameters(project), project.data.max_quarantine_share]
    return hashlib.sha256(stable_json([files, aside, code, settings]).encode()).hexdigest()


def _parameters(project: Project) -> list[object]:
    return [
        project.name,
        list(project.classes),
        project.preprocessing.model_dump(mode="json"),
        project.split.model_dump(mode="json"),
    ]


@contextmanager
def _alone(datasets: Path) -> Iterator[None]:
    """Keep other ETLs of this state waiting; what killed ones left behind is removed."""
    with locked(datasets / ".lock"):
        for leftover in datasets.glob(".*"):
            if leftover.name not in (".lock", ".made"):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        yield


def _make(stage: Stage, listing: Listing) -> DatasetManifest:
    """Decode everything into one staged file, split by its small columns, and write the shards from it."""
    project, datasets = stage.project, stage.state.datasets
    parent = lineage.parent_of(stage)
    kept = parent.kept_splits(project.split) if parent else {}
    with tempfile.TemporaryDirectory(dir=datasets, prefix=".staged-") as staging:
        staged = Path(staging) / "rows.parquet"
        rows = _stage_rows(listing, project, staged)
        failed = [Quarantined(filename=row["filename"], reason=row["error"]) for row in rows if row["error"]]
        quarantined = (*listing.quarantined, *failed)
        rows = [row for row in rows if not row["error"]]
        _check_quarantine(quarantined, len(rows), project.data.max_quarantine_share)
        samples = [Sample.of(row, project.classes) for row in rows]
        bars = splitting.bars_of(samples)
        groups = splitting.groups_of_lookalikes(samples, bars)
        splits = splitting.assign_splits(samples, groups, project.classes, project.split, kept)
        contents = sorted(stable_json({**row, "split": split}) for row, split in zip(rows, splits, strict=True))
        digest = hashlib.sha256(stable_json([contents, _parameters(project)]).encode()).hexdigest()
        with folder_written_whole(datasets / digest) as folder:
            split_of = {row["filename"]: split for row, split in zip(rows, splits, strict=True)}
            manifest = DatasetManifest(
                digest=digest,
                project=project.name,
                source=listing.source,
                classes=project.classes,
                preprocessing=project.preprocessing,
                split=project.split,
                images=len(rows),
                counts=_counts(samples, splits, project.classes),
                kinds=dict(sorted(Counter(sample.kind for sample in samples if sample.kind).items())),
                lookalikes=bars,
                duplicates=sum(size for size in Counter(groups.tolist()).values() if size > 1),
                quarantined=quarantined,
                shards=tuple(_write_shards(staged, split_of, folder)),
                **_ancestry(parent, datasets / digest, lineage.images_of(rows, project.classes)),
            )
            (folder / "manifest.json").write_text(manifest.to_json())
    # The images are what the digest says; where they came from and what was set aside may be newer.
    write_atomically(datasets / digest / "manifest.json", manifest.to_json())
    return manifest


def _ancestry(parent: Parent | None, folder: Path, images: tuple[Image, ...]) -> dict[str, Any]:
    """The manifest's `parent` and `changes`; a dataset that was made before keeps those that it had."""
    if (folder / "manifest.json").exists():
        before = DatasetManifest.read(folder / "manifest.json")
        return {"parent": before.parent, "changes": before.changes}
    if parent is None:
        return {}
    return {"parent": parent.manifest.digest, "changes": lineage.changes(parent.images, images)}


def _counts(samples: list[Sample], splits: list[Split], classes: tuple[str, ...]) -> dict[Split, dict[str, int]]:
    tally = Counter((name, sample.label) for sample, name in zip(samples, splits, strict=True))
    return {name: {label: tally[name, label] for label in classes} for name in splitting.SPLITS}


def _check_quarantine(quarantined: tuple[Quarantined, ...], usable: int, most: float) -> None:
    share = len(quarantined) / max(1, usable + len(quarantined))
    if share <= most:
        return
    named = "".join(f"\n  {item.filename}: {item.reason}" for item in quarantined[:_NAMED_FILES])
    more = len(quarantined) - _NAMED_FILES
    raise DataError(
        f"{len(quarantined)} of {usable + len(quarantined)} files cannot be used, {share:.1%}, more than "
        f"data.max_quarantine_share allows ({most:.1%}); mend or remove them, or raise the share:{named}"
        + (f"\n  … and {more} more" if more > 0 else "")
    )


# --- reading: photographs to rows -------------------------------------------------------------------------------------


def _stage_rows(listing: Listing, project: Project, staged: Path) -> list[dict[str, Any]]:
    """Decode all photographs on all cores into one file.

    Returns:
        The rows without their images, which have a digest instead: all that splitting needs.
    """
    rows: list[dict[str, Any]] = []
    with pq.ParquetWriter(staged, _STAGED) as writer:
        for table in _decoded(listing, project):
            writer.write_table(table)
            digests = [hashlib.sha256(image.as_py() or b"").hexdigest() for image in table["image"]]
            small = table.drop_columns(["image"]).to_pylist()
            rows += [{**row, "image": digest} for row, digest in zip(small, digests, strict=True)]
            report_progress(len(rows), len(listing.photographs), "photographs read")
    return rows


def _decoded(listing: Listing, project: Project) -> Iterator[pa.Table]:
    """Rows of the staged schema, in the listing's order, a batch at a time."""
    import ray

    def read(photographs: Any) -> Any:
        found = (Photograph(**row) for row in photographs.to_pylist())
        rows = [_read_row(photograph, project.classes, project.preprocessing) for photograph in found]
        return pa.Table.from_pylist(rows, schema=_STAGED)

    cpus = ray.cluster_resources().get("CPU", 1)  # type: ignore[no-untyped-call]
    wished = math.ceil(len(listing.photographs) / (_TASKS_PER_CPU * cpus))
    size = min(max(wished, _LEAST_BATCH), _MOST_BATCH)
    context = ray.data.DataContext.get_current()
    before = context.execution_options.preserve_order, context.enable_progress_bars
    context.execution_options.preserve_order, context.enable_progress_bars = True, False
    try:
        photographs = pa.Table.from_pylist([item.model_dump() for item in listing.photographs])
        batches = [photographs.slice(start, size) for start in range(0, len(photographs), size)]
        # Paths go to the workers, and bytes stay there: three times as fast as sending photographs around.
        rows = ray.data.from_arrow(batches).map_batches(read, batch_size=None, batch_format="pyarrow")
        batch: Any  # the format that was asked for: pyarrow.Table
        for batch in rows.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield batch.cast(_STAGED)
    finally:
        context.execution_options.preserve_order, context.enable_progress_bars = before


def _read_row(photograph: Photograph, classes: tuple[str, ...], preprocessing: Preprocessing) -> dict[str, Any]:
    """One row of the staged schema; a file that cannot be used is one with an error."""
    row: dict[str, Any] = {
        "filename": photograph.filename,
        "label": classes.index(photograph.label),
        "kind": photograph.kind,
        "sha256": photograph.sha256,
    }
    try:
        data = Path(photograph.path).read_bytes()
        if hashlib.sha256(data).hexdigest() != photograph.sha256:
            return {**row, "error": "the file has changed since it was listed: run the dataset stage again"}
        pixels = decode(data, preprocessing.channels)
        aligned = align(pixels, preprocessing)
    except ImageError as error:
        return {**row, "error": str(error)}
    except OSError as error:
        return {**row, "error": f"the file cannot be read: {error.strerror}"}
    return {
        **row,
        "image": _png(aligned.pixels),
        "phash": measures.phash(pixels),
        "dhash": measures.dhash(aligned.pixels),
        **measuring.measure(pixels, aligned).model_dump(),
    }


def _png(pixels: Pixels) -> bytes:
    ordered = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.shape[2] == 3 else pixels
    return bytes(cv2.imencode(".png", ordered)[1].tobytes())


# --- writing: rows to shards ------------------------------------------------------------------------------------------


def _write_shards(staged: Path, split_of: dict[str, Split], folder: Path) -> list[str]:
    """Stream the staged rows into `<split>-<number>.parquet`.

    Returns:
        The shards' names.
    """
    waiting: dict[Split, list[pa.Table]] = {name: [] for name in splitting.SPLITS}
    shards: list[str] = []

    def write(name: Split) -> None:
        number = sum(shard.startswith(f"{name}-") for shard in shards)
        shards.append(f"{name}-{number:05d}.parquet")
        pq.write_table(pa.concat_tables(waiting[name]), folder / shards[-1])
        waiting[name].clear()

    # With its buffer Arrow would read the whole file ahead.
    for batch in pq.ParquetFile(staged, pre_buffer=False).iter_batches(batch_size=_ROWS_AT_ONCE):
        table = pa.Table.from_batches([batch])
        names = [split_of.get(filename) for filename in table["filename"].to_pylist()]
        table = table.append_column("split", pa.array(names, pa.string())).select(_SCHEMA.names)
        for name, rows in waiting.items():
            rows.append(table.filter(pa.array([value == name for value in names])))
            if sum(map(len, rows)) >= SHARD_IMAGES:
                write(name)
    for name, rows in waiting.items():
        if sum(map(len, rows)):
            write(name)
    return sorted(shards)


def main() -> None:
    """Run the ETL as a program."""
    run(open_stage(arguments("Turn the extracted photographs into a dataset.").parse_args()))


if __name__ == "__main__":
    run_main(main)
