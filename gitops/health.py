"""Whether applications are well, from what Serve says of them and what their replicas say: pure functions of values."""

import re
from collections.abc import Mapping
from typing import Any

from gitops.contracts.serving import FleetConfig, ServedModel, UserConfig
from gitops.environment import MONITOR, models_of
from gitops.errors import ContractError
from gitops.serve_api import Application, Deployment, Foreign
from gitops.status import Health
from gitops.wire import NO_ANSWERS, Answers

_ANSWERING = ("HEALTHY", "UPSCALING", "DOWNSCALING")
_SHOWN_CHARACTERS = 600
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Slot(Foreign):
    """Where an application's configuration says which model it serves and tries beside it, or which fleet of models."""

    deployment: str
    wanted: UserConfig | FleetConfig

    @property
    def is_empty(self) -> bool:
        """Whether nothing was promoted yet."""
        return not (self.wanted.models if isinstance(self.wanted, FleetConfig) else self.wanted.model)

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """All that are to be loaded there."""
        return tuple(self.wanted.models.values()) if isinstance(self.wanted, FleetConfig) else self.wanted.models


def slot_of(config: Mapping[str, Any]) -> Slot | None:
    """The deployment of an application that has a model in its `user_config`, and what that says; None without one.

    Raises:
        ContractError: it says so wrongly.
    """
    models = models_of(config, "the cluster")
    return Slot(deployment=models[0], wanted=models[1]) if models else None


def live_slot(live: Application) -> Slot | None:
    """The slot of what runs; None as well where somebody has put a model there that is none."""
    try:
        return slot_of(live.deployed_app_config or {})
    except ContractError:
        return None


def serving_status(live: Application) -> str:
    """Serve's word for an application, whose monitor does not count: without it every request is answered."""
    monitor, others = (
        live.deployments.get(MONITOR),
        [item for item in live.deployments.values() if item.name != MONITOR],
    )
    if monitor is None or monitor.status == "HEALTHY" or not others:
        return live.status
    # Serve names those that ail. It says something else where an application cannot be built.
    only_it_failed = live.status in ("DEPLOY_FAILED", "UNHEALTHY") and f"['{MONITOR}']" in live.message
    if not only_it_failed and live.status != "DEPLOYING":
        return live.status
    if all(item.status in _ANSWERING for item in others):
        return "RUNNING"
    return "DEPLOYING" if any(item.status == "UPDATING" for item in others) else live.status


def awaits_a_model(live: Application, slot: Slot) -> bool:
    """Whether an application runs to which nothing was promoted yet."""
    return slot.is_empty and serving_status(live) == "RUNNING"


def assess(name: str, live: Application | None, slot: Slot | None, answers: Answers = NO_ANSWERS) -> Health:
    """How an application is.

    Args:
        name: of the application.
        live: what Serve says of it; None if it has no such application.
        slot: the deployment with a model and the model that its configuration asks for.
        answers: what the replicas said; looked at only where Serve says that the application runs.
    """
    if live is None:
        return Health(status="Missing", message=f"{name} is not deployed")
    status = serving_status(live)
    if status in ("DEPLOY_FAILED", "UNHEALTHY"):
        return Health(status="Degraded", message=f"{name} is {status}: {serve_message(live)}")
    if status != "RUNNING":
        reason = _said(live)  # of a replica that does not start, and of which Serve starts another one
        return Health(status="Progressing", message=f"{name} is {status}" + (f": {reason}" if reason else ""))
    if slot is None:
        return Health(status="Healthy")
    if awaits_a_model(live, slot):
        return Health(status="Missing", message="nothing promoted yet")
    health = _of_replicas(name, slot.wanted, live.deployments.get(slot.deployment), answers)
    if health.status == "Healthy" and live.status != "RUNNING":
        return Health(status="Healthy", message=f"nothing watches {name} for drift: {serve_message(live)}")
    return health


def refusals(wanted: UserConfig | FleetConfig, answers: Answers) -> list[str]:
    """What replicas say that were asked for a model or a candidate and cannot load it."""
    return [text for answer in answers.by_replica.values() if (text := answer.refusal(wanted))]


def _of_replicas(
    name: str, wanted: UserConfig | FleetConfig, deployment: Deployment | None, answers: Answers
) -> Health:
    if not answers.can_be_asked:
        return Health(status="Healthy", message=f"{name} has no HTTP route: its replicas were not asked")
    running = deployment.running if deployment else frozenset()
    if not running and not answers.by_replica:
        idle = deployment is not None and deployment.target_num_replicas == 0
        return Health(status="Healthy" if idle else "Progressing", message=f"{name} has no running replica")
    known = [answer for replica, answer in answers.by_replica.items() if replica in running or not running]
    if refused := refusals(wanted, answers):
        text = f"{refused[0]} ({len(refused)} of {len(running)} replicas say so)"
        return Health(status="Degraded", message=text)
    if answers.busy and not known:
        return Health(status="Progressing", message=f"{name} is too busy to say what it serves: {answers.silence}")
    if answers.silence and not known:
        return Health(status="Degraded", message=f"{name} does not answer: {answers.silence}")
    behind = [answer for answer in known if not answer.serves(wanted)]
    missing = running - {answer.replica for answer in known}
    if behind or missing:
        text = f"{len(known) - len(behind)} of {len(running)} replicas serve {wanted}"
        unmet = f" ({answers.silence})" if missing and answers.silence else ""
        return Health(status="Progressing", message=text + unmet)
    return Health(status="Healthy")


def serve_message(live: Application) -> str:
    """What Serve says of an application and its deployments; of a traceback its last line only."""
    return _said(live) or "Serve gives no reason; see Ray's logs"


def _said(live: Application) -> str:
    texts = [live.message, *(deployment.message for deployment in live.deployments.values())]
    return "\n".join(dict.fromkeys(_without_traceback(text) for text in texts if text.strip()))


def _without_traceback(text: str) -> str:
    plain = _COLOUR.sub("", text).strip()
    head, traceback, tail = plain.partition("Traceback (most recent call last)")
    if traceback:  # what comes before it may have a stack of Ray's own in it
        plain = " ".join([*head.strip().splitlines()[:1], tail.splitlines()[-1].strip()])
    return plain if len(plain) <= _SHOWN_CHARACTERS else f"{plain[:_SHOWN_CHARACTERS]} …"
