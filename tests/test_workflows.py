"""The workflows are such as GitHub would run: keys, expressions, actions, and the shell in them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

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


def test_the_gates_judge_every_environment_that_argo_cd_takes(tmp_path: Path) -> None:
    """And no other: one that is gone, one machine's, and one that has no image before and after."""
    workflow = YAML(typ="safe").load(ROOT / ".github/workflows/gates.yml")
    (script,) = (step["run"] for step in workflow["jobs"]["gates"]["steps"] if step.get("id") == "gates")
    environments = tmp_path / "gitops" / "environments"

    def commit(**digests: str) -> str:
        shutil.rmtree(environments, ignore_errors=True)
        for name, digest in digests.items():
            (environments / name).mkdir(parents=True)
            (environments / name / "serve-config.yaml").write_text("applications: []\n")
            if digest:
                (environments / name / "kustomization.yaml").write_text(
                    f"images:\n  - name: a\n    digest: sha256:{digest}\n"
                )
        (environments / "README.md").write_text("what is served\n")
        git("add", "--all")
        git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--allow-empty", "--message", "a")
        return git("rev-parse", "HEAD")

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "--quiet")
    zeros, built = "0" * 64, "5c1f" * 16
    base = commit(staging=built, production=built, template=zeros)
    head = commit(production=built, template=zeros, local=zeros, machine="", **{"hall-2": zeros, "hall-3": built})
    verb = tmp_path / ".venv" / "bin" / "mergeline"
    verb.parent.mkdir(parents=True)
    verb.write_text('#!/bin/sh\necho "$@" >>calls\n')
    verb.chmod(0o755)
    known = {"PATH": os.environ["PATH"], "BASE": base, "HEAD": head, "GITHUB_STEP_SUMMARY": f"{tmp_path}/summary"}
    subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, env=known, check=True)
    gates, *diffs = (tmp_path / "calls").read_text().splitlines()
    assert "--env hall-2 --env hall-3 --env production --crds" in gates
    assert [line.rpartition(" ")[2] for line in diffs] == ["hall-2", "hall-3", "production", "template"]
    assert "were not judged: template." in (tmp_path / "summary").read_text()


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
