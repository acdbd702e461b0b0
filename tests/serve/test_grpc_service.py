"""The Open Inference Protocol on a real Ray Serve: its gRPC ingress, and stock clients as their users have them."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import grpc
import httpx
import numpy as np
import pytest

from gitops.manifest import ServedModel
from gitops.serve_api import ServeApi
from ray_jobs.cluster import free_port
from serve.open_inference_pb2 import (
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelReadyRequest,
    ServerLiveRequest,
    ServerMetadataRequest,
    ServerReadyRequest,
)
from serve.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.bundles import make_bundle
from tests.conftest import RayCluster
from tests.serve.conftest import APPLICATION, ARGUMENTS, DEADLINE_SECONDS, Service

SERVICER = "serve.open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server"
PART = cv2.imencode(".png", np.pad(np.full((40, 120), 60, np.uint8), 60, constant_values=220))[1].tobytes()
CLIENTS = ("tritonclient[http,grpc]==2.73.0", "kserve==0.21.0")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    folder = tmp_path_factory.mktemp("bundles") / "one"
    return ServedModel(name="screw", version="1", sha256=make_bundle(folder), uri=folder.as_uri())


@pytest.fixture(scope="module")
def service(ray_cluster: RayCluster, model: ServedModel) -> Iterator[Service]:
    """A Serve of its own: gRPC begins when Serve does."""
    end_serve(ray_cluster)
    service = Service(ServeApi(ray_cluster.dashboard_url, ray_cluster.token), free_port(0), grpc_port=free_port(0))
    service.put(model, num_replicas=1, ray_actor_options={"num_cpus": 0.5})
    service.wait(lambda answer: answer["version"] == "1")
    yield service
    end_serve(ray_cluster)


def end_serve(cluster: RayCluster) -> None:
    headers = {"Authorization": f"Bearer {cluster.token}"}
    httpx.delete(f"{cluster.dashboard_url}/api/serve/applications/", headers=headers, timeout=60).raise_for_status()


@pytest.fixture(scope="module")
def stub(service: Service) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        yield GRPCInferenceServiceStub(channel)


def request(*images: bytes, raw: bool = False, **fields: object) -> ModelInferRequest:
    tensor = ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[len(images)])
    if raw:
        behind = b"".join(len(image).to_bytes(4, "little") + image for image in images)
        return ModelInferRequest(model_name="screw", inputs=[tensor], raw_input_contents=[behind], **fields)
    tensor.contents.CopyFrom(InferTensorContents(bytes_contents=images))
    return ModelInferRequest(model_name="screw", inputs=[tensor], **fields)


def test_one_deployment_answers_http_and_grpc(stub: GRPCInferenceServiceStub, service: Service) -> None:
    assert stub.ServerLive(ServerLiveRequest()).live
    assert stub.ServerReady(ServerReadyRequest()).ready
    print(stub.ModelMetadata(ModelMetadataRequest(name="screw")))
    print(stub.ModelInfer(request(PART, b"x", id="a")))
    print(stub.ModelInfer(request(PART, raw=True)))
    assert httpx.get(f"{service.url}/v2").json()["name"] == stub.ServerMetadata(ServerMetadataRequest()).name
    for r in (request(b"x"), ModelInferRequest(model_name="bolt")):
        with pytest.raises(grpc.RpcError) as e:
            stub.ModelInfer(r)
        print(e.value)
    print(stub.ServerLive(ServerLiveRequest(), metadata=[("application","other")]))
