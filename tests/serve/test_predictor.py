"""The predictor: scores, labels, bad images among good ones, threads, probes, and bundles that cannot be loaded."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from gitops import bundle
from gitops.contracts.model import InferencePrecision
from gitops.errors import BundleError
from ray_jobs.probe import draw_probe
from serve.predictor import Judgement, Predictor, computes_in, decide, scores_of
from serve.preprocess import ImageError, Pixels, decode, find_part
from tests.bundles import CELL, CLASSES, THRESHOLD, expected_score, make_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    make_bundle(folder, version_salt=0.25)
    return folder


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return Predictor.load(bundle.open_folder(folder), threads=2)


def png(brightness: int, size: int = 80) -> bytes:
    return cv2.imencode(".png", np.full((size, size), brightness, np.uint8))[1].tobytes()


def inputs(count: int) -> Pixels:
    return np.random.default_rng(1).integers(0, 256, (count, 32, 64, 1), dtype=np.uint8)


def change(folder: Path, target: Path, **fields: object) -> Path:
    """A copy of a bundle whose manifest says something else."""
    shutil.copytree(folder, target)
    manifest = json.loads((target / "manifest.json").read_text())
    manifest.update(fields)
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


def test_predict_gives_the_probabilities_that_plain_arithmetic_gives(predictor: Predictor) -> None:
    batch = inputs(37)  # more than two turns
    probabilities = predictor.predict(batch)
    assert probabilities.shape == (37, 2)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities[:, 1], [expected_score(image, 0.25) for image in batch], atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_predict_takes_no_images(predictor: Predictor) -> None:
    assert predictor.predict(inputs(0)).shape == (0, 2)


def test_predict_refuses_other_shapes_and_types(predictor: Predictor) -> None:
    with pytest.raises(
        ValueError, match=r"expected uint8 of shape \(n, 32, 64, 1\), got uint8 of shape \(1, 64, 32, 1\)"
    ):
        predictor.predict(np.zeros((1, 64, 32, 1), np.uint8))
    with pytest.raises(ValueError, match="got float32"):
        predictor.predict(np.zeros((1, 32, 64, 1), np.float32))


def test_an_answer_is_not_overwritten_by_the_next_one(predictor: Predictor) -> None:
    batch = inputs(2)
    first = predictor.predict(batch[:1])
    kept = first.copy()
    predictor.predict(batch[1:])
    np.testing.assert_array_equal(first, kept)


def test_many_threads_get_their_own_answers(predictor: Predictor) -> None:
    batch = inputs(400)
    expected = predictor.predict(batch)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda row: predictor.predict(batch[row : row + 1])[0], range(len(batch))))
    np.testing.assert_allclose(answers, expected, atol=1e-7)


class Engine:
    """Stands for a compiled model that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def create_infer_request(self) -> "Engine":
        return self

    def infer(self, batch: dict[str, Pixels], *, share_inputs: bool) -> dict[str, np.ndarray]:
        self.calls += 1
        count = len(batch["image"])
        return {
            "probabilities": np.full((count, 2), 0.5),
            "evidence": np.zeros((count, 1, 1)),
            "embedding": np.zeros((count, 2)),
        }


def test_a_call_that_is_alone_gets_all_threads(predictor: Predictor) -> None:
    many, alone = Engine(), Engine()
    held = Predictor(predictor.bundle, many, alone, "f32")
    held.predict(inputs(1))
    assert (many.calls, alone.calls) == (0, 1)
    with held._call():  # a request that still decodes
        held.predict(inputs(1))
    assert (many.calls, alone.calls) == (1, 1)
    held.predict(inputs(1))
    assert (many.calls, alone.calls) == (1, 2)


def test_judge_reports_each_bad_image_and_keeps_the_order(predictor: Predictor) -> None:
    answers = predictor.judge([png(230), b"", png(20), b"no image", png(200)])
    assert [type(answer) for answer in answers] == [Judgement, ImageError, Judgement, ImageError, Judgement]
    assert [answer.label for answer in answers if isinstance(answer, Judgement)] == ["good", "defective", "good"]


def test_judge_refuses_too_many_pixels(predictor: Predictor) -> None:
    small, large = predictor.judge([png(230, 80), png(230, 81)], max_pixels=6400)
    assert isinstance(small, Judgement)
    assert isinstance(large, ImageError)
    assert large.status == 413


def test_judge_of_nothing_but_bad_images_and_of_nothing(predictor: Predictor) -> None:
    assert [type(answer) for answer in predictor.judge([b"x", b""])] == [ImageError, ImageError]
    assert predictor.judge([]) == []


def test_a_judgement_is_whole(predictor: Predictor) -> None:
    plain, drawn = predictor.judge([png(20), draw_probe()])
    assert isinstance(plain, Judgement)
    assert isinstance(drawn, Judgement)
    assert tuple(plain.probabilities) == CLASSES
    assert plain.score == pytest.approx(plain.probabilities["defective"], abs=1e-6)
    assert plain.score == pytest.approx(expected_score(np.array([20], np.uint8), 0.25), abs=1e-6)
    assert plain.threshold == THRESHOLD
    assert not plain.part_found
    assert drawn.part_found


def test_a_score_at_the_threshold_is_not_good() -> None:
    probabilities = np.array([[0.75, 0.25], [0.76, 0.24]])
    assert decide(probabilities, 0.25).tolist() == [1, 0]


def test_among_several_defects_the_most_probable_is_named() -> None:
    probabilities = np.array([[0.4, 0.1, 0.3, 0.2], [0.4, 0.3, 0.1, 0.2], [0.9, 0.02, 0.05, 0.03]])
    assert decide(probabilities, 0.5).tolist() == [2, 1, 0]
    np.testing.assert_allclose(scores_of(probabilities), [0.6, 0.6, 0.1])


def test_a_score_stays_a_probability_where_rounding_leaves_the_range() -> None:
    assert scores_of(np.array([[1.0000001, 0.0], [-1e-9, 1.0]], np.float32)).tolist() == [0.0, 1.0]


def test_the_drawn_probe_is_a_part_and_always_the_same() -> None:
    gray = cv2.imdecode(np.frombuffer(draw_probe(), np.uint8), cv2.IMREAD_GRAYSCALE)
    part = find_part(np.asarray(gray, np.uint8))
    assert part is not None
    assert part.length > 2 * part.breadth
    assert draw_probe() == draw_probe()


def test_a_bundle_computes_in_bf16_where_the_cpu_can(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = change(folder, tmp_path / "quick", inference_precision="bf16")
    here: InferencePrecision = "bf16" if computes_in("bf16") else "f32"
    cases: list[tuple[Path, InferencePrecision | None, InferencePrecision]] = [
        (folder, None, "f32"),
        (quick, None, here),
        (folder, "bf16", here),
        (quick, "f32", "f32"),
    ]
    for place, asked, found in cases:
        predictor = Predictor.load(bundle.open_folder(place), inference_precision=asked)
        engines = (predictor._many, predictor._alone)
        assert {engine.get_property("INFERENCE_PRECISION_HINT").to_string() for engine in engines} == {found}
        assert predictor.inference_precision == found
        predictor.probe()
    monkeypatch.setattr("serve.predictor.computes_in", lambda precision: precision == "f32")
    assert Predictor.load(bundle.open_folder(quick)).inference_precision == "f32"


def test_the_probe_answers_as_it_did_at_the_export(predictor: Predictor) -> None:
    assert predictor.probe() == pytest.approx(predictor.manifest.probe.score, abs=1e-4)


def test_a_probe_that_answers_otherwise_is_an_error(folder: Path, tmp_path: Path) -> None:
    probe = {"path": "probe.png", "score": 0.99, "tolerance": 0.02}
    with pytest.raises(BundleError, match=r"scores 0\.\d+ here, and 0.9900 where it was exported"):
        Predictor.load(bundle.open_folder(change(folder, tmp_path / "b", probe=probe))).probe()


def test_bundles_of_other_salts_have_other_digests_and_scores(tmp_path: Path) -> None:
    digests = [make_bundle(tmp_path / str(salt), version_salt=salt) for salt in (0.0, 0.5)]
    assert len(set(digests)) == 2
    first, second = (Predictor.load(bundle.open_folder(tmp_path / str(salt))) for salt in (0.0, 0.5))
    assert [first.digest, second.digest] == digests
    assert abs(first.probe() - second.probe()) > 0.05


def test_the_same_salt_gives_the_same_digest(folder: Path, tmp_path: Path) -> None:
    assert make_bundle(tmp_path / "again", version_salt=0.25) == bundle.digest(folder)


def test_an_engine_file_that_is_no_model_is_refused_with_what_to_do(folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "b")
    (broken / "model.xml").write_text("<net>")
    files = [file.model_dump() for file in bundle.list_files(broken) if file.path != "manifest.json"]
    change(broken, tmp_path / "c", files=files)
    with pytest.raises(
        BundleError, match=r"cannot load model\.xml \(made by .*\): .*Export the model again"
    ) as refused:
        Predictor.load(bundle.open_folder(tmp_path / "c"))
    assert "Exception from" not in str(refused.value), "a user has no use for places in OpenVINO's source"
    assert "{" not in str(refused.value)


def test_an_engine_of_another_size_is_refused(folder: Path, tmp_path: Path) -> None:
    wrong = change(folder, tmp_path / "b", preprocessing={"height": 64, "width": 64})
    with pytest.raises(BundleError, match=r"should have .*'image': '−1×64×64×1'"):
        Predictor.load(bundle.open_folder(wrong))


# --- reasons ----------------------------------------------------------------------------------------------------------


def test_the_evidence_is_where_the_network_looks(predictor: Predictor) -> None:
    images = np.full((2, 32, 64, 1), 255, np.uint8)
    images[1, 8:16, 40:48] = 0  # the tiny bundle calls dark what is not good
    evidence = predictor.evidence(images)
    assert evidence.shape == (2, 32 // CELL, 64 // CELL)
    assert np.all(evidence[0] == 0)
    assert np.unravel_index(evidence[1].argmax(), evidence[1].shape) == (1, 5)


def test_an_explanation_is_the_judgement_and_a_picture_as_large_as_the_photograph(predictor: Predictor) -> None:
    photograph = draw_probe()
    judgement, evidence = predictor.explain(photograph)
    assert judgement == predictor.judge([photograph])[0]
    overlay = cv2.imdecode(np.frombuffer(evidence.overlay, np.uint8), cv2.IMREAD_UNCHANGED)
    assert overlay is not None
    assert overlay.shape == (*decode(photograph).shape, 3)


def test_what_cannot_be_judged_cannot_be_explained(predictor: Predictor) -> None:
    with pytest.raises(ImageError, match="not an image"):
        predictor.explain(b"no image")
