"""The HTTP interface in this process, over real bundles: formats, limits, forms, errors, the protocol's paths."""

import asyncio
import base64
import gzip
import io
import logging
import struct
import time
import zlib
from collections.abc import AsyncIterator
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image
from pydantic_core import to_json

from gitops.contracts.serving import ServedModel
from monitoring import metrics
from monitoring.metrics import RequestStage
from serve.protocol import ErrorAnswer, ExplainedAnswer, FormAnswer, ImageAnswer, InferenceError, ModelMetadata
from serve.slot import ModelSlot
from serve.trace import Trace
from tests.bundles import THRESHOLD
from tests.serve.conftest import LIMITS, Tally, encoded, photograph

pytestmark = pytest.mark.anyio


def by_pillow(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photograph()).save(buffer, kind)
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of 30 000 × 30 000 pixels in a few bytes: only its header is true."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def assert_error(response: httpx.Response, status: int, words: str) -> None:
    assert response.status_code == status, response.text
    if response.request.url.path.startswith("/v2"):
        assert words in InferenceError.parse(response.json(), "the answer").error
        return
    body = ErrorAnswer.parse(response.json(), "the answer")
    assert body.error.status == status
    assert words in body.error.reason
    assert body.id


@pytest.mark.parametrize(
    ("extension", "dtype", "channels"),
    [
        (".png", np.uint8, 1),
        (".png", np.uint8, 3),
        (".png", np.uint16, 1),
        (".png", np.uint16, 3),
        (".jpg", np.uint8, 1),
        (".jpg", np.uint8, 3),
        (".bmp", np.uint8, 1),
        (".bmp", np.uint8, 3),
        (".tiff", np.uint8, 1),
        (".tiff", np.uint8, 3),
        (".tiff", np.uint16, 1),
        (".tiff", np.uint16, 3),
    ],
)
async def test_every_accepted_format_gives_the_same_answer(
    client: httpx.AsyncClient, model: ServedModel, extension: str, dtype: type, channels: int
) -> None:
    expected = (await client.post("/predict", content=encoded())).json()["score"]
    response = await client.post("/predict", content=encoded(extension, photograph(dtype, channels)))
    assert response.status_code == 200, response.text
    answer = ImageAnswer.parse(response.json(), "the answer")
    assert answer.score == pytest.approx(expected, abs=0.02)
    assert answer.threshold == THRESHOLD
    assert answer.label == ("good" if answer.score < THRESHOLD else "defective")
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert (answer.model_name, answer.model_version) == ("screw", "1")
    assert answer.model_digest == f"sha256:{model.sha256}"
    assert response.headers["x-model-version"] == "1"


@pytest.mark.parametrize(
    "kind", ["image/png", "application/octet-stream", "application/x-www-form-urlencoded", "text/plain", None]
)
async def test_the_content_type_of_raw_bytes_is_not_asked(client: httpx.AsyncClient, kind: str | None) -> None:
    headers = {"content-type": kind} if kind else {}
    response = await client.post("/predict", content=encoded(), headers=headers)
    assert response.status_code == 200, response.text


async def test_a_dark_photograph_is_defective_and_a_light_one_good(client: httpx.AsyncClient) -> None:
    light = await client.post("/predict", content=encoded(pixels=np.full((64, 64), 250, np.uint8)))
    dark = await client.post("/predict", content=encoded(pixels=np.full((64, 64), 5, np.uint8)))
    assert (light.json()["label"], dark.json()["label"]) == ("good", "defective")
    assert light.json()["score"] < THRESHOLD <= dark.json()["score"]


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"", 400, "empty"),
        (b"a part, I am", 400, "not an image"),
        (encoded()[:-30], 400, "cut off"),
        (encoded()[:60] + b"\0" * 40 + encoded()[100:], 400, "PNG"),
        (bomb(), 413, "pixels"),
        (encoded(pixels=np.zeros((1000, 501), np.uint8)), 413, "501×1000"),
        (by_pillow("GIF"), 415, "GIF"),
        (by_pillow("WEBP"), 415, "WEBP"),
    ],
    ids=["empty", "text", "cut-off", "damaged", "bomb", "many-pixels", "gif", "webp"],
)
async def test_what_cannot_be_judged_is_refused_with_a_reason(
    client: httpx.AsyncClient, tally: Tally, data: bytes, status: int, words: str
) -> None:
    assert_error(await client.post("/predict", content=data), status, words)
    assert tally.of(metrics.REFUSALS) == {(str(status),): 1}


async def test_a_body_of_the_largest_size_is_taken_and_a_larger_one_is_not(client: httpx.AsyncClient) -> None:
    image = encoded(".bmp")
    padded = image + b"\0" * (LIMITS.max_bytes - len(image))
    assert (await client.post("/predict", content=padded)).status_code == 200
    assert_error(await client.post("/predict", content=padded + b"\0"), 413, "200000 bytes")


async def test_an_announced_size_is_refused_before_anything_is_read(client: httpx.AsyncClient) -> None:
    async def never() -> AsyncIterator[bytes]:
        pytest.fail("the body was read")
        yield b""

    response = await client.post("/predict", content=never(), headers={"content-length": "200001"})
    assert_error(response, 413, "200000 bytes")


async def test_a_chunked_body_is_counted_and_no_more_of_it_read_than_the_limit(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 10_000
            yield b"\0" * 10_000

    assert_error(await client.post("/predict", content=endless()), 413, "200000 bytes")
    assert sent <= LIMITS.max_bytes + 20_000


async def test_the_files_of_a_form_are_judged_each_on_its_own_in_their_order(
    client: httpx.AsyncClient, tally: Tally
) -> None:
    files = [
        ("files", ("a.png", encoded(), "image/png")),
        ("files", ("b.gif", by_pillow("GIF"), "image/gif")),
        ("more", ("größer.bmp", b"\0" * (LIMITS.max_bytes + 1), "image/bmp")),
        ("files", ("d.jpg", encoded(".jpg"), "image/jpeg")),
    ]
    response = await client.post("/predict", files=files, data={"note": "not a file"})
    assert response.status_code == 200, response.text
    answer = FormAnswer.parse(response.json(), "the answer")
    assert [entry.filename for entry in answer.predictions] == ["a.png", "b.gif", "größer.bmp", "d.jpg"]
    statuses = [entry.get("error", {}).get("status") for entry in response.json()["predictions"]]
    assert statuses == [None, 415, 413, None]
    assert answer.error is None
    assert answer.model_version == "1"
    assert tally.counts[(metrics.REFUSALS.name, "415")] == tally.counts[(metrics.REFUSALS.name, "413")] == 1
    assert sum(n for key, n in tally.counts.items() if key[0] == metrics.JUDGEMENTS.name) == 2


async def test_a_form_without_a_good_file_has_the_status_of_the_first(client: httpx.AsyncClient) -> None:
    files = [("f", ("b.webp", by_pillow("WEBP"))), ("f", ("a.txt", b"text"))]
    response = await client.post("/predict", files=files)
    assert response.status_code == 415
    assert response.json()["error"]["status"] == 415
    assert [entry["error"]["status"] for entry in response.json()["predictions"]] == [415, 400]


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"files": {"note": (None, "text")}}, 400, "holds no file"),
        ({"files": [("f", ("a.png", b"x"))] * 5}, 400, "Maximum number of files is 4"),
        ({"files": [("f", ("a.png", b"\0" * 150_000))] * 4}, 413, "500000 bytes"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=y"}}, 400, "multipart"),
        ({"content": b"x", "headers": {"content-type": "multipart/mixed; boundary=y"}}, 415, "multipart/mixed"),
    ],
    ids=["no-file", "many-files", "many-bytes", "no-boundary", "broken", "mixed"],
)
async def test_a_form_that_cannot_be_read_is_refused(
    client: httpx.AsyncClient, request_: dict[str, Any], status: int, words: str
) -> None:
    assert_error(await client.post("/predict", **request_), status, words)


async def test_without_a_model_the_replica_lives_and_says_why_it_is_not_ready(
    empty: httpx.AsyncClient, slot: ModelSlot, model: ServedModel
) -> None:
    assert (await empty.get("/v2/health/live")).json() == {"live": True}
    for method, path in (("GET", "/v2/health/ready"), ("POST", "/predict")):
        response = await empty.request(method, path)
        assert_error(response, 503, "no model is wanted")
        assert int(response.headers["retry-after"]) > 0
    assert_error(await empty.get("/v2/models/screw"), 404, "known: none")

    missing = model.model_copy(update={"uri": "file:///nowhere"})
    await slot.want(missing)
    assert_error(await empty.get("/v2/health/ready"), 503, "file:///nowhere")
    assert_error(await empty.get("/v2/models/screw/ready"), 503, "file:///nowhere")
    assert_error(await empty.post("/predict", content=encoded()), 503, "file:///nowhere")
    body = (await empty.get("/v2/models/screw")).json()
    assert (body["version"], body["sha256"], body["versions"]) == (None, None, [])
    assert body["wanted"] == {"version": "1", "sha256": model.sha256}
    assert "file:///nowhere" in body["load_error"]
    assert body["replica"] == "a-replica"


async def test_the_open_inference_protocol_describes_the_model(client: httpx.AsyncClient, model: ServedModel) -> None:
    assert (await client.get("/v2/health/ready")).json() == {"ready": True, "name": "screw", "version": "1"}
    assert (await client.get("/v2/models/screw/ready")).status_code == 200
    assert (await client.get("/v2")).json()["name"] == "mergeline"
    response = await client.get("/v2/models/screw")
    answer = ModelMetadata.parse(response.json(), "the answer")
    assert (answer.name, answer.platform, answer.versions) == ("screw", "openvino", ("1",))
    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in (*answer.inputs, *answer.outputs)] == [
        ("image", "BYTES", (-1,)),
        ("label", "BYTES", (-1,)),
        ("score", "FP32", (-1,)),
        ("probabilities", "FP32", (-1, 2)),
        ("part_found", "BOOL", (-1,)),
        ("error", "BYTES", (-1,)),
        ("heatmap", "BYTES", (-1,)),
        ("evidence_point", "FP32", (-1, 2)),
    ]
    assert (answer.version, answer.sha256, answer.replica) == ("1", model.sha256, "a-replica")
    assert (answer.classes, answer.threshold) == (("good", "defective"), THRESHOLD)
    assert response.json()["wanted"] == {"version": "1", "sha256": model.sha256}
    assert response.json()["load_error"] is None
    assert_error(await client.get("/v2/models/bolt"), 404, "known: screw")
    assert_error(await client.get("/v2/models/bolt/ready"), 404, "known: screw")


async def test_versions_can_be_named(client: httpx.AsyncClient, slot: ModelSlot, model: ServedModel) -> None:
    unversioned = (await client.get("/v2/models/screw")).json()
    assert (await client.get("/v2/models/screw/versions/1")).json() == unversioned
    assert (await client.get("/v2/models/screw/versions/1/ready")).status_code == 200
    for path in ("", "/ready"):
        assert_error(await client.get(f"/v2/models/screw/versions/2{path}"), 404, "known: 1")
    await slot.want(model.model_copy(update={"version": "2", "sha256": "a" * 64, "uri": "file:///nowhere"}))
    assert (await client.get("/v2/models/screw/versions/1")).json()["wanted"]["version"] == "2"
    for path in ("", "/ready"):
        assert_error(await client.get(f"/v2/models/screw/versions/2{path}"), 503, "file:///nowhere")
    assert_error(await client.get("/v2/models/screw/versions/3"), 404, "known: 1, 2")


async def test_unknown_paths_and_methods_are_refused_in_the_same_shape(client: httpx.AsyncClient) -> None:
    assert_error(await client.get("/nowhere"), 404, "/nowhere")
    response = await client.get("/predict")
    assert_error(response, 405, "GET is not possible")
    assert response.headers["allow"] == "POST"


async def test_a_sane_request_id_is_kept_and_another_one_replaced(client: httpx.AsyncClient) -> None:
    response = await client.post("/predict", content=encoded(), headers={"x-request-id": "line-7/part:42"})
    assert response.json()["id"] == "line-7/part:42"
    for insane in ("x" * 200, "a b", "<script>"):
        response = await client.post("/predict", content=b"", headers={"x-request-id": insane})
        assert insane not in response.json()["id"]
    first, second = [await client.post("/predict", content=encoded()) for _ in range(2)]
    assert first.json()["id"] == first.headers["x-request-id"]
    assert first.json()["id"] != second.json()["id"]


async def test_an_error_of_ours_is_a_500_that_tells_the_log_and_not_the_client(
    client: httpx.AsyncClient, slot: ModelSlot, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    assert slot.loaded
    monkeypatch.setattr(slot.loaded.predictor, "judge", fail)
    logger = logging.getLogger("ray.serve")
    monkeypatch.setattr(logger, "handlers", [caplog.handler])  # once Ray is imported, it does not pass lines on
    response = await client.post("/predict", content=encoded(), headers={"x-request-id": "find-me"})
    assert_error(response, 500, "log")
    assert "secret" not in response.text
    assert "find-me" in caplog.text
    assert "ZeroDivisionError: secret" in caplog.text


async def test_the_event_loop_answers_while_photographs_are_judged(
    client: httpx.AsyncClient, slot: ModelSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert slot.loaded
    predictor = slot.loaded.predictor
    judge, began = predictor.judge, asyncio.Event()
    loop = asyncio.get_running_loop()
    healthy = False

    def wait_for_health(images: list[bytes], *, max_pixels: int, trace: Trace) -> object:
        loop.call_soon_threadsafe(began.set)
        while not healthy:
            time.sleep(0.005)
        return judge(images, max_pixels=max_pixels, trace=trace)

    monkeypatch.setattr(predictor, "judge", wait_for_health)
    judging = asyncio.create_task(client.post("/predict", content=encoded()))
    await began.wait()
    assert (await client.get("/v2/health/live")).status_code == 200
    healthy = True
    assert (await judging).status_code == 200


@pytest.mark.parametrize("path", ["/predict", "/predict?explain=heatmap", "/v2/models/screw/infer"])
async def test_a_compressed_request_is_refused(client: httpx.AsyncClient, path: str) -> None:
    response = await client.post(path, content=gzip.compress(encoded()), headers={"Content-Encoding": "gzip"})
    assert response.status_code == 415
    assert "the content encoding gzip is not accepted" in response.text


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
async def test_a_request_that_says_that_it_is_as_it_is(client: httpx.AsyncClient, encoding: str) -> None:
    response = await client.post("/predict", content=encoded(), headers={"Content-Encoding": encoding})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("cut", [2, 8, 60, 400])
async def test_a_form_that_is_cut_off_is_refused_and_not_judged_in_part(client: httpx.AsyncClient, cut: int) -> None:
    files = [("files", (f"{number}.png", encoded())) for number in range(3)]
    form = httpx.Request("POST", "http://replica/predict", files=files)
    whole = form.read()
    headers = {"Content-Type": form.headers["content-type"]}
    answer = await client.post("/predict", content=whole[: -len(b"\r\n")], headers=headers)
    assert len(answer.json()["predictions"]) == 3, "a line's end after the last boundary is not asked for"
    answer = await client.post("/predict", content=whole + b"an epilogue " * 300, headers=headers)
    assert len(answer.json()["predictions"]) == 3, "RFC 2046 lets it have one"
    response = await client.post("/predict", content=whole[: -len(b"\r\n") - cut], headers=headers)
    assert response.status_code == 400
    assert "the form is cut off" in response.json()["error"]["reason"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/json", "application/json"),
        ("image/png;q=0.5, Application/JSON;q=0.9", "application/json"),
        ("application/json;q=0", "image/png"),
        ("application/json; q=0.000, */*", "image/png"),
        ("application/jsonlines", "image/png"),
        ("*/*", "image/png"),
    ],
)
async def test_a_reason_is_json_for_who_takes_json(client: httpx.AsyncClient, accept: str, kind: str) -> None:
    response = await client.post("/predict?explain=heatmap", content=encoded(), headers={"Accept": accept})
    assert response.headers["content-type"] == kind


async def test_the_api_description_knows_bodies_and_errors(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    predict = document["paths"]["/predict"]["post"]
    assert set(predict["requestBody"]["content"]) >= {"multipart/form-data", "application/octet-stream"}
    assert set(predict["responses"]) == {"200", "408", "4XX", "503"}
    assert {"ImageAnswer", "FormAnswer", "ErrorAnswer", "ModelMetadata"} <= set(document["components"]["schemas"])
    assert "422" not in str(document["paths"]["/v2/models/{name}"])


# --- reasons ----------------------------------------------------------------------------------------------------------


async def test_a_heatmap_is_a_picture_with_the_judgement_in_its_headers(
    client: httpx.AsyncClient, tally: Tally
) -> None:
    plain = ImageAnswer.parse((await client.post("/predict", content=encoded())).json(), "the answer")
    response = await client.post("/predict?explain=heatmap", content=encoded())
    assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
    overlay = cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert overlay is not None
    assert overlay.shape == (120, 160, 3)
    assert response.headers["x-label"] == plain.label
    assert float(response.headers["x-score"]) == pytest.approx(plain.score, abs=1e-6)
    x, y = (float(part) for part in response.headers["x-evidence-point"].split(","))
    assert 0 <= x < 160
    assert 50 <= y < 70  # the tiny bundle calls dark what is not good: the bar
    assert tally.counts["mergeline_judgements", "1", plain.label] == 2  # a camera may ask for nothing else


async def test_photographs_that_do_not_count_are_judged_and_not_counted(
    client: httpx.AsyncClient, tally: Tally
) -> None:
    body = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(encoded())]}]}
    ways: list[tuple[str, dict[str, Any]]] = [
        ("/predict", {"content": encoded()}),
        ("/predict?explain=heatmap", {"content": encoded()}),
        ("/predict", {"files": {"a": ("a.png", encoded())}}),
        ("/v2/models/screw/infer", {"content": to_json(body)}),
    ]
    for path, content in ways:
        assert (await client.post(path, headers={"X-Count": "false"}, **content)).status_code == 200
    assert (tally.of(metrics.JUDGEMENTS), metrics.SCORES.name in tally.observed) == ({}, False)
    assert tally.of(metrics.REQUESTS) == {("answered", "1"): len(ways)}
    assert tally.observed[metrics.REQUEST_PHOTOGRAPHS.name] == [1] * len(ways)  # the network's load all the same
    for path, content in ways:
        assert (await client.post(path, headers={"X-Count": "true"}, **content)).status_code == 200
    assert sum(tally.of(metrics.JUDGEMENTS).values()) == len(ways)
    for path, content in ways:
        assert_error(await client.post(path, headers={"X-Count": "0"}, **content), 400, "X-Count is true or false")


async def test_who_asks_for_json_gets_the_picture_inside(client: httpx.AsyncClient) -> None:
    headers = {"Accept": "application/json"}
    response = await client.post("/predict?explain=heatmap", content=encoded(), headers=headers)
    answer = ExplainedAnswer.parse(response.json(), "the answer")
    assert base64.b64decode(answer.explanation.heatmap).startswith(b"\x89PNG")
    assert 50 <= answer.explanation.point.y < 70


async def test_what_cannot_be_explained_says_why(client: httpx.AsyncClient) -> None:
    assert_error(await client.post("/predict?explain=lime", content=encoded()), 400, "ask for explain=heatmap")
    assert_error(await client.post("/predict?explain=heatmap", content=b"text"), 400, "not an image")
    form = {"files": ("a.png", encoded())}
    assert_error(await client.post("/predict?explain=heatmap", files=form), 400, "send them one by one")


async def test_requests_to_judge_are_measured_by_outcome_and_stage(
    client: httpx.AsyncClient, empty: httpx.AsyncClient, slot: ModelSlot, tally: Tally
) -> None:
    await client.post("/predict", content=encoded())
    await client.post("/predict", content=b"no image")
    await client.get("/v2")  # asks for no judgement
    await slot.want(None)
    await empty.post("/predict", content=encoded())
    outcomes = {("answered", "1"): 1, ("refused", "1"): 1, ("unavailable", "none"): 1}
    assert tally.of(metrics.REQUESTS) == outcomes
    (seconds,) = tally.observed[metrics.REQUEST_SECONDS.name]
    stages = tally.observed[metrics.REQUEST_STAGE_SECONDS.name]
    assert len(stages) == len(RequestStage)
    assert all(spent > 0 for spent in stages)
    assert sum(stages) <= seconds
    assert tally.observed[metrics.REQUEST_PHOTOGRAPHS.name] == [1]
    assert len(tally.observed[metrics.SCORES.name]) == 1
