"""What every stage has in common: its options, its Ray, its progress, and the names of what it leaves behind."""

import argparse
import functools
import hashlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from gitops import interrupt
from gitops.contracts.dataset import DatasetManifest
from gitops.contracts.project import Project
from gitops.errors import DataError, MergelineError, StageError, told
from gitops.stage_record import StageRecorder
from gitops.state import State, stable_json, write_atomically
from monitoring import metrics
from monitoring.metrics import StageOutcome

STAGES: Final = (*metrics.STAGES, "pipeline")
"""What runs as `python -m ray_jobs.<stage>`."""
PROGRESS_MARK = "::progress "
"""Begins a line of output that `mergeline submit` draws as a bar; the rest is JSON with done, total and text."""

_RECORD_SECONDS = 10.0
"""Progress is told many times a second, and written down once in so many seconds."""
_MOST_HOURS = 10 * 366 * 24
_ATTEMPTS = 3  # Ray gives its processes 30 s to come up, which a busy machine exceeds


P = ParamSpec("P")
T = TypeVar("T")
_recorders: list[StageRecorder] = []
"""Of the stages that run in this process."""


@dataclass(frozen=True)
class Stage:
    """A stage's surroundings."""

    project: Project
    project_file: Path
    state: State

    def dataset(self) -> DatasetManifest:
        """The dataset that the last ETL of this project wrote.

        Raises:
            DataError: there is none yet.
        """
        pointer = self.dataset_pointer
        if not pointer.exists():
            raise DataError(f"{self.project.name} has no dataset yet in {self.state.root}: run `mergeline submit etl`")
        return DatasetManifest.read(self.state.datasets / pointer.read_text().strip() / "manifest.json")

    @property
    def dataset_pointer(self) -> Path:
        """A file that holds the digest of the project's newest dataset."""
        return self.state.datasets / f"{self.project.name}.current"

    def use_dataset(self, digest: str) -> None:
        """Make `digest` the dataset that the later stages read."""
        write_atomically(self.dataset_pointer, digest + "\n")

    def run(self) -> "Run":
        """The training run that the current dataset and the project's settings name."""
        dataset = self.dataset()
        # The number of workers is no part of the identity: it changes how fast, not what.
        settings = self.project.training.model_dump(mode="json", exclude={"workers"})
        identity = hashlib.sha256(stable_json([self.project.name, dataset.digest, settings]).encode()).hexdigest()
        return Run(identity[:12], self.state.runs / identity[:12], dataset)


@dataclass(frozen=True)
class Run:
    """A training run: the same dataset and settings always mean the same run, so that it can be resumed."""

    id: str
    folder: Path
    dataset: DatasetManifest

    @property
    def result_file(self) -> Path:
        """The TrainingResult."""
        return self.folder / "result.json"

    @property
    def folds_folder(self) -> Path:
        """What the folds of the cross-validation found so far: a file each."""
        return self.folder / "folds"

    @property
    def cross_validation_file(self) -> Path:
        """The CrossValidationResult."""
        return self.folder / "cross-validation.json"

    @property
    def bundle_file(self) -> Path:
        """The digest of the bundle that was exported from the run."""
        return self.folder / "bundle.sha256"

    def inputs_of(self, *settings: object) -> str:
        """A digest of settings and of what training and cross-validation have left: what a later stage is made of."""
        files = [file.read_bytes() for file in (self.result_file, self.cross_validation_file) if file.exists()]
        parts = [hashlib.sha256(data).hexdigest() for data in files]
        return hashlib.sha256(stable_json([parts, *settings]).encode()).hexdigest()

    @property
    def evaluation_file(self) -> Path:
        """The EvaluationReport of that bundle."""
        return self.folder / "evaluation.json"


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with the options that all stages share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--project", type=Path, default=Path("project.yaml"), help="project file (%(default)s)")
    parser.add_argument("--state", type=Path, default=Path(".mergeline"), help="state folder (%(default)s)")
    return parser


def as_count(text: str) -> int:
    """A whole number above 0, as an option has it."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text}")
    return value


def as_hours(text: str) -> float:
    """A number of hours, as an option has it."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= _MOST_HOURS:
        raise argparse.ArgumentTypeError(f"must be a number of hours above 0, and ten years at most, not {text}")
    return value


def open_stage(options: argparse.Namespace) -> Stage:
    """Read the project file that the options name."""
    return Stage(Project.read(options.project), options.project.resolve(), State.at(options.state))


def report_progress(done: int, total: int, text: str) -> None:
    """Tell whoever follows how far the stage is."""
    state = json.dumps({"done": done, "total": total, "text": text})
    # With its end in one piece: Ray's threads print what the workers say in between.
    print(f"{PROGRESS_MARK}{state}\n", end="", flush=True)
    for recorder in _recorders:
        with suppress(OSError):  # a stage does not fail because it cannot be watched
            recorder.progress(_RECORD_SECONDS)


def recorded(name: str) -> Callable[[Callable[Concatenate[Stage, P], T]], Callable[Concatenate[Stage, P], T]]:
    """Write down in the state folder how each run of a stage goes.

    Args:
        name: the stage's.
    """

    def decorate(run: Callable[Concatenate[Stage, P], T]) -> Callable[Concatenate[Stage, P], T]:
        @functools.wraps(run)
        def watched(stage: Stage, /, *args: P.args, **kwargs: P.kwargs) -> T:
            with _recording(stage, name):
                return run(stage, *args, **kwargs)

        return watched

    return decorate


@contextmanager
def _recording(stage: Stage, name: str) -> Iterator[None]:
    try:
        recorder = StageRecorder(stage.state, stage.project.name, name)
    except OSError:  # the stage itself will say that it cannot write there
        yield
        return
    _recorders.append(recorder)
    outcome = StageOutcome.FAILED
    try:
        yield
        outcome = StageOutcome.SUCCEEDED
    finally:
        _recorders.remove(recorder)
        with suppress(OSError):
            recorder.end(outcome)


@contextmanager
def ray_session() -> Iterator[None]:
    """Use the Ray that `RAY_ADDRESS` names (as Ray Jobs sets it), or a private one that ends with the stage."""
    import ray  # slow, and not every stage needs it

    if ray.is_initialized():
        yield
        return
    _start(os.environ.get("RAY_ADDRESS") or "local")
    try:
        yield
    finally:
        ray.shutdown()


def _start(address: str) -> None:
    """Connect to a Ray, or start a private one; on a busy machine Ray's own patience with its processes may end."""
    import ray

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, include_dashboard=False)
        except Exception as error:  # Ray raises a plain one where its node did not come up in time
            ray.shutdown()
            if attempt == _ATTEMPTS or isinstance(error, ConnectionError):
                where = "a private Ray" if address == "local" else f"Ray at {address}"
                raise StageError(
                    f"{where} could not be used: {error}; try again when the machine is less busy"
                ) from error
        else:
            return


def run_main(main: Callable[[], None]) -> None:
    """Run a stage as a program: errors that a user can mend are one message and exit status 1.

    A polite end (SIGTERM, as Ray Jobs sends it) unwinds like Ctrl-C, so that nothing is left half-written.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    interrupt.raise_again()
    try:
        main()
    except MergelineError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if (text := told(error)) is None:
            raise
        sys.exit(f"error: {text}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(interrupt.STATUS)
