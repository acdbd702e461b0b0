"""Extract: fetch the photographs and their labels from Kaggle, a folder, or the drawing of screws.

python -m ray_jobs.dataset --project project.yaml --state .mergeline [--data rendered|kaggle|FOLDER]
"""

import hashlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pydantic import Field

from gitops.contracts.base import Contract, Sha256
from gitops.contracts.dataset import Quarantined
from gitops.contracts.project import DataSource
from gitops.errors import DataError
from gitops.state import stable_json, write_atomically
from ray_jobs import render
from ray_jobs.folders import absolute, class_of_folder, name_at, usual_depth
from ray_jobs.kaggle import fetch_kaggle
from ray_jobs.label_book import book_file, labels_of, read_book
from ray_jobs.labels import class_of, classes_text, kind_reader, read_label_studio, resolve, table_rows
from ray_jobs.stage import Stage, arguments, open_stage, recorded, run_main
from serve.photographs import IMAGE_SUFFIXES, files_below, images_below

TABLE = "train.csv"


class Photograph(Contract):
    """A labelled photograph, as it came."""

    path: str = Field(description="Where the file lies; no part of any digest.")
    filename: str = Field(description="Its name in the source; unique there.")
    label: str = Field(description="One of the project's classes.")
    kind: str | None = Field(default=None, description="Type of defect, where it is known.")
    sha256: Sha256 = Field(description="Of the file.")


class Listing(Contract):
    """What the extraction found: `sources/<project>.json`; the ETL reads it."""

    source: str = Field(description="Where the photographs came from.")
    folder: str | None = Field(default=None, description="The folder in which they lie; no part of any digest.")
    data: str | None = Field(default=None, description="What was named instead of the project's source, if anything.")
    photographs: tuple[Photograph, ...] = Field(description="Sorted by name.")
    quarantined: tuple[Quarantined, ...] = Field(default=(), description="Files without a usable label or bytes.")


@dataclass(frozen=True)
class Found:
    """A file of a source, whatever is known of it; or a label whose file is not there."""

    filename: str
    """Its name in the source; unique there."""
    path: Path | None
    labels: frozenset[str]
    """What it is labelled; usable if that is exactly one class."""
    kind: str | None
    sha256: str | None
    """Of the file; None where it cannot be read."""

    @property
    def label(self) -> str | None:
        """Its class, if it has exactly one."""
        return next(iter(self.labels)) if len(self.labels) == 1 else None

    @classmethod
    def unlabelled(cls, filename: str, path: Path) -> "Found":
        """A file of which nothing is known."""
        return cls(filename, path, frozenset(), None, _sha256(path))


@dataclass
class _Candidate:
    """A file or a label that was seen; complete when it has a file and exactly one label."""

    path: Path | None = None
    labels: set[str] = field(default_factory=set)
    kind: str | None = None


def listing_file(stage: Stage) -> Path:
    """Where the project's newest listing lies."""
    return stage.state.sources / f"{stage.project.name}.json"


def read_listing(stage: Stage) -> Listing:
    """The listing that the last extraction wrote.

    Raises:
        DataError: there is none yet.
    """
    if not listing_file(stage).exists():
        raise DataError(f"{stage.project.name} has no photographs yet in {stage.state.root}: run the dataset stage")
    return Listing.read(listing_file(stage))


def read_photograph(path: Path, sha256: str) -> bytes:
    """The bytes of a photograph that a dataset was made of.

    Raises:
        DataError: it cannot be read, or is another one by now.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"the photograph {path} cannot be read ({error.strerror}): put it back") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DataError(f"the photograph {path} is not the one of the dataset: run the dataset stage and the ETL again")
    return data


@recorded("dataset")
def extract(stage: Stage, data: str | None = None) -> Listing:
    """Fetch and list the photographs.

    Args:
        stage: project and state.
        data: `rendered`, `kaggle` or a folder instead of the project's source.

    Raises:
        DataError: the source cannot be had, or is not what it should be.
    """
    folder, origin = _fetch(stage, _chosen_source(stage.project.data, data))
    imported = imported_labels(stage)
    settings = stage.project.data
    listing = list_folder(
        folder,
        origin,
        stage.project.classes,
        settings.kind_pattern,
        _labels_file(stage),
        imported=imported,
        folders=settings.folders,
        brought=brought_photographs(stage),
    )
    if data is not None:
        listing = listing.model_copy(update={"data": absolute(data)})
    if imported:
        used = sum(photograph.sha256 in imported for photograph in listing.photographs)
        print(f"{used} labels as they were imported into {book_file(stage)}")
    target = listing_file(stage)
    summary = f"{len(listing.photographs)} photographs from {origin}, {len(listing.quarantined)} set aside"
    if target.exists() and target.read_text() == listing.to_json():
        print(f"nothing to do: {summary}, as before")
    else:
        write_atomically(target, listing.to_json())
        print(summary)
    return listing


def last_data(stage: Stage) -> str | None:
    """What the last extraction was to read instead of the project's source; None: nothing else, or there was none."""
    return read_listing(stage).data if listing_file(stage).exists() else None


def source_folder(stage: Stage, data: str | None = None) -> tuple[Path, str]:
    """The folder that holds the photographs, and the source's name.

    Args:
        stage: project and state.
        data: `rendered`, `kaggle` or a folder; None for what was extracted last, or else the project's source.

    Raises:
        DataError: the source cannot be had.
    """
    if data is None and listing_file(stage).exists():
        listing = read_listing(stage)
        if listing.folder is not None and Path(listing.folder).is_dir():
            return Path(listing.folder), listing.source
    return _fetch(stage, _chosen_source(stage.project.data, data))


def survey(stage: Stage, folder: Path) -> list[Found]:
    """Everything in a source's folder, labelled as the next extraction would label it, or not at all.

    Raises:
        DataError: the labels that there are are not what they should be.
    """
    imported = imported_labels(stage)
    candidates = _candidates(folder, stage.project.classes, stage.project.data.folders, may_lack_labels=True)
    found = _labelled(candidates, stage.project.classes, _labels_file(stage), imported)
    return _joined(found, brought_photographs(stage), imported)


def imported_labels(stage: Stage) -> dict[str, str]:
    """The labels that were imported for the project: by the photograph's SHA-256, its class.

    Raises:
        DataError: one of them is no class of the project's any more.
    """
    return labels_of(read_book(stage), stage.project.classes, book_file(stage))


def brought_folder(stage: Stage) -> Path:
    """Where photographs lie that came with feedback, or out of windows, and are not in the source."""
    return stage.state.labels / stage.project.name


def brought_name(sha256: str, filename: str, suffix: str) -> str:
    """The name in `brought_folder` of a photograph; what people and cameras call it stays to be read."""
    stem = PurePosixPath(filename.replace("\\", "/")).stem
    name = re.sub(r"[^\w-]+", "_", stem)[-100:] or "photograph"
    return f"{sha256[:12]}-{name}{suffix}"


def _own_name(filename: str) -> str:
    """What a photograph is called, without what `brought_name` put before it."""
    return re.sub(r"^feedback/[0-9a-f]{12}-", "", filename)


def brought_photographs(stage: Stage) -> dict[str, Path]:
    """The photographs of `brought_folder`, by the names that they have beside those of the source."""
    return {f"feedback/{name}": path for name, path in images_below(brought_folder(stage)).items()}


def waiting(stage: Stage) -> list[Found]:
    """The photographs beside the source that have no imported label yet."""
    imported = imported_labels(stage)
    found = (Found.unlabelled(name, path) for name, path in brought_photographs(stage).items())
    return [item for item in found if item.sha256 not in imported]


def _labels_file(stage: Stage) -> Path | None:
    labels = stage.project.data.labels
    return stage.project_file.parent / labels if labels else None


def _chosen_source(source: DataSource, data: str | None) -> DataSource:
    if data is None:
        return source
    if not data:
        raise DataError("--data is empty: name rendered, kaggle or a folder")
    if data == "kaggle" and not source.kaggle:
        raise DataError("--data kaggle needs `data.kaggle: owner/dataset` in the project file")
    if data in ("rendered", "kaggle"):
        return source.model_copy(update={"source": data})
    return source.model_copy(update={"source": "folder", "path": str(Path(data).expanduser().resolve())})


def _fetch(stage: Stage, source: DataSource) -> tuple[Path, str]:
    """The folder that holds the source's photographs, and the source's name."""
    if source.source == "rendered":
        return _rendered(stage.state.sources, source)
    if source.source == "kaggle":
        dataset = str(source.kaggle)
        return fetch_kaggle(dataset, stage.state.sources / "kaggle"), f"kaggle:{dataset}"
    folder = (stage.project_file.parent / Path(str(source.path)).expanduser()).resolve()
    if not folder.is_dir():
        found = "is a file, and must be a folder" if folder.exists() else "does not exist"
        raise DataError(f"the data folder {folder} {found}: correct --data, or `data.path` in the project file")
    return folder, folder.as_uri()


def _rendered(sources: Path, source: DataSource) -> tuple[Path, str]:
    settings = [source.rendered_images, source.rendered_defective_share, source.seed]
    # What draws is part of the name: after a change of it, images of old and new must not mix.
    drawing = hashlib.sha256(Path(render.__file__).read_bytes()).hexdigest()
    key = hashlib.sha256(stable_json([drawing, *settings]).encode()).hexdigest()[:12]
    folder = sources / f"rendered-{key}"
    drawn = render.write(folder, source.rendered_images, source.rendered_defective_share, source.seed)
    print(f"drew {drawn} images; {source.rendered_images - drawn} were there already")
    return folder, f"rendered:{source.rendered_images}-images-seed-{source.seed}"


# --- folders and labels -----------------------------------------------------------------------------------------------


def list_folder(
    folder: Path,
    origin: str,
    classes: tuple[str, ...],
    kind_pattern: str | None = None,
    labels: Path | None = None,
    imported: Mapping[str, str] | None = None,
    folders: Mapping[str, str | None] | None = None,
    brought: Mapping[str, Path] | None = None,
) -> Listing:
    """List the photographs of a folder with their labels; what has no usable label is set aside with the reason.

    Args:
        folder: `train/` with `train.csv`, or folders named after classes or kinds of defect, at any depth; with
            `labels`, any images.
        origin: the source's name, for the listing.
        classes: the project's classes, the good one first.
        kind_pattern: regular expression over file names, whose group `kind` is the type of defect.
        labels: a Label Studio export, whose labels win over the folder's.
        imported: classes by SHA-256 of the file, as `label import` keeps them; they win over all others.
        folders: classes of folders that are named otherwise; None for those that are left out.
        brought: further photographs, by name; those that have no imported label are left out.

    Raises:
        DataError: there are no images, or the labels are not what they should be.
    """
    may_lack_labels = labels is not None or bool(imported)
    candidates = _candidates(folder, classes, folders or {}, may_lack_labels=may_lack_labels)
    kind_of = kind_reader(kind_pattern)
    photographs, quarantined = [], []
    known = _labelled(candidates, classes, labels, imported or {})
    for found in _joined(known, brought or {}, imported or {}):
        reason = _why_unusable(found)
        if reason is not None or found.sha256 is None or found.label is None:
            quarantined.append(Quarantined(filename=found.filename, reason=reason or "the file cannot be read"))
            continue
        name, label = found.filename, found.label
        kind = None if label == classes[0] else (found.kind or kind_of(_own_name(name)))
        photographs.append(Photograph(path=str(found.path), filename=name, label=label, kind=kind, sha256=found.sha256))
    if not photographs:
        reasons = "".join(f"\n  {item.filename}: {item.reason}" for item in quarantined[:5])
        raise DataError(f"{folder} has no labelled image that can be read{':' if reasons else ''}{reasons}")
    return Listing(source=origin, folder=str(folder), photographs=tuple(photographs), quarantined=tuple(quarantined))


def _labelled(
    candidates: dict[str, _Candidate], classes: tuple[str, ...], labels: Path | None, imported: Mapping[str, str]
) -> list[Found]:
    """The candidates with their digests and the labels that count, sorted by name."""
    if labels is not None:
        pairs = read_label_studio(labels, classes)
        for name, given in resolve(pairs, candidates, labels.name).items():  # they replace what the folder said
            candidates.setdefault(name, _Candidate()).labels = given
    names = sorted(candidates)
    found = []
    with ThreadPoolExecutor() as pool:
        for name, digest in zip(names, pool.map(_sha256, (candidates[name].path for name in names)), strict=True):
            candidate = candidates[name]
            own = {imported[digest]} if digest is not None and digest in imported else candidate.labels
            found.append(Found(name, candidate.path, frozenset(own), candidate.kind, digest))
    return found


def _joined(source: list[Found], brought: Mapping[str, Path], imported: Mapping[str, str]) -> list[Found]:
    """What the source has, and of the photographs that were brought those that it lacks and that have a label."""
    known, added = {found.sha256 for found in source}, []
    for name, path in brought.items():
        digest = _sha256(path)
        if digest is not None and digest in imported and digest not in known:
            added.append(Found(name, path, frozenset({imported[digest]}), None, digest))
            known.add(digest)
    return sorted([*source, *added], key=lambda found: found.filename)


def _sha256(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _why_unusable(found: Found) -> str | None:
    if found.path is None:
        return "it has a label, but there is no such file"
    if not found.labels:
        return "it has no label"
    if len(found.labels) > 1:
        return f"it is labelled both {' and '.join(sorted(found.labels))}"
    return "the file cannot be opened" if found.sha256 is None else None


def _candidates(
    folder: Path, classes: tuple[str, ...], folders: Mapping[str, str | None], *, may_lack_labels: bool
) -> dict[str, _Candidate]:
    train, table = folder / "train", folder / TABLE
    if table.is_file():
        return _kaggle_layout(train if train.is_dir() else folder, table, classes)
    if not may_lack_labels and train.is_dir() and not any(child.is_dir() for child in train.iterdir()):
        raise DataError(f"{folder} has train/ but no {TABLE}: add one with the columns filename,anomaly")
    found = _class_folders(folder, classes, folders)
    names = {name for file in found for name in file.split("/")[:-1]}
    if may_lack_labels and not any(class_of_folder(name, classes, folders) for name in names):
        return {name: _Candidate(path) for name, path in images_below(folder).items()}
    _check_folders(folder, classes, found)
    return found


def _kaggle_layout(images: Path, table: Path, classes: tuple[str, ...]) -> dict[str, _Candidate]:
    files = {path.relative_to(images).as_posix(): path for path in files_below(images)}
    candidates = {name: _Candidate(path) for name, path in files.items() if path.suffix.lower() in IMAGE_SUFFIXES}
    for line, name, value in table_rows(table):
        label = class_of(value, classes)
        if label is None:
            raise DataError(f"{table}, line {line}: anomaly {value!r} is no class; {classes_text(classes)}")
        candidates.setdefault(name, _Candidate(files.get(name))).labels.add(label)
    return candidates


def labels_in_folder(
    folder: Path, classes: tuple[str, ...], folders: Mapping[str, str | None]
) -> dict[str, str | None]:
    """What the folder alone says of each of its files: one of the classes, or None where it says nothing.

    Raises:
        DataError: it cannot be understood.
    """
    candidates = _candidates(folder, classes, folders, may_lack_labels=False)
    return {name: next(iter(found.labels), None) for name, found in candidates.items()}


def _class_folders(folder: Path, classes: tuple[str, ...], folders: Mapping[str, str | None]) -> dict[str, _Candidate]:
    """Images below folders named after classes, at any depth; or, for two classes, after kinds of defect.

    The innermost folder that is named after a class counts. Where there is none, an image is of the second of two
    classes, and its folder at the depth of the good ones names the kind of its defect.
    """
    found: list[tuple[Path, list[str], list[tuple[int, str]]]] = []
    for path in files_below(folder):
        *names, _ = path.relative_to(folder).parts
        if any(name in folders and folders[name] is None for name in names):
            continue
        known = [(at, label) for at, name in enumerate(names) if (label := class_of_folder(name, classes, folders))]
        if names and (known or path.suffix.lower() in IMAGE_SUFFIXES):
            found.append((path, names, known))
    depth = usual_depth(at for _, _, known in found for at, label in known[-1:] if label == classes[0])
    candidates = {}
    for path, names, known in found:
        kind = None if known else name_at(names, depth)
        label = known[-1][1] if known else (classes[1] if kind else None)
        candidates[path.relative_to(folder).as_posix()] = _Candidate(path, {label} if label else set(), kind)
    return candidates


def _check_folders(folder: Path, classes: tuple[str, ...], candidates: Mapping[str, _Candidate]) -> None:
    """Refuse folders that name no class, but for kinds of defect beside a folder of good ones."""
    if not candidates:
        raise DataError(f"{folder} is empty: it needs train/ and {TABLE}, or a folder of images for each class")
    unknown = next((found.kind for found in candidates.values() if found.kind), None)
    has_good = any(classes[0] in found.labels for found in candidates.values())
    if unknown is not None and not (has_good and len(classes) == 2):
        raise DataError(
            f"{folder} has a folder {unknown!r}, which is no class; {classes_text(classes)}"
            + (f"; folders of defects by kind need a folder {classes[0]!r} beside them" if len(classes) == 2 else "")
            + "; `data.folders` can say what a folder means"
        )


def main() -> None:
    """Run the extraction as a program."""
    parser = arguments("Fetch and list the photographs.")
    parser.add_argument("--data", help="rendered, kaggle, or a folder, instead of the project's source")
    options = parser.parse_args()
    extract(open_stage(options), options.data)


if __name__ == "__main__":
    run_main(main)
