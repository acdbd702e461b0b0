"""What may be merged and what may not: the rules on values, then the hook on real pushes."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gitops import bundle, environment
from gitops.contracts.serving import Canary, ModelVersion, ServedModel, Shadow, Trial
from gitops.environment import Environment
from gitops.findings import Finding, Phase, explain, failed
from gitops.gates import (
    POKE,
    Arrival,
    RepositoryChange,
    brought,
    bundle_complaint,
    check,
    check_files,
    hooks,
    judge,
    judge_schema,
    serve_schema,
)
from gitops.layout import PROJECT_PATH, model_path, project_path, serve_config_path
from gitops.promotion import Destination, to_yaml
from gitops.repository import MAIN, NO_COMMIT, Repository, create_bare
from tests.gitops.deployments import LOCAL, PROJECT, git, make_repository, make_version, seed

pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # by Ray, when imported

STAGING = serve_config_path("staging")
Files = dict[str, str]


def _judge(old: Files, changes: Mapping[str, str | None], *, first: bool = False) -> list[Finding]:
    """Judge with a schema and bundles that are always right."""
    new = {path: text for path, text in (old | dict(changes)).items() if text is not None}
    change = RepositoryChange(tuple(changes), old.get, new.get, new.get if first else old.get, first)
    return judge(change, schema=lambda _: None, bundles=lambda _: None)


def _served(version: ModelVersion, text: str | None = None) -> str:
    return environment.promote(text or seed()[LOCAL], None, version.model)


def _promotion(version: ModelVersion) -> Files:
    model = version.model
    return {LOCAL: _served(version), model_path(model.name, model.version): to_yaml(version)}


def _refusals(findings: list[Finding]) -> dict[str, str]:
    assert all(finding.remedy for finding in failed(findings)), "a refusal says what to do"
    return {finding.key: finding.reason for finding in failed(findings)}


@pytest.fixture
def version(tmp_path: Path) -> ModelVersion:
    return make_version(tmp_path, "3")


# --- the rules --------------------------------------------------------------------------------------------------------


def test_a_good_promotion_passes_every_gate(version: ModelVersion) -> None:
    findings = _judge(seed(), _promotion(version))
    assert failed(findings) == []
    assert [finding.key for finding in findings] == [
        "environment",
        "scope",
        "manifest",
        "bundle",
        "report",
        "accuracy",
        "loss",
    ]


@pytest.mark.parametrize(
    ("metrics", "wrong", "key", "reason"),
    [
        ({}, 6, "accuracy", "screw 3 has 0.9400; the bar is at least 0.95"),
        ({"loss": 0.41}, 2, "loss", "screw 3 has 0.4100; the bar is at most 0.4"),
        ({"loss": math.nan}, 2, "loss", "screw 3 has nan; the bar is at most 0.4"),
        ({"loss": -math.inf}, 2, "loss", "screw 3 has -inf; the bar is at most 0.4"),
    ],
)
def test_a_report_that_misses_a_bar_is_refused(
    tmp_path: Path, metrics: Mapping[str, float], wrong: int, key: str, reason: str
) -> None:
    findings = _judge(seed(), _promotion(make_version(tmp_path, "3", wrong=wrong, metrics=metrics)))
    assert _refusals(findings) == {key: reason}


def test_a_bar_is_inclusive(tmp_path: Path) -> None:
    assert _refusals(_judge(seed(), _promotion(make_version(tmp_path, "3", wrong=5, metrics={"loss": 0.4})))) == {}


def test_a_metric_that_was_not_measured_is_refused(version: ModelVersion) -> None:
    evaluation = version.evaluation.model_copy(update={"metrics": {"accuracy": 0.98}})
    findings = _judge(seed(), _promotion(version.model_copy(update={"evaluation": evaluation})))
    assert _refusals(findings) == {"loss": "screw 3 has no such metric; the bar is at most 0.4"}


@pytest.mark.parametrize(
    ("update", "reason"),
    [
        ({"bundle": "e" * 64}, "is about the bundle eeeeeeeeeeee, served is"),
        ({"split": "validation"}, "judges on the validation split"),
        ({"images": 99}, "counts 99 images, its confusion matrix 100"),
        ({"images": 0, "confusion": {}}, "counts 0 images"),
        (
            {"metrics": {"accuracy": 0.99, "loss": 0.1}},
            "states accuracy 0.9900, its confusion matrix gives 0.9800",
        ),
    ],
)
def test_a_report_that_proves_nothing_is_refused(version: ModelVersion, update: dict[str, Any], reason: str) -> None:
    evaluation = version.evaluation.model_copy(update=update)
    findings = _judge(seed(), _promotion(version.model_copy(update={"evaluation": evaluation})))
    assert list(_refusals(findings)) == ["report"]
    assert reason in _refusals(findings)["report"]


def test_a_threshold_chosen_on_the_test_split_is_refused(version: ModelVersion) -> None:
    threshold = version.evaluation.threshold.model_copy(update={"split": "test"})
    evaluation = version.evaluation.model_copy(update={"threshold": threshold})
    findings = _judge(seed(), _promotion(version.model_copy(update={"evaluation": evaluation})))
    assert "a threshold chosen on test" in _refusals(findings)["report"]


def test_a_change_cannot_lower_its_own_bar(tmp_path: Path) -> None:
    lowered = {PROJECT_PATH: PROJECT.replace("min: 0.95", "min: 0.1")}
    refusals = _refusals(_judge(seed(), _promotion(make_version(tmp_path, "3", wrong=20)) | lowered))
    assert refusals == {
        "accuracy": "screw 3 has 0.8000; the bar is at least 0.95",
        "scope": "project.yaml and a model change together",
    }


def test_bars_change_on_their_own() -> None:
    findings = _judge(seed(), {PROJECT_PATH: PROJECT.replace("min: 0.95", "min: 0.9")})
    assert [(finding.key, finding.phase) for finding in findings] == [("project", Phase.SUCCESS)]


@pytest.mark.parametrize("text", [None, "", PROJECT.replace("gates:", "gtes:")])
def test_a_project_file_that_cannot_be_read_is_refused(text: str | None) -> None:
    assert list(_refusals(_judge(seed(), {PROJECT_PATH: text}))) == ["project"]


BOLT = PROJECT.replace("name: screw", "name: bolt").replace("min: 0.95", "min: 0.99")


def _two_projects() -> Files:
    """A repository with a second project, and an application of its own for each."""
    config = Environment.parse(seed()[LOCAL], LOCAL).config
    (screw,) = config["applications"]
    bolt = screw | {"name": "bolt", "route_prefix": "/bolt"}
    return seed() | {project_path("bolt"): BOLT, LOCAL: json.dumps(config | {"applications": [screw, bolt]}, indent=1)}


def _of(version: ModelVersion, name: str) -> ModelVersion:
    return version.model_copy(update={"model": version.model.model_copy(update={"name": name})})


def test_each_project_has_its_own_bars(version: ModelVersion) -> None:
    old = _two_projects()
    bolt = _of(version, "bolt")
    for made, refusals in ((version, {}), (bolt, {"accuracy": "bolt 3 has 0.9800; the bar is at least 0.99"})):
        promotion = {LOCAL: _served(made, old[LOCAL]), model_path(made.model.name, "3"): to_yaml(made)}
        assert _refusals(_judge(old, promotion)) == refusals
    del old[project_path("bolt")]
    promotion = {LOCAL: _served(bolt, old[LOCAL]), model_path("bolt", "3"): to_yaml(bolt)}
    assert _refusals(_judge(old, promotion)) == {"project": "bolt has no bars here: project.yaml is screw's"}


def test_a_further_project_file_is_judged_as_the_first(version: ModelVersion) -> None:
    path = project_path("bolt")
    assert failed(_judge(seed(), {path: BOLT})) == []
    assert failed(_judge(_two_projects(), {path: None})) == []
    assert "is not a valid Project" in _refusals(_judge(seed(), {path: "name: bolt"}))["project"]
    assert _refusals(_judge(seed(), {path: PROJECT})) == {"project": f"{path} is the project screw"}
    twice = _refusals(_judge(seed(), {project_path("screw"): PROJECT}))
    assert twice == {"project": "screw has two project files: project.yaml and projects/screw.yaml"}
    together = _refusals(_judge(seed(), _promotion(version) | {path: BOLT}))
    assert together == {"scope": f"{path} and a model change together"}


def test_without_bars_nothing_passes(version: ModelVersion) -> None:
    old = seed()
    del old[PROJECT_PATH]
    assert "the bars before this change cannot be read" in _refusals(_judge(old, _promotion(version)))["project"]


def test_a_model_without_its_manifest_is_refused(version: ModelVersion) -> None:
    refusals = _refusals(_judge(seed(), {LOCAL: _served(version)}))
    assert refusals == {"manifest": "gitops/models/screw/3.yaml is missing"}


def test_a_manifest_that_says_otherwise_is_refused(version: ModelVersion) -> None:
    other = version.model.model_copy(update={"uri": "file:///elsewhere", "sha256": "e" * 64})
    files = _promotion(version) | {LOCAL: environment.promote(seed()[LOCAL], None, other)}
    assert "the environment's uri, sha256 is not that of gitops/models/screw/3.yaml" in str(
        _refusals(_judge(seed(), files))
    )


@pytest.mark.parametrize("text", [None, "model: {}", "[", "changed"])
def test_a_registered_version_stays_as_it_is(version: ModelVersion, text: str | None) -> None:
    path = model_path("screw", "3")
    refusals = _refusals(_judge(seed() | _promotion(version), {path: text}))
    assert refusals == {"history": f"{path} would be changed or deleted, but a registered version stays"}


def test_a_manifest_under_a_wrong_name_is_refused(version: ModelVersion) -> None:
    refusals = _refusals(_judge(seed(), {model_path("screw", "4"): to_yaml(version)}))
    assert refusals == {"history": "gitops/models/screw/4.yaml describes screw 3"}
    refusals = _refusals(_judge(seed(), {model_path("screw", "4"): "words"}))
    assert "is not a valid ModelVersion" in refusals["history"]


def test_registering_without_promoting_is_fine(version: ModelVersion) -> None:
    assert failed(_judge(seed(), {model_path("screw", "3"): to_yaml(version)})) == []


def test_a_promotion_touches_nothing_else(version: ModelVersion) -> None:
    extra = {f"docs/{number}.md": "x" for number in range(7)}
    refusals = _refusals(_judge(seed(), _promotion(version) | extra))
    shown = "docs/0.md, docs/1.md, docs/2.md, docs/3.md, docs/4.md and 2 more"
    assert refusals == {"scope": f"a promotion may not touch {shown}"}


def test_a_promotion_leaves_another_environments_settings_alone(version: ModelVersion) -> None:
    other = {STAGING: seed()[STAGING].replace("max_replicas: 4", "max_replicas: 5")}
    assert _refusals(_judge(seed(), _promotion(version) | other)) == {"scope": f"a promotion may not touch {STAGING}"}


@pytest.mark.parametrize(
    ("setting", "other"),
    [("max_replicas: 3", "max_replicas: 4"), ("port: 8000", "port: 80"), ("threads: 1", "threads: 9")],
)
def test_settings_do_not_change_together_with_a_model(version: ModelVersion, setting: str, other: str) -> None:
    files = _promotion(version)
    assert setting in files[LOCAL]
    refusals = _refusals(_judge(seed(), files | {LOCAL: files[LOCAL].replace(setting, other)}))
    assert refusals == {"scope": f"{LOCAL} changes its model and other settings together"}


def test_settings_change_on_their_own(version: ModelVersion) -> None:
    old = seed() | _promotion(version)
    findings = _judge(old, {LOCAL: old[LOCAL].replace("max_replicas: 3", "max_replicas: 4"), "README.md": "more"})
    assert [(finding.key, finding.phase.value) for finding in findings] == [
        ("environment", "success"),
        ("schema", "success"),
    ]


def test_taking_a_model_away_needs_no_report_but_stays_alone(version: ModelVersion) -> None:
    old = seed() | _promotion(version)
    assert failed(_judge(old, {LOCAL: seed()[LOCAL]})) == []
    assert "scope" in _refusals(_judge(old, {LOCAL: seed()[LOCAL], "README.md": "x"}))


@pytest.mark.parametrize("kind", ["canary", "shadow"])
def test_a_candidate_is_judged_as_a_promotion_is_and_goes_without_evidence(
    version: ModelVersion, tmp_path: Path, kind: str
) -> None:
    old = seed() | _promotion(version)
    candidate = make_version(tmp_path, "4", wrong=6)
    model = candidate.model
    trial: Trial = Canary(percent=10, model=model) if kind == "canary" else Shadow(model=model)
    tried = environment.promote(old[LOCAL], None, version.model, trial=trial)
    manifest = {model_path("screw", "4"): to_yaml(candidate)}
    assert _refusals(_judge(old, {LOCAL: tried} | manifest)) == {
        "accuracy": "screw 4 has 0.9400; the bar is at least 0.95"
    }
    assert list(_refusals(_judge(old, {LOCAL: tried}))) == ["manifest"]
    mixed = {LOCAL: tried.replace("threads: 1", "threads: 3")} | manifest
    assert "scope" in _refusals(_judge(old, mixed))
    running = old | {LOCAL: tried} | manifest
    assert [finding.key for finding in _judge(running, {LOCAL: old[LOCAL]})] == ["environment", "scope"]
    finished = environment.promote(tried, None, model)
    assert list(_refusals(_judge(running, {LOCAL: finished}))) == ["accuracy"]


def test_a_larger_share_is_judged_again(version: ModelVersion, tmp_path: Path) -> None:
    candidate = make_version(tmp_path, "4", wrong=6)
    canary = Canary(percent=10, model=candidate.model)
    text = environment.promote(_promotion(version)[LOCAL], None, version.model, trial=canary)
    old = seed() | _promotion(version) | {LOCAL: text, model_path("screw", "4"): to_yaml(candidate)}
    assert list(_refusals(_judge(old, {LOCAL: text.replace("percent: 10\n", "percent: 25\n")}))) == ["accuracy"]
    assert failed(_judge(old, {LOCAL: text.replace("threads: 1", "threads: 3")})) == []


def test_a_new_environment_begins_without_a_model(version: ModelVersion) -> None:
    path = serve_config_path("line-7")
    assert failed(_judge(seed(), {path: seed()[LOCAL]})) == []
    refusals = _refusals(_judge(seed(), _promotion(version) | {path: _served(version)}))
    assert refusals == {"scope": f"{path} changes its model and other settings together"}


def test_an_environment_is_deleted_only_with_its_name_in_the_project() -> None:
    assert _refusals(_judge(seed(), {STAGING: None})) == {"environment": f"{STAGING} would be deleted"}
    without = PROJECT.replace("[local, staging]", "[local]")
    assert failed(_judge(seed(), {STAGING: None, PROJECT_PATH: without})) == []
    assert "environment" in _refusals(_judge(seed(), {STAGING: None, PROJECT_PATH: None}))


@pytest.mark.parametrize("text", ["a: [", "applications: 5", seed()[LOCAL].replace("model: null", "modle: null")])
def test_a_file_that_cannot_be_read_strictly_is_refused(text: str) -> None:
    assert list(_refusals(_judge(seed(), {LOCAL: text}))) == ["environment"]


def test_a_file_that_could_not_be_read_before_can_be_mended(version: ModelVersion) -> None:
    old = seed() | {LOCAL: "a: ["}
    assert failed(_judge(old, _promotion(version))) == []
    assert failed(_judge(old, {LOCAL: seed()[LOCAL]})) == []


def test_the_first_push_may_bring_all_at_once(tmp_path: Path, version: ModelVersion) -> None:
    everything = seed() | _promotion(version) | {"README.md": "x"}
    assert failed(_judge({}, everything, first=True)) == []
    bad = seed() | _promotion(make_version(tmp_path, "4", wrong=50))
    assert list(_refusals(_judge({}, bad, first=True))) == ["accuracy"]


def test_returning_to_an_earlier_model_passes_the_same_gates(tmp_path: Path) -> None:
    good, bad = make_version(tmp_path, "1"), make_version(tmp_path, "2", wrong=50)
    old = seed() | _promotion(bad) | _promotion(good)
    assert failed(_judge(old | {LOCAL: _served(bad)}, {LOCAL: _served(good)})) == []
    assert list(_refusals(_judge(old, {LOCAL: _served(bad)}))) == ["accuracy"]


def test_the_slow_question_is_asked_last_and_only_if_needed(version: ModelVersion) -> None:
    asked: list[str] = []

    def schema(config: Mapping[str, Any]) -> str:
        asked.append(config["applications"][0]["name"])
        return "no"

    def ask(files: Files) -> dict[str, str]:
        new = seed() | files
        return _refusals(judge(RepositoryChange(tuple(files), seed().get, new.get, seed().get), schema, lambda _: None))

    settings = {LOCAL: seed()[LOCAL].replace("max_replicas: 3", "max_replicas: 4")}
    assert ask(settings) == {"schema": f"{LOCAL}: no"}
    assert list(ask(settings | {PROJECT_PATH: "words"})) == ["project"]
    assert ask(_promotion(version)) == {}, "settings that did not change were asked about before"
    assert asked == ["screw"]


def test_findings_are_explained_refusals_first() -> None:
    good = Finding(key="loss", phase=Phase.SUCCESS, reason="fine")
    bad = Finding(key="accuracy", phase=Phase.FAILURE, reason="too low", remedy="train")
    assert explain([good, bad]) == "REFUSED accuracy: too low\n        to do: train\npassed  loss: fine"


# --- the questions ----------------------------------------------------------------------------------------------------


def test_rays_schema_is_asked() -> None:
    config = environment.Environment.parse(seed()[LOCAL], LOCAL).config
    assert serve_schema(config) is None
    deployment = config["applications"][0]["deployments"][0]
    deployment["max_surge_percent"] = 500
    assert "max_surge_percent" in (serve_schema(config) or "")
    deployment["max_surge_percent"] = 100
    deployment["autoscaling_config"]["max_replicas"] = "many"
    assert "max_replicas" in (serve_schema(config) or "")


def test_without_ray_the_gate_says_so_and_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.serve.schema", None)
    finding = judge_schema(LOCAL, {"applications": []}, serve_schema)
    assert finding.phase is Phase.SKIPPED
    assert "Ray cannot be imported here" in finding.reason


def test_a_bundle_is_verified(version: ModelVersion) -> None:
    folder = bundle.local_folder(version.model.uri)
    assert folder is not None
    assert bundle_complaint(version.model) is None
    assert "is a model of screw, not bolt" in str(bundle_complaint(version.model.model_copy(update={"name": "bolt"})))
    assert "one of the two is wrong" in str(bundle_complaint(version.model.model_copy(update={"sha256": "e" * 64})))
    (folder / "model.bin").write_text("other")
    assert "model.bin was changed" in str(bundle_complaint(version.model))
    assert "no bundle in" in str(bundle_complaint(version.model.model_copy(update={"uri": "file:///absent"})))


def test_a_branch_is_judged_from_where_it_left_with_the_bars_of_today(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "bare.git")
    fork = repository.fetch(MAIN).id
    branch = repository.commit(fork, "topic", _promotion(make_version(tmp_path, "3")), "Promote")
    stricter = {PROJECT_PATH: PROJECT.replace("min: 0.95", "min: 0.99"), "README.md": "news"}
    today = repository.commit(MAIN, MAIN, stricter, "Stricter")
    assert failed(check(repository, fork, branch)) == []
    assert list(_refusals(check(repository, today, branch))) == ["accuracy"]
    assert list(_refusals(check_files(repository, today, _promotion(make_version(tmp_path, "3"))))) == ["accuracy"]


def test_what_a_change_brings_is_known_beside_what_is_served(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "bare.git")
    first, second, third = (make_version(tmp_path, version) for version in ("3", "4", "5"))
    seeded = repository.fetch(MAIN).id
    assert brought(repository, seeded, seeded) == []
    served = repository.commit(MAIN, MAIN, _promotion(first), "Promote")
    assert brought(repository, seeded, served) == [Arrival("local/screw", first, None)]
    assert brought(repository, NO_COMMIT, served) == [Arrival("local/screw", first, None)]
    text = environment.promote(_served(first), None, first.model, trial=Canary(percent=10, model=second.model))
    manifest = {model_path("screw", "4"): to_yaml(second)}
    tried = repository.commit(served, "canary", {LOCAL: text} | manifest, "Try")
    assert brought(repository, served, tried) == [Arrival("local/screw", second, first)]
    # Served is what the branch would be merged into, not what it left.
    today = repository.commit(served, MAIN, _promotion(third), "Promote")
    assert brought(repository, today, tried) == [Arrival("local/screw", second, third)]
    # What cannot be read is not brought; the gates say why.
    for bad in ({LOCAL: text}, {LOCAL: "applications: ["} | manifest, {LOCAL: text, **dict.fromkeys(manifest, "a: 1")}):
        assert (
            brought(repository, served, repository.commit(served, "bad", bad, "Bad", replace=repository.tip("bad")))
            == []
        )


def test_an_empty_branch_is_judged_as_a_whole(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "bare.git")
    assert {finding.key for finding in check(repository, NO_COMMIT, MAIN)} == {"environment", "project", "schema"}


# --- the hook ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(tmp_path: Path) -> tuple[Repository, Path]:
    """A repository with its hooks, and a user's clone of it."""
    repository = make_repository(tmp_path / "deployments.git", hooks())
    git(tmp_path, "clone", "--quiet", "deployments.git", "work")
    return repository, tmp_path / "work"


def _push(work: Path, files: Mapping[str, str | None], *arguments: str) -> str:
    """Commit and push as a user does; what the hook says, with `ok` where the push went through."""
    for path, text in files.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).unlink() if text is None else (work / path).write_text(text)
    git(work, "add", "--all")
    git(work, "commit", "--quiet", "--allow-empty", "-m", "by hand")
    command = ["git", "-C", str(work), "push", *(arguments or ("origin", MAIN))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return ("ok\n" if done.returncode == 0 else "") + done.stderr


def test_the_hook_lets_a_good_promotion_pass_and_pokes(
    guarded: tuple[Repository, Path], tmp_path: Path, version: ModelVersion
) -> None:
    repository, work = guarded
    said = _push(work, _promotion(version))
    assert said.startswith("ok")
    assert "let pass this change of main" in said
    assert "passed  accuracy: screw 3 has 0.9800; the bar is at least 0.95" in said
    assert (repository.git_dir / POKE).exists()
    assert repository.fetch(MAIN).id == git(work, "rev-parse", "HEAD")


def test_the_hook_refuses_and_says_gate_reason_and_remedy(
    guarded: tuple[Repository, Path], tmp_path: Path, version: ModelVersion
) -> None:
    repository, work = guarded
    tip = repository.fetch(MAIN).id
    wrong = version.model.model_copy(update={"sha256": "e" * 64})
    lying = version.model_copy(
        update={"model": wrong, "evaluation": version.evaluation.model_copy(update={"bundle": wrong.sha256})}
    )
    attempts: dict[str, Mapping[str, str | None]] = {
        "REFUSED accuracy: screw 5 has 0.5000": _promotion(make_version(tmp_path, "5", wrong=50)),
        "REFUSED bundle: bundle /": _promotion(lying),
        "REFUSED environment: gitops/environments/local/serve-config.yaml is not YAML": {LOCAL: "a: ["},
        "unknown key 'max_replica'; did you mean 'max_replicas'?": {
            LOCAL: seed()[LOCAL].replace("max_replicas", "max_replica")
        },
        "REFUSED scope: a promotion may not touch README.md": _promotion(version) | {"README.md": "x"},
        "REFUSED project: project.yaml is not a valid Project": {PROJECT_PATH: "name: screw"},
        "REFUSED schema: gitops/environments/local/serve-config.yaml": {
            LOCAL: seed()[LOCAL].replace("max_surge_percent: 100", "max_surge_percent: 500")
        },
    }
    for reason, files in attempts.items():
        said = _push(work, files)
        assert reason in said
        assert "to do: " in said
        assert "[remote rejected] main -> main (pre-receive hook declined)" in said
        git(work, "reset", "--quiet", "--hard", "origin/main")
    assert repository.fetch(MAIN).id == tip
    assert not (repository.git_dir / POKE).exists()


def test_the_hook_keeps_history(guarded: tuple[Repository, Path]) -> None:
    repository, work = guarded
    assert _push(work, {"README.md": "x"}).startswith("ok")
    tip = repository.fetch(MAIN).id
    git(work, "reset", "--quiet", "--hard", "HEAD~1")
    assert "main's history would be rewritten" in _push(work, {"README.md": "y"}, "--force", "origin", MAIN)
    assert "main would be deleted" in _push(work, {}, "origin", "--delete", MAIN)
    assert repository.fetch(MAIN).id == tip


def test_the_hook_leaves_other_branches_alone(guarded: tuple[Repository, Path]) -> None:
    _, work = guarded
    assert _push(work, {LOCAL: "a: ["}, "origin", "HEAD:refs/heads/try").startswith("ok")


def test_settings_are_for_people_to_change(guarded: tuple[Repository, Path]) -> None:
    repository, work = guarded
    text = seed()[LOCAL].replace("max_replicas: 3", "max_replicas: 4")
    assert _push(work, {LOCAL: text}).startswith("ok")
    assert repository.read(MAIN, LOCAL) == text


def test_an_empty_repository_takes_a_first_push(tmp_path: Path) -> None:
    create_bare(tmp_path / "bare.git", {"x": "x"}, hooks())
    git(tmp_path / "bare.git", "update-ref", "-d", "refs/heads/main")
    git(tmp_path, "init", "--quiet", "--initial-branch=main", "work")
    work = tmp_path / "work"
    git(work, "remote", "add", "origin", str(tmp_path / "bare.git"))
    assert "REFUSED project" in _push(work, {PROJECT_PATH: "x"})
    assert _push(work, {PROJECT_PATH: PROJECT}).startswith("ok")


def test_the_hook_is_the_only_way_in_for_mergeline_too(guarded: tuple[Repository, Path], version: ModelVersion) -> None:
    repository, _ = guarded
    outcome = Destination(repository, "local").promote(version, merge=True)
    assert outcome.merged
    assert repository.fetch(MAIN).id == outcome.commit
    assert (repository.git_dir / POKE).exists()


def test_the_hook_does_not_run_what_was_pushed(guarded: tuple[Repository, Path]) -> None:
    """Python would find a package `gitops` in its working folder first, and that is the repository's."""
    repository, work = guarded
    (repository.git_dir / "gitops").mkdir()
    (repository.git_dir / "gitops" / "__init__.py").write_text("raise SystemExit(0)")
    assert "REFUSED project" in _push(work, {PROJECT_PATH: "x"})


def test_called_wrongly_the_hook_refuses() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gitops.gates"], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 2
    assert "usage" in done.stderr


def test_models_are_told_apart_by_their_whole_description(version: ModelVersion) -> None:
    """The same version at another place is another model, and is judged again."""
    moved = ServedModel(**(version.model.model_dump() | {"uri": "file:///moved"}))
    old = seed() | _promotion(version)
    assert "the environment's uri is not that of" in str(
        _refusals(_judge(old, {LOCAL: environment.promote(old[LOCAL], None, moved)}))
    )
