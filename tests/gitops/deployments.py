"""Makes what the tests of promotion need: tiny bundles that nothing loads, registered versions, a seeded repository."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from gitops import bundle
from gitops.contracts.model import BundleManifest, EvaluationReport, EvidenceGrid, Probe, ThresholdChoice
from gitops.contracts.project import Preprocessing, Training
from gitops.contracts.serving import ModelVersion, ServedModel
from gitops.layout import PROJECT_PATH, serve_config_path
from gitops.repository import Repository, create_bare
from gitops.seed import seed_environment

PROJECT = """\
name: screw
goal: Tell good screws from bad ones.
owner: quality@example.com
classes: [good, defective]
data: {source: rendered}
# What a promotion must reach.
gates:
  - {metric: accuracy, min: 0.95}
  - {metric: loss, max: 0.4}
environments: [local, staging]
"""
LOCAL = serve_config_path("local")
IMAGES = 100


def make_bundle(folder: Path, salt: str = "") -> str:
    """A bundle of a few bytes; another salt gives another digest."""
    (folder / "saved_model").mkdir(parents=True)
    (folder / "saved_model" / "saved_model.pb").write_bytes(b"graph")
    (folder / "model.bin").write_text(f"weights {salt}")
    (folder / "reference.json").write_text("{}")
    (folder / "probe.png").write_bytes(b"picture")
    return bundle.seal(folder, unsealed())


def unsealed() -> BundleManifest:
    """A manifest that lists no files yet."""
    return BundleManifest(
        name="screw",
        classes=("good", "defective"),
        preprocessing=Preprocessing(),
        threshold=ThresholdChoice(value=0.5, method="the middle"),
        engine="openvino",
        engine_file="model.bin",
        saved_model="saved_model",
        reference="reference.json",
        evidence=EvidenceGrid(stride=1, offset_x=0, offset_y=0),
        probe=Probe(path="probe.png", score=0.25),
        agreement=0.0,
        dataset="d" * 64,
        training=Training(),
        frameworks={},
        files=(),
    )


def make_version(
    folder: Path, version: str, *, wrong: int = 2, metrics: Mapping[str, float] | None = None
) -> ModelVersion:
    """A registered version with a bundle of its own below `folder`; `wrong` of its 100 images were misjudged."""
    place = folder / f"bundle-{version}"
    digest = bundle.digest(place) if place.exists() else make_bundle(place, version)
    figures = {"accuracy": 1 - wrong / IMAGES, "loss": 0.1} | dict(metrics or {})
    return ModelVersion(
        model=ServedModel(name="screw", version=version, uri=place.as_uri(), sha256=digest),
        created="2026-01-02T03:04:05Z",
        mlflow_run_id="run",
        evaluation=EvaluationReport(
            bundle=digest,
            dataset="d" * 64,
            images=IMAGES,
            metrics=figures,
            threshold=ThresholdChoice(value=0.5, method="the middle"),
            confusion={"good": {"good": 60 - wrong, "defective": wrong}, "defective": {"good": 0, "defective": 40}},
            per_class={"good": {"recall": 0.9}},
            per_kind={"dent|deep": {"recall": 0.9, "images": 40}},
            calibration=((0.1, 0.05, 60), (0.9, 0.95, 40)),
        ),
    )


def seed() -> dict[str, str]:
    """The files that `mergeline up` begins a deployments repository with."""
    texts = {serve_config_path(name): seed_environment("screw", name) for name in ("local", "staging")}
    return {PROJECT_PATH: PROJECT} | texts


def make_repository(path: Path, hooks: Mapping[str, str] | None = None) -> Repository:
    """A bare deployments repository; without hooks, pushing to it is quick."""
    create_bare(path, seed(), hooks or {})
    return Repository(path)


def git(folder: Path, *arguments: str) -> str:
    """Run git as a user would."""
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    command = [shutil.which("git") or "git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
