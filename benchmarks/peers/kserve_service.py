"""KServe's Python server with a worker a core; a photograph comes in JSON, as in its own examples.

https://kserve.github.io/website/docs/model-serving/predictive-inference/frameworks/custom-predictor
"""

import base64
import os
import sys
from functools import cached_property
from typing import Any

from kserve import Model, ModelServer

from benchmarks.peers import judging
from serve.predictor import Predictor


class Classifier(Model):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True

    @cached_property
    def predictor(self) -> Predictor:
        """Loaded by the worker: the server hands it a pickled copy of this model."""
        return judging.load()

    def predict(self, payload: dict[str, Any], headers: Any = None, response_headers: Any = None) -> dict[str, Any]:
        photograph = base64.b64decode(payload["instances"][0]["image"]["b64"])
        return {"predictions": [judging.judge(self.predictor, photograph)]}


if __name__ == "__main__":
    arguments = {"http_port": int(sys.argv[1]), "workers": os.cpu_count() or 1, "enable_grpc": False}
    ModelServer(**arguments).start([Classifier("classifier")])
