"""What stands behind every server that is compared: our own decoding, straightening and network."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2

from gitops.bundle import open_folder
from serve.predictor import Predictor
from serve.preprocess import ImageError

BUNDLE_VARIABLE = "MERGELINE_BENCHMARK_BUNDLE"
"""Names the bundle's folder, to a peer's process and to the benchmarks."""


def load(threads: int = 1) -> Predictor:
    """The bundle, loaded as a replica of ours loads it; `threads` calls run side by side."""
    cv2.setNumThreads(1)
    return Predictor.load(open_folder(Path(os.environ[BUNDLE_VARIABLE])), threads=threads)


def judge(predictor: Predictor, photograph: bytes) -> dict[str, Any]:
    """What a peer answers: the judgement, as a JSON object."""
    outcome = predictor.judge([photograph])[0]
    if isinstance(outcome, ImageError):
        raise outcome
    return asdict(outcome)
