"""Register: a bundle and its evaluation become a version, in MLflow's registry and as a file that Git can keep.

python -m ray_jobs.register [--project project.yaml] [--state .mergeline]
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gitops import bundle
from gitops.contracts.model import EvaluationReport, TrainingResult
from gitops.contracts.serving import ModelVersion, ServedModel
from gitops.errors import ContractError, TrainingError
from gitops.promotion import to_yaml
from gitops.state import State, locked, write_atomically
from ray_jobs import tracking
from ray_jobs.evaluate import bundle_of, evaluation_of
from ray_jobs.stage import Run, Stage, arguments, open_stage, recorded, run_main

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as RegistryVersion

DIGEST_TAG, DATASET_TAG = "sha256", "dataset"
"""Tags of a version in MLflow's registry: digests of its bundle and of its dataset."""
BUNDLE_ARTIFACTS = "bundle"
"""Folder of an MLflow run's artifacts, where a tracking server keeps them."""
# Object stores that a bundle can be served from; a tracking server's own scheme is not among them.
_SERVABLE_SCHEMES = {"s3", "gs", "abfs", "abfss", "hdfs"}


@recorded("register")
def register(stage: Stage) -> ModelVersion:
    """Register the current run's bundle; one that is registered already keeps its version.

    Returns:
        What is written to `models/<name>/<version>.yaml`.

    Raises:
        TrainingError: the bundle is missing or not evaluated yet.
        BundleError: the bundle is incomplete or damaged.
        ContractError: MLflow's registry and the folder of versions contradict each other.
    """
    run = stage.run()
    digest, name = bundle_of(run), stage.project.name
    report = evaluation_of(run, digest)
    if report is None:
        raise TrainingError(f"bundle {digest[:12]} of run {run.id} has no evaluation: run `mergeline submit evaluate`")
    with locked(stage.state.models / ".lock"):  # two registrations at once would make two versions of one bundle
        for known in stage.state.versions(name):
            if known.model.sha256 == digest:
                print(
                    f"register: bundle {digest[:12]} is version {known.model.version} of {name} already: nothing to do"
                )
                return known
        bundle.verify(stage.state.bundles / digest, digest)
        version = _version(stage, run, report)
        _write(stage.state, version)
    print(f"register: bundle {digest[:12]} is version {version.model.version} of {name}")
    return version


def _version(stage: Stage, run: Run, report: EvaluationReport) -> ModelVersion:
    name, mlflow = stage.project.name, tracking.client(stage.state)
    mlflow_run = TrainingResult.read(run.result_file).mlflow_run_id
    # A registration that was stopped between registry and file has its number already.
    entry = _registered(mlflow, name, report.bundle) or _add(stage, mlflow, mlflow_run, report)
    created = datetime.fromtimestamp(int(entry.creation_timestamp) // 1000, UTC)
    return ModelVersion(
        model=ServedModel(
            name=name, version=str(entry.version), uri=_uri(stage.state, entry, report.bundle), sha256=report.bundle
        ),
        created=created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        mlflow_run_id=mlflow_run,
        evaluation=report,
    )


def _registered(mlflow: "MlflowClient", name: str, digest: str) -> "RegistryVersion | None":
    """The oldest version of that bundle in MLflow's registry."""
    found = [entry for entry in mlflow.search_model_versions(f"name='{name}'") if entry.tags.get(DIGEST_TAG) == digest]
    return min(found, key=lambda entry: int(entry.version), default=None)


def _add(stage: Stage, mlflow: "MlflowClient", mlflow_run: str, report: EvaluationReport) -> "RegistryVersion":
    name, folder = stage.project.name, stage.state.bundles / report.bundle
    if not mlflow.search_registered_models(f"name='{name}'"):
        mlflow.create_registered_model(name, description=stage.project.goal)
    source = folder.as_uri()
    if urlsplit(tracking.tracking_uri(stage.state)).scheme in ("http", "https"):
        # A tracking server takes nothing from a folder that it cannot see: the files go to its artifact store.
        mlflow.log_artifacts(mlflow_run, str(folder), BUNDLE_ARTIFACTS)
        source = f"{mlflow.get_run(mlflow_run).info.artifact_uri}/{BUNDLE_ARTIFACTS}"
    tags = {DIGEST_TAG: report.bundle, DATASET_TAG: report.dataset}
    return mlflow.create_model_version(name, source, run_id=mlflow_run, tags=tags)


def _uri(state: State, entry: "RegistryVersion", digest: str) -> str:
    """Where serving gets the bundle: the artifact store if it can be read without MLflow, else the state folder."""
    stored = urlsplit(entry.source).scheme in _SERVABLE_SCHEMES
    return str(entry.source) if stored else (state.bundles / digest).as_uri()


def _write(state: State, version: ModelVersion) -> None:
    file: Path = state.models / version.model.name / f"{version.model.version}.yaml"
    if file.exists():
        raise ContractError(
            f"MLflow's registry counts bundle {version.model.sha256[:12]} as version {version.model.version}, but "
            f"{file} is of another bundle: the registry was begun anew; give it back its database, or move "
            f"{file.parent} away"
        )
    write_atomically(file, to_yaml(version))


def main() -> None:
    """Run the stage as a program."""
    register(open_stage(arguments("Register the evaluated bundle as a version.").parse_args()))


if __name__ == "__main__":
    run_main(main)
