"""How often drift is seen where there is some, and where there is none, on photographs that the model has not seen.

python -m benchmarks.drift [--project project.yaml] [--state .mergeline] [--drawn 0]

Needs a bundle (`mergeline up`, or the stages up to `export`). A window is drawn from held-out photographs with
replacement, each with another jitter; with `--drawn` the photographs are as many freshly drawn screws instead.
"""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from monitoring import drift
from monitoring.drift import Observations
from ray_jobs.dataset import read_listing
from ray_jobs.decoded import load_split
from ray_jobs.evaluate import bundle_of
from ray_jobs.render import kind_of, render
from ray_jobs.stage import Stage, arguments, open_stage
from serve.observations import observations_of, reference_of
from serve.predictor import GOOD, Observation, Predictor
from serve.preprocess import Pixels, decode

WITHOUT, WITH = 100, 20
"""Windows without drift, and of each change."""
JITTERS = 2
"""Times that each photograph is jittered, for each change."""
_SEED = 11  # no screw of the drawn sample, whose seed is another
_MOST_SHIFT, _MOST_GAIN = 8, 0.015


@dataclass(frozen=True)
class Photographs:
    """What the model has not seen."""

    pixels: list[Pixels]
    bad: NDArray[np.bool_]


def held_out(stage: Stage) -> Photographs:
    """The photographs of the test split."""
    dataset = stage.dataset()
    test = load_split(stage.state.datasets / dataset.digest, dataset, "test")
    paths = {photograph.sha256: Path(photograph.path) for photograph in read_listing(stage).photographs}
    pixels = [decode(paths[sha256].read_bytes(), dataset.preprocessing.channels) for sha256 in test.sha256]
    return Photographs(pixels, test.labels != GOOD)


def drawn(count: int, defective: float) -> Photographs:
    """New screws, one in so many defective."""
    kinds = [kind_of(index, defective) for index in range(count)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pixels = list(pool.map(lambda index: render(_SEED, index, kinds[index]), range(count)))
    return Photographs(pixels, np.array([kind is not None for kind in kinds]))


# --- what happens to a line -------------------------------------------------------------------------------------------


def _moved(pixels: Pixels, matrix: NDArray[np.float64]) -> Pixels:
    height, width = pixels.shape[:2]
    return np.asarray(cv2.warpAffine(pixels, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _about_the_middle(pixels: Pixels, degrees: float, scale: float) -> Pixels:
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, scale)
    return _moved(pixels, np.asarray(matrix, np.float64))


def _shifted(pixels: Pixels) -> Pixels:
    return _moved(pixels, np.array([[1.0, 0, 0.25 * pixels.shape[1]], [0, 1, 0]]))


def _blurred(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), 2 * max(pixels.shape[:2]) / 1024), np.uint8)


CHANGES: Mapping[str, Callable[[Pixels], Pixels]] = {
    "lamp 20 % dimmer": lambda pixels: (0.8 * pixels).astype(np.uint8),
    "lens blurred by 2 px": _blurred,
    "camera shifted by a quarter": _shifted,
    "camera turned by 40°": lambda pixels: _about_the_middle(pixels, 40, 1.0),
    "screws of another size (85 %)": lambda pixels: _about_the_middle(pixels, 0, 0.85),
}


def jittered(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Another photograph of the same part: a little moved, by whole pixels, and in a little more or less light."""
    x, y = rng.integers(-_MOST_SHIFT, _MOST_SHIFT + 1, 2)
    moved = _moved(pixels, np.array([[1.0, 0, x], [0, 1, y]]))
    brighter = np.rint(moved * (1 + rng.uniform(-_MOST_GAIN, _MOST_GAIN)))
    return np.asarray(np.clip(brighter, 0, 255), np.uint8)


# --- windows ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pool:
    """Photographs that were observed, from which windows are drawn."""

    observed: Observations
    bad: NDArray[np.bool_]

    def window(self, rng: np.random.Generator, defective: float, size: int = drift.WINDOW) -> Observations:
        """So many photographs, of which this share is defective in the long run."""
        chosen_bad = rng.random(size) < defective
        rows = np.where(
            chosen_bad,
            rng.choice(np.flatnonzero(self.bad), size),
            rng.choice(np.flatnonzero(~self.bad), size),
        )
        return rows_of(self.observed, rows)


def rows_of(observed: Observations, rows: NDArray[np.integer]) -> Observations:
    """Some of the photographs."""
    values = {name: column[rows] for name, column in observed.values.items()}
    return Observations(observed.labels[rows], values, observed.embeddings[rows])


def observe(predictor: Predictor, photographs: Photographs, change: Callable[[Pixels], Pixels]) -> Pool:
    """Judge and measure every photograph, changed and jittered, as the monitor does."""

    def one(number: int) -> Observation:
        rng = np.random.default_rng([_SEED, number])
        pixels = jittered(change(photographs.pixels[number % len(photographs.pixels)]), rng)
        return predictor.observe(cv2.imencode(".bmp", pixels)[1].tobytes())

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(one, range(JITTERS * len(photographs.pixels))))
    return Pool(observations_of(found), np.tile(photographs.bad, JITTERS))


# --- what is measured -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A line as the monitor knows it."""

    reference: Observations
    classes: tuple[str, ...]
    usual: Pool
    defective: float
    """The usual share of defective parts."""

    def found(self, window: Observations, rng: np.random.Generator, reference: Observations | None = None) -> set[str]:
        """The kinds in which a window drifted; the first windows, whose labels it is compared with, are drawn anew."""
        first = self.usual.window(rng, self.defective, drift.BASELINE)
        baseline = {label: int(np.count_nonzero(first.labels == label)) for label in self.classes}
        findings = drift.judge(reference or self.reference, window, self.classes, baseline)
        return {f"{finding.kind}" for finding in findings if finding.drifted}

    def without_drift(self, rng: np.random.Generator) -> list[set[str]]:
        """What windows without drift are said to differ in."""
        return [self.found(self.usual.window(rng, self.defective), rng) for _ in range(WITHOUT)]

    def with_other_references(self, rng: np.random.Generator) -> list[set[str]]:
        """The same, but each window with half of the photographs as its reference, and drawn from the other half."""
        photographs = len(self.usual.bad) // JITTERS
        results = []
        for _ in range(WITHOUT):
            halves = np.tile(rng.permutation(photographs) % 2 == 0, JITTERS)
            rest = Pool(rows_of(self.usual.observed, np.flatnonzero(~halves)), self.usual.bad[~halves])
            reference = rows_of(self.usual.observed, np.flatnonzero(halves[:photographs]))
            results.append(self.found(rest.window(rng, self.defective), rng, reference))
        return results

    def changed(self, pool: Pool, rng: np.random.Generator, defective: float) -> list[set[str]]:
        """What windows of a changed line differ in."""
        return [self.found(pool.window(rng, defective), rng) for _ in range(WITH)]


def row(name: str, results: list[set[str]]) -> str:
    """A row of the table: how many windows drifted, in how many pairs one did, and what it was."""
    hit = [bool(found) for found in results]
    pairs = [any(pair) for pair in zip(hit[::2], hit[1::2], strict=True)]
    kinds = {kind: sum(kind in found for found in results) for kind in sorted(set().union(*results))}
    said = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
    return f"| {name} | {sum(hit)} of {len(hit)} | {sum(pairs)} of {len(pairs)} | {said or '–'} |"


def main() -> None:
    """Measure, and print the tables."""
    parser = arguments(str(__doc__).partition("\n")[0])
    parser.add_argument(
        "--drawn", type=int, default=0, help="fresh screws to draw instead (%(default)s: held-out ones)"
    )
    options = parser.parse_args()
    stage = open_stage(options)
    predictor = Predictor.load(stage.state.bundles / bundle_of(stage.run()), threads=os.cpu_count() or 1)
    reference = reference_of(predictor)
    photographs = drawn(options.drawn, 1 / 6) if options.drawn else held_out(stage)
    usual = observe(predictor, photographs, lambda pixels: pixels)
    share = float(photographs.bad.mean())
    line = Line(reference, predictor.manifest.classes, usual, share)
    rng = np.random.default_rng(_SEED)
    print(
        f"{len(photographs.pixels)} photographs, {share:.1%} defective; reference: {len(reference.labels)} images; "
        f"windows of {drift.WINDOW}"
    )
    print("| what happens | windows that drifted | pairs of windows in which one did | in what |\n|---|---|---|---|")
    print(row("nothing", line.without_drift(rng)))
    print(row("nothing, with other references", line.with_other_references(rng)), flush=True)
    for name, change in CHANGES.items():
        print(row(name, line.changed(observe(predictor, photographs, change), rng, share)), flush=True)
    print(row("twice as many defects", line.changed(usual, rng, 2 * share)))


if __name__ == "__main__":
    main()
