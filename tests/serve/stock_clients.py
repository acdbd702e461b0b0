"""What a user of stock clients would type: runs in an environment of its own, against a service that is up.

`python stock_clients.py CLIENT HTTP_ADDRESS GRPC_ADDRESS PHOTOGRAPH`; the photograph is good, and 160×120 pixels large.
"""

import asyncio
import base64
import sys
from pathlib import Path
from typing import Any

import numpy as np

NOT_AN_IMAGE = b"\xff\xfe no image"
PNG = b"\x89PNG"


def triton(client: Any, module: Any, address: str, photograph: bytes) -> None:
    """Both of Triton's clients have the same methods."""
    from tritonclient.utils import InferenceServerException

    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("screw")
    assert client.is_model_ready("screw", "1")
    assert not ready_or_unknown(client, "screw", "7")

    images = np.array([photograph, NOT_AN_IMAGE, photograph], np.object_)
    tensor = module.InferInput("image", images.shape, "BYTES")
    tensor.set_data_from_numpy(images)
    answer = client.infer("screw", [tensor], request_id="part-42")
    head = answer.get_response()
    name, version, identity = (
        (head["model_name"], head["model_version"], head["id"])
        if isinstance(head, dict)
        else (head.model_name, head.model_version, head.id)
    )
    assert (name, version, identity) == ("screw", "1", "part-42")
    assert answer.as_numpy("label").tolist() == [b"good", b"", b"good"]
    scores = answer.as_numpy("score")
    assert scores.dtype == np.float32
    assert 0 < scores[0] == scores[2] < 0.5
    assert scores[1] == -1
    np.testing.assert_allclose(answer.as_numpy("probabilities")[::2].sum(axis=1), 1, atol=1e-5)
    assert answer.as_numpy("probabilities").shape == (3, 2)
    assert answer.as_numpy("part_found").tolist() == [True, False, True]
    first, second, third = answer.as_numpy("error").tolist()
    assert (first, third) == (b"", b"")
    assert second.startswith(b"400: this is not an image")
    assert answer.as_numpy("heatmap") is None

    wanted = [module.InferRequestedOutput("heatmap"), module.InferRequestedOutput("evidence_point")]
    alone = module.InferInput("image", [1], "BYTES")
    alone.set_data_from_numpy(np.array([photograph], np.object_))
    reasons = client.infer("screw", [alone], model_version="1", outputs=wanted)
    assert [picture[:4] for picture in reasons.as_numpy("heatmap")] == [PNG]
    points = reasons.as_numpy("evidence_point")
    assert points.shape == (1, 2)
    assert (points > 0).all()

    for model, asked, words in (
        ("bolt", wanted, "known: screw"),
        ("screw", wanted, "of one image at a time"),
        ("screw", [module.InferRequestedOutput("mood")], "there is no output 'mood'"),
    ):
        try:
            client.infer(model, [tensor], outputs=asked)
        except InferenceServerException as error:
            assert words in error.message(), error  # noqa: PT017 - pytest is not installed here
        else:
            raise AssertionError(f"{model} was answered")


def ready_or_unknown(client: Any, model: str, version: str) -> bool:
    """HTTP's client says no where gRPC's raises."""
    from tritonclient.utils import InferenceServerException

    try:
        return bool(client.is_model_ready(model, version))
    except InferenceServerException as error:
        assert "known: 1" in error.message()  # noqa: PT017
        return False


def triton_http(http: str, _: str, photograph: bytes) -> None:
    import tritonclient.http as module

    client = module.InferenceServerClient(http)
    triton(client, module, http, photograph)
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = client.get_model_metadata("screw", "1")
    assert metadata["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]

    # Everything as JSON: the client then takes texts only.
    text = np.array([base64.b64encode(photograph)], np.object_)
    tensor = module.InferInput("image", text.shape, "BYTES")
    tensor.set_data_from_numpy(text, binary_data=False)
    wanted = [module.InferRequestedOutput(name, binary_data=False) for name in ("score", "label", "heatmap")]
    answer = client.infer("screw", [tensor], outputs=wanted)
    assert answer.as_numpy("label").tolist() == ["good"]
    assert base64.b64decode(answer.as_numpy("heatmap")[0]).startswith(PNG)
    assert client.async_infer("screw", [tensor]).get_result().as_numpy("label").tolist() == [b"good"]


def triton_grpc(_: str, grpc: str, photograph: bytes) -> None:
    import tritonclient.grpc as module

    client = module.InferenceServerClient(grpc)
    triton(client, module, grpc, photograph)
    assert list(client.get_server_metadata().extensions) == ["binary_tensor_data"]
    metadata = client.get_model_metadata("screw")
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in metadata.inputs] == [
        ("image", "BYTES", [-1])
    ]
    assert client.is_server_live(headers={"application": "inspection"})


def kserve_http(http: str, _: str, photograph: bytes) -> None:
    from kserve import InferenceRESTClient
    from kserve.inference_client import RESTConfig

    async def ask() -> None:
        client = InferenceRESTClient(RESTConfig(protocol="v2"))
        url = f"http://{http}"
        assert await client.is_server_live(url)
        assert await client.is_server_ready(url)
        assert await client.is_model_ready(url, "screw")
        for binary in (True, False):
            content = photograph if binary else base64.b64encode(photograph)
            answer = await client.infer(url, kserve_request(content, binary), model_name="screw")
            kserve_answered(answer)
            assert answer.id == "part-42"
        try:
            await client.infer(url, kserve_request(photograph, True), model_name="bolt")
        except Exception as error:
            assert "known: screw" in str(error)  # noqa: PT017
        else:
            raise AssertionError("bolt was answered")
        await client.close()

    asyncio.run(ask())


def kserve_grpc(_: str, grpc: str, photograph: bytes) -> None:
    from kserve import InferenceGRPCClient

    async def ask() -> None:
        client = InferenceGRPCClient(grpc)
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("screw")
        kserve_answered(await client.infer(kserve_request(photograph, True)))
        kserve_answered(await client.infer(kserve_request(photograph, None)))
        await client.close()

    asyncio.run(ask())


def kserve_request(content: bytes, binary: bool | None) -> Any:
    from kserve import InferInput, InferRequest

    images = np.array([content], np.object_)
    if binary is None:
        tensor = InferInput("image", [1], "BYTES", data=[content])
    else:
        tensor = InferInput("image", [1], "BYTES")
        tensor.set_data_from_numpy(images, binary_data=binary)
    return InferRequest("screw", [tensor], request_id="part-42")


def kserve_answered(answer: Any) -> None:
    assert answer.model_name == "screw"
    assert answer.model_version in ("1", None)  # KServe's HTTP client does not read it
    found = {output.name: output.as_numpy() for output in answer.outputs}
    assert found["label"].tolist() in (["good"], [b"good"])
    assert 0 < found["score"][0] < 0.5
    assert found["part_found"].tolist() == [True]


CLIENTS = {
    "triton-http": triton_http,
    "triton-grpc": triton_grpc,
    "kserve-http": kserve_http,
    "kserve-grpc": kserve_grpc,
}

if __name__ == "__main__":
    CLIENTS[sys.argv[1]](sys.argv[2], sys.argv[3], Path(sys.argv[4]).read_bytes())
