"""Following a job of a Ray that goes away."""

import contextlib
import io
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import pytest
import ray
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient, JobType
from rich.console import Console

from ray_jobs import submit
from tests.http_server import Handler, listening

pytestmark = pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")  # Ray's client says it
JOB = "pipeline-1"


class Jobs(Handler):
    """The beginning of Ray's Jobs API: it tells its version, and has no job."""

    def do_GET(self) -> None:
        if self.path == "/api/version":
            self.say(200, json.dumps({"version": "4", "ray_version": ray.__version__}).encode())
        elif self.path.endswith("/logs/tail"):
            self.say(404, b"no such job")
        else:
            self.say(500, b"the store is away")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "_RECONNECTS", 2)
    monkeypatch.setattr(submit, "_RECONNECT_SECONDS", 0.01)


@contextlib.contextmanager
def client_of(*, living: bool) -> Iterator[JobSubmissionClient]:
    """A client of a Ray that lives on, or has gone since."""
    with contextlib.ExitStack() as stack:
        client = JobSubmissionClient(stack.enter_context(listening(Jobs)))
        if not living:
            stack.close()
        yield client


@pytest.mark.parametrize(("living", "reason"), [(True, "404"), (False, "Cannot connect")])
def test_a_log_that_cannot_be_had_is_one_error(living: bool, reason: str) -> None:
    with (
        client_of(living=living) as client,
        pytest.raises(submit.SubmissionError, match=f"broke off 2 times, at last with: {reason}.*resumes"),
    ):
        submit.follow(client, JOB, Console(file=io.StringIO()))


def test_a_log_that_breaks_off_goes_on_where_it_was() -> None:
    class Broken:
        tries = 0

        async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
            self.tries += 1
            yield "one\n"
            if self.tries == 1:
                raise ConnectionResetError
            yield "two\n"

        def get_job_info(self, job: str) -> JobDetails:
            self.tries += 1
            if self.tries == 3:
                raise ConnectionError
            return JobDetails(type=JobType.SUBMISSION, entrypoint="", status=JobStatus.SUCCEEDED)

    client, output = Broken(), io.StringIO()
    assert submit.follow(cast("JobSubmissionClient", client), JOB, Console(file=output)) == 0
    assert output.getvalue().split() == ["one", "two"]
    assert client.tries == 4


def test_a_log_that_breaks_off_again_and_again_is_followed_as_long_as_something_new_comes() -> None:
    class Broken:
        tries = 0

        async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
            self.tries += 1
            for number in range(self.tries):
                yield f"{number}\n"
            if self.tries < 9:
                raise ConnectionResetError

        def get_job_info(self, job: str) -> JobDetails:
            return JobDetails(type=JobType.SUBMISSION, entrypoint="", status=JobStatus.SUCCEEDED)

    output = io.StringIO()
    assert submit.follow(cast("JobSubmissionClient", Broken()), JOB, Console(file=output)) == 0
    assert output.getvalue().split() == [str(number) for number in range(9)]


def test_what_else_a_job_writes_into_its_progress_is_printed() -> None:
    class Mixed:
        async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
            yield '::progress {"done": 1, "total": 2, "text": "read"}(raylet) slow\n\n'
            yield '::progress {"done": 2, "tot(raylet) slower\n'
            yield '::progress {"done": 2, "total": 2, "text": "read"}\n'

        def get_job_info(self, job: str) -> JobDetails:
            return JobDetails(type=JobType.SUBMISSION, entrypoint="", status=JobStatus.SUCCEEDED)

    output = io.StringIO()
    assert submit.follow(cast("JobSubmissionClient", Mixed()), JOB, Console(file=output)) == 0
    said = ["1/2 read", "(raylet) slow", '::progress {"done": 2, "tot(raylet) slower', "2/2 read"]
    assert [line for line in output.getvalue().splitlines() if line] == said


def test_ctrl_c_beside_a_ray_that_is_gone_is_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    async def tail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(submit, "_tail", tail)
    with client_of(living=False) as client, pytest.raises(KeyboardInterrupt):
        submit.follow(client, JOB, Console(file=io.StringIO()))


@pytest.mark.parametrize(("living", "reason"), [(True, "store is away"), (False, "Connection refused")])
def test_a_job_whose_end_nobody_tells_is_one_error(living: bool, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def tail(*_: object) -> None: ...

    monkeypatch.setattr(submit, "_tail", tail)
    said = f"does not say how job {JOB} ended.*{reason}.*resumes"
    with client_of(living=living) as client, pytest.raises(submit.SubmissionError, match=said):
        submit.follow(client, JOB, Console(file=io.StringIO()))


def test_a_job_of_this_machine_begins_in_the_callers_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a line's folder"
    folder.mkdir()
    python = folder / "python"
    python.write_text('#!/bin/sh\npwd\nfor word in "$@"; do echo "$word"; done\n')
    python.chmod(0o755)
    command = submit.entrypoint("./python", "drift", ["--windows", "our windows"], folder)
    said = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True).stdout
    assert said.splitlines() == [str(folder), "-P", "-m", "ray_jobs.drift", "--windows", "our windows"]
