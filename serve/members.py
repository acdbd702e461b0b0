"""The models of a fleet in a replica: each is loaded when it is asked for, and as many are held as there is room for.

Who keeps them and puts out the one that was used least recently is Ray Serve's multiplexing (`serve.fleet`); what is
wanted, what does not load, and what changes under a model that is in memory is seen to here.
"""

import asyncio
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from starlette.types import ASGIApp

from gitops.contracts.serving import ServedModel
from gitops.wire import MemberMetadata, WantedModel
from monitoring.metrics import Outcome
from serve.choosing import unavailable
from serve.counting import outcome_told
from serve.endpoints import Endpoints
from serve.protocol import RequestError
from serve.slot import FIRST_RETRY_SECONDS, ModelSlot

_SHOWN_NAMES = 20
Loader = Callable[[str], Awaitable["Member"]]


class Member:
    """A model that is in memory: its slot, what answers for it, and the whole application over that.

    Who lets it answer a request holds it until the answer is given.
    """

    def __init__(self, slot: ModelSlot, endpoints: Endpoints, app: ASGIApp) -> None:
        self.slot = slot
        self.endpoints = endpoints
        self.app = app
        # When it is put out and its last request is answered: the application's own circles would keep it for longer.
        weakref.finalize(self, ModelSlot.release, slot)


@dataclass(frozen=True)
class _Failure:
    model: ServedModel
    reason: str
    until: float
    """Before this moment of `time.monotonic` it is not tried again: each attempt puts another model out."""


@dataclass
class _Place:
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Of many requests for a model that is not there, one loads it."""
    failure: _Failure | None = None


class Members:
    """The models of a fleet; lives on one event loop.

    Args:
        make: a member with an empty slot, for a model of this name.
        multiplex: makes a loader that keeps what the given one returns, and forgets the least recently used.
        unanswered: told of each request to judge that no member came for: the model's name (empty: none of ours), and
            how it ended. The others are measured by their member.
    """

    def __init__(
        self,
        make: Callable[[str], Member],
        multiplex: Callable[[Loader], Loader],
        unanswered: Callable[[str, Outcome], None],
    ) -> None:
        self.wanted: Mapping[str, ServedModel] = {}
        self.load_error: str | None = None
        """Why the last configuration was not followed."""
        self._latest: weakref.ref[Member] | None = None
        self._make = make
        self._unanswered = unanswered
        self._kept = multiplex(self._load)
        self._places: dict[str, _Place] = {}
        self._tasks: set[asyncio.Task[Member]] = set()  # the event loop itself would forget them
        self._in_memory: weakref.WeakValueDictionary[str, Member] = weakref.WeakValueDictionary()

    async def want(self, models: Mapping[str, ServedModel]) -> None:
        """Serve these from now on; returns when those that are in memory have changed, or it is known why not."""
        self.wanted = wanted = dict(models)
        self.load_error = None
        self._places = {name: place for name, place in self._places.items() if name in models}
        for name, member in list(self._in_memory.items()):
            if self.wanted is not wanted:  # others have been wanted meanwhile
                return
            if name in models and member.slot.wanted != models[name]:
                await member.slot.want(models[name])

    async def load_any(self, seconds: float) -> str | None:
        """Load one of the models, the first that does: so a replica knows that it can answer something.

        Args:
            seconds: what does not load is tried again for so long.

        Returns:
            Why the first did not, where each was tried and none did; None as well where there was no time for each.
        """
        deadline = time.monotonic() + seconds
        reasons: dict[str, str] = {}
        while self.wanted:
            for name in self.wanted:
                try:
                    await self.get(name)
                except RequestError as error:
                    reasons.setdefault(name, error.reason)
                else:
                    return None
                if time.monotonic() > deadline:
                    break
            if (left := deadline - time.monotonic()) <= 0:
                break
            await asyncio.sleep(min(FIRST_RETRY_SECONDS, left))
        if len(reasons) < len(self.wanted) or not reasons:
            return None
        return f"none of the {len(reasons)} models loads; the first: {next(iter(reasons.values()))}"

    async def to_judge(self, name: str) -> Member:
        """As `get`, for a request to judge, which is measured where there is no member that would."""

        def ended(outcome: Outcome) -> None:
            if outcome is not Outcome.ANSWERED:
                self._unanswered(name if name in self.wanted else "", outcome)

        with outcome_told(ended):
            return await self.get(name)

    async def get(self, name: str) -> Member:
        """The member of a name, loaded if need be.

        Raises:
            RequestError: 404, there is no such model; 503, it does not load.
        """
        self._check_wanted(name)
        # Whoever has no patience for a load must not undo it: the next one would begin anew, and so on for ever.
        task = asyncio.create_task(self._get(name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _get(self, name: str) -> Member:
        place = self._place(name)
        async with place.asking:
            if place.failure and self._holds(place.failure):
                raise RequestError(503, place.failure.reason, {"Retry-After": str(round(FIRST_RETRY_SECONDS))})
            member = await self._kept(name)
        self._latest = weakref.ref(member)
        return member

    @property
    def latest(self) -> Member | None:
        """The one that was asked for last, if it is in memory still."""
        return self._latest() if self._latest else None

    def facts(self) -> dict[str, MemberMetadata]:
        """What there is to say of each model; nothing is loaded for it."""
        return {name: self._facts(name, model) for name, model in self.wanted.items()}

    def _facts(self, name: str, model: ServedModel) -> MemberMetadata:
        member, place = self._in_memory.get(name), self._places.get(name)
        loaded = member.slot.loaded if member else None
        failure = place.failure if place else None
        # Later it is as if nobody had asked: who wants to know must ask, so that it is tried again.
        reason = member.slot.load_error if member else failure.reason if failure and self._holds(failure) else None
        served = WantedModel.of(loaded.model) if loaded else None
        return MemberMetadata(wanted=WantedModel.of(model), served=served, load_error=reason)

    def _holds(self, failure: _Failure) -> bool:
        return failure.model == self.wanted.get(failure.model.name) and time.monotonic() < failure.until

    async def _load(self, name: str) -> Member:
        self._check_wanted(name)  # as long as others were loaded
        member, model = self._make(name), self.wanted[name]
        await member.slot.want(model)
        while (now := self.wanted.get(name, model)) != model:  # promoted meanwhile
            model = now
            await member.slot.want(model)
        if member.slot.loaded is None:
            error = unavailable(member.slot, another_answers=True)
            self._place(name).failure = _Failure(model, error.reason, time.monotonic() + FIRST_RETRY_SECONDS)
            raise error
        self._place(name).failure = None
        self._in_memory[name] = member
        return member

    def _place(self, name: str) -> _Place:
        return self._places.setdefault(name, _Place())

    def _check_wanted(self, name: str) -> None:
        if name in self.wanted:
            return
        names = sorted(self.wanted)
        more = f" and {len(names) - _SHOWN_NAMES} more, see GET /fleet" if len(names) > _SHOWN_NAMES else ""
        known = ", ".join(names[:_SHOWN_NAMES]) or "none: promote one to this environment"
        raise RequestError(404, f"there is no model {name!r} here; known: {known}{more}")
