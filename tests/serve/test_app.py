"""The application on a real Ray Serve: what only the way through its proxy can show."""

import asyncio
import contextlib
import http.client
import json
import math
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import httpx
import numpy as np
import pytest

from gitops.contracts.serving import ServedModel, UserConfig
from gitops.errors import BundleError, ContractError, MergelineError
from gitops.health import serve_message
from gitops.serve_api import Application
from monitoring import metrics
from monitoring.configuration import rule_files
from monitoring.dashboards import dashboards
from ray_jobs import ingress
from serve.predictor import Predictor
from serve.protocol import ErrorAnswer, ImageAnswer, InferenceError
from serve.served import ServedAnswer
from serve.slot import ModelSlot
from serve.workers import Workers
from tests.bundles import make_bundle
from tests.conftest import RayCluster
from tests.serve.conftest import ARGUMENTS, DEADLINE_SECONDS, Service

if TYPE_CHECKING:
    from serve.app import Classifier

PART = cv2.imencode(".png", np.pad(np.full((40, 120), 60, np.uint8), 60, constant_values=220))[1].tobytes()
TOO_LARGE = b"\0" * (ARGUMENTS["max_bytes"] * 12)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[ServedModel, ServedModel]:
    """Version 1 works, version 2 does not load."""
    folder = tmp_path_factory.mktemp("bundles")
    digests = {version: make_bundle(folder / version, version_salt=int(version) / 10) for version in "12"}
    (folder / "2" / "model.xml").write_text("<net/>")
    first, second = (
        ServedModel(name="screw", version=version, uri=(folder / version).as_uri(), sha256=digest)
        for version, digest in digests.items()
    )
    return first, second


@pytest.fixture(scope="module")
def url(service: Service, models: tuple[ServedModel, ServedModel]) -> str:
    """The address of a service with one replica that serves version 1."""
    service.put(models[0], num_replicas=1, ray_actor_options={"num_cpus": 0.5})
    service.wait(lambda answer: answer["version"] == "1")
    return service.url


def chunks(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 65_536):
        yield data[start : start + 65_536]


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments")  # Ray's own models, when first imported
def test_unknown_or_wrong_arguments_are_refused() -> None:
    from serve.app import build

    with pytest.raises(ContractError, match="did you mean 'max_pixels'"):
        build({"max_pixel": 1})
    with pytest.raises(ContractError, match="threads"):
        build({"threads": 0})
    with pytest.raises(ContractError, match="feedback"):
        build({"feedback": "relative/folder"})
    for journal in ("/", "/x", "/var/lib/mergeline", "~", "/state/reconciler/"):
        with pytest.raises(ContractError, match="must be <state folder>/reconciler/<environment>"):
            build({"journal": journal})
    build({"journal": "/not/there/reconciler/local"})
    deployment = build(ARGUMENTS)._bound_deployment
    assert (deployment.name, deployment._deployment_config.max_surge_percent) == ("Classifier", 100)
    limit = deployment._deployment_config.max_constructor_retry_count
    assert str(limit) == ingress.SETTINGS["RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT"], "Serve takes the lower one"


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments")
@pytest.mark.anyio
async def test_a_replica_waits_for_a_change_while_others_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    from serve import lifecycle

    others: list[bool | Exception] = []

    def others_answer() -> bool:
        found = others.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(lifecycle, "_others_answer", others_answer)
    monkeypatch.setattr(lifecycle, "ASK_AGAIN_SECONDS", 0.01)
    change, loaded = lifecycle.Change(), asyncio.Event()

    async def load() -> None:
        await loaded.wait()

    for said in ([False], [RuntimeError("the controller is away")], [True, True, False]):
        others[:] = said
        await asyncio.wait_for(change(load(), answers=True), 20)
        assert not others, "it asked as long as others answered"

    others[:] = [True] * 10_000
    waiting = asyncio.create_task(change(load(), answers=True))
    first = asyncio.create_task(change(load(), answers=False))  # it has nothing to answer with
    while len(others) > 9_990:
        await asyncio.sleep(0.01)
    assert not waiting.done()
    assert not first.done()
    loaded.set()
    await asyncio.wait_for(asyncio.gather(waiting, first), 20)


@pytest.fixture
def replica(slot: ModelSlot, monkeypatch: pytest.MonkeyPatch) -> "Classifier":
    """One that Serve has just started, without Ray, which its constructor asks who it is."""
    from serve import app, lifecycle

    monkeypatch.setattr(app, "START_SECONDS", 0.1)
    monkeypatch.setattr(lifecycle, "_others_answer", lambda: False)
    new = app.Classifier.__new__(app.Classifier)
    new._slot, new._check, new._change = slot, lifecycle.AnswerCheck(), lifecycle.Change()
    new._start = lifecycle.Start()
    return new


def config(model: ServedModel | None) -> dict[str, Any]:
    return UserConfig.of(model).model_dump()


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments")
@pytest.mark.anyio
async def test_a_new_replica_that_has_nothing_to_answer_with_ends(
    replica: "Classifier", models: tuple[ServedModel, ServedModel]
) -> None:
    with pytest.raises(MergelineError, match=r"screw version 2 from .* does not load: .*model\.xml was changed"):
        await replica.reconfigure(config(models[1]))
    with pytest.raises(MergelineError, match="screw version 2"):  # a Serve that came back meanwhile asks only this
        await replica.check_health()


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments")
@pytest.mark.anyio
async def test_so_does_one_that_cannot_read_what_it_shall_do(replica: "Classifier") -> None:
    with pytest.raises(MergelineError, match="unknown key"):
        await replica.reconfigure({"modell": None})


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments")
@pytest.mark.anyio
@pytest.mark.parametrize("first", ["no model", "the last one served here", "the wanted one, at the second attempt"])
async def test_one_that_has_begun_goes_on(
    first: str,
    replica: "Classifier",
    slot: ModelSlot,
    models: tuple[ServedModel, ServedModel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good, broken = models
    begins_with: ServedModel | None = None
    if first == "the last one served here":
        begins_with = broken
        slot._write_memory(good)
    if first == "the wanted one, at the second attempt":
        begins_with, opens = good, slot._open_bundle
        monkeypatch.setattr("serve.app.START_SECONDS", 60)
        monkeypatch.setattr("serve.slot.FIRST_RETRY_SECONDS", 0.01)

        def away_once(model: ServedModel) -> Predictor:
            monkeypatch.setattr(slot, "_open_bundle", opens)
            raise BundleError("the store is away")

        monkeypatch.setattr(slot, "_open_bundle", away_once)
    await replica.reconfigure(config(begins_with))
    await replica.reconfigure(config(broken))
    await replica.reconfigure({"modell": None})
    await replica.check_health()
    assert "unknown key" in (slot.load_error or "")
    assert (slot.loaded.model.version if slot.loaded else None) == (None if first == "no model" else "1")


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments")
@pytest.mark.anyio
async def test_long_requests_do_not_make_a_replica_miss_its_health_check(
    client: httpx.AsyncClient,
    replica: "Classifier",
    slot: ModelSlot,
    workers: Workers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from serve.lifecycle import FRESH_SECONDS

    end = threading.Event()
    for _ in range(8):
        workers._judging.submit(end.wait)

    def fail(_: object) -> None:
        raise RuntimeError("the engine is gone")

    try:
        assert slot.loaded
        predictor = slot.loaded.predictor
        monkeypatch.setattr(predictor, "answered_at", -math.inf)
        await asyncio.wait_for(replica.check_health(), 20)
        assert time.monotonic() - predictor.answered_at < 20, "it judged a blank image"

        monkeypatch.setattr(predictor, "predict", fail)
        await replica.check_health()  # it has just answered
        monkeypatch.setattr(predictor, "answered_at", time.monotonic() - FRESH_SECONDS)
        with pytest.raises(RuntimeError, match="the engine is gone"):
            await replica.check_health()

        monkeypatch.setattr(predictor, "predict", lambda _: end.wait(60))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(replica.check_health(), 0.1)
        monkeypatch.setattr(predictor, "answered_at", time.monotonic())
        with pytest.raises(TimeoutError):  # the one that hangs is not forgotten, though others are answered
            await asyncio.wait_for(replica.check_health(), 0.1)
        end.set()
        await asyncio.wait_for(replica.check_health(), 20)
    finally:
        end.set()


def test_a_photograph_is_answered_with_one_request_id(url: str) -> None:
    response = httpx.post(f"{url}/predict", content=PART, headers={"x-request-id": "part-42"})
    answer = ImageAnswer.parse(response.json(), "the answer")
    assert (answer.id, answer.model_version) == ("part-42", "1")
    assert response.headers.get_list("x-request-id") == ["part-42"]
    assert response.headers["x-model-version"] == "1"
    without = httpx.post(f"{url}/predict", content=PART)
    assert without.headers.get_list("x-request-id") == [without.json()["id"]]


def test_several_files_are_answered_in_one_form(url: str) -> None:
    response = httpx.post(f"{url}/predict", files=[("files", ("a.png", PART)), ("files", ("b.txt", b"text"))])
    first, second = response.json()["predictions"]
    assert (first["filename"], first["label"]) == ("a.png", "good")
    assert (second["filename"], second["error"]["status"]) == ("b.txt", 400)


def test_the_page_and_what_is_served_pass_the_proxy(url: str, service: Service) -> None:
    page = httpx.get(f"{url}/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert httpx.get(f"{url}/", headers={"if-none-match": page.headers["etag"]}).status_code == 304
    answer = ServedAnswer.parse(httpx.get(f"{url}/served").json(), "the answer")
    assert answer.model
    assert (answer.model.version, answer.feedback, answer.environment) == ("1", False, None)
    assert answer.replica in service.running()
    said = httpx.post(f"{url}/feedback", files={"photograph": ("a.png", PART)}, data={"label": "good"})
    assert said.status_code == 404


def test_the_replica_is_named_as_serve_names_it(url: str, service: Service) -> None:
    assert {httpx.get(f"{url}/v2/models/screw").json()["replica"]} == service.running()


def test_errors_pass_the_proxy_as_json(url: str) -> None:
    for method, path, content, status in (
        ("POST", "/predict", b"", 400),
        ("GET", "/predict", b"", 405),
        ("GET", "/v2/models/bolt", b"", 404),
        ("GET", "/nothing", b"", 404),
    ):
        response = httpx.request(method, url + path, content=content)
        assert response.status_code == status
        kind = InferenceError if path.startswith("/v2") else ErrorAnswer
        kind.parse(response.json(), "the answer")


@pytest.mark.parametrize("announced", [True, False], ids=["content-length", "chunked"])
def test_clients_that_send_too_much_get_their_413_and_keep_their_connection(
    url: str, service: Service, announced: bool
) -> None:
    with httpx.Client(base_url=url, timeout=60) as client:
        for _ in range(3):
            response = client.post("/predict", content=TOO_LARGE if announced else chunks(TOO_LARGE))
            assert response.status_code == 413
            assert f"{ARGUMENTS['max_bytes']} bytes" in response.json()["error"]["reason"]
        assert client.post("/predict", content=PART).status_code == 200
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    connection.request("POST", "/predict", TOO_LARGE if announced else chunks(TOO_LARGE))
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("header", ["Expect: 100-continue", "Expect:", "Transfer-Encoding: chunked"])
def test_curl_gets_its_413(url: str, tmp_path: Path, header: str) -> None:
    (tmp_path / "large").write_bytes(TOO_LARGE)
    command = ["curl", "-sS", "-w", "%{http_code}", "-H", header, "--data-binary", f"@{tmp_path / 'large'}"]
    result = subprocess.run([*command, f"{url}/predict"], check=False, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr, result.stdout[-3:]) == (0, "", "413")


def test_the_declared_metrics_are_exported(url: str, ray_cluster: RayCluster) -> None:
    httpx.post(f"{url}/predict", content=PART)
    httpx.post(f"{url}/predict", content=b"")
    wanted = {
        r'ray_mergeline_judgements_total\{.*label="good".*model_version="1"',
        r'ray_mergeline_refusals_total\{.*status="400"',
        r'ray_mergeline_model_loads_total\{.*outcome="loaded"',
        r'ray_mergeline_requests_total\{.*model_version="1".*outcome="answered"',
        r'ray_mergeline_request_seconds_bucket\{.*le="0.5"',
        r'ray_mergeline_request_stage_seconds_bucket\{.*stage="infer"',
        r"ray_mergeline_request_photographs_bucket\{",
        r"ray_mergeline_scores_bucket\{",
    }
    deadline = time.monotonic() + DEADLINE_SECONDS
    while missing := {pattern for pattern in wanted if not re.search(pattern, scraped(ray_cluster))}:
        assert time.monotonic() < deadline, missing
        time.sleep(0.5)  # Ray exports every few seconds


def test_ray_exports_what_the_dashboards_and_alerts_ask_for(url: str, ray_cluster: RayCluster) -> None:
    """Under the names and labels that the queries have; what needs a GPU, a trial or feedback is not looked for."""
    httpx.post(f"{url}/predict", content=PART)
    httpx.post(f"{url}/predict", content=b"")
    queries = [query.expression for board in dashboards() for panel in board.panels for query in panel.queries]
    asked = " ".join([*queries, *(file.read_text() for file in rule_files())])
    names = set(re.findall(r"\b(?:ray|haproxy)_\w+", asked))
    shadow = {metrics.SHADOW_PHOTOGRAPHS.exported, metrics.SHADOW_JUDGEMENTS.exported}
    absent = {"ray_node_gpus_utilization", metrics.FEEDBACK.exported} | shadow
    names = {name for name in names - absent if not re.match("ray_mergeline_(drift|live)_", name)}
    patterns = {rf"^{name}[{{ ]" for name in names} | {
        r'^ray_serve_num_http_requests_total\{.*application="inspection".*method="POST".*status_code="200"',
        r'^ray_serve_http_request_latency_ms_bucket\{.*application="inspection".*le="500\.0".*method="POST"',
        r'^ray_serve_deployment_replica_healthy\{.*application="inspection".*deployment="Classifier".*\} 1',
        r'^ray_mergeline_requests_total\{.*application="inspection"',
        r'^haproxy_frontend_current_sessions\{proxy="http_frontend"',
        r'^ray_resources\{.*Name="object_store_memory"',
    }
    (haproxy,) = json.loads((ray_cluster.state.targets / "haproxy.json").read_text())
    assert json.loads((ray_cluster.state.targets / "ray.json").read_text())
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        text = scraped(ray_cluster) + httpx.get(f"http://{haproxy['targets'][0]}/metrics").text
        if not (missing := {pattern for pattern in patterns if not re.search(pattern, text, re.MULTILINE)}):
            return
        assert time.monotonic() < deadline, missing
        time.sleep(0.5)


def scraped(ray_cluster: RayCluster) -> str:
    """What Prometheus would read now of all that Ray tells it to."""
    headers = {"Authorization": f"Bearer {ray_cluster.token}"}
    groups = httpx.get(f"{ray_cluster.dashboard_url}/api/prometheus/sd", headers=headers).json()
    texts = []
    for target in (target for group in groups for target in group["targets"]):
        with contextlib.suppress(httpx.ConnectError):  # a node of an earlier test that Ray still lists
            texts.append(httpx.get(f"http://{target}/metrics").text)
    return "".join(texts)


def test_a_broken_model_is_told_and_a_replica_that_starts_then_serves_what_its_peer_does(
    url: str, service: Service, models: tuple[ServedModel, ServedModel]
) -> None:
    first, broken = models
    service.put(broken)
    service.wait(lambda answer: answer["load_error"] is not None and answer["version"] == "1")
    service.put(broken, num_replicas=2)
    service.wait(
        lambda answer: (answer["version"], answer["wanted"]["version"], answer["sha256"]) == ("1", "2", first.sha256),
        replicas=2,
    )
    assert {httpx.post(f"{url}/predict", content=PART).status_code for _ in range(20)} == {200}
    service.put(first, num_replicas=1)
    service.wait(lambda answer: answer["load_error"] is None)


def test_without_a_model_it_is_alive_and_not_ready(url: str, service: Service) -> None:
    service.put(None)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (response := httpx.get(f"{url}/v2/health/ready")).status_code != 503:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "promote one" in response.json()["error"]
    assert response.headers["retry-after"]
    assert httpx.get(f"{url}/v2/health/live").status_code == 200


def test_a_replica_that_could_answer_nothing_does_not_start(
    service: Service, models: tuple[ServedModel, ServedModel]
) -> None:
    """The application would count as running, and KubeRay move all requests to a new cluster of such replicas."""

    def put(model: ServedModel) -> None:
        classifier = {"name": "Classifier", "user_config": UserConfig.of(model).model_dump()}
        beginner = {"name": "beginner", "import_path": "serve.app:build", "route_prefix": "/beginner"}
        applications = [{**beginner, "args": ARGUMENTS, "deployments": [classifier]}]
        http = {"host": "127.0.0.1", "port": service.port}
        service.api.put({"http_options": http, "applications": applications})

    def wait_for(reached: Callable[[Application], bool]) -> Application:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not reached(found := service.api.applications().applications["beginner"]):
            assert time.monotonic() < deadline, found
            time.sleep(0.2)
        return found

    first, broken = models
    put(broken)
    told = wait_for(lambda found: "version 2 from" in serve_message(found))
    assert told.status == "DEPLOYING"
    assert not told.deployments["Classifier"].running
    assert "model.xml was changed" in serve_message(told)
    put(first)  # the next replica that starts is told of it
    wait_for(lambda found: found.status == "RUNNING")
    assert httpx.get(f"{service.url}/beginner/v2/models/screw").json()["version"] == "1"
