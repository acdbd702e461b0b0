"""Where the Prometheus of a state folder answers: what `mergeline monitor up` leaves for others to find."""

from pathlib import Path

from pydantic import Field

from gitops.contracts.base import Contract
from gitops.state import State


class Monitor(Contract):
    """What runs for a state folder: `monitoring/monitor.json`."""

    id: str = Field(description="Value of MERGELINE_SESSION in both processes.")
    prometheus: str = Field(description="Prometheus's URL.")
    alertmanager: str = Field(description="Alertmanager's URL.")
    webhook: str | None = Field(default=None, description="Where alerts are sent; None: they are only shown.")


def monitor_file(state: State) -> Path:
    """The file that holds it."""
    return state.monitoring / "monitor.json"


def monitor_of(state: State) -> Monitor | None:
    """The monitor that the state folder knows of, running or not."""
    file = monitor_file(state)
    return Monitor.read(file) if file.exists() else None
