"""A decoded split: the shards' pixels in a file that many processes map, made once, whole or not at all."""

import errno
import multiprocessing
from pathlib import Path

import cv2
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from gitops.contracts.base import Split
from gitops.errors import DataError
from ray_jobs import quality
from ray_jobs.decoded import FOLDER, SplitImages, discard_old, load_split, read_samples
from ray_jobs.lineage import parent_of
from ray_jobs.stage import Stage
from tests.stages import HEIGHT, SIZES, WIDTH, make_stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return make_stage(tmp_path)


def folder_of(stage: Stage) -> Path:
    return stage.state.datasets / stage.dataset().digest


def load(stage: Stage, split: Split = "train") -> SplitImages:
    return load_split(folder_of(stage), stage.dataset(), split)


def test_pixels_are_those_of_the_shards_and_lie_in_a_file(stage: Stage) -> None:
    split = load(stage, "validation")
    rows = pq.read_table(folder_of(stage) / "validation-00000.parquet").to_pylist()
    expected = [cv2.imdecode(np.frombuffer(row["image"], np.uint8), cv2.IMREAD_GRAYSCALE) for row in rows]
    np.testing.assert_array_equal(split.images[..., 0], np.array(expected))
    assert split.images.shape == (sum(SIZES["validation"].values()), HEIGHT, WIDTH, 1)
    assert split.images.dtype == np.uint8
    assert not split.images.flags.writeable
    assert split.filenames == tuple(row["filename"] for row in rows)
    file = str(folder_of(stage) / FOLDER / "validation.npy")
    assert file in {place.path for place in psutil.Process().memory_maps()}


def test_samples_stand_in_the_order_of_the_images(stage: Stage) -> None:
    manifest = stage.dataset()
    samples = read_samples(folder_of(stage), manifest, "train", "test")
    loaded = [load(stage, "train"), load(stage, "test")]
    assert [sample.sha256 for sample in samples] == [digest for split in loaded for digest in split.sha256]


def test_a_split_is_decoded_once_and_again_when_its_file_is_gone_or_damaged(stage: Stage) -> None:
    pixels = np.array(load(stage).images)
    file = folder_of(stage) / FOLDER / "train.npy"
    first = file.stat().st_ino
    load(stage)
    assert file.stat().st_ino == first
    for damaged in (b"", file.read_bytes()[:-1], file.read_bytes().replace(b"|u1", b"|i1")):
        file.write_bytes(damaged)
        np.testing.assert_array_equal(load(stage).images, pixels)
    mapped = load(stage).images
    file.unlink()
    np.testing.assert_array_equal(load(stage).images, pixels)
    np.testing.assert_array_equal(mapped, pixels)  # who has it open keeps it


def test_what_a_killed_one_left_behind_is_removed(stage: Stage) -> None:
    leftover = folder_of(stage) / FOLDER / ".train.npy.abc"
    leftover.mkdir(parents=True)
    (leftover / "train.npy").write_bytes(b"half")
    load(stage)
    assert {path.name for path in leftover.parent.iterdir()} == {"train.npy", "train.lock"}


def test_a_disk_without_room_is_a_clear_error_and_leaves_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match=r"cannot be kept in .*\.decoded \(No space left on device\): they take 0 MiB"):
        load(stage)
    assert [path.name for path in (folder_of(stage) / FOLDER).iterdir()] == ["train.lock"]


def test_a_dataset_without_a_split_is_a_clear_error(stage: Stage) -> None:
    manifest = stage.dataset().model_copy(update={"shards": ()})
    with pytest.raises(DataError, match="has no test split"):
        load_split(folder_of(stage), manifest, "test")


def _sum_of(stage: Stage) -> tuple[int, int]:
    images = load(stage).images
    return int(images.sum()), (folder_of(stage) / FOLDER / "train.npy").stat().st_ino


@pytest.mark.parametrize("cut", [0, 300])
def test_a_damaged_dataset_is_a_clear_error(stage: Stage, cut: int) -> None:
    shard = folder_of(stage) / "train-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:cut])
    said = r"dataset .* cannot be read \(.*\): remove .*/datasets/.* and run the ETL again"
    for read in (
        lambda: load(stage),
        lambda: read_samples(folder_of(stage), stage.dataset(), "train"),
        lambda: parent_of(stage),
        lambda: quality.run(stage),
    ):
        with pytest.raises(DataError, match=said):
            read()
    shard.unlink()
    with pytest.raises(DataError, match=said):
        load(stage)
    assert read_samples(folder_of(stage), stage.dataset(), "test"), "the other splits can be read"


def test_processes_that_ask_at_once_share_one_file(stage: Stage) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        found = pool.map(_sum_of, [stage] * 6)
    assert len(set(found)) == 1


def test_what_no_project_reads_any_more_takes_no_room(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old, new = make_stage(tmp_path / "old"), make_stage(tmp_path / "new")
    held = load(old)
    pixels = np.array(held.images)
    load(new)
    file = folder_of(old) / FOLDER / "train.npy"
    for stage in (old, new):
        discard_old(stage.state.datasets)
        assert (folder_of(stage) / FOLDER / "train.npy").exists(), "it is the project's dataset"
    old.dataset_pointer.write_text("0" * 64)
    discard_old(old.state.datasets)
    assert not file.exists()
    np.testing.assert_array_equal(held.images, pixels)
    old.dataset_pointer.write_text(file.parents[1].name)
    np.testing.assert_array_equal(load(old).images, pixels)
