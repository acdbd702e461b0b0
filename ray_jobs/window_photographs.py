"""The photographs that windows of the served line have kept, taken out to be labelled."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gitops.errors import DataError
from gitops.state import write_atomically
from ray_jobs.dataset import brought_folder, brought_name
from ray_jobs.stage import Stage
from serve.preprocess import suffix_of
from serve.windows import read_window


def take_out(stage: Stage, windows: Path) -> int:
    """Put the photographs that the project's windows kept beside those that came with feedback.

    There an imported label finds them, and makes them part of the next dataset.

    Args:
        stage: project and state.
        windows: `args.windows` of an environment: one folder in it an application.

    Returns:
        How many there are.

    Raises:
        DataError: there is no such folder, or the photographs of a window in it cannot be read.
        ContractError: a window in it cannot be read.
    """
    photographs = 0
    for file in window_files(windows):
        window = read_window(file)
        if window and window.model.name == stage.project.name:
            photographs += _take_out_of(stage, file)
    return photographs


def window_files(windows: Path) -> list[Path]:
    """The windows' JSON files in an environment's folder, each beside the Parquet file of its figures.

    Raises:
        DataError: there is no such folder, or it is an application's in there.
    """
    if not windows.is_dir():
        raise DataError(f"the folder {windows} does not exist: give the environment's `args.windows` with --windows")
    if any(windows.glob("*.json")):
        raise DataError(f"the folder {windows} is an application's: give the one that it lies in with --windows")
    return sorted(windows.glob("*/*.json"))


def _take_out_of(stage: Stage, file: Path) -> int:
    figures = file.with_suffix(".parquet")
    try:
        rows = pq.read_table(figures, columns=["taken_at", "sha256", "photograph"]).to_pylist()
    except (OSError, pa.ArrowException) as error:
        if not file.exists():  # the monitor has removed both meanwhile
            return 0
        raise DataError(f"the window {figures} cannot be read ({error}): remove it and its .json") from error
    # One that is there already, out of another window or with feedback, is there once.
    there = {path.name[:12] for path in brought_folder(stage).glob("*")}
    kept = {row["sha256"]: row for row in rows if row["photograph"] is not None}
    for sha256, row in kept.items():
        if sha256[:12] in there:
            continue
        name = brought_name(sha256, f"window-{row['taken_at']:%Y%m%dT%H%M%S}", suffix_of(row["photograph"]))
        write_atomically(brought_folder(stage) / name, row["photograph"])
    return len(kept)
