"""How the service does lately: by Prometheus, or by the replica itself."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from gitops.monitor import Monitor, monitor_file
from gitops.state import State, write_atomically
from gitops.status import Journal
from monitoring.metrics import Outcome
from serve.figures import ServiceFigures, queries
from serve.recent import Recent, RecentComparisons
from tests.http_server import Handler, listening

pytestmark = pytest.mark.anyio
APPLICATION = "screw"
COMPARED = RecentComparisons()
"""Of nothing."""


@pytest.fixture
def recent() -> Recent:
    recent = Recent()
    recent.add(Outcome.ANSWERED, 0.1, "7")
    return recent


@pytest.fixture
def prometheus() -> Iterator[tuple[str, dict[str, list[object]]]]:
    """Its URL, and what it answers to each query; whether the queries are right is seen in tests/monitoring."""
    answers: dict[str, list[object]] = {}

    class Prometheus(Handler):
        def do_GET(self) -> None:
            (query,) = parse_qs(urlsplit(self.path).query)["query"]
            body = json.dumps({"status": "success", "data": {"result": answers.get(query, [])}}).encode()
            self.say(200, body)

    with listening(Prometheus) as url:
        yield url, answers


def sample(value: float, **labels: str) -> object:
    return {"metric": labels, "value": [0, str(value)]}


async def test_without_prometheus_a_replica_tells_its_own(recent: Recent) -> None:
    answer = await ServiceFigures({"application": APPLICATION}, recent, COMPARED, None, None).answer()
    assert (answer.source, answer.problem, answer.drift) == ("replica", None, None)
    assert answer.figures.p50_seconds == answer.versions["7"].p50_seconds == 0.1


@pytest.mark.parametrize("told", ["by the argument", "by the state folder"])
async def test_prometheus_is_asked_where_it_is_known(
    recent: Recent, prometheus: tuple[str, dict[str, list[object]]], tmp_path: Path, told: str
) -> None:
    url, answers = prometheus
    asked = queries({"application": APPLICATION})
    values = {"requests_per_second": 12.5, "error_share": 0.25, "p50_seconds": 0.02, "p99_seconds": 0.5}
    answers |= {asked[name]: [sample(value)] for name, value in values.items()}
    answers[asked["drift"]] = [sample(1, kind="image"), sample(0, kind="label"), sample(1, kind="any")]
    journal = None
    if told == "by the state folder":
        state = State.at(tmp_path)
        journal = Journal(state, "local")
        write_atomically(monitor_file(state), Monitor(id="x", prometheus=url, alertmanager=url).to_json())
    figures = ServiceFigures({"application": APPLICATION}, recent, COMPARED, journal, None if journal else url)
    answer = await figures.answer()
    assert (answer.source, answer.problem) == ("prometheus", None)
    assert {name: getattr(answer.figures, name) for name in values} == values
    assert answer.drift == {"image": True, "label": False, "any": True}


async def test_what_prometheus_does_not_know_is_none(
    recent: Recent, prometheus: tuple[str, dict[str, list[object]]]
) -> None:
    url, answers = prometheus
    answers[queries({"application": APPLICATION})["p99_seconds"]] = [sample(float("nan"))]
    answer = await ServiceFigures({"application": APPLICATION}, recent, COMPARED, None, url).answer()
    assert (answer.source, answer.drift, answer.versions, answer.shadows) == ("prometheus", None, {}, {})
    assert (answer.figures.requests_per_second, answer.figures.error_share, answer.figures.p99_seconds) == (
        0,
        None,
        None,
    )


async def test_prometheus_tells_versions_apart(recent: Recent, prometheus: tuple[str, dict[str, list[object]]]) -> None:
    url, answers = prometheus
    asked = queries({"application": APPLICATION})
    of_each = {
        "requests_per_second": {"6": 0.0, "7": 9.0, "8": 1.0},  # 6 was served before: its series is still there
        "error_share": {"6": float("nan"), "7": 0.0, "8": 0.5},
        "p50_seconds": {"7": 0.02, "8": 0.04},
        "p99_seconds": {"7": 0.2},
    }
    for name, values in of_each.items():
        answers[asked[f"{name} of each version"]] = [
            sample(value, model_version=version) for version, value in values.items()
        ]
    answers[asked["shadows"]] = [
        sample(29.6, model_version="9", outcome="agreed"),
        sample(1.2, model_version="9", outcome="differed"),
        sample(0, model_version="5", outcome="agreed"),
    ]
    answer = await ServiceFigures({"application": APPLICATION}, recent, COMPARED, None, url).answer()
    assert {
        version: (each.requests_per_second, each.error_share, each.p50_seconds, each.p99_seconds)
        for version, each in answer.versions.items()
    } == {"7": (9.0, 0.0, 0.02, 0.2), "8": (1.0, 0.5, 0.04, None)}
    (shadow,) = answer.shadows.items()
    assert shadow[0] == "9"
    assert (shadow[1].agreed, shadow[1].differed, shadow[1].failed, shadow[1].dropped) == (29.6, 1.2, 0, 0)


async def test_where_prometheus_is_away_the_replica_tells_its_own_and_says_so(recent: Recent) -> None:
    answer = await ServiceFigures({"application": APPLICATION}, recent, COMPARED, None, "http://127.0.0.1:9").answer()
    assert (answer.source, answer.problem) == ("replica", "Prometheus could not be asked (ConnectError)")
    assert answer.figures.p50_seconds == 0.1
