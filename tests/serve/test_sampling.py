"""The way to the monitor: whatever is at its end, requests are answered, and photographs are counted."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from gitops.contracts.serving import ServedModel
from serve import sampling
from serve.assembly import assemble
from serve.endpoints import Endpoints
from serve.sampling import MOST_WAITING, Sampler
from serve.slot import ModelSlot
from serve.workers import Workers
from tests.serve.conftest import LIMITS, Tally, encoded
from tests.serve.site import open_bundle, shadow

pytestmark = pytest.mark.anyio
PART = encoded()
KEPT, DROPPED = (("mergeline_drift_samples", outcome) for outcome in ("kept", "dropped"))
HandOver = Callable[[ServedModel, bytes], Awaitable[bool]]


def sampler(hand_over: HandOver, tally: Tally, seconds: float = 0.0) -> Sampler:
    return Sampler(hand_over, tally, seconds=seconds)


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def takes(model: ServedModel, photograph: bytes) -> bool:
    return True


async def refuses(model: ServedModel, photograph: bytes) -> bool:
    return False


async def fails(model: ServedModel, photograph: bytes) -> bool:
    raise RuntimeError("the monitor is dead")


async def hangs(model: ServedModel, photograph: bytes) -> bool:
    await asyncio.Event().wait()
    return True


async def test_one_photograph_is_taken_and_then_none_for_a_while(model: ServedModel, tally: Tally) -> None:
    seen = []

    async def look(judged_by: ServedModel, photograph: bytes) -> bool:
        seen.append((judged_by, photograph))
        return True

    rare = sampler(look, tally, seconds=3600)
    rare.offer(model, [])
    rare.offer(model, [b"a", b"b"])
    rare.offer(model, [b"c"])
    await settled()
    assert len(seen) == 1
    assert seen[0][0] == model
    assert seen[0][1] in (b"a", b"b")
    assert tally.counts == {KEPT: 1}
    always = sampler(look, tally)
    for _ in range(3):
        always.offer(model, [b"d"])
        await settled()
    assert tally.counts == {KEPT: 4}


@pytest.mark.parametrize("hand_over", [refuses, fails])
async def test_what_the_monitor_does_not_take_is_counted(hand_over: HandOver, model: ServedModel, tally: Tally) -> None:
    sampler(hand_over, tally).offer(model, [b"a"])
    await settled()
    assert tally.counts == {DROPPED: 1}


async def test_few_photographs_wait_for_a_monitor_that_hangs_and_are_given_up(
    model: ServedModel, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "TIMEOUT_SECONDS", 0.05)
    hanging = sampler(hangs, tally)
    for _ in range(MOST_WAITING + 3):
        hanging.offer(model, [b"a"])
    assert tally.counts == {DROPPED: 3}
    while tally.counts[DROPPED] < MOST_WAITING + 3:
        await asyncio.sleep(0.01)
    hanging.offer(model, [b"a"])  # there is room again
    assert tally.counts[DROPPED] == MOST_WAITING + 3


@pytest.mark.parametrize("hand_over", [takes, refuses, fails, hangs])
async def test_every_request_is_answered_whatever_becomes_of_the_monitor(
    hand_over: HandOver, model: ServedModel, tally: Tally, tmp_path: Path, workers: Workers
) -> None:

    slot = ModelSlot(open_bundle, tmp_path / "memory.json", lambda succeeded: None)
    await slot.want(model)
    endpoints = Endpoints(slot, LIMITS, workers, tally, "a-replica", shadow(tally), sampler(hand_over, tally))
    transport = httpx.ASGITransport(assemble(endpoints, "screw", journal=None, feedback=None))
    async with httpx.AsyncClient(transport=transport, base_url="http://replica") as client:
        for _ in range(3 * MOST_WAITING):
            assert (await client.post("/predict", content=PART)).status_code == 200
        form = [("files", ("a.png", PART)), ("files", ("b.png", PART)), ("files", ("c.txt", b"none"))]
        assert (await client.post("/predict", files=form)).status_code == 200
        assert (await client.post("/predict?explain=heatmap", content=PART)).status_code == 200
        assert (await client.post("/predict", content=b"none")).status_code == 400
        for path in ("/predict", "/predict?explain=heatmap"):
            assert (await client.post(path, content=PART, headers={"X-Count": "false"})).status_code == 200
    await settled()
    offered = 3 * MOST_WAITING + 2  # of the form one; what is no photograph or does not count is not offered
    waiting = MOST_WAITING if hand_over is hangs else 0
    assert tally.counts[KEPT] + tally.counts[DROPPED] == offered - waiting
    assert tally.counts[KEPT] == (offered if hand_over is takes else 0)
