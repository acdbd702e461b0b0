"""What drift is measured against: images that were judged unseen, value by value, for the bundle."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gitops.contracts.base import Split
from gitops.contracts.dataset import DatasetManifest
from gitops.contracts.model import ReferenceSample
from monitoring.drift import CONFIDENCE, SCORE
from ray_jobs.decoded import SplitImages, load_split
from ray_jobs.stage import Run, Stage
from serve.measures import Measures
from serve.predictor import Predictor, decide, scores_of
from serve.preprocess import Pixels

MOST_IMAGES = 1000
"""Of a part of the reference: more would make bundles large, and tell little more."""
DIGITS = 5
"""That figures keep: sums come out a little differently by CPU, and a digest must not hang on their last digits."""
_UNSEEN: tuple[Split, ...] = ("validation", "test")
"""Splits that no network is fitted to, the one first that is not for the evaluation."""
_AT_ONCE = 64


@dataclass(frozen=True)
class Said:
    """What was said of images."""

    filenames: Sequence[str]
    """n of them."""
    probabilities: NDArray[np.floating]
    """(n, classes)."""


def make_reference(
    stage: Stage, run: Run, split: Literal["validation", "out-of-fold"], said: Said, predictor: Predictor
) -> ReferenceSample:
    """The judged images; and others, where the network knows those too well for their embeddings to be of use.

    A backbone that was trained is fitted to its training images, whoever judged them. They stay without embeddings, and
    validation images come before them, or held-out ones: these decide nothing about the model here.

    Args:
        stage: project and state.
        run: whose bundle it is for.
        split: where the judged images come from.
        said: of them.
        predictor: the bundle itself.
    """
    shards = stage.state.datasets / run.dataset.digest
    judged: Split = "validation" if split == "validation" else "train"
    if judged == "validation" or stage.project.training.backbone_rate == 0:
        return _part(shards, run.dataset, said, predictor, load_split(shards, run.dataset, judged))
    parts = [_part(shards, run.dataset, said, predictor, None)]
    unseen = next((name for name in _UNSEEN if any(run.dataset.counts[name].values())), None)
    if unseen:
        images = load_split(shards, run.dataset, unseen)
        rows = _chosen(len(images.filenames))
        others = Said([images.filenames[row] for row in rows], _in_turns(predictor.predict, images, rows))
        parts.insert(0, _part(shards, run.dataset, others, predictor, images))
    return ReferenceSample(
        labels=tuple(label for part in parts for label in part.labels),
        values={name: tuple(value for part in parts for value in part.values[name]) for name in parts[0].values},
        embeddings=tuple(vector for part in parts for vector in part.embeddings),
    )


def _part(
    shards: Path, dataset: DatasetManifest, said: Said, predictor: Predictor, images: SplitImages | None
) -> ReferenceSample:
    """At most `MOST_IMAGES` of what was said; `images` are those that it was said of, None: they get no embeddings."""
    rows = _chosen(len(said.filenames))
    names, probabilities = [said.filenames[row] for row in rows], said.probabilities[rows]
    embeddings: list[tuple[float, ...] | None] = [None] * len(names)
    if images:
        places = {name: place for place, name in enumerate(images.filenames)}
        found = _in_turns(predictor.embed, images, np.array([places[name] for name in names]))
        embeddings = [tuple(round(value, DIGITS) for value in vector) for vector in found.tolist()]
    columns: dict[str, list[float | None]] = {
        SCORE: scores_of(probabilities).tolist(),
        CONFIDENCE: probabilities.max(axis=1).tolist(),
        **{name: [values[file] for file in names] for name, values in _measures(shards, dataset).items()},
    }
    decided = decide(probabilities, predictor.manifest.threshold.value)
    return ReferenceSample(
        labels=tuple(dataset.classes[label] for label in decided),
        values={
            name: tuple(None if value is None else round(value, DIGITS) for value in values)
            for name, values in columns.items()
        },
        embeddings=tuple(embeddings),
    )


def _chosen(count: int) -> NDArray[np.intp]:
    """Which of `count` images are taken."""
    return np.sort(np.random.default_rng(0).permutation(count)[:MOST_IMAGES])


def _in_turns(
    ask: Callable[[Pixels], NDArray[np.float32]], images: SplitImages, rows: NDArray[np.intp]
) -> NDArray[np.float32]:
    """What the bundle says of some images; they are read a few at a time."""
    turns = [rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE)]
    return np.concatenate([ask(images.images[turn]) for turn in turns])


def _measures(shards: Path, dataset: DatasetManifest) -> dict[str, dict[str, float | None]]:
    """Each measure of every image, by its name and the image's."""
    measured = [name for name in pq.read_schema(shards / dataset.shards[0]).names if name in Measures.model_fields]
    columns = ["filename", *measured]
    table = pa.concat_tables([pq.read_table(shards / name, columns=columns) for name in dataset.shards])
    names = table["filename"].to_pylist()
    return {name: dict(zip(names, table[name].to_pylist(), strict=True)) for name in measured}
