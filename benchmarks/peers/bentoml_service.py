"""BentoML with a worker a core, and the photograph as the request's body.

https://docs.bentoml.com/en/latest/build-with-bentoml/parallelize-requests.html and .../iotypes.html
"""

from pathlib import Path
from typing import Any

import bentoml

from benchmarks.peers import judging


@bentoml.service(workers="cpu_count")
class Classifier:
    def __init__(self) -> None:
        self.predictor = judging.load()

    @bentoml.api
    def predict(self, photograph: Path, /) -> dict[str, Any]:
        return judging.judge(self.predictor, photograph.read_bytes())
