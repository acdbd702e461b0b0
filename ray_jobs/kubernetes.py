"""A stage as a RayJob of KubeRay's: the same entry point, on a cluster that comes up for it and goes with it.

The pods are those of the service in gitops/base/rayservice.yaml, without what only serving needs.
"""

import argparse
import copy
import hashlib
import importlib.resources
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import walk_tree

from gitops import cron, policies
from gitops.contracts.project import Project
from gitops.kuberay import LONGEST_NAMES
from ray_jobs.stage import as_count, as_hours
from ray_jobs.submit import SubmissionError, entrypoint

PROJECT_FOLDER = "/etc/mergeline"
STATE_FOLDER = "/var/lib/mergeline"
WINDOWS_FOLDER = "/windows"
SECONDS_AFTER_END = 3600
"""How long the cluster of a job that has ended stays, for its logs."""
LONGEST_SECONDS, LONGEST_SECONDS_OF_A_REPORT = 86_400, 7_200
"""After which a job has failed, and its cluster goes: one that waits for a volume that is not there would stay, and
each night another one beside it."""
RETRIES = 2
"""Each on a new cluster: a stage goes on where it was stopped."""

OPTIONS = {
    "dataset": ("--data",),
    "train": ("--workers", "--use-gpu"),
    "cross_validate": ("--use-gpu",),
    "pipeline": ("--data", "--workers", "--use-gpu"),
    "drift": ("--hours",),
}
"""What a stage takes beside what the job itself gives it: project, state folder and windows."""
_TYPES: dict[str, Callable[[str], object]] = {"--workers": as_count, "--hours": as_hours}
"""As the stages read them."""
_LIMITS = {"cpu": "4", "memory": "16Gi", "ephemeral-storage": "24Gi"}
_LIMITS_OF_A_REPORT = {"cpu": "2", "memory": "4Gi", "ephemeral-storage": "4Gi"}
_REPORT = "drift"
"""The stage that only reads: it trains nothing, and needs the volume of gitops/components/drift-windows."""
_SERVING_ONLY = ("lifecycle", "livenessProbe", "readinessProbe", "ports")
_GPU = "nvidia.com/gpu"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a job shall run."""

    image: str
    """By digest; for GPUs one with the extra `gpu`."""
    claim: str
    """The PersistentVolumeClaim that holds the state folder; all pods mount it (ReadWriteMany)."""
    windows_claim: str
    """The PersistentVolumeClaim that holds the environment's windows; only the report on drift mounts it."""
    namespace: str | None = None
    """None: the one that kubectl is set to."""


def render(
    stage: str, arguments: Sequence[str], project: Project, text: str, target: Target, schedule: str | None = None
) -> list[dict[str, Any]]:
    """The objects of a stage's job: its project file as a ConfigMap, and the RayJob or RayCronJob.

    Args:
        stage: one of `stage.STAGES`.
        arguments: further options of the stage, those of OPTIONS; --workers and --use-gpu size the cluster too.
        project: the project.
        text: the project file itself.
        target: where.
        schedule: when it shall run again and again, as cron says it, in the operator's time; None: once, now.

    Raises:
        SubmissionError: the stage does not take the options, the image is not one by digest, or KubeRay could not read
            the schedule.
    """
    if complaint := policies.image_complaint(target.image):
        raise SubmissionError(f"{complaint}: name it by digest, as registry.example.com/mergeline@sha256:…")
    options = _options(stage, arguments, project)
    if schedule is not None:
        if obstacle := cron.obstacle(schedule):
            raise SubmissionError(obstacle)
        name = _scheduled_name(stage, project.name)
    else:
        name = f"{stage.replace('_', '-')}-{time.strftime('%Y%m%dt%H%M%S')}"
    metadata = {"name": name, **({"namespace": target.namespace} if target.namespace else {})}
    paths = ["--project", f"{PROJECT_FOLDER}/project.yaml", "--state", STATE_FOLDER]
    paths += ["--windows", WINDOWS_FOLDER] if stage == _REPORT else []
    spec = {
        "entrypoint": entrypoint("python", stage, [*paths, *arguments]),
        # KubeRay submits it itself: a pod of its own for that would not be let into a `restricted` namespace.
        "submissionMode": "HTTPMode",
        "backoffLimit": RETRIES,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": SECONDS_AFTER_END,
        "activeDeadlineSeconds": LONGEST_SECONDS_OF_A_REPORT if stage == _REPORT else LONGEST_SECONDS,
        "rayClusterSpec": _cluster(stage, options, _volumes(stage, name, target), target.image),
    }
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"project.yaml": text}}
    job: dict[str, Any] = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}
    if schedule is not None:
        job |= {"kind": "RayCronJob", "spec": {"schedule": schedule, "jobTemplate": spec}}
    return [config, job]


def _scheduled_name(stage: str, project: str) -> str:
    """One name for good: applied again, it replaces what was scheduled for the project before."""
    longest = LONGEST_NAMES["RayCronJob"]
    name = f"{stage.replace('_', '-')}-{project}"
    if len(name) <= longest:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:6]  # two long names that begin alike stay two
    return f"{name[: longest - 7].rstrip('-')}-{mark}"


def to_yaml(objects: Sequence[dict[str, Any]]) -> str:
    """The objects as `kubectl apply -f -` takes them."""
    yaml = YAML()
    yaml.explicit_start = True
    yaml.width = 4096
    yaml.representer.ignore_aliases = lambda *_: True
    plain = copy.deepcopy(list(objects))
    walk_tree(plain)  # texts of several lines as such
    stream = StringIO()
    yaml.dump_all(plain, stream)
    return stream.getvalue()


def _options(stage: str, arguments: Sequence[str], project: Project) -> argparse.Namespace:
    """What the stage will read from its options: one that it would not take is refused before there is a cluster."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in OPTIONS.get(stage, ()):
        if option == "--use-gpu":
            parser.add_argument(option, action="store_true")
        else:
            parser.add_argument(option, type=_TYPES.get(option, str))
    parser.set_defaults(workers=project.training.workers, use_gpu=False)
    try:
        options, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise SubmissionError(f"{stage} cannot be run like this: {error}") from error
    if unknown:
        known = ", ".join(OPTIONS.get(stage, ())) or "none"
        raise SubmissionError(f"{stage} on Kubernetes has no option {unknown[0]}; those that it has: {known}")
    return options


def _volumes(stage: str, name: str, target: Target) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What a job's pods have of their own beside the service's: each volume, and where it is mounted."""
    volumes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"name": "project", "configMap": {"name": name}}, {"mountPath": PROJECT_FOLDER, "readOnly": True}),
        ({"name": "state", "persistentVolumeClaim": {"claimName": target.claim}}, {"mountPath": STATE_FOLDER}),
    ]
    if stage == _REPORT:
        windows = {"name": "windows", "persistentVolumeClaim": {"claimName": target.windows_claim}}
        volumes.append((windows, {"mountPath": WINDOWS_FOLDER, "readOnly": True}))
    return volumes


def _cluster(
    stage: str,
    options: argparse.Namespace,
    volumes: Sequence[tuple[dict[str, Any], dict[str, Any]]],
    image: str,
) -> dict[str, Any]:
    base = importlib.resources.files("gitops") / "base" / "rayservice.yaml"
    served = YAML(typ="safe", pure=True).load(base.read_text())["spec"]["rayClusterConfig"]
    head, worker = served["headGroupSpec"], served["workerGroupSpecs"][0]
    kind, limits = ("report", _LIMITS_OF_A_REPORT) if stage == _REPORT else ("training", _LIMITS)
    cluster = {
        "rayVersion": served["rayVersion"],
        "authOptions": served["authOptions"],
        "headGroupSpec": {
            "rayStartParams": head["rayStartParams"],
            "template": _pod(head["template"], f"{kind}-head", image, limits, volumes),
        },
    }
    if stage == _REPORT:
        return cluster
    accelerator = {_GPU: "1"} if options.use_gpu else {}
    group = {
        "groupName": "training",
        "replicas": options.workers,
        "minReplicas": options.workers,
        "maxReplicas": options.workers,
        "numOfHosts": 1,
        "rayStartParams": {},
        "template": _pod(worker["template"], "training-worker", image, limits | accelerator, volumes),
    }
    return cluster | {"workerGroupSpecs": [group]}


def _pod(
    template: dict[str, Any],
    component: str,
    image: str,
    limits: dict[str, str],
    volumes: Sequence[tuple[dict[str, Any], dict[str, Any]]],
) -> Any:
    """A pod of the service's, for a job: other labels, so that nothing takes it for one that serves."""
    spec = template["spec"]
    container = {key: value for key, value in spec["containers"][0].items() if key not in _SERVING_ONLY}
    container |= {
        "image": image,
        "env": [entry for entry in container["env"] if not entry["name"].startswith("RAY_SERVE_")],
        "envFrom": [*container["envFrom"], {"secretRef": {"name": "training", "optional": True}}],
        "resources": {"requests": limits, "limits": limits},
        "volumeMounts": [
            *container["volumeMounts"],
            *({"name": volume["name"], **mount} for volume, mount in volumes),
        ],
    }
    kept = {"securityContext": spec["securityContext"], "serviceAccountName": "ray-worker"}
    labels = template["metadata"]["labels"] | {"app.kubernetes.io/component": component}
    return {
        "metadata": {"labels": labels},
        "spec": {
            **kept,
            "automountServiceAccountToken": False,
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}, *(volume for volume, _ in volumes)],
        },
    }
