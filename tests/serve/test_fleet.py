"""A fleet in this process: models that come when they are asked for, change, fail, and leave the others alone."""

import asyncio
import shutil
from collections import OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
import httpx
import pytest

from gitops.contracts.serving import ServedModel
from gitops.errors import ContractError, MergelineError
from monitoring import metrics
from serve.assembly import assemble
from serve.endpoints import Endpoints
from serve.members import Loader, Member, Members
from serve.meters import RayMeters
from serve.open_inference_pb2 import ModelInferRequest, ModelReadyRequest
from serve.slot import ModelSlot
from serve.workers import Workers
from tests.bundles import make_bundle
from tests.serve.conftest import LIMITS, Tally, encoded
from tests.serve.site import open_bundle, shadow
from tests.serve.test_grpc_service import Context, as_ray_s

if TYPE_CHECKING:
    from serve.fleet import Fleet

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Using extra keyword arguments"),  # Ray's own models, when first imported
]
MAX_MODELS = 2


def bounded(load: Loader) -> Loader:
    """Keeps models as Ray Serve's multiplexing does, which works in a replica only."""
    kept: OrderedDict[str, Member] = OrderedDict()

    async def get(name: str) -> Member:
        if name not in kept:
            if len(kept) == MAX_MODELS:
                kept.popitem(last=False)
            kept[name] = await load(name)
        kept.move_to_end(name)
        return kept[name]

    return get


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ServedModel]:
    folder, models = tmp_path_factory.mktemp("fleet"), {}
    for name in ("bolt", "nut", "screw"):
        digest = make_bundle(folder / name, name=name, classes=("good", f"bad-{name}"))
        models[name] = ServedModel(name=name, version="1", uri=(folder / name).as_uri(), sha256=digest)
    return models


@pytest.fixture
def members(tmp_path: Path, workers: Workers, tally: Tally) -> Members:
    def make(name: str) -> Member:
        slot = ModelSlot(open_bundle, tmp_path / f"{name}.json", lambda succeeded: None)
        endpoints = Endpoints(slot, LIMITS, workers, tally, "a-replica", shadow(tally))
        return Member(slot, endpoints, assemble(endpoints, f"parts/{name}", journal=None, feedback=None))

    return Members(make, bounded, lambda name, outcome: tally.count(metrics.REQUESTS, outcome, name or "nobody"))


@pytest.fixture
async def client(members: Members, tally: Tally) -> AsyncIterator[httpx.AsyncClient]:
    from serve.fleet import FleetEndpoints, application

    app = application(FleetEndpoints(members, "a-replica", MAX_MODELS), tally)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://replica") as client:
        yield client


async def loaded(client: httpx.AsyncClient) -> set[str]:
    return {name for name, facts in (await client.get("/fleet")).json()["models"].items() if facts["served"]}


async def test_a_model_comes_when_it_is_asked_for_and_the_least_recently_used_goes(
    client: httpx.AsyncClient, members: Members, models: dict[str, ServedModel], tally: Tally
) -> None:
    await members.want(models)
    assert await loaded(client) == set()
    for name, there in (("bolt", {"bolt"}), ("nut", {"bolt", "nut"}), ("bolt", {"bolt", "nut"})):
        answer = (await client.post("/predict", params={"model": name}, content=encoded())).json()
        assert (answer["model_name"], set(answer["probabilities"])) == (name, {"good", f"bad-{name}"})
        assert await loaded(client) == there
    judged = tally.of(metrics.JUDGEMENTS)
    await client.post("/predict", params={"model": "bolt"}, content=encoded(), headers={"X-Count": "false"})
    assert tally.of(metrics.JUDGEMENTS) == judged
    await client.post("/predict", params={"model": "screw"}, content=encoded())
    assert await loaded(client) == {"bolt", "screw"}
    said = (await client.get("/fleet")).json()
    assert (said["replica"], said["max_models"]) == ("a-replica", MAX_MODELS)


async def test_each_model_has_the_whole_interface(
    client: httpx.AsyncClient, members: Members, models: dict[str, ServedModel], tally: Tally
) -> None:
    await members.want(models)
    for path in ("/predict?model=nut", "/models/nut/predict"):
        response = await client.post(path, content=encoded(), headers={"X-Request-Id": "part-42"})
        assert (response.json()["id"], response.headers["x-model-version"]) == ("part-42", "1")
        response = await client.post(path, content=encoded())
        assert response.headers.get_list("x-request-id") == [response.json()["id"]]
    for base in ("", "/models/nut"):
        metadata = (await client.get(f"{base}/v2/models/nut")).json()
        assert (metadata["name"], metadata["version"], metadata["replica"]) == ("nut", "1", "a-replica")
        assert (await client.get(f"{base}/v2/models/nut/ready")).status_code == 200
        refused = await client.post(f"{base}/v2/models/nut/infer", content=b"{}")
        assert (refused.status_code, set(refused.json())) == (400, {"error", "id"})
        assert (await client.get(f"{base}/v2/health/ready")).status_code == 200
        assert (await client.get(f"{base}/v2")).json()["name"] == "mergeline"
    assert "page/page.js" in (await client.get("/models/nut/")).text
    assert (await client.get("/models/nut/page/page.js")).status_code == 200
    assert (await client.get("/models/nut/served")).json()["model"]["name"] == "nut"
    assert (await client.get("/models/nut")).headers["location"] == "nut/"
    assert "<code>/models/nut/predict</code>" in (await client.get("/models/nut/docs")).text
    assert "<code>/fleet</code>" in (await client.get("/docs")).text
    described = (await client.get("/openapi.json")).json()["paths"]
    of_one = (await client.get("/models/nut/openapi.json")).json()["paths"]
    assert {path for path in of_one if path.startswith("/v2") or path in ("/predict", "/feedback")} <= described.keys()
    assert not any("422" in method["responses"] for path in described.values() for method in path.values())
    assert '<a href="models/nut/">nut</a> <span class=soft>v' in (await client.get("/")).text
    assert (await client.get("/page/page.css")).status_code == 200
    assert tally.counts[metrics.JUDGEMENTS.name, "1", "good"] == 4


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/predict", 400, "say which model is meant: /predict?model=NAME"),
        ("/predict?model=gear", 404, "there is no model 'gear' here; known: bolt, nut, screw"),
        ("/v2/models/gear/infer", 404, "known: bolt, nut, screw"),
        ("/models/gear/predict", 404, "known: bolt, nut, screw"),
        ("/elsewhere", 404, "there is nothing at /elsewhere"),
        ("/fleet", 405, "POST is not possible at /fleet"),
    ],
)
async def test_what_cannot_be_answered_is_said(
    client: httpx.AsyncClient, members: Members, models: dict[str, ServedModel], path: str, status: int, words: str
) -> None:
    await members.want(models)
    response = await client.post(path, content=encoded())
    assert response.status_code == status
    error = response.json()["error"]
    assert words in (error if path.startswith("/v2/") else error["reason"])
    assert response.json()["id"] == response.headers["x-request-id"]


async def test_a_model_that_does_not_load_is_said_and_the_others_go_on(
    client: httpx.AsyncClient, members: Members, models: dict[str, ServedModel], tally: Tally
) -> None:
    missing = models["nut"].model_copy(update={"uri": "file:///nowhere", "sha256": "0" * 64})
    await members.want(models | {"nut": missing})
    await client.post("/predict", params={"model": "bolt"}, content=encoded())
    await client.post("/predict", params={"model": "screw"}, content=encoded())
    for _ in range(5):  # the first one puts another model out; the others are told the same without
        refused = await client.post("/predict", params={"model": "nut"}, content=encoded())
        assert refused.status_code == 503
        assert "nut version 1 from file:///nowhere does not load" in refused.json()["error"]["reason"]
        assert int(refused.headers["retry-after"]) > 0
    assert (await client.post("/v2/models/gear/infer", content=b"{}")).status_code == 404
    assert (await client.get("/v2/models/nut")).status_code == 503  # asks for no judgement
    counted = {("unavailable", "nut"): 5, ("refused", "nobody"): 1, ("answered", "1"): 2}
    assert tally.of(metrics.REQUESTS) == counted
    assert await loaded(client) == {"screw"}
    said = (await client.get("/fleet")).json()["models"]
    assert "file:///nowhere" in said["nut"]["load_error"]
    assert said["bolt"]["load_error"] is None
    assert (await client.post("/predict", params={"model": "bolt"}, content=encoded())).status_code == 200

    await members.want(models)  # mended: it is tried again at once
    assert (await client.get("/fleet")).json()["models"]["nut"]["load_error"] is None
    assert (await client.post("/predict", params={"model": "nut"}, content=encoded())).status_code == 200


async def test_a_load_goes_on_without_the_one_who_asked_for_it(
    members: Members, models: dict[str, ServedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads, begun, go = list[str](), asyncio.Event(), asyncio.Event()
    make = members._make

    async def load(name: str) -> Member:
        loads.append(name)
        begun.set()
        await go.wait()
        return make(name)

    await members.want(models)
    monkeypatch.setattr(members, "_kept", bounded(load))
    impatient = asyncio.create_task(members.get("nut"))
    await begun.wait()
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    go.set()
    await members.get("nut")
    assert loads == ["nut"]


async def test_a_load_that_nobody_waits_for_any_more_is_a_request_that_is_gone(
    members: Members, models: dict[str, ServedModel], tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def load(name: str) -> Member:
        begun.set()
        await asyncio.sleep(60)
        raise AssertionError

    async def break_down(name: str) -> Member:
        raise ZeroDivisionError

    await members.want(models)
    monkeypatch.setattr(members, "_kept", load)
    waiting = asyncio.create_task(members.to_judge("nut"))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    monkeypatch.setattr(members, "_kept", break_down)
    with pytest.raises(ZeroDivisionError):
        await members.to_judge("bolt")
    assert tally.of(metrics.REQUESTS) == {("gone", "nut"): 1, ("failed", "bolt"): 1}


async def test_grpc_s_requests_to_judge_are_counted_where_there_is_no_model(
    members: Members, models: dict[str, ServedModel], tally: Tally
) -> None:
    from serve.fleet import Fleet

    fleet = Fleet.__new__(Fleet)  # without Ray, which its constructor asks who it is
    fleet._members, fleet._meters = members, cast("RayMeters", tally)
    await members.want(models)
    context = Context()
    await fleet.ModelInfer(ModelInferRequest(model_name="gear"), as_ray_s(context))
    assert context.code == grpc.StatusCode.NOT_FOUND
    await fleet.ModelReady(ModelReadyRequest(name="gear"), as_ray_s(context))
    assert tally.of(metrics.REQUESTS) == {("refused", "nobody"): 1}


async def test_a_promotion_changes_what_is_in_memory_and_what_comes_later(
    client: httpx.AsyncClient, members: Members, models: dict[str, ServedModel], tmp_path: Path
) -> None:
    await members.want(models)
    await client.post("/predict", params={"model": "bolt"}, content=encoded())
    newer = {}
    for name in ("bolt", "nut"):
        digest = make_bundle(tmp_path / name, name=name, version_salt=0.5)
        newer[name] = ServedModel(name=name, version="2", uri=(tmp_path / name).as_uri(), sha256=digest)
    await members.want(models | newer)
    said = (await client.get("/fleet")).json()["models"]
    assert said["bolt"]["served"] == said["bolt"]["wanted"] == {"version": "2", "sha256": newer["bolt"].sha256}
    assert said["nut"]["served"] is None
    for name in ("bolt", "nut"):
        answer = (await client.post("/predict", params={"model": name}, content=encoded())).json()
        assert answer["model_version"] == "2"

    broken = newer["bolt"].model_copy(update={"version": "3", "uri": "file:///nowhere", "sha256": "0" * 64})
    await members.want(models | newer | {"bolt": broken})
    facts = (await client.get("/fleet")).json()["models"]["bolt"]
    assert facts["served"]["version"] == "2"
    assert "file:///nowhere" in facts["load_error"]
    answer = (await client.post("/predict", params={"model": "bolt"}, content=encoded())).json()
    assert answer["model_version"] == "2", "what was serving goes on serving"
    for name in ("nut", "screw"):  # also when it has left memory meanwhile
        await client.post("/predict", params={"model": name}, content=encoded())
    assert "bolt" not in await loaded(client)
    answer = (await client.post("/predict", params={"model": "bolt"}, content=encoded())).json()
    assert answer["model_version"] == "2"

    await members.want({"nut": newer["nut"]})
    assert (await client.post("/predict", params={"model": "bolt"}, content=encoded())).status_code == 404


async def test_without_models_nothing_is_ready(client: httpx.AsyncClient, members: Members) -> None:
    response = await client.get("/v2/health/ready")
    assert response.status_code == 503
    assert "promote one" in response.json()["error"]
    assert (await client.get("/v2/health/live")).status_code == 200
    members.load_error = "no such key"
    assert (await client.get("/fleet")).json()["load_error"] == "no such key"


@pytest.fixture
def replica(members: Members) -> "Fleet":
    """One that Serve has just started, without Ray, which its constructor asks who it is."""
    from serve.fleet import Fleet
    from serve.lifecycle import AnswerCheck, Change, Start

    new = Fleet.__new__(Fleet)
    new._members, new._change, new._check, new._start = members, Change(), AnswerCheck(), Start()
    return new


def config(*models: ServedModel) -> dict[str, Any]:
    return {"models": {model.name: model.model_dump() for model in models}}


def away(model: ServedModel) -> ServedModel:
    return model.model_copy(update={"uri": f"{model.uri}-away"})


async def test_a_new_replica_holds_a_model_before_it_is_asked(
    replica: "Fleet", models: dict[str, ServedModel], client: httpx.AsyncClient
) -> None:
    await replica.reconfigure(config(away(models["bolt"]), models["nut"], models["screw"]))
    assert await loaded(client) == {"nut"}, "the first that loads"
    await replica.check_health()
    assert "bolt version 1" in (await client.post("/predict", params={"model": "bolt"}, content=encoded())).text


async def test_one_that_can_load_none_does_not_begin(
    replica: "Fleet", models: dict[str, ServedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.fleet.START_SECONDS", 0.5)
    with pytest.raises(MergelineError, match="none of the 2 models loads; the first: bolt version 1 from "):
        await replica.reconfigure(config(away(models["bolt"]), away(models["nut"])))
    with pytest.raises(MergelineError, match="none of the 2 models"):  # a Serve that came back meanwhile asks only this
        await replica.check_health()


async def test_what_does_not_load_at_once_is_tried_again(
    replica: "Fleet",
    models: dict[str, ServedModel],
    client: httpx.AsyncClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serve.members.FIRST_RETRY_SECONDS", 0.01)
    late = tmp_path / "late"
    model = models["bolt"].model_copy(update={"uri": late.as_uri()})
    begun = asyncio.create_task(replica.reconfigure(config(model)))
    while not (await client.get("/fleet")).json()["models"].get("bolt", {}).get("load_error"):
        await asyncio.sleep(0.01)
    shutil.copytree(models["bolt"].uri.removeprefix("file://"), tmp_path / "copied")
    (tmp_path / "copied").rename(late)
    await asyncio.wait_for(begun, 60)
    assert await loaded(client) == {"bolt"}


async def test_one_that_has_no_time_to_try_each_begins(
    replica: "Fleet", models: dict[str, ServedModel], monkeypatch: pytest.MonkeyPatch, client: httpx.AsyncClient
) -> None:
    """The first one's store hangs: the others may be well."""
    monkeypatch.setattr("serve.fleet.START_SECONDS", 0)
    await replica.reconfigure(config(away(models["bolt"]), models["nut"]))
    assert await loaded(client) == set()
    assert (await client.post("/predict", params={"model": "nut"}, content=encoded())).status_code == 200


async def test_nor_one_that_cannot_read_what_it_shall_hold(replica: "Fleet") -> None:
    with pytest.raises(MergelineError, match="unknown key"):
        await replica.reconfigure({"modells": None})


async def test_one_that_has_begun_goes_on(
    replica: "Fleet", models: dict[str, ServedModel], members: Members, client: httpx.AsyncClient
) -> None:
    await replica.reconfigure({"models": None})
    await replica.reconfigure(config(away(models["bolt"])))
    assert not members.load_error
    await replica.reconfigure({"modells": None})
    assert "unknown key" in (members.load_error or "")
    await replica.check_health()
    assert (await client.get("/fleet")).json()["models"]["bolt"]["served"] is None


def test_unknown_or_wrong_arguments_are_refused() -> None:
    from serve.fleet import build

    for args in ({"max_model": 1}, {"max_models": 0}, {"threads": 0}, {"windows": "/windows"}):
        with pytest.raises(ContractError, match="args of serve"):
            build(args)
    deployment = build({"max_models": 3})._bound_deployment
    assert (deployment.name, deployment._deployment_config.max_surge_percent) == ("Fleet", 100)
    assert deployment._deployment_config.max_constructor_retry_count == 1_000_000, "it is never given up"
