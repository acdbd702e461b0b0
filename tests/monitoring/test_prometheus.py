"""A real Prometheus and Alertmanager, as `mergeline monitor up` starts them, over everything that is exported."""

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from gitops.monitor import Monitor, monitor_of
from gitops.state import State, write_atomically
from monitoring import configuration
from monitoring.dashboards import Query, dashboards
from ray_jobs import monitor, processes
from ray_jobs.monitor import MonitorError
from serve.figures import queries
from tests.http_server import Handler, listening
from tests.monitoring.exposition import Exposition, exporting
from tests.monitoring.hurry import in_a_hurry

PROGRAMS = (monitor.PROMETHEUS, monitor.ALERTMANAGER)
needs_prometheus = pytest.mark.skipif(
    not all(map(shutil.which, PROGRAMS)), reason="Prometheus and Alertmanager are not installed: `make test`"
)
DEADLINE_SECONDS = 60
PAGE = [pytest.param(Query(text), id=f"page: {name}") for name, text in queries({"application": "screw"}).items()]
QUERIES = [
    pytest.param(query, id=f"{board.uid}: {panel.title} {number}")
    for board in dashboards()
    for panel in board.panels
    for number, query in enumerate(panel.queries)
]


class Inbox:
    """What Alertmanager has sent."""

    def __init__(self) -> None:
        self.alerts: list[tuple[str, str]] = []
        """Name and status of each."""


@pytest.fixture(scope="module")
def inbox() -> Iterator[tuple[Inbox, str]]:
    """With its URL."""
    inbox = Inbox()

    class Webhook(Handler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            inbox.alerts += [(alert["labels"]["alertname"], alert["status"]) for alert in body["alerts"]]
            self.say(200, b"")

    with listening(Webhook) as url:
        yield inbox, f"{url}/alerts"


@pytest.fixture(scope="module")
def exposition() -> Exposition:
    return Exposition()


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, exposition: Exposition, inbox: tuple[Inbox, str]
) -> Iterator[tuple[Monitor, State]]:
    folder = tmp_path_factory.mktemp("monitor")
    state = State.at(folder / "state")
    with exporting(exposition) as address, in_a_hurry(folder):
        write_atomically(state.targets / "ray.json", configuration.targets(address, "ray"))
        yield monitor.up(state, webhook=inbox[1], port=9090), state
        monitor.down(state)


def until(reached: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := reached()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def asked(url: str, expression: str) -> list[Any]:
    answer = httpx.get(f"{url}/api/v1/query", params={"query": expression})
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()["data"]["result"]
    return found


@needs_prometheus
@pytest.mark.parametrize("query", [*QUERIES, *PAGE])
def test_every_panel_has_something_to_show(running: tuple[Monitor, State], query: Query) -> None:
    chosen = re.sub(r"\$(namespace|application|environment|project)", ".*", query.expression)
    expression = chosen.replace("$__rate_interval", "30s")
    series = until(lambda: asked(running[0].prometheus, expression))
    assert all(sample["value"][1] != "NaN" for sample in series)
    names = re.findall(r"{{(\w+)}}", query.legend)
    assert all(name in sample["metric"] for name in names for sample in series if sample["metric"])


@needs_prometheus
def test_an_alert_fires_and_resolves(
    running: tuple[Monitor, State], exposition: Exposition, inbox: tuple[Inbox, str]
) -> None:
    _, state = running
    exposition.drifted = True
    until(lambda: ("MergelineDrift", "firing") in inbox[0].alerts)
    found = monitor.status(state)
    assert [(target.job, target.up) for target in found.targets] == [("ray", True)]
    (alert,) = [alert for alert in found.alerts if alert.name == "MergelineDrift"]
    assert (alert.state, alert.runbook) == ("firing", "docs/runbooks/drift.md")
    exposition.drifted = False
    until(lambda: ("MergelineDrift", "resolved") in inbox[0].alerts)


@needs_prometheus
def test_it_listens_on_loopback_only_and_up_again_changes_nothing(running: tuple[Monitor, State]) -> None:
    started, state = running
    before = {process.pid for process in processes.of(started.id)}
    listening = {
        connection.laddr.ip
        for process in processes.of(started.id)
        for connection in process.net_connections("inet")
        if connection.status == "LISTEN"
    }
    assert listening == {"127.0.0.1"}
    assert monitor.up(state) == started, "it keeps its webhook, too"
    assert str(started.webhook) in (state.monitoring / "alertmanager.yml").read_text()
    assert {process.pid for process in processes.of(started.id)} == before


def test_without_the_programs_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MonitorError, match="apt-get install prometheus prometheus-alertmanager"):
        monitor.up(State.at(tmp_path / "state"))
    assert monitor_of(State.at(tmp_path / "state")) is None


@needs_prometheus
def test_after_a_reboot_alerts_go_where_they_went(tmp_path: Path) -> None:
    state = State.at(tmp_path / "state")
    dead = Monitor(
        id="0" * 16, prometheus="http://127.0.0.1:9", alertmanager="http://127.0.0.1:9", webhook="http://h/a"
    )
    write_atomically(state.monitoring / "monitor.json", dead.to_json())
    try:
        assert monitor.up(state).webhook == "http://h/a"
        assert "http://h/a" in (state.monitoring / "alertmanager.yml").read_text()
        assert monitor.up(state, webhook="").webhook is None
    finally:
        monitor.down(state)


def test_a_retention_that_is_no_duration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MonitorError, match="'long' is no duration: write"):
        monitor.up(State.at(tmp_path / "state"), retention="long")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("webhook", ["nowhere", "ftp://h/a", "http://", "http://a:b:c"])
def test_a_webhook_that_is_no_url_is_refused(tmp_path: Path, webhook: str) -> None:
    with pytest.raises(MonitorError, match=f"'{webhook}' is no URL to send alerts to"):
        monitor.up(State.at(tmp_path / "state"), webhook=webhook)
    assert not (tmp_path / "state").exists()


@needs_prometheus
def test_of_two_commands_at_once_one_starts_it_and_nothing_is_left_over(tmp_path: Path) -> None:
    state = State.at(tmp_path / "state")
    try:
        with ThreadPoolExecutor(2) as pool:
            one, other = pool.map(lambda _: monitor.up(state), range(2))
        assert one == other == monitor_of(state)
        assert len(processes.of(one.id)) == 2
    finally:
        monitor.down(state)


@needs_prometheus
def test_what_does_not_come_up_is_ended_and_says_why(tmp_path: Path) -> None:
    state = State.at(tmp_path / "state")
    write_atomically(state.monitoring / "data", "a file where Prometheus wants a folder")
    with pytest.raises(MonitorError, match=r"(?s)did not come up.*prometheus: .*not a directory"):
        monitor.up(state)
    assert monitor_of(state) is None
    with pytest.raises(MonitorError, match="mergeline monitor up"):
        monitor.status(state)
    assert monitor.down(state) == 0
