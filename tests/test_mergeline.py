"""The command line's surface: every verb has help and stands in the README."""

import json
import os
import signal
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.main import get_command
from typer.testing import CliRunner

from gitops.contracts.comparison import Comparison
from gitops.contracts.drift import DriftFinding, DriftWindow
from gitops.contracts.serving import Canary
from gitops.layout import PROJECT_PATH, serve_config_path
from gitops.promotion import Destination, to_yaml
from gitops.repository import Repository, create_bare
from gitops.seed import seed_environment
from gitops.state import State, write_atomically
from gitops.status import Deployed, Health, Journal, Resource, Status, Sync, now
from gitops.turn import Turn
from mergeline.machine import _what_next
from mergeline.options import PROJECT, STATE
from mergeline.verbs import app
from monitoring.metrics import DriftKind, WindowOutcome
from ray_jobs.local import Served
from ray_jobs.stage import STAGES, Stage
from tests.bundles import put_bundle
from tests.gitops.deployments import git, make_version
from tests.stages import make_stage

ROOT = Path(__file__).parents[1]


def verbs(command: Any, *words: str) -> list[str]:
    """All verbs below a command, with the words of the group that they stand in: `up`, `label import`."""
    if not hasattr(command, "commands"):
        return [" ".join(words)]
    return sorted(verb for word, inner in command.commands.items() for verb in verbs(inner, *words, word))


VERBS = verbs(get_command(app))


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


@pytest.mark.parametrize("verb", VERBS)
def test_verb_has_help_and_stands_in_the_readme(runner: CliRunner, verb: str) -> None:
    result = runner.invoke(app, [*verb.split(), "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5
    assert f"`mergeline {verb}" in (ROOT / "README.md").read_text()


def test_readme_names_no_verb_that_is_not_there() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    rows = [line.split("`")[1].split()[1:] for line in lines if line.startswith("| `mergeline ")]
    # A verb's words come before its arguments, which begin otherwise: FILE, [VERSION], --to.
    assert sorted(" ".join(takewhile(lambda word: word[0].islower(), row)) for row in rows) == VERBS


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


FOR_KUBERNETES = ["submit", "train", "--target", "kubernetes", "--image", f"mergeline@sha256:{'5c1f' * 16}"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["promote", "--to", "local"], "has no registered version"),
        (["promote", "--to", "moon"], "has no registered version"),
        (["compare", "1", "2"], "has no registered version"),
        (["rollback", "moon"], "no deployments repository"),
        (["label", "export", "tasks.json"], "has no registered version"),
        (["label", "import", "/nowhere.json"], "cannot read the labels /nowhere.json"),
        (["submit", "etl"], "no Ray runs"),
        (["submit", "cook"], "there is no stage 'cook'"),
        (["submit", "etl", "--target", "kubernetes"], "--target kubernetes needs --image"),
        (
            [*FOR_KUBERNETES, "--project", "/nowhere/project.yaml"],
            "cannot read /nowhere/project.yaml",
        ),
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
    "arguments",
    [
        ["up", "--port", "99999"],
        ["doctor", "--port", "0"],
        ["reconcile", "--interval", "0"],
        ["promote", "--canary", "0"],
        ["promote", "--canary", "100"],
    ],
)
def test_a_number_out_of_range_is_refused(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert "Invalid value for" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["monitor", "dashboards", "file"], "error: file: File exists; something else lies there: name another place"),
        (["monitor", "dashboards", "file/below"], "error: file/below: Not a directory; something else lies there"),
        (["models", "--state", "file"], "'file' is a file"),
        (["drift", "--folder", "nowhere"], "'nowhere' does not exist"),
        (["observe", "binary"], "binary is not UTF-8 text"),
        (["init", "file", "--project", "new.yaml"], "the folder file is a file, and must be a folder"),
        (
            ["submit", "etl", "--address", "foo"],
            "Ray at foo did not take the job: Invalid address format: foo; name it as",
        ),
        (["submit", "etl", "--address", "http://[oops"], "Ray at http://[oops did not take the job"),
        (["promote", ""], "screw has no registered version"),
        (["monitor", "up", "--print-config", "--webhook", "not a url"], "'not a url' is no URL to send alerts to"),
        (["python -m ray_jobs.train", "--workers", "-1"], "--workers: must be a whole number above 0, not -1"),
        (["python -m ray_jobs.dataset", "--state", "file", "--data", "."], "file"),
    ],
)
def test_odd_input_is_one_message(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "project.yaml").write_text((ROOT / "project.yaml").read_text())
    (tmp_path / "file").write_text("")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "train").mkdir()
    (tmp_path / "train.csv").write_text("filename,anomaly\na.png,0\n")
    (tmp_path / "train" / "a.png").write_text("")
    before = sorted(tmp_path.rglob("*"))
    module, *rest = arguments
    command = [*module.split()[1:]] if module.startswith("python ") else ["-m", "mergeline", module]
    result = subprocess.run(
        [sys.executable, *command, *rest], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode in (1, 2)
    assert said in " ".join(result.stderr.replace("│", "").split())
    assert "Traceback" not in result.stderr
    assert sorted(tmp_path.rglob("*")) == before, "nothing half-written"


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="this system has no device that is always full")
def test_a_full_disk_behind_the_output_is_one_message(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "mergeline", "models", "--state", str(tmp_path)],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (result.returncode, result.stderr) == (1, "error: No space left on device; make room\n")


def test_what_to_type_next_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/elsewhere/bin/mergeline"])
    served = Served(make_version(tmp_path, "1"), "http://127.0.0.1:8000", "http://127.0.0.1:8265", "line.git")
    *_, status, down = _what_next(served, Path("two parts.yaml"), Path("a state"))
    assert status == "  mergeline status --project 'two parts.yaml' --state 'a state'"
    assert down == "  mergeline down --state 'a state'"
    *_, status, down = _what_next(served, PROJECT, STATE)
    assert (status, down) == ("  mergeline status", "  mergeline down")


def test_a_terminal_of_another_alphabet_gets_every_line(tmp_path: Path) -> None:
    arguments = ["models", "--project", str(ROOT / "project.yaml"), "--state", str(tmp_path / "Öfen")]
    result = subprocess.run(
        [sys.executable, "-m", "mergeline", *arguments],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert r"/\xd6fen yet: `mergeline up` makes one" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["monitor", "status"], "run `mergeline monitor up`"),
        (["monitor", "publish", "--grafana", "http://127.0.0.1:9"], "give --prometheus URL"),
        (["monitor", "publish", "--grafana", "http://127.0.0.1:9", "--prometheus", "http://a"], "set GRAFANA_TOKEN"),
        (["reconcile", "--watch", "--metrics", "nowhere"], "is no address to listen on"),
    ],
)
def test_what_cannot_be_watched_is_said_with_a_reason(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = run(*arguments, "--state", str(tmp_path / "state"))
    assert result.returncode in (1, 2)
    assert said in " ".join(result.stderr.split()).replace("│ ", "").replace(" │", "")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "state").exists()


def test_the_configuration_and_the_dashboards_can_be_had_without_starting_anything(tmp_path: Path) -> None:
    result = run("monitor", "up", "--print-config", "--webhook", "http://127.0.0.1:1/alert", "--state", str(tmp_path))
    prometheus, alertmanager = YAML(typ="safe").load_all(result.stdout)
    assert prometheus["scrape_configs"][0]["file_sd_configs"][0]["files"] == [f"{tmp_path}/monitoring/targets/*.json"]
    assert all(Path(file).exists() for file in prometheus["rule_files"])
    assert alertmanager["receivers"][0]["webhook_configs"][0]["url"] == "http://127.0.0.1:1/alert"
    assert list(tmp_path.iterdir()) == []
    assert "nothing watches" in run("monitor", "down", "--state", str(tmp_path)).stdout
    assert run("monitor", "dashboards", str(tmp_path / "boards")).returncode == 0
    names = {file.stem: json.loads(file.read_text())["uid"] for file in (tmp_path / "boards").glob("*.json")}
    assert len(names) == 5
    assert all(name == uid for name, uid in names.items())


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
    heavy = {"tensorflow", "keras", "ray", "mlflow", "openvino", "cv2", "matplotlib", "pandas", "prometheus_client"}
    code = f"import mergeline.verbs, sys; print(sorted({heavy!r} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_importing_the_command_line_does_nothing() -> None:
    imports = "import mergeline.__main__, mergeline.verbs"
    code = f"import signal, sys; sys.argv = ['mergeline']; before = signal.getsignal(signal.SIGINT); {imports}"
    code += "; sys.exit(signal.getsignal(signal.SIGINT) is not before)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_names_every_stage(runner: CliRunner) -> None:
    words = runner.invoke(app, ["submit", "--help"], env={"COLUMNS": "200"}).output
    assert f"One of {', '.join(STAGES)}." in words


# --- comparing --------------------------------------------------------------------------------------------------------


@pytest.fixture
def compared(tmp_path: Path) -> tuple[Stage, list[str]]:
    """A stage with two registered versions, the first of which is served; and the options that name it."""
    stage = make_stage(tmp_path)
    stage.state.bundles.mkdir(parents=True)
    seed = {
        PROJECT_PATH: stage.project_file.read_text(),
        serve_config_path("local"): seed_environment("screw", "local"),
    }
    create_bare(stage.state.repository, seed, {})
    for version, salt in (("1", 0.0), ("2", 0.5)):
        digest = put_bundle(stage.state, version_salt=salt, dataset=stage.dataset().digest)
        registered = make_version(tmp_path, version)
        model = registered.model.model_copy(update={"uri": (stage.state.bundles / digest).as_uri(), "sha256": digest})
        report = registered.evaluation.model_copy(update={"bundle": digest})
        registered = registered.model_copy(update={"model": model, "evaluation": report})
        write_atomically(stage.state.models / "screw" / f"{version}.yaml", to_yaml(registered))
    Destination(Repository(stage.state.repository), "local").promote(stage.state.versions("screw")[0], merge=True)
    return stage, ["--project", str(stage.project_file), "--state", str(stage.state.root)]


def message(stage: Stage, branch: str) -> str:
    return git(stage.state.repository, "log", "-1", "--format=%B", branch)


def test_without_numbers_the_newest_is_compared_with_the_served(
    runner: CliRunner, compared: tuple[Stage, list[str]]
) -> None:
    stage, options = compared
    shown = runner.invoke(app, ["compare", *options], catch_exceptions=False).output
    assert "screw 1" in shown
    assert "30 held-out images" in shown
    assert "McNemar's exact test: p = " in shown
    assert f"written to {stage.state.root}/comparisons/screw/1-2" in shown
    printed = runner.invoke(app, ["compare", "1", "2", *options, "--json"], catch_exceptions=False).output
    found = Comparison.read(stage.state.comparisons / "screw" / "1-2" / "comparison.json")
    assert Comparison.parse(json.loads(printed), "output") == found
    assert [item.filename in shown for item in found.disagreements] == [True] * len(found.disagreements)


def test_the_newest_is_not_compared_with_itself(compared: tuple[Stage, list[str]]) -> None:
    result = run("compare", "2", *compared[1])
    assert result.returncode == 1
    assert "screw 2 and screw 2 have the same bundle" in result.stderr


def test_a_promotion_carries_the_comparison_with_what_is_served(
    runner: CliRunner, compared: tuple[Stage, list[str]]
) -> None:
    stage, options = compared
    shown = runner.invoke(app, ["promote", "2", *options], catch_exceptions=False).output
    line = "screw 2 against screw 1 on 30 held-out images: accuracy"
    assert line in shown
    assert line in message(stage, "promote/local/screw-2")


def test_gates_write_the_comment_of_a_promotion(runner: CliRunner, compared: tuple[Stage, list[str]]) -> None:
    stage, options = compared
    runner.invoke(app, ["promote", "2", "--no-merge", *options], catch_exceptions=False)
    asked = ["gates", "--head", "promote/local/screw-2", "--state", str(stage.state.root)]
    page = runner.invoke(app, [*asked, "--markdown"], catch_exceptions=False).output
    assert page.startswith("| gate |  | found |\n")
    assert "| manifest | ✅ | gitops/models/screw/2.yaml is what is served |" in page
    assert "| metric | screw 2 | screw 1, now served |" in page
    assert "take --json or --markdown" in runner.invoke(app, [*asked, "--markdown", "--json"]).output


def test_a_promotion_goes_on_where_nothing_can_be_compared(
    runner: CliRunner, compared: tuple[Stage, list[str]]
) -> None:
    stage, options = compared
    stage.dataset_pointer.unlink()
    result = runner.invoke(app, ["promote", "2", *options], catch_exceptions=False)
    assert result.exit_code == 0
    assert "not compared with what is served now: screw has no dataset yet" in result.output
    assert "against" not in message(stage, "promote/local/screw-2")


def test_an_empty_version_is_not_the_newest(compared: tuple[Stage, list[str]]) -> None:
    result = run("promote", "", *compared[1])
    assert (result.returncode, result.stderr) == (1, "error: screw has no version ''; it has 1, 2\n")


def test_a_version_without_a_figure_is_listed_without_it(runner: CliRunner, compared: tuple[Stage, list[str]]) -> None:
    shown = runner.invoke(app, ["models", *compared[1]], catch_exceptions=False).output
    assert shown.splitlines()[1].split()[:4] == ["1", "0.980", "–", "–"]


def test_a_change_that_no_gate_judges_is_said(runner: CliRunner, compared: tuple[Stage, list[str]]) -> None:
    shown = runner.invoke(app, ["gates", "--state", str(compared[0].state.root)], catch_exceptions=False).output
    assert shown == "HEAD changes nothing in main that a gate judges\n"


def test_where_there_are_no_versions_that_is_said(runner: CliRunner, tmp_path: Path) -> None:
    options = ["models", "--project", str(ROOT / "project.yaml"), "--state", str(tmp_path)]
    assert "screw has no registered version" in runner.invoke(app, options, catch_exceptions=False).output
    assert json.loads(runner.invoke(app, [*options, "--json"], catch_exceptions=False).output) == []


def test_promoting_what_is_served_compares_nothing(runner: CliRunner, compared: tuple[Stage, list[str]]) -> None:
    shown = runner.invoke(app, ["promote", "1", *compared[1]], catch_exceptions=False).output
    assert "nothing to do" in shown
    assert "compared" not in shown


def test_labels_are_imported_and_counted(tmp_path: Path) -> None:
    (tmp_path / "data/train").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (tmp_path / "data/train" / name).write_text(name)
    (tmp_path / "data/train.csv").write_text("filename,anomaly\na.png,0\n")
    (tmp_path / "feedback.jsonl").write_text('{"filename": "b.png", "label": "defective"}\n')
    common = ["--project", str(ROOT / "project.yaml"), "--state", str(tmp_path / "state")]
    common += ["--data", str(tmp_path / "data"), str(tmp_path / "feedback.jsonl")]
    listed = run("label", "import", *common)
    assert listed.returncode == 0, listed.stderr
    assert "1 new, 0 changed, 0 the same" in listed.stdout
    assert "nothing was kept" in listed.stdout
    assert not (tmp_path / "state").exists()
    taken = json.loads(run("label", "import", "--confirm", "--by", "Ada", "--json", *common).stdout)
    assert [item["filename"] for item in taken["new"]] == ["b.png"]
    assert taken["written"]
    assert list((tmp_path / "state/labels").glob("*.json")) == [tmp_path / "state/labels/screw.json"]


# --- clusters ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def for_a_cluster(tmp_path: Path) -> list[str]:
    """The options that name a repository with the packaged overlays; its branch `change` promotes and builds anew."""
    texts = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "gitops").rglob("*.yaml")}
    create_bare(tmp_path / "deployments.git", {PROJECT_PATH: (ROOT / "project.yaml").read_text(), **texts}, {})
    overlay = "gitops/environments/production/kustomization.yaml"
    config = serve_config_path("production")
    changed = {
        overlay: texts[overlay].replace("0" * 64, "5c1f" * 16),
        config: texts[config].replace("max_queued_requests: 128", "max_queued_requests: 64"),
    }
    Repository(tmp_path / "deployments.git").commit("main", "change", changed, "Another image")
    return ["--repo", str(tmp_path / "deployments.git"), "--state", str(tmp_path / "state")]


def test_gates_judge_an_overlay_that_is_named(runner: CliRunner, for_a_cluster: list[str]) -> None:
    shown = runner.invoke(app, ["gates", "--head", "main", "--env", "production", *for_a_cluster])
    assert shown.exit_code == 1
    assert "REFUSED image: RayService mergeline" in shown.output
    assert "skipped kubernetes: not compared with a schema" in shown.output
    shown = runner.invoke(app, ["gates", "--head", "change", "--env", "production", *for_a_cluster])
    assert shown.exit_code == 0, shown.output
    assert "Ray's ServeDeploySchema takes gitops/environments/production/serve-config.yaml" in shown.output


def test_diff_says_what_a_merge_will_do(runner: CliRunner, for_a_cluster: list[str]) -> None:
    options = ["diff", "--base", "main", "--env", "production", "--project", str(ROOT / "project.yaml"), *for_a_cluster]
    shown = runner.invoke(app, [*options, "--revision", "change"], catch_exceptions=False)
    assert shown.exit_code == 1
    lines = shown.output.splitlines()
    assert lines[0].startswith("production: new cluster (KubeRay starts a second cluster")
    assert "  in place: serve-config.yaml: applications.screw.deployments.Classifier.max_queued_requests" in lines
    assert "  new cluster: rayClusterConfig.headGroupSpec.template.spec.containers.0.image" in lines
    shown = runner.invoke(app, [*options, "--revision", "main"], catch_exceptions=False)
    assert (shown.exit_code, shown.output) == (0, "production: nothing changes\n")


def test_a_stage_is_printed_as_a_ray_job(runner: CliRunner) -> None:
    arguments = [*FOR_KUBERNETES, "--workers", "3", "--project", str(ROOT / "project.yaml")]
    shown = runner.invoke(app, arguments, catch_exceptions=False)
    assert shown.exit_code == 0
    assert "kind: RayJob" in shown.output
    assert "replicas: 3" in shown.output


def test_a_report_reads_the_claim_that_the_component_makes(runner: CliRunner) -> None:
    arguments = ["submit", "drift", "--target", "kubernetes", "--image", f"mergeline@sha256:{'5c1f' * 16}"]
    shown = runner.invoke(app, [*arguments, "--project", str(ROOT / "project.yaml")], catch_exceptions=False)
    claim = (ROOT / "gitops/components/drift-windows/claim.yaml").read_text()
    assert "name: mergeline-drift-windows\n" in claim
    assert "claimName: mergeline-drift-windows\n" in shown.output


# --- trials -----------------------------------------------------------------------------------------------------------


def test_a_version_is_tried_finished_and_taken_away(runner: CliRunner, compared: tuple[Stage, list[str]]) -> None:
    stage, options = compared
    repository = Repository(stage.state.repository)

    def wanted() -> str:
        return str(Destination(repository, "local").target("screw").wanted)

    def typed(*arguments: str) -> str:
        result = runner.invoke(app, ["promote", *arguments, *options], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    shown = typed("2", "--to", "local", "--canary", "10")
    assert "branch canary/local/screw-2" in shown
    assert "screw 2 against screw 1 on 30 held-out images: accuracy" in shown
    assert wanted() == "screw version 1"
    typed("2", "--canary", "10", "--merge")
    assert wanted() == "screw version 1 with a canary of version 2 (10 %)"
    typed("--shadow", "--merge")
    assert wanted() == "screw version 1 with a shadow of version 2"
    assert "branch abort/local/screw-2" in typed("2", "--abort", "--no-merge")
    assert "merged as" in typed("--abort")
    assert wanted() == "screw version 1"
    typed("2", "--canary", "50", "--merge")
    shown = typed("2", "--finish")
    assert "branch finish/local/screw-2" in shown
    assert "screw 2 against screw 1 on 30 held-out images" in shown
    typed("--finish", "--merge")
    assert wanted() == "screw version 2"


def test_a_trial_that_is_another_one_is_named(compared: tuple[Stage, list[str]]) -> None:
    stage, options = compared
    second = stage.state.versions("screw")[1]
    Destination(Repository(stage.state.repository), "local").try_beside(second, 10, merge=True)
    for end in ("--finish", "--abort"):
        result = run("promote", "7", "--to", "local", end, *options)
        assert result.returncode == 1
        assert "local has a canary of version 2 (10 %), not one of version 7" in result.stderr
    result = run("promote", "2", "--to", "local", *options)
    assert result.returncode == 1
    assert "end that first, by `mergeline promote --to local` with --finish or --abort" in result.stderr


def test_only_one_way_to_try_is_taken() -> None:
    result = run("promote", "--canary", "10", "--shadow")
    assert result.returncode == 2
    assert "take one of --canary, --shadow, --finish and --abort" in result.stderr


def test_where_nothing_was_deployed_that_is_said(tmp_path: Path) -> None:
    assert run("history", "--state", str(tmp_path)).stdout == "nothing was deployed yet\n"
    assert json.loads(run("history", "--json", "--state", str(tmp_path)).stdout) == []


def test_what_failed_before_there_was_a_commit_names_none(tmp_path: Path) -> None:
    create_bare(
        tmp_path / "line.git", {PROJECT_PATH: "", serve_config_path("local"): seed_environment("screw", "local")}, {}
    )
    options = ["--state", str(tmp_path), "--repo", str(tmp_path / "line.git"), "--address", "http://127.0.0.1:1"]
    result = run("sync", *options)
    assert result.returncode == 1
    assert "Failed Ray's dashboard at http://127.0.0.1:1 does not answer" in result.stdout


def test_what_is_tried_is_in_status_and_history(tmp_path: Path) -> None:
    state = State.at(tmp_path / "state")
    model, candidate = (make_version(tmp_path, number).model for number in "12")
    canary, journal = Canary(percent=10, model=candidate), Journal(state, "local")
    journal.append(
        Deployed(
            id=0,
            revision="1" * 40,
            deploy_started_at=now(),
            deployed_at=now(),
            committed_at=now(),
            author="Ada",
            subject="Try it",
            applications=("screw",),
            models={"screw": model},
            trials={"screw": canary},
        )
    )
    resource = Resource(name="screw", status="Synced", wanted=model, trial=canary)
    journal.write(Status(environment="local", resources=(resource,), reconciled_at=now()))
    assert journal.history()[0].trials == {"screw": canary}
    assert journal.status().resources == (resource,)
    assert "screw 1 with a canary of version 2 (10 %)" in run("history", "--state", str(state.root)).stdout
    assert "wants version 1 with a canary of version 2 (10 %)" in run("status", "--state", str(state.root)).stdout


def test_of_a_fleet_the_status_shows_the_first_models_and_how_many_are_in_memory(tmp_path: Path) -> None:
    state, model = State.at(tmp_path / "state"), make_version(tmp_path, "1").model
    models = tuple(model.model_copy(update={"name": f"part-{number}"}) for number in range(12))
    resource = Resource(name="parts", status="Synced", fleet=models, served=(f"part-3 1@sha256:{model.sha256}",))
    Journal(state, "local").write(Status(environment="local", resources=(resource,), reconciled_at=now()))
    said = run("status", "--state", str(state.root)).stdout
    assert "wants a fleet of 12: part-0 1, part-1 1," in said
    assert "part-9 1 and 2 more; served: 1 of them in memory" in said


@pytest.mark.parametrize(
    "program",
    [
        [sys.executable, "-m", "mergeline"],
        [str(Path(sys.executable).with_name("mergeline"))],
        [sys.executable, "-m", "ray_jobs.pipeline"],
        [sys.executable, "-m", "ray_jobs.render"],
    ],
)
def test_ctrl_c_while_a_program_imports_is_a_word(program: list[str], tmp_path: Path) -> None:
    # In place of what all of them import: it says when, and never ends.
    (tmp_path / "pydantic.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    with subprocess.Popen(
        # A shell that runs the tests in the background has them ignore what Ctrl-C sends, and what they start too.
        ["env", "--default-signal=INT", *program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "importing\n"
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, said) == (130, "interrupted\n")


def test_drift_lists_the_windows_and_what_drifted(runner: CliRunner, tmp_path: Path) -> None:
    options = ["drift", "--project", str(ROOT / "project.yaml"), "--state", str(tmp_path)]
    empty = runner.invoke(app, options)
    assert empty.exit_code == 0
    assert "no window of photographs lies in" in empty.output
    model = make_version(tmp_path, "3").model
    finding = DriftFinding(
        kind=DriftKind.IMAGE, feature="exposure", statistic="ks", value=0.9, p_value=0.0, wasserstein=7.0, drifted=True
    )
    calm = finding.model_copy(update={"feature": "noise", "drifted": False, "p_value": 1.0})
    for number, findings in enumerate([(calm,), (calm, finding)]):
        window = DriftWindow(
            application="screw",
            model=model,
            outcome=WindowOutcome.DRIFTED if number else WindowOutcome.STABLE,
            photographs=256,
            began_at=now(),
            ended_at=now(),
            labels={"good": 200, "defective": 56},
            compares_labels=False,
            findings=findings,
        )
        write_atomically(tmp_path / "windows" / "local" / "screw" / f"{number}.json", window.to_json())
    found = runner.invoke(app, options)
    stable, drifted = found.output.splitlines()[1:]
    assert "stable" in stable
    assert "exposure" not in stable
    assert drifted.split()[2:] == ["screw", "3", "256", "drifted", "exposure", "(ks", "0.90)"]
    listed = json.loads(runner.invoke(app, [*options, "--json", "--limit", "1"]).output)
    assert [(window["outcome"], window["findings"][1]["feature"]) for window in listed] == [("drifted", "exposure")]
    (tmp_path / "windows" / "local" / "screw" / "2.json").write_text("{}")
    broken = runner.invoke(app, options)
    assert broken.exit_code == 1
    assert "2.json is not a valid DriftWindow" in str(broken.exception)
