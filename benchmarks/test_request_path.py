"""What one photograph costs on its way to an answer, beside the plain way of doing the same.

make bench
"""

import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.turns import in_turns, ratio
from gitops.bundle import open_folder
from ray_jobs import render
from serve import preprocess
from serve.predictor import Predictor

SUFFIXES = {"png": ".png", "jpeg": ".jpg"}
TURNS, CALLS = 15, 8


def photograph(kind: str) -> bytes:
    """A drawn screw, 1024×1024, 8-bit gray, as a file of this kind."""
    return bytes(cv2.imencode(SUFFIXES[kind], render.render(seed=1, index=0, kind=None))[1])


def with_pillow(data: bytes) -> preprocess.Pixels:
    """The plain way of decoding."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"))


def rate(call: Callable[[], object]) -> Callable[[], float]:
    """Calls a second, over a few of them."""

    def measured() -> float:
        begin = time.perf_counter()
        for _ in range(CALLS):
            call()
        return CALLS / (time.perf_counter() - begin)

    return measured


@pytest.mark.quick
@pytest.mark.parametrize("kind", list(SUFFIXES))
def test_decode(benchmark: BenchmarkFixture, kind: str) -> None:
    data = photograph(kind)
    sides = {"ours": rate(lambda: preprocess.decode(data)), "pillow": rate(lambda: with_pillow(data))}
    found = in_turns(sides, TURNS)
    benchmark(preprocess.decode, data)
    benchmark.extra_info |= {
        "images_per_second": {side: statistics.median(values) for side, values in found.items()},
        "ratios": {"pillow": ratio(found["ours"], found["pillow"])},
    }


@pytest.mark.quick
@pytest.mark.parametrize("kind", list(SUFFIXES))
def test_judge(benchmark: BenchmarkFixture, bundle: Path, kind: str) -> None:
    """The whole of it in one thread, and what each step takes of it."""
    data, predictor = photograph(kind), Predictor.load(open_folder(bundle))
    settings = predictor.manifest.preprocessing
    pixels = preprocess.decode(data, settings.channels)
    aligned = preprocess.align(pixels, settings)
    assert aligned.part is not None
    sides = {
        "judge": rate(lambda: predictor.judge([data])),
        "decode": rate(lambda: preprocess.decode(data, settings.channels)),
        "align": rate(lambda: preprocess.align(pixels, settings)),
        "infer": rate(lambda: predictor.predict(aligned.pixels[None])),
    }
    found = in_turns(sides, TURNS)
    benchmark(predictor.judge, [data])
    benchmark.extra_info |= {
        "milliseconds": {side: round(1000 / statistics.median(values), 2) for side, values in found.items()},
        # The network is the floor: what the rest costs shows in how near the whole comes to it.
        "ratios": {"network": ratio(found["judge"], found["infer"])},
    }
