"""Builds tiny bundles that load and answer like real ones, in milliseconds and without TensorFlow."""

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gitops import bundle
from gitops.contracts.model import BundleManifest, EvidenceGrid, Probe, ReferenceSample, ThresholdChoice
from gitops.contracts.project import Preprocessing, Training
from gitops.state import State, folder_written_whole
from ray_jobs.convert import write_engine
from ray_jobs.probe import draw_probe
from serve.engine import openvino
from serve.predictor import EMBEDDING, EVIDENCE, INPUT, OUTPUT
from serve.preprocess import Pixels, preprocess

ops = openvino.opset13

CLASSES = ("good", "defective")
THRESHOLD = 0.5
CELL = 8
"""Side of a cell of the evidence, in pixels of the model's input."""
_CONTRAST = 4.0


def make_bundle(
    folder: Path,
    *,
    name: str = "screw",
    version_salt: float = 0.0,
    height: int = 32,
    width: int = 64,
    classes: tuple[str, ...] = CLASSES,
    dataset: str = "0" * 64,
    align: Literal["foreground", "none"] = "foreground",
    reference: ReferenceSample | None = None,
) -> str:
    """Write a servable bundle into `folder`, which becomes the bundle itself; what is bright is good.

    Args:
        folder: made if it isn't there.
        name: of the model.
        align: of its preprocessing.
        version_salt: shifts the scores, and with them the digest: bundles of different salts are told apart by both.
        height: of the model's input, in pixels.
        width: of the model's input, in pixels.
        classes: two names, the good one first.
        dataset: digest of what it says that it was trained on.
        reference: what drift is measured against; None: nothing that could be read.

    Returns:
        The digest.
    """
    (folder / "saved_model").mkdir(parents=True)
    (folder / "saved_model" / "README").write_text(
        "A tiny bundle of the tests: its model exists as engine file only.\n"
    )
    (folder / "reference.json").write_text(reference.to_json() if reference else "{}\n")
    (folder / "probe.png").write_bytes(draw_probe())
    write_engine(brightness_model(height, width, version_salt), folder / "model.xml")
    preprocessing = Preprocessing(align=align, height=height, width=width)
    pixels = preprocess((folder / "probe.png").read_bytes(), preprocessing).pixels
    manifest = BundleManifest(
        name=name,
        classes=classes,
        preprocessing=preprocessing,
        threshold=ThresholdChoice(value=THRESHOLD, method="the middle"),
        engine="openvino",
        engine_file="model.xml",
        saved_model="saved_model",
        reference="reference.json",
        evidence=EvidenceGrid(stride=CELL, offset_x=(CELL - 1) / 2, offset_y=(CELL - 1) / 2),
        probe=Probe(path="probe.png", score=expected_score(pixels, version_salt)),
        agreement=0.0,
        dataset=dataset,
        training=Training(),
        frameworks={"openvino": openvino.__version__},
        files=(),
    )
    return bundle.seal(folder, manifest)


def put_bundle(state: State, *, version_salt: float, **settings: Any) -> str:
    """Write a tiny bundle to where the line keeps bundles; `settings` are `make_bundle`'s. Returns its digest."""
    with tempfile.TemporaryDirectory(dir=state.root) as temporary:
        digest = make_bundle(Path(temporary) / "bundle", version_salt=version_salt, **settings)
        with folder_written_whole(state.bundles / digest) as folder:
            shutil.copytree(Path(temporary) / "bundle", folder, dirs_exist_ok=True)
    return digest


def expected_score(pixels: Pixels, version_salt: float = 0.0) -> float:
    """The score that a tiny bundle gives to a model input, by plain arithmetic."""
    return 1 / (1 + math.exp(2 * (_CONTRAST * (float(pixels.mean()) / 255 - 0.5) + version_salt)))


def brightness_model(height: int, width: int, salt: float) -> openvino.Model:
    """Mean brightness to probabilities: the brighter, the better; what is dark is the evidence."""
    image = ops.parameter([-1, height, width, 1], np.uint8)
    mean = ops.reduce_mean(ops.convert(image, "f32"), np.array([1, 2], np.int64), keep_dims=False)
    middled = ops.subtract(ops.divide(mean, np.float32(255)), np.float32(0.5))
    logits = ops.add(
        ops.multiply(middled, np.array([[_CONTRAST, -_CONTRAST]], np.float32)), np.array([[salt, -salt]], np.float32)
    )
    probabilities = ops.softmax(logits, 1)
    image.output(0).set_names({INPUT})
    probabilities.output(0).set_names({OUTPUT})
    darkness = ops.subtract(np.float32(255), ops.convert(image, "f32"))
    cells = ops.avg_pool(ops.transpose(darkness, [0, 3, 1, 2]), [CELL, CELL], [0, 0], [0, 0], [CELL, CELL], True)
    evidence = ops.squeeze(cells, np.array([1], np.int64))
    evidence.output(0).set_names({EVIDENCE})
    embedding = ops.concat([middled, ops.multiply(middled, middled)], 1)
    embedding.output(0).set_names({EMBEDDING})
    return openvino.Model([probabilities, evidence, embedding], [image], "brightness")
