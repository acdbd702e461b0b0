"""Scope: look at a folder of photographs, and propose the project file that suits them.

    mergeline init FOLDER

What is written is for people to read and change: every choice says why it was made.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gitops.errors import DataError
from gitops.manifest import Project
from gitops.state import write_atomically
from ray_jobs.dataset import TABLE, kind_of_folder
from ray_jobs.labels import table_rows
from serve.photographs import images_below
from serve.preprocess import ImageError, decode, find_part

# Beginnings of the names that people give to what is as it should be.
_GOOD = re.compile(r"(good|ok|okay|normal|pass|perfect|intact|healthy|undamaged|fine|non?-(defect|anomal|damage))")
_ANSWERS = {"ground-truth", "groundtruth", "mask", "masks", "annotations", "labels"}
"""Folders with drawn answers beside the photographs."""
_LOOKED_AT = 64  # photographs, of each class
# As a class of its own a kind of defect needs enough images for five folds and a test split.
_LEAST_OF_A_CLASS = 25
_FOLDS, _MOST_IMAGES_FOR_FOLDS = 5, 2000
# The proportions of one kind of part vary little among its photographs; those of a texture's "part" do.
_FOUND_SHARE, _MOST_VARIATION = 0.95, 0.2
_GRAY = 2.0  # mean difference of the channels, in gray levels, that a gray photograph's compression may leave
_INPUT_PIXELS = 160_000  # the screws' 224×704: about 25 ms of two cores for a photograph
_ENLARGED = 1.5  # small photographs: the network's finest features that are used are 16 pixels apart
_MULTIPLE, _LEAST_SIDE = 32, 96  # of the input's sides, in pixels
_MARGIN = 0.04


@dataclass(frozen=True)
class Labels:
    """How the photographs of a folder are labelled."""

    classes: tuple[str, ...]
    """The good one first."""
    images: Mapping[str, tuple[Path, ...]]
    """The photographs of each class."""
    kinds: Mapping[str, int]
    """Kinds of defect and their numbers, where a folder names them and the classes do not."""
    folders: Mapping[str, str | None]
    """Folders whose names mean a class of another name, or nothing."""

    @property
    def count(self) -> int:
        """Of all photographs."""
        return sum(map(len, self.images.values()))


@dataclass(frozen=True)
class View:
    """What the photographs look like."""

    aligned: bool
    """Whether one part on a plain background was found in nearly all of them, always of the same proportions."""
    found: float
    """Share of the photographs in which a part was found."""
    channels: int
    height: int
    """Of the model's input, in pixels."""
    width: int


def labels_of_folder(folder: Path, good: str | None = None) -> Labels:
    """Find out how a folder's photographs are labelled.

    Args:
        folder: `train/` with `train.csv`, or folders named after classes or kinds of defect, at any depth.
        good: name of the folder with good ones; None: the one whose name says so.

    Raises:
        DataError: there are no images or no labels, or nothing says which are good.
    """
    images = images_below(folder)
    if not images:
        raise DataError(f"{folder} holds no PNG, JPEG, BMP or TIFF file: name the folder with the photographs")
    if (folder / TABLE).is_file():
        return _labels_of_table(folder, images)
    named: dict[str, list[Path]] = {}
    left_out: set[str] = set()
    for name, path in images.items():
        *parts, _ = name.split("/")
        answers = [part for part in parts if _slug(part) in _ANSWERS]
        left_out.update(answers[:1])
        if parts and not answers:
            named.setdefault(kind_of_folder(parts), []).append(path)
    if len(named) < 2:
        found = f"only {next(iter(named))!r}" if named else "none"
        raise DataError(
            f"{folder} needs a folder for good photographs and one or more for others, and has {found}: sort them "
            f"into folders, or write {TABLE} with the columns filename,anomaly beside train/"
        )
    best = _good_one(folder, named, good)
    others = sorted(set(named) - {best})
    if len(others) == 1 or min(len(named[name]) for name in others) >= _LEAST_OF_A_CLASS:
        classes = {name: _slug(name) for name in (best, *others)}
        kinds: dict[str, int] = {}
    else:
        classes = dict.fromkeys(others, "defective") | {best: _slug(best)}
        kinds = {name: len(named[name]) for name in others}
    by_class: dict[str, list[Path]] = {_slug(best): []}
    for name, paths in named.items():
        by_class.setdefault(classes[name], []).extend(paths)
    meant = {name: label for name, label in classes.items() if not kinds and _folder_class(name) != label}
    return Labels(
        classes=tuple(by_class),
        images={label: tuple(paths) for label, paths in by_class.items()},
        kinds=kinds,
        folders={**meant, **dict.fromkeys(sorted(left_out))},
    )


def _labels_of_table(folder: Path, images: Mapping[str, Path]) -> Labels:
    """Those of `train.csv`, with good and not good as 0 and 1."""
    prefix = "train/" if (folder / "train").is_dir() else ""
    by_class: dict[str, list[Path]] = {"good": [], "defective": []}
    for _, name, value in table_rows(folder / TABLE):
        if value not in ("0", "1"):
            raise DataError(
                f"{folder / TABLE} has the label {value!r}, not 0 (good) or 1: write the project file by hand"
            )
        if f"{prefix}{name}" in images:
            by_class["defective" if value == "1" else "good"].append(images[f"{prefix}{name}"])
    return Labels(("good", "defective"), {name: tuple(paths) for name, paths in by_class.items()}, {}, {})


def _good_one(folder: Path, named: Mapping[str, Sequence[Path]], good: str | None) -> str:
    if good is not None:
        if good not in named:
            raise DataError(f"{folder} has no folder {good!r}: it has {', '.join(sorted(named))}")
        return good
    candidates = [name for name in named if _GOOD.match(_slug(name))]
    if len(candidates) != 1:
        raise DataError(
            f"which of the folders {', '.join(sorted(named))} holds the good ones? Say it with --good FOLDER"
        )
    return candidates[0]


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "class"


def _folder_class(name: str) -> str:
    """The class that a folder means without being told (see `dataset`)."""
    return re.sub(r"[ _]", "-", name.lower())


def view_of(images: Sequence[Path]) -> View:
    """Look at photographs: colour, a part on a plain background or not, and the proportions of either.

    Raises:
        DataError: none of them can be read.
    """
    shapes, parts, differences = [], [], []
    for path in images:
        try:
            pixels = decode(path.read_bytes(), 3)
        except (ImageError, OSError):
            continue  # the extraction sets it aside, and says why
        gray = np.asarray(pixels.mean(axis=2), np.uint8)
        shapes.append(gray.shape)
        differences.append(float(np.abs(pixels.astype(np.int16) - gray[..., None]).mean()))
        if (part := find_part(gray)) is not None:
            filled = part.area * gray.size / (part.length * part.breadth)
            parts.append((part.length, part.breadth, filled))
    if not shapes:
        raise DataError(f"none of {len(images)} photographs can be read, {images[0]} among them")
    measured = np.array(parts).reshape(-1, 3)
    found = len(parts) / len(shapes)
    aligned = found >= _FOUND_SHARE and _is_one_kind(measured)
    if aligned:
        room = 1 + 2 * _MARGIN
        # Most of the others are broader for their length than this one, and scaled to the height.
        ratio = float(np.median(measured[:, 0] / measured[:, 1]))
        extent = float(np.median(measured[:, 0])) * room
    else:
        height, width = np.median(np.array(shapes), axis=0)
        ratio, extent = float(width / height), float(width)
    height, width = _input_size(extent, ratio)
    return View(aligned, found, 1 if np.median(differences) < _GRAY else 3, height, width)


def _is_one_kind(parts: NDArray[np.float64]) -> bool:
    """Whether parts, (n, 3): length, breadth and the share of their box that they fill, are of one shape."""
    shape = np.stack([parts[:, 0] / parts[:, 1], parts[:, 2]])
    low, middle, high = np.percentile(shape, [10, 50, 90], axis=1)
    return bool(np.all((high - low) / 2 <= _MOST_VARIATION * middle))


def _input_size(width: float, ratio: float) -> tuple[int, int]:
    """Height and width of the input: as fine as the photograph or a little finer, but no larger than the screws'."""
    width = min(_ENLARGED * width, float(np.sqrt(_INPUT_PIXELS * ratio)))
    sides = (max(_LEAST_SIDE, round(side / _MULTIPLE) * _MULTIPLE) for side in (width / ratio, width))
    height, width = sides
    return int(height), int(width)


def propose(
    folder: Path, project_file: Path, *, name: str | None = None, good: str | None = None, owner: str
) -> Project:
    """Write the project file that suits a folder of photographs.

    Args:
        folder: the photographs; see `labels_of_folder`.
        project_file: where to write; it must not be there.
        name: of the project and its model; the folder's if None.
        good: name of the folder with good ones.
        owner: who answers for the model.

    Returns:
        What was written.

    Raises:
        DataError: the folder cannot be understood, or the project file is there already.
    """
    if project_file.exists():
        raise DataError(f"{project_file} exists and is left as it is: name another file with --project")
    if not folder.is_dir():
        raise DataError(f"the folder {folder} does not exist: name the one with the photographs")
    labels = labels_of_folder(folder, good)
    view = view_of([path for paths in labels.images.values() for path in _spread(paths)])
    text = _text(folder.resolve(), _slug(name or folder.resolve().name), owner, labels, view)
    project = Project.from_yaml(text, str(project_file))
    write_atomically(project_file, text)
    return project


def _spread(paths: Sequence[Path]) -> list[Path]:
    places = np.linspace(0, len(paths) - 1, min(len(paths), _LOOKED_AT)).round().astype(int)
    return [paths[place] for place in places]


def _text(folder: Path, name: str, owner: str, labels: Labels, view: View) -> str:
    smallest = min(len(paths) for paths in labels.images.values())
    counts = ", ".join(f"{len(labels.images[label])} {label}" for label in labels.classes)
    folds = min(_FOLDS, smallest * 4 // 5) if labels.count <= _MOST_IMAGES_FOR_FOLDS else 0
    if smallest < 3:
        raise DataError(f"{folder} has {counts}: a class needs 3 photographs or more, and some dozens to be worth much")
    lines = [
        f"# Proposed by `mergeline init` for {labels.count} photographs: {counts}.",
        "# Read it, and change what you know better.",
        f"name: {name}",
        f"goal: Tell good parts from {'others' if len(labels.classes) == 2 else 'those with a defect, and say which'}.",
        f"owner: {_quoted(owner)}",
        "",
        "# The first class is the good one; a photograph is judged by how likely it is not that.",
        f"classes: [{', '.join(labels.classes)}]",
        "",
        "data:",
        "  source: folder",
        f"  path: {_quoted(str(folder))}",
        *_folder_lines(labels),
        "",
        *_preprocessing_lines(view),
        "",
        "# The test split is held out: only the evaluation reads it.",
        "split:",
        f"  validation: {0 if folds else 0.1}",
        "  test: 0.2",
        "",
        *_folds_lines(folds),
        "# What a mistake costs; only the ratio counts.",
        "costs:",
        "  missed_defect: 1",
        "  false_alarm: 1",
        "",
        "# Checked before anything is trained; a failed one stops the line and names the images.",
        "quality:",
        *(["  - { measure: part_found, min: 1, share: 0.95 }"] if view.aligned else []),
        "  - { measure: smallest_class, min: 3 }",
        "",
        "training:",
        "  # Good parts as they look at each place: of help where parts lie alike, and no harm where they do not.",
        "  memory: { images: 128 }",
        *_augmentation_lines(view),
        "",
        "# What an evaluation must reach before its model can be merged; raise the bars as you learn what is possible.",
        "gates:",
        "  - { metric: balanced_accuracy, min: 0.8 }",
        "  - { metric: auroc, min: 0.85 }",
        "",
        "environments: [local]",
    ]
    return "\n".join(lines) + "\n"


def _folder_lines(labels: Labels) -> list[str]:
    lines = []
    if labels.kinds:
        found = ", ".join(f"{name} {count}" for name, count in sorted(labels.kinds.items()))
        lines.append(f"  # Kinds of defect are reported each, and are too rare to be classes: {found}.")
    if labels.folders:
        lines.append("  folders:")
        lines += [f"    {_quoted(name)}: {label or 'null # left out'}" for name, label in labels.folders.items()]
    return lines


def _preprocessing_lines(view: View) -> list[str]:
    share = f"{view.found:.0%}"
    if view.aligned:
        why = f"one part on a plain background was found in {share} of the photographs: it is cut out and straightened"
    elif view.found >= _FOUND_SHARE:
        why = "what stands out from the background differs in shape: the whole photograph is looked at"
    else:
        why = f"a part on a plain background was found in {share} of the photographs only: the whole of it is looked at"
    return [
        "preprocessing:",
        f"  align: {'foreground' if view.aligned else 'none'} # {why}",
        f"  height: {view.height}",
        f"  width: {view.width}",
        f"  channels: {view.channels} # {'gray' if view.channels == 1 else 'colour'}",
    ]


def _folds_lines(folds: int) -> list[str]:
    if not folds:
        return []
    return [
        "# Threshold and calibration come from the folds, so that no image is lost to a validation split.",
        "cross_validation:",
        f"  folds: {folds}",
        "",
    ]


def _augmentation_lines(view: View) -> list[str]:
    if not view.aligned:
        return []
    return [
        "  # Parts come straightened: to vary their place more would teach that good ones are strange.",
        "  augmentation: { place: 0.1, light: 0.25, lens: 0.5 }",
    ]


def _quoted(text: str) -> str:
    """As a YAML string, where plain text could mean something else."""
    return text if re.fullmatch(r"[A-Za-z][\w./@+-]*", text) else "'" + text.replace("'", "''") + "'"


def summary(project: Project, project_file: Path) -> list[str]:
    """What was found and what to type next."""
    settings, folds = project.preprocessing, project.cross_validation.folds
    how = "one part on a plain background, straightened" if settings.align == "foreground" else "the whole photograph"
    return [
        f"wrote {project_file}: read it, every choice says why",
        f"  classes   {', '.join(project.classes)}",
        f"  input     {settings.height}×{settings.width}, {'gray' if settings.channels == 1 else 'colour'}; {how}",
        f"  estimate  {f'{folds} folds' if folds else 'a validation split'}",
    ]
