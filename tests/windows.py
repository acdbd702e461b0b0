"""Windows of drawn photographs, judged by a monitor in this process with a tiny bundle."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np

from gitops.contracts.model import ReferenceSample
from gitops.contracts.serving import ServedModel
from monitoring.metrics import LastingMeters
from serve.monitor import DriftMonitor, Settings
from serve.observations import observations_of
from serve.predictor import Predictor
from serve.windows import WindowFolder
from tests.serve.conftest import photograph
from tests.serve.site import open_bundle

WINDOW, PHOTOGRAPHS = 64, 5
APPLICATION = "line"


@functools.cache
def files(seed: int, count: int = WINDOW, *, light: float = 1.0, defective: float = 0.0) -> tuple[bytes, ...]:
    """Photographs of a line; what is dark is defective to the tiny bundle."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        brightness = rng.normal(0.35 if rng.random() < defective else 0.85, 0.03)
        pixels = photograph(brightness=brightness * light) + rng.normal(0, 2, (120, 160))
        made.append(cv2.imencode(".png", np.clip(pixels, 0, 255).astype(np.uint8))[1].tobytes())
    return tuple(made)


def reference(predictor: Predictor) -> ReferenceSample:
    """What a line looks like that makes many defects, as training sets do."""
    observed = observations_of([predictor.observe(data) for data in files(0, 120, defective=0.3)])
    return ReferenceSample(
        labels=tuple(observed.labels.tolist()),
        values={name: tuple(values.tolist()) for name, values in observed.values.items()},
        embeddings=tuple(tuple(row) for row in observed.embeddings.tolist()),
    )


def monitor_on(
    folder: Path,
    meters: LastingMeters,
    *,
    seconds: float = 3600,
    most: int = 3,
    feedback: Path | None = None,
    opening: Callable[[ServedModel], Predictor] = open_bundle,
) -> DriftMonitor:
    """A monitor that keeps the `most` latest windows in a folder."""
    settings = Settings(window_seconds=seconds, photographs=PHOTOGRAPHS, max_pixels=1_000_000)
    windows = WindowFolder(folder / APPLICATION, most)
    return DriftMonitor(windows, APPLICATION, opening, meters, settings, feedback)


def feed(monitor: DriftMonitor, model: ServedModel, photographs: Iterable[bytes]) -> None:
    """Let a model have judged photographs."""
    assert all(monitor.take(model, data) for data in photographs)
