"""Takes labels in: from Label Studio, or from feedback once a person confirms it, for photographs of the source."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from gitops.contracts.base import Contract
from gitops.errors import DataError
from gitops.state import write_atomically
from ray_jobs.dataset import Found, brought_folder, brought_name, source_folder, survey, waiting
from ray_jobs.label_book import KeptLabel, is_older, read_book, record
from ray_jobs.labels import Annotation, file_meant, is_feedback, names_of, read_annotations, read_feedback
from ray_jobs.stage import Stage

_NAMED = 10


class LabelChange(Contract):
    """A photograph that gets a label from an import, or another one."""

    filename: str
    before: str | None = Field(default=None, description="The label that it had; none if it had no usable one.")
    after: str
    by: str | None = Field(default=None, description="Who said so, where that is known.")

    def __str__(self) -> str:
        """As a person reads it: `a.png (good → defective, says Ada)`."""
        says = f", says {self.by}" if self.by else ""
        return f"{self.filename} ({f'{self.before} → ' if self.before else ''}{self.after}{says})"


class ImportReport(Contract):
    """What an import did, or would do."""

    file: str = Field(description="The file that was read.")
    source: str = Field(description="Where the project's photographs come from.")
    written: bool = Field(description="False for feedback that nobody has confirmed: then nothing was kept.")
    new: tuple[LabelChange, ...] = Field(description="Photographs that had no usable label.")
    changed: tuple[LabelChange, ...] = Field(description="Photographs that had another one.")
    same: tuple[str, ...] = Field(description="Photographs that had this label already.")
    older: tuple[str, ...] = Field(description="Photographs with a newer imported label, which they keep.")
    duplicates: tuple[str, ...] = Field(description="Photographs that the file labels several times, always alike.")
    unknown: tuple[str, ...] = Field(description="Photographs that are not in the source: skipped.")
    unlabelled: int = Field(description="Tasks in which nothing was chosen.")
    no_class: tuple[str, ...] = Field(
        default=(), description="Photographs of which feedback says what is no class of the project: skipped."
    )
    contradictory: tuple[str, ...] = Field(
        default=(), description="Photographs of which people say different things in feedback: skipped."
    )
    brought: tuple[str, ...] = Field(
        default=(),
        description="Photographs that are not in the source and came with the feedback; they join the next dataset.",
    )

    def text(self) -> str:
        """The report in lines for a person."""
        counts = f"{len(self.new)} new, {len(self.changed)} changed, {len(self.same)} the same"
        lines = [f"labels from {self.file} for {self.source}: {counts}"]
        # Who is to confirm them has to see them all.
        most = _NAMED if self.written else len(self.new) + len(self.changed)
        lines += _named("new", [str(item) for item in self.new], most)
        lines += _named("changed", [str(item) for item in self.changed], most)
        lines += _named("kept, as a newer label was imported before", self.older)
        lines += _named("labelled several times, always alike", self.duplicates)
        lines += _named("not in the source, taken from the feedback", self.brought)
        lines += _named("skipped, labelled with what is no class of the project", self.no_class)
        lines += _named("skipped, as people contradict each other", self.contradictory)
        if self.unlabelled:
            lines.append(f"  without a label: {self.unlabelled} tasks")
        if self.unknown:
            lines += _named(f"skipped, not in {self.source}", self.unknown)
            lines.append("  add those photographs to the source, and import the file again")
        if not self.written:
            lines.append("nothing was kept: feedback becomes labels with --confirm --by NAME")
        elif self.new or self.changed:
            lines.append("kept: the next dataset stage uses them (`mergeline submit pipeline`)")
        return "\n".join(lines)


def _named(what: str, names: Sequence[str], most: int = _NAMED) -> list[str]:
    """A line with a count and the first names; none if there are none."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return [f"  {what}: {len(names)}: {', '.join(names[:most])}{more}"] if names else []


def import_labels(
    stage: Stage, file: Path, *, data: str | None = None, confirm: bool = False, by: str | None = None
) -> ImportReport:
    """Keep the labels of a file for the next dataset; nothing is kept if anything in the file is wrong.

    Of feedback, which anybody may send, photographs are skipped and listed that have a label which is no class, or
    about which people contradict each other.

    Args:
        stage: project and state.
        file: a Label Studio export (JSON or JSON-MIN), or feedback, a `gitops.contracts.dataset.Feedback` a line.
        data: `rendered`, `kaggle` or a folder; None for the source that was extracted last.
        confirm: take feedback, in the name of `by`; without, it is only reported.
        by: who confirms feedback; for Label Studio, who labelled where the export doesn't say.

    Raises:
        DataError: the file cannot be read; one of Label Studio names another class or contradicts itself; or nobody
            answers for feedback.
    """
    feedback = is_feedback(file)
    if feedback and confirm and not by:
        raise DataError(f"nobody answers for the feedback in {file}: say who confirms it with --by NAME")
    annotations = (read_feedback if feedback else read_annotations)(file, stage.project.classes)
    folder, source = source_folder(stage, data)
    source_files = survey(stage, folder)
    brought = _brought(annotations, source_files)
    matched = match(_last_words(annotations), [*source_files, *waiting(stage), *brought.values()], str(file))
    no_class, contradictory = _no_class(matched), _contradictory(matched)
    if contradictory and not feedback:
        wrong = [f"\n  {text}" for text in contradictory.values()]
        more = f"\n  … and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise DataError(
            f"{file} contradicts itself about {len(wrong)} photographs; nothing was kept. Leave one label each and "
            f"import again:{''.join(wrong[:_NAMED])}{more}"
        )
    given = {
        sha256: KeptLabel(
            label=str(said[-1].label),
            filename=matched.found[sha256].filename,
            by=said[-1].by or (None if feedback else by),
            at=said[-1].at,
            confirmed_by=by if feedback else None,
            file=file.name,
        )
        for sha256, said in matched.said.items()
        if sha256 not in no_class and sha256 not in contradictory
    }
    brought = {sha256: found for sha256, found in brought.items() if sha256 in given}
    written = not feedback or confirm
    report = _report(stage, matched, given, file=file, source=source, written=written)
    report = report.model_copy(
        update={
            "brought": tuple(found.filename for found in brought.values()),
            "no_class": tuple(no_class.values()),
            "contradictory": tuple(contradictory.values()),
        }
    )
    if written and given:
        for found in brought.values():  # before the labels: a label without its photograph would be of no use
            target = brought_folder(stage) / Path(found.filename).name
            if not target.exists():
                write_atomically(target, Path(str(found.path)).read_bytes())
        record(stage, given)
    return report


def _brought(annotations: Iterable[Annotation], source: Iterable[Found]) -> dict[str, Found]:
    """The photographs that came with annotations and are not in the source, by SHA-256.

    Raises:
        DataError: a file that came with one is not there, or is not what its digest says.
    """
    known = {item.sha256 for item in source}
    brought: dict[str, Found] = {}
    for item in annotations:
        if item.photograph is None or item.sha256 is None or item.sha256 in known:
            continue
        found = Found.unlabelled(
            f"feedback/{brought_name(item.sha256, item.reference, item.photograph.suffix)}", item.photograph
        )
        if found.sha256 != item.sha256:
            state = "cannot be read" if found.sha256 is None else f"has the SHA-256 {found.sha256[:12]}"
            raise DataError(
                f"{item.where}: its photograph {item.photograph} {state}, not {item.sha256[:12]}; restore it"
            )
        brought.setdefault(item.sha256, found)
    return brought


def _last_words(annotations: Sequence[Annotation]) -> list[Annotation]:
    """Without what its own author has replaced later: who mends a slip on the page contradicts nobody."""
    last: dict[tuple[str | None, str | None, str], Annotation] = {}
    kept = []
    for item in annotations:
        if item.photograph is None or item.at is None:
            kept.append(item)
            continue
        key = (item.sha256, item.by, item.reference)
        if key not in last or item.at >= (last[key].at or item.at):
            last[key] = item
    return [*kept, *last.values()]


@dataclass(frozen=True)
class Matched:
    """Which photographs of the source the annotations of a file are about."""

    said: dict[str, list[Annotation]]
    """What was said of each photograph, by its SHA-256, oldest first."""
    found: dict[str, Found]
    """The photographs, by SHA-256."""
    unknown: tuple[str, ...]
    """Photographs that are not in the source, as the file names them."""
    unlabelled: int
    """Annotations without a label."""


def match(annotations: Iterable[Annotation], source: Iterable[Found], file: str) -> Matched:
    """Find the photographs that annotations are about: by SHA-256 where it is given, or else by name.

    Args:
        annotations: as they were read.
        source: everything in the source.
        file: where the annotations stand, for errors.

    Raises:
        DataError: a name may mean several photographs.
    """
    by_name = {item.filename: item for item in source if item.sha256 is not None}
    # Of copies under several names one stands for all: the label belongs to the bytes.
    found = {str(item.sha256): item for item in reversed(by_name.values())}
    names = names_of(by_name)
    said: dict[str, list[Annotation]] = {}
    unknown: dict[str, None] = {}
    unlabelled = 0
    for item in annotations:
        if item.label is None and item.no_class is None:
            unlabelled += 1
            continue
        sha256 = item.sha256
        if sha256 is None:
            meant = by_name.get(file_meant(item.reference, names, file))
            sha256 = meant.sha256 if meant else None
        if sha256 in found:
            said.setdefault(str(sha256), []).append(item)
        else:
            unknown[item.reference or str(sha256)] = None
    for several in said.values():
        several.sort(key=lambda item: item.at.timestamp() if item.at else 0)
    return Matched(said, found, tuple(unknown), unlabelled)


def _no_class(matched: Matched) -> dict[str, str]:
    """What was said that is no class, in words, by the photograph's SHA-256."""
    return {
        sha256: _in_words(matched.found[sha256], [item for item in said if item.no_class is not None])
        for sha256, said in matched.said.items()
        if any(item.no_class is not None for item in said)
    }


def _contradictory(matched: Matched) -> dict[str, str]:
    """What was said, in words, of each photograph that got several classes; by its SHA-256."""
    return {
        sha256: _in_words(matched.found[sha256], said)
        for sha256, said in matched.said.items()
        if len({item.label for item in said if item.label is not None}) > 1
    }


def _in_words(found: Found, said: Iterable[Annotation]) -> str:
    each = (f"{item.label or item.no_class} ({item.where}{f', {item.by}' if item.by else ''})" for item in said)
    return f"{found.filename}: {' and '.join(each)}"


def _report(
    stage: Stage, matched: Matched, given: dict[str, KeptLabel], *, file: Path, source: str, written: bool
) -> ImportReport:
    kept = read_book(stage).labels
    changes: list[LabelChange] = []
    same, older = [], []
    for sha256, label in given.items():
        found = matched.found[sha256]
        if is_older(label, kept.get(sha256)):
            older.append(found.filename)
        elif found.label == label.label:
            same.append(found.filename)
        else:
            changes.append(LabelChange(filename=found.filename, before=found.label, after=label.label, by=label.by))
    changes.sort(key=lambda item: item.filename)
    return ImportReport(
        file=str(file),
        source=source,
        written=written,
        new=tuple(item for item in changes if item.before is None),
        changed=tuple(item for item in changes if item.before is not None),
        same=tuple(sorted(same)),
        older=tuple(sorted(older)),
        duplicates=tuple(sorted(matched.found[sha].filename for sha in given if len(matched.said[sha]) > 1)),
        unknown=matched.unknown,
        unlabelled=matched.unlabelled,
    )
