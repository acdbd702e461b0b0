"""The whole line on 6 000 and on 20 000 photographs: memory stays flat, and no process exceeds a limit.

make bench

What counts is memory that the kernel cannot drop, of all processes of a line together: anonymous pages, and the shared
ones of Ray's object store. Pages of files (code, the decoded split) are the kernel's to drop. The larger line runs
under RLIMIT_DATA: one process may have no more private memory than the largest of the smaller line, and three quarters
of what the training split takes when it is decoded. A process that held it whole would fail. Both have more images than
a head is fitted to, so that what grows up to there does not count.
"""

import resource
import subprocess
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.small_photographs import stage_in
from gitops.contracts.project import Preprocessing
from ray_jobs.stage import Stage

FEW, MANY = 6_000, 20_000
PREPROCESSING = Preprocessing(align="none", height=96, width=96, channels=3)
SETTINGS = {
    "preprocessing": PREPROCESSING.model_dump(),
    "training": {"backbone": "small_cnn", "weights": "none", "epochs": 1, "batch_size": 32},
    "split": {"validation": 0, "test": 0.2},
    "cross_validation": {"folds": 2},
}
_ALLOWED_SHARE = 0.75
_PERIOD_SECONDS = 1.0  # to look costs the processes time as well


@dataclass
class Usage:
    """The highest memory that was seen, in bytes."""

    tree: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """By stage, of all processes together: pages that cannot be dropped."""
    data: int = 0
    """Of a single process: what RLIMIT_DATA limits."""


def decoded_bytes(stage: Stage) -> int:
    """What the training split takes when it is decoded."""
    count = sum(stage.dataset().counts["train"].values())
    return count * PREPROCESSING.height * PREPROCESSING.width * PREPROCESSING.channels


def run_line(stage: Stage, limit: int | None) -> Usage:
    """Run the pipeline as a program, and watch it."""
    command = [sys.executable, "-m", "ray_jobs.pipeline", "--project", str(stage.project_file)]
    line = subprocess.Popen(
        [*command, "--state", str(stage.state.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    if limit is not None:  # what it starts inherits it
        resource.prlimit(line.pid, resource.RLIMIT_DATA, (limit, limit))
    output, usage = ["[0/8] start"], Usage()
    reader = threading.Thread(target=lambda: output.extend(line.stdout or ()), daemon=True)
    reader.start()
    while line.poll() is None:
        stage_name = next(text for text in reversed(output) if text.startswith("[")).split()[-1]
        _watch(psutil.Process(line.pid), usage, stage_name)
        time.sleep(_PERIOD_SECONDS)
    reader.join()
    assert line.stdout is not None
    line.stdout.close()
    assert line.returncode == 0, "".join(output[-40:])
    return usage


def _watch(line: psutil.Process, usage: Usage, stage: str) -> None:
    total = 0
    try:
        for process in [line, *line.children(recursive=True)]:
            pages, status = _kilobytes(process.pid, "smaps_rollup"), _kilobytes(process.pid, "status")
            total += 1024 * (pages.get("Pss_Anon", 0) + pages.get("Pss_Shmem", 0))
            usage.data = max(usage.data, 1024 * status.get("VmData", 0))
    except psutil.NoSuchProcess:  # the line has ended
        return
    usage.tree[stage] = max(usage.tree[stage], total)


def _kilobytes(pid: int, name: str) -> dict[str, int]:
    """The figures of a file below /proc; none of a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/{name}").read_text().splitlines()
    except OSError:
        return {}
    rows = [line.split() for line in lines]
    return {row[0].rstrip(":"): int(row[1]) for row in rows if row[-1] == "kB" and len(row) == 3}


@pytest.mark.timeout(7200)
def test_memory_stays_flat_as_images_grow(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    few, many = (stage_in(tmp_path / str(count), count, **SETTINGS) for count in (FEW, MANY))
    small = run_line(few, None)
    whole = decoded_bytes(few) * MANY // FEW
    limit = small.data + int(_ALLOWED_SHARE * whole)
    large = benchmark.pedantic(run_line, args=(many, limit), rounds=1)
    mebibytes = {
        f"{name}_{count}": {stage: value >> 20 for stage, value in usage.tree.items()}
        for name, count, usage in (("peak_mib", FEW, small), ("peak_mib", MANY, large))
    }
    growth = max(large.tree.values()) - max(small.tree.values())
    benchmark.extra_info |= mebibytes | {
        "growth_mib": growth >> 20,
        "decoded_training_split_mib": decoded_bytes(many) >> 20,
        "limit_of_a_process_mib": limit >> 20,
        "largest_process_mib": {FEW: small.data >> 20, MANY: large.data >> 20},
    }
    print(benchmark.extra_info)
    assert growth < whole / 2
