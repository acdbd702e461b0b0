import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from gitops.contracts.dataset import DatasetChanges, DatasetManifest
from gitops.contracts.project import Preprocessing
from gitops.errors import DataError
from gitops.state import write_atomically
from ray_jobs import dataset, etl
from ray_jobs.decoded import load_split
from ray_jobs.labelling import import_labels
from ray_jobs.split import SPLITS
from ray_jobs.stage import Stage
from serve.preprocess import preprocess
from tests.photographs import screw, stage_on, write_folder, write_table

# Ray Data warns about settings of its own that nobody has made.
pytestmark = [
    pytest.mark.usefixtures("ray_local"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]

GOOD, DEFECTIVE = 15, 10


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    write_folder(tmp_path / "data", GOOD, DEFECTIVE)
    return stage_on(tmp_path / "data", tmp_path / "state")


def make(stage: Stage) -> DatasetManifest:
    dataset.extract(stage)
    return etl.run(stage)


def folder_of(stage: Stage, manifest: DatasetManifest) -> Path:
    return stage.state.datasets / manifest.digest


def rows_of(stage: Stage, manifest: DatasetManifest) -> dict[str, dict[str, Any]]:
    tables = [pq.read_table(folder_of(stage, manifest) / name) for name in manifest.shards]
    return {row["filename"]: row for table in tables for row in table.to_pylist()}


def test_photographs_become_shards_of_model_inputs(stage: Stage, tmp_path: Path) -> None:
    manifest = make(stage)
    assert stage.dataset() == manifest
    assert manifest.images == GOOD + DEFECTIVE
    assert manifest.counts["test"] == {"good": 3, "defective": 2}
    assert manifest.counts["validation"] == {"good": 3, "defective": 2}
    assert sum(manifest.kinds.values()) == DEFECTIVE
    assert len(manifest.kinds) == 5
    rows = rows_of(stage, manifest)
    assert set(rows["ok000.png"]) == set(etl.COLUMNS)
    for name, row in rows.items():
        data = (tmp_path / "data/train" / name).read_bytes()
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert row["label"] == int(not name.startswith("ok"))
        pixels = np.asarray(cv2.imdecode(np.frombuffer(row["image"], np.uint8), cv2.IMREAD_GRAYSCALE))[..., None]
        np.testing.assert_array_equal(pixels, preprocess(data, manifest.preprocessing).pixels)
    assert rows["ok000.png"]["width"] == 512
    assert rows["ok000.png"]["part_found"] == 1


def test_splits_load_and_hold_every_image_once(stage: Stage) -> None:
    manifest = make(stage)
    loaded = [load_split(folder_of(stage, manifest), manifest, split) for split in SPLITS]
    for split, images in zip(SPLITS, loaded, strict=True):
        assert images.images.shape == (sum(manifest.counts[split].values()), 160, 512, 1)
        assert images.images.dtype == np.uint8
        assert images.labels.dtype == np.int64
        assert [name.startswith("ok") for name in images.filenames] == (images.labels == 0).tolist()
        assert [kind is None for kind in images.kinds] == (images.labels == 0).tolist()
    names = [name for images in loaded for name in images.filenames]
    assert len(names) == len(set(names)) == manifest.images


def test_a_second_run_does_nothing_and_says_so(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = make(stage)
    before = {path: path.stat().st_mtime_ns for path in folder_of(stage, manifest).iterdir()}
    capsys.readouterr()
    assert etl.run(stage) == manifest
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder_of(stage, manifest).iterdir()} == before


def test_the_digest_is_of_content_and_parameters_only(stage: Stage, tmp_path: Path) -> None:
    first = make(stage)
    moved = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "data", moved)
    names = sorted(path.name for path in (moved / "train").iterdir())
    write_table(moved, random.Random(0).sample(names, len(names)))
    elsewhere = stage_on(moved, tmp_path / "other-state")
    second = make(elsewhere)
    assert second.digest == first.digest
    assert rows_of(elsewhere, second) == rows_of(stage, first)
    other_seed = stage_on(moved, tmp_path / "other-state", split={"seed": 5})
    assert etl.run(other_seed).digest != first.digest
    other_size = stage_on(moved, tmp_path / "other-state", preprocessing={"width": 256})
    assert etl.run(other_size).digest != first.digest
    assert etl.run(elsewhere).digest == elsewhere.dataset().digest == first.digest


def test_files_that_cannot_be_read_are_set_aside(tmp_path: Path) -> None:
    names = write_folder(tmp_path / "data", GOOD, DEFECTIVE)
    train = tmp_path / "data/train"
    whole = (train / "ok003.png").read_bytes()
    (train / "ok003.png").write_bytes(whole[: len(whole) // 2])
    (train / "ok004.png").write_text("no image at all")
    (train / "ok005.png").write_bytes(b"")
    stage = stage_on(tmp_path / "data", tmp_path / "state", data={"max_quarantine_share": 0.2})
    dataset.extract(stage)
    (train / "ok006.png").write_bytes(whole)  # changed after it was listed
    manifest = etl.run(stage)
    assert manifest.images == len(names) - 4
    reasons = {item.filename: item.reason for item in manifest.quarantined}
    assert set(reasons) == {"ok003.png", "ok004.png", "ok005.png", "ok006.png"}
    assert "cut off" in reasons["ok003.png"]
    assert "not an image" in reasons["ok004.png"]
    assert "empty" in reasons["ok005.png"]
    assert "changed since it was listed" in reasons["ok006.png"]
    strict = stage_on(tmp_path / "data", tmp_path / "state", data={"max_quarantine_share": 0.1})
    with pytest.raises(DataError, match=r"4 of 25 files cannot be used, 16\.0%(.|\n)*ok004\.png: this is not an image"):
        etl.run(strict)
    assert strict.dataset() == manifest


def test_near_duplicates_stay_on_one_side(tmp_path: Path) -> None:
    names = write_folder(tmp_path / "data", GOOD, DEFECTIVE)
    shift = np.array([[1.0, 0, 3], [0, 1, -2]])
    originals = {name: index for index, name in enumerate(names) if name.startswith("ok")}
    for name, index in originals.items():
        pixels = screw(index)
        copies = {
            "recompressed": cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 70])[1], 0),
            "brighter": np.clip(pixels.astype(int) + 12, 0, 255).astype(np.uint8),
            "smaller": cv2.resize(pixels, (384, 384), interpolation=cv2.INTER_AREA),
            "shifted": cv2.warpAffine(pixels, shift, (512, 512), borderMode=cv2.BORDER_REPLICATE),
            "turned": cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
        }
        how, copy = list(copies.items())[index % len(copies)]
        names.append(f"{name.removesuffix('.png')}-{how}.png")
        cv2.imwrite(str(tmp_path / "data/train" / names[-1]), copy)
    write_table(tmp_path / "data", names)
    stage = stage_on(tmp_path / "data", tmp_path / "state")
    manifest = make(stage)
    assert manifest.duplicates == 2 * GOOD
    split_of = {name: row["split"] for name, row in rows_of(stage, manifest).items()}
    for name in names:
        if "-" in name:
            assert split_of[name] == split_of[name.split("-")[0] + ".png"]


def test_colour_keeps_its_order(tmp_path: Path) -> None:
    train = tmp_path / "data/train"
    train.mkdir(parents=True)
    names = [f"{kind}{index}.png" for index in range(4) for kind in ("ok", "bent")]
    generator = np.random.default_rng(0)
    for name in names:
        red = np.zeros((64, 96, 3), np.uint8)
        red[..., 2] = generator.integers(100, 255, (64, 96))  # OpenCV writes BGR
        cv2.imwrite(str(train / name), red)
    write_table(tmp_path / "data", names)
    settings = Preprocessing(align="none", height=64, width=96, channels=3)
    stage = stage_on(tmp_path / "data", tmp_path / "state", preprocessing=settings.model_dump())
    manifest = make(stage)
    images = load_split(folder_of(stage, manifest), manifest, "train").images
    assert images.shape[1:] == (64, 96, 3)
    assert images[..., 0].min() >= 90
    assert images[..., 1:].max() == 0


def test_a_class_that_is_too_small_leaves_no_dataset(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", 6, 2)
    stage = stage_on(tmp_path / "data", tmp_path / "state")
    with pytest.raises(DataError, match="'defective' has 2 images that differ"):
        make(stage)
    assert {path.name for path in stage.state.datasets.iterdir()} == {".lock"}


def test_a_killed_run_leaves_nothing_behind_for_the_next(stage: Stage, tmp_path: Path) -> None:
    expected = make(stage)
    project = tmp_path / "project.yaml"
    write_atomically(project, stage.project.to_json())
    state = tmp_path / "killed"
    dataset.extract(Stage(stage.project, project, stage.state.at(state)))
    killed = subprocess.Popen(
        [sys.executable, "-m", "ray_jobs.etl", "--project", str(project), "--state", str(state)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
    )
    assert killed.stdout is not None
    assert next((line for line in killed.stdout if line.startswith("::progress")), None) is not None
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    leftovers = [path.name for path in (state / "datasets").iterdir()]
    assert any(name.startswith(".staged-") for name in leftovers)
    manifest = etl.run(Stage(stage.project, project, stage.state.at(state)))
    assert manifest == expected
    assert {path.name for path in (state / "datasets").iterdir()} == {
        ".lock",
        ".made",
        "screw.current",
        manifest.digest,
    }


def test_the_next_version_names_its_parent_and_what_changed(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = make(stage)
    assert first.parent is None
    assert first.changes is None
    assert first.split == stage.project.split
    splits = {row["sha256"]: row["split"] for row in rows_of(stage, first).values()}
    train = tmp_path / "data/train"
    (train / "ok000.png").unlink()
    names = sorted(path.name for path in train.iterdir())
    for index in range(40, 46):
        names.append(f"ok{index:03d}.png")
        cv2.imwrite(str(train / names[-1]), screw(index))
    (train / "ok001.png").rename(train / "ok901.png")
    names[names.index("ok001.png")] = "ok901.png"
    write_table(tmp_path / "data", names)
    labels = [{"image": "ok901.png", "choice": "defective"}]
    (tmp_path / "export.json").write_text(json.dumps(labels))
    import_labels(stage, tmp_path / "export.json")
    capsys.readouterr()
    second = make(stage)
    assert f"changes since {first.digest[:12]}: 6 added, 1 removed, 1 relabelled" in capsys.readouterr().out
    assert second.parent == first.digest
    assert second.changes is not None
    assert second.changes.added.filenames == tuple(names[-6:])
    assert second.changes.removed.filenames == ("ok000.png",)
    assert second.changes.relabelled.filenames == ("ok901.png",)
    rows = rows_of(stage, second)
    assert rows["ok901.png"]["label"] == 1
    assert all(row["split"] == splits.get(row["sha256"], row["split"]) for row in rows.values())
    assert {rows[name]["split"] for name in names[-6:]} != {"train"}
    assert etl.run(stage) == second
    assert "nothing to do" in capsys.readouterr().out
    # The same images and labels elsewhere, without a history, are split by content alone.
    alone = make(stage_on(tmp_path / "data", tmp_path / "other", split={"seed": 3}))
    assert alone.parent is None
    other_seed = make(stage_on(tmp_path / "data", tmp_path / "state", split={"seed": 3}))
    assert other_seed.parent == second.digest
    assert other_seed.changes == DatasetChanges()


def test_a_dataset_that_is_made_again_keeps_its_parent_and_a_lost_one_is_none(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    first = make(stage)
    shutil.rmtree(stage.state.datasets / ".made")
    assert etl.run(stage) == first  # not its own parent
    shutil.rmtree(folder_of(stage, first))
    capsys.readouterr()
    assert etl.run(stage) == first
    assert f"dataset {first.digest[:12]} is gone" in capsys.readouterr().out
