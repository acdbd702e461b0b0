"""Git through its command line: real repositories, with hooks, remotes, odd identities and broken ones."""

import os
import subprocess
from pathlib import Path

import pytest

from gitops.errors import GateError, GitError
from gitops.repository import MAIN, NO_COMMIT, Repository, create_bare, run_git
from tests.gitops.deployments import git

SEED = {"a.txt": "one\n", "folder/b.txt": "two\n", "folder/deep/ü.txt": "three\n"}
REFUSE_MAIN = """#!/bin/sh
while read old new ref; do
  [ "$ref" = refs/heads/main ] && echo "not on my watch:" && git cat-file -p "$new:a.txt" && exit 1
done
exit 0
"""


@pytest.fixture
def bare(tmp_path: Path) -> Repository:
    create_bare(tmp_path / "bare.git", SEED, {})
    return Repository(tmp_path / "bare.git")


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_new_repository_holds_the_seed(bare: Repository) -> None:
    first = bare.fetch(MAIN)
    assert bare.list(first.id) == sorted(SEED)
    assert {path: bare.read(first.id, path) for path in SEED} == SEED
    assert (first.subject, len(first.id)) == ("Begin the deployments repository", 40)
    assert bare.log(MAIN) == [first]
    assert bare.bare


def test_files_are_read_at_a_commit(bare: Repository) -> None:
    old = bare.fetch(MAIN).id
    new = bare.commit(MAIN, MAIN, {"a.txt": "changed\n", "folder/b.txt": None, "new.txt": "x"}, "Change")
    assert (bare.read(old, "a.txt"), bare.read(new, "a.txt")) == ("one\n", "changed\n")
    assert (bare.exists(old, "folder/b.txt"), bare.exists(new, "folder/b.txt")) == (True, False)
    assert not bare.exists(new, "folder")
    assert bare.changed(old, new) == ["a.txt", "folder/b.txt", "new.txt"]
    assert bare.changed(NO_COMMIT, new) == ["a.txt", "folder/deep/ü.txt", "new.txt"]
    assert bare.list(new, "folder") == bare.list(new, "folder/") == ["folder/deep/ü.txt"]
    assert bare.list(new, "absent") == []
    with pytest.raises(GitError, match=r"has no file folder/b\.txt at commit"):
        bare.read(new, "folder/b.txt")


def test_paths_are_no_patterns(bare: Repository) -> None:
    tip = bare.fetch(MAIN).id
    assert not bare.exists(tip, "*.txt")
    assert bare.log(tip, "*.txt") == []


def test_the_log_is_newest_first_and_can_follow_a_path(bare: Repository) -> None:
    for number in range(3):
        bare.commit(MAIN, MAIN, {"a.txt" if number != 1 else "c.txt": str(number)}, f"Number {number}\n\nWhy.")
    assert [commit.subject for commit in bare.log(MAIN, "a.txt", limit=2)] == ["Number 2", "Number 0"]
    assert len(bare.log(MAIN)) == 4


def test_branches_tags_and_ids_are_revisions(bare: Repository, tmp_path: Path) -> None:
    tip = bare.fetch(MAIN)
    git(tmp_path / "bare.git", "tag", "-a", "v1", "-m", "one", tip.id)
    assert bare.fetch("v1") == bare.fetch(tip.id) == bare.fetch(tip.id[:10]) == bare.fetch("HEAD") == tip


@pytest.mark.parametrize("revision", ["absent", "--help", "", "main..main", "0" * 40])
def test_a_revision_that_is_none_names_the_branches(bare: Repository, revision: str) -> None:
    with pytest.raises(GitError, match="its branches: main"):
        bare.fetch(revision)


def test_a_branch_goes_before_a_tag_of_its_name(bare: Repository, tmp_path: Path) -> None:
    old = bare.fetch(MAIN).id
    new = bare.commit(MAIN, MAIN, {"a.txt": "2"}, "Two")
    git(tmp_path / "bare.git", "tag", MAIN, old)
    assert bare.fetch(MAIN).id == new


def test_what_is_not_text_is_refused(bare: Repository, tmp_path: Path) -> None:
    work = _clone(tmp_path)
    (work / "binary").write_bytes(b"\xff\x00")
    git(work, "add", ".")
    git(work, "commit", "-m", "binary")
    git(work, "push", "origin", MAIN)
    with pytest.raises(GitError, match=r"binary at commit .* is not UTF-8 text"):
        bare.read(MAIN, "binary")


def test_a_folder_without_a_repository_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(GitError, match=r"no Git repository at .*absent: `mergeline up` makes one"):
        Repository(tmp_path / "absent")


def test_a_checkout_and_its_worktree_are_repositories_too(bare: Repository, tmp_path: Path) -> None:
    work = _clone(tmp_path)
    git(work, "worktree", "add", "../other", "-b", "other")
    assert Repository(work).fetch(MAIN) == bare.fetch(MAIN)
    assert Repository(tmp_path / "other").fetch("other") == bare.fetch(MAIN)
    assert not Repository(work).bare


def test_a_trailer_is_read_from_the_last_paragraph(bare: Repository) -> None:
    commit = bare.commit(MAIN, "topic", {"a.txt": "1"}, "Subject\n\nOther: 1\n\nKey: some text\nFurther: 2\n")
    assert (bare.trailer(commit, "Key"), bare.trailer(commit, "Other"), bare.trailer(MAIN, "Key")) == (
        "some text",
        "",
        "",
    )


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_commit_makes_a_branch_and_leaves_main(bare: Repository) -> None:
    tip = bare.fetch(MAIN)
    new = bare.commit(MAIN, "topic/one", {"a.txt": "topic"}, "Subject\n\nBody.")
    assert bare.fetch("topic/one").id == bare.tip("topic/one") == new
    assert bare.fetch(MAIN) == tip
    assert bare.merge_base(new, tip.id) == tip.id
    assert bare.tip("topic/two") is None


def test_a_checkouts_files_are_left_alone(bare: Repository, tmp_path: Path) -> None:
    work = _clone(tmp_path)
    (work / "a.txt").write_text("being edited")
    (work / "untracked").write_text("x")
    Repository(work).commit(MAIN, "topic", {"a.txt": "topic"}, "Topic")
    assert (work / "a.txt").read_text() == "being edited"
    assert git(work, "status", "--porcelain") == "M a.txt\n?? untracked"
    assert git(work, "branch", "--show-current") == MAIN
    with pytest.raises(GitError, match="a working tree is not pushed to: name a bare repository"):
        Repository(work).merge("topic", MAIN, "Merge")


def test_a_branch_that_exists_is_replaced_only_on_request(bare: Repository) -> None:
    bare.commit(MAIN, "topic", {"a.txt": "1"}, "One")
    with pytest.raises(GitError, match="has a branch topic already"):
        bare.commit(MAIN, "topic", {"a.txt": "2"}, "Two")
    assert bare.commit(MAIN, "topic", {"a.txt": "2"}, "Two", replace=bare.tip("topic")) == bare.tip("topic")


def test_a_branch_that_was_not_seen_where_it_is_is_not_replaced(bare: Repository) -> None:
    seen = bare.commit(MAIN, "topic", {"a.txt": "1"}, "One")
    bare.commit("topic", "topic", {"a.txt": "2"}, "Two")
    with pytest.raises(GitError, match="has a branch topic already"):
        bare.commit(MAIN, "topic", {"a.txt": "3"}, "Three", replace=seen)


def test_a_commit_that_changes_nothing_is_refused(bare: Repository) -> None:
    with pytest.raises(GitError, match="nothing to commit on topic"):
        bare.commit(MAIN, "topic", {"a.txt": SEED["a.txt"]}, "Nothing")
    assert bare.tip("topic") is None


def test_a_merge_is_a_merge_commit_even_where_it_could_fast_forward(bare: Repository) -> None:
    tip = bare.fetch(MAIN).id
    topic = bare.commit(MAIN, "topic", {"a.txt": "topic"}, "Topic")
    merged = bare.merge("topic", MAIN, "Merge topic")
    assert bare.fetch(MAIN).id == merged not in (topic, tip)
    assert git(bare.git_dir, "show", "-s", "--format=%P", merged).split() == [tip, topic]
    assert bare.log(MAIN, first_parent=True)[0].subject == "Merge topic"
    assert bare.merge("topic", MAIN, "Again") == merged, "what is merged is not merged twice"


def test_branches_that_diverged_are_merged(bare: Repository) -> None:
    bare.commit(MAIN, "topic", {"a.txt": "topic"}, "Topic")
    bare.commit(MAIN, MAIN, {"folder/b.txt": "main"}, "Main")
    merged = bare.merge("topic", MAIN, "Merge")
    assert (bare.read(merged, "a.txt"), bare.read(merged, "folder/b.txt")) == ("topic", "main")


def test_a_conflict_names_the_files_and_merges_nothing(bare: Repository) -> None:
    bare.commit(MAIN, "topic", {"a.txt": "topic"}, "Topic")
    tip = bare.commit(MAIN, MAIN, {"a.txt": "main"}, "Main")
    with pytest.raises(GitError, match=r"it conflicts in a\.txt"):
        bare.merge("topic", MAIN, "Merge")
    assert bare.tip(MAIN) == tip


def test_a_hook_that_refuses_is_quoted(tmp_path: Path) -> None:
    create_bare(tmp_path / "bare.git", SEED, {"pre-receive": REFUSE_MAIN})
    repository = Repository(tmp_path / "bare.git")
    tip = repository.fetch(MAIN).id
    repository.commit(MAIN, "topic", {"a.txt": "from the quarantine\n"}, "Topic")
    with pytest.raises(GateError) as error:
        repository.merge("topic", MAIN, "Merge")
    assert str(error.value).endswith("the push was refused\nnot on my watch:\nfrom the quarantine")
    assert repository.tip(MAIN) == tip


def test_a_branch_that_moved_meanwhile_is_not_overwritten(bare: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    bare.commit(MAIN, "topic", {"a.txt": "topic"}, "Topic")
    resolve = bare._resolve
    other: list[str] = []

    def somebody_is_faster(revision: str) -> str:
        found = resolve(revision)
        if revision == MAIN and not other:
            other.append("")
            other[0] = bare.commit(found, MAIN, {"c.txt": "faster"}, "Faster")
        return found

    monkeypatch.setattr(bare, "_resolve", somebody_is_faster)
    with pytest.raises(GitError, match="changed by somebody else meanwhile: run the command again"):
        bare.merge("topic", MAIN, "Merge")
    assert bare.tip(MAIN) == other[0]


# --- surroundings -----------------------------------------------------------------------------------------------------


def test_without_a_user_mergeline_commits(bare: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _user_config(monkeypatch, tmp_path, "")
    assert bare.fetch(bare.commit(MAIN, "topic", {"a.txt": "1"}, "One")).author == "Mergeline <mergeline@localhost>"


def test_gits_user_commits(bare: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _user_config(monkeypatch, tmp_path, "[user]\nname = Ada Lovelace\nemail = ada@example.com\n")
    assert bare.fetch(bare.commit(MAIN, "topic", {"a.txt": "1"}, "One")).author == "Ada Lovelace <ada@example.com>"
    git(bare.git_dir, "config", "user.name", "The Robot")
    assert bare.fetch(bare.commit(MAIN, "other", {"a.txt": "1"}, "One")).author == "The Robot <ada@example.com>"
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Grace")
    assert bare.fetch(bare.commit(MAIN, "third", {"a.txt": "1"}, "One")).author == "Grace <ada@example.com>"


def test_a_hooks_surroundings_do_not_lead_astray(
    bare: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(tmp_path / "objects"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    bare.commit(MAIN, "topic", {"a.txt": "1"}, "One")
    assert bare.read(bare.merge("topic", MAIN, "Merge"), "a.txt") == "1"
    assert {path.name for path in tmp_path.iterdir()} == {"bare.git"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a repository to somebody else")
def test_a_repository_of_somebody_else_can_be_named(bare: Repository, tmp_path: Path) -> None:
    for path in (bare.git_dir, *bare.git_dir.rglob("*")):
        os.chown(path, 12345, 12345)
    with pytest.raises(subprocess.CalledProcessError):  # so does git itself
        git(bare.git_dir, "log")
    bare.commit(MAIN, "topic", {"a.txt": "1"}, "One")
    assert bare.merge("topic", MAIN, "Merge") == bare.fetch(MAIN).id


def test_git_that_is_missing_or_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GitError, match=r"git failed \(1\): git nonsense"):
        run_git("nonsense")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(GitError, match=r"git was not found: install git 2\.38"):
        run_git("version")


def test_creating_a_repository_again_keeps_its_history_and_renews_hooks(tmp_path: Path) -> None:
    path = tmp_path / "bare.git"
    create_bare(path, SEED, {"pre-receive": "#!/bin/sh\nexit 1\n"})
    create_bare(path, {"other.txt": "x"}, {"pre-receive": REFUSE_MAIN})
    assert Repository(path).list(MAIN) == sorted(SEED)
    hook = path / "hooks" / "pre-receive"
    assert hook.read_text() == REFUSE_MAIN
    assert os.access(hook, os.X_OK)
    assert {entry.name for entry in tmp_path.iterdir()} == {"bare.git"}


def test_creating_a_repository_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(GitError, match="cannot commit these paths"):
        create_bare(tmp_path / "bare.git", {"../outside": "x"}, {})
    assert list(tmp_path.iterdir()) == []


# --- remotes ----------------------------------------------------------------------------------------------------------


def test_a_remote_repository_is_mirrored(bare: Repository, tmp_path: Path) -> None:
    remote = Repository(bare.git_dir.as_uri(), tmp_path / "cache")
    assert remote.remote
    assert not (tmp_path / "cache").exists(), "opening it reads nothing"
    assert remote.fetch(MAIN) == bare.fetch(MAIN)
    new = bare.commit(MAIN, MAIN, {"a.txt": "news"}, "News")
    assert remote.fetch(MAIN).id == new
    remote.commit(MAIN, "topic", {"a.txt": "topic"}, "Topic")
    merged = remote.merge("topic", MAIN, "Merge")
    assert bare.read(bare.fetch(MAIN).id, "a.txt") == "topic"
    assert remote.fetch(MAIN).id == merged
    git(bare.git_dir, "branch", "-D", "topic")
    remote.fetch(MAIN)
    assert remote.tip("topic") is None, "what is deleted there is forgotten here"


def test_a_remote_that_cannot_be_reached_says_so(tmp_path: Path) -> None:
    remote = Repository((tmp_path / "absent.git").as_uri(), tmp_path / "cache")
    with pytest.raises(GitError, match=r"git failed .*fetch"):
        remote.fetch(MAIN)


@pytest.mark.parametrize("location", ["git@github.com:acme/parts.git", "https://x.org/a.git", "ssh://git@x.org/a"])
def test_urls_are_known_without_asking(tmp_path: Path, location: str) -> None:
    assert Repository(location, tmp_path).remote


def _clone(folder: Path) -> Path:
    git(folder, "clone", "--quiet", "bare.git", "work")
    return folder / "work"


def _user_config(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    file = folder / "gitconfig"
    file.write_text(text)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(file))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{role}_NAME", raising=False)
        monkeypatch.delenv(f"GIT_{role}_EMAIL", raising=False)
