"""The Open Inference Protocol on a real Ray Serve: its gRPC ingress, and stock clients as their users have them."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from gitops.contracts.serving import Canary, ServedModel
from gitops.serve_api import ServeApi
from ray_jobs.cluster import free_port
from serve.open_inference_pb2 import (
    InferTensorContents,
    ModelInferRequest,
    ModelReadyRequest,
    ServerLiveRequest,
    ServerReadyRequest,
)
from serve.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.bundles import make_bundle
from tests.conftest import RayCluster
from tests.serve.conftest import APPLICATION, DEADLINE_SECONDS, Service, encoded
from tests.serve.stock_clients import CLIENTS

# They want other versions of protobuf and pandas than Mergeline's, so they get an environment of their own.
PACKAGES = ("tritonclient[http,grpc]==2.73.0", "kserve==0.21.0")
BETWEEN_MODULES_SECONDS = 60


@pytest.fixture(scope="module")
def service(ray_cluster: RayCluster, model: ServedModel) -> Iterator[Service]:
    """A Serve of this module's own, because gRPC begins when Serve does."""
    end_serve(ray_cluster)
    service = Service(ServeApi(ray_cluster.dashboard_url, ray_cluster.token), free_port(0), grpc_port=free_port(0))
    service.put(model, num_replicas=1, ray_actor_options={"num_cpus": 0.5})
    service.wait(lambda answer: answer["version"] == "1")
    yield service
    end_serve(ray_cluster)


def end_serve(cluster: RayCluster) -> None:
    headers = {"Authorization": f"Bearer {cluster.token}"}
    url = f"{cluster.dashboard_url}/api/serve/applications/"
    httpx.delete(url, headers=headers, timeout=BETWEEN_MODULES_SECONDS).raise_for_status()


@pytest.fixture(scope="module")
def stub(service: Service) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        yield GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call] # generated


@pytest.fixture(scope="module")
def stock_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the clients."""
    uv, folder = Path(sys.executable).with_name("uv"), tmp_path_factory.mktemp("clients")
    python = folder / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder, "--clear"], check=True)
    command = [str(uv), "pip", "install", "--quiet", "--python", str(python), *PACKAGES]
    installed = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    if installed.returncode:
        pytest.skip(f"{' and '.join(PACKAGES)} cannot be installed here: {installed.stderr.strip()[-300:]}")
    return python


def request(image: bytes) -> ModelInferRequest:
    contents = InferTensorContents(bytes_contents=[image])
    tensor = ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1], contents=contents)
    return ModelInferRequest(model_name="screw", inputs=[tensor])


@pytest.mark.parametrize("client", CLIENTS)
def test_stock_clients_work_unchanged(service: Service, stock_python: Path, tmp_path: Path, client: str) -> None:
    (tmp_path / "part.png").write_bytes(encoded())
    addresses = [f"127.0.0.1:{service.port}", f"127.0.0.1:{service.grpc_port}"]
    script = Path(__file__).with_name("stock_clients.py")
    result = subprocess.run(
        [stock_python, script, client, *addresses, tmp_path / "part.png"],
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert result.returncode == 0, result.stderr


def test_an_error_s_status_and_reason_pass_the_ingress(stub: GRPCInferenceServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(request(b"no image"))
    assert (refused.value.code(), refused.value.details()[:20]) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "this is not an image",
    )
    with pytest.raises(grpc.RpcError) as unknown:
        stub.ModelReady(ModelReadyRequest(name="bolt"))
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_call_may_name_the_application_that_is_meant(stub: GRPCInferenceServiceStub) -> None:
    assert stub.ServerLive(ServerLiveRequest(), metadata=[("application", APPLICATION)]).live


def test_a_client_s_id_passes_the_ingress_so_that_a_canary_keeps_to_its_clients(
    stub: GRPCInferenceServiceStub, service: Service, model: ServedModel, tmp_path: Path
) -> None:
    digest = make_bundle(tmp_path / "two", version_salt=1.0)
    candidate = ServedModel(name="screw", version="2", sha256=digest, uri=(tmp_path / "two").as_uri())
    service.put(model, Canary(percent=50, model=candidate))
    service.wait(lambda answer: answer["trial"] is not None and answer["trial"]["loaded"])
    found: dict[str, set[str]] = {}
    for who in [f"camera-{number}" for number in range(12)] * 3:
        answer = stub.ModelInfer(request(encoded()), metadata=[("x-client-id", who)])
        found.setdefault(who, set()).add(answer.model_version)
    assert all(len(versions) == 1 for versions in found.values()), found
    assert set.union(*found.values()) == {"1", "2"}
    service.put(model)
    service.wait(lambda answer: answer["trial"] is None)


def test_without_a_model_the_service_is_alive_and_not_ready(stub: GRPCInferenceServiceStub, service: Service) -> None:
    service.put(None)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while stub.ServerReady(ServerReadyRequest()).ready:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert stub.ServerLive(ServerLiveRequest()).live
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(request(encoded()))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
