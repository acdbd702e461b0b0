"""What `mergeline up` promotes: the newest version, and nothing while one is on trial."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from gitops import promotion
from gitops.environment import PROJECT_PATH, seed_environment, serve_config_path
from gitops.manifest import ModelVersion
from gitops.repository import MAIN, Repository, create_bare
from gitops.state import write_atomically
from ray_jobs.local import Options, _promote
from ray_jobs.stage import Stage
from tests.gitops.deployments import make_version
from tests.stages import make_stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """With versions 1 and 2, and a deployments repository that serves neither."""
    stage = make_stage(tmp_path)
    path = serve_config_path("local")
    seed = {PROJECT_PATH: stage.project_file.read_text(), path: seed_environment("screw", "local")}
    create_bare(stage.state.repository, seed, {})
    for number in ("1", "2"):
        version = make_version(tmp_path, number)
        write_atomically(stage.state.models / "screw" / f"{number}.yaml", promotion.to_yaml(version))
    return stage


def up(stage: Stage) -> tuple[ModelVersion, str, str]:
    """The version that shall be served, the commit, and what was printed."""
    said = io.StringIO()
    repository = Repository(stage.state.repository)
    version, commit = _promote(stage, Options("local"), repository, Console(file=said, width=200))
    return version, commit, said.getvalue()


def test_the_newest_version_is_promoted(stage: Stage) -> None:
    version, commit, said = up(stage)
    assert (version.model.version, "promoting screw 2 to local" in said) == ("2", True)
    assert up(stage)[1] == commit == Repository(stage.state.repository).tip(MAIN)


def test_a_trial_goes_on_as_whoever_began_it_left_it(stage: Stage) -> None:
    repository, (first, second) = Repository(stage.state.repository), stage.state.versions("screw")
    promotion.promote(repository, first, "local", merge=True)
    tip = promotion.try_beside(repository, second, "local", percent=10, merge=True).commit
    version, commit, said = up(stage)
    assert (version, commit) == (first, tip)
    assert "not promoting screw 2: local has a canary of version 2 (10 %); finish or abort it first" in said
