"""Comparing two versions: real tiny bundles on a drawn dataset, what is left out, and what cannot be compared."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from gitops.contracts.base import Split
from gitops.contracts.comparison import Comparison
from gitops.contracts.model import CrossValidationResult, OutOfFold
from gitops.contracts.project import CrossValidation, Preprocessing
from gitops.contracts.serving import ServedModel
from gitops.errors import BundleError, DataError
from ray_jobs import compare as comparing
from ray_jobs.compare import compare, compare_and_draw, judge
from ray_jobs.dataset import Listing, Photograph, listing_file
from ray_jobs.decoded import load_split
from ray_jobs.stage import Stage
from serve.preprocess import Pixels, preprocess
from tests.bundles import expected_score, put_bundle
from tests.stages import SIZES, draw, make_stage, write_dataset

OTHER: dict[Split, dict[str, int]] = {
    "train": {"good": 3, "defective": 2},
    "validation": {"good": 4, "defective": 1},
    "test": {"good": 1, "defective": 1},
}
"""Of another dataset; every split begins with the same images."""
SHIFT = 0.5
"""Of version 2's scores: brighter parts than before count as defective no more."""


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    stage = make_stage(tmp_path)
    stage.state.bundles.mkdir(parents=True)
    return stage


def put(
    stage: Stage, version: str, salt: float = 0.0, *, dataset: str | None = None, **settings: object
) -> ServedModel:
    """A version whose bundle lies where the line keeps bundles; it was trained on the stage's dataset."""
    dataset = dataset or stage.dataset().digest
    digest = put_bundle(stage.state, version_salt=salt, dataset=dataset, **settings)
    return ServedModel(name="screw", version=version, uri=(stage.state.bundles / digest).as_uri(), sha256=digest)


def other_dataset(stage: Stage) -> str:
    """The digest of a dataset that shares images with the stage's, which stays the newest."""
    newest = stage.dataset().digest
    digest = write_dataset(stage, OTHER)
    stage.use_dataset(newest)
    return digest


def list_photographs(stage: Stage, folder: Path) -> dict[str, bytes]:
    """Write the drawn images as photographs, with the listing that the extraction would have made."""
    folder.mkdir(parents=True)
    found: list[Photograph] = []
    contents: dict[str, bytes] = {}
    for row in comparing._samples(stage.state, stage.dataset(), ("test",)):
        number = len([item for item in found if item.label == row.label])
        data = cv2.imencode(".png", draw(row.label, number))[1].tobytes()
        path = folder / f"{row.label}{number}.png"
        path.write_bytes(data)
        contents[row.sha256] = data
        found.append(Photograph(path=str(path), filename=path.name, label=row.label, sha256=row.sha256))
    listing_file(stage).parent.mkdir(parents=True, exist_ok=True)
    listing_file(stage).write_text(Listing(source="drawn", photographs=tuple(found)).to_json())
    return contents


# --- what it says -----------------------------------------------------------------------------------------------------


def test_two_bundles_on_the_same_images(stage: Stage) -> None:
    found, folder = compare_and_draw(stage, put(stage, "1"), put(stage, "2", SHIFT))
    assert (found.a.model.version, found.b.model.version) == ("1", "2")
    assert (found.dataset, found.images, found.left_out, found.warnings) == (stage.dataset().digest, 30, (), ())
    # By plain arithmetic on what was drawn: who is right about which image, and who has the higher score.
    drawn = [(label, draw(label, number)) for label, count in SIZES["test"].items() for number in range(count)]
    scores = {salt: [expected_score(pixels, salt) for _, pixels in drawn] for salt in (0.0, SHIFT)}
    bad = np.array([label == "defective" for label, _ in drawn])
    called = {salt: np.array(values) >= 0.5 for salt, values in scores.items()}
    right = {salt: flags == bad for salt, flags in called.items()}
    assert found.metrics["accuracy"].a == pytest.approx(27 / 30)
    assert found.metrics["accuracy"].b == pytest.approx(right[SHIFT].mean())
    assert found.metrics["recall"].b == pytest.approx((called[SHIFT] & bad).sum() / 10)
    assert found.metrics["auroc"].difference == pytest.approx(0), "a shift changes no order"
    assert found.mcnemar.only_a_right == int(np.sum(right[0.0] & ~right[SHIFT]))
    assert found.mcnemar.only_b_right == int(np.sum(right[SHIFT] & ~right[0.0]))
    differ = np.flatnonzero(called[0.0] != called[SHIFT])
    assert len(found.disagreements) == len(differ) > 0
    for item, row in zip(found.disagreements, differ, strict=True):
        assert item.label == drawn[row][0]
        assert (item.a, item.b) == ("defective", "good")
        assert (item.a_score, item.b_score) == pytest.approx((scores[0.0][row], scores[SHIFT][row]), abs=1e-6)
    assert folder == stage.state.root / "comparisons" / "screw" / "1-2"
    assert Comparison.read(folder / "comparison.json") == found
    picture = cv2.imread(str(folder / "comparison.png"))
    assert picture is not None
    assert picture.shape[1] > 1000


def test_comparing_again_gives_the_same_and_replaces_the_files(stage: Stage) -> None:
    first, second = put(stage, "1"), put(stage, "2", SHIFT)
    found, folder = compare_and_draw(stage, first, second)
    pictures = (folder / "comparison.png").read_bytes()
    (folder / "comparison.json").write_text("damaged")
    assert compare_and_draw(stage, first, second) == (found, folder)
    assert json.loads((folder / "comparison.json").read_text())["images"] == 30
    assert (folder / "comparison.png").read_bytes() == pictures
    assert compare(stage, first, second) == found


def test_the_summary_is_a_line_with_both_versions(stage: Stage) -> None:
    text = compare(stage, put(stage, "1"), put(stage, "2", SHIFT)).summary
    assert text.startswith("screw 2 against screw 1 on 30 held-out images: accuracy ")
    assert "against 0.9000" in text
    assert "\n" not in text


# --- what a version has seen ------------------------------------------------------------------------------------------


def test_what_a_version_was_fitted_to_is_left_out(stage: Stage) -> None:
    first, second = put(stage, "1", dataset=other_dataset(stage)), put(stage, "2", SHIFT)
    for pair in ((first, second), (second, first)):
        found = compare(stage, *pair)
        # Trained on good 0 to 2, chosen on good 0 to 3; and the first two defective ones.
        assert found.left_out == ("ok000.png", "ok001.png", "ok002.png", "ok003.png", "dent000.png", "scratch001.png")
        assert found.images == 24
        assert found.warnings == ()
        assert not {item.filename for item in found.disagreements} & set(found.left_out)


def test_photographs_that_came_since_are_judged_by_both(stage: Stage) -> None:
    project = stage.project.model_copy(update={"cross_validation": CrossValidation(folds=2)})
    stage = dataclasses.replace(stage, project=project)
    first, second = put(stage, "1", dataset=other_dataset(stage)), put(stage, "2", SHIFT)
    run = stage.run()
    run.folder.mkdir(parents=True)
    assert compare(stage, first, second).newcomers is None, "nobody knows how models of its kind did on them"
    samples = load_split(stage.state.datasets / run.dataset.digest, run.dataset, "train")
    wrong = "ok007.png"  # the only one that its folds misjudge
    said = tuple(
        OutOfFold(filename=name, label=label, fold=0, logits=(0, 9) if (label == 1) != (name == wrong) else (9, 0))
        for name, label in zip(samples.filenames, samples.labels.tolist(), strict=True)
    )
    result = CrossValidationResult(dataset=run.dataset.digest, folds=2, predictions=said)
    run.cross_validation_file.write_text(result.to_json())
    assert compare(stage, first, second).newcomers is None, "the run has made another version"
    run.bundle_file.write_text(second.sha256 + "\n")
    found = compare(stage, first, second).newcomers
    assert found is not None
    # Of 8 and 8 to train on, and 20 and 10 held out, the other dataset has the first 4 good and 2 defective ones.
    assert (found.images, found.held_out, found.labels) == (34, 24, {"good": 20, "defective": 14})
    assert found.not_judged == 14, "of 12 and 8 that chose the threshold"
    held_out = [("good", number) for number in range(4, 20)] + [("defective", number) for number in range(2, 10)]
    trained = [("good", number) for number in range(4, 8)] + [("defective", number) for number in range(2, 8)]
    assert found.a_right == sum(is_right(*one, 0.0) for one in held_out + trained)
    assert found.b_right == sum(is_right(*one, SHIFT) for one in held_out) + len(trained) - 1
    assert found.mcnemar.only_b_right - found.mcnemar.only_a_right == found.b_right - found.a_right
    assert "34 photographs that came since (20 good, 14 defective; 24 held out" in compare(stage, first, second).summary
    assert compare(stage, second, put(stage, "3", 0.1)).newcomers is None, "both know all"


def test_newcomers_that_look_like_older_ones_say_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    project = stage.project.model_copy(update={"cross_validation": CrossValidation(folds=2)})
    stage = dataclasses.replace(stage, project=project)
    first, second = put(stage, "1"), put(stage, "2", SHIFT)
    with monkeypatch.context() as patch:
        patch.setattr("tests.stages.draw", lambda label, number: np.clip(draw(label, number), 0, 253) + 2)
        digest = write_dataset(stage, {**SIZES, "test": {"good": 21, "defective": 10}})
    second = put(stage, "3", SHIFT, dataset=digest)
    run = stage.run()
    run.folder.mkdir(parents=True)
    run.bundle_file.write_text(second.sha256 + "\n")
    train = load_split(stage.state.datasets / digest, run.dataset, "train")
    said = tuple(
        OutOfFold(filename=name, label=label, fold=0, logits=(0, 1))
        for name, label in zip(train.filenames, train.labels.tolist(), strict=True)
    )
    run.cross_validation_file.write_text(CrossValidationResult(dataset=digest, folds=2, predictions=said).to_json())
    found = comparing._newcomers(
        stage, second, *(comparing._load(stage, model, run.dataset) for model in (first, second))
    )
    assert found is not None
    assert found.left_out > 0
    assert found.images <= 1, "the image that is really another one"


def is_right(label: str, number: int, salt: float) -> bool:
    """Whether a version is right about what was drawn."""
    return (expected_score(draw(label, number), salt) >= 0.5) == (label == "defective")


def test_lookalikes_of_what_a_version_was_fitted_to_are_left_out(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def recompressed(label: str, number: int) -> Pixels:
        return np.clip(draw(label, number).astype(np.int16) + 2, 0, 255).astype(np.uint8)

    with monkeypatch.context() as patch:
        patch.setattr("tests.stages.draw", recompressed)
        digest = other_dataset(stage)
    found = compare(stage, put(stage, "1", dataset=digest), put(stage, "2", SHIFT))
    assert len(found.left_out) == 6


def test_a_dataset_that_is_gone_is_a_warning(stage: Stage) -> None:
    gone = other_dataset(stage)
    for path in (stage.state.datasets / gone).glob("train-*"):
        path.unlink()
    for dataset in (gone, "e" * 64):
        found = compare(stage, put(stage, "1", dataset=dataset), put(stage, "2", SHIFT))
        assert (found.images, found.left_out) == (30, ())
        (warning,) = found.warnings
        assert f"screw 1 was trained on dataset {dataset[:12]}, which is no longer in" in warning


def test_where_nothing_is_new_to_both_there_is_no_comparison(stage: Stage) -> None:
    newest = stage.dataset().digest
    everything = write_dataset(stage, {**OTHER, "train": {"good": 20, "defective": 10}})
    stage.use_dataset(newest)
    with pytest.raises(DataError, match=r"0 images that are not good and 0 good ones .*\(30 are left out\)"):
        compare(stage, put(stage, "1", dataset=everything), put(stage, "2", SHIFT))


# --- other inputs than the dataset's ----------------------------------------------------------------------------------


def test_a_version_with_other_inputs_judges_the_photographs(stage: Stage, tmp_path: Path) -> None:
    contents = list_photographs(stage, tmp_path / "photographs")
    wide = put(stage, "2", SHIFT, height=64, width=160)
    found = judge(stage, put(stage, "1"), wide)
    settings = Preprocessing(height=64, width=160)
    digests = [row.sha256 for row in comparing._samples(stage.state, stage.dataset(), ("test",))]
    expected = [expected_score(preprocess(contents[digest], settings).pixels, SHIFT) for digest in digests]
    assert found.of_b.scores == pytest.approx(expected, abs=1e-5)
    stored = [draw(label, number) for label, count in SIZES["test"].items() for number in range(count)]
    assert found.of_a.scores == pytest.approx([expected_score(pixels) for pixels in stored], abs=1e-5)


def test_photographs_that_are_not_there_are_named(stage: Stage, tmp_path: Path) -> None:
    first, wide = put(stage, "1"), put(stage, "2", height=64, width=160)
    with pytest.raises(DataError, match="has no photographs yet"):
        compare(stage, first, wide)
    list_photographs(stage, tmp_path / "photographs")
    (tmp_path / "photographs" / "good3.png").write_bytes(b"another one")
    with pytest.raises(DataError, match=r"good3\.png is not the one of the dataset"):
        compare(stage, first, wide)
    (tmp_path / "photographs" / "good3.png").unlink()
    with pytest.raises(DataError, match=r"good3\.png cannot be read"):
        compare(stage, first, wide)
    listing = Listing.read(listing_file(stage))
    shorter = listing.model_copy(update={"photographs": listing.photographs[2:]})
    listing_file(stage).write_text(shorter.to_json())
    with pytest.raises(DataError, match=r"2 of the photographs are not in the newest listing: run `mergeline submit"):
        compare(stage, first, wide)


# --- what cannot be compared ------------------------------------------------------------------------------------------


def test_a_version_is_not_compared_with_itself(stage: Stage) -> None:
    first = put(stage, "1")
    with pytest.raises(DataError, match="screw 1 and screw 1 have the same bundle"):
        compare(stage, first, first)


def test_versions_of_other_classes_are_not_compared(stage: Stage) -> None:
    with pytest.raises(DataError, match=r"screw 2 knows the classes ok, broken, and dataset .* has good, defective"):
        compare(stage, put(stage, "1"), put(stage, "2", classes=("ok", "broken")))


def test_a_bundle_that_is_gone_is_named(stage: Stage) -> None:
    first, second = put(stage, "1"), put(stage, "2", SHIFT)
    gone = second.model_copy(update={"uri": "file:///nowhere/bundle"})
    with pytest.raises(BundleError, match="no bundle in /nowhere/bundle"):
        compare(stage, first, gone)


def test_a_damaged_dataset_is_named(stage: Stage) -> None:
    (stage.state.datasets / stage.dataset().digest / "test-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"dataset .* cannot be read .*: remove .*/datasets/.* and run the ETL again"):
        compare(stage, put(stage, "1"), put(stage, "2", SHIFT))
