"""The export: bundles that load, agree with Keras, repeat to the byte, and are mended or refused when they must be."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gitops import bundle
from gitops.contracts.model import BundleManifest, CrossValidationResult, OutOfFold, ReferenceSample
from gitops.contracts.project import Costs, CrossValidation
from gitops.errors import TrainingError
from ray_jobs import export as exporting
from ray_jobs import model
from ray_jobs.convert import embedding_projection, load, logits_of, write_engine
from ray_jobs.decision import calibrated_probabilities, choose_threshold
from ray_jobs.decoded import SplitImages, load_split
from ray_jobs.export import export
from ray_jobs.head import fit_head
from ray_jobs.stage import Stage
from serve.predictor import Predictor
from serve.preprocess import Pixels
from tests.bundles import brightness_model
from tests.stages import HEIGHT, SIZES, WIDTH, finish_training, make_stage

if TYPE_CHECKING:
    import keras

ROOT = Path(__file__).parents[2]
# Keras 3.15 reads variables in a way that NumPy 2 asks TensorFlow to change.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    stage = make_stage(tmp_path_factory.mktemp("export"))
    project = stage.project
    network = model.build(project.preprocessing, len(project.classes), project.training)
    fit(network, validation(stage))
    network.save(finish_training(stage))
    return stage


def exact(folder: Path) -> Predictor:
    """Also where the bundle computes in bf16 on this CPU."""
    return Predictor.load(bundle.open_folder(folder), inference_precision="f32")


def fit(network: "keras.Model", images: SplitImages) -> None:
    """Give an untrained network a head that tells the images apart."""
    import keras

    pooled = keras.Model(network.input, network.get_layer(model.POOLED_LAYER).output)
    features = np.asarray(pooled(images.images)).astype(np.float64)
    network.get_layer(model.LOGITS_LAYER).set_weights(fit_head(features, images.labels.astype(np.int32), 2))


@pytest.fixture(scope="module")
def digest(trained: Stage) -> str:
    return export(trained)


@pytest.fixture(scope="module")
def folder(trained: Stage, digest: str) -> Path:
    return trained.state.bundles / digest


@pytest.fixture(scope="module")
def manifest(folder: Path, digest: str) -> BundleManifest:
    return bundle.verify(folder, digest).manifest


def validation(stage: Stage) -> SplitImages:
    dataset = stage.dataset()
    return load_split(stage.state.datasets / dataset.digest, dataset, "validation")


def copy(stage: Stage, root: Path) -> Stage:
    """The same stage elsewhere, nothing exported from it."""
    shutil.copytree(stage.state.datasets, root / "state" / "datasets")
    shutil.copytree(stage.state.runs, root / "state" / "runs")
    shutil.copyfile(stage.project_file, root / "project.yaml")
    moved = Stage(stage.project, root / "project.yaml", stage.state.at(root / "state"))
    moved.run().bundle_file.unlink(missing_ok=True)
    return moved


def test_the_engine_answers_as_keras_does(trained: Stage, folder: Path) -> None:
    run, images = trained.run(), validation(trained).images
    logits = logits_of(load(run.folder / "model.keras"), images)
    expected = calibrated_probabilities(logits, BundleManifest.read(folder / "manifest.json").calibration)
    found = exact(folder).predict(images)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found[:, 1]) > 0.1  # it does tell images apart


def test_the_saved_model_serves_the_same(trained: Stage, folder: Path) -> None:
    import tensorflow as tf

    images = validation(trained).images
    served = tf.saved_model.load(str(folder / "saved_model")).signatures["serving_default"]
    assert served.structured_input_signature[1] == {"image": tf.TensorSpec((None, HEIGHT, WIDTH, 1), tf.uint8, "image")}
    found, predictor = served(image=tf.constant(images)), exact(folder)
    np.testing.assert_allclose(found["probabilities"].numpy(), predictor.predict(images), atol=1e-5)
    np.testing.assert_allclose(found["evidence"].numpy(), predictor.evidence(images), atol=1e-4)


def test_without_a_memory_the_evidence_is_what_the_head_adds_up(trained: Stage, folder: Path) -> None:
    import keras

    images = validation(trained).images
    network = load(trained.run().folder / "model.keras")
    features = np.asarray(keras.Model(network.input, network.get_layer("average_16").input)(images))
    evidence = exact(folder).evidence(images)
    assert evidence.shape == (len(images), *features.shape[1:3])  # the finest of the features that are pooled
    kernel, _ = network.get_layer(model.LOGITS_LAYER).get_weights()
    coarse = np.asarray(keras.Model(network.input, network.get_layer("average_32").input)(images))
    parts = np.split(kernel[:, 1] - kernel[:, 0], np.cumsum([96, 96, 128]))
    scale = BundleManifest.read(folder / "manifest.json").calibration.scale
    expected = features @ (parts[0] + parts[1]) + np.asarray(
        keras.ops.image.resize((coarse @ (parts[2] + parts[3]))[..., None], features.shape[1:3])
    ).squeeze(-1)
    np.testing.assert_allclose(evidence, expected * scale, atol=1e-3)


@pytest.mark.parametrize(
    ("shift", "of_probe", "taken"),
    [(0.0, 0.0, True), (0.04, 0.009, True), (0.06, 0.0, False), (0.0, 0.011, False), (0.2, 0.0, False)],
)
def test_bf16_is_taken_where_it_changes_next_to_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, shift: float, of_probe: float, taken: bool
) -> None:
    predictor, probe = exact(folder), exporting._probe_score

    class Quick:
        bundle = predictor.bundle
        inference_precision = "bf16"

        def predict(self, images: Pixels) -> NDArray[np.float32]:
            found = predictor.predict(images)
            found[:, 0] -= shift
            found[:, 1] += shift
            return found

    def score(asked: Any) -> float:
        return probe(predictor) + of_probe * isinstance(asked, Quick)

    images = np.full((3, HEIGHT, WIDTH, 1), 128, np.uint8)
    monkeypatch.setattr(predictor, "predict", lambda _: np.array([[0.2, 0.8], [0.9, 0.1], [0.5, 0.5]], np.float32))
    monkeypatch.setattr(predictor, "manifest", with_threshold(predictor.manifest, 0.25))
    monkeypatch.setattr(exporting, "_probe_score", score)
    monkeypatch.setattr(exporting, "computes_in", lambda precision: True)
    monkeypatch.setattr(Predictor, "load", lambda folder, inference_precision: Quick())
    assert (exporting._quickest(predictor, images).inference_precision == "bf16") == taken
    monkeypatch.setattr(exporting, "computes_in", lambda precision: False)
    assert exporting._quickest(predictor, images) is predictor


def with_threshold(manifest: BundleManifest, value: float) -> BundleManifest:
    return manifest.model_copy(update={"threshold": manifest.threshold.model_copy(update={"value": value})})


def test_the_manifest_says_what_was_made(trained: Stage, digest: str, manifest: BundleManifest) -> None:
    assert trained.run().bundle_file.read_text() == digest + "\n"
    assert manifest.dataset == trained.dataset().digest
    assert manifest.training == trained.project.training
    assert manifest.classes == ("good", "defective")
    assert manifest.agreement <= 1e-4
    assert set(manifest.frameworks) == {"keras", "tensorflow", "openvino", "opencv"}


def test_the_probe_is_the_engines_own(folder: Path, manifest: BundleManifest) -> None:
    assert Predictor.load(bundle.open_folder(folder)).probe() == pytest.approx(manifest.probe.score, abs=1e-4)


def test_the_threshold_is_chosen_on_validation_where_nothing_is_cross_validated(
    trained: Stage, folder: Path, manifest: BundleManifest
) -> None:
    images = validation(trained)
    scores = exact(folder).predict(images.images)[:, 1].astype(np.float64)
    chosen = choose_threshold(scores, images.labels != 0, trained.project.costs, "validation")
    assert manifest.threshold.value == pytest.approx(chosen.value, abs=1e-4)
    assert (manifest.threshold.split, manifest.threshold.method) == (chosen.split, chosen.method)


def with_folds(stage: Stage, folds: int) -> Stage:
    project = stage.project.model_copy(update={"cross_validation": CrossValidation(folds=folds)})
    return dataclasses.replace(stage, project=project)


def test_the_threshold_and_the_calibration_come_from_the_folds_where_there_are_some(
    trained: Stage, tmp_path: Path
) -> None:
    stage = with_folds(copy(trained, tmp_path), 2)
    run, random = stage.run(), np.random.default_rng(0)
    names = train_names(stage)
    predictions = tuple(
        OutOfFold(
            filename=names[number % len(names)],
            label=label,
            fold=number % 2,
            logits=(0.0, random.normal(8 * label - 2)),
        )
        for number, label in enumerate([0] * 60 + [1] * 40)
    )
    with pytest.raises(TrainingError, match="run `mergeline submit cross_validate`"):
        export(stage)
    result = CrossValidationResult(dataset=run.dataset.digest, folds=2, predictions=predictions)
    run.cross_validation_file.write_text(result.to_json())
    digest = export(stage)
    manifest = bundle.verify(stage.state.bundles / digest, digest).manifest
    assert manifest.threshold.split == "out-of-fold"
    # The logits' classes meet at 2, so the log-odds are moved by about that, times the scale.
    assert manifest.calibration.shift / manifest.calibration.scale == pytest.approx(2, abs=0.7)
    reference = ReferenceSample.read(stage.state.bundles / digest / manifest.reference)
    assert len(reference.labels) == 100
    assert None not in reference.embeddings  # the backbone is frozen: it was fitted to no image


def train_names(stage: Stage) -> tuple[str, ...]:
    dataset = stage.dataset()
    return load_split(stage.state.datasets / dataset.digest, dataset, "train").filenames


def test_the_reference_holds_what_was_judged_unseen(trained: Stage, folder: Path, manifest: BundleManifest) -> None:
    reference, images = ReferenceSample.read(folder / manifest.reference), validation(trained)
    assert set(reference.values) == {"score", "confidence", "exposure", "width"}  # the measures, but not the label
    judged, predictor = len(images.labels), Predictor.load(bundle.open_folder(folder))
    assert [len(values) for values in reference.values.values()] == [judged] * 4
    assert reference.values["exposure"].count(None) == 2  # the first of each class has none
    probabilities = exact(folder).predict(images.images)
    for name, expected in (("score", probabilities[:, 1]), ("confidence", probabilities.max(axis=1))):
        np.testing.assert_allclose(np.array(reference.values[name], np.float64), expected, atol=1e-3)
    decided = np.where(probabilities[:, 1] < manifest.threshold.value, "good", "defective")
    assert reference.labels == tuple(decided.tolist())
    np.testing.assert_allclose(np.array(reference.embeddings), predictor.embed(images.images), atol=1e-4)


def test_the_embeddings_are_a_projection_of_the_pooled_features(trained: Stage, folder: Path) -> None:
    import keras

    images, network = validation(trained).images, load(trained.run().folder / "model.keras")
    pooled = np.asarray(keras.Model(network.input, network.get_layer(model.POOLED_LAYER).output)(images))
    found = exact(folder).embed(images)
    np.testing.assert_allclose(found, pooled @ embedding_projection(pooled.shape[1]), rtol=1e-3, atol=1e-4)


def test_a_trained_network_has_no_embeddings_of_the_images_that_it_was_fitted_to(
    trained: Stage, tmp_path: Path
) -> None:
    stage = copy(trained, tmp_path)
    training = stage.project.training.model_copy(update={"backbone_rate": 0.1})
    project = stage.project.model_copy(update={"training": training, "cross_validation": CrossValidation(folds=2)})
    stage = dataclasses.replace(stage, project=project)
    finish_training(stage)
    shutil.copyfile(trained.run().folder / "model.keras", stage.run().folder / "model.keras")
    labels = load_split(stage.state.datasets / stage.dataset().digest, stage.dataset(), "train").labels.tolist()
    predictions = tuple(
        OutOfFold(filename=name, label=label, fold=label, logits=(0.0, 2.0 * label - 1))
        for name, label in zip(train_names(stage), labels, strict=True)
    )
    result = CrossValidationResult(dataset=stage.dataset().digest, folds=2, predictions=predictions)
    stage.run().cross_validation_file.write_text(result.to_json())
    reference = ReferenceSample.read(stage.state.bundles / export(stage) / "reference.json")
    unseen = len(validation(stage).labels)
    assert len(reference.labels) == unseen + len(labels)
    assert None not in reference.embeddings[:unseen]
    assert set(reference.embeddings[unseen:]) == {None}


def test_a_second_process_in_another_folder_makes_the_same_bundle(trained: Stage, digest: str, tmp_path: Path) -> None:
    other = copy(trained, tmp_path)
    options = ["--project", str(other.project_file), "--state", str(other.state.root)]
    done = subprocess.run(
        [sys.executable, "-m", "ray_jobs.export", *options],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "77"},
    )
    assert done.returncode == 0, done.stderr
    assert other.run().bundle_file.read_text().strip() == digest
    bundle.verify(other.state.bundles / digest, digest)


def test_a_second_export_of_one_process_makes_the_same_bundle(trained: Stage, digest: str, tmp_path: Path) -> None:
    assert export(copy(trained, tmp_path)) == digest


def test_no_path_of_this_machine_is_in_the_bundle(folder: Path) -> None:
    machine = re.compile(re.escape(str(folder.parents[2])).encode() + b"|/tmp/|/home/|/root/|/site-packages/")
    for file in folder.rglob("*"):
        assert file.is_dir() or not machine.search(file.read_bytes()), file


def test_running_again_does_nothing_and_says_so(
    trained: Stage, digest: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert export(trained) == digest
    assert "exported already" in capsys.readouterr().out
    assert (folder / "manifest.json").stat().st_mtime_ns == before


def test_other_costs_make_another_bundle(trained: Stage, digest: str, tmp_path: Path) -> None:
    other = copy(trained, tmp_path)
    assert export(other) == digest
    project = other.project.model_copy(update={"costs": Costs(missed_defect=50)})
    assert export(dataclasses.replace(other, project=project)) != digest


def test_a_damaged_bundle_is_mended(trained: Stage, digest: str, tmp_path: Path) -> None:
    other = copy(trained, tmp_path)
    damaged = other.state.bundles / digest
    shutil.copytree(trained.state.bundles / digest, damaged)
    other.run().bundle_file.write_text(digest + "\n")
    (damaged / "model.bin").write_bytes(b"cut")
    assert export(other) == digest
    bundle.verify(damaged, digest)
    assert [path.name for path in other.state.bundles.glob("[!.]*")] == [digest]


def test_what_a_killed_export_left_behind_is_removed(trained: Stage, digest: str, tmp_path: Path) -> None:
    other = copy(trained, tmp_path)
    (other.state.bundles / ".export.killed" / "bundle").mkdir(parents=True)
    assert export(other) == digest
    assert not (other.state.bundles / ".export.killed").exists()


def test_an_engine_that_disagrees_fails_the_export_and_leaves_nothing(
    trained: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = copy(trained, tmp_path)
    wrong = brightness_model(HEIGHT, WIDTH, salt=0.3)
    monkeypatch.setattr(exporting, "to_engine", lambda _, file: write_engine(wrong, file))
    with pytest.raises(TrainingError, match=r"the engine's probabilities differ from Keras's by 0\.\d+"):
        export(other)
    assert [path.name for path in other.state.bundles.iterdir()] == [".lock"]
    assert not other.run().bundle_file.exists()


def test_without_a_trained_model_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="run `mergeline submit train`"):
        export(make_stage(tmp_path))


def test_a_damaged_checkpoint_says_so(trained: Stage, tmp_path: Path) -> None:
    other = copy(trained, tmp_path)
    (other.run().folder / "model.keras").write_bytes(b"not a zip file")
    with pytest.raises(TrainingError, match=r"model\.keras cannot be loaded"):
        export(other)


def test_a_validation_split_of_one_class_is_refused(trained: Stage, tmp_path: Path) -> None:
    stage = make_stage(tmp_path, sizes={**SIZES, "validation": {"good": 4, "defective": 0}})
    shutil.copyfile(trained.run().folder / "model.keras", finish_training(stage))
    with pytest.raises(TrainingError, match="0 images that are not good and 4 good ones"):
        export(stage)
