"""The labels that were imported for a project: `labels/<project>.json`, a label for each photograph's content."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import AwareDatetime, Field

from gitops.contracts.base import Contract, Sha256
from gitops.errors import DataError
from gitops.state import locked, write_atomically
from ray_jobs.labels import classes_text
from ray_jobs.stage import Stage


class KeptLabel(Contract):
    """A label, and who gave it when, as far as that is known."""

    label: str = Field(description="One of the project's classes.")
    filename: str = Field(description="The photograph's name in the source when the label was imported.")
    by: str | None = Field(default=None, description="Who gave it.")
    at: AwareDatetime | None = Field(default=None, description="When it was given.")
    confirmed_by: str | None = Field(default=None, description="Who confirmed it, if it was feedback.")
    file: str = Field(description="The file that it was imported from.")


class LabelBook(Contract):
    """All labels that were imported for a project.

    A label belongs to a photograph's bytes: it stays with them under another name, and another photograph under the
    same name does not inherit it.
    """

    labels: dict[Sha256, KeptLabel] = Field(default={}, description="By the SHA-256 of the photograph's file.")


def book_file(stage: Stage) -> Path:
    """Where the project's imported labels lie."""
    return stage.state.labels / f"{stage.project.name}.json"


def read_book(stage: Stage) -> LabelBook:
    """The labels that were imported so far; none if there is no such file.

    Raises:
        ContractError: the file is not what `record` wrote.
    """
    file = book_file(stage)
    return LabelBook.read(file) if file.exists() else LabelBook()


def record(stage: Stage, given: Mapping[str, KeptLabel]) -> None:
    """Add labels to the project's file; it is written whole or not at all, and only if it changes."""
    file = book_file(stage)
    with locked(file.parent / ".lock"):  # two imports at once would lose the labels of one
        book = read_book(stage)
        after = merged(book, given)
        if after != book:
            write_atomically(file, after.to_json())


def merged(book: LabelBook, given: Mapping[str, KeptLabel]) -> LabelBook:
    """The book with more labels, by SHA-256: of two for one photograph the newest stays."""
    taken = {sha256: label for sha256, label in given.items() if not is_older(label, book.labels.get(sha256))}
    return LabelBook(labels=dict(sorted({**book.labels, **taken}.items())))


def is_older(given: KeptLabel, kept: KeptLabel | None) -> bool:
    """Whether a label was given before the one that is kept; what has no time is as new as its import."""
    return bool(kept and kept.at and given.at and given.at < kept.at)


def labels_of(book: LabelBook, classes: tuple[str, ...], source: Path) -> dict[str, str]:
    """The class of each photograph, by SHA-256.

    Raises:
        DataError: a label is none of the classes; `source` is named.
    """
    for sha256, kept in book.labels.items():
        if kept.label not in classes:
            raise DataError(
                f"{source}: {kept.filename} ({sha256[:12]}) is labelled {kept.label!r}, which is no class; "
                f"{classes_text(classes)}. Remove that entry, or name the class in the project file"
            )
    return {sha256: kept.label for sha256, kept in book.labels.items()}
