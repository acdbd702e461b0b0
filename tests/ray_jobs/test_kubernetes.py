"""A stage as a RayJob: the same entry point and project file, in pods that nothing takes for serving ones."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gitops import policies
from gitops.contracts.project import Project
from ray_jobs.kubernetes import OPTIONS, Target, render, to_yaml
from ray_jobs.stage import STAGES
from ray_jobs.submit import SubmissionError

FILE = Path(__file__).parents[2] / "project.yaml"
TARGET = Target(
    image=f"registry.example.com/mergeline@sha256:{'5c1f' * 16}",
    claim="mergeline-state",
    windows_claim="windows",
    namespace="mergeline-staging",
)


def job(stage: str = "train", *arguments: str, target: Target = TARGET) -> list[dict[str, Any]]:
    return render(stage, arguments, Project.read(FILE), FILE.read_text(), target)


def pods(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    cluster = objects[1]["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]]


def test_the_entry_point_is_the_one_of_one_machine() -> None:
    config, found = job("cross_validate", "--use-gpu")
    assert found["spec"]["entrypoint"] == (
        "python -m ray_jobs.cross_validate --project /etc/mergeline/project.yaml --state /var/lib/mergeline --use-gpu"
    )
    assert config["data"]["project.yaml"] == FILE.read_text()
    assert found["metadata"]["name"].startswith("cross-validate-2")
    assert found["metadata"]["namespace"] == config["metadata"]["namespace"] == "mergeline-staging"


@pytest.mark.parametrize(("arguments", "workers"), [((), None), (("--workers", "3"), 3), (("--workers=5",), 5)])
def test_the_cluster_has_the_workers_that_the_stage_asks_for(arguments: tuple[str, ...], workers: int | None) -> None:
    group = job("train", *arguments)[1]["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert group["replicas"] == (workers or Project.read(FILE).training.workers)


def test_gpus_are_for_the_workers_of_a_training_on_gpus() -> None:
    head, worker = (pod["spec"]["containers"][0]["resources"]["limits"] for pod in pods(job("train", "--use-gpu")))
    assert worker["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in head
    assert "nvidia.com/gpu" not in str(job("train"))


def test_the_pods_keep_the_policies_and_the_rights_of_the_service() -> None:
    objects = job()
    assert policies.refusals(objects) == []
    for pod in pods(objects):
        assert pod["metadata"]["labels"]["app.kubernetes.io/part-of"] == "mergeline"
        assert pod["metadata"]["labels"]["app.kubernetes.io/component"] in ("training-head", "training-worker")
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
        assert {mount["name"] for mount in pod["spec"]["containers"][0]["volumeMounts"]} == {
            volume["name"] for volume in pod["spec"]["volumes"]
        }
        assert "RAY_SERVE" not in str(pod)


def test_what_is_scheduled_is_the_same_job_under_one_name() -> None:
    config, found = render("etl", (), Project.read(FILE), FILE.read_text(), TARGET, "0 3 * * *")
    once = job("etl")[1]["spec"]
    assert (found["kind"], found["spec"]["schedule"]) == ("RayCronJob", "0 3 * * *")
    assert found["metadata"]["name"] == config["metadata"]["name"] == "etl-screw"
    template = found["spec"]["jobTemplate"]
    assert template["entrypoint"] == once["entrypoint"]
    for pod in template["rayClusterSpec"]["headGroupSpec"], template["rayClusterSpec"]["workerGroupSpecs"][0]:
        assert {"name": "project", "configMap": {"name": "etl-screw"}} in pod["template"]["spec"]["volumes"]
    assert policies.refusals([config, found]) == []


def test_a_report_reads_the_windows_and_needs_no_workers() -> None:
    objects = render("drift", ("--hours", "12"), Project.read(FILE), FILE.read_text(), TARGET, "0 3 * * *")
    assert policies.refusals(objects) == []
    template = objects[1]["spec"]["jobTemplate"]
    assert template["entrypoint"].endswith("--state /var/lib/mergeline --windows /windows --hours 12")
    assert "workerGroupSpecs" not in template["rayClusterSpec"]
    pod = template["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert {"name": "windows", "persistentVolumeClaim": {"claimName": "windows"}} in pod["volumes"]
    (container,) = pod["containers"]
    assert {"name": "windows", "mountPath": "/windows", "readOnly": True} in container["volumeMounts"]
    assert container["resources"]["limits"]["memory"] == "4Gi"
    assert "/windows" not in str(job("train"))
    labels = template["rayClusterSpec"]["headGroupSpec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == "report-head"


@pytest.mark.parametrize("stage", STAGES)
def test_kuberay_takes_the_name_of_what_is_scheduled_however_long_the_projects_name_is(stage: str) -> None:
    def name_of(project: str) -> str:
        named = Project.read(FILE).model_copy(update={"name": project})
        config, found = render(stage, (), named, "", TARGET, "@daily")
        name: str = found["metadata"]["name"]
        assert config["metadata"]["name"] == name
        return name

    names = [name_of(project) for project in ("a", f"{'b' * 38}-c", f"{'b' * 38}-d", "deep-groove-ball-bearings-6204")]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name)
        assert len(name) <= 36, "KubeRay: RayCronJob name should be no more than 36 characters"
    assert names[-1].startswith(f"{stage.replace('_', '-')}-deep-groove")


@pytest.mark.parametrize(
    ("stage", "arguments", "said"),
    [
        ("train", ("--workers", "0"), "argument --workers: must be a whole number above 0, not 0"),
        ("train", ("--workers", "many"), "train cannot be run like this: argument --workers: must be a whole number"),
        ("drift", ("--hours", "day"), "drift cannot be run like this: argument --hours: must be a number of hours"),
        ("train", ("--workers",), "argument --workers: expected one argument"),
        ("train", ("--use-g",), "has no option --use-g; those that it has: --workers, --use-gpu"),
        ("etl", ("--workers", "3"), "etl on Kubernetes has no option --workers; those that it has: none"),
        ("train", ("--state", "/elsewhere"), "has no option --state"),
    ],
)
def test_what_the_stage_would_not_take_is_refused(stage: str, arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(SubmissionError, match=said):
        job(stage, *arguments)


def test_the_options_are_those_of_the_stages() -> None:
    for stage in STAGES:
        text = (FILE.parent / "ray_jobs" / f"{stage}.py").read_text()
        given = {"--windows"}  # by the job
        assert set(re.findall(r'parser\.add_argument\("(--[a-z-]+)"', text)) - given == set(OPTIONS.get(stage, ())), (
            stage
        )


@pytest.mark.parametrize("image", ["", "m:latest", "m", "m:1", f"m@sha256:{policies.NO_DIGEST}", "M:1"])
def test_an_image_that_the_gates_would_refuse_is_refused(image: str) -> None:
    with pytest.raises(SubmissionError, match="name it by digest"):
        job(target=replace(TARGET, image=image))


@pytest.mark.parametrize(("stage", "hours"), [("train", 24), ("drift", 2)])
def test_a_job_that_cannot_begin_ends(stage: str, hours: int) -> None:
    assert job(stage)[1]["spec"]["activeDeadlineSeconds"] == hours * 3600
    scheduled = render(stage, (), Project.read(FILE), FILE.read_text(), TARGET, "@daily")[1]["spec"]["jobTemplate"]
    assert scheduled["activeDeadlineSeconds"] == hours * 3600


def test_what_is_printed_reads_back() -> None:
    objects = job(target=Target(image=TARGET.image, claim="other", windows_claim="windows"))
    assert list(YAML(typ="safe", pure=True).load_all(to_yaml(objects))) == objects
    assert "namespace" not in objects[0]["metadata"]
    assert "claimName: other" in to_yaml(objects)
