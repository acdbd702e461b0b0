"""Submitting a stage as a Ray job, and following it to its end."""

import asyncio
import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from gitops.errors import MergelineError
from ray_jobs.folders import absolute
from ray_jobs.stage import PROGRESS_MARK, Stage

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_POLL_SECONDS = 0.3
_RECONNECTS, _RECONNECT_SECONDS = 20, 1.0
# A cluster that has just started takes jobs a little later than it answers.
_NO_AGENT, _AGENT_SECONDS = "No available agent", 90
# A job runs in the environment that the cluster was started in; these belong to whoever submits.
_PASSED_VARIABLES = (
    "MLFLOW_TRACKING_URI",
    "KAGGLE_API_TOKEN",
    "KAGGLE_USERNAME",
    "KAGGLE_KEY",
    "KAGGLE_CONFIG_DIR",
    "KAGGLE_API_ENVIRONMENT",
    "TF_CPP_MIN_LOG_LEVEL",  # Ray Train's workers import TensorFlow before they import anything of ours
)


class SubmissionError(MergelineError):
    """A job could not be submitted or followed."""


class PipelineError(MergelineError):
    """The pipeline's job failed."""


@dataclass(frozen=True)
class Training:
    """How the pipeline is to be run."""

    data: str | None = None
    """`rendered`, `kaggle` or a folder instead of the project's source."""
    workers: int | None = None
    """Ray Train workers instead of the project's number."""
    use_gpu: bool = False


def run_pipeline(stage: Stage, address: str, training: Training, console: Console) -> None:
    """Run the project's pipeline as a job of this machine's Ray, and follow it to its end.

    Raises:
        PipelineError: a stage failed; the next run goes on from there.
        SubmissionError: Ray did not take the job.
    """
    arguments = ["--project", str(stage.project_file), "--state", str(stage.state.root)]
    if training.data is not None:
        arguments += ["--data", absolute(training.data)]
    if training.workers:
        arguments += ["--workers", str(training.workers)]
    if training.use_gpu:
        arguments += ["--use-gpu"]
    client, job = submit(address, entrypoint(sys.executable, "pipeline", arguments), "pipeline")
    if status := follow(client, job, console):
        raise PipelineError(f"the pipeline failed with status {status}; mend it and run this again: it resumes")


def entrypoint(python: str, stage: str, arguments: Sequence[str], folder: Path | None = None) -> str:
    """The shell command of a stage's job.

    Args:
        python: the interpreter.
        stage: one of `stage.STAGES`.
        arguments: its options.
        folder: that relative paths among them are meant from; None: wherever the job runs.
    """
    if folder is None:
        return shlex.join([python, "-m", f"ray_jobs.{stage}", *arguments])
    # -P: what lies in that folder, perhaps another checkout of this very project, is not imported.
    return f"cd {shlex.quote(str(folder))} && exec {shlex.join([python, '-P', '-m', f'ray_jobs.{stage}', *arguments])}"


def submit(address: str, command: str, stage: str) -> "tuple[JobSubmissionClient, str]":
    """Submit a command as a Ray job.

    Args:
        address: URL of the Jobs API, as http://127.0.0.1:8265.
        command: what `entrypoint` returns.
        stage: begins the submission id, so that a list of jobs can be read.

    Returns:
        The client, and the submission id.

    Raises:
        SubmissionError: there is no Ray at the address, or it did not take the job.
    """
    from ray.job_submission import JobSubmissionClient

    variables = {name: os.environ[name] for name in _PASSED_VARIABLES if name in os.environ}
    try:
        client = JobSubmissionClient(address)
        deadline = time.monotonic() + _AGENT_SECONDS
        while True:
            try:
                submission = client.submit_job(
                    entrypoint=command,
                    submission_id=f"{stage}-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}",
                    runtime_env={"env_vars": {"PYTHONUNBUFFERED": "1", **variables}},
                )
            except RuntimeError as error:
                if _NO_AGENT not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)
            else:
                return client, submission
    except (OSError, RuntimeError, ValueError) as error:  # the last where it is no address at all
        raise SubmissionError(
            f"Ray at {address} did not take the job: {error}; name it as http://127.0.0.1:8265"
        ) from error


def follow(client: "JobSubmissionClient", submission: str, console: Console) -> int:
    """Show a job's output and progress until it ends; Ctrl-C stops the job.

    Returns:
        The job's exit status; 1 where Ray knows none for a failed job.
    """
    from ray.job_submission import JobStatus

    # It tells how its socket ended, between the job's own lines.
    logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        screen = _Screen(progress)
        try:
            asyncio.run(_tail(client, submission, screen.show))
        except KeyboardInterrupt:
            console.print("stopping the job …")
            with suppress(OSError, RuntimeError, SubmissionError):  # of a Ray that is gone no job goes on
                client.stop_job(submission)
                _wait(client, submission)
            raise
        screen.flush()
    info = _wait(client, submission)
    if info.status == JobStatus.SUCCEEDED:
        return 0
    if info.message and not screen.lines:
        console.print(info.message)
    return info.driver_exit_code or 1


def _wait(client: "JobSubmissionClient", submission: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - Ray's type is private
    """The job's details once it has ended: its log may end a moment earlier."""
    unanswered = 0
    while True:
        try:
            info, unanswered = client.get_job_info(submission), 0
        except (OSError, RuntimeError) as error:  # of `requests`, and a status other than 200
            unanswered += 1
            if unanswered == _RECONNECTS:
                raise SubmissionError(
                    f"Ray does not say how job {submission} ended ({error}). Where it lives, `ray job status "
                    f"{submission}` tells; once the job has ended, run it again: it resumes"
                ) from error
            time.sleep(_RECONNECT_SECONDS)
            continue
        if info.status.is_terminal():
            return info
        time.sleep(_POLL_SECONDS)


async def _tail(client: "JobSubmissionClient", submission: str, show: Callable[[str], None]) -> None:
    """Hand over all output, once, even where the connection breaks in between."""
    import aiohttp

    seen, problem, in_vain = 0, None, 0
    while in_vain < _RECONNECTS:
        position, in_vain = 0, in_vain + 1
        try:
            async for text in client.tail_job_logs(submission):
                position += len(text)
                if position > seen:
                    show(text[max(0, len(text) - (position - seen)) :])
                    seen, in_vain = position, 0
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            # The connection broke, or there is none; Ray sends the log from its start to the next one.
            problem = error
            await asyncio.sleep(_RECONNECT_SECONDS)
            continue
        return
    raise SubmissionError(
        f"the log of job {submission} broke off {_RECONNECTS} times, at last with: {problem}. Where Ray lives the job "
        f"goes on, and `ray job logs --follow {submission}` shows it; once it has ended, run it again: it resumes"
    )


class _Screen:
    """Output above, one bar below."""

    def __init__(self, progress: Progress) -> None:
        self.lines = 0
        self._progress = progress
        self._bar: TaskID | None = None
        self._rest = ""

    def show(self, text: str) -> None:
        """Print the whole lines of `text`; keep the rest for the next."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(line)

    def flush(self) -> None:
        """Print what came without a line's end."""
        if self._rest:
            self._line(self._rest)

    def _line(self, line: str) -> None:
        if line.startswith(PROGRESS_MARK):
            with suppress(ValueError):  # another of the job's processes wrote into it
                state, end = json.JSONDecoder().raw_decode(line, len(PROGRESS_MARK))
                self._progressed(state)
                line = line[end:]  # what another of its threads wrote before the line's end
                if not line:
                    return
        self.lines += 1
        self._progress.console.print(line)

    def _progressed(self, state: Mapping[str, Any]) -> None:
        if not self._progress.console.is_terminal:  # a log keeps what a bar would show
            self._progress.console.print(f"{state['done']}/{state['total']} {state['text']}")
            return
        if self._bar is None:
            self._bar = self._progress.add_task(state["text"], total=state["total"])
        self._progress.update(self._bar, completed=state["done"], total=state["total"], description=state["text"])
