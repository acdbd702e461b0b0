"""A candidate beside the model, in this process: who it answers, what is said of it, and what a shadow leaves alone."""

import asyncio
import json
import threading
import time
from collections import Counter
from concurrent.futures import Future
from contextlib import closing
from typing import Any

import httpx
import numpy as np
import pytest

from gitops.contracts.serving import Canary, ServedModel, Shadow
from monitoring import metrics
from serve.assembly import assemble
from serve.endpoints import Endpoints
from serve.predictor import Judgement
from serve.preprocess import ImageError
from serve.protocol import FormAnswer, ImageAnswer
from serve.shadow import MOST_WAITING
from serve.slot import ModelSlot
from serve.workers import Workers
from tests.bundles import make_bundle
from tests.serve.conftest import LIMITS, Tally, encoded
from tests.serve.site import shadow as make_shadow

pytestmark = pytest.mark.anyio
INFER = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["iVBORw0K"]}]}


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    """Another bundle than `model`'s, which calls good most of what that calls defective."""
    folder = tmp_path_factory.mktemp("bundles") / "two"
    return ServedModel(name="screw", version="2", sha256=make_bundle(folder, version_salt=1.0), uri=folder.as_uri())


def middling() -> bytes:
    """A photograph that the two bundles label differently."""
    return encoded(pixels=np.full((64, 64), 100, np.uint8))


async def versions(client: httpx.AsyncClient, *, clients: list[str] | None = None, count: int = 1) -> Counter[str]:
    """Who answered: so many requests of each client, or of nobody in particular."""
    found: Counter[str] = Counter()
    for who in clients or [""]:
        for _ in range(count):
            headers = {"X-Client-Id": who} if who else {}
            response = await client.post("/predict", content=encoded(), headers=headers)
            answer = ImageAnswer.parse(response.json(), "the answer")
            assert response.headers["x-model-version"] == answer.model_version
            found[answer.model_version] += 1
    return found


# --- a canary ---------------------------------------------------------------------------------------------------------


async def test_a_canary_answers_its_share_and_each_client_by_one_version(
    client: httpx.AsyncClient, slot: ModelSlot, model: ServedModel, candidate: ServedModel, tally: Tally
) -> None:
    people = [f"camera-{number}" for number in range(60)]
    await slot.want(model, Canary(percent=30, model=candidate))
    first = {who: await versions(client, clients=[who], count=2) for who in people}
    assert all(len(found) == 1 for found in first.values())
    of_canary = {who for who, found in first.items() if "2" in found}
    assert 8 <= len(of_canary) <= 28
    counted = {key[1]: count for key, count in tally.counts.items() if key[0] == metrics.JUDGEMENTS.name}
    assert counted == {"1": 2 * (60 - len(of_canary)), "2": 2 * len(of_canary)}

    await slot.want(model, Canary(percent=60, model=candidate))
    more = {who for who in people if "2" in await versions(client, clients=[who])}
    assert of_canary < more, "whoever had the candidate keeps it when its share grows"

    await slot.want(model)
    assert set(await versions(client, clients=people)) == {"1"}


async def test_without_a_name_chance_decides(
    client: httpx.AsyncClient, slot: ModelSlot, model: ServedModel, candidate: ServedModel
) -> None:
    await slot.want(model, Canary(percent=50, model=candidate))
    found = await versions(client, count=60)
    assert 10 <= found["2"] <= 50


async def test_the_choice_is_the_same_in_every_replica_and_another_for_each_candidate(
    slot: ModelSlot, model: ServedModel, candidate: ServedModel
) -> None:
    await slot.want(model, Canary(percent=10, model=candidate))
    people, chosen = [f"camera-{number}" for number in range(1000)], {}
    for digest in ("a" * 64, "b" * 64):
        slot.candidate.wanted = candidate.model_copy(update={"sha256": digest})
        chosen[digest[0]] = [who for who in people if slot.candidate.is_chosen(who)]
        assert 60 <= len(chosen[digest[0]]) <= 140
    assert chosen["a"][:3] == ["camera-5", "camera-8", "camera-11"], "another hash would move clients about"
    assert chosen["a"] != chosen["b"]


async def test_a_request_may_name_its_version(
    client: httpx.AsyncClient, slot: ModelSlot, model: ServedModel, candidate: ServedModel
) -> None:
    await slot.want(model, Canary(percent=1, model=candidate))
    for version in ("1", "2"):
        response = await client.post("/predict", content=encoded(), headers={"X-Model-Version": version})
        assert (response.json()["model_version"], response.headers["x-model-version"]) == (version, version)
        files = {"files": ("a.png", encoded())}
        form = await client.post("/predict", files=files, headers={"X-Model-Version": version})
        assert FormAnswer.parse(form.json(), "the answer").model_version == version
        picture = await client.post("/predict?explain=heatmap", content=encoded(), headers={"X-Model-Version": version})
        assert picture.headers["x-model-version"] == version
        described = (await client.get(f"/v2/models/screw/versions/{version}")).json()
        assert (described["version"], described["versions"]) == (version, ["1", "2"])
        ready = await client.get(f"/v2/models/screw/versions/{version}/ready")
        assert ready.json()["version"] == version
    unknown = await client.post("/predict", content=encoded(), headers={"X-Model-Version": "3"})
    assert unknown.status_code == 404
    assert "known: 1, 2" in unknown.json()["error"]["reason"]


async def test_an_error_names_the_version_that_found_it(
    client: httpx.AsyncClient,
    slot: ModelSlot,
    model: ServedModel,
    candidate: ServedModel,
    tally: Tally,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await slot.want(model, Canary(percent=50, model=candidate))
    for version in ("1", "2"):
        headers = {"X-Model-Version": version}
        refused = await client.post("/predict", content=b"no image", headers=headers)
        assert (refused.status_code, refused.headers["x-model-version"]) == (400, version)
        path = f"/v2/models/screw/versions/{version}/infer"
        refused = await client.post(path, content=json.dumps(INFER))
        assert (refused.status_code, refused.headers["x-model-version"]) == (400, version)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the engine is gone")

    assert slot.candidate.loaded
    monkeypatch.setattr(slot.candidate.loaded.predictor, "judge", fail)
    failed = await client.post("/predict", content=encoded(), headers={"X-Model-Version": "2"})
    assert (failed.status_code, failed.headers["x-model-version"]) == (500, "2")
    assert tally.of(metrics.REQUESTS)["failed", "2"] == 1


async def test_what_is_tried_is_said(
    client: httpx.AsyncClient, slot: ModelSlot, model: ServedModel, candidate: ServedModel
) -> None:
    assert (await client.get("/v2/models/screw")).json()["trial"] is None
    await slot.want(model, Canary(percent=30, model=candidate))
    said = {"kind": "canary", "percent": 30, "version": "2", "sha256": candidate.sha256}
    for path in ("/v2/models/screw", "/served"):
        assert (await client.get(path)).json()["trial"] == {**said, "loaded": True, "load_error": None}
    assert (await client.get("/v2/models/screw")).json()["version"] == "1"


async def test_a_candidate_that_does_not_load_leaves_the_model_answering_all(
    client: httpx.AsyncClient, slot: ModelSlot, model: ServedModel, candidate: ServedModel
) -> None:
    await slot.want(model, Canary(percent=99, model=candidate))
    missing = candidate.model_copy(update={"version": "3", "sha256": "0" * 64, "uri": "file:///nowhere"})
    await slot.want(model, Canary(percent=99, model=missing))
    assert await versions(client, count=20) == {"1": 20}, "nor does the candidate before it answer"
    trial = (await client.get("/v2/models/screw")).json()["trial"]
    assert (trial["version"], trial["loaded"]) == ("3", False)
    assert "file:///nowhere" in trial["load_error"]
    named = await client.post("/predict", content=encoded(), headers={"X-Model-Version": "3"})
    assert named.status_code == 503
    assert "file:///nowhere" in named.json()["error"]["reason"]
    assert (await client.get("/v2/models/screw")).json()["load_error"] is None
    assert (await client.get("/v2/health/ready")).status_code == 200


async def test_without_a_model_a_candidate_answers_nobody(
    empty: httpx.AsyncClient, slot: ModelSlot, model: ServedModel, candidate: ServedModel
) -> None:
    missing = model.model_copy(update={"version": "3", "uri": "file:///nowhere"})
    await slot.want(missing, Canary(percent=99, model=candidate))
    assert {(await empty.post("/predict", content=encoded())).status_code for _ in range(10)} == {503}


async def test_a_candidate_can_be_asked_for_while_the_model_is_not_there(
    empty: httpx.AsyncClient, slot: ModelSlot, model: ServedModel, candidate: ServedModel
) -> None:
    missing = model.model_copy(update={"version": "3", "uri": "file:///nowhere"})
    await slot.want(missing, Canary(percent=99, model=candidate))
    kinds: list[dict[str, Any]] = [{"content": encoded()}, {"files": {"files": ("a.png", encoded())}}]
    for kind in kinds:
        named = await empty.post("/predict", headers={"X-Model-Version": "2"}, **kind)
        assert (named.status_code, named.json()["model_version"]) == (200, "2")
    refused = await empty.post("/predict", content=encoded(), headers={"X-Model-Version": "3"})
    assert refused.status_code == 503
    assert "screw version 3 from file:///nowhere does not load" in refused.json()["error"]["reason"]


# --- a shadow ---------------------------------------------------------------------------------------------------------


async def counted(tally: Tally, total: int) -> dict[str, int]:
    """What became of the shadow's photographs, once there are so many."""
    deadline = time.monotonic() + 60
    while True:
        found = {key[2]: n for key, n in tally.counts.items() if key[0] == metrics.SHADOW_PHOTOGRAPHS.name}
        if sum(found.values()) >= total:
            return found
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.01)


async def test_a_shadow_answers_nothing_and_is_compared_with_what_was_answered(
    client: httpx.AsyncClient, slot: ModelSlot, model: ServedModel, candidate: ServedModel, tally: Tally
) -> None:
    await slot.want(model, Shadow(model=candidate))
    assert await versions(client, count=1) == {"1": 1}
    assert await counted(tally, 1) == {"agreed": 1}
    answered = await client.post("/predict", content=middling())
    assert (answered.json()["model_version"], answered.json()["label"]) == ("1", "defective")
    assert await counted(tally, 2) == {"agreed": 1, "differed": 1}
    assert tally.counts[metrics.SHADOW_JUDGEMENTS.name, "2", "good"] == 2
    assert {key[1] for key in tally.counts if key[0] == metrics.JUDGEMENTS.name} == {"1"}

    await client.post("/predict", content=b"no image")  # what could not be answered is nothing to compare with
    await client.post("/predict", files=[("f", ("a.png", encoded())), ("f", ("b.txt", b"text"))])
    await client.post("/predict?explain=heatmap", content=encoded())
    assert await counted(tally, 4) == {"agreed": 3, "differed": 1}
    await client.post("/predict", content=encoded(), headers={"X-Model-Version": "1"})
    named = await client.post("/predict", content=encoded(), headers={"X-Model-Version": "2"})
    assert named.json()["model_version"] == "2", "who names it is answered by it"
    for path in ("/predict", "/predict?explain=heatmap"):
        await client.post(path, content=encoded(), headers={"X-Count": "false"})
    await asyncio.sleep(0.1)
    assert await counted(tally, 4) == {"agreed": 3, "differed": 1}


async def test_inference_requests_are_seen_by_the_shadow_too(
    client: httpx.AsyncClient, slot: ModelSlot, model: ServedModel, candidate: ServedModel, tally: Tally
) -> None:
    await slot.want(model, Shadow(model=candidate))
    image = encoded()
    size = {"binary_data_size": len(image) + 4}
    text = json.dumps({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "parameters": size}]}).encode()
    body = text + len(image).to_bytes(4, "little") + image
    headers = {"Inference-Header-Content-Length": str(len(text))}
    response = await client.post("/v2/models/screw/infer", content=body, headers=headers)
    assert response.json()["model_version"] == "1", response.text
    assert await counted(tally, 1) == {"agreed": 1}


async def test_a_shadow_that_fails_is_counted_and_nobody_notices(
    client: httpx.AsyncClient,
    slot: ModelSlot,
    model: ServedModel,
    candidate: ServedModel,
    tally: Tally,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await slot.want(model, Shadow(model=candidate))
    assert slot.candidate.loaded
    outcomes: list[object] = [RuntimeError("the engine is gone"), [ImageError(400, "not for me")]]

    def judge(images: list[bytes], *, max_pixels: int, trace: object = None) -> object:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(slot.candidate.loaded.predictor, "judge", judge)
    for count in (1, 2):
        assert await versions(client) == {"1": 1}
        assert await counted(tally, count) == {"failed": count}


async def test_a_shadow_drops_what_it_has_no_time_for(
    slot: ModelSlot, model: ServedModel, candidate: ServedModel, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    await slot.want(model, Shadow(model=candidate))
    loaded, go_on = slot.candidate.loaded, threading.Event()
    assert loaded
    said = Judgement("good", 0.1, 0.5, {"good": 0.9, "defective": 0.1}, part_found=True)

    def judge(images: list[bytes], *, max_pixels: int, trace: object = None) -> list[Judgement]:
        go_on.wait()
        return [said]

    monkeypatch.setattr(loaded.predictor, "judge", judge)
    judging = make_shadow(tally)
    judging.compare(loaded, [(b"", said)] * (MOST_WAITING + 3))
    assert await counted(tally, 3) == {"dropped": 3}
    go_on.set()
    assert await counted(tally, MOST_WAITING + 3) == {"dropped": 3, "agreed": MOST_WAITING}
    requests: list[Future[None]] = [Future(), Future()]  # as many are judged as there are threads
    for request in requests:
        judging.make_way(request)
    judging.compare(loaded, [(b"", said)])
    assert await counted(tally, MOST_WAITING + 4) == {"dropped": 4, "agreed": MOST_WAITING}
    requests[0].set_result(None)
    judging.compare(loaded, [(b"", said)])
    assert await counted(tally, MOST_WAITING + 5) == {"dropped": 4, "agreed": MOST_WAITING + 1}


async def test_a_cancelled_request_is_counted_while_its_thread_works(
    slot: ModelSlot, model: ServedModel, candidate: ServedModel, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    await slot.want(model, Shadow(model=candidate))
    assert slot.loaded
    assert slot.candidate.loaded
    begun, go_on, judging = threading.Event(), threading.Event(), make_shadow(tally)
    said = Judgement("good", 0.1, 0.5, {"good": 0.9, "defective": 0.1}, part_found=True)

    def judge(images: list[bytes], *, max_pixels: int, trace: object = None) -> list[Judgement]:
        begun.set()
        go_on.wait()
        return [said]

    monkeypatch.setattr(slot.loaded.predictor, "judge", judge)
    with closing(Workers(2)) as workers:
        endpoints = Endpoints(slot, LIMITS, workers, tally, "a-replica", judging)
        app = assemble(endpoints, "screw", journal=None, feedback=None)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://replica") as client:
            requests = [asyncio.create_task(client.post("/predict", content=encoded())) for _ in range(2)]
            while judging.requests < len(requests):
                await asyncio.sleep(0.01)
            await asyncio.to_thread(begun.wait)
            for request in requests:
                request.cancel()
            await asyncio.wait(requests)
        assert judging.requests == 2
        judging.compare(slot.candidate.loaded, [(b"", said)])
        assert await counted(tally, 1) == {"dropped": 1}
        go_on.set()
    assert judging.requests == 0


async def test_a_request_does_not_wait_for_the_shadow(
    client: httpx.AsyncClient,
    slot: ModelSlot,
    model: ServedModel,
    candidate: ServedModel,
    tally: Tally,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await slot.want(model, Shadow(model=candidate))
    assert slot.candidate.loaded
    go_on = threading.Event()

    def judge(images: list[bytes], *, max_pixels: int, trace: object = None) -> list[Judgement]:
        go_on.wait()
        raise RuntimeError("too late")

    monkeypatch.setattr(slot.candidate.loaded.predictor, "judge", judge)
    assert await versions(client, count=MOST_WAITING + 2) == {"1": MOST_WAITING + 2}
    go_on.set()
    assert await counted(tally, MOST_WAITING + 2) == {"dropped": 2, "failed": MOST_WAITING}
