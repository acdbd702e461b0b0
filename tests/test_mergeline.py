"""The command line's surface: every verb has help and stands in the README."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import mergeline
from gitops.state import State
from gitops.status import Health, Journal, Status, Sync, now
from gitops.turn import Turn

ROOT = Path(__file__).parents[1]
VERBS = sorted(get_command(mergeline.app).commands)  # type: ignore[attr-defined]


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


@pytest.mark.parametrize("verb", VERBS)
def test_verb_has_help_and_stands_in_the_readme(runner: CliRunner, verb: str) -> None:
    result = runner.invoke(mergeline.app, [verb, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5
    assert f"`mergeline {verb}" in (ROOT / "README.md").read_text()


def test_readme_names_no_verb_that_is_not_there() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    rows = [line.split("`")[1].split()[1] for line in lines if line.startswith("| `mergeline ")]
    assert sorted(rows) == VERBS


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mergeline", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_unknown_key_of_the_project_file_names_the_nearest(tmp_path: Path) -> None:
    text = (ROOT / "project.yaml").read_text().replace("patience:", "patiense:").replace("owner:", "ownr:")
    (tmp_path / "project.yaml").write_text(text)
    result = run("models", cwd=tmp_path)
    assert result.returncode == 1
    assert "did you mean 'owner'?" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["promote", "--to", "local"], "has no registered version"),
        (["promote", "--to", "moon"], "has no registered version"),
        (["rollback", "moon"], "no deployments repository"),
        (["submit", "etl"], "no Ray runs"),
        (["submit", "cook"], "there is no stage 'cook'"),
        (["status", "--env", "moon"], "has no environment 'moon'"),
        (["sync", "--repo", "/nowhere", "--address", "http://127.0.0.1:1"], "/nowhere"),
        (["status", "--project", "/nowhere/project.yaml"], "cannot read /nowhere/project.yaml"),
    ],
)
def test_what_cannot_be_done_is_said_with_a_reason(tmp_path: Path, arguments: list[str], said: str) -> None:
    options = [] if "--project" in arguments else ["--project", str(ROOT / "project.yaml")]
    result = run(*arguments, *options, *(["--state", str(tmp_path / "state")] if arguments[0] != "up" else []))
    assert result.returncode in (1, 2)
    assert said in " ".join(result.stderr.split()).replace("│ ", "").replace(" │", "")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    "arguments", [["up", "--port", "99999"], ["doctor", "--port", "0"], ["reconcile", "--interval", "0"]]
)
def test_a_number_out_of_range_is_refused(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert "Invalid value for" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_status_that_nobody_keeps_up_is_unknown(tmp_path: Path) -> None:
    state = State.at(tmp_path)
    seen = Status(environment="local", sync=Sync(status="Synced"), health=Health(status="Healthy"), reconciled_at=now())
    Journal(state, "local").write(seen)
    result = run("status", "--state", str(tmp_path))
    assert "Unknown" in result.stdout
    assert "it was Synced and Healthy" in result.stdout
    assert json.loads(run("status", "--json", "--state", str(tmp_path)).stdout)["health"]["status"] == "Unknown"
    with Turn(state.reconciler / "local").taken():  # now somebody looks
        assert "Healthy" in run("status", "--state", str(tmp_path)).stdout.splitlines()[2]


def test_down_without_anything_running_says_so(tmp_path: Path) -> None:
    result = run("down", "--state", str(tmp_path))
    assert result.returncode == 0
    assert "nothing runs" in result.stdout


def test_doctor_names_what_lacks(tmp_path: Path) -> None:
    result = run("doctor", "--json", "--state", str(tmp_path))
    checks = {check["name"]: check for check in json.loads(result.stdout)}
    assert checks["git"]["level"] == "ok"
    assert all(check["remedy"] for check in checks.values() if check["level"] != "ok")


def test_the_command_line_stays_quick_by_leaving_the_heavy_packages_alone() -> None:
    heavy = {"tensorflow", "keras", "ray", "mlflow", "openvino", "cv2", "matplotlib", "pandas"}
    code = f"import mergeline, sys; print(sorted({heavy!r} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
