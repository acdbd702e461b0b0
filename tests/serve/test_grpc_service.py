"""The calls of the Open Inference Protocol's gRPC service in this process, and that its code is made of its .proto."""

import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias, cast

import grpc
import numpy as np
import pytest
from ray.serve.grpc_util import RayServegRPCContext

from gitops.contracts.serving import Canary, ServedModel
from monitoring import metrics
from serve.endpoints import Endpoints
from serve.grpc_service import InferenceService
from serve.open_inference_pb2 import (
    InferParameter,
    InferTensorContents,
    ModelInferRequest,
    ModelMetadataRequest,
    ModelReadyRequest,
    ServerLiveRequest,
    ServerMetadataRequest,
    ServerReadyRequest,
)
from serve.slot import ModelSlot
from serve.workers import Workers
from tests.bundles import make_bundle
from tests.serve.conftest import LIMITS, Tally, encoded
from tests.serve.site import shadow

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Using extra keyword arguments"),  # Ray's own models, when first imported
]

Input: TypeAlias = ModelInferRequest.InferInputTensor
Output: TypeAlias = ModelInferRequest.InferRequestedOutputTensor
ROOT = Path(__file__).parents[2]


class Context:
    """Where a call's status goes; Ray makes its own of a real call."""

    def __init__(self) -> None:
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self.client = "camera-1"
        self.count = "true"

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return [("application", "screw"), ("x-client-id", self.client), ("x-count", self.count)]

    def request_id(self) -> str:
        return "find-me"


@pytest.fixture
def context() -> Context:
    return Context()


@pytest.fixture
def empty_service(slot: ModelSlot, workers: Workers, tally: Tally) -> InferenceService:
    """Of a replica without a model."""
    from serve.app import Classifier

    service = Classifier.__new__(Classifier)  # without Ray, which its constructor asks who it is
    service._slot, service._endpoints = slot, Endpoints(slot, LIMITS, workers, tally, "a-replica", shadow(tally))
    return service


@pytest.fixture
async def service(empty_service: InferenceService, slot: ModelSlot, model: ServedModel) -> InferenceService:
    await slot.want(model)
    return empty_service


def as_ray_s(context: Context) -> RayServegRPCContext:
    return cast("RayServegRPCContext", context)


def image_input(*images: bytes, **changes: Any) -> Input:
    contents = InferTensorContents(bytes_contents=images)
    fields = {"name": "image", "datatype": "BYTES", "shape": [len(images)], "contents": contents}
    return Input(**(fields | changes))


def request(*inputs: Input, **changes: Any) -> ModelInferRequest:
    return ModelInferRequest(**({"model_name": "screw", "inputs": inputs} | changes))


async def test_the_service_describes_itself_and_the_model(
    service: InferenceService, slot: ModelSlot, model: ServedModel, context: Context
) -> None:
    assert (await service.ServerLive(ServerLiveRequest())).live
    assert (await service.ServerReady(ServerReadyRequest())).ready
    server = await service.ServerMetadata(ServerMetadataRequest())
    assert (server.name, list(server.extensions)) == ("mergeline", ["binary_tensor_data"])
    for version in ("", "1"):
        assert (await service.ModelReady(ModelReadyRequest(name="screw", version=version), as_ray_s(context))).ready
        request_ = ModelMetadataRequest(name="screw", version=version)
        answer = await service.ModelMetadata(request_, as_ray_s(context))
        assert (answer.name, list(answer.versions), answer.platform) == ("screw", ["1"], "openvino")
        assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in answer.inputs] == [
            ("image", "BYTES", [-1])
        ]
        assert ("probabilities", "FP32", [-1, 2]) in [(t.name, t.datatype, list(t.shape)) for t in answer.outputs]
    assert context.code is None
    await slot.want(model.model_copy(update={"version": "2", "sha256": "a" * 64, "uri": "file:///nowhere"}))
    wanted = await service.ModelReady(ModelReadyRequest(name="screw", version="2"), as_ray_s(context))
    assert (wanted.ready, context.code) == (False, None)
    unversioned = await service.ModelMetadata(ModelMetadataRequest(name="screw"), as_ray_s(context))
    assert (list(unversioned.versions), context.code) == (["1"], None)
    await service.ModelMetadata(ModelMetadataRequest(name="screw", version="2"), as_ray_s(context))
    assert (context.code, "file:///nowhere" in context.details) == (grpc.StatusCode.UNAVAILABLE, True)


async def test_a_canary_answers_its_share_of_the_clients_and_who_names_a_version_gets_it(
    service: InferenceService, slot: ModelSlot, model: ServedModel, context: Context, tmp_path: Path
) -> None:
    digest = make_bundle(tmp_path / "two", version_salt=1.0)
    candidate = ServedModel(name="screw", version="2", sha256=digest, uri=(tmp_path / "two").as_uri())
    await slot.want(model, Canary(percent=50, model=candidate))
    found: dict[str, set[str]] = {}
    for number in range(30):
        context.client = f"camera-{number % 15}"
        answer = await service.ModelInfer(request(image_input(encoded())), as_ray_s(context))
        found.setdefault(context.client, set()).add(answer.model_version)
        digests = {"1": model.sha256, "2": candidate.sha256}
        assert answer.parameters["model_digest"].string_param == f"sha256:{digests[answer.model_version]}"
    assert all(len(answered) == 1 for answered in found.values())
    assert set.union(*found.values()) == {"1", "2"}
    for version in ("1", "2"):
        asked = request(image_input(encoded()), model_version=version)
        assert (await service.ModelInfer(asked, as_ray_s(context))).model_version == version
        described = ModelMetadataRequest(name="screw", version=version)
        assert list((await service.ModelMetadata(described, as_ray_s(context))).versions) == ["1", "2"]
    assert context.code is None


async def test_each_image_is_judged_on_its_own_in_its_order(
    service: InferenceService, context: Context, tally: Tally
) -> None:
    images = [encoded(), b"no image", b"\0" * (LIMITS.max_bytes + 1)]
    answer = await service.ModelInfer(request(image_input(*images), id="part-42"), as_ray_s(context))
    assert (context.code, answer.model_name, answer.model_version, answer.id) == (None, "screw", "1", "part-42")
    assert answer.parameters["model_digest"].string_param.startswith("sha256:")
    found = {output.name: output for output in answer.outputs}
    assert list(found) == ["label", "score", "probabilities", "part_found", "error"]
    assert list(found["probabilities"].shape) == [3, 2]
    assert list(found["label"].contents.bytes_contents) == [b"good", b"", b""]
    assert 0 < found["score"].contents.fp32_contents[0] < 0.5
    assert list(found["score"].contents.fp32_contents)[1:] == [-1, -1]
    assert list(found["part_found"].contents.bool_contents) == [True, False, False]
    assert [error[:4] for error in found["error"].contents.bytes_contents] == [b"", b"400:", b"413:"]
    assert not answer.raw_output_contents
    assert tally.counts[metrics.REFUSALS.name, "400"] == tally.counts[metrics.REFUSALS.name, "413"] == 1
    assert tally.counts[metrics.JUDGEMENTS.name, "1", "good"] == 1


async def test_what_does_not_count_is_judged_and_not_counted(
    service: InferenceService, context: Context, tally: Tally
) -> None:
    context.count = "false"
    asked = request(image_input(encoded()), outputs=[Output(name="heatmap"), Output(name="score")])
    assert len((await service.ModelInfer(asked, as_ray_s(context))).outputs) == 2
    assert (tally.of(metrics.REQUESTS), tally.of(metrics.JUDGEMENTS)) == ({("answered", "1"): 1}, {})
    context.count = "no"
    await service.ModelInfer(request(image_input(encoded())), as_ray_s(context))
    assert (context.code, context.details) == (grpc.StatusCode.INVALID_ARGUMENT, "X-Count is true or false, not 'no'")


async def test_raw_tensors_are_answered_with_raw_tensors(service: InferenceService, context: Context) -> None:
    raw = len(encoded()).to_bytes(4, "little") + encoded()
    tensor = Input(name="image", datatype="BYTES", shape=[1])
    wanted = [Output(name="evidence_point"), Output(name="heatmap")]
    answer = await service.ModelInfer(request(tensor, raw_input_contents=[raw], outputs=wanted), as_ray_s(context))
    assert [output.name for output in answer.outputs] == ["evidence_point", "heatmap"]
    assert not any(output.HasField("contents") for output in answer.outputs)
    point, picture = answer.raw_output_contents
    assert 50 <= np.frombuffer(point, "<f4")[1] < 70
    assert picture[4:8] == b"\x89PNG"


RAW = {"contents": None}
MIXED = InferTensorContents(bytes_contents=[b"x"], fp32_contents=[1.0])
SHARED = {"shared_memory_region": InferParameter(string_param="x")}


@pytest.mark.parametrize(
    ("request_", "code", "status", "words"),
    [
        (request(model_name="bolt"), grpc.StatusCode.NOT_FOUND, 404, "known: screw"),
        (request(model_version="7"), grpc.StatusCode.NOT_FOUND, 404, "known: 1"),
        (request(), None, 400, "the request has none"),
        (request(image_input(b"x", name="picture")), None, 400, "the request has picture"),
        (request(image_input(b"x", datatype="FP32")), None, 400, "the request says FP32"),
        (request(image_input(b"x", shape=[1, 1])), None, 400, "the request says [1, 1]"),
        (request(image_input(b"x", shape=[-5])), None, 400, "the request says [-5]"),
        (request(image_input(b"x", shape=[2])), None, 400, "the shape [2] and 1 elements"),
        (request(image_input(b"x", **RAW)), None, 400, "the shape [1] and 0 elements"),
        (request(image_input(b"x", contents=MIXED)), None, 400, "it has fp32_contents, bytes_contents"),
        (request(image_input(b"x", **RAW), raw_input_contents=[b"\x09\0\0\0x"]), None, 400, "cut off"),
        (request(image_input(b"x"), raw_input_contents=[b"\x01\0\0\0x"]), None, 400, "is sent once"),
        (request(image_input(b"x", **RAW), raw_input_contents=[b"", b""]), None, 400, "is sent once"),
        (request(image_input(b"x"), outputs=[Output(name="mood")]), None, 400, "no output 'mood'"),
        (request(image_input(b"x", parameters=SHARED)), None, 400, "shared memory"),
        (request(image_input(*[b"x"] * 5)), None, 400, "at most 4 images"),
        (request(*[image_input(b"x")] * 65), None, 400, "at most 64 inputs"),
        (request(image_input(b"x"), outputs=[Output(name="score")] * 65), None, 400, "at most 64 inputs"),
        (request(image_input(b"x", name="x" * 257)), None, 400, "at most 256 characters"),
        (request(image_input(b"x", datatype="x" * 257)), None, 400, "at most 256 characters"),
        (request(image_input(b"x"), id="x" * 257), None, 400, "at most 256 characters"),
        (request(image_input(b"x"), outputs=[Output(name="x" * 257)]), None, 400, "at most 256 characters"),
        (request(image_input(b"x", shape=[1] * 65)), None, 400, "at most 64 dimensions"),
        (request(*[image_input(b"x", name="y" * 256)] * 64), None, 400, "the request has yyy"),
        (request(image_input(b"text")), None, 400, "not an image"),
        (request(image_input(b"\0" * 500_000)), None, 413, "500000 bytes"),
    ],
)
async def test_what_cannot_be_answered_has_a_status_and_a_reason(
    service: InferenceService,
    context: Context,
    tally: Tally,
    request_: ModelInferRequest,
    code: grpc.StatusCode | None,
    status: int,
    words: str,
) -> None:
    answer = await service.ModelInfer(request_, as_ray_s(context))
    assert not answer.outputs
    assert context.code == (code or grpc.StatusCode.INVALID_ARGUMENT)
    assert words in context.details
    assert len(context.details) <= 1000
    assert tally.of(metrics.REFUSALS) == {(str(status),): 1}


async def test_without_a_model_the_calls_say_so(
    empty_service: InferenceService, slot: ModelSlot, model: ServedModel, context: Context
) -> None:
    assert not (await empty_service.ServerReady(ServerReadyRequest())).ready
    await empty_service.ModelMetadata(ModelMetadataRequest(name="screw"), as_ray_s(context))
    assert context.code == grpc.StatusCode.NOT_FOUND
    await slot.want(model.model_copy(update={"uri": "file:///nowhere"}))
    await empty_service.ModelInfer(request(image_input(encoded())), as_ray_s(context))
    assert context.code == grpc.StatusCode.UNAVAILABLE
    assert "file:///nowhere" in context.details


async def test_an_error_of_ours_tells_the_log_and_not_the_client(
    service: InferenceService,
    slot: ModelSlot,
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    assert slot.loaded
    monkeypatch.setattr(slot.loaded.predictor, "judge", fail)
    monkeypatch.setattr(logging.getLogger("ray.serve"), "handlers", [caplog.handler])
    await service.ModelInfer(request(image_input(encoded())), as_ray_s(context))
    assert context.code == grpc.StatusCode.INTERNAL
    assert "secret" not in context.details
    assert "find-me" in caplog.text
    assert "ZeroDivisionError: secret" in caplog.text


def test_the_generated_code_is_made_of_the_proto(tmp_path: Path) -> None:
    recipe = (ROOT / "Makefile").read_text()
    made = re.search(r"--with (grpcio-tools==\S+) --with '([^']+)'", recipe)
    assert made
    (tmp_path / "serve").mkdir()
    shutil.copy(ROOT / "serve" / "open_inference.proto", tmp_path / "serve")
    uv = Path(sys.executable).with_name("uv")
    environment = ["run", "--quiet", "--isolated", "--no-project", "--python", sys.executable]
    packages = [part for package in made.groups() for part in ("--with", package)]
    folders = ["--proto_path=.", "--python_out=.", "--pyi_out=.", "--grpc_python_out=."]
    compiler = ["python", "-m", "grpc_tools.protoc", *folders, "serve/open_inference.proto"]
    command = [uv, *environment, *packages, *compiler]
    result = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=120)
    if result.returncode:
        pytest.skip(f"{made[1]} cannot be had here: {result.stderr.strip()[-300:]}")
    for name in ("open_inference_pb2.py", "open_inference_pb2.pyi", "open_inference_pb2_grpc.py"):
        assert (tmp_path / "serve" / name).read_text() == (ROOT / "serve" / name).read_text(), "run `make proto`"
