"""MLServer's custom runtime with a worker a core, over the Open Inference Protocol in JSON: it takes no other.

https://mlserver.readthedocs.io/en/latest/user-guide/custom.html and .../parallel-inference.html
"""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.peers import judging


class Classifier(MLModel):
    async def load(self) -> bool:
        self.predictor = judging.load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        photograph = Base64Codec.decode_input(payload.inputs[0])[0]
        score = np.array([judging.judge(self.predictor, photograph)["score"]])
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("score", score)])
