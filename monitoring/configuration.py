"""The configuration of Prometheus and Alertmanager, as text: pure functions of where things are."""

import json
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ALERTS = Path(__file__).parent / "alerts"
"""Folder of the alert rules, a file for each part: `*.rules.yml`."""
SCRAPE_SECONDS = 15
REFRESH_SECONDS = 5
"""How soon a new target is found."""
_GROUP_WAIT, _GROUP_INTERVAL, _REPEAT = "30s", "5m", "4h"


def rule_files() -> list[Path]:
    """The files of alert rules."""
    return sorted(ALERTS.glob("*.rules.yml"))


def targets(address: str, job: str) -> str:
    """A file of `targets`: one address.

    Args:
        address: as 127.0.0.1:9464.
        job: who exports there.
    """
    return json.dumps([{"targets": [address], "labels": {"job": job}}]) + "\n"


def prometheus(
    targets: Path, *, alertmanager: str | None, rules: Sequence[Path], scrape_seconds: int = SCRAPE_SECONDS
) -> str:
    """prometheus.yml.

    Args:
        targets: folder of the files that say what is to be scraped.
        alertmanager: its address, as 127.0.0.1:9093; None: alerts are only shown.
        rules: files of rules.
        scrape_seconds: between two looks, at what is exported and at the rules.
    """
    discovery = {"files": [f"{targets}/*.json"], "refresh_interval": f"{REFRESH_SECONDS}s"}
    configuration: dict[str, Any] = {
        "global": {"scrape_interval": f"{scrape_seconds}s", "evaluation_interval": f"{scrape_seconds}s"},
        "rule_files": [str(file) for file in rules],
        # The files name the job: ray, haproxy, mergeline.
        "scrape_configs": [{"job_name": "mergeline", "file_sd_configs": [discovery]}],
    }
    if alertmanager:
        configuration["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
    return _yaml(configuration)


def alertmanager(webhook: str | None, *, group_wait: str = _GROUP_WAIT, group_interval: str = _GROUP_INTERVAL) -> str:
    """alertmanager.yml.

    Args:
        webhook: URL that alerts are sent to, when they fire and when they resolve; None: they are only shown.
        group_wait: how long to wait for alerts that belong together.
        group_interval: before further alerts of a group, and their resolving, are told.
    """
    receiver: dict[str, Any] = {"name": "webhook" if webhook else "nobody"}
    if webhook:
        receiver["webhook_configs"] = [{"url": webhook, "send_resolved": True}]
    configuration = {
        "route": {
            "receiver": receiver["name"],
            "group_by": ["alertname", "application", "environment"],
            "group_wait": group_wait,
            "group_interval": group_interval,
            "repeat_interval": _REPEAT,
        },
        "receivers": [receiver],
    }
    return _yaml(configuration)


def _yaml(value: Mapping[str, Any]) -> str:
    text = StringIO()
    YAML().dump(value, text)
    return text.getvalue()
