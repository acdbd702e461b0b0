"""Compare: two versions judge the same held-out images, each through the code that serves it."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gitops import bundle
from gitops.contracts.base import Split
from gitops.contracts.comparison import ComparedVersion, Comparison, Disagreement, Newcomers
from gitops.contracts.dataset import DatasetManifest, LookalikeBars
from gitops.contracts.model import CrossValidationResult
from gitops.contracts.serving import ServedModel
from gitops.errors import ContractError, DataError, MergelineError
from gitops.state import State, folder_written_whole, usable_cores
from ray_jobs import compare_picture, paired
from ray_jobs import split as splitting
from ray_jobs.cross_validate import result_of
from ray_jobs.dataset import read_listing, read_photograph
from ray_jobs.decision import calibrated_probabilities
from ray_jobs.decoded import SplitImages, load_split, read_samples
from ray_jobs.paired import Opinion
from ray_jobs.split import Sample
from ray_jobs.stage import Stage
from serve.predictor import GOOD, Predictor, decide, scores_of
from serve.preprocess import ImageError

REPORT, PICTURE = "comparison.json", "comparison.png"
_FITTED: tuple[Split, ...] = ("train", "validation")
"""Splits that a version was fitted to: weights to the one, epoch and threshold to the other."""
_UNSEEN: tuple[Split, ...] = ("train", "test")
"""Splits of which the current run has judgements by models that had not seen the image: out of fold, and held out."""

_BATCH = 64  # images that are in memory at once

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """What two versions say of the images that neither was fitted to."""

    dataset: DatasetManifest
    a: ComparedVersion
    b: ComparedVersion
    of_a: Opinion
    of_b: Opinion
    labels: NDArray[np.int64]
    """The truth, (n,), indices of the dataset's classes."""
    filenames: tuple[str, ...]
    left_out: tuple[str, ...]
    """Files of the split that one of the two was fitted to."""
    newcomers: Newcomers | None
    warnings: tuple[str, ...]


def compare(stage: Stage, a: ServedModel, b: ServedModel) -> Comparison:
    """Compare two versions on the test split of the project's dataset; nothing is written.

    Raises:
        DataError: there is no dataset, too little of its test split is new to both, or a version knows other classes.
        BundleError: a bundle cannot be read or loaded.
    """
    return assess(judge(stage, a, b))


def compare_and_draw(stage: Stage, a: ServedModel, b: ServedModel) -> tuple[Comparison, Path]:
    """Compare, and write figures and picture; returns the folder too. It raises what `compare` raises."""
    judged = judge(stage, a, b)
    comparison = assess(judged)
    return comparison, save(stage.state, comparison, judged)


def with_served(stage: Stage, served: ServedModel | None, chosen: ServedModel) -> Comparison | str | None:
    """How a version does beside the one now served, or why nobody can say; None: it is that very one."""
    if served == chosen:
        return None
    if served is None:
        return "the environment serves no version yet"
    try:
        return compare(stage, served, chosen)
    except MergelineError as error:  # a comparison is for whoever decides; that there is none stops nothing
        return str(error)


def assess(judged: Judged) -> Comparison:
    """The comparison that follows from what the versions say; nothing is read or written."""
    labels, of_a, of_b = judged.labels, judged.of_a, judged.of_b
    return Comparison(
        a=judged.a,
        b=judged.b,
        dataset=judged.dataset.digest,
        images=len(labels),
        metrics=paired.differences(labels, of_a, of_b),
        mcnemar=paired.mcnemar(labels, of_a, of_b),
        resamples=paired.RESAMPLES,
        disagreements=tuple(_disagreements(judged)),
        left_out=judged.left_out,
        newcomers=judged.newcomers,
        warnings=judged.warnings,
    )


def save(state: State, comparison: Comparison, judged: Judged) -> Path:
    """Write `comparison.json` and `comparison.png` in place of what an earlier comparison of the two left.

    Returns:
        Their folder, `<state>/comparisons/<name>/<A>-<B>`.
    """
    target = state.comparisons / comparison.b.model.name / f"{comparison.a.model.version}-{comparison.b.model.version}"
    figure = compare_picture.draw(
        comparison, judged.labels != GOOD, judged.of_a.scores, judged.of_b.scores, judged.dataset.classes
    )
    with folder_written_whole(target, replace=True) as folder:
        (folder / REPORT).write_text(comparison.to_json())
        compare_picture.save(figure, folder / PICTURE)
    return target


# --- judging ----------------------------------------------------------------------------------------------------------


def judge(stage: Stage, a: ServedModel, b: ServedModel) -> Judged:
    """Let both versions judge the images of the test split that neither was fitted to.

    Args:
        stage: its state holds the dataset, and copies of bundles that lie elsewhere.
        a: one version.
        b: the other.

    Raises:
        DataError: there is no dataset, too little of its test split is new to both, or a version knows other classes.
        BundleError: a bundle cannot be read or loaded.
    """
    if a.sha256 == b.sha256:
        raise DataError(f"{a} and {b} have the same bundle, {a.sha256[:12]}: name two different versions")
    dataset = stage.dataset()
    predictors = [_load(stage, model, dataset) for model in (a, b)]
    fitted, warnings = np.zeros(sum(dataset.counts["test"].values()), bool), []
    for model, predictor in zip((a, b), predictors, strict=True):
        flags = _fitted_to(stage.state, dataset, predictor.manifest.dataset)
        if flags is None:
            warnings.append(
                f"{model} was trained on dataset {predictor.manifest.dataset[:12]}, which is no longer "
                "in the state folder: images that it was fitted to cannot be told, and may flatter it"
            )
        else:
            fitted |= flags
    test = _read_split(stage.state, dataset, "test")
    left_out = tuple(np.array(test.filenames)[fitted].tolist())
    rows = np.flatnonzero(~fitted)
    _check(test.labels[rows], dataset, len(left_out))
    one, other = (_opinion(stage, dataset, predictor, "test", rows) for predictor in predictors)
    return Judged(
        dataset=dataset,
        a=_compared(a, predictors[0]),
        b=_compared(b, predictors[1]),
        of_a=one,
        of_b=other,
        labels=test.labels[rows],
        filenames=tuple(test.filenames[row] for row in rows),
        left_out=left_out,
        newcomers=_newcomers(stage, b, *predictors),
        warnings=tuple(warnings),
    )


def _load(stage: Stage, model: ServedModel, dataset: DatasetManifest) -> Predictor:
    fetched = bundle.fetch(model.uri, model.sha256, stage.state.bundles)
    predictor = Predictor.load(fetched, threads=usable_cores())
    if predictor.manifest.classes != dataset.classes:
        raise DataError(
            f"{model} knows the classes {', '.join(predictor.manifest.classes)}, and dataset "
            f"{dataset.digest[:12]} has {', '.join(dataset.classes)}: only versions of the same classes are compared"
        )
    return predictor


def _opinion(
    stage: Stage, dataset: DatasetManifest, predictor: Predictor, split: Split, rows: NDArray[np.intp]
) -> Opinion:
    """What a version says of some images of a split."""
    if predictor.manifest.preprocessing == dataset.preprocessing:
        images = _read_split(stage.state, dataset, split).images
        parts = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
        probabilities = np.concatenate([predictor.predict(images[part]) for part in parts])
    else:  # what the dataset keeps are another model's inputs
        samples = _samples(stage.state, dataset, (split,))
        probabilities = _judge_photographs(stage, predictor, [samples[row].sha256 for row in rows])
    return Opinion(decide(probabilities, predictor.manifest.threshold.value), scores_of(probabilities))


def _judge_photographs(stage: Stage, predictor: Predictor, digests: Sequence[str]) -> NDArray[np.float32]:
    """Probabilities (n, classes) of the photographs with these SHA-256 digests, as they came."""
    places = {photograph.sha256: Path(photograph.path) for photograph in read_listing(stage).photographs}
    missing = [digest for digest in digests if digest not in places]
    if missing:
        raise DataError(
            f"bundle {predictor.digest[:12]} takes other inputs than the dataset keeps, and {len(missing)} of the "
            f"photographs are not in the newest listing: run `mergeline submit dataset` and `mergeline submit etl`"
        )

    def probabilities(digest: str) -> list[float]:
        found = predictor.judge([read_photograph(places[digest], digest)])[0]
        if isinstance(found, ImageError):
            raise DataError(f"bundle {predictor.digest[:12]} cannot use the photograph {places[digest]}: {found}")
        return list(found.probabilities.values())

    with ThreadPoolExecutor(usable_cores()) as pool:
        return np.array(list(pool.map(probabilities, digests)), np.float32)


# --- what a version has seen ------------------------------------------------------------------------------------------


def _fitted_to(state: State, dataset: DatasetManifest, trained_on: str) -> Flags | None:
    """Which images of the test split a version was fitted to: to themselves, or to what the split calls lookalikes.

    Args:
        state: where datasets lie.
        dataset: whose test split it is.
        trained_on: digest of the version's own dataset.

    Returns:
        (n,), in the split's order; None: its dataset is gone, so that nobody can tell.
    """
    if trained_on == dataset.digest:  # its splits were made apart
        return np.zeros(sum(dataset.counts["test"].values()), bool)
    other = _other(state, trained_on, _FITTED)
    return None if other is None else _are_in(other, dataset, _samples(state, dataset, ("test",)))


def _are_in(other: "_Other", dataset: DatasetManifest, here: list[Sample]) -> Flags:
    """Which images of a dataset are in another one, themselves or as what the split calls lookalikes: (n,)."""
    # The stricter of both: to leave out an image too many does less harm than to keep one that was trained on.
    bars = LookalikeBars(
        photograph=max((dataset.lookalikes.photograph, other.lookalikes.photograph), key=lambda bar: bar or 0),
        part=max((dataset.lookalikes.part, other.lookalikes.part), key=lambda bar: bar or 0),
    )
    groups = splitting.groups_of_lookalikes([*here, *other.samples], bars)
    return np.isin(groups[: len(here)], groups[len(here) :])


@dataclass(frozen=True)
class _Other:
    """The dataset of a version, as far as it is compared with."""

    lookalikes: LookalikeBars
    samples: list[Sample]


def _other(state: State, digest: str, splits: Sequence[Split]) -> _Other | None:
    """Another dataset, and the images of some of its splits; None: it is gone."""
    try:
        manifest = DatasetManifest.read(state.datasets / digest / "manifest.json")
        return _Other(manifest.lookalikes, _samples(state, manifest, splits))
    except (ContractError, DataError):
        return None


def _newcomers(stage: Stage, b: ServedModel, of_a: Predictor, of_b: Predictor) -> Newcomers | None:
    """How both do on the photographs that came after the first was made.

    None: the second is not of the project's current run, which has its out-of-fold judgements; nothing came since; or
    the first one's dataset is gone, so that nobody can tell.
    """
    run = stage.run()
    folds = result_of(run, stage.project.cross_validation.folds)
    is_current = run.bundle_file.exists() and run.bundle_file.read_text().strip() == b.sha256
    if folds is None or not is_current or of_a.manifest.dataset == run.dataset.digest:
        return None
    every: tuple[Split, ...] = (*_FITTED, "test")
    before = _other(stage.state, of_a.manifest.dataset, every)
    if before is None:
        return None
    news = {split: _news(before, run.dataset, _samples(stage.state, run.dataset, (split,))) for split in every}
    left_out, not_judged = sum(new.alike for new in news.values()), len(news["validation"].rows)
    rows = {split: news[split].rows for split in _UNSEEN if len(news[split].rows)}
    if not (rows or left_out or not_judged):
        return None
    images = {split: _read_split(stage.state, run.dataset, split) for split in rows}
    labels = _joined([images[split].labels[rows[split]] for split in rows])
    by_a = _joined([_opinion(stage, run.dataset, of_a, split, rows[split]).predicted for split in rows])
    by_b = _joined(
        [
            _opinion(stage, run.dataset, of_b, split, rows[split]).predicted
            if split == "test"
            else _out_of_fold(folds, of_b, [images[split].filenames[row] for row in rows[split]])
            for split in rows
        ]
    )
    scores = np.zeros(len(labels))  # which McNemar's test does not ask for
    return Newcomers(
        images=len(labels),
        labels={name: int(np.sum(labels == number)) for number, name in enumerate(run.dataset.classes)},
        held_out=len(news["test"].rows),
        left_out=left_out,
        not_judged=not_judged,
        a_right=int(np.sum(by_a == labels)),
        b_right=int(np.sum(by_b == labels)),
        mcnemar=paired.mcnemar(labels, Opinion(by_a, scores), Opinion(by_b, scores)),
    )


@dataclass(frozen=True)
class _News:
    """The images of a split that an older dataset has not."""

    rows: NDArray[np.intp]
    """Their rows, without those that the older one has a lookalike of."""
    alike: int
    """Images that it has not itself, but a lookalike of."""


def _news(before: _Other, dataset: DatasetManifest, samples: list[Sample]) -> _News:
    known = _are_in(before, dataset, samples)
    old = {sample.sha256 for sample in before.samples}
    alike = sum(sample.sha256 not in old for sample, is_known in zip(samples, known, strict=True) if is_known)
    return _News(np.flatnonzero(~known), alike)


def _out_of_fold(folds: CrossValidationResult, version: Predictor, filenames: Sequence[str]) -> NDArray[np.intp]:
    """The classes that a version gives training images by the folds that had not seen them."""
    logits = {prediction.filename: prediction.logits for prediction in folds.predictions}
    unseen = np.array([logits[filename] for filename in filenames], np.float64)
    probabilities = calibrated_probabilities(unseen, version.manifest.calibration)
    return decide(probabilities, version.manifest.threshold.value)


def _joined(parts: Sequence[NDArray[np.integer]]) -> NDArray[np.integer]:
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _samples(state: State, dataset: DatasetManifest, splits: Sequence[Split]) -> list[Sample]:
    return read_samples(state.datasets / dataset.digest, dataset, *splits)


def _read_split(state: State, dataset: DatasetManifest, split: Split) -> SplitImages:
    return load_split(state.datasets / dataset.digest, dataset, split)


def _check(labels: NDArray[np.int64], dataset: DatasetManifest, left_out: int) -> None:
    bad = int(np.sum(labels != GOOD))
    if bad in (0, len(labels)):
        raise DataError(
            f"the test split of dataset {dataset.digest[:12]} has {bad} images that are not good and "
            f"{len(labels) - bad} good ones that neither version was fitted to ({left_out} are left out); a comparison "
            f"needs both: train a version on this dataset, or add photographs"
        )


# --- words ------------------------------------------------------------------------------------------------------------


def _compared(model: ServedModel, predictor: Predictor) -> ComparedVersion:
    manifest = predictor.manifest
    return ComparedVersion(model=model, threshold=manifest.threshold.value, dataset=manifest.dataset)


def _disagreements(judged: Judged) -> Iterator[Disagreement]:
    classes, a, b = judged.dataset.classes, judged.of_a, judged.of_b
    for row in np.flatnonzero(a.predicted != b.predicted).tolist():
        yield Disagreement(
            filename=judged.filenames[row],
            label=classes[judged.labels[row]],
            a=classes[a.predicted[row]],
            b=classes[b.predicted[row]],
            a_score=float(a.scores[row]),
            b_score=float(b.scores[row]),
        )
