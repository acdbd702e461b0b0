"""What is printed: users' words as they wrote them, and tables that can be read on a narrow screen."""

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gitops.monitor import Monitor
from gitops.state import State
from gitops.status import Condition, Deployed, Health, Journal, Status, now
from mergeline.verbs import app
from ray_jobs import doctor, monitor
from serve.asking import Answer, Asking
from tests.gitops.deployments import make_version

ROOT = Path(__file__).parents[2]
WORDS = "Fix [/etc/x] of [model], [red]at last[/red] :warning: \\"
"""What rich would take for markup of its own."""
AUTHOR = "somebody.with.a.long.name@example.com"


def deploy(state: State, folder: Path, subject: str) -> None:
    entry = Deployed(
        id=0,
        revision="1" * 40,
        deploy_started_at=now(),
        deployed_at=now(),
        committed_at=now(),
        author=AUTHOR,
        subject=subject,
        applications=("screw",),
        models={"screw": make_version(folder, "1").model},
    )
    Journal(state, "local").append(entry)


def shown(verb: str, *arguments: str, state: Path) -> str:
    options = [*verb.split(), *arguments, "--state", str(state)]
    options += [] if verb in ("doctor", "monitor status") else ["--project", str(ROOT / "project.yaml")]
    result = CliRunner().invoke(app, options)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.stdout


def test_history_prints_a_subject_as_it_is(tmp_path: Path) -> None:
    deploy(State.at(tmp_path), tmp_path, WORDS)
    assert f" {WORDS}" in shown("history", state=tmp_path)


def test_status_prints_messages_as_they_are(tmp_path: Path) -> None:
    health, condition = Health(status="Degraded", message=WORDS), Condition(type="SyncError", message=WORDS)
    seen = Status(environment="local", health=health, conditions=(condition,), reconciled_at=now())
    Journal(State.at(tmp_path), "local").write(seen)
    assert f"SyncError    {WORDS}" in shown("status", state=tmp_path)


def test_a_path_is_printed_as_it_is(tmp_path: Path) -> None:
    assert f"in {tmp_path}/[model] yet" in shown("models", state=tmp_path / "[model]")


def test_doctor_prints_what_it_found_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = doctor.Check(name="[git]", level=doctor.Level.MISSING, found=WORDS, remedy="see [docs]")
    monkeypatch.setattr(doctor, "examine", lambda *_: [check])
    assert shown("doctor", state=tmp_path).splitlines()[1].split("  ") == [" [git]", "missing", WORDS, "see [docs] "]


def test_monitor_prints_alerts_and_errors_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = monitor.MonitorStatus(
        monitor=Monitor(id="1", prometheus="http://[::1]:9090", alertmanager="http://[::1]:9093"),
        targets=(monitor.ScrapeTarget(job="[job]", address="[::1]:1", up=False, error=WORDS),),
        alerts=(monitor.Alert(name="[alert]", state="firing", summary=WORDS, runbook="https://x/[alert]"),),
    )
    monkeypatch.setattr(monitor, "status", lambda _: found)
    lines = shown("monitor status", state=tmp_path).splitlines()
    assert lines[0] == "Prometheus    http://[::1]:9090"
    assert lines[3].split() == ["[job]", "[::1]:1", "down", *WORDS.split()]
    assert lines[5].split() == ["[alert]", "firing", *WORDS.split(), "https://x/[alert]"]


def test_predict_prints_names_and_reasons_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [Answer(file=WORDS, error=f"no image: {WORDS}"), Answer(file="[/a].png", label="[bent]", good=False)]
    answers[1] = answers[1].model_copy(update={"score": 0.75, "threshold": 0.5, "part_found": True})
    monkeypatch.setattr(Asking, "ask", lambda *_: iter(answers))
    (tmp_path / "a.png").touch()
    lines = shown("predict", str(tmp_path / "a.png"), "--url", "http://127.0.0.1:9", state=tmp_path).splitlines()
    assert lines[1].startswith(f" {WORDS}  not judged ")
    assert lines[1].endswith(f" no image: {WORDS} ")
    assert lines[2].split() == ["[/a].png", "[bent]", "0.7500", "0.5000", "found"]


def on_a_screen(columns: int, *arguments: str) -> list[str]:
    """The lines that a terminal of so many columns is given."""
    screen, terminal = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "xterm"}
    text = b""
    with subprocess.Popen([sys.executable, "-m", "mergeline", *arguments], cwd=ROOT, stdout=terminal, env=environment):
        os.close(terminal)
        with suppress(OSError):  # so Linux says that nobody writes any more
            while part := os.read(screen, 1 << 16):
                text += part
    os.close(screen)
    return re.sub("\x1b\\[[0-9;]*m", "", text.decode()).splitlines()


def test_only_prose_is_folded_on_a_screen_and_nothing_in_a_file(tmp_path: Path) -> None:
    subject = "Merge promote/local/screw-2, which was trained on all of the photographs of the last week"
    deploy(State.at(tmp_path), tmp_path, subject)
    for columns in (80, 120):
        lines = on_a_screen(columns, "history", "--state", str(tmp_path))
        assert AUTHOR in lines[1]
        assert len(lines) > 3
        folded = lines[0].index("commit")
        assert "".join(line[folded:].strip() for line in lines[1:]).replace(" ", "") == subject.replace(" ", "")
    assert max(map(len, lines)) <= 120
    assert len(on_a_screen(200, "history", "--state", str(tmp_path))) == 2
    line = shown("history", state=tmp_path).splitlines()[1]
    assert line.split("  ")[-2:] == [AUTHOR, f"{subject} "]
