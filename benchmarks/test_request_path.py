"""What one photograph costs on its way to an answer, beside the plain way of doing the same (Pillow's decoder).

make bench
"""

import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from gitops.manifest import Preprocessing
from ray_jobs import render
from serve import preprocess

SETTINGS = Preprocessing(height=160, width=512)
SUFFIXES = {"png": ".png", "jpeg": ".jpg"}


def photograph(kind: str) -> bytes:
    """A drawn screw, 1024×1024, 8-bit gray, as a file of this kind."""
    return bytes(cv2.imencode(SUFFIXES[kind], render.render(seed=1, index=0, kind=None))[1])


def with_pillow(data: bytes) -> preprocess.Pixels:
    """The baseline: decoded in full by Pillow."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"))


@pytest.mark.parametrize("decode", [preprocess.decode, with_pillow], ids=["ours", "pillow"])
@pytest.mark.parametrize("kind", list(SUFFIXES))
def test_decode(benchmark: BenchmarkFixture, kind: str, decode: Callable[[bytes], preprocess.Pixels]) -> None:
    benchmark.group = f"decode {kind}"
    pixels = benchmark(decode, photograph(kind))
    assert pixels.shape == (1024, 1024)


def test_align(benchmark: BenchmarkFixture) -> None:
    aligned = benchmark(preprocess.align, preprocess.decode(photograph("png")), SETTINGS)
    assert aligned.part is not None
