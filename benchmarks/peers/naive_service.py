"""What one writes first: FastAPI in one process, Pillow's decoder, and `predict` of the Keras model, image by image."""

import io
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image

from benchmarks.peers.judging import BUNDLE_VARIABLE
from gitops.contracts.model import BundleManifest
from serve.predictor import INPUT, OUTPUT, scores_of
from serve.preprocess import align

app = FastAPI()
bundle = Path(os.environ[BUNDLE_VARIABLE])
manifest = BundleManifest.read(bundle / "manifest.json")
shape = (manifest.preprocessing.height, manifest.preprocessing.width, manifest.preprocessing.channels)
image = keras.Input(shape, dtype="uint8", name=INPUT)
layer = keras.layers.TFSMLayer(bundle / "saved_model", call_endpoint="serving_default")
model = keras.Model(image, layer(image))


def judge(photograph: bytes) -> dict[str, Any]:
    pixels = np.asarray(Image.open(io.BytesIO(photograph)).convert("L"))
    aligned = align(pixels, manifest.preprocessing)
    probabilities = model.predict(aligned.pixels[None], verbose=0)[OUTPUT]
    return {"score": float(scores_of(probabilities)[0])}


@app.post("/predict")
async def predict(request: Request) -> dict[str, Any]:
    return await run_in_threadpool(judge, await request.body())
