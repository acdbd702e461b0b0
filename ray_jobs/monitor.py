"""Prometheus and Alertmanager on one machine: `mergeline monitor up`."""

import os
import re
import shutil
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
from pydantic import Field

from gitops.contracts.base import Contract
from gitops.errors import MergelineError
from gitops.monitor import Monitor, monitor_file, monitor_of
from gitops.state import State, locked, write_atomically
from monitoring import configuration
from ray_jobs import processes
from ray_jobs.cluster import free_port

PROMETHEUS, ALERTMANAGER = "prometheus", "prometheus-alertmanager"
"""The programs, as Debian's packages install them."""
RETENTION = "15d"
_LARGEST = "2GB"  # of samples: what is older goes, whatever the retention says
_DURATION = re.compile(r"([0-9]+(ms|[smhdwy]))+")
_START_SECONDS = 30
_POLL_SECONDS = 0.2


class MonitorError(MergelineError):
    """Prometheus or Alertmanager could not be started, or does not answer."""


class ScrapeTarget(Contract):
    """Something that is scraped."""

    job: str
    address: str
    up: bool
    error: str = Field(description="Why it could not be read; empty if it could.")


class Alert(Contract):
    """An alert that fires, or is about to."""

    name: str
    state: str = Field(description="pending or firing.")
    summary: str
    runbook: str


class MonitorStatus(Contract):
    """What Prometheus says."""

    monitor: Monitor
    targets: tuple[ScrapeTarget, ...]
    alerts: tuple[Alert, ...]


def configurations(state: State, alertmanager: str, webhook: str | None) -> dict[str, str]:
    """Prometheus's and Alertmanager's configuration by the files' names.

    Args:
        state: the state folder.
        alertmanager: its address, as 127.0.0.1:9093.
        webhook: URL that alerts are sent to; None: they are only shown.

    Raises:
        MonitorError: the webhook is no URL.
    """
    _check_webhook(webhook)
    rules = configuration.rule_files()
    return {
        "prometheus.yml": configuration.prometheus(state.targets, alertmanager=alertmanager, rules=rules),
        "alertmanager.yml": configuration.alertmanager(webhook),
    }


def up(state: State, *, webhook: str | None = None, retention: str = RETENTION, port: int = 9090) -> Monitor:
    """Start both for the state folder, on loopback; where they run, they read their configuration anew.

    Args:
        state: the state folder.
        webhook: URL that alerts are sent to; empty: they are only shown; None: as with the last ones, unless `down` has
            ended them.
        retention: how long samples are kept, as 15d; a running Prometheus keeps what it was started with.
        port: Prometheus's, if it is free; else any.

    Raises:
        MonitorError: a program is not installed, or does not come up.
    """
    if not _DURATION.fullmatch(retention):
        raise MonitorError(f"{retention!r} is no duration: write how long samples are kept as 12h or 15d")
    _check_webhook(webhook)
    programs = {name: _program(name) for name in (PROMETHEUS, ALERTMANAGER)}
    with locked(state.monitoring / "lock"):  # of two commands at once one would start what is in no file
        return _up(state, programs, webhook, retention, port)


def _up(state: State, programs: Mapping[str, str], webhook: str | None, retention: str, port: int) -> Monitor:
    running = monitor_of(state)
    if webhook is None and running:  # also where a reboot has ended them
        webhook = running.webhook
    if running and _is_running(running):
        running = running.model_copy(update={"webhook": webhook or None})
        _write(state, running)
        for process in processes.of(running.id):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGHUP)
        return running
    down(state)
    monitor = Monitor(
        id=os.urandom(8).hex(),
        prometheus=f"http://127.0.0.1:{free_port(port)}",
        alertmanager=f"http://127.0.0.1:{free_port(9093)}",
        webhook=webhook or None,
    )
    _write(state, monitor)
    folder = state.monitoring
    commands = {
        PROMETHEUS: [
            *[programs[PROMETHEUS], f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"],
            *[f"--storage.tsdb.retention.time={retention}", f"--storage.tsdb.retention.size={_LARGEST}"],
            f"--web.listen-address={_address(monitor.prometheus)}",
        ],
        ALERTMANAGER: [
            *[programs[ALERTMANAGER], f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/alerts"],
            f"--web.listen-address={_address(monitor.alertmanager)}",
            "--cluster.listen-address=",  # alone: it would listen on all interfaces for others of its kind
        ],
    }
    begun = []
    try:
        for name, command in commands.items():
            log = folder / f"{name}.log"
            log.unlink(missing_ok=True)
            begun.append(processes.spawn(monitor.id, command, log, os.environ))
        _await_ready(monitor, begun, folder)
    except BaseException:
        down(state)
        raise
    return monitor


def down(state: State) -> int:
    """End what `up` started, and nothing else; the samples stay. Returns how many processes there were."""
    monitor = monitor_of(state)
    if monitor is None:
        return 0
    count = processes.end(monitor.id)
    monitor_file(state).unlink(missing_ok=True)
    return count


def status(state: State) -> MonitorStatus:
    """What is scraped, and which alerts there are.

    Raises:
        MonitorError: nothing runs for the state folder.
    """
    monitor = monitor_of(state)
    if monitor is None or not _is_running(monitor):
        raise MonitorError(f"no Prometheus runs for {state.root}: run `mergeline monitor up`")
    targets = _asked(monitor, "targets?state=active")["activeTargets"]
    alerts = _asked(monitor, "alerts")["alerts"]
    return MonitorStatus(
        monitor=monitor,
        targets=tuple(
            ScrapeTarget(
                job=target["labels"]["job"],
                address=target["labels"]["instance"],
                up=target["health"] == "up",
                error=target["lastError"],
            )
            for target in targets
        ),
        alerts=tuple(
            Alert(
                name=alert["labels"]["alertname"],
                state=alert["state"],
                summary=alert["annotations"].get("summary", ""),
                runbook=alert["annotations"].get("runbook_url", ""),
            )
            for alert in alerts
        ),
    )


def _asked(monitor: Monitor, path: str) -> Any:
    try:
        answer = httpx.get(f"{monitor.prometheus}/api/v1/{path}", timeout=10, trust_env=False)
        return answer.raise_for_status().json()["data"]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise MonitorError(f"Prometheus at {monitor.prometheus} does not answer: {error}") from error


def _write(state: State, monitor: Monitor) -> None:
    state.targets.mkdir(parents=True, exist_ok=True)  # Prometheus watches it from its start on
    for name, text in configurations(state, _address(monitor.alertmanager), monitor.webhook).items():
        write_atomically(state.monitoring / name, text)
    write_atomically(monitor_file(state), monitor.to_json())


def _await_ready(monitor: Monitor, begun: list[int], folder: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not _is_running(monitor):
        # Not by their mark: one that the system still reads from a busy disk has none yet.
        ended = [pid for pid in begun if os.waitpid(pid, os.WNOHANG)[0]]
        if ended or time.monotonic() > deadline:
            said = "".join(f"\n{name}: {_complaint(folder / f'{name}.log')}" for name in (PROMETHEUS, ALERTMANAGER))
            raise MonitorError(f"Prometheus and Alertmanager did not come up; their logs in {folder} say:{said}")
        time.sleep(_POLL_SECONDS)


def _complaint(log: Path) -> str:
    """The last line that tells of an error; else the last."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "nothing")


def _check_webhook(url: str | None) -> None:
    try:
        parsed = httpx.URL(url or "")
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if url and not (parsed.scheme in ("http", "https") and parsed.host):
        raise MonitorError(f"{url!r} is no URL to send alerts to: write it as http://127.0.0.1:9095/alerts")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise MonitorError(
            f"{name} is not installed: on Debian `apt-get install {PROMETHEUS} {ALERTMANAGER}`; who has Prometheus "
            "elsewhere takes the configuration from `mergeline monitor up --print-config`"
        )
    return found


def _is_running(monitor: Monitor) -> bool:
    return all(_answers(f"{url}/-/ready") for url in (monitor.prometheus, monitor.alertmanager))


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _address(url: str) -> str:
    return url.removeprefix("http://")
