"""The evaluation: figures that can be checked by hand, pictures, what is kept in MLflow, and running again."""

import math
from pathlib import Path

import numpy as np
import pytest

from gitops.contracts.model import EvaluationReport, Prediction, TrainingResult
from gitops.contracts.project import METRICS
from gitops.errors import BundleError, DataError, TrainingError
from ray_jobs import evaluate as evaluating
from ray_jobs import tracking
from ray_jobs.evaluate import evaluate
from ray_jobs.stage import Stage
from tests.bundles import expected_score, put_bundle
from tests.stages import SIZES, draw, finish_training, make_stage

# MLflow 3.17 asks SQLAlchemy 2.1 for what it gives up.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")


def with_bundle(stage: Stage, salt: float = 0.0) -> str:
    """Put a tiny bundle where an export would have put the run's."""
    digest = put_bundle(stage.state, version_salt=salt)
    stage.run().bundle_file.write_text(digest + "\n")
    return digest


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    stage = make_stage(tmp_path_factory.mktemp("evaluate"))
    finish_training(stage, tracking.start_or_resume_run(stage, stage.run()))
    with_bundle(stage)
    return stage


@pytest.fixture(scope="module")
def report(stage: Stage) -> EvaluationReport:
    return evaluate(stage)


def predictions(stage: Stage) -> list[Prediction]:
    file = stage.run().folder / "evaluation" / "predictions.jsonl"
    return [Prediction.model_validate_json(line) for line in file.read_text().splitlines()]


def test_the_report_counts_what_was_drawn_to_be_mistaken(report: EvaluationReport) -> None:
    # Every seventh image has the other class's brightness: 2 of 20 good ones, 1 of 10 defective ones.
    assert report.confusion == {"good": {"good": 18, "defective": 2}, "defective": {"good": 1, "defective": 9}}
    assert report.images == 30
    assert report.metrics["accuracy"] == pytest.approx(27 / 30)
    assert report.metrics["balanced_accuracy"] == pytest.approx((18 / 20 + 9 / 10) / 2)
    assert report.metrics["precision"] == pytest.approx(9 / 11)
    assert report.metrics["recall"] == pytest.approx(9 / 10)
    assert report.metrics["f1"] == pytest.approx(2 * 9 / (9 + 11 - 9 + 10))
    assert report.per_class["good"] == pytest.approx({"precision": 18 / 19, "recall": 0.9, "f1": 36 / 39, "images": 20})


def test_each_kind_has_the_share_that_was_judged_right(report: EvaluationReport) -> None:
    # The mistaken defective image is number 6: an even one, a dent.
    assert report.per_kind == {
        "dent": {"recall": 0.8, "images": 5.0},
        "ok": {"recall": 0.9, "images": 20.0},
        "scratch": {"recall": 1.0, "images": 5.0},
    }


def test_the_scores_metrics_are_those_of_plain_arithmetic(report: EvaluationReport) -> None:
    good = [expected_score(draw("good", number)) for number in range(20)]
    bad = [expected_score(draw("defective", number)) for number in range(10)]
    losses = [-math.log(1 - score) for score in good] + [-math.log(score) for score in bad]
    squares = [score**2 for score in good] + [(1 - score) ** 2 for score in bad]
    pairs = [(low, high) for low in good for high in bad]
    assert report.metrics["loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    assert report.metrics["brier"] == pytest.approx(np.mean(squares), abs=1e-5)
    assert report.metrics["auroc"] == pytest.approx(np.mean([low < high for low, high in pairs]))


def test_the_interval_of_the_accuracy_is_wilsons(report: EvaluationReport) -> None:
    n, p, z = 30, 27 / 30, 1.959964
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert report.metrics["accuracy_low"] == pytest.approx((middle - half) / (1 + z * z / n), abs=1e-6)
    assert report.metrics["accuracy_high"] == pytest.approx((middle + half) / (1 + z * z / n), abs=1e-6)


def test_the_report_names_bundle_dataset_and_threshold(stage: Stage, report: EvaluationReport) -> None:
    assert report.bundle == stage.run().bundle_file.read_text().strip()
    assert report.dataset == "0" * 64  # as the tiny bundle says
    assert report.threshold.value == 0.5
    assert EvaluationReport.read(stage.run().evaluation_file) == report


def test_every_image_has_its_prediction(stage: Stage, report: EvaluationReport) -> None:
    found = predictions(stage)
    assert len(found) == sum(SIZES["test"].values())
    first = found[0]
    assert (first.filename, first.label, first.predicted, first.kind) == ("ok000.png", "good", "good", "ok")
    assert first.score == pytest.approx(expected_score(draw("good", 0)), abs=1e-6)
    assert sum(item.label != item.predicted for item in found) == 3


def test_what_gates_can_name_is_what_is_measured(report: EvaluationReport) -> None:
    assert set(report.metrics) == set(METRICS)


def test_pictures_and_figures_are_in_mlflow(stage: Stage, report: EvaluationReport) -> None:
    mlflow = tracking.client(stage.state)
    run = mlflow.get_run(TrainingResult.read(stage.run().result_file).mlflow_run_id)
    kept = {Path(item.path).name for item in mlflow.list_artifacts(run.info.run_id, "evaluation")}
    pictures = {f"{name}.png" for name in ("roc", "confusion", "scores", "calibration", "mistakes")}
    assert kept == pictures | {"predictions.jsonl", "report.html", "report.json"}
    assert run.data.metrics["test_accuracy"] == report.metrics["accuracy"]
    for name in pictures:
        assert (stage.run().folder / "evaluation" / name).read_bytes().startswith(b"\x89PNG")


def test_running_again_does_nothing_and_says_so(
    stage: Stage, report: EvaluationReport, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stage.run().evaluation_file.stat().st_mtime_ns
    assert evaluate(stage) == report
    assert "evaluated already" in capsys.readouterr().out
    assert stage.run().evaluation_file.stat().st_mtime_ns == before


def test_another_bundle_is_evaluated_anew(
    stage: Stage, report: EvaluationReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = stage.run().bundle_file.read_text()
    digest = with_bundle(stage, salt=-4.0)  # calls everything defective
    again = evaluate(stage)
    assert again.bundle == digest
    assert again.metrics["accuracy"] == pytest.approx(10 / 30)
    assert {item.predicted for item in predictions(stage)} == {"defective"}
    stage.run().bundle_file.write_text(kept)
    stage.run().evaluation_file.write_text(report.to_json())


def test_stopped_before_its_end_it_begins_anew(
    stage: Stage, report: EvaluationReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.run().evaluation_file.unlink()

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tracking, "log_metrics", stopped)
        with pytest.raises(KeyboardInterrupt):
            evaluate(stage)
    assert not stage.run().evaluation_file.exists()
    assert evaluate(stage) == report


def test_without_a_bundle_it_says_what_to_run(tmp_path: Path) -> None:
    stage = make_stage(tmp_path)
    with pytest.raises(TrainingError, match="run `mergeline submit export`"):
        evaluate(stage)


def test_a_bundle_that_is_gone_is_named(tmp_path: Path) -> None:
    stage = make_stage(tmp_path)
    finish_training(stage)
    stage.run().bundle_file.write_text("a" * 64 + "\n")
    with pytest.raises(BundleError, match=r"no bundle in .*aaaa"):
        evaluate(stage)


def test_a_test_split_of_one_class_is_refused(tmp_path: Path) -> None:
    stage = make_stage(tmp_path, sizes={**SIZES, "test": {"good": 3, "defective": 0}})
    finish_training(stage)
    with_bundle(stage)
    with pytest.raises(DataError, match=r"0 images that are not good and 3 good ones.*split\.test"):
        evaluate(stage)


# --- metrics of more than two classes ---------------------------------------------------------------------------------

LABELS = np.array([0, 0, 1, 1, 2, 2])
PREDICTED = np.array([0, 1, 1, 2, 2, 2])


def test_with_several_defects_a_wrong_one_is_a_mistake_and_still_not_good() -> None:
    metrics = evaluating.label_metrics(LABELS, PREDICTED)
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["balanced_accuracy"] == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert metrics["recall"] == 1.0
    assert metrics["precision"] == pytest.approx(4 / 5)


def test_a_class_without_images_does_not_count() -> None:
    assert evaluating.label_metrics(np.array([0, 0, 1]), np.array([0, 2, 1]))["balanced_accuracy"] == 0.75
    assert evaluating.per_class(np.array([0, 1]), np.array([0, 1]), ("a", "b", "c"))["c"]["recall"] == 0.0


def test_calling_everything_good_has_no_precision() -> None:
    metrics = evaluating.label_metrics(np.array([0, 1]), np.array([0, 0]))
    assert (metrics["precision"], metrics["recall"], metrics["f1"]) == (0.0, 0.0, 0.0)


def test_what_bf16_changes_is_counted() -> None:
    exact = np.array([[0.9, 0.1], [0.4, 0.6], [0.52, 0.48]], np.float32)
    rounded = np.array([[0.88, 0.12], [0.4, 0.6], [0.49, 0.51]], np.float32)
    metrics = evaluating.bf16_metrics(exact, rounded, 0.5)
    assert metrics == {"bf16_moved": 1, "bf16_change": pytest.approx(0.03, abs=1e-6)}


def test_cross_entropy_is_in_nats_and_finite() -> None:
    assert evaluating.cross_entropy(np.array([0, 1]), np.array([[0.5, 0.5], [0.5, 0.5]])) == pytest.approx(math.log(2))
    assert math.isfinite(evaluating.cross_entropy(np.array([0]), np.array([[0.0, 1.0]], np.float32)))


def test_calibration_bins_hold_every_score() -> None:
    bins = evaluating.calibration(np.array([False, True, True]), np.array([0.0, 0.95, 1.0]))
    assert bins[0] == (0.0, 0.0, 1)
    assert bins[1] == pytest.approx((0.975, 1.0, 2))
    assert len(bins) == 2
    metrics = evaluating.score_metrics(np.array([False, True, True]), np.array([0.0, 0.95, 1.0]))
    assert metrics["expected_calibration_error"] == pytest.approx(0.025 * 2 / 3)


def test_varied_photographs_are_drawn_of_every_class() -> None:
    labels = np.array([0] * 995 + [1] * 5)
    rows = evaluating.drawn_evenly(labels, 120)
    assert 110 <= len(rows) <= 130
    assert set(labels[rows].tolist()) == {0, 1}
    assert evaluating.drawn_evenly(labels[:50], 120).tolist() == list(range(50))
