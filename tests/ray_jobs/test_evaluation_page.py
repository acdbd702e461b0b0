"""The evaluation's page: self-contained, and saying what the report says."""

import dataclasses
import re

import pytest

from gitops.contracts.model import CrossValidationResult, EvaluationReport, OutOfFold, RobustnessSlice
from gitops.contracts.project import CrossValidation, Gate
from ray_jobs import robustness, tracking
from ray_jobs.evaluate import PAGE, evaluate
from ray_jobs.evaluation_page import _rows
from tests.bundles import put_bundle
from tests.gitops.deployments import unsealed
from tests.stages import finish_training, make_stage

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")
GATES = (Gate(metric="accuracy", min=0.5), Gate(metric="cross_validated_accuracy", min=0.9))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, EvaluationReport]:
    stage = make_stage(tmp_path_factory.mktemp("page"))
    settings = {"gates": GATES, "cross_validation": CrossValidation(folds=2)}
    stage = dataclasses.replace(stage, project=stage.project.model_copy(update=settings))
    finish_training(stage, tracking.start_or_resume_run(stage, stage.run()))
    stage.run().bundle_file.write_text(put_bundle(stage.state, version_salt=0.0) + "\n")
    predictions = tuple(
        OutOfFold(filename=f"{n}.png", label=n % 2, kind=("ok", "dent")[n % 2], fold=0, logits=(0, 3 if n % 4 else -3))
        for n in range(40)
    )
    result = CrossValidationResult(dataset=stage.run().dataset.digest, folds=2, predictions=predictions)
    stage.run().cross_validation_file.write_text(result.to_json())
    report = evaluate(stage)
    return (stage.run().folder / "evaluation" / PAGE).read_text(), report


def test_a_phone_and_a_keyboard_are_enough(drawn: tuple[str, EvaluationReport]) -> None:
    page, _ = drawn
    assert all(int(width) <= 200 for width in re.findall(r"minmax\((\d+)px", page))  # else the screen is the bound
    tables = re.findall(r'<div class="card table"[^>]*>', page)
    assert tables
    assert all('tabindex="0"' in table for table in tables)


def test_the_page_needs_nothing_from_elsewhere(drawn: tuple[str, EvaluationReport]) -> None:
    page, _ = drawn
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert page.count("data:image/png;base64,") == 4
    assert page.count("data:image/jpeg;base64,") == 2 * 3  # each of the three mistakes, with and without its evidence
    assert "3 mistakes" in page


def test_the_estimate_is_that_of_the_folds(drawn: tuple[str, EvaluationReport]) -> None:
    page, report = drawn
    assert report.cross_validation is not None
    # Even numbers are good; those that 4 divides are called so, the other good ones are not.
    assert report.cross_validation.confusion == {
        "good": {"good": 10, "defective": 10},
        "defective": {"good": 0, "defective": 20},
    }
    assert report.metrics["cross_validated_accuracy"] == pytest.approx(0.75)
    assert report.cross_validation.per_kind["dent"] == {"recall": 1.0, "images": 20.0}
    assert "10 of 20 · 0.50 (0.30–0.70)" in page  # Wilson's interval


def test_bars_are_reached_or_missed(drawn: tuple[str, EvaluationReport]) -> None:
    page, _ = drawn
    assert "1 of 2 bars are missed" in page
    assert page.count("✓ reached") == page.count("✗ missed") == 1


def test_what_could_not_be_tried_is_said(drawn: tuple[str, EvaluationReport]) -> None:
    page, report = drawn
    assert report.robustness == ()  # the drawn inputs never were photographs
    assert "could not be read any more" in page


def test_every_variation_has_a_name_of_its_own() -> None:
    names = [variation.name for variation in robustness.VARIATIONS]
    assert len(names) == len(set(names))
    assert names[0] == robustness.UNCHANGED
    assert set(RobustnessSlice.model_fields) == {"variation", "images", "accuracy", "auroc", "parts_found"}


def test_what_guessing_reaches_is_that_of_the_classes_that_were_judged(drawn: tuple[str, EvaluationReport]) -> None:
    _, report = drawn
    two = report.confusion
    three = {truth: {**row, "scratch": 0} for truth, row in two.items()} | {
        "scratch": dict.fromkeys([*two, "scratch"], 0)
    }
    for confusion in (two, three):
        rows = _rows(report.model_copy(update={"confusion": confusion}), unsealed(), [])
        guessing = next(row for row in rows if row.name == "calling everything good")
        accuracy, balanced, *_ = guessing.figures
        assert (accuracy, balanced) == (20 / 30, 0.5)
