"""Builds a stage whose dataset is drawn and whose training is done, without Ray and in milliseconds."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gitops.contracts.base import Split
from gitops.contracts.dataset import DatasetManifest
from gitops.contracts.model import EpochMetrics, TrainingResult
from gitops.contracts.project import DataSource, Preprocessing, Project, Training
from gitops.state import State
from ray_jobs.measures import dhash, phash
from ray_jobs.stage import Stage
from serve.preprocess import Pixels

KINDS = {"good": ("ok",), "defective": ("dent", "scratch")}
SIZES: dict[Split, dict[str, int]] = {
    "train": {"good": 8, "defective": 8},
    "validation": {"good": 12, "defective": 8},
    "test": {"good": 20, "defective": 10},
}
HEIGHT, WIDTH = 32, 64


def draw(label: str, number: int) -> Pixels:
    """A noisy model input, bright if it is good; every seventh is of the other brightness, so that it is mistaken."""
    level = 165 if (label == "good") != (number % 7 == 6) else 95
    noise = np.random.default_rng([number, len(label)]).integers(-60, 61, (HEIGHT, WIDTH, 1))
    return np.clip(level + noise, 0, 255).astype(np.uint8)


def make_stage(root: Path, *, sizes: dict[Split, dict[str, int]] | None = None) -> Stage:
    """A stage under `root` with a dataset of drawn images; nothing is trained yet."""
    project = Project(
        name="screw",
        goal="Tell bright from dark.",
        owner="quality@example.com",
        classes=("good", "defective"),
        data=DataSource(source="rendered"),
        preprocessing=Preprocessing(height=HEIGHT, width=WIDTH),
        training=Training(backbone="small_cnn", weights="none", epochs=1),
        environments=("local",),
    )
    root.mkdir(parents=True, exist_ok=True)
    file = root / "project.yaml"
    file.write_text(project.to_json())  # JSON is YAML
    stage = Stage(project, file, State.at(root / "state"))
    write_dataset(stage, sizes or SIZES)
    return stage


def finish_training(stage: Stage, mlflow_run_id: str = "0" * 32) -> Path:
    """Write the result of a training that has not happened; returns where its checkpoint belongs."""
    run = stage.run()
    epoch = EpochMetrics(epoch=0, loss=0.7, validation_loss=0.7, validation_accuracy=0.5, learning_rate=1e-3, seconds=1)
    result = TrainingResult(
        dataset=run.dataset.digest,
        mlflow_run_id=mlflow_run_id,
        checkpoint="model.keras",
        best_epoch=0,
        epochs=(epoch,),
        workers=2,
        training=stage.project.training,
    )
    run.folder.mkdir(parents=True, exist_ok=True)
    run.result_file.write_text(result.to_json())
    return run.folder / result.checkpoint


def write_dataset(stage: Stage, sizes: dict[Split, dict[str, int]]) -> str:
    """Write a dataset of drawn images and make it the stage's; returns its digest."""
    digest = hashlib.sha256(repr(sizes).encode()).hexdigest()
    folder = stage.state.datasets / digest
    folder.mkdir(parents=True)
    for split, counts in sizes.items():
        pq.write_table(pa.Table.from_pylist(_rows(stage, counts)), folder / f"{split}-00000.parquet")
    manifest = DatasetManifest(
        digest=digest,
        project=stage.project.name,
        source="drawn",
        classes=stage.project.classes,
        preprocessing=stage.project.preprocessing,
        images=sum(sum(counts.values()) for counts in sizes.values()),
        counts=sizes,
        duplicates=0,
        shards=tuple(f"{split}-00000.parquet" for split in sizes),
    )
    (folder / "manifest.json").write_text(manifest.to_json())
    stage.use_dataset(digest)
    return digest


def _rows(stage: Stage, counts: dict[str, int]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for label, count in counts.items():
        for number in range(count):
            pixels = draw(label, number)
            kind = KINDS[label][number % len(KINDS[label])]
            image = cv2.imencode(".png", pixels)[1].tobytes()
            rows.append(
                {
                    "filename": f"{kind}{number:03}.png",
                    "image": image,
                    "sha256": hashlib.sha256(image).hexdigest(),
                    "phash": phash(pixels),
                    "dhash": dhash(pixels),
                    "label": stage.project.classes.index(label),
                    "kind": kind,
                    "width": WIDTH,
                    "exposure": float(pixels.mean()) if number else None,
                }
            )
    return rows
