"""Where a deployments repository keeps what: project files, environments, and manifests of registered versions."""

import re

PROJECT_PATH = "project.yaml"
"""Where a deployments repository keeps the project file; those of further projects stand beside it, see below."""
ENVIRONMENTS = "gitops/environments"
MODELS = "gitops/models"
STAGING = "staging"
"""The environment of a cluster that the others wait for, and the one in which code that is in no image may be tried."""

_SERVE_CONFIG = re.compile(r"^gitops/environments/([a-z0-9-]+)/serve-config\.yaml\Z")
_PROJECT = re.compile(r"^projects/[a-z0-9-]+\.yaml\Z")
_MODEL = re.compile(r"^gitops/models/([a-z0-9-]+)/([1-9][0-9]{0,8})\.yaml\Z")


def serve_config_path(environment: str) -> str:
    """Where a deployments repository keeps an environment."""
    return f"{ENVIRONMENTS}/{environment}/serve-config.yaml"


def parse_serve_config_path(path: str) -> str | None:
    """The environment whose serve-config.yaml `path` is, or None."""
    match = _SERVE_CONFIG.match(path)
    return match[1] if match else None


def project_path(name: str) -> str:
    """Where a deployments repository keeps the project file of a further project."""
    return f"projects/{name}.yaml"


def is_project_path(path: str) -> bool:
    """Whether `path` is that of a project file."""
    return path == PROJECT_PATH or _PROJECT.match(path) is not None


def model_path(name: str, version: str) -> str:
    """Where a deployments repository keeps a registered version of a model."""
    return f"{MODELS}/{name}/{version}.yaml"


def parse_model_path(path: str) -> tuple[str, str] | None:
    """Name and version of the model whose manifest `path` is, or None."""
    match = _MODEL.match(path)
    return (match[1], match[2]) if match else None
