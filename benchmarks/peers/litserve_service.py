"""LitServe with a worker a core, and the photograph in JSON, as its own examples send pictures.

https://lightning.ai/docs/litserve/features/gpu-inference (workers_per_device) and .../request-response-format
"""

import base64
import os
import sys
from typing import Any

import litserve

from benchmarks.peers import judging


class Classifier(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.predictor = judging.load()

    def decode_request(self, request: dict[str, str]) -> bytes:
        return base64.b64decode(request["image"])

    def predict(self, x: bytes) -> dict[str, Any]:
        return judging.judge(self.predictor, x)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Classifier(), accelerator="cpu", workers_per_device=os.cpu_count() or 1)
    server.run(port=int(sys.argv[1]), generate_client_file=False)
