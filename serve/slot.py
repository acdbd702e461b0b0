"""The served model's place in a replica: a new bundle is loaded beside the old one, and swapped in when it works.

A candidate has a place of its own beside it, where it is loaded as carefully: until it answers, nobody notices it.
"""

import asyncio
import hashlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gitops.contracts.serving import ServedModel, Shadow, Trial
from gitops.errors import BundleError, ContractError, MergelineError
from gitops.state import write_atomically
from gitops.status import now
from gitops.wire import TrialMetadata

if TYPE_CHECKING:
    from serve.predictor import Predictor

# A bundle that does not load may be there later (a store that is away), and Serve itself never asks twice.
FIRST_RETRY_SECONDS = 10.0
LONGEST_RETRY_SECONDS = 300.0
CANDIDATE_SECONDS = 60.0
"""Longest wait for a candidate, whose store may be slow; it goes on loading, and judges when it is there."""

log = logging.getLogger("ray.serve")  # the logger whose lines Ray Serve keeps with the replica's


@dataclass(frozen=True)
class Loaded:
    """A model that answers."""

    model: ServedModel
    predictor: "Predictor"
    since: datetime = field(default_factory=now)
    """When this replica loaded it."""


@dataclass(frozen=True)
class Chosen:
    """Who judges a request."""

    model: Loaded
    """It answers."""
    shadow: Loaded | None = None
    """It judges the same photographs afterwards; None: nobody does."""
    counts: bool = True
    """Whether the judgements tell of the line: False where the request says that its photographs do not count."""


class Slot:
    """Holds a model that is loaded, the one that is wanted, and why they differ; lives on one event loop.

    Args:
        open_bundle: fetches, loads and probes a model's bundle; runs in a thread and may raise anything.
        on_load: told of each attempt whether it succeeded.
    """

    def __init__(self, open_bundle: Callable[[ServedModel], "Predictor"], on_load: Callable[[bool], None]) -> None:
        self.loaded: Loaded | None = None
        self.wanted: ServedModel | None = None
        self._failure: str | None = None
        self.versions: set[str] = set()
        """All that have been loaded here."""
        self._open_bundle = open_bundle
        self._on_load = on_load
        self._loading = asyncio.Lock()
        self._retries: asyncio.Task[None] | None = None

    @property
    def load_error(self) -> str | None:
        """Why what is wanted does not answer; None: it does, or is on its way."""
        return self._failure

    async def _want(self, model: ServedModel | None) -> None:
        """Load another model, or none; returns when it is there, or when it is known why it is not. Never raises."""
        if self._retries:
            self._retries.cancel()
        self.wanted, self._failure = model, None
        if model is None:
            self.loaded = None
        # Known now: until another one has been loaded, a candidate that becomes the model may be gone.
        elif not await self._attempt(model, self._find(model)):
            await self._fall_back(model)
            self._retries = asyncio.create_task(self._retry(model))

    async def retried(self, seconds: float) -> None:
        """Wait for the further attempts at what did not load, as long as there are any and not longer than this."""
        if self._retries:
            await asyncio.wait({self._retries}, timeout=seconds)

    async def remember(self) -> None:
        """Called when a model has been loaded."""

    async def _fall_back(self, model: ServedModel) -> None:
        """Called when `model` did not load."""

    def _known(self) -> tuple[Loaded | None, ...]:
        """Models whose bundles need not be loaded again."""
        return (self.loaded,)

    def _find(self, model: ServedModel) -> Loaded | None:
        """A model that is loaded already, under another version or address perhaps."""
        for known in self._known():
            if known and (known.model.name, known.model.sha256) == (model.name, model.sha256):
                return Loaded(model, known.predictor, known.since)
        return None

    async def _attempt(self, model: ServedModel, known: Loaded | None = None) -> bool:
        """Load a model that is not `known` and swap; True if it answers now, or is wanted no longer."""
        async with self._loading:
            if model is not self.wanted:
                return True
            loaded, error = (known, None) if known else await self._load(model)
            if model is not self.wanted:  # another one has been wanted meanwhile
                return True
            if loaded is None:
                self._failure = error
                return False
            # One assignment: a request has taken the old one or takes the new one, and what it took stays with it.
            self.loaded, self._failure = loaded, None
            self.versions.add(model.version)
            await self.remember()
            log.info("Loaded %s version %s, bundle %s.", model.name, model.version, model.sha256[:12])
            return True

    async def _load(self, model: ServedModel) -> tuple[Loaded | None, str | None]:
        """The loaded model, or None and the reason."""
        if known := self._find(model):
            return known, None
        try:
            predictor = await asyncio.to_thread(self._open, model)
        except MergelineError as error:
            reason = str(error)
        except Exception as error:  # a bundle is data: whatever it makes a library raise must not end the replica
            log.exception("Unexpected error while loading %s version %s.", model.name, model.version)
            reason = f"{type(error).__name__}: {error}"
        else:
            self._on_load(True)
            return Loaded(model, predictor), None
        self._on_load(False)
        text = f"{model.name} version {model.version} from {model.uri} does not load: {reason}"
        log.error("%s", text)
        return None, text

    def _open(self, model: ServedModel) -> "Predictor":
        predictor = self._open_bundle(model)
        name, digest = predictor.manifest.name, predictor.digest
        if (name, digest) != (model.name, model.sha256):
            raise BundleError(f"it holds {name} {digest[:12]}, not {model.name} {model.sha256[:12]}")
        return predictor

    async def _retry(self, model: ServedModel) -> None:
        seconds = FIRST_RETRY_SECONDS
        while model is self.wanted:
            await asyncio.sleep(seconds)
            if await self._attempt(model):
                return
            seconds = min(2 * seconds, LONGEST_RETRY_SECONDS)


class Candidate(Slot):
    """A model on trial: it is loaded as any other, and judges nothing before it is."""

    trial: Trial | None = None
    """How it is tried; None: there is none."""

    async def want(self, trial: Trial | None) -> None:
        """Try another model, or in another way; returns when it is loaded or it is known why not. Never raises."""
        self.trial = trial
        model = trial.model if trial else None
        if model != self.wanted:
            self.loaded = None  # the one before must not judge under the new one's share
            await self._want(model)

    @property
    def metadata(self) -> TrialMetadata | None:
        """What a replica says of it; None: nothing is tried."""
        if self.trial is None:
            return None
        return TrialMetadata(
            kind=self.trial.kind,
            percent=self.trial.percent,
            version=self.trial.model.version,
            sha256=self.trial.model.sha256,
            loaded=self.loaded is not None,
            load_error=self.load_error,
        )

    def is_chosen(self, client: str | None) -> bool:
        """Whether a canary answers a request.

        Args:
            client: who asks; whoever says so is answered by the same model each time, by every replica, and stays with
                the candidate when its share grows. None: chance decides.
        """
        if self.wanted is None or self.trial is None or self.trial.percent is None:
            return False
        if not client:
            return 100 * random.random() < self.trial.percent
        # With the bundle's digest in it, so that another candidate meets other clients.
        digest = hashlib.sha256(f"{self.wanted.sha256} {client}".encode()).digest()
        return 100 * int.from_bytes(digest[:8]) < self.trial.percent * 2**64


class ModelSlot(Slot):
    """Holds the model that answers, the one that is wanted, and why they differ; and a candidate beside it.

    Args:
        open_bundle: fetches, loads and probes a model's bundle; runs in a thread and may raise anything.
        memory: file that keeps the last model which worked, for replicas that start while the wanted one does not load.
        on_load: told of each attempt whether it succeeded.
    """

    def __init__(
        self, open_bundle: Callable[[ServedModel], "Predictor"], memory: Path, on_load: Callable[[bool], None]
    ) -> None:
        super().__init__(open_bundle, on_load)
        self.candidate = Candidate(open_bundle, on_load)
        self._trying: asyncio.Task[None] | None = None  # the event loop itself would forget it
        self._memory = memory
        self._refusal: str | None = None

    @property
    def load_error(self) -> str | None:
        """Why the last configuration is not followed, or its model does not answer; None: it does, or is on its way."""
        return self._refusal or self._failure

    async def want(self, model: ServedModel | None, trial: Trial | None = None) -> None:
        """Serve another model, or none, and try another one beside it, or none; returns when both are settled.

        It never raises: where the model does not load, the one before goes on answering; where the candidate does not,
        the model answers alone.
        """
        self._refusal = None
        # A task begins later than this goes on, so that a candidate which becomes the model is taken over first.
        self._trying = trying = asyncio.create_task(self.candidate.want(trial))
        await self._want(model)
        # A new replica answers nothing before this returns, and a candidate must not keep it from that.
        await asyncio.wait({trying}, timeout=CANDIDATE_SECONDS)

    def choose(self, model: Loaded, client: Callable[[], str | None]) -> Chosen:
        """Who judges a request that names no version.

        Args:
            model: the model that answers.
            client: says who asks; None: nobody knows.
        """
        tried = self.candidate.loaded
        if tried is None or tried.model.name != model.model.name:
            return Chosen(model)
        if isinstance(self.candidate.trial, Shadow):
            return Chosen(model, tried)
        return Chosen(tried if self.candidate.is_chosen(client()) else model)

    def release(self) -> None:
        """Let go of the model, and try no more to load what is wanted; for a slot that nobody needs any more."""
        self.loaded = None
        retries = self._retries
        if retries and not (loop := retries.get_loop()).is_closed():
            loop.call_soon_threadsafe(retries.cancel)  # whoever lets go of it last may be another thread

    def refuse(self, reason: str) -> None:
        """Keep what answers, and say why the last configuration was not followed."""
        self._refusal = reason
        log.error("%s", reason)

    async def remember(self) -> None:
        """Keep the model that answers for new replicas, if it is the wanted one.

        To be repeated now and then: a replica that Serve started with an earlier configuration may have been the last.
        """
        if self.loaded and self.loaded.model == self.wanted:
            await asyncio.to_thread(self._write_memory, self.loaded.model)

    def _known(self) -> tuple[Loaded | None, ...]:
        return (self.loaded, self.candidate.loaded)

    async def _fall_back(self, model: ServedModel) -> None:
        """Without an old model beside it, a new replica takes the one that its peers served last."""
        if self.loaded is not None:
            return
        last = await asyncio.to_thread(self._read_memory)
        if last is None or last == model:
            return
        loaded, _ = await self._load(last)
        if loaded is not None and self.loaded is None and self.wanted is model:
            self.loaded = loaded
            self.versions.add(last.version)

    def _write_memory(self, model: ServedModel) -> None:
        try:
            if self._read_memory() != model:
                write_atomically(self._memory, model.to_json())
        except OSError as error:
            log.warning("Cannot write %s: %s. New replicas will know only what is wanted.", self._memory, error)

    def _read_memory(self) -> ServedModel | None:
        if not self._memory.exists():
            return None
        try:
            return ServedModel.read(self._memory)
        except ContractError as error:
            log.warning("%s", error)
            return None
