"""The workflows are such as GitHub would run: keys, expressions, actions, and the shell in them."""

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
