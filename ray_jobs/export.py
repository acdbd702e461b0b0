"""Export: a trained checkpoint becomes a model bundle, addressed by its SHA-256.

python -m ray_jobs.export [--project project.yaml] [--state .mergeline]
"""

import importlib.metadata
import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from gitops import bundle
from gitops.contracts.model import BundleManifest, Calibration, EvidenceGrid, Probe, ThresholdChoice, TrainingResult
from gitops.errors import BundleError, TrainingError
from gitops.state import locked, write_atomically
from ray_jobs.convert import load, logits_of, to_engine, to_saved_model
from ray_jobs.cross_validate import result_of
from ray_jobs.decision import calibrate, calibrated_probabilities, calibrated_scores, choose_threshold
from ray_jobs.decoded import load_split
from ray_jobs.model import grid_of
from ray_jobs.probe import draw_probe
from ray_jobs.reference import DIGITS, Said, make_reference
from ray_jobs.stage import Run, Stage, arguments, open_stage, recorded, report_progress, run_main
from serve.predictor import GOOD, Judgement, Predictor, computes_in, decide
from serve.preprocess import Pixels

if TYPE_CHECKING:
    import keras

LARGEST_DISAGREEMENT = 1e-4
"""Between a probability by the engine and the same by Keras; above it the export fails."""
LARGEST_CHANGE = 0.05
"""Of a probability by computing in bf16 instead of f32; above it the bundle stays with f32."""
ENGINE_FILE, SAVED_MODEL, REFERENCE, PROBE = "model.xml", "saved_model", "reference.json", "probe.png"
AGREEMENT_IMAGES, PRECISION_IMAGES = 128, 512
"""Most images on which engine and Keras are compared, and bf16 and f32."""
_DRAFT, _INPUTS = ".export.", "bundle.inputs"
_FRAMEWORKS = {
    "keras": ("keras",),
    "tensorflow": ("tensorflow-cpu", "tensorflow"),
    "openvino": ("openvino",),
    "opencv": ("opencv-python-headless",),
}
"""By name, the distributions that it may come from."""


@recorded("export")
def export(stage: Stage) -> str:
    """Make the bundle of the current run's best checkpoint.

    Returns:
        The bundle's digest; the bundle is `state.bundles/<digest>`.

    Raises:
        TrainingError: nothing is trained yet, the validation split lacks good or other images, or the engine's
            outputs are not Keras's.
    """
    run = stage.run()
    inputs = run.inputs_of(stage.project.costs.model_dump(), stage.project.cross_validation.model_dump())
    if (done := _done(stage, run, inputs)) is not None:
        print(f"export: {run.id} is exported already, as bundle {done[:12]}: nothing to do")
        return done
    if not run.result_file.exists():
        raise TrainingError(
            f"run {run.id} of {stage.project.name} has no trained model yet: run `mergeline submit train`"
        )
    with _alone(stage.state.bundles), tempfile.TemporaryDirectory(prefix=_DRAFT, dir=stage.state.bundles) as temporary:
        folder = Path(temporary) / "bundle"
        folder.mkdir()
        digest = _make(stage, run, folder)
        _put(folder, stage.state.bundles / digest, Path(temporary) / "damaged")
    write_atomically(run.folder / _INPUTS, inputs + "\n")
    write_atomically(run.bundle_file, digest + "\n")
    print(f"export: bundle {digest[:12]} in {stage.state.bundles / digest}")
    return digest


@contextmanager
def _alone(bundles: Path) -> Iterator[None]:
    """Keep other exports of this state waiting; what killed ones left behind is removed."""
    with locked(bundles / ".lock"):
        for leftover in bundles.glob(f"{_DRAFT}*"):
            shutil.rmtree(leftover)
        yield


def _done(stage: Stage, run: Run, inputs: str) -> str | None:
    """The digest of the run's bundle, if it is there, whole, and made of the same inputs."""
    try:
        digest = run.bundle_file.read_text().strip()
        if (run.folder / _INPUTS).read_text().strip() != inputs:
            return None
        bundle.verify(stage.state.bundles / digest, digest)
    except (OSError, BundleError):
        return None
    return digest


def _put(folder: Path, target: Path, aside: Path) -> None:
    """Move the bundle to its place; what lies there already stays if it is whole, as it is then the same."""
    try:
        bundle.verify(target, target.name)
    except BundleError:
        if target.exists():
            target.rename(aside)
        folder.rename(target)


@dataclass(frozen=True)
class _UnseenJudgements:
    """What was said of images that the model, or its like, has not seen."""

    logits: NDArray[np.float64]
    labels: NDArray[np.int64]
    filenames: tuple[str, ...]
    split: Literal["validation", "out-of-fold"]


def _make(stage: Stage, run: Run, folder: Path) -> str:
    result = TrainingResult.read(run.result_file)
    shards = stage.state.datasets / run.dataset.digest
    report_progress(0, 3, "converting the model")
    model = load(run.folder / result.checkpoint)
    judged = _judged(stage, run, model, shards)
    calibration = calibrate(judged.logits, judged.labels)
    scores = calibrated_scores(judged.logits, calibration)
    has_validation = any(run.dataset.counts["validation"].values())
    images = load_split(shards, run.dataset, "validation" if has_validation else "train").images[:AGREEMENT_IMAGES]
    expected = to_saved_model(model, result.training, calibration, folder / SAVED_MODEL, images)
    to_engine(folder / SAVED_MODEL, folder / ENGINE_FILE)
    (folder / PROBE).write_bytes(draw_probe())
    threshold = choose_threshold(scores, judged.labels != GOOD, stage.project.costs, judged.split)
    # Agreement, the probe's score and the embeddings are the engine's own, by the very code that serves: so a draft is
    # loaded first.
    (folder / REFERENCE).touch()
    draft = _draft(stage, run, result, grid_of(model, result.training), calibration, threshold)
    bundle.seal(folder, draft)
    report_progress(1, 3, "comparing the engine with Keras")
    exact = Predictor.load(bundle.open_folder(folder))
    agreement = _agreement(expected, exact.predict(images), run.id)
    predictor = _quickest(exact, load_split(shards, run.dataset, "train").images[:PRECISION_IMAGES])
    said = Said(judged.filenames, calibrated_probabilities(judged.logits, calibration))
    (folder / REFERENCE).write_text(make_reference(stage, run, judged.split, said, predictor).to_json())
    manifest = draft.model_copy(
        update={
            "agreement": agreement,
            "inference_precision": predictor.inference_precision,
            "probe": draft.probe.model_copy(update={"score": _probe_score(predictor)}),
        }
    )
    report_progress(2, 3, "asking the bundle its probe")
    digest = bundle.seal(folder, manifest)
    Predictor.load(bundle.open_folder(folder)).probe()
    report_progress(3, 3, f"bundle {digest[:12]}")
    return digest


def _judged(stage: Stage, run: Run, model: "keras.Model", shards: Path) -> _UnseenJudgements:
    """The out-of-fold judgements where the project cross-validates, else the model's own on the validation split."""
    folds = stage.project.cross_validation.folds
    if folds:
        found = result_of(run, folds)
        if found is None:
            raise TrainingError(f"run {run.id} is not cross-validated yet: run `mergeline submit cross_validate`")
        logits = np.array([prediction.logits for prediction in found.predictions])
        labels = np.array([prediction.label for prediction in found.predictions])
        names = tuple(prediction.filename for prediction in found.predictions)
        return _UnseenJudgements(logits, labels, names, "out-of-fold")
    validation = load_split(shards, run.dataset, "validation")
    bad = validation.labels != GOOD
    if bad.all() or not bad.any():
        raise TrainingError(
            f"the validation split of dataset {run.dataset.digest[:12]} has {int(bad.sum())} images that are not good "
            f"and {int((~bad).sum())} good ones; a threshold needs both: raise `split.validation` or change "
            f"`split.seed` in the project file"
        )
    return _UnseenJudgements(logits_of(model, validation.images), validation.labels, validation.filenames, "validation")


def _draft(
    stage: Stage,
    run: Run,
    result: TrainingResult,
    grid: EvidenceGrid,
    calibration: Calibration,
    threshold: ThresholdChoice,
) -> BundleManifest:
    return BundleManifest(
        name=stage.project.name,
        classes=run.dataset.classes,
        preprocessing=run.dataset.preprocessing,
        threshold=threshold,
        calibration=calibration,
        engine="openvino",
        engine_file=ENGINE_FILE,
        saved_model=SAVED_MODEL,
        reference=REFERENCE,
        evidence=grid,
        probe=Probe(path=PROBE, score=0.5),
        agreement=0.0,
        dataset=run.dataset.digest,
        training=result.training,
        frameworks=_versions(),
        files=(),
    )


def _versions() -> dict[str, str]:
    return {name: next(filter(None, map(_version_of, packages)), "unknown") for name, packages in _FRAMEWORKS.items()}


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


# --- figures ----------------------------------------------------------------------------------------------------------


def _agreement(expected: NDArray[np.float32], found: NDArray[np.float32], run_id: str) -> float:
    """The largest difference, rounded up to a power of ten: its digits are the CPU's, not the model's."""
    largest = float(np.max(np.abs(expected.astype(np.float64) - found)))
    if not largest <= LARGEST_DISAGREEMENT:  # written so that NaN fails
        raise TrainingError(
            f"run {run_id}: the engine's probabilities differ from Keras's by {largest:.2g}, "
            f"more than {LARGEST_DISAGREEMENT:g}: try another version of OpenVINO, or leave out the layer that it "
            f"computes otherwise"
        )
    print(f"export: the engine's probabilities differ from Keras's by at most {largest:.1e}")
    return float(10.0 ** math.ceil(math.log10(max(largest, 1e-9))))


def _quickest(exact: Predictor, images: Pixels) -> Predictor:
    """The same bundle in bf16, where this CPU has it and no decision on the images changes by it; else as it is.

    bf16 takes half of the time, and where the CPU has none the bundle computes in f32: what was compared here.
    """
    if not computes_in("bf16"):
        return exact
    quick, threshold = Predictor.load(exact.bundle, inference_precision="bf16"), exact.manifest.threshold.value
    before, after = exact.predict(images), quick.predict(images)
    moved = int(np.sum(decide(before, threshold) != decide(after, threshold)))
    largest = float(np.max(np.abs(before - after)))
    of_probe = abs(_probe_score(exact) - _probe_score(quick))
    # Other CPUs must pass the same probe, each in its precision.
    taken = moved == 0 and largest <= LARGEST_CHANGE and of_probe <= exact.manifest.probe.tolerance / 2
    print(
        f"export: in bf16 {moved} of {len(images)} decisions change, probabilities by at most {largest:.3f}, the "
        f"probe's score by {of_probe:.3f}: {'bf16 is taken' if taken else 'f32 stays'}"
    )
    return quick if taken else exact


def _probe_score(predictor: Predictor) -> float:
    answer = predictor.judge([(predictor.bundle.folder / PROBE).read_bytes()])[0]
    if not isinstance(answer, Judgement):
        raise TrainingError(f"the probe image cannot be used: {answer}")
    return round(answer.score, DIGITS)


def main() -> None:
    """Run the stage as a program."""
    export(open_stage(arguments("Export the trained model as a bundle.").parse_args()))


if __name__ == "__main__":
    run_main(main)
