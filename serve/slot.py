"""The served model's place in a replica: a new bundle is loaded beside the old one, and swapped in when it works."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gitops.errors import BundleError, ContractError, MergelineError
from gitops.manifest import ServedModel
from gitops.state import write_atomically
from gitops.status import now

if TYPE_CHECKING:
    from serve.predictor import Predictor

# A bundle that does not load may be there later (a store that is away), and Serve itself never asks twice.
FIRST_RETRY_SECONDS = 10.0
LONGEST_RETRY_SECONDS = 300.0

log = logging.getLogger("ray.serve")  # the logger whose lines Ray Serve keeps with the replica's


@dataclass(frozen=True)
class Loaded:
    """A model that answers."""

    model: ServedModel
    predictor: "Predictor"
    since: datetime = field(default_factory=now)
    """When this replica loaded it."""


class ModelSlot:
    """Holds the model that answers, the one that is wanted, and why they differ; lives on one event loop.

    Args:
        open_bundle: fetches, loads and probes a model's bundle; runs in a thread and may raise anything.
        memory: file that keeps the last model which worked, for replicas that start while the wanted one does not load.
        on_load: told of each attempt whether it succeeded.
    """

    def __init__(
        self, open_bundle: Callable[[ServedModel], "Predictor"], memory: Path, on_load: Callable[[bool], None]
    ) -> None:
        self.loaded: Loaded | None = None
        self.wanted: ServedModel | None = None
        self.load_error: str | None = None
        self._open_bundle = open_bundle
        self._memory = memory
        self._on_load = on_load
        self._loading = asyncio.Lock()
        self._retries: asyncio.Task[None] | None = None

    async def want(self, model: ServedModel | None) -> None:
        """Serve another model, or none; returns when it answers, or when it is known why it does not. Never raises."""
        if self._retries:
            self._retries.cancel()
        self.wanted, self.load_error = model, None
        if model is None:
            self.loaded = None
        elif not await self._attempt(model):
            await self._fall_back(model)
            self._retries = asyncio.create_task(self._retry(model))

    async def remember(self) -> None:
        """Keep the model that answers for new replicas, if it is the wanted one.

        To be repeated now and then: a replica that Serve started with an earlier configuration may have been the last.
        """
        if self.loaded and self.loaded.model == self.wanted:
            await asyncio.to_thread(self._write_memory, self.loaded.model)

    def refuse(self, reason: str) -> None:
        """Keep what answers, and say why the last configuration was not followed."""
        self.load_error = reason
        log.error("%s", reason)

    async def _attempt(self, model: ServedModel) -> bool:
        """Load a model and swap; True if it answers now, or is wanted no longer."""
        async with self._loading:
            if model is not self.wanted:
                return True
            loaded, error = await self._load(model)
            self._on_load(loaded is not None)
            if model is not self.wanted:  # another one has been wanted meanwhile
                return True
            if loaded is None:
                self.load_error = error
                return False
            # One assignment: a request has taken the old one or takes the new one, and what it took stays with it.
            self.loaded, self.load_error = loaded, None
            await self.remember()
            log.info("Serving %s version %s, bundle %s.", model.name, model.version, model.sha256[:12])
            return True

    async def _load(self, model: ServedModel) -> tuple[Loaded | None, str | None]:
        """The loaded model, or None and the reason."""
        known = self.loaded
        if known and (known.model.name, known.model.sha256) == (model.name, model.sha256):
            return Loaded(model, known.predictor, known.since), None  # the same bundle under another version or address
        try:
            predictor = await asyncio.to_thread(self._open, model)
        except MergelineError as error:
            reason = str(error)
        except Exception as error:  # a bundle is data: whatever it makes a library raise must not end the replica
            log.exception("Unexpected error while loading %s version %s.", model.name, model.version)
            reason = f"{type(error).__name__}: {error}"
        else:
            return Loaded(model, predictor), None
        text = f"{model.name} version {model.version} from {model.uri} does not load: {reason}"
        log.error("%s", text)
        return None, text

    def _open(self, model: ServedModel) -> "Predictor":
        predictor = self._open_bundle(model)
        found = (predictor.manifest.name, predictor.digest)
        if found != (model.name, model.sha256):
            raise BundleError(f"it holds {found[0]} {found[1][:12]}, not {model.name} {model.sha256[:12]}")
        return predictor

    async def _fall_back(self, model: ServedModel) -> None:
        """Without an old model beside it, a new replica takes the one that its peers served last."""
        if self.loaded is not None:
            return
        last = await asyncio.to_thread(self._read_memory)
        if last is None or last == model:
            return
        loaded, _ = await self._load(last)
        if self.loaded is None and self.wanted is model:
            self.loaded = loaded

    async def _retry(self, model: ServedModel) -> None:
        seconds = FIRST_RETRY_SECONDS
        while model is self.wanted:
            await asyncio.sleep(seconds)
            if await self._attempt(model):
                return
            seconds = min(2 * seconds, LONGEST_RETRY_SECONDS)

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
