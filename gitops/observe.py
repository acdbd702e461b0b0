"""Whether a cluster serves what Git wants, where somebody else applies it: on Kubernetes, Argo CD and KubeRay."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gitops.difference import applications
from gitops.environment import Environment
from gitops.errors import MergelineError
from gitops.health import assess, awaits_a_model, live_slot, slot_of
from gitops.replicas import ask
from gitops.serve_api import ServeApi, ServeDetails
from gitops.state import write_atomically
from gitops.status import Health, worst
from gitops.turn import stopping_by_signal

LOOK_SECONDS = 10.0
"""Between two looks of `watch`."""


def observe(api: ServeApi, wanted: Environment) -> Health:
    """How what an environment wants is served: the worst of its applications, by Serve's word and the replicas' own.

    Of the configuration only the models are compared; whether the rest has been applied is KubeRay's to say.
    """
    try:
        details = api.applications()
    except MergelineError as error:
        return Health(status="Unknown", message=str(error))
    found = applications(wanted.config)
    return worst([_of_application(details, name, config, api.url) for name, config in found.items()])


def watch(api: ServeApi, wanted: Environment, file: Path, say: Callable[[Health], None]) -> None:
    """Look again and again until SIGTERM or Ctrl-C, and keep what was seen in a file: `Healthy`, or `Degraded: why`.

    Args:
        api: of the cluster.
        wanted: what it shall serve.
        file: is replaced after each look; until the first it says Unknown, whatever it said before.
        say: is told each change.
    """
    stop, last = threading.Event(), Health(message="not looked at yet")
    write_atomically(file, in_a_line(last))
    with stopping_by_signal(stop):
        while not stop.is_set():
            health = observe(api, wanted)
            write_atomically(file, in_a_line(health))
            if health != last:
                say(health)
            last = health
            stop.wait(LOOK_SECONDS)


def in_a_line(health: Health) -> str:
    """A health for people and for probes to read."""
    return ": ".join([health.status, *filter(None, ["; ".join(health.message.splitlines())])]) + "\n"


def _of_application(details: ServeDetails, name: str, config: Mapping[str, Any], dashboard_url: str) -> Health:
    live, slot = details.living.get(name), slot_of(config)
    if live is None or slot is None:
        return assess(name, live, slot)
    told = live_slot(live)
    if told != slot:
        text = f"{name} shall serve {slot.wanted}, and Serve was told to serve {told.wanted if told else 'no model'}"
        return Health(status="Progressing", message=text)
    if awaits_a_model(live, slot):
        return Health(status="Healthy", message=f"nothing was promoted to {name} yet")
    return assess(name, live, slot, ask(details, live, slot, dashboard_url))
