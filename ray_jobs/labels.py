"""What labels are written like: Kaggle's table, Label Studio's exports, and the kinds of defects in file names."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from gitops.errors import DataError

# Label Studio puts eight hexadecimal digits before the name of an uploaded file.
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")


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
    for row in reader:
        name, value = (row["filename"] or "").strip(), (row["anomaly"] or "").strip()
        if name or value:
            yield reader.line_num, name.removeprefix("train/"), value


def read_label_studio(path: Path, classes: tuple[str, ...]) -> list[tuple[str, str]]:
    """Read a Label Studio export, short (`image`, `choice`) or full (`data`, `annotations`).

    Returns:
        Pairs of the image's reference as it stands there, and its class. Tasks without a choice are left out.

    Raises:
        DataError: it cannot be read, or a choice is no class.
    """
    try:
        items = json.loads(path.read_text())
    except OSError as error:
        raise DataError(f"cannot read the labels {path}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"the labels {path} are not JSON: {error}") from error
    if not isinstance(items, list):
        raise DataError(f"the labels {path} are no list of tasks: export them from Label Studio as JSON or JSON-MIN")
    pairs = []
    for number, item in enumerate(items, start=1):
        image, choices = _task(item)
        if image is None:
            raise DataError(f"task {number} of {path} names no image: export with the field `image`")
        for choice in choices:
            label = class_of(choice, classes)
            if label is None:
                raise DataError(f"task {number} of {path}: choice {choice!r} is no class; {classes_text(classes)}")
            pairs.append((image, label))
    return pairs


def _task(item: Any) -> tuple[str | None, list[str]]:
    """The image and the choices of one task."""
    if not isinstance(item, dict):
        return None, []
    if "annotations" not in item:
        return item.get("image"), _as_list(item.get("choice"))
    results = (
        result
        for annotation in item["annotations"] or ()
        if not annotation.get("was_cancelled")
        for result in annotation.get("result", ())
    )
    choices = [choice for result in results for choice in _as_list(result.get("value", {}).get("choices"))]
    return (item.get("data") or {}).get("image"), choices


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
    by_name: dict[str, list[str]] = {}
    for name in filenames:
        by_name.setdefault(PurePosixPath(name).name, []).append(name)
    labels: dict[str, set[str]] = {}
    for reference, label in pairs:
        labels.setdefault(_meant(reference, by_name, source), set()).add(label)
    return labels


def _meant(reference: str, by_name: dict[str, list[str]], source: str) -> str:
    """The file that a reference means: /data/upload/1/1a2b3c4d-x.png, /data/local-files/?d=x.png, s3://bucket/x.png."""
    parts = urlsplit(reference)
    path = PurePosixPath(parse_qs(parts.query).get("d", [unquote(parts.path)])[0])
    for name in (path.name, _UPLOAD_PREFIX.sub("", path.name)):
        found = by_name.get(name, [])
        fitting = [item for item in found if path.as_posix().endswith(item)] or found
        if len(fitting) > 1:
            raise DataError(f"{reference!r} in {source} may mean {' or '.join(fitting)}: give the files unique names")
        if fitting:
            return fitting[0]
    return path.name
