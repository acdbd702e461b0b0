"""What is served, for people: the model and its making, and what the reconciler knows where that can be read."""

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

from fastapi import FastAPI, Response
from pydantic import AwareDatetime, Field

from gitops.contracts.base import Contract, Name, Sha256, Share, Version
from gitops.contracts.model import Calibration, EvaluationReport
from gitops.contracts.project import Training
from gitops.errors import MergelineError
from gitops.status import Deployed, HealthCode, Journal, SyncCode
from gitops.turn import known_status
from gitops.wire import TrialMetadata, WantedModel
from serve.endpoints import Endpoints
from serve.protocol import ErrorAnswer, RequestError
from serve.slot import Loaded

_HISTORY = 50
"""Deployments that are shown, of all that there were."""
# Who may see the page need not see people's addresses.
_ADDRESS = re.compile(r"\s*<[^>]*>$")
# The page brings its styles and pictures inside of it, and has no scripts.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class Facts(Contract):
    """The model that answers, and how its bundle was made."""

    name: Name
    version: Version
    sha256: Sha256 = Field(description="The bundle's digest.")
    since: AwareDatetime = Field(description="When the environment got it; else when this replica loaded it.")
    classes: tuple[str, ...] = Field(description="The first is the good one.")
    threshold: Share = Field(description="Smallest score that is not good.")
    threshold_method: str = Field(description="How it was chosen, in words.")
    threshold_split: str = Field(description="The data that it was chosen on.")
    calibration: Calibration
    input: tuple[int, int, int] = Field(description="Height, width and channels of the model's input.")
    straightened: bool = Field(description="Whether the part is found and straightened.")
    dataset: Sha256 = Field(description="What it was trained on.")
    training: Training
    frameworks: dict[str, str] = Field(description="Versions that made the bundle.")


class Deployment(Contract):
    """A commit that was made true."""

    revision: str
    at: AwareDatetime
    author: str
    subject: str
    version: Version | None = Field(description="Of this application's model since then.")
    sha256: Sha256 | None
    trial: str | None = Field(description="What was tried beside it, in words.")
    report: bool = Field(description="Whether GET /served/evaluation/{sha256} has its evaluation.")


class EnvironmentFacts(Contract):
    """What the reconciler says of the environment."""

    name: str
    watched: bool = Field(description="Whether a reconciler works for it now.")
    sync: SyncCode
    health: HealthCode
    message: str = Field(description="What there is to say about either.")
    revision: str | None = Field(description="The commit that was compared with.")
    seen_at: AwareDatetime | None
    history: tuple[Deployment, ...] = Field(description=f"The latest {_HISTORY}, newest first.")


class ServedAnswer(Contract):
    """All that one replica can say of what is served."""

    model: Facts | None = Field(description="None: no model answers.")
    wanted: WantedModel | None
    load_error: str | None
    trial: TrialMetadata | None = Field(description="What is tried beside the model; None: nothing.")
    replica: str
    max_bytes: int = Field(description="Largest file of a photograph.")
    feedback: bool = Field(description="Whether POST /feedback keeps anything.")
    environment: EnvironmentFacts | None = Field(description="None: `args.journal` is unset, or cannot be read.")
    environment_error: str | None = Field(description="Why it cannot be read.")
    evaluation: EvaluationReport | None = Field(description="Of the version that answers, where it is registered here.")
    report: bool = Field(description="Whether GET /served/evaluation/{sha256} has the report on it.")


@dataclass(frozen=True)
class Served:
    """Answers what is served."""

    endpoints: Endpoints
    application: str
    """This application's name in the environment."""
    journal: Journal | None
    feedback: bool

    def answer(self) -> ServedAnswer:
        """Read what there is to read."""
        slot = self.endpoints.slot
        loaded, environment, error, evaluation, since = slot.loaded, None, None, None, None
        pages = self.pages()
        try:
            if self.journal and not self.journal.folder.is_dir():
                error = f"there is no folder {self.journal.folder}: args.journal names it"
            elif self.journal:
                environment = self._environment(self.journal, pages)
                evaluation = _evaluation(self.journal, loaded)
                since = self._since(loaded, self.journal.newest_first())
        except (MergelineError, OSError, ValueError) as reason:  # what lies there is another program's
            error = str(reason)
        return ServedAnswer(
            model=_facts(loaded, since) if loaded else None,
            wanted=WantedModel.of(slot.wanted) if slot.wanted else None,
            load_error=slot.load_error,
            trial=slot.candidate.metadata,
            replica=self.endpoints.replica,
            max_bytes=self.endpoints.limits.max_bytes,
            feedback=self.feedback,
            environment=environment,
            environment_error=error,
            evaluation=evaluation,
            report=loaded is not None and loaded.predictor.digest in pages,
        )

    def pages(self) -> dict[str, Path]:
        """The pages with bundles' evaluations by the bundles' digests, where they can be had."""
        try:
            return self.journal.state.evaluation_pages() if self.journal else {}
        except (OSError, ValueError):
            return {}

    def _environment(self, journal: Journal, pages: Mapping[str, Path]) -> EnvironmentFacts:
        status, watched = known_status(journal)
        operation = status.operation_state
        said = [status.health.message, *(condition.message for condition in status.conditions)]
        if operation and operation.phase in ("Failed", "Error"):
            said.append(operation.message)
        return EnvironmentFacts(
            name=journal.environment,
            watched=watched,
            sync=status.sync.status,
            health=status.health.status,
            message="; ".join(text for text in said if text),
            revision=status.sync.revision,
            seen_at=status.reconciled_at,
            history=tuple(self._deployment(entry, pages) for entry in islice(journal.newest_first(), _HISTORY)),
        )

    def _deployment(self, entry: Deployed, pages: Mapping[str, Path]) -> Deployment:
        model, trial = entry.models.get(self.application), entry.trials.get(self.application)
        return Deployment(
            revision=entry.revision,
            at=entry.deployed_at,
            author=_ADDRESS.sub("", entry.author),
            subject=entry.subject,
            version=model.version if model else None,
            sha256=model.sha256 if model else None,
            trial=str(trial) if trial else None,
            report=model is not None and model.sha256 in pages,
        )

    def _since(self, loaded: Loaded | None, newest_first: Iterable[Deployed]) -> datetime | None:
        """Since when the environment has had this very bundle without a break; None if it is not known."""
        since = None
        for entry in newest_first:
            model = entry.models.get(self.application)
            if loaded is None or model is None or model.sha256 != loaded.predictor.digest:
                break
            since = entry.deployed_at
        return since


def _facts(loaded: Loaded, since: datetime | None) -> Facts:
    manifest = loaded.predictor.manifest
    settings = manifest.preprocessing
    return Facts(
        name=loaded.model.name,
        version=loaded.model.version,
        sha256=loaded.predictor.digest,
        since=since or loaded.since,
        classes=manifest.classes,
        threshold=manifest.threshold.value,
        threshold_method=manifest.threshold.method,
        threshold_split=manifest.threshold.split,
        calibration=manifest.calibration,
        input=(settings.height, settings.width, settings.channels),
        straightened=settings.align == "foreground",
        dataset=manifest.dataset,
        training=manifest.training,
        frameworks=manifest.frameworks,
    )


def _evaluation(journal: Journal, loaded: Loaded | None) -> EvaluationReport | None:
    if loaded is None:
        return None
    registered = journal.state.version_of(loaded.model)
    return registered.evaluation if registered else None


def add_served(app: FastAPI, served: Served) -> None:
    """Let the application say what is served."""
    errors: dict[int | str, dict[str, type[Contract]]] = {"4XX": {"model": ErrorAnswer}}

    async def answer() -> ServedAnswer:
        """What is served, since when, from which commit, and how it was evaluated."""
        return await asyncio.to_thread(served.answer)

    async def evaluation(sha256: str) -> Response:
        """The evaluation of a bundle as a page, where the service can read it."""
        page = (await asyncio.to_thread(served.pages)).get(sha256)
        if page is None:
            raise RequestError(404, f"there is no evaluation of bundle {sha256[:12]} here")
        return Response(await asyncio.to_thread(page.read_bytes), 200, _PAGE_HEADERS, "text/html; charset=utf-8")

    app.add_api_route("/served", answer, methods=["GET"])
    app.add_api_route(
        "/served/evaluation/{sha256}", evaluation, methods=["GET"], responses=errors, response_class=Response
    )
