"""Retrain: what became known since the served version was made makes another one, proposed as a branch.

It changes nothing that is served: whoever merges the branch does. One runs at a time for a project, and the next not
before so many hours have passed. A request to retrain stays in the state folder until one has been proposed.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from pydantic import AwareDatetime, Field

from gitops.bundle import MANIFEST
from gitops.contracts.base import Contract, Sha256
from gitops.contracts.dataset import ChangedFiles, DatasetChanges
from gitops.contracts.model import BundleManifest
from gitops.contracts.serving import ModelVersion, ServedModel
from gitops.errors import MergelineError
from gitops.promotion import Destination, Promotion
from gitops.repository import Repository
from gitops.state import State, locked, write_atomically
from gitops.status import now
from ray_jobs import compare, lineage
from ray_jobs.label_book import book_file
from ray_jobs.stage import Stage

LEAST_HOURS = 24.0
"""Between two retrainings of a project, unless somebody says otherwise."""
_NAMED_FILES = 10
_WATCH_SECONDS, _PAUSE_SECONDS = 10.0, 60.0


class RetrainingError(MergelineError):
    """It is not the time to retrain."""


class Outcome(StrEnum):
    """What a retraining came to."""

    PROPOSED = "proposed"
    """A version, and a branch that promotes it."""
    UNCHANGED = "unchanged"
    """Photographs, labels and settings are those of the version that is served."""
    FAILED = "failed"


class Retraining(Contract):
    """The latest retraining of a project: `retraining/<project>.json`."""

    reason: str
    began_at: AwareDatetime
    ended_at: AwareDatetime | None = None
    outcome: Outcome | None = Field(default=None, description="None: it runs, or its process was killed.")
    message: str = Field(default="", description="What it came to, in words.")
    proposed: Sha256 | None = Field(
        default=None, description="Bundle that this one, or the last one that came so far, has proposed."
    )

    @property
    def said(self) -> str:
        """When it was, and what it came to."""
        began = self.began_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        return (
            f"began {began} ({self.reason}): {self.outcome or 'it did not end'}{self.message and f', {self.message}'}"
        )


class Request(Contract):
    """What asks for a retraining: `retraining/<project>.request.json`, there until one was proposed."""

    reasons: tuple[str, ...] = Field(description="The first came first.")

    @property
    def text(self) -> str:
        """All reasons in one line."""
        return "; ".join(self.reasons)


@dataclass(frozen=True)
class Options:
    """How it shall be done."""

    environment: str
    """Where the version would be promoted to."""
    hours: float = LEAST_HOURS
    """That must have passed since the latest one began; 0: none."""
    application: str | None = None
    """Which application of the environment; None: that of the model's name, or the only one."""


def latest(state: State, project: str) -> Retraining | None:
    """The latest retraining of a project; None: there was none."""
    file = _record_file(state, project)
    return Retraining.read(file) if file.exists() else None


def requested(state: State, project: str) -> Request | None:
    """What asks for a retraining of a project; None: nothing does."""
    file = _request_file(state, project)
    return Request.read(file) if file.exists() else None


def request(state: State, project: str, reason: str) -> None:
    """Ask for a retraining; what asks already goes on asking."""
    with locked(_request_lock(state, project)):
        asked = requested(state, project)
        reasons = asked.reasons if asked else ()
        if reason not in reasons:
            write_atomically(_request_file(state, project), Request(reasons=(*reasons, reason)).to_json())


def withdraw(state: State, project: str, reason: str | None = None) -> None:
    """Ask no more for a reason; None: for any."""
    with locked(_request_lock(state, project)):
        asked = requested(state, project)
        left = tuple(one for one in asked.reasons if reason not in (None, one)) if asked else ()
        if left:
            write_atomically(_request_file(state, project), Request(reasons=left).to_json())
        else:
            _request_file(state, project).unlink(missing_ok=True)


def retrain(
    stage: Stage, repository: Repository, options: Options, reason: str, run_pipeline: Callable[[], None]
) -> Promotion | str:
    """Run the line on all that is known now, and propose the version that it makes.

    Args:
        stage: project and state.
        repository: the deployments repository.
        options: how.
        reason: why, in a few words; it stands in the commit and in the pull request.
        run_pipeline: runs all stages, from photographs to a registered version.

    Returns:
        What was proposed; where nothing is new since the version that is served, or was proposed last, that in words.

    Raises:
        RetrainingError: one runs, the latest was a short while ago, or the environment tries a version.
        MergelineError: a stage failed, or the branch could not be made; a request stays.
    """
    state, name = stage.state, stage.project.name
    with _alone(state, name):
        before = latest(state, name)
        _refuse_too_soon(before, options.hours)
        destination = Destination(repository, options.environment, options.application)
        wanted = destination.target(name)
        if wanted.trial:
            raise RetrainingError(
                f"{options.environment} has a {wanted.trial}: finish or abort it first, and retrain after that"
            )
        record = Retraining(reason=reason, began_at=now(), proposed=before.proposed if before else None)
        _write(state, name, record)
        try:
            run_pipeline()
            version = _made(stage)
            if version.model == wanted.model:
                text = _what_to_do(stage, options, version)
                _write(state, name, record, Outcome.UNCHANGED, text)
                return text
            if version.model.sha256 == record.proposed:  # whoever closed it, or went back, has decided
                again = f"mergeline promote {version.model.version} --to {options.environment}"
                text = f"{version.model} was proposed before, and nothing is new since: `{again}` proposes it again"
                _write(state, name, record, Outcome.UNCHANGED, text)
                return text
            purpose = f"Retrained: {reason}. {_changed(stage, wanted.model)}"
            comparison = compare.with_served(stage, wanted.model, version.model)
            proposed = destination.promote(version, comparison=comparison, purpose=purpose)
        except BaseException as error:  # also Ctrl-C: what is written down is what happened
            _write(state, name, record, Outcome.FAILED, str(error) or type(error).__name__)
            raise
        record = record.model_copy(update={"proposed": version.model.sha256})
        _write(state, name, record, Outcome.PROPOSED, proposed.text)
        withdraw(state, name)
        return proposed


def watch(
    stage: Stage, hours: float, retrain_for: Callable[[str], object], say: Callable[[str], None], *, once: bool = False
) -> None:
    """Retrain whenever something asks for it and it is time; a failed one is tried again when it is time again.

    Args:
        stage: project and state.
        hours: that must have passed since the latest one began.
        retrain_for: retrains for a reason.
        say: tells whoever looks on what happens.
        once: look once, and return.
    """
    said = ""
    while True:
        pause = _WATCH_SECONDS
        try:
            asked = requested(stage.state, stage.project.name)
            if asked and _is_due(stage, hours):
                retrain_for(asked.text)
                said = ""
        except Exception as error:  # whatever it is, the next alert must find somebody here
            pause = _PAUSE_SECONDS
            text = str(error) if isinstance(error, MergelineError) else f"{type(error).__name__}: {error}"
            if text != said:  # a canary may last for days
                say(f"not retrained: {text}")
            said = text
        if once:
            return
        time.sleep(pause)


def _is_due(stage: Stage, hours: float) -> bool:
    last = latest(stage.state, stage.project.name)
    if last is None or now() >= _next(last, hours):
        return True
    # Nothing was new then; perhaps somebody has labelled something since it began to look.
    labels = book_file(stage)
    return (
        last.outcome is Outcome.UNCHANGED
        and labels.exists()
        and datetime.fromtimestamp(labels.stat().st_mtime, UTC) > last.began_at
    )


def _next(last: Retraining, hours: float) -> datetime:
    return last.began_at + timedelta(hours=hours)


def _refuse_too_soon(last: Retraining | None, hours: float) -> None:
    if last is None or last.outcome is Outcome.UNCHANGED or now() >= _next(last, hours):
        return
    again = _next(last, hours).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    raise RetrainingError(
        f"the latest retraining {last.said}; the next is due from {again} on, {hours:g} hours after that, or now with "
        "--hours 0"
    )


@contextmanager
def _alone(state: State, project: str) -> Iterator[None]:
    """Hold the project's lock.

    Raises:
        RetrainingError: another process holds it.
    """
    with ExitStack() as held:
        try:
            held.enter_context(locked(state.retraining / f"{project}.lock", wait=False))
        except BlockingIOError:
            raise RetrainingError(f"a retraining of {project} runs already: wait for its end") from None
        yield


def _made(stage: Stage) -> ModelVersion:
    """The version that the pipeline has registered."""
    file = stage.run().bundle_file
    digest = file.read_text().strip() if file.exists() else ""
    for version in stage.state.versions(stage.project.name):
        if version.model.sha256 == digest:
            return version
    raise RetrainingError(
        f"the pipeline has ended, and registered no version of the settings in {stage.project_file}: were they changed "
        "meanwhile? Retrain again, with --hours 0"
    )


def _what_to_do(stage: Stage, options: Options, version: ModelVersion) -> str:
    windows = stage.state.windows / options.environment
    return (
        f"{version.model} is served, and has seen every photograph and label that there is: hand photographs out with "
        f"`mergeline label export tasks.json --windows {windows}`, take the labels in with `mergeline label import`, "
        "and retrain then"
    )


def _changed(stage: Stage, served: ServedModel | None) -> str:
    """What the data has that the served version's had not, in words."""
    if served is None:
        return "Nothing is served yet that it could be compared with."
    manifest = stage.state.bundles / served.sha256 / MANIFEST
    trained_on = BundleManifest.read(manifest).dataset if manifest.exists() else None
    changes = lineage.changes_since(stage, trained_on) if trained_on else None
    if trained_on is None or changes is None:
        return f"The dataset of {served} is not in the state folder any more, so that nobody can say what changed."
    summary = lineage.summary(trained_on, changes)
    return f"Data: {summary} (dataset of {served}).{_files(changes)}"


def _files(changes: DatasetChanges) -> str:
    kinds = {"Added": changes.added, "Removed": changes.removed, "Relabelled": changes.relabelled}
    return "".join(f" {kind}: {_named(files)}." for kind, files in kinds.items() if files.count)


def _named(files: ChangedFiles) -> str:
    more = f" and {files.count - _NAMED_FILES} more" if files.count > _NAMED_FILES else ""
    return ", ".join(files.filenames[:_NAMED_FILES]) + more


def _write(state: State, project: str, record: Retraining, outcome: Outcome | None = None, message: str = "") -> None:
    if outcome is not None:
        record = record.model_copy(update={"outcome": outcome, "message": message, "ended_at": now()})
    write_atomically(_record_file(state, project), record.to_json())


def _record_file(state: State, project: str) -> Path:
    return state.retraining / f"{project}.json"


def _request_lock(state: State, project: str) -> Path:
    return state.retraining / f"{project}.request.lock"


def _request_file(state: State, project: str) -> Path:
    return state.retraining / f"{project}.request.json"
