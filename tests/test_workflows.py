"""The workflows are such as GitHub would run: keys, expressions, actions, and the shell in them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONLINT = Path(sys.executable).with_name("actionlint")


def lint(*files: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ACTIONLINT, *files], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_well_formed(workflow: Path) -> None:
    done = lint(workflow)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_linter_finds_what_is_wrong(tmp_path: Path) -> None:
    text = WORKFLOWS[0].read_text().replace("runs-on: ubuntu-24.04", "run-on: ubuntu-24.04")
    (tmp_path / "bad.yml").write_text(text)
    done = lint(tmp_path / "bad.yml")
    assert done.returncode == 1
    assert "run-on" in done.stdout


@pytest.mark.parametrize("before", ["", "17"])
def test_a_comment_replaces_the_one_that_begins_alike(tmp_path: Path, before: str) -> None:
    (tmp_path / "gh").write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\ncase "$*" in *--paginate*) echo {before};; esac\n'
    )
    (tmp_path / "gh").chmod(0o755)
    (tmp_path / "comment.md").write_text("### Gates\nall passed\n")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "GITHUB_REPOSITORY": "o/r"}
    subprocess.run([ROOT / ".github/comment.sh", "5", tmp_path / "comment.md"], check=True, env=environment)
    asked, *_, written = (tmp_path / "calls").read_text().splitlines()
    assert "repos/o/r/issues/5/comments" in asked
    assert 'startswith("### Gates")' in asked
    target = "--method PATCH repos/o/r/issues/comments/17" if before else "--silent repos/o/r/issues/5/comments"
    assert target in written
    assert written.endswith(f"--field body=@{tmp_path}/comment.md")
