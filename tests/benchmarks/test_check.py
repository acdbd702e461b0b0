"""The comparison with a record, and the picture that is drawn from one."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import chart, check


def report(**ratios: float) -> dict[str, Any]:
    """What pytest-benchmark writes, as far as it is read."""
    return {"benchmarks": [{"name": "test_it", "extra_info": {"ratios": ratios}}, {"name": "other", "extra_info": {}}]}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "record.json", tmp_path / "run.json"


@pytest.mark.parametrize(
    ("now", "status", "line"),
    [
        (0.90, 0, "ok      test_it beside pool: 1.0 in the record, 0.9 now"),
        (1.60, 0, "ok      test_it beside pool: 1.0 in the record, 1.6 now"),
        (0.70, 1, "FALLEN  test_it beside pool: 1.0 in the record, 0.7 now"),
    ],
)
def test_a_ratio_that_fell_is_named(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], now: float, status: int, line: str
) -> None:
    record, run = files
    record.write_text(json.dumps(report(pool=1.0, bentoml=5.0)))
    run.write_text(json.dumps(report(pool=now, new=0.1)))
    assert check.main([str(record), str(run)]) == status
    assert capsys.readouterr().out.splitlines() == [line]


def test_what_was_not_measured_is_no_success(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    record, run = files
    record.write_text(json.dumps(report(pool=1.0, naive=3.0)))
    run.write_text(json.dumps(report(pool=1.0)))
    assert check.main([str(record), str(run)]) == 1
    assert "MISSING test_it beside naive" in capsys.readouterr().out


def test_a_file_that_is_not_there_is_named(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(file) for file in files]) == 2
    assert "record.json" in capsys.readouterr().err


def test_nothing_to_compare_is_no_success(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    record, run = files
    record.write_text(json.dumps(report()))
    run.write_text(json.dumps(report(another=1.0)))
    assert check.main([str(record), str(run)]) == 1
    assert "no ratio in common" in capsys.readouterr().err


def test_without_two_files_it_says_how_to_call_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([]) == 2
    assert "benchmarks.check RECORD RUN" in capsys.readouterr().err


RATES = {"mergeline": [10.0, 12.0], "process pool": [12.0, 12.0], "silent": [0.0, 0.0]}
CONTESTS = [
    {"params": {"kind": kind, "concurrency": concurrency}, "extra_info": {"requests_per_second": RATES}}
    for kind in ("png", "jpeg")
    for concurrency in (1, 8)
]
STEPPED = {
    "params": None,
    "extra_info": {
        "steps": [[1, 4], [64, 4]],
        "replicas": [[1.0, 1], [5.0, 1], [7.0, 2]],
        "windows": [
            {"seconds": 2 * number, "requests_per_second": 9.0, "p50": 0.1, "p99": 0.25 * (number + 1)}
            for number in range(4)
        ],
    },
}


def test_the_chart_shows_every_server_that_answered() -> None:
    figure = chart.servers({"benchmarks": [*CONTESTS, STEPPED]})
    assert [axis.get_title() for axis in figure.axes] == [
        "PNG, 1 connection",
        "PNG, 8 connections",
        "JPEG, 1 connection",
        "JPEG, 8 connections",
    ]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["mergeline", "process pool"]


def test_the_chart_shows_replicas_over_the_same_time_as_the_load() -> None:
    load, replicas, latency = chart.autoscaling({"benchmarks": [*CONTESTS, STEPPED]}).axes
    assert load.patches[0].get_data().edges.tolist() == [0, 4, 8]  # type: ignore[attr-defined]
    assert replicas.lines[0].get_xydata().tolist() == STEPPED["extra_info"]["replicas"]  # type: ignore[index, union-attr]
    assert [line.get_ydata().tolist() for line in latency.lines] == [[0.1] * 4, [0.25, 0.5, 0.75, 1.0]]  # type: ignore[union-attr]


def test_both_pictures_are_drawn_from_a_record(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    record.write_text(json.dumps({"benchmarks": [*CONTESTS, STEPPED]}))
    assert chart.main([str(record), str(tmp_path)]) == 0
    for name in ("servers", "autoscaling"):
        assert "</svg>" in (tmp_path / f"{name}.svg").read_text()
