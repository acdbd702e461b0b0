"""The Open Inference Protocol's infer over HTTP, in this process: both forms of tensors, and what is refused."""

import asyncio
import base64
import contextlib
import json
import struct
import time
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitops.contracts.serving import ServedModel
from monitoring import metrics
from serve import inference
from serve.inference import InferenceAnswer
from serve.preprocess import ImageError
from serve.protocol import ImageAnswer, InferenceError, RequestError
from serve.slot import ModelSlot
from tests.serve.conftest import LIMITS, Tally, encoded

pytestmark = pytest.mark.anyio

INFER = "/v2/models/screw/infer"
HEADER = inference.LENGTH_HEADER.lower()
DARK = cv2.imencode(".png", np.full((64, 64), 5, np.uint8))[1].tobytes()


def image_input(*images: bytes | str, **changes: Any) -> dict[str, Any]:
    """As JSON has it: in base64, unless it is text already."""
    data = [image if isinstance(image, str) else base64.b64encode(image).decode() for image in images]
    return {"name": "image", "datatype": "BYTES", "shape": [len(images)], "data": data} | changes


def lengths_and(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def binary_body(behind: bytes, count: int, **request: Any) -> tuple[bytes, dict[str, str]]:
    """A body with its tensor in binary form, and its headers."""
    parameters = {"binary_data_size": len(behind)}
    tensor = {"name": "image", "datatype": "BYTES", "shape": [count], "parameters": parameters}
    text = json.dumps({"inputs": [tensor]} | request).encode()
    return text + behind, {HEADER: str(len(text))}


def outputs_of(response: httpx.Response) -> dict[str, Any]:
    """Values of an answer by the outputs' names, whichever their form."""
    assert response.status_code == 200, response.text
    length = int(response.headers.get(HEADER, len(response.content)))
    answer = InferenceAnswer.parse(json.loads(response.content[:length]), "the answer")
    found: dict[str, Any] = {}
    for output in answer.outputs:
        if output.data is not None:
            found[output.name] = list(output.data)
            continue
        assert output.parameters
        size = output.parameters["binary_data_size"]
        behind, length = response.content[length : length + size], length + size
        if output.datatype == "BYTES":
            found[output.name] = elements_in(behind)
        else:
            found[output.name] = np.frombuffer(behind, {"FP32": "<f4", "BOOL": "?"}[output.datatype]).tolist()
    assert length == len(response.content)
    return found


def elements_in(behind: bytes) -> list[bytes]:
    found = []
    while behind:
        (length,) = struct.unpack_from("<I", behind)
        found.append(behind[4 : 4 + length])
        behind = behind[4 + length :]
    return found


def assert_refused(response: httpx.Response, status: int, words: str) -> None:
    assert response.status_code == status, response.text
    error = InferenceError.parse(response.json(), "the answer")
    assert words in error.error
    assert len(error.error) < 1000
    assert error.id


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_a_photograph_is_judged_as_predict_does(
    client: httpx.AsyncClient, model: ServedModel, tally: Tally
) -> None:
    plain = ImageAnswer.parse((await client.post("/predict", content=encoded())).json(), "the answer")
    response = await client.post(INFER, json={"id": "part-42", "inputs": [image_input(encoded())]})
    answer = response.json()
    assert list(answer) == ["model_name", "model_version", "id", "parameters", "outputs"]
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("screw", "1", "part-42")
    assert answer["parameters"] == {"model_digest": f"sha256:{model.sha256}"}
    assert response.headers["content-type"] == "application/json"
    assert (response.headers["x-model-version"], HEADER in response.headers) == ("1", False)
    assert outputs_of(response) == {
        "label": [plain.label],
        "score": [plain.score],
        "probabilities": list(plain.probabilities.values()),
        "part_found": [plain.part_found],
        "error": [""],
    }
    assert [output["shape"] for output in answer["outputs"]] == [[1], [1], [1, 2], [1], [1]]
    assert tally.counts["mergeline_judgements", "1", plain.label] == 2
    assert len(tally.observed[metrics.REQUEST_SECONDS.name]) == 2


@pytest.mark.parametrize("binary", [False, True])
async def test_each_image_is_judged_on_its_own_in_its_order(
    client: httpx.AsyncClient, tally: Tally, binary: bool
) -> None:
    images = [encoded(), b"\xff\xfe no image", DARK, b"\0" * (LIMITS.max_bytes + 1)]
    names = ["error", "label", "score", "probabilities", "part_found"]
    request: dict[str, Any] = {"outputs": [{"name": name, "parameters": {"binary_data": binary}} for name in names]}
    if binary:
        body, headers = binary_body(lengths_and(*images), 4, **request)
        response = await client.post(INFER, content=body, headers=headers)
        assert response.headers["content-type"] == "application/octet-stream"
    else:
        response = await client.post(INFER, json={"inputs": [image_input(*images)]} | request)
    found = outputs_of(response)
    assert list(found) == names
    text = {name: [v.decode() if binary else v for v in found[name]] for name in ("label", "error")}
    assert text["label"] == ["good", "", "defective", ""]
    assert [error.partition(":")[0] for error in text["error"]] == ["", "400", "", "413"]
    assert found["score"][0] < 0.5 < found["score"][2]
    assert (found["score"][1], found["score"][3]) == (-1, -1)
    assert found["probabilities"][2:4] == found["probabilities"][6:] == [-1, -1]
    assert found["probabilities"][0] + found["probabilities"][1] == pytest.approx(1, abs=1e-5)
    assert found["part_found"] == [True, False, False, False]
    assert tally.counts == {
        (metrics.REQUESTS.name, "answered", "1"): 1,
        (metrics.JUDGEMENTS.name, "1", "good"): 1,
        (metrics.JUDGEMENTS.name, "1", "defective"): 1,
        (metrics.REFUSALS.name, "400"): 1,
        (metrics.REFUSALS.name, "413"): 1,
    }


@pytest.mark.parametrize("binary", [False, True])
async def test_one_image_is_explained(client: httpx.AsyncClient, binary: bool) -> None:
    names = ["heatmap", "evidence_point", "label"]
    outputs = [{"name": name, "parameters": {"binary_data": binary}} for name in names]
    found = outputs_of(await client.post(INFER, json={"inputs": [image_input(encoded())], "outputs": outputs}))
    assert list(found) == names
    picture = found["heatmap"][0] if binary else base64.b64decode(found["heatmap"][0])
    overlay = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)
    assert overlay is not None
    assert overlay.shape == (120, 160, 3)
    assert 50 <= found["evidence_point"][1] < 70  # the tiny bundle calls dark what is not good: the bar


@pytest.mark.parametrize("name", ["heatmap", "evidence_point"])
async def test_several_images_are_not_explained_at_once(client: httpx.AsyncClient, name: str) -> None:
    request = {"inputs": [image_input(encoded(), DARK)], "outputs": [{"name": name}]}
    assert_refused(await client.post(INFER, json=request), 400, "of one image at a time; the request has 2 images")


async def test_the_evidence_is_looked_for_only_where_an_output_shows_it(
    client: httpx.AsyncClient, slot: ModelSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        pytest.fail("nobody asked for the evidence")

    assert slot.loaded
    monkeypatch.setattr(slot.loaded.predictor, "explain", fail)
    assert (await client.post(INFER, json={"inputs": [image_input(encoded())]})).status_code == 200


async def test_where_no_image_can_be_judged_the_first_one_says_why(client: httpx.AsyncClient, tally: Tally) -> None:
    large = b"\0" * (LIMITS.max_bytes + 1)
    assert_refused(await client.post(INFER, json={"inputs": [image_input(large, b"text")]}), 413, "larger than 200000")
    assert tally.counts[metrics.REFUSALS.name, "413"] == tally.counts[metrics.REFUSALS.name, "400"] == 1


async def test_the_form_of_each_output_can_be_chosen(client: httpx.AsyncClient) -> None:
    body, headers = binary_body(
        lengths_and(encoded()),
        1,
        parameters={"binary_data_output": True},
        outputs=[{"name": "score", "parameters": {"binary_data": False}}, {"name": "label"}],
    )
    response = await client.post(INFER, content=body, headers=headers)
    found = outputs_of(response)
    assert found["label"] == [b"good"]
    head = json.loads(response.content[: int(response.headers[HEADER])])
    assert [("data" in output) for output in head["outputs"]] == [True, False]


async def test_an_id_is_made_where_none_is_given_and_unknown_keys_do_no_harm(client: httpx.AsyncClient) -> None:
    request = {"inputs": [image_input(encoded(), parameters={"content_type": "base64"})], "model_name": "screw"}
    response = await client.post(INFER, json=request, headers={"x-request-id": "line-7"})
    assert response.json()["id"] == "line-7"


async def test_a_version_can_be_named(client: httpx.AsyncClient) -> None:
    request = {"inputs": [image_input(encoded())]}
    assert (await client.post("/v2/models/screw/versions/1/infer", json=request)).status_code == 200
    assert_refused(await client.post("/v2/models/screw/versions/2/infer", json=request), 404, "known: 1")
    assert_refused(await client.post("/v2/models/bolt/infer", json=request), 404, "known: screw")


async def test_without_a_model_the_body_is_not_read(
    empty: httpx.AsyncClient, slot: ModelSlot, model: ServedModel
) -> None:
    await slot.want(model.model_copy(update={"uri": "file:///nowhere"}))
    response = await empty.post(INFER, content=b"not even JSON")
    assert_refused(response, 503, "file:///nowhere")
    assert int(response.headers["retry-after"]) > 0


async def test_requests_are_read_and_judged_beside_the_event_loop(
    client: httpx.AsyncClient, slot: ModelSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, began = asyncio.get_running_loop(), asyncio.Event()
    healthy = False
    read = inference.read

    def wait_for_health(*arguments: Any, **limits: Any) -> object:
        loop.call_soon_threadsafe(began.set)
        while not healthy:
            time.sleep(0.005)
        return read(*arguments, **limits)

    monkeypatch.setattr(inference, "read", wait_for_health)
    judging = asyncio.create_task(client.post(INFER, json={"inputs": [image_input(encoded())]}))
    await began.wait()
    assert (await client.get("/v2/health/live")).status_code == 200
    healthy = True
    assert (await judging).status_code == 200


# --- refusals ---------------------------------------------------------------------------------------------------------

IMAGE = image_input(b"x")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ([], "InferenceRequest"),
        ({}, "inputs: Field required"),
        ({"inputs": []}, "the request has none"),
        ({"inputs": [IMAGE] * 2}, "the request has image, image"),
        ({"inputs": [IMAGE] * 65}, "at most 64 items"),
        ({"inputs": [IMAGE | {"name": "picture"}]}, "takes one input, 'image'"),
        ({"inputs": [IMAGE | {"name": "x" * 300}]}, "at most 256"),
        ({"inputs": [{"name": "image"}]}, "datatype: Field required"),
        ({"inputs": [IMAGE | {"datatype": "UINT8", "data": [1]}]}, "the request says UINT8"),
        ({"inputs": [IMAGE | {"shape": []}]}, "the request says []"),
        ({"inputs": [IMAGE | {"shape": [0], "data": []}]}, "the request says [0]"),
        ({"inputs": [IMAGE | {"shape": [-1]}]}, "the request says [-1]"),
        ({"inputs": [IMAGE | {"shape": [1, 1]}]}, "the request says [1, 1]"),
        ({"inputs": [IMAGE | {"shape": [1] * 65}]}, "at most 64"),
        ({"inputs": [IMAGE | {"shape": ["1"]}]}, "shape.0: Input should be a valid integer"),
        ({"inputs": [IMAGE | {"shape": [True]}]}, "shape.0: Input should be a valid integer"),
        ({"inputs": [IMAGE | {"shape": [2]}]}, "the shape [2] and 1 elements"),
        ({"inputs": [IMAGE | {"shape": [5], "data": ["eA=="] * 5}]}, "at most 4 images"),
        ({"inputs": [IMAGE | {"shape": [10**18]}]}, "at most 4 images"),
        ({"inputs": [IMAGE | {"data": [7]}]}, "is no text"),
        ({"inputs": [IMAGE | {"data": [["eA=="]]}]}, "is no text"),
        ({"inputs": [IMAGE | {"data": None}]}, "needs `data`"),
        ({"inputs": [IMAGE | {"data": ["%"]}]}, "not base64"),
        ({"inputs": [IMAGE | {"data": ["größer"]}]}, "not base64"),
        ({"inputs": [IMAGE | {"parameters": {"binary_data_size": 1}}]}, "send one of them"),
        ({"inputs": [IMAGE | {"data": None, "parameters": {"binary_data_size": 1}}]}, "where the JSON ends"),
        ({"inputs": [IMAGE | {"parameters": {"shared_memory_region": "x"}}]}, "shared memory"),
        ({"inputs": [IMAGE], "outputs": [{"name": "mood"}]}, "there is no output 'mood'; known: label, score"),
        ({"inputs": [IMAGE], "outputs": [{"name": "score"}] * 2}, "'score' is asked for twice"),
        ({"inputs": [IMAGE], "outputs": [{"name": "score", "parameters": {"classification": 1}}]}, "classification"),
        ({"inputs": [IMAGE], "outputs": [{"name": "score", "parameters": {"binary_data": 1}}]}, "true or false"),
        ({"inputs": [IMAGE], "parameters": {"binary_data_output": "yes"}}, "true or false"),
        ({"inputs": [IMAGE], "id": 7}, "id: Input should be a valid string"),
        ({"inputs": [IMAGE], "id": "x" * 257}, "at most 256"),
    ],
)
async def test_what_cannot_be_understood_is_refused_with_a_reason(
    client: httpx.AsyncClient, tally: Tally, request_: Any, words: str
) -> None:
    assert_refused(await client.post(INFER, json=request_), 400, words)
    assert tally.of(metrics.REFUSALS) == {("400",): 1}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\x89PNG",
        b'{"inputs": NaN}',
        b'{"id": "\\ud800"}',
        b"[" * 5_000,
        b'{"inputs": [{"shape": [' + b"9" * 10_000 + b"]}]}",
    ],
    ids=["empty", "cut-off", "binary", "nan", "surrogate", "deep", "long-number"],
)
async def test_what_is_no_json_is_refused(client: httpx.AsyncClient, text: bytes) -> None:
    assert_refused(await client.post(INFER, content=text), 400, "the request is not")


@pytest.mark.parametrize("text", [b"[]", b"{}", b"0"])
async def test_json_of_many_parts_is_refused_before_it_is_read(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    def fail(*_: object, **__: object) -> None:
        pytest.fail("a tree was built of it")

    monkeypatch.setattr(inference, "from_json", fail)
    body = b'{"inputs": [{"data": [' + b",".join([text] * 20_000) + b"]}]}"
    parts = 20_003 + (0 if text == b"0" else 20_000)
    assert_refused(await client.post(INFER, content=body), 400, f"has {parts} commas and opening brackets; at most")


@pytest.mark.parametrize("length", ["-1", "x", "", "1.5", "²", "9" * 5000, "1000000"])
async def test_a_length_of_the_json_that_cannot_be_is_refused(client: httpx.AsyncClient, length: str) -> None:
    body, _ = binary_body(lengths_and(encoded()), 1)
    response = await client.post(INFER, content=body, headers={HEADER.encode(): length.encode()})
    assert_refused(response, 400, "Inference-Header-Content-Length")


@pytest.mark.parametrize(
    ("behind", "count", "words"),
    [
        (b"", 1, "holds 0 elements"),
        (b"\x01", 1, "is cut off"),
        (b"\0\0\0", 1, "is cut off"),
        (lengths_and(b"text")[:-1], 1, "is cut off"),
        (b"\xff\xff\xff\xfftext", 1, "is cut off"),
        (lengths_and(b"text") + b"\0", 1, "element 1 of the input 'image' is cut off"),
        (lengths_and(b"text"), 2, "the shape [2] and holds 1 elements"),
        (lengths_and(b"a", b"b", b"c"), 1, "the shape [1] and holds more elements"),
        (lengths_and(b""), 1, "the image is empty"),
    ],
)
async def test_a_binary_tensor_that_is_not_what_it_says_is_refused(
    client: httpx.AsyncClient, behind: bytes, count: int, words: str
) -> None:
    body, headers = binary_body(behind, count)
    assert_refused(await client.post(INFER, content=body, headers=headers), 400, words)


@pytest.mark.parametrize("size", [-1, 0, 10**12, 5.5, True, "20", [1] * 1000])
async def test_a_wrong_size_of_the_binary_tensor_is_refused(client: httpx.AsyncClient, size: object) -> None:
    parameters = {"binary_data_size": size}
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": parameters}
    text = json.dumps({"inputs": [tensor]}).encode()
    response = await client.post(INFER, content=text + lengths_and(b"x"), headers={HEADER: str(len(text))})
    assert_refused(response, 400, "binary_data_size is not 5")


async def test_bytes_behind_json_that_holds_the_data_are_refused(client: httpx.AsyncClient) -> None:
    text = json.dumps({"inputs": [image_input(encoded())]}).encode()
    assert_refused(await client.post(INFER, content=text + b"x", headers={HEADER: str(len(text))}), 400, "one of them")
    assert (await client.post(INFER, content=text, headers={HEADER: str(len(text))})).status_code == 200


async def test_a_request_that_is_too_large_or_compressed_is_refused(client: httpx.AsyncClient) -> None:
    assert_refused(await client.post(INFER, content=b" " * (LIMITS.max_request_bytes + 1)), 413, "500000 bytes")
    response = await client.post(INFER, content=b"", headers={"content-encoding": "gzip"})
    assert_refused(response, 415, "gzip is not accepted")


async def test_other_paths_of_the_protocol_also_have_their_errors_as_text(client: httpx.AsyncClient) -> None:
    assert_refused(await client.get("/v2/nowhere"), 404, "/v2/nowhere")
    assert_refused(await client.get(INFER), 405, "GET is not possible")
    assert "reason" in (await client.get("/v2x")).json()["error"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from([*IMAGE, "parameters"]), json_values), st.binary(max_size=40), st.booleans())
def test_whatever_is_sent_is_read_or_refused(changes: dict[str, Any], behind: bytes, announced: bool) -> None:
    text = json.dumps({"inputs": [IMAGE | changes]}).encode()
    length = str(len(text)) if announced else None
    with contextlib.suppress(RequestError):
        asked = inference.read(text + (behind if announced else b""), length, max_files=4, max_bytes=100)
        assert 1 <= len(asked.images) <= 4
        assert all(isinstance(image, bytes | ImageError) for image in asked.images)
