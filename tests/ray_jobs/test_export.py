"""The export: bundles that load, agree with Keras, repeat to the byte, and are mended or refused when they must be."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gitops import bundle
from gitops.errors import TrainingError
from gitops.manifest import BundleManifest, ReferenceStatistics
from ray_jobs import export as exporting
from ray_jobs import model
from ray_jobs.convert import write_engine
from ray_jobs.etl import SplitImages, load_split
from ray_jobs.export import choose_threshold, distribution, export
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
    spread_out(network, validation(stage).images)
    network.save(finish_training(stage))
    return stage


def spread_out(network: "keras.Model", images: Pixels) -> None:
    """Give an untrained head answers on both sides of the middle."""
    head = network.get_layer(model.LOGITS_LAYER)
    kernel, bias = head.get_weights()
    logits = np.asarray(network(images))
    scale = 1 / logits.std(axis=0)
    head.set_weights([kernel * scale, bias - logits.mean(axis=0) * scale])


@pytest.fixture(scope="module")
def digest(trained: Stage) -> str:
    return export(trained)


@pytest.fixture(scope="module")
def folder(trained: Stage, digest: str) -> Path:
    return trained.state.bundles / digest


@pytest.fixture(scope="module")
def manifest(folder: Path, digest: str) -> BundleManifest:
    return bundle.verify(folder, digest)


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
    import keras
    import tensorflow as tf

    run, images = trained.run(), validation(trained).images
    network = keras.saving.load_model(run.folder / "model.keras")
    expected = tf.nn.softmax(network(images)).numpy()
    found = Predictor.load(folder).predict(images)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found[:, 1]) > 0.1  # it does tell images apart


def test_the_saved_model_serves_the_same(trained: Stage, folder: Path) -> None:
    import tensorflow as tf

    images = validation(trained).images
    served = tf.saved_model.load(str(folder / "saved_model")).signatures["serving_default"]
    assert served.structured_input_signature[1] == {"image": tf.TensorSpec((None, HEIGHT, WIDTH, 1), tf.uint8, "image")}
    found = served(image=tf.constant(images))["probabilities"].numpy()
    np.testing.assert_allclose(found, Predictor.load(folder).predict(images), atol=1e-5)


def test_the_manifest_says_what_was_made(trained: Stage, digest: str, manifest: BundleManifest) -> None:
    assert trained.run().bundle_file.read_text() == digest + "\n"
    assert manifest.dataset == trained.dataset().digest
    assert manifest.training == trained.project.training
    assert manifest.classes == ("good", "defective")
    assert manifest.agreement <= 1e-4
    assert set(manifest.frameworks) == {"keras", "tensorflow", "openvino", "opencv"}


def test_the_probe_and_the_threshold_are_the_engines_own(
    trained: Stage, folder: Path, manifest: BundleManifest
) -> None:
    predictor = Predictor.load(folder)
    assert predictor.probe() == pytest.approx(manifest.probe.score, abs=1e-4)
    images = validation(trained)
    scores = predictor.predict(images.images)[:, 1]
    chosen = choose_threshold(scores, images.labels != 0)
    assert manifest.threshold.value == pytest.approx(chosen.value, abs=1e-6)
    assert manifest.threshold.split == "validation"
    assert "balanced accuracy" in manifest.threshold.method


def test_the_reference_holds_measures_and_scores(folder: Path, manifest: BundleManifest) -> None:
    reference = ReferenceStatistics.read(folder / manifest.reference)
    held_in = sum(SIZES["train"].values()) + sum(SIZES["validation"].values())
    assert set(reference.measures) == {"brightness", "width"}  # the numbers, but not the label
    assert reference.measures["brightness"].count == held_in - 4  # the first of each class and split has none
    assert reference.scores.count == sum(SIZES["validation"].values())


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


def test_a_damaged_bundle_is_mended(trained: Stage, digest: str, tmp_path: Path) -> None:
    other = copy(trained, tmp_path)
    damaged = other.state.bundles / digest
    shutil.copytree(trained.state.bundles / digest, damaged)
    other.run().bundle_file.write_text(digest + "\n")
    (damaged / "model.bin").write_bytes(b"cut")
    assert export(other) == digest
    bundle.verify(damaged, digest)
    assert [path.name for path in other.state.bundles.iterdir()] == [digest]


def test_an_engine_that_disagrees_fails_the_export_and_leaves_nothing(
    trained: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = copy(trained, tmp_path)
    wrong = brightness_model(HEIGHT, WIDTH, salt=0.3)
    monkeypatch.setattr(exporting, "to_engine", lambda _, file: write_engine(wrong, file))
    with pytest.raises(TrainingError, match=r"the engine's probabilities differ from Keras's by 0\.\d+"):
        export(other)
    assert list(other.state.bundles.iterdir()) == []
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


# --- the threshold ----------------------------------------------------------------------------------------------------


def choose(good: list[float], bad: list[float]) -> float:
    flags = np.array([False] * len(good) + [True] * len(bad))
    return choose_threshold(np.array([*good, *bad]), flags).value


def test_the_even_threshold_is_kept_where_the_data_do_not_speak_against_it() -> None:
    assert choose([0.1, 0.2], [0.6, 0.9]) == 0.5
    # 0.7 would be right once more, which four images of either class do not prove.
    assert choose([0.1, 0.1, 0.1, 0.5], [0.3, 0.9, 0.9, 0.9]) == 0.5


def test_clear_data_move_the_threshold() -> None:
    assert choose([0.05] * 50, [0.2] * 20) == pytest.approx(0.125)
    assert choose([0.7] * 50, [0.9] * 20) == pytest.approx(0.8)


def test_the_larger_class_does_not_weigh_more() -> None:
    # Calling all good would be right for 90 %, and finds nothing.
    assert choose([0.1] * 16 + [0.4, 0.4], [0.3, 0.5]) == pytest.approx(0.2)


def test_scores_that_say_nothing_still_give_a_threshold() -> None:
    assert 0 <= choose([0.0, 0.0], [0.0]) <= 1
    assert 0 <= choose([1.0], [1.0, 1.0]) <= 1


def test_a_distribution_ignores_what_is_missing() -> None:
    found = distribution(np.array([3.0, np.nan, 1.0, 2.0]))
    assert found.count == 3
    assert (found.quantiles[0], found.quantiles[50], found.quantiles[-1]) == (1.0, 2.0, 3.0)
    assert distribution(np.array([np.nan])).quantiles == ()
