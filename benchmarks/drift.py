"""How often drift is seen where there is some, and where there is none, on photographs that the model has not seen.

python -m benchmarks.drift [--project project.yaml] [--state .mergeline] [--drawn 0]

Needs a bundle (`mergeline up`, or the stages up to `export`). Windows hold different photographs, up to four fifths of
the held-out ones, each moved a little; with `--drawn` they are as many freshly drawn screws instead. Only the labels'
windows are drawn with replacement, as they are about nothing but counts.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gitops.bundle import open_folder
from gitops.state import usable_cores
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
_SEED = 11  # no screw of the drawn sample, whose seed is another
_MOST_SHIFT = 8


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
    with ThreadPoolExecutor(usable_cores()) as pool:
        pixels = list(pool.map(lambda index: render(_SEED, index, kinds[index]), range(count)))
    return Photographs(pixels, np.array([kind is not None for kind in kinds]))


# --- what happens to a line -------------------------------------------------------------------------------------------


def _moved(pixels: Pixels, matrix: NDArray[np.float64]) -> Pixels:
    height, width = pixels.shape[:2]
    return np.asarray(cv2.warpAffine(pixels, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _turned_about_a_corner(pixels: Pixels) -> Pixels:
    """Turned about its middle, the part would stay in the picture, and be straightened as ever."""
    return _moved(pixels, np.asarray(cv2.getRotationMatrix2D((0.0, 0.0), 25, 1.0), np.float64))


def _smaller(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), 0, 0.85)
    return _moved(pixels, np.asarray(matrix, np.float64))


def _shifted(pixels: Pixels) -> Pixels:
    return _moved(pixels, np.array([[1.0, 0, 0.25 * pixels.shape[1]], [0, 1, 0]]))


def _blurred(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), 2 * max(pixels.shape[:2]) / 1024), np.uint8)


CHANGES: Mapping[str, Callable[[Pixels], Pixels]] = {
    "lamp 20 % dimmer": lambda pixels: (0.8 * pixels).astype(np.uint8),
    "lens blurred by 2 px": _blurred,
    "camera shifted by a quarter": _shifted,
    "camera turned by 25° about a corner": _turned_about_a_corner,
    "screws of another size (85 %)": _smaller,
}


def jittered(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Another photograph of the same part: moved by a few whole pixels, so that its noise stays as it is."""
    x, y = (int(step) for step in rng.integers(-_MOST_SHIFT, _MOST_SHIFT + 1, 2))
    padded = np.pad(pixels, _MOST_SHIFT, mode="reflect")
    height, width = pixels.shape[:2]
    return padded[_MOST_SHIFT + y : _MOST_SHIFT + y + height, _MOST_SHIFT + x : _MOST_SHIFT + x + width]


# --- windows ----------------------------------------------------------------------------------------------------------


def rows_of(observed: Observations, rows: NDArray[np.integer]) -> Observations:
    """Some of the photographs."""
    values = {name: column[rows] for name, column in observed.values.items()}
    return Observations(observed.labels[rows], values, observed.embeddings[rows])


def joined(one: Observations, other: Observations) -> Observations:
    """The photographs of both, with what is known of either."""
    return Observations(
        np.concatenate([one.labels, other.labels]),
        {
            name: np.concatenate([one.values[name], other.values[name]])
            for name in one.values.keys() & other.values.keys()
        },
        np.concatenate([one.embeddings, other.embeddings]),
    )


def window_of(observed: Observations, rng: np.random.Generator) -> Observations:
    """Different photographs: a whole window, or four fifths of what there is."""
    count = len(observed.labels)
    return rows_of(observed, rng.permutation(count)[: min(drift.WINDOW, 4 * count // 5)])


def labelled(
    observed: Observations, bad: NDArray[np.bool_], defective: float, size: int, rng: np.random.Generator
) -> Observations:
    """Photographs drawn with replacement, of which this share is defective in the long run."""
    chosen = rng.random(size) < defective
    rows = np.where(chosen, rng.choice(np.flatnonzero(bad), size), rng.choice(np.flatnonzero(~bad), size))
    return rows_of(observed, rows)


def observe(predictor: Predictor, photographs: Photographs, change: Callable[[Pixels], Pixels]) -> Observations:
    """Judge and measure every photograph, changed and jittered, as the monitor does."""

    def one(number: int) -> Observation:
        rng = np.random.default_rng([_SEED, number])
        pixels = jittered(change(photographs.pixels[number]), rng)
        return predictor.observe(cv2.imencode(".bmp", pixels)[1].tobytes())

    with ThreadPoolExecutor(usable_cores()) as pool:
        return observations_of(list(pool.map(one, range(len(photographs.pixels)))))


# --- what is measured -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A line as the monitor knows it."""

    reference: Observations
    classes: tuple[str, ...]
    usual: Observations
    bad: NDArray[np.bool_]
    """(n,): which of the usual photographs show a defect."""

    def windows(self, observed: Observations, count: int, rng: np.random.Generator) -> list[set[str]]:
        """The features in which each window drifted from the bundle's reference."""
        return [self._found(self.reference, window_of(observed, rng)) for _ in range(count)]

    def other_references(self, rng: np.random.Generator) -> list[set[str]]:
        """The same without drift, all unseen photographs shuffled: one half is the reference, a window of the other."""
        everything, results = joined(self.reference, self.usual), []
        for _ in range(WITHOUT):
            order = rng.permutation(len(everything.labels))
            half = len(order) // 2
            window = rows_of(everything, order[half : half + drift.WINDOW])
            results.append(self._found(rows_of(everything, order[:half]), window))
        return results

    def labels(self, defective: float, count: int, rng: np.random.Generator) -> list[set[str]]:
        """Windows with a share of defects, each beside first windows of its own with the usual share."""
        usual, results = float(self.bad.mean()), []
        for _ in range(count):
            first = labelled(self.usual, self.bad, usual, drift.BASELINE, rng)
            baseline = {label: int(np.count_nonzero(first.labels == label)) for label in self.classes}
            window = labelled(self.usual, self.bad, defective, drift.WINDOW, rng)
            bare = Observations(window.labels, {}, window.embeddings)
            results.append(
                self._found(Observations(self.reference.labels, {}, self.reference.embeddings[:0]), bare, baseline)
            )
        return results

    def _found(
        self, reference: Observations, window: Observations, baseline: Mapping[str, int] | None = None
    ) -> set[str]:
        findings = drift.judge(reference, window, self.classes, baseline)
        return {finding.feature for finding in findings if finding.drifted}


def row(name: str, results: list[set[str]]) -> str:
    """A row of the table: how many windows drifted, in how many pairs one did, and what it was."""
    hit = [bool(found) for found in results]
    pairs = [any(pair) for pair in zip(hit[::2], hit[1::2], strict=True)]
    features = {feature: sum(feature in found for found in results) for feature in sorted(set().union(*results))}
    said = ", ".join(f"{feature} {count}" for feature, count in features.items())
    return f"| {name} | {sum(hit)} of {len(hit)} | {sum(pairs)} of {len(pairs)} | {said or '–'} |"


def main() -> None:
    """Measure, and print the tables."""
    parser = arguments(str(__doc__).partition("\n")[0])
    parser.add_argument(
        "--drawn", type=int, default=0, help="fresh screws to draw instead (%(default)s: held-out ones)"
    )
    options = parser.parse_args()
    stage = open_stage(options)
    predictor = Predictor.load(open_folder(stage.state.bundles / bundle_of(stage.run())), threads=usable_cores())
    reference = reference_of(predictor)
    photographs = drawn(options.drawn, 1 / 6) if options.drawn else held_out(stage)
    usual = observe(predictor, photographs, lambda pixels: pixels)
    line, share = Line(reference, predictor.manifest.classes, usual, photographs.bad), float(photographs.bad.mean())
    rng = np.random.default_rng(_SEED)
    print(f"{len(photographs.pixels)} photographs, {share:.1%} defective; reference: {len(reference.labels)} images")
    print("| what happens | windows that drifted | pairs of windows in which one did | in what |\n|---|---|---|---|")
    print(row("nothing", line.windows(usual, WITHOUT, rng)))
    print(row("nothing, other references", line.other_references(rng)))
    print(row("as many defects as ever", line.labels(share, WITHOUT, rng)), flush=True)
    for name, change in CHANGES.items():
        print(row(name, line.windows(observe(predictor, photographs, change), WITH, rng)), flush=True)
    print(row("twice as many defects", line.labels(2 * share, WITH, rng)))


if __name__ == "__main__":
    main()
