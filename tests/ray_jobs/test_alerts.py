"""Alertmanager's notifications: which of them ask for a retraining, and what is refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gitops.state import State
from ray_jobs import alerts, retrain
from ray_jobs.alerts import AlertsError

SUMMARY = "what screw is shown has changed"
DRIFT = {"alertname": "MergelineDrift", "application": "screw", "model_version": "3", "retrain": "true"}
REASON = f"alert MergelineDrift on version 3: {SUMMARY}"


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State.at(tmp_path)


@pytest.fixture
def url(state: State) -> Iterator[str]:
    with alerts.listening(state, "screw", "screw", 0) as url:
        yield url


def notification(status: str = "firing", **labels: str) -> dict[str, Any]:
    """As Alertmanager 0.25 sends it, shortened."""
    alert = {
        "status": status,
        "labels": DRIFT | labels,
        "annotations": {"summary": SUMMARY, "runbook_url": "docs/runbooks/drift.md"},
        "startsAt": "2026-11-26T04:00:00Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": "0123456789abcdef",
    }
    return {"version": "4", "status": status, "receiver": "webhook", "truncatedAlerts": 0, "alerts": [alert]}


def reason_in(state: State) -> str | None:
    asked = retrain.requested(state, "screw")
    return asked.text if asked else None


def test_an_alert_asks_until_it_resolves(url: str, state: State) -> None:
    for _ in range(2):  # it is repeated while it fires
        assert httpx.post(url, json=notification()).status_code == 200
        assert reason_in(state) == REASON
    assert httpx.post(url, json=notification("resolved", model_version="2")).status_code == 200
    assert reason_in(state) == REASON, "another one has resolved"
    assert httpx.post(url, json=notification("resolved")).status_code == 200
    assert reason_in(state) is None


@pytest.mark.parametrize("labels", [{"retrain": "no"}, {"application": "bolt"}])
def test_others_ask_for_nothing(url: str, state: State, labels: dict[str, str]) -> None:
    assert httpx.post(url, json=notification(**labels)).status_code == 200
    assert reason_in(state) is None


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/alerts", b"{", "Invalid JSON"),
        ("/alerts", b'{"alerts": [{"status": "asleep"}]}', "status"),
        ("/", b"{}", "belongs to /alerts, not /"),
        ("/alerts", b" " * 1_000_001, "up to 1000000 are taken"),
    ],
)
def test_what_is_no_notification_is_refused(url: str, state: State, path: str, body: bytes, said: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(url.removesuffix("/alerts") + path, content=body, headers=headers)
    assert answer.status_code == 400
    assert said in answer.json()["message"]
    assert reason_in(state) is None


def test_what_a_browser_sends_for_any_page_is_refused(url: str, state: State) -> None:
    text = json.dumps(notification()).encode()
    answer = httpx.post(url, content=text, headers={"Content-Type": "text/plain"})
    assert answer.status_code == 400
    assert "must be application/json" in answer.json()["message"]
    assert reason_in(state) is None


def test_what_cannot_be_kept_is_sent_again(url: str, state: State) -> None:
    state.retraining.write_text("a file in the folder's place")
    assert httpx.post(url, json=notification()).status_code == 500


def test_a_port_that_is_taken_is_an_error(url: str, state: State) -> None:
    port = int(url.split(":")[2].split("/", maxsplit=1)[0])
    with pytest.raises(AlertsError, match="choose another with --port"), alerts.listening(state, "s", "s", port):
        pass
