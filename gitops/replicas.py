"""Asking the replicas of an application over HTTP: what they serve, and whether a model gives its probe's score."""

import itertools
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from pydantic import Field, ValidationError

from gitops.contracts.model import BundleManifest
from gitops.contracts.serving import VERSION_HEADER, FleetConfig, ServedModel, UserConfig
from gitops.errors import ContractError, StalledError
from gitops.health import Slot, serving_status
from gitops.serve_api import ANY_INTERFACE, Application, Foreign, ServeDetails, tls
from gitops.wire import COUNT_HEADER, NO_ANSWERS, Answers, FleetMetadata, ReplicaMetadata

ANSWER_SECONDS = 10.0
"""Longest wait for one answer of a replica: under load a request waits its turn."""
PROBE_REQUEST = "mergeline-probe"
"""The request id of probes, by which logs and statistics can tell them from photographs."""
# An application that failed to deploy, or of which a part is unwell, may go on answering with what it was.
_ASKED = ("RUNNING", "DEPLOY_FAILED", "UNHEALTHY")
_ASKS_PER_REPLICA = 8
"""Asked at once. Replicas at rest take turns or are picked by chance: one of two is missed once in 30,000 times."""
_LOOK_FOR_SECONDS = 2.0
"""For how long they are looked for: HAProxy asks the one with the fewest requests, so that a busy one is not met."""
_ASK_AGAIN_SECONDS = 0.05
_BUSY = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)


class ProbeAnswer(Foreign):
    """`POST {route}/predict`: the part of an answer that a probe is about."""

    score: float
    model_name: str
    model_version: str
    model_digest: str = Field(description="sha256:<hex>")


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
    answers: dict[str, ReplicaMetadata | FleetMetadata] = {}
    silence = "not every replica was met"
    kind: type[ReplicaMetadata | FleetMetadata] = FleetMetadata if isinstance(wanted, FleetConfig) else ReplicaMetadata
    path = f"{url}/v2/models/{wanted.model.name}" if isinstance(wanted, UserConfig) and wanted.model else f"{url}/fleet"
    until, at_once, busy = time.monotonic() + _LOOK_FOR_SECONDS, _ASKS_PER_REPLICA * max(1, len(running)), False
    for requests in itertools.count(1):
        try:
            response = httpx.get(path, timeout=ANSWER_SECONDS, trust_env=False, verify=tls())
            answer = kind.parse(response.raise_for_status().json(), str(response.url), extra="ignore")
        except (httpx.HTTPError, ValueError, ContractError) as error:
            silence = f"{path}: {_reason(error)}"
            if isinstance(error, httpx.TimeoutException):
                busy = isinstance(error, httpx.ReadTimeout)  # it is connected, and waits its turn
                break
            busy = isinstance(error, httpx.HTTPStatusError) and error.response.status_code in _BUSY
        else:
            answers[answer.replica] = answer
            if running <= answers.keys():
                return Answers(answers)
            if requests < at_once:
                continue
        if requests >= at_once and (not (answers or busy) or time.monotonic() > until):
            break
        time.sleep(_ASK_AGAIN_SECONDS)  # a busy application refuses some requests and takes the next one
    return Answers(answers, silence, busy=busy)


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
                COUNT_HEADER: "false",
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


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"{error.response.status_code} {error.response.text.strip()[:200]}"
    return str(error) or type(error).__name__
