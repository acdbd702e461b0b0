"""What labels are written like: Kaggle's table, Label Studio's exports, feedback, and the kinds in file names."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from gitops.contracts.dataset import Feedback
from gitops.errors import DataError

# Label Studio puts eight hexadecimal digits before the name of an uploaded file.
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")

_SHA256 = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class Annotation:
    """What one person said of one photograph."""

    reference: str
    """The photograph as it is named there; "" where only its digest is given."""
    label: str | None
    """One of the project's classes; None where nothing was chosen."""
    where: str
    """Where it stands, for messages: `task 3 of labels.json`."""
    sha256: str | None = None
    """Of the photograph's file, where it is given."""
    by: str | None = None
    at: datetime | None = None
    photograph: Path | None = None
    """A copy of the photograph's file that came with it; only feedback brings one."""
    no_class: str | None = None
    """What was said instead of a class of the project; only feedback is read so, because anybody may send it."""


def class_of(value: str, classes: tuple[str, ...]) -> str | None:
    """The class that a label means: its name, its number, or good and bad; None if it means none."""
    if value in classes:
        return value
    if value.isdecimal():
        return classes[int(value)] if int(value) < len(classes) else None
    if len(classes) == 2 and value.lower() in ("good", "bad"):
        return classes[value.lower() == "bad"]
    return classes[0] if value.lower() == "good" else None


def classes_text(classes: tuple[str, ...]) -> str:
    """The classes and their numbers, for errors."""
    return "the project's classes are " + ", ".join(f"{name} ({index})" for index, name in enumerate(classes))


def kind_reader(pattern: str | None) -> Callable[[str], str | None]:
    """A function from a file's name to the type of defect in it.

    Args:
        pattern: regular expression with a group `kind`; None for no kinds at all.

    Raises:
        DataError: it is no such expression.
    """
    if pattern is None:
        return lambda _: None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"`data.kind_pattern` {pattern!r} is no regular expression: {error}") from error
    if "kind" not in compiled.groupindex:
        raise DataError(f"`data.kind_pattern` {pattern!r} has no group named kind: write it as (?P<kind>…)")

    def kind(name: str) -> str | None:
        match = compiled.search(PurePosixPath(name).name)
        return match["kind"] if match else None

    return kind


def table_rows(table: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, file name and label of every row of Kaggle's table.

    Raises:
        DataError: it cannot be read, or lacks a column.
    """
    try:
        text = table.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {table}: {error}") from error
    reader = csv.DictReader(io.StringIO(text))
    missing = {"filename", "anomaly"} - set(reader.fieldnames or ())
    if missing:
        raise DataError(f"{table} has no column {' and '.join(sorted(missing))}: it needs filename,anomaly")
    try:
        for row in reader:
            name, value = (row["filename"] or "").strip(), (row["anomaly"] or "").strip()
            if name or value:
                yield reader.line_num, name.removeprefix("train/"), value
    except csv.Error as error:
        raise DataError(f"{table}, line {reader.line_num}: {error}; is a quotation mark missing?") from error


def read_label_studio(path: Path, classes: tuple[str, ...]) -> list[tuple[str, str]]:
    """Read a Label Studio export, short (`image`, `choice`) or full (`data`, `annotations`).

    Returns:
        Pairs of the image's reference as it stands there, and its class. Tasks without a choice are left out.

    Raises:
        DataError: it cannot be read, or a choice is no class.
    """
    return [(item.reference, item.label) for item in read_annotations(path, classes) if item.label is not None]


def read_annotations(path: Path, classes: tuple[str, ...]) -> list[Annotation]:
    """Read a Label Studio export with who labelled and when; a task without a choice is one without a label.

    Raises:
        DataError: it cannot be read, or a choice is no class.
    """
    try:
        items = json.loads(_text(path))
    except ValueError as error:
        raise DataError(f"the labels {path} are not JSON: {error}") from error
    if not isinstance(items, list):
        raise DataError(f"the labels {path} are no list of tasks: export them from Label Studio as JSON or JSON-MIN")
    annotations = []
    for number, item in enumerate(items, start=1):
        where = f"task {number} of {path}"
        try:
            annotations += _task(item, where, classes)
        except (AttributeError, TypeError, ValueError) as error:
            raise DataError(f"{where} is not as Label Studio writes tasks: {error}") from error
    return annotations


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read the labels {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"the labels {path} are not UTF-8 text: {error}") from error


def _task(item: Any, where: str, classes: tuple[str, ...]) -> list[Annotation]:
    """What was said in one task."""
    full = isinstance(item, dict) and ("annotations" in item or "data" in item)
    data: Any = (item.get("data") or {}) if full else item
    image = data.get("image") if isinstance(data, dict) else None
    if not isinstance(image, str) or not image:
        raise DataError(f"{where} names no image: export with the field `image`")
    sha256 = data.get("sha256")  # `label export` writes it into a task, and Label Studio keeps it
    sha256 = sha256 if isinstance(sha256, str) and _SHA256.match(sha256) else None
    annotations = []
    for choice, given in _choices(item) if full else [(choice, item) for choice in _as_list(item.get("choice"))]:
        label = class_of(choice, classes)
        if label is None:
            raise DataError(f"{where}: choice {choice!r} is no class; {classes_text(classes)}")
        at = given.get("updated_at") or given.get("created_at")
        by = _person(given.get("completed_by", given.get("annotator")))
        annotations.append(Annotation(image, label, where, sha256, by, _when(at) if at else None))
    return annotations or [Annotation(image, None, where, sha256)]


def _choices(item: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The choices of a full task, each with the annotation that it stands in."""
    for annotation in item.get("annotations") or ():
        if not annotation.get("was_cancelled"):
            for result in annotation.get("result", ()):
                for choice in _as_list(result.get("value", {}).get("choices")):
                    yield choice, annotation


def _person(value: Any) -> str | None:
    """Who annotated: exports give a number, an address, or a user with one."""
    if isinstance(value, dict):
        value = value.get("email") or value.get("id")
    return f"Label Studio user {value}" if isinstance(value, int) else value or None


def _when(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)  # Label Studio's clock is UTC


def is_feedback(path: Path) -> bool:
    """Whether a file of labels holds feedback, an object a line; Label Studio's exports are lists.

    Raises:
        DataError: it cannot be read.
    """
    return _text(path).lstrip().startswith("{")


def read_feedback(path: Path, classes: tuple[str, ...]) -> list[Annotation]:
    """Read feedback: a `Feedback` a line, as JSON; a label that is no class becomes `no_class`.

    Raises:
        DataError: a line is no JSON.
        ContractError: a line is no feedback.
    """
    annotations = []
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"line {number} of {path}"
        try:
            given = Feedback.parse(json.loads(line), where)
        except ValueError as error:
            raise DataError(f"{where} is not JSON: {error}; feedback is one object a line") from error
        label = class_of(given.label, classes)
        photograph = path.parent / given.photograph if given.photograph else None
        no_class = given.label if label is None else None
        annotations.append(
            Annotation(given.filename or "", label, where, given.sha256, given.by, given.at, photograph, no_class)
        )
    return annotations


def _as_list(choice: Any) -> list[str]:
    if isinstance(choice, dict):  # several choices, as JSON-MIN writes them
        choice = choice.get("choices")
    return [] if choice is None else [str(value) for value in (choice if isinstance(choice, list) else [choice])]


def resolve(pairs: Iterable[tuple[str, str]], filenames: Iterable[str], source: str) -> dict[str, set[str]]:
    """Find the files that the references of an export mean.

    Args:
        pairs: as `read_label_studio` returns them.
        filenames: the files that there are.
        source: the export's name, for errors.

    Returns:
        Labels by file name; a reference to a file that there is not stands under the name that it gives.

    Raises:
        DataError: a reference may mean several files.
    """
    by_name = names_of(filenames)
    labels: dict[str, set[str]] = {}
    for reference, label in pairs:
        labels.setdefault(file_meant(reference, by_name, source), set()).add(label)
    return labels


def names_of(filenames: Iterable[str]) -> dict[str, list[str]]:
    """The files by the last part of their names: what `file_meant` looks in."""
    by_name: dict[str, list[str]] = {}
    for name in filenames:
        by_name.setdefault(PurePosixPath(name).name, []).append(name)
    return by_name


def file_meant(reference: str, by_name: dict[str, list[str]], source: str) -> str:
    """The file that a reference means: /data/upload/1/1a2b3c4d-x.png, /data/local-files/?d=x.png, s3://bucket/x.png.

    Args:
        reference: as it stands in the export.
        by_name: the files that there are, from `names_of`.
        source: the export's name, for errors.

    Returns:
        Its name; where there is no such file, the last part of the reference.

    Raises:
        DataError: it may mean several files.
    """
    try:
        parts = urlsplit(reference)
    except ValueError:  # a plain name that begins like an address
        path = PurePosixPath(reference)
    else:
        path = PurePosixPath(parse_qs(parts.query).get("d", [unquote(parts.path)])[0])
    for name in (path.name, _UPLOAD_PREFIX.sub("", path.name)):
        found = by_name.get(name, [])
        fitting = [item for item in found if path.as_posix().endswith(item)] or found
        if len(fitting) > 1:
            raise DataError(f"{reference!r} in {source} may mean {' or '.join(fitting)}: give the files unique names")
        if fitting:
            return fitting[0]
    return path.name
