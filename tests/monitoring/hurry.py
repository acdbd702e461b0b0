"""Prometheus and Alertmanager in a hurry: they look every second, and alerts do not wait."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gitops.state import State
from monitoring import configuration
from ray_jobs import monitor


@contextmanager
def in_a_hurry(folder: Path) -> Iterator[None]:
    """What `monitor.up` starts in the block; `folder` gets the rules."""
    rules = []
    for file in configuration.rule_files():
        rules.append(folder / file.name)
        rules[-1].write_text(re.sub(r"for: \w+", "for: 0s", file.read_text()))

    def hurried(state: State, alertmanager: str, webhook: str | None) -> dict[str, str]:
        return {
            "prometheus.yml": configuration.prometheus(
                state.targets, alertmanager=alertmanager, rules=rules, scrape_seconds=1
            ),
            "alertmanager.yml": configuration.alertmanager(webhook, group_wait="1s", group_interval="1s"),
        }

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(monitor, "configurations", hurried)
        yield
