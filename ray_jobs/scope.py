"""Scope: look at a folder of photographs, and propose the project file that suits them.

    mergeline init FOLDER

What is written is for people to read and change: every choice says why it was made.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gitops.contracts.project import Project
from gitops.errors import DataError
from gitops.state import write_atomically
from ray_jobs.dataset import TABLE, labels_in_folder
from ray_jobs.folders import class_of_folder, name_at, usual_depth
from ray_jobs.labels import table_rows
from ray_jobs.learner import LEAST_REMEMBERED
from serve.photographs import IMAGE_SUFFIXES, files_below, images_below
from serve.preprocess import ImageError, decode, find_part

# The names that people give to what is as it should be.
_GOOD = re.compile(
    r"(good|ok|okay|normal|pass|passed|perfect|intact|healthy|undamaged|fine)(-(front|back|parts?|samples?|images?|\d+))?"
    r"|(no|non|not|without)-(defects?|defective|anomal(y|ies|ous)|damaged?)"
)
_ANSWERS = {"ground-truth", "groundtruth", "mask", "masks", "annotations", "labels"}
"""Folders with drawn answers beside the photographs."""
_LOOKED_AT = 64  # photographs, of each class
# As a class of its own a kind of defect needs enough images for five folds and a test split.
_LEAST_OF_A_CLASS = 25
_FOLDS, _MOST_IMAGES_FOR_FOLDS = 5, 2000
# The proportions of one kind of part vary little among its photographs; those of a texture's "part" do.
_FOUND_SHARE, _MOST_VARIATION = 0.95, 0.2
_ASSERTED_SHARE = 0.9  # less than what was found among a few, so that chance does not stop the line
# Gray levels that a gray photograph's channels may differ by in all but 1 % of its pixels. A coloured spot can be all
# that there is of a defect, and the defect rare: one such photograph is enough. To look at colour where there is none
# costs a little time; to look away where there is some costs the defect.
_GRAY, _SPOT_SHARE = 12.0, 0.01
_INPUT_PIXELS = 160_000  # the screws' 224×704: about 25 ms of two cores for a photograph
_ENLARGED = 1.5  # small photographs: the network's finest features that are used are 16 pixels apart
_MULTIPLE, _LEAST_SIDE, _LARGEST_SIDE = 32, 96, 2048  # of the input's sides, in pixels
_TEST_SHARE, _VALIDATION_SHARE = 0.2, 0.1
_BATCH = 16
_LEAST_IMAGES = 5  # of a class: one for each fold or split
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
    unlabelled: int = 0
    """Photographs that no folder says anything of."""

    @property
    def count(self) -> int:
        """How many photographs there are in all classes."""
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


def labels_of_folder(folder: Path, good: Sequence[str] = ()) -> Labels:
    """Find out how a folder's photographs are labelled.

    Args:
        folder: `train/` with `train.csv`, or folders named after classes or kinds of defect, at any depth.
        good: names of the folders with good ones; empty: the one whose name says so.

    Raises:
        DataError: there are no images or no labels, nothing says which are good, or the extraction would read the
            folder otherwise.
    """
    images = images_below(folder)
    if not images:
        raise DataError(f"{folder} holds no PNG, JPEG, BMP or TIFF file: name the folder with the photographs")
    if (folder / TABLE).is_file():
        if good:
            raise DataError(f"{folder / TABLE} says which photographs are good: leave out --good, or move it away")
        return _labels_of_table(folder, images)
    left_out = {part for path in files_below(folder) for part in _parts(folder, path) if _slug(part) in _ANSWERS}
    placed = {path: parts for path in images.values() if not left_out & set(parts := _parts(folder, path))}
    good = tuple(good) or _good_ones(placed.values())
    depth = usual_depth(parts.index(name) for parts in placed.values() for name in good if name in parts)
    named: dict[str, list[Path]] = {}
    for path, parts in placed.items():
        own = next((name for name in good if name in parts), None) or name_at(parts, depth)
        if own is not None:
            named.setdefault(own, []).append(path)
    unlabelled = len(placed) - sum(map(len, named.values()))
    others = sorted(set(named) - set(good))
    if not others or not set(good) & set(named):
        found = f"only {', '.join(map(repr, sorted(named)))}" if named else "none"
        raise DataError(
            f"{folder} needs a folder for good photographs and one or more for others, and has {found}: sort them "
            f"into folders, or write {TABLE} with the columns filename,anomaly beside train/"
        )
    labels = _labels_of_names(good, others, named, left_out, unlabelled)
    _check_understood(folder, labels)
    return labels


def _parts(folder: Path, path: Path) -> tuple[str, ...]:
    return path.relative_to(folder).parts[:-1]


def _good_ones(places: Iterable[Sequence[str]]) -> tuple[str, ...]:
    names = {name for parts in places for name in parts}
    candidates = sorted(name for name in names if _GOOD.fullmatch(_slug(name)))
    if len(candidates) != 1:
        raise DataError(
            f"which of the folders {', '.join(sorted(names)) or '(there are none)'} holds the good ones? Say it with "
            "--good FOLDER, several times for several folders"
        )
    return tuple(candidates)


def _labels_of_names(
    good: Sequence[str],
    others: Sequence[str],
    named: Mapping[str, Sequence[Path]],
    left_out: Iterable[str],
    unlabelled: int,
) -> Labels:
    """Classes of the folders' names: each other one by itself, or together where some are rare."""
    own_classes = len(others) == 1 or min(len(named[name]) for name in others) >= _LEAST_OF_A_CLASS
    slugs = _slugs([good[0], *others] if own_classes else [good[0]])
    label_of = dict.fromkeys(good, slugs[good[0]])
    label_of |= {name: slugs[name] if own_classes else "defective" for name in others}
    by_class: dict[str, list[Path]] = {label: [] for label in label_of.values()}
    for name, paths in named.items():
        by_class[label_of[name]].extend(paths)
    # Kinds of defect are found by themselves; told what they mean, they would be no kinds.
    told = label_of if own_classes else dict.fromkeys(good, slugs[good[0]])
    classes = tuple(by_class)
    folders = {name: label for name, label in told.items() if class_of_folder(name, classes, {}) != label}
    return Labels(
        classes=classes,
        images={label: tuple(paths) for label, paths in by_class.items()},
        kinds={} if own_classes else {name: len(named[name]) for name in others},
        folders={**folders, **dict.fromkeys(sorted(left_out))},
        unlabelled=unlabelled,
    )


def _slugs(names: Sequence[str]) -> dict[str, str]:
    """A class for each folder; one whose name has no Latin letters or digits, or another's, gets a number."""
    found: dict[str, str] = {}
    for number, name in enumerate(names):
        slug = _slug(name) or f"class-{number}"
        found[name] = slug if slug not in found.values() else f"{slug[:37]}-{number}"
    return found


def _check_understood(folder: Path, labels: Labels) -> None:
    """Compare with how the extraction reads the folder."""
    said = labels_in_folder(folder, labels.classes, labels.folders)
    counts = Counter(label for name, label in said.items() if label and Path(name).suffix.lower() in IMAGE_SUFFIXES)
    expected = {label: len(paths) for label, paths in labels.images.items()}
    if counts != expected:
        raise DataError(
            f"the folders of {folder} can be read in two ways, as {_counts(expected)} or as {_counts(counts)}: name "
            "classes only once in a path, or write the project file by hand"
        )


def _counts(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {label}" for label, count in numbers.items())


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


def _slug(name: str) -> str:
    """A name as classes and projects have it; empty where it has no Latin letters or digits."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")


def view_of(images: Sequence[Path]) -> View:
    """Look at photographs: colour, a part on a plain background or not, and the proportions of either.

    Raises:
        DataError: none of them can be read.
    """
    shapes, parts, colored = [], [], []
    for path in images:
        try:
            pixels = decode(path.read_bytes(), 3)
        except (ImageError, OSError):
            continue  # the extraction sets it aside, and says why
        gray = np.asarray(pixels.mean(axis=2), np.uint8)
        shapes.append(gray.shape)
        differences = np.ptp(pixels, axis=2)
        colored.append(float(np.quantile(differences, 1 - _SPOT_SHARE)) > _GRAY)
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
        # A part that is broader for its length than most is scaled to the height, so that all of it is seen.
        ratio = float(np.median(measured[:, 0] / measured[:, 1]))
        extent = float(np.median(measured[:, 0])) * room
    else:
        height, width = np.median(np.array(shapes), axis=0)
        ratio, extent = float(width / height), float(width)
    height, width = _input_size(extent, ratio)
    return View(aligned, found, 3 if any(colored) else 1, height, width)


def _is_one_kind(parts: NDArray[np.float64]) -> bool:
    """Whether parts, (n, 3): length, breadth and the share of their box that they fill, are of one shape."""
    shape = np.stack([parts[:, 0] / parts[:, 1], parts[:, 2]])
    low, middle, high = np.percentile(shape, [10, 50, 90], axis=1)
    return bool(np.all((high - low) / 2 <= _MOST_VARIATION * middle))


def _input_size(width: float, ratio: float) -> tuple[int, int]:
    """Height and width of the input: as fine as the photograph or a little finer, but no larger than the screws'."""
    width = min(_ENLARGED * width, float(np.sqrt(_INPUT_PIXELS * ratio)))
    height, width = (round(side / _MULTIPLE) * _MULTIPLE for side in (width / ratio, width))
    return min(_LARGEST_SIDE, max(_LEAST_SIDE, height)), min(_LARGEST_SIDE, max(_LEAST_SIDE, width))


def propose(
    folder: Path, project_file: Path, *, name: str | None = None, good: Sequence[str] = (), owner: str
) -> Project:
    """Write the project file that suits a folder of photographs.

    Args:
        folder: the photographs; see `labels_of_folder`.
        project_file: where to write; it must not be there.
        name: of the project and its model; the folder's if None.
        good: names of the folders with good ones; empty: the one whose name says so.
        owner: who answers for the model.

    Returns:
        What was written.

    Raises:
        DataError: the folder cannot be understood, or the project file is there already.
    """
    if project_file.exists():
        raise DataError(f"{project_file} exists and is left as it is: name another file with --project")
    if not folder.is_dir():
        found = "is a file, and must be a folder" if folder.exists() else "does not exist"
        raise DataError(f"the folder {folder} {found}: name the one with the photographs")
    labels = labels_of_folder(folder, good)
    view = view_of([path for paths in labels.images.values() for path in _spread(paths)])
    text = _text(folder.resolve(), _slug(name or folder.resolve().name) or "parts", owner, labels, view)
    project = Project.from_yaml(text, str(project_file))
    write_atomically(project_file, text)
    return project


def _spread(paths: Sequence[Path]) -> list[Path]:
    places = np.linspace(0, len(paths) - 1, min(len(paths), _LOOKED_AT)).round().astype(int)
    return [paths[place] for place in places]


def _text(folder: Path, name: str, owner: str, labels: Labels, view: View) -> str:
    sizes = {label: len(paths) for label, paths in labels.images.items()}
    counts, smallest = _counts(sizes), min(sizes.values())
    if smallest < _LEAST_IMAGES:
        raise DataError(
            f"{folder} has {counts}: a class needs {_LEAST_IMAGES} photographs or more, and dozens to be worth much"
        )
    # What is left of a class and of all for training, at the worst, when a test split and a fold are held out.
    folds = min(_FOLDS, int(smallest * (1 - _TEST_SHARE))) if labels.count <= _MOST_IMAGES_FOR_FOLDS else 0
    share = (1 - _TEST_SHARE) * (1 - 1 / folds if folds else 1 - _VALIDATION_SHARE)
    good, trained = int(share * sizes[labels.classes[0]]) - 1, int(share * labels.count) - len(sizes)
    lines = [
        f"# Proposed by `mergeline init` for {labels.count} photographs: {counts}.",
        "# Read it, and change what you know better.",
        f"name: {_quoted(name)}",
        f"goal: Tell good parts from {'others' if len(labels.classes) == 2 else 'those with a defect, and say which'}.",
        f"owner: {_quoted(owner)}",
        "",
        "# The first class is the good one; a photograph is judged by how likely it is not that.",
        f"classes: [{', '.join(map(_quoted, labels.classes))}]",
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
        f"  validation: {0 if folds else _VALIDATION_SHARE}",
        f"  test: {_TEST_SHARE}",
        "",
        *_folds_lines(folds),
        "# What a mistake costs; only the ratio counts.",
        "costs:",
        "  missed_defect: 1",
        "  false_alarm: 1",
        "",
        "# Checked before anything is trained; a failed one stops the line and names the images.",
        "quality:",
        *([f"  - {{ measure: part_found, min: 1, share: {_ASSERTED_SHARE} }}"] if view.aligned else []),
        f"  - {{ measure: smallest_class, min: {_LEAST_IMAGES} }}",
        "",
        "training:",
        f"  batch_size: {max(2, min(_BATCH, trained // 2 * 2))}",
        *_memory_lines(good),
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
        lines += [
            f"    {_quoted(name)}: {_quoted(label) if label else 'null # left out'}"
            for name, label in labels.folders.items()
        ]
    if labels.unlabelled:
        share = labels.unlabelled / (labels.count + labels.unlabelled)
        lines.append(f"  # {labels.unlabelled} photographs lie in no folder that says what they are: set aside.")
        lines.append(f"  max_quarantine_share: {min(1.0, share + 0.05):.2f}")
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


def _memory_lines(good: int) -> list[str]:
    if good < LEAST_REMEMBERED:
        return []
    return [
        "  # Good parts as they look at each place: of help where parts lie alike, and no harm where they do not.",
        "  memory: { images: 128 }",
    ]


def _augmentation_lines(view: View) -> list[str]:
    if not view.aligned:
        return []
    return [
        "  # Parts come straightened: to vary their place more would teach that good ones are strange.",
        "  augmentation: { place: 0.1, light: 0.25, lens: 0.5 }",
    ]


def _quoted(text: str) -> str:
    """As a YAML string, where plain text would mean something else: `no`, `0`, a path with a colon."""
    try:
        plain = YAML(typ="safe", pure=True).load(f"[{text}]") == [text]
    except YAMLError:
        plain = False
    return text if plain and text.isprintable() else "'" + text.replace("'", "''") + "'"


def summary(project: Project, project_file: Path) -> list[str]:
    """What was found and what to type next."""
    settings, folds = project.preprocessing, project.cross_validation.folds
    how = "one part on a plain background, straightened" if settings.align == "foreground" else "the whole photograph"
    return [
        f"wrote {project_file}: read it, every choice says why",
        f"  classes   {project.classes[0]} (the good one), {', '.join(project.classes[1:])}",
        f"  input     {settings.height}×{settings.width}, {'gray' if settings.channels == 1 else 'colour'}; {how}",
        f"  estimate  {f'{folds} folds' if folds else 'a validation split'}",
    ]
