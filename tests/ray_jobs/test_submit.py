"""Following a job of a Ray that goes away."""

import io
import json

import pytest
import ray
from ray.job_submission import JobSubmissionClient
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


@pytest.mark.parametrize("lives", [True, False])
def test_a_log_that_cannot_be_had_is_one_error(lives: bool) -> None:
    with listening(Jobs) as url:
        client = JobSubmissionClient(url)
        if lives:
            with pytest.raises(submit.SubmissionError, match=r"broke off 2 times, at last with: 404"):
                submit.follow(client, JOB, Console(file=io.StringIO()))
    if not lives:
        with pytest.raises(submit.SubmissionError, match=r"broke off 2 times, at last with: Cannot connect.*resumes"):
            submit.follow(client, JOB, Console(file=io.StringIO()))


@pytest.mark.parametrize("lives", [True, False])
def test_a_job_whose_end_nobody_tells_is_one_error(lives: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def tail(*_: object) -> None: ...

    monkeypatch.setattr(submit, "_tail", tail)
    with listening(Jobs) as url:
        client = JobSubmissionClient(url)
        if lives:
            with pytest.raises(submit.SubmissionError, match=r"nobody knows how job pipeline-1 ended.*store is away"):
                submit.follow(client, JOB, Console(file=io.StringIO()))
    if not lives:
        with pytest.raises(submit.SubmissionError, match=r"nobody knows how job pipeline-1 ended.*Connection refused"):
            submit.follow(client, JOB, Console(file=io.StringIO()))
