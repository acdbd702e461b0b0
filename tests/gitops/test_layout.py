"""Paths of a deployments repository are written and read by one grammar."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitops.layout import (
    is_project_path,
    model_path,
    parse_model_path,
    parse_serve_config_path,
    project_path,
    serve_config_path,
)

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True)
VERSIONS = st.integers(1, 999_999_999).map(str)


@given(environment=LABELS)
def test_environment_paths_are_read_back(environment: str) -> None:
    assert parse_serve_config_path(serve_config_path(environment)) == environment
    assert parse_model_path(serve_config_path(environment)) is None


@given(name=LABELS, version=VERSIONS)
def test_model_paths_are_read_back(name: str, version: str) -> None:
    assert parse_model_path(model_path(name, version)) == (name, version)
    assert parse_serve_config_path(model_path(name, version)) is None


@given(name=LABELS)
def test_project_paths_are_known(name: str) -> None:
    assert is_project_path(project_path(name))
    assert not is_project_path(f"{project_path(name)}\n")
    assert not is_project_path(f"x/{project_path(name)}")


@pytest.mark.parametrize(
    "path",
    [
        "gitops/models/screw/0.yaml",
        "gitops/models/screw/latest.yaml",
        "gitops/models/screw/1.yaml\n",
        "gitops/models/a/b/1.yaml",
        "x/gitops/models/screw/1.yaml",
        "gitops/environments/local/other.yaml",
        "gitops/environments//serve-config.yaml",
        "gitops/environments/local/serve-config.yaml\n",
    ],
)
def test_other_paths_are_neither(path: str) -> None:
    assert parse_model_path(path) is None
    assert parse_serve_config_path(path) is None
