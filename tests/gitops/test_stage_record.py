"""What a stage's runs leave for the metrics."""

from pathlib import Path

import pytest

from gitops.errors import StageError
from gitops.stage_record import StageRecord, StageRecorder, stage_records
from gitops.state import State
from monitoring.metrics import StageOutcome
from ray_jobs.stage import Stage, recorded, report_progress
from tests.stages import make_stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return make_stage(tmp_path)


def record(state: State) -> StageRecord:
    (found,) = stage_records(state)
    return found


@recorded("etl")
def works(stage: Stage, times: int = 1) -> int:
    assert record(stage.state).running
    return times


@recorded("etl")
def fails(stage: Stage) -> None:
    raise StageError("mend it")


def test_runs_are_counted_by_how_they_end(stage: Stage) -> None:
    assert works(stage, times=3) == 3
    with pytest.raises(StageError):
        fails(stage)
    works(stage)
    found = record(stage.state)
    assert (found.project, found.stage, found.running) == (stage.project.name, "etl", False)
    assert found.outcomes == {"succeeded": 2, "failed": 1}
    assert found.seconds is not None
    assert found.begun_at <= found.progress_at


def test_one_that_was_killed_still_runs_until_it_is_begun_again(stage: Stage) -> None:
    StageRecorder(stage.state, "screw", "etl")
    assert record(stage.state).running
    works(stage)
    assert not record(stage.state).running
    assert record(stage.state).outcomes == {"succeeded": 1}


def test_progress_is_written_now_and_then(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    @recorded("train")
    def reports(stage: Stage) -> None:
        begun = record(stage.state).progress_at
        report_progress(1, 2, "often")
        assert record(stage.state).progress_at == begun
        monkeypatch.setattr("ray_jobs.stage._RECORD_SECONDS", 0.0)
        report_progress(2, 2, "late")
        assert record(stage.state).progress_at > begun

    reports(stage)


def test_a_record_of_another_version_is_passed_over(stage: Stage) -> None:
    works(stage)
    file = stage.state.stages / "screw" / "train.json"
    file.write_text('{"unknown": 1}')
    assert record(stage.state).stage == "etl"
    StageRecorder(stage.state, "screw", "train").end(StageOutcome.SUCCEEDED)
    assert {found.stage for found in stage_records(stage.state)} == {"etl", "train"}


def test_a_folder_that_cannot_be_written_does_not_fail_a_stage(stage: Stage) -> None:
    stage.state.stages.parent.mkdir(parents=True, exist_ok=True)
    stage.state.stages.write_text("in the way")

    @recorded("etl")
    def goes_on(stage: Stage) -> str:
        report_progress(1, 1, "done")
        return "done"

    assert goes_on(stage) == "done"
