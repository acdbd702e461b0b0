"""Whether applications are well: what Serve says of them, and what their replicas answer themselves."""

import itertools
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import Field, ValidationError

from gitops.environment import MONITOR, models_of
from gitops.errors import ContractError, StalledError
from gitops.manifest import VERSION_HEADER, BundleManifest, FleetConfig, ServedModel, Trial, UserConfig
from gitops.serve_api import ANY_INTERFACE, Application, Deployment, Foreign, ServeDetails, tls
from gitops.status import Health

ANSWER_SECONDS = 10.0
"""Longest wait for one answer of a replica: under load a request waits its turn."""
PROBE_REQUEST = "mergeline-probe"
"""The request id of probes, by which logs and statistics can tell them from photographs."""
_ANSWERING = ("HEALTHY", "UPSCALING", "DOWNSCALING")
# An application that failed to deploy, or of which a part is unwell, may go on answering with what it was.
_ASKED = ("RUNNING", "DEPLOY_FAILED", "UNHEALTHY")
_ASKS_PER_REPLICA = 8
"""Asked at once. Replicas at rest take turns or are picked by chance: one of two is missed once in 30,000 times."""
_LOOK_FOR_SECONDS = 2.0
"""For how long they are looked for: HAProxy asks the one with the fewest requests, so that a busy one is not met."""
_ASK_AGAIN_SECONDS = 0.05
_BUSY = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)
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


class WantedAnswer(Foreign):
    """A bundle: what a replica's configuration asks of it, or what answers."""

    version: str
    sha256: str

    @classmethod
    def of(cls, model: ServedModel) -> "WantedAnswer":
        """The part of a model's description that replicas repeat."""
        return cls(version=model.version, sha256=model.sha256)


class TrialAnswer(Foreign):
    """What a replica tries beside its model."""

    kind: str
    percent: int | None = None
    version: str
    sha256: str
    loaded: bool
    load_error: str | None = None

    def is_of(self, trial: Trial) -> bool:
        """Whether `trial` has reached this replica's configuration."""
        wanted = (trial.kind, trial.percent, trial.model.version, trial.model.sha256)
        return (self.kind, self.percent, self.version, self.sha256) == wanted


class ReplicaAnswer(Foreign):
    """`GET {route}/v2/models/{name}`: what one replica serves, and what it should."""

    replica: str
    version: str | None = None
    sha256: str | None = None
    wanted: WantedAnswer | None = None
    load_error: str | None = None
    trial: TrialAnswer | None = None

    @property
    def in_memory(self) -> tuple[str, ...]:
        """What answers, as `version@sha256:digest`."""
        return (f"{self.version}@sha256:{self.sha256}",) if self.sha256 else ()

    def serves(self, wanted: UserConfig | FleetConfig) -> bool:
        """Whether this replica's answers come from the wanted model, and it tries what is wanted beside it."""
        if isinstance(wanted, FleetConfig):
            return False
        model = wanted.model
        if model is None or (self.version, self.sha256) != (model.version, model.sha256):
            return False
        if wanted.trial is None or self.trial is None:
            return wanted.trial is None and self.trial is None
        return self.trial.is_of(wanted.trial) and self.trial.loaded

    def refusal(self, wanted: UserConfig | FleetConfig) -> str | None:
        """Why this replica cannot serve or try what it was asked to; None: it can, or was not asked yet."""
        if isinstance(wanted, FleetConfig):
            return None
        asked, model = self.wanted, wanted.model
        if self.load_error and asked and model and (asked.version, asked.sha256) == (model.version, model.sha256):
            still = f"version {self.version} goes on answering" if self.version else "no version answers"
            return f"wanted is {model.name} version {model.version}, but {still}: {self.load_error}"
        if wanted.trial and self.trial and self.trial.load_error and self.trial.is_of(wanted.trial):
            return f"wanted is a {wanted.trial}, but version {self.version} answers alone: {self.trial.load_error}"
        return None


class MemberAnswer(Foreign):
    """What one replica says of a model of its fleet."""

    wanted: WantedAnswer
    served: WantedAnswer | None = None
    load_error: str | None = None


class FleetAnswer(Foreign):
    """`GET {route}/fleet`: the models that one replica holds, and those that it would load if it were asked."""

    replica: str
    models: dict[str, MemberAnswer] = Field(default={})
    load_error: str | None = None

    @property
    def in_memory(self) -> tuple[str, ...]:
        """The models that answer at once, each `name version@sha256:digest`."""
        return tuple(
            f"{name} {member.served.version}@sha256:{member.served.sha256}"
            for name, member in self.models.items()
            if member.served
        )

    def serves(self, wanted: UserConfig | FleetConfig) -> bool:
        """Whether this replica knows the fleet as it shall be, and holds none of its models in another version."""
        if not isinstance(wanted, FleetConfig):
            return False
        return self._asked() == {name: WantedAnswer.of(model) for name, model in wanted.models.items()} and all(
            member.served in (None, member.wanted) for member in self.models.values()
        )

    def refusal(self, wanted: UserConfig | FleetConfig) -> str | None:
        """Why this replica cannot serve one of the models; None: it can, as far as it was asked to."""
        if not isinstance(wanted, FleetConfig):
            return None
        if self.load_error:
            return f"wanted is {wanted}, and not followed: {self.load_error}"
        for name, member in self.models.items():
            model = wanted.models.get(name)
            if member.load_error and model and member.wanted == WantedAnswer.of(model):
                still = f"version {member.served.version} goes on answering" if member.served else "no version answers"
                return f"wanted is {name} version {model.version}, but {still}: {member.load_error}"
        return None

    def _asked(self) -> dict[str, WantedAnswer]:
        return {name: member.wanted for name, member in self.models.items()}


class ProbeAnswer(Foreign):
    """`POST {route}/predict`: the part of an answer that a probe is about."""

    score: float
    model_name: str
    model_version: str
    model_digest: str = Field(description="sha256:<hex>")


@dataclass(frozen=True)
class Answers:
    """What the replicas of an application answered."""

    by_replica: Mapping[str, ReplicaAnswer | FleetAnswer]
    silence: str = ""
    """Why not every running replica answered; empty if each did."""
    can_be_asked: bool = True
    """False: the application has no HTTP route, so that there is only Serve's word."""


NO_ANSWERS = Answers({})


def slot_of(config: Mapping[str, Any]) -> Slot | None:
    """The deployment of an application that has a model in its `user_config`, and what that says; None without one.

    Raises:
        ContractError: it says so wrongly.
    """
    found = models_of(config, "the cluster")
    return Slot(deployment=found[0], wanted=found[1]) if found else None


def live_slot(live: Application) -> Slot | None:
    """The slot of what runs; None as well where somebody has put a model there that is none."""
    try:
        return slot_of(live.deployed_app_config or {})
    except ContractError:
        return None


def address_of(details: ServeDetails, app: Application, dashboard_url: str) -> str | None:
    """The URL under which an application answers, without a final slash; None if it has no route."""
    if app.route_prefix is None or details.http_options is None:
        return None
    host = details.http_options.host
    if host in ANY_INTERFACE:
        host = urlsplit(dashboard_url).hostname or "127.0.0.1"
    authority = f"[{host}]" if ":" in host else host
    return f"http://{authority}:{details.http_options.port}{app.route_prefix.rstrip('/')}"


def ask(details: ServeDetails, live: Application, slot: Slot, dashboard_url: str) -> Answers:
    """What an application's replicas say themselves; nobody is asked where nobody can answer.

    Args:
        details: of the cluster.
        live: the application.
        slot: where its model is, and which one is wanted.
        dashboard_url: of the cluster.
    """
    status = serving_status(live)
    if status not in _ASKED or slot.is_empty:
        return NO_ANSWERS
    url, deployment = address_of(details, live, dashboard_url), live.deployments.get(slot.deployment)
    if url is None:
        return Answers({}, can_be_asked=False)
    if deployment and deployment.running:
        return ask_replicas(url, slot.wanted, deployment.running)
    if status != "RUNNING":  # Serve lists no replicas then, though they may go on answering
        return ask_replicas(url, slot.wanted, frozenset())
    return NO_ANSWERS  # asking would wake up one that was scaled to zero


def ask_replicas(url: str, wanted: UserConfig | FleetConfig, running: frozenset[str]) -> Answers:
    """Ask what is served, on a new connection each time, until every running replica has answered or time is up.

    Where nobody answers at all, and not because of too much work, that is soon.

    Args:
        url: of the application.
        wanted: says what to ask for: a model's metadata, which has to be wanted, or a fleet's.
        running: ids of the replicas.
    """
    answers: dict[str, ReplicaAnswer | FleetAnswer] = {}
    silence = "not every replica was met"
    kind: type[ReplicaAnswer | FleetAnswer] = FleetAnswer if isinstance(wanted, FleetConfig) else ReplicaAnswer
    path = f"{url}/v2/models/{wanted.model.name}" if isinstance(wanted, UserConfig) and wanted.model else f"{url}/fleet"
    until, at_once, busy = time.monotonic() + _LOOK_FOR_SECONDS, _ASKS_PER_REPLICA * max(1, len(running)), False
    for asked in itertools.count(1):
        try:
            response = httpx.get(path, timeout=ANSWER_SECONDS, trust_env=False, verify=tls())
            answer = kind.parse(response.raise_for_status().json(), str(response.url))
        except (httpx.HTTPError, ValueError, ContractError) as error:
            silence = f"{path}: {_reason(error)}"
            if isinstance(error, httpx.TimeoutException):
                break
            busy = isinstance(error, httpx.HTTPStatusError) and error.response.status_code in _BUSY
        else:
            answers[answer.replica] = answer
            if running <= answers.keys():
                return Answers(answers)
            if asked < at_once:
                continue
        if asked >= at_once and (not (answers or busy) or time.monotonic() > until):
            break
        time.sleep(_ASK_AGAIN_SECONDS)  # a busy application refuses some requests and takes the next one
    return Answers(answers, silence)


def probe(url: str, model: ServedModel, bundle: Path, manifest: BundleManifest) -> str:
    """Post the bundle's probe image to `model`; empty if it gave the score that it must, else what is not so yet.

    Raises:
        StalledError: `model` answered, but with another score than at its export.
    """
    image = (bundle / manifest.probe.path).read_bytes()
    try:
        response = httpx.post(
            f"{url}/predict",
            content=image,
            headers={
                "Content-Type": "application/octet-stream",
                "X-Request-Id": PROBE_REQUEST,
                VERSION_HEADER: model.version,
            },
            timeout=ANSWER_SECONDS,
            trust_env=False,
            verify=tls(),
        )
        response.raise_for_status()
        answer = ProbeAnswer.model_validate_json(response.content)
    except (httpx.HTTPError, ValidationError) as error:
        return f"the probe request to {url}/predict failed: {_reason(error)}"
    if (answer.model_name, answer.model_version, answer.model_digest) != (
        model.name,
        model.version,
        f"sha256:{model.sha256}",
    ):
        return f"{url}/predict is still answered by {answer.model_name} version {answer.model_version}"
    if abs(answer.score - manifest.probe.score) > manifest.probe.tolerance:
        raise StalledError(
            f"{model.name} version {model.version} gives its probe image the score {answer.score:.4f}, at its export "
            f"it was {manifest.probe.score:.4f} ± {manifest.probe.tolerance}; promote another version or revert"
        )
    return ""


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
    head, found, tail = plain.partition("Traceback (most recent call last)")
    if found:  # what comes before it may have a stack of Ray's own in it
        plain = " ".join([*head.strip().splitlines()[:1], tail.splitlines()[-1].strip()])
    return plain if len(plain) <= _SHOWN_CHARACTERS else f"{plain[:_SHOWN_CHARACTERS]} …"


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"{error.response.status_code} {error.response.text.strip()[:200]}"
    return str(error) or type(error).__name__
