"""Promotion and rollback on real repositories, and pull requests against a local GitHub of a few lines."""

import json
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gitops.contracts.comparison import ComparedVersion, Comparison, Disagreement, McNemar, MetricDifference
from gitops.contracts.serving import Canary, ModelVersion, Shadow, UserConfig
from gitops.environment import Environment
from gitops.errors import ContractError, GateError, GitError
from gitops.findings import Finding, Phase, failed
from gitops.gates import Arrival
from gitops.layout import PROJECT_PATH, model_path
from gitops.promotion import Destination, to_yaml
from gitops.pull_request import Remote, change_markdown, report_markdown
from gitops.repository import MAIN, Repository
from tests.gitops.deployments import LOCAL, PROJECT, git, make_repository, make_version
from tests.http_server import Handler, listening

BRANCH = "promote/local/screw-1"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "bare.git")


@pytest.fixture
def version(tmp_path: Path) -> ModelVersion:
    return make_version(tmp_path, "1")


def make_comparison(a: ModelVersion, b: ModelVersion) -> Comparison:
    """What a comparison might have found; nothing was compared."""
    differently = Disagreement(filename="part", label="defective", a="good", b="defective", a_score=0.25, b_score=0.75)
    return Comparison(
        a=ComparedVersion(model=a.model, threshold=0.5, dataset="c" * 64),
        b=ComparedVersion(model=b.model, threshold=0.4, dataset="d" * 64),
        dataset="d" * 64,
        images=58,
        metrics={"accuracy": MetricDifference(a=0.9, b=0.95, difference=0.05, low=-0.017, high=0.12)},
        mcnemar=McNemar(only_a_right=1, only_b_right=4, p_value=0.375),
        resamples=2000,
        disagreements=tuple(differently.model_copy(update={"filename": f"part|{number}.png"}) for number in range(25)),
        left_out=("a.png", "b.png"),
        warnings=("screw 1 was trained long ago",),
    )


def _served(repository: Repository, revision: str = MAIN) -> str | None:
    commit = repository.fetch(revision).id
    model = Environment.parse(repository.read(commit, LOCAL), LOCAL).served()["screw"]
    return model.version if model else None


# --- promotion --------------------------------------------------------------------------------------------------------


def test_a_promotion_is_a_branch_with_one_commit(repository: Repository, version: ModelVersion) -> None:
    tip = repository.fetch(MAIN).id
    outcome = Destination(repository, "local").promote(version)
    assert (outcome.branch, outcome.merged, outcome.url) == (BRANCH, False, None)
    assert [commit.id for commit in repository.log(BRANCH)] == [outcome.commit, tip]
    assert repository.changed(tip, outcome.commit) == [LOCAL, model_path("screw", "1")]
    assert _served(repository, BRANCH) == "1"
    assert _served(repository) is None
    assert failed(outcome.findings) == []
    assert repository.fetch(BRANCH).subject == "Promote screw 1 to local"


def test_what_is_printed_can_be_typed(repository: Repository, version: ModelVersion, tmp_path: Path) -> None:
    outcome = Destination(repository, "local").promote(version)
    for command in outcome.commands:
        assert command in outcome.text
        typed = command.replace("git ", "git -c user.name=Ada -c user.email=a@b.c ", 1)
        subprocess.run(typed, shell=True, check=True, cwd=tmp_path, capture_output=True)
    assert _served(repository) == "1"


def test_a_checkout_is_merged_where_it_lies(repository: Repository, version: ModelVersion, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "bare.git", "work tree")
    checkout = Repository(tmp_path / "work tree")
    for command in Destination(checkout, "local").promote(version).commands:
        typed = command.replace("git ", "git -c user.name=Ada -c user.email=a@b.c ", 1)
        subprocess.run(typed, shell=True, check=True, cwd=tmp_path, capture_output=True)
    assert _served(checkout) == "1"


def test_merging_serves_it(repository: Repository, version: ModelVersion) -> None:
    outcome = Destination(repository, "local").promote(version, merge=True)
    assert outcome.merged
    assert repository.fetch(MAIN).id == outcome.commit
    assert _served(repository) == "1"
    assert ModelVersion.from_yaml(repository.read(MAIN, model_path("screw", "1")), "manifest") == version
    assert outcome.text == f"Promote screw 1 to local: merged as {outcome.commit[:12]}"


def test_promoting_what_is_served_does_nothing(repository: Repository, version: ModelVersion) -> None:
    merged = Destination(repository, "local").promote(version, merge=True).commit
    again = Destination(repository, "local").promote(version, merge=True)
    assert (again.branch, again.commit, again.merged) == (None, merged, True)
    assert "nothing to do" in again.text
    assert len(repository.log(MAIN)) == 3


def test_an_unmerged_branch_is_used_again(repository: Repository, version: ModelVersion) -> None:
    first = Destination(repository, "local").promote(version)
    assert Destination(repository, "local").promote(version).commit == first.commit
    repository.commit(MAIN, MAIN, {"README.md": "news"}, "News")
    renewed = Destination(repository, "local").promote(version)
    assert renewed.commit != first.commit
    assert repository.merge_base(renewed.commit, MAIN) == repository.fetch(MAIN).id
    assert Destination(repository, "local").promote(version, merge=True).merged


@pytest.mark.parametrize("amended", [False, True])
def test_what_somebody_commits_to_the_branch_is_not_thrown_away(
    repository: Repository, version: ModelVersion, tmp_path: Path, *, amended: bool
) -> None:
    local = Destination(repository, "local")
    local.promote(version)
    work = tmp_path / "work"
    git(tmp_path, "clone", "--quiet", "--branch", BRANCH, str(repository.location), str(work))
    (work / LOCAL).write_text((work / LOCAL).read_text().replace("threads: 1", "threads: 3"))
    amend = ("--amend", "--no-edit", "--reset-author") if amended else ("--message", "Tune")
    git(work, "commit", "--quiet", "--all", *amend)
    git(work, "push", "--quiet", "--force", "origin", BRANCH)
    theirs = repository.tip(BRANCH)
    assert theirs is not None
    subject = "Promote screw 1 to local" if amended else "Tune"
    said = rf"somebody has committed to {BRANCH}, .*\n  {theirs[:12]} {subject} \(Ada <ada@example.com>\)\nmerge the br"
    for merge in (False, True):
        with pytest.raises(GitError, match=said):
            local.promote(version, merge=merge)
    assert repository.tip(BRANCH) == theirs
    git(work, "push", "--quiet", "origin", f"{BRANCH}:{MAIN}")  # merged, the branch can be made anew
    local.promote(make_version(tmp_path, "2"), merge=True)
    assert local.promote(version).commit == repository.tip(BRANCH) != theirs


def test_a_branch_that_was_rebased_is_made_anew(repository: Repository, version: ModelVersion, tmp_path: Path) -> None:
    local, work = Destination(repository, "local"), tmp_path / "work"
    local.promote(version)
    repository.commit(MAIN, MAIN, {"README.md": "news"}, "News")
    git(tmp_path, "clone", "--quiet", "--branch", BRANCH, str(repository.location), str(work))
    git(work, "rebase", "--quiet", f"origin/{MAIN}")
    git(work, "push", "--quiet", "--force", "origin", BRANCH)
    repository.commit(MAIN, MAIN, {"README.md": "more news"}, "More news")
    renewed = local.promote(version).commit
    assert repository.merge_base(renewed, MAIN) == repository.fetch(MAIN).id


def test_a_branch_that_moves_meanwhile_is_not_overwritten(
    repository: Repository, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = Destination(repository, "local")
    local.promote(version)
    repository.commit(MAIN, MAIN, {"README.md": "news"}, "News")
    commit = repository.commit

    def somebody_is_faster(*arguments: Any, **options: Any) -> str:
        commit(BRANCH, BRANCH, {"README.md": "x"}, "Faster")
        return commit(*arguments, **options)

    monkeypatch.setattr(repository, "commit", somebody_is_faster)
    with pytest.raises(GitError, match=f"has a branch {BRANCH} already"):
        local.promote(version)
    assert repository.fetch(BRANCH).subject == "Faster"


def test_a_refused_promotion_shows_its_branch_but_does_not_merge(repository: Repository, tmp_path: Path) -> None:
    bad = make_version(tmp_path, "2", wrong=50)
    tip = repository.fetch(MAIN).id
    with pytest.raises(GateError) as error:
        Destination(repository, "local").promote(bad, merge=True)
    assert "REFUSED accuracy: screw 2 has 0.5000; the bar is at least 0.95" in str(error.value)
    assert repository.tip("promote/local/screw-2") is None
    outcome = Destination(repository, "local").promote(bad)
    assert [finding.key for finding in failed(outcome.findings)] == ["accuracy"]
    assert "the gates refuse it as it is" in outcome.text
    assert repository.tip("promote/local/screw-2") == outcome.commit
    assert repository.fetch(MAIN).id == tip


def test_a_version_that_was_registered_otherwise_is_refused(repository: Repository, version: ModelVersion) -> None:
    other = version.model_copy(update={"mlflow_run_id": "other"})
    repository.commit(MAIN, MAIN, {model_path("screw", "1"): to_yaml(other)}, "Register")
    with pytest.raises(GateError, match="a registered version stays"):
        Destination(repository, "local").promote(version, merge=True)


def test_a_version_that_is_registered_already_is_not_written_again(
    repository: Repository, version: ModelVersion
) -> None:
    repository.commit(MAIN, MAIN, {model_path("screw", "1"): version.to_json()}, "Register")
    outcome = Destination(repository, "local").promote(version, merge=True)
    assert repository.read(outcome.commit, model_path("screw", "1")) == version.to_json()


def test_an_environment_or_application_that_is_none_names_the_known_ones(
    repository: Repository, version: ModelVersion
) -> None:
    with pytest.raises(GitError, match=r"no environment 'moon' .* it has local, staging"):
        Destination(repository, "moon").promote(version)
    with pytest.raises(ContractError, match=r"no application 'nut' .*\(screw\)"):
        Destination(repository, "local", "nut").promote(version)


def test_two_applications_with_a_model_of_one_name_have_branches_of_their_own(
    repository: Repository, version: ModelVersion
) -> None:
    config = Environment.parse(repository.read(MAIN, LOCAL), LOCAL).config
    config["applications"].append(config["applications"][0] | {"name": "second", "route_prefix": "/second"})
    repository.commit(MAIN, MAIN, {LOCAL: json.dumps(config, indent=1)}, "A second one")
    one, other = (Destination(repository, "local", name).promote(version) for name in ("screw", "second"))
    assert (one.branch, other.branch) == (BRANCH, f"{BRANCH}@second")
    assert _served(repository, BRANCH) == "1"
    assert _served(repository, f"{BRANCH}@second") is None


def test_environments_are_promoted_one_by_one(repository: Repository, version: ModelVersion) -> None:
    Destination(repository, "local").promote(version, merge=True)
    outcome = Destination(repository, "staging").promote(version, merge=True)
    assert repository.changed(f"{outcome.commit}^", outcome.commit) == ["gitops/environments/staging/serve-config.yaml"]


def test_what_is_served_is_what_the_environment_wants(repository: Repository, version: ModelVersion) -> None:
    assert Destination(repository, "local").target("screw").model is None
    Destination(repository, "local").promote(version)
    assert Destination(repository, "local").target("screw").model is None, "a branch serves nothing"
    Destination(repository, "local").promote(version, merge=True)
    assert Destination(repository, "local").target("screw").wanted == UserConfig(model=version.model)
    assert Destination(repository, "staging").target("screw").model is None
    with pytest.raises(GitError, match="no environment 'moon'"):
        Destination(repository, "moon").target("screw")
    with pytest.raises(ContractError, match="no application 'nut'"):
        Destination(repository, "local", "nut").target("screw")


def test_a_comparison_stands_in_the_commit(repository: Repository, tmp_path: Path) -> None:
    first, second = make_version(tmp_path, "1"), make_version(tmp_path, "2")
    found = make_comparison(first, second)
    commit = Destination(repository, "local").promote(second, comparison=found).commit
    lines = git(repository.git_dir, "log", "-1", "--format=%B", commit).splitlines()
    assert lines[0] == "Promote screw 2 to local"
    assert lines[-3] == (
        "screw 2 against screw 1 on 58 held-out images: accuracy 0.9500 against 0.9000 (+0.0500; 95 %: -0.0170 to "
        "+0.1200), McNemar p = 0.375; mind: screw 1 was trained long ago"
    )
    commit = Destination(repository, "local").promote(first, comparison="there is no dataset").commit
    assert "dataset" not in git(repository.git_dir, "log", "-1", "--format=%B", commit)


# --- the way back -----------------------------------------------------------------------------------------------------


def test_a_rollback_returns_to_the_model_before(repository: Repository, tmp_path: Path) -> None:
    for number in ("1", "2", "3"):
        Destination(repository, "local").promote(make_version(tmp_path, number), merge=True)
        text = repository.read(MAIN, LOCAL)
    repository.commit(MAIN, MAIN, {LOCAL: text.replace("threads: 1", "threads: 3")}, "Tune")
    third = repository.log(MAIN, first_parent=True)[1].id
    outcome = Destination(repository, "local").rollback()
    assert (outcome.branch, _served(repository, "rollback/local/screw-2")) == ("rollback/local/screw-2", "2")
    assert f"This reverts what commit {third} served." in git(
        repository.git_dir, "log", "-1", "--format=%B", outcome.commit
    )
    merged = Destination(repository, "local").rollback(merge=True)
    assert _served(repository) == "2"
    assert "threads: 3" in repository.read(MAIN, LOCAL), "settings are not rolled back"
    assert repository.exists(merged.commit, model_path("screw", "3")), "what was registered stays so"


def test_after_a_rollback_the_version_can_be_promoted_again(repository: Repository, tmp_path: Path) -> None:
    first, second = make_version(tmp_path, "1"), make_version(tmp_path, "2")
    Destination(repository, "local").promote(first, merge=True)
    Destination(repository, "local").promote(second, merge=True)
    Destination(repository, "local").rollback(merge=True)
    assert _served(repository) == "1"
    assert Destination(repository, "local").promote(second, merge=True).merged
    assert _served(repository) == "2"
    Destination(repository, "local").rollback(merge=True)
    assert _served(repository) == "1"


def test_a_rollback_passes_the_gates_of_today(repository: Repository, tmp_path: Path) -> None:
    Destination(repository, "local").promote(make_version(tmp_path, "1", wrong=4), merge=True)
    Destination(repository, "local").promote(make_version(tmp_path, "2", wrong=0), merge=True)
    stricter = {PROJECT_PATH: PROJECT.replace("min: 0.95", "min: 0.99")}
    repository.commit(MAIN, MAIN, stricter, "Stricter")
    with pytest.raises(GateError, match=r"screw 1 has 0\.9600; the bar is at least 0\.99"):
        Destination(repository, "local").rollback(merge=True)
    assert _served(repository) == "2"


def test_without_an_earlier_model_there_is_no_way_back(repository: Repository, version: ModelVersion) -> None:
    with pytest.raises(GitError, match=r"local has no earlier model to return to \(now: none\)"):
        Destination(repository, "local").rollback()
    Destination(repository, "local").promote(version, merge=True)
    with pytest.raises(GitError, match=r"no earlier model to return to \(now: screw 1\)"):
        Destination(repository, "local").rollback()


def test_a_broken_commit_in_between_is_passed_over(repository: Repository, tmp_path: Path) -> None:
    for number in ("1", "2"):
        Destination(repository, "local").promote(make_version(tmp_path, number), merge=True)
    text = repository.read(MAIN, LOCAL)
    repository.commit(MAIN, MAIN, {LOCAL: "a: ["}, "Break")
    repository.commit(MAIN, MAIN, {LOCAL: None}, "Delete")
    repository.commit(MAIN, MAIN, {LOCAL: text}, "Mend")
    assert Destination(repository, "local").rollback().branch == "rollback/local/screw-1"


# --- trials -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def candidate(repository: Repository, version: ModelVersion, tmp_path: Path) -> ModelVersion:
    """Version 2, where version 1 is served."""
    Destination(repository, "local").promote(version, merge=True)
    return make_version(tmp_path, "2")


def _wanted(repository: Repository) -> UserConfig:
    return Destination(repository, "local").target("screw").wanted


def _message(repository: Repository, commit: str) -> list[str]:
    return git(repository.git_dir, "log", "-1", "--format=%B", commit).splitlines()


def test_a_canary_is_a_gated_branch_that_leaves_the_model_alone(
    repository: Repository, version: ModelVersion, candidate: ModelVersion
) -> None:
    tip = repository.fetch(MAIN).id
    outcome = Destination(repository, "local").try_beside(candidate, 10)
    assert (outcome.branch, outcome.merged, failed(outcome.findings)) == ("canary/local/screw-2", False, [])
    assert {"manifest", "bundle", "report", "accuracy"} <= {finding.key for finding in outcome.findings}
    assert repository.changed(tip, outcome.commit) == [LOCAL, model_path("screw", "2")]
    assert _message(repository, outcome.commit)[:3] == [
        "Try screw 2 on 10 % of the requests to local",
        "",
        "screw 2 answers 10 % of the requests, screw 1 the others. "
        "`mergeline promote --to local --finish` promotes it, `--abort` takes it away.",
    ]
    assert _wanted(repository) == UserConfig(model=version.model)
    assert Destination(repository, "local").try_beside(candidate, 10, merge=True).merged
    running = Canary(percent=10, model=candidate.model)
    assert _wanted(repository) == UserConfig(model=version.model, canary=running)
    assert "nothing to do" in Destination(repository, "local").try_beside(candidate, 10).text
    again = Destination(repository, "local").try_beside(candidate, 25, merge=True)
    assert repository.changed(f"{again.commit}^", again.commit) == [LOCAL]
    assert _wanted(repository).canary == Canary(percent=25, model=candidate.model)


def test_a_finished_canary_is_the_model(
    repository: Repository, candidate: ModelVersion, version: ModelVersion, tmp_path: Path
) -> None:
    Destination(repository, "local").try_beside(candidate, 50, merge=True)
    found = make_comparison(version, candidate)
    outcome = Destination(repository, "local").finish("screw", "2", comparison=found)
    assert (outcome.branch, outcome.title) == ("finish/local/screw-2", "Promote screw 2 to local")
    message = _message(repository, outcome.commit)
    assert message[2] == "This ends the canary of version 2 (50 %): screw 2 answers all requests, in place of screw 1."
    assert message[-3].startswith("screw 2 against screw 1")
    Destination(repository, "local").finish("screw", merge=True)
    assert _wanted(repository) == UserConfig(model=candidate.model)
    Destination(repository, "local").rollback(merge=True)
    assert _served(repository) == "1"


def test_a_shadow_can_become_a_canary_and_be_taken_away(
    repository: Repository, version: ModelVersion, candidate: ModelVersion
) -> None:
    before = repository.read(MAIN, LOCAL)
    outcome = Destination(repository, "local").try_beside(candidate, None, merge=True)
    assert (outcome.branch, outcome.title) == ("shadow/local/screw-2", "Try screw 2 in local without answering")
    assert _wanted(repository).trial == Shadow(model=candidate.model)
    Destination(repository, "local").try_beside(candidate, 5, merge=True)
    assert _wanted(repository).trial == Canary(percent=5, model=candidate.model)
    ended = Destination(repository, "local").abort("screw", "2", merge=True)
    assert (ended.branch, ended.title) == ("abort/local/screw-2", "End the canary of screw 2 in local")
    assert repository.read(MAIN, LOCAL) == before
    assert _message(repository, "abort/local/screw-2")[2] == (
        "This ends the canary of version 2 (5 %): screw 1 answers alone."
    )


@pytest.mark.parametrize("manifest", [None, "model: of another time"])
def test_an_abort_needs_no_manifest_of_what_is_served(
    repository: Repository, candidate: ModelVersion, tmp_path: Path, manifest: str | None
) -> None:
    before = repository.read(MAIN, LOCAL)
    Destination(repository, "local").try_beside(candidate, 5, merge=True)
    git(tmp_path, "clone", "--quiet", str(repository.location), "work")
    served = tmp_path / "work" / model_path("screw", "1")
    if manifest is None:
        served.unlink()
    else:
        served.write_text(manifest)
    git(tmp_path / "work", "commit", "--quiet", "--all", "--message", "Spoilt by hand")
    git(tmp_path / "work", "push", "--quiet", "origin", MAIN)
    assert Destination(repository, "local").abort("screw", merge=True).merged
    assert repository.read(MAIN, LOCAL) == before
    assert _message(repository, "abort/local/screw-2")[:-2] == [
        "End the canary of screw 2 in local",
        "",
        "This ends the canary of version 2 (5 %): screw 1 answers alone.",
    ]
    assert report_markdown(None, [], purpose="Why.").startswith("Why.\n\n| gate |")


def test_an_application_that_was_named_is_named_in_what_to_type(
    repository: Repository, version: ModelVersion, candidate: ModelVersion
) -> None:
    place = Destination(repository, "local", "screw")
    place.try_beside(candidate, 10, merge=True)
    assert "`mergeline promote --to local --application screw --finish`" in _message(repository, MAIN + "^2")[2]
    reason = "local, application screw, has a .*: end that first, by `mergeline promote --to local --application screw`"
    with pytest.raises(ContractError, match=reason):
        place.promote(version)
    with pytest.raises(ContractError, match="local, application screw, serves screw 1 already"):
        place.try_beside(version, 10)


def test_while_a_version_is_tried_nothing_else_is_promoted(
    repository: Repository, version: ModelVersion, candidate: ModelVersion, tmp_path: Path
) -> None:
    third = make_version(tmp_path, "3")
    Destination(repository, "local").try_beside(candidate, 10, merge=True)
    reason = (
        r"local has a canary of version 2 \(10 %\): end that first, by `mergeline promote --to local` with --finish or"
    )
    for other in (third, version, candidate):
        with pytest.raises(ContractError, match=reason):
            Destination(repository, "local").promote(other)
    with pytest.raises(ContractError, match=reason):
        Destination(repository, "local").try_beside(third, 10)
    with pytest.raises(ContractError, match=reason):
        Destination(repository, "local").rollback()
    Destination(repository, "staging").promote(version, merge=True)  # another environment is none of its business


def test_a_trial_that_is_not_there_cannot_be_ended(repository: Repository, candidate: ModelVersion) -> None:
    local = Destination(repository, "local")
    for end in (local.finish, local.abort):
        with pytest.raises(ContractError, match="local tries no version: there is nothing to end"):
            end("screw")
    local.try_beside(candidate, None, merge=True)
    for end in (local.finish, local.abort):
        with pytest.raises(ContractError, match="local has a shadow of version 2, not one of version 1"):
            end("screw", "1")


def test_what_cannot_be_tried_says_why(repository: Repository, version: ModelVersion, candidate: ModelVersion) -> None:
    with pytest.raises(ContractError, match="staging serves nothing beside which screw 2 could be tried"):
        Destination(repository, "staging").try_beside(candidate, 10)
    with pytest.raises(ContractError, match="local serves screw 1 already: try another version"):
        Destination(repository, "local").try_beside(version, 10)
    other = candidate.model_copy(update={"model": candidate.model.model_copy(update={"name": "bolt"})})
    with pytest.raises(ContractError, match="`canary` is a model of bolt, `model` one of screw"):
        Destination(repository, "local").try_beside(other, 10)


def test_a_candidate_needs_the_evidence_of_a_promotion_and_an_abort_none(
    repository: Repository, candidate: ModelVersion, tmp_path: Path
) -> None:
    bad = make_version(tmp_path, "3", wrong=50)
    for percent in (10, None):
        with pytest.raises(GateError, match=r"screw 3 has 0\.5000; the bar is at least 0\.95"):
            Destination(repository, "local").try_beside(bad, percent, merge=True)
    Destination(repository, "local").try_beside(candidate, 10, merge=True)
    stricter = {PROJECT_PATH: PROJECT.replace("min: 0.95", "min: 0.99")}
    repository.commit(MAIN, MAIN, stricter, "Stricter")
    with pytest.raises(GateError, match=r"screw 2 has 0\.9800; the bar is at least 0\.99"):
        Destination(repository, "local").try_beside(candidate, 25, merge=True)
    with pytest.raises(GateError, match=r"screw 2 has 0\.9800; the bar is at least 0\.99"):
        Destination(repository, "local").finish("screw", merge=True)
    assert Destination(repository, "local").abort("screw", merge=True).merged
    assert _served(repository) == "1"


# --- names and texts --------------------------------------------------------------------------------------------------


def test_a_version_is_written_so_that_it_is_read_back(version: ModelVersion) -> None:
    text = to_yaml(version)
    assert ModelVersion.from_yaml(text, "x") == version
    assert text == to_yaml(ModelVersion.from_yaml(text, "x"))
    assert text.startswith("model:\n  name: screw\n  version: '1'\n")
    assert "    - [0.1, 0.05, 60]\n" in text
    assert "{" not in text


def test_the_report_is_a_page_to_read(version: ModelVersion) -> None:
    finding = Finding(key="accuracy", phase=Phase.FAILURE, reason="too low", remedy="train")
    page = report_markdown(version, [finding])
    assert "| accuracy | ❌ | too low. To do: train |" in page
    assert "| accuracy | 0.9800 |" in page
    assert "|  | good | defective |\n| --- | --- | --- |\n| good | 58 | 2 |\n| defective | 0 | 40 |" in page
    assert "| dent\\|deep | 0.900 | 40 |" in page
    assert version.model.sha256 in page


def test_the_report_shows_what_is_gained_and_lost(version: ModelVersion, tmp_path: Path) -> None:
    found = make_comparison(version, make_version(tmp_path, "2"))
    page = report_markdown(version, [], found)
    assert "**screw 2 against screw 1**, now served, on the same 58 held-out images of dataset `dddddddddddd`" in page
    assert "; 2 are left out, because one of the two was fitted to them or lookalikes" in page
    assert "| metric | screw 1 | screw 2 | difference | 95 % interval |" in page
    assert "| accuracy | 0.9000 | 0.9500 | +0.0500 | -0.0170 to +0.1200 |" in page
    assert "Images that only screw 1 judges right: 1; only screw 2: 4 (McNemar's exact test: p = 0.375)." in page
    assert "Mind: screw 1 was trained long ago." in page
    assert "They judge 25 images differently, the first 20 of them" in page
    assert "| part\\|0.png | defective | good (0.250) | defective (0.750) |" in page
    assert "part|20.png" not in page
    assert page.index("against screw 1") < page.index("Confusion")
    plain = found.model_copy(update={"left_out": (), "warnings": (), "disagreements": ()})
    page = report_markdown(version, [], plain)
    assert not any(word in page for word in ("left out", "Mind", "differently"))


def test_a_comment_shows_a_version_beside_the_served_one(version: ModelVersion, tmp_path: Path) -> None:
    def page(served: ModelVersion | None, *findings: Finding) -> str:
        return change_markdown(findings, [Arrival("local/screw", version, served)])

    passed = Finding(key="scope", phase=Phase.SUCCESS, reason="all is well")
    skipped = Finding(key="kubernetes", phase=Phase.SKIPPED, reason="RayService", remedy="give --crds")
    refused = Finding(key="report", phase=Phase.FAILURE, reason="is none", remedy="evaluate")
    shown = page(None, passed, skipped, refused)
    assert shown.splitlines()[:5] == [
        "| gate |  | found |",
        "| --- | --- | --- |",
        "| report | ❌ | is none. To do: evaluate |",
        "| kubernetes | skipped | RayService. To do: give --crds |",
        "| scope | ✅ | all is well |",
    ]
    assert "#### local/screw\n\n**screw 1**, judged on 100 images" in shown
    assert "| accuracy | 0.9800 |" in shown
    assert version.model.sha256 in shown
    other = make_version(tmp_path, "2")
    poorer = other.evaluation.model_copy(update={"metrics": {"accuracy": 0.5, "auroc": 0.75}})
    shown = page(other.model_copy(update={"evaluation": poorer}))
    assert "| metric | screw 1 | screw 2, now served |" in shown
    assert "| accuracy | 0.9800 | 0.5000 |" in shown
    assert "| auroc | – | 0.7500 |" in shown
    assert "Both were judged on the same dataset" in shown
    elsewhere = other.evaluation.model_copy(update={"dataset": "e" * 64})
    shown = page(other.model_copy(update={"evaluation": elsewhere}))
    assert "Mind: they were judged on different datasets" in shown


def test_the_report_begins_with_what_it_is_for(version: ModelVersion) -> None:
    assert report_markdown(version, [], purpose="It is tried.").startswith("It is tried.\n\n**screw 1**, judged on 100")


def test_the_report_says_why_nothing_was_compared(version: ModelVersion) -> None:
    page = report_markdown(version, [], "the dataset\n  is gone")
    assert "\n\nNot compared with what is served now: the dataset is gone\n\n" in page
    assert "ompared" not in report_markdown(version, [])


@pytest.mark.parametrize(
    ("location", "found"),
    [
        ("https://github.com/acme/parts.git", ("github.com", "acme", "parts")),
        ("https://token@github.com/acme/parts", ("github.com", "acme", "parts")),
        ("git@github.com:acme/my.parts.git", ("github.com", "acme", "my.parts")),
        ("ssh://git@github.com:22/acme/parts/", ("github.com", "acme", "parts")),
        ("https://ghe.acme.example/team/parts", ("ghe.acme.example", "team", "parts")),
        ("https://gitlab.com/acme/parts", None),
        ("/srv/github.com/acme/parts", None),
        ("file:///github.com/acme/parts", None),
    ],
)
def test_github_is_known_by_its_url(
    location: str, found: tuple[str, str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_API_URL", "https://ghe.acme.example/api/v3")
    assert Remote.of(location) == (Remote(*found) if found else None)


# --- pull requests ----------------------------------------------------------------------------------------------------


class _GitHub(Handler):
    """Just enough of GitHub's REST API for pull requests; it remembers what it was asked."""

    asked: list[tuple[str, str, str, dict[str, str]]]
    pulls: list[dict[str, str]]
    status: int

    def _answer(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        self.asked.append((self.command, self.path, self.headers.get("Authorization", ""), body))
        data: object = self.pulls
        if self.command != "GET":
            here = f"http://{self.headers['Host']}"
            pull = {"url": f"{here}/repos/acme/parts/pulls/7", "html_url": "https://github.com/acme/parts/pull/7"}
            self.pulls[:] = [pull]
            data = pull
        self.say(self.status, json.dumps(data if self.status < 400 else {"message": "no"}).encode())

    do_GET = do_POST = do_PATCH = _answer


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, repository: Repository) -> Iterator[type[_GitHub]]:
    """A GitHub whose API is local, and whose repository is the bare one (Git is told to look for it there)."""
    handler = type("Handler", (_GitHub,), {"asked": [], "pulls": [], "status": 200})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{_only_git(tmp_path)}")
    monkeypatch.delenv("GH_TOKEN", raising=False)
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    config = tmp_path / "gitconfig"
    config.write_text(f'[url "{repository.git_dir.as_uri()}"]\ninsteadOf = https://github.com/acme/parts.git\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    with listening(handler) as url:
        monkeypatch.setenv("GITHUB_API_URL", url)
        yield handler


def test_on_github_a_pull_request_is_opened_and_renewed(github: type[_GitHub], version: ModelVersion) -> None:
    remote = Repository("https://github.com/acme/parts.git")
    outcome = Destination(remote, "local").promote(version, comparison="local serves nothing")
    assert outcome.url == "https://github.com/acme/parts/pull/7"
    assert outcome.url in outcome.text
    (query, opened) = github.asked
    assert query[:3] == (
        "GET",
        "/repos/acme/parts/pulls?head=acme%3Apromote%2Flocal%2Fscrew-1&base=main&state=open",
        "Bearer secret",
    )
    assert opened[:2] == ("POST", "/repos/acme/parts/pulls")
    assert (opened[3]["title"], opened[3]["head"], opened[3]["base"]) == ("Promote screw 1 to local", BRANCH, "main")
    assert "| accuracy | 0.9800 |" in opened[3]["body"]
    assert "Not compared with what is served now: local serves nothing" in opened[3]["body"]
    assert Destination(remote, "local").promote(version).url == outcome.url
    assert [entry[:2] for entry in github.asked[3:]] == [("PATCH", "/repos/acme/parts/pulls/7")]


def test_when_github_refuses_the_branch_is_there_all_the_same(
    github: type[_GitHub], repository: Repository, version: ModelVersion
) -> None:
    github.status = 422
    with pytest.raises(GitError, match=r"GitHub refuses the pull request of promote/local/screw-1 \(422\)"):
        Destination(Repository("https://github.com/acme/parts.git"), "local").promote(version)
    assert repository.tip(BRANCH) is not None


def test_without_credentials_the_page_to_open_is_named(
    github: type[_GitHub], monkeypatch: pytest.MonkeyPatch, version: ModelVersion
) -> None:
    monkeypatch.delenv("GITHUB_TOKEN")
    outcome = Destination(Repository("https://github.com/acme/parts.git"), "local").promote(version)
    assert outcome.url is None
    assert outcome.commands[0] == f"open https://github.com/acme/parts/compare/main...{BRANCH}?expand=1"
    assert github.asked == []


def test_merging_on_github_needs_no_pull_request(
    github: type[_GitHub], repository: Repository, version: ModelVersion
) -> None:
    assert Destination(Repository("https://github.com/acme/parts.git"), "local").promote(version, merge=True).merged
    assert _served(repository) == "1"
    assert github.asked == []


@pytest.mark.parametrize("exists", [False, True])
def test_gh_opens_the_pull_request_where_it_is_signed_in(
    github: type[_GitHub], tmp_path: Path, version: ModelVersion, *, exists: bool
) -> None:
    """A script stands in for gh, which cannot be signed in here; it writes down how it was called."""
    known = "echo https://github.com/acme/parts/pull/9" if exists else ":"
    script = tmp_path / "bin" / "gh"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\ncase "$1 $2" in\n"pr list") {known};;\n'
        f'"pr create") read line; echo "$line" > {tmp_path}/body; echo https://github.com/acme/parts/pull/8;;\n'
        f'"pr edit") read line; echo "$line" > {tmp_path}/body;;\nesac\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    outcome = Destination(Repository("https://github.com/acme/parts.git"), "local").promote(version)
    assert outcome.url == f"https://github.com/acme/parts/pull/{9 if exists else 8}"
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [" ".join(call.split()[:2]) for call in calls] == [
        "auth status",
        "pr list",
        "pr edit" if exists else "pr create",
    ]
    assert f"--head {BRANCH} --base main" in calls[1]
    assert (tmp_path / "body").read_text().startswith("**screw 1**, judged on 100 images")
    assert github.asked == []


def _only_git(folder: Path) -> Path:
    """A PATH with git and a shell, but without a gh that this machine may have."""
    place = folder / "bin"
    place.mkdir()
    for name in ("git", "sh"):
        found = subprocess.run(["which", name], check=True, capture_output=True, text=True).stdout.strip()
        (place / name).symlink_to(found)
    return place
