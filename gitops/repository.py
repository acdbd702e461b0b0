"""A Git repository through the `git` command line: read at a commit, written to only by pushing to it.

Nothing here touches a working tree. Commits are built in a scratch repository that borrows the objects of the real one
and are then pushed, so that hooks run and a kill leaves nothing behind.
"""

import contextlib
import hashlib
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gitops.errors import GateError, GitError
from gitops.state import folder_written_whole, locked, write_atomically

MAIN = "main"
"""The protected branch: the one that environments are read from."""
NO_COMMIT = "0" * 40
"""What Git's hooks write for a branch that is not there yet, or no longer."""
IDENTITY = ("Mergeline", "mergeline@localhost")
"""Who commits where Git knows no user."""
LEAST_GIT = (2, 38)
"""The first Git whose `merge-tree` writes the tree of a merge."""
TIMEOUT_S = 600
"""Longest time that one git command (a fetch over a slow network, a push with its hook) may take."""

_REMOTE = re.compile(r"^[a-z][a-z0-9+.-]*://|^([\w.-]+@)?[\w.-]+:(?!//)")
_OBJECT_VARIABLES = frozenset({"GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH"})
# `git rev-parse --local-env-vars`, but for configuration: inherited from a hook, they would name its repository.
_LOCAL_VARIABLES = _OBJECT_VARIABLES | {
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_GRAFT_FILE",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
}


@dataclass(frozen=True)
class Commit:
    """A commit, as it is shown."""

    id: str
    """The full id."""
    author: str
    """Name <address>."""
    date: str
    """When it was committed, ISO 8601 with its time zone."""
    subject: str
    """The message's first line."""


@dataclass(frozen=True)
class Result:
    """How a git command ended."""

    status: int
    stdout: bytes
    stderr: str


@dataclass(frozen=True)
class _Scratch:
    """A throw-away bare repository in which commits are built."""

    folder: Path
    identity: dict[str, str]
    sign: bool

    def run(self, *arguments: str, data: bytes | None = None, allowed: tuple[int, ...] = (0,)) -> Result:
        return run_git(f"--git-dir={self.folder}", *arguments, data=data, allowed=allowed, variables=self.identity)

    def write_tree(self, parent: str | None, files: Mapping[str, str | None]) -> str:
        """The tree of `parent` (None: an empty one) with `files` written into it."""
        self.run("read-tree", *([parent] if parent else ["--empty"]))
        entries = b"".join(self._entry(path, text) for path, text in files.items())
        ignored = self.run("update-index", "-z", "--index-info", data=entries).stderr
        if ignored:  # git leaves out a path such as ../x and says so, but succeeds
            raise GitError(f"cannot commit these paths: {ignored.strip()}")
        return self.run("write-tree").stdout.decode().strip()

    def _entry(self, path: str, text: str | None) -> bytes:
        if text is None:
            return f"0 {NO_COMMIT}\t{path}\0".encode()
        blob = self.run("hash-object", "-w", "--stdin", data=text.encode()).stdout.decode().strip()
        return f"100644 {blob}\t{path}\0".encode()

    def merge_trees(self, ours: str, theirs: str) -> str:
        options = ("--write-tree", "--name-only", "--no-messages")
        result = self.run("merge-tree", *options, ours, theirs, allowed=(0, 1))
        tree, *conflicts = result.stdout.decode(errors="replace").split("\n")
        if result.status == 1:
            names = ", ".join(name for name in conflicts if name)
            raise GitError(f"cannot merge {theirs[:12]}: it conflicts in {names}; make the branch anew")
        return tree

    def commit_tree(self, tree: str, parents: list[str], message: str) -> str:
        options = [option for parent in parents for option in ("-p", parent)]
        options += ["-S"] if self.sign else []
        return self.run("commit-tree", *options, tree, data=message.encode()).stdout.decode().strip()


Paths = list[str]
Commits = list[Commit]


class Repository:
    """A bare or non-bare repository in a folder, or one behind a URL, of which a mirror is kept."""

    def __init__(self, location: str | Path, cache: Path | None = None, *, in_hook: bool = False) -> None:
        """Open a repository; nothing is read from the network yet.

        Args:
            location: a path, or a URL as `git clone` takes it.
            cache: where mirrors of remote repositories are kept (by default in the user's cache folder).
            in_hook: see the objects of the push that the running pre-receive hook is to judge.

        Raises:
            GitError: there is no repository in the folder.
        """
        self.location = str(location)
        self.remote = bool(_REMOTE.match(self.location)) and not Path(self.location).exists()
        self._in_hook = in_hook
        if self.remote:
            self._git_dir = (cache or _user_cache()) / f"{hashlib.sha256(self.location.encode()).hexdigest()[:16]}.git"
        else:
            self._git_dir = self._find_git_dir()

    @property
    def git_dir(self) -> Path:
        """The folder that Git reads: the repository's own, or its mirror's."""
        return self._git_dir

    @property
    def bare(self) -> bool:
        """Whether nobody works in it; what is behind a URL is taken to be so."""
        return self.remote or self._git("rev-parse", "--is-bare-repository").strip() == "true"

    # --- reading --------------------------------------------------------------------------------------------------

    def fetch(self, revision: str) -> Commit:
        """The commit that a branch, a tag or an id names now, asking the remote if there is one.

        Raises:
            GitError: the repository cannot be reached, or has no such revision.
        """
        self._update_mirror()
        return self.known(revision)

    def known(self, revision: str) -> Commit:
        """The commit that a branch, a tag or an id named at the last fetch.

        Raises:
            GitError: there was no such revision, or nothing was ever fetched.
        """
        return self.commit_at(self._resolve(revision))

    def tip(self, branch: str) -> str | None:
        """The id of a branch's last commit as of the last fetch, or None when there is no such branch."""
        found = self._git("for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}").split()
        return found[0] if found else None

    def commit_at(self, commit: str) -> Commit:
        """What is shown of a commit."""
        return self.log(commit, limit=1)[0]

    def read(self, commit: str, path: str) -> str:
        """The text of a file at a commit.

        Raises:
            GitError: the file is not there, or is not UTF-8 text.
        """
        if not self.exists(commit, path):
            raise GitError(f"{self.location} has no file {path} at commit {commit[:12]}")
        data = self._run("cat-file", "blob", f"{commit}:{path}").stdout
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise GitError(f"{path} at commit {commit[:12]} is not UTF-8 text: {error}") from error

    def exists(self, commit: str, path: str) -> bool:
        """Whether there is such a file at a commit."""
        entry = self._git("ls-tree", "--full-tree", commit, "--", path)
        return " blob " in entry.partition("\t")[0]

    def list(self, commit: str, folder: str = "") -> Paths:
        """The paths of all files below a folder (the whole tree by default) at a commit; none if it is not there."""
        below = ("--", folder.strip("/") + "/") if folder.strip("/") else ()
        names = self._git("ls-tree", "-r", "-z", "--full-tree", "--name-only", commit, *below)
        return [name for name in names.split("\0") if name]

    def texts(self, commit: str, folder: str) -> dict[str, str]:
        """Paths and texts of the files below a folder at a commit; links, submodules and binary files are left out."""
        entries = self._git("ls-tree", "-r", "-z", "--full-tree", commit, "--", folder.strip("/") + "/")
        found: dict[str, str] = {}
        for entry in filter(None, entries.split("\0")):
            attributes, _, path = entry.partition("\t")
            mode, _, blob = attributes.split()
            if mode.startswith("100"):
                data = self._run("cat-file", "blob", blob).stdout
                with contextlib.suppress(UnicodeDecodeError):
                    found[path] = data.decode()
        return found

    def changed(self, old: str, new: str) -> Paths:
        """The paths that differ between two commits; `old` may be NO_COMMIT."""
        if old == NO_COMMIT:
            return self.list(new)
        names = self._git("diff-tree", "-r", "-z", "--no-renames", "--name-only", old, new)
        return [name for name in names.split("\0") if name]

    def log(
        self, revision: str, path: str | None = None, *, limit: int | None = None, first_parent: bool = False
    ) -> Commits:
        """Commits up to a revision or of a range `a..b`, newest first; only those that touch `path`, if it is given."""
        options = ["-z", "--format=%H%x01%an <%ae>%x01%cI%x01%s"]
        options += [f"--max-count={limit}"] if limit is not None else []
        options += ["--first-parent"] if first_parent else []
        text = self._git("log", *options, revision, "--", *([path] if path else []))
        return [Commit(*entry.split("\x01", 3)) for entry in text.split("\0") if entry]

    def trailer(self, commit: str, key: str) -> str:
        """The value of a line `key: value` in the last paragraph of a commit's message; empty without one."""
        return self._git("log", "--max-count=1", f"--format=%(trailers:key={key},valueonly)", commit, "--").strip()

    def merge_base(self, one: str, other: str) -> str | None:
        """The commit that two commits have grown from; None when they share no history."""
        result = self._run("merge-base", one, other, allowed=(0, 1))
        return result.stdout.decode().strip() or None

    # --- writing --------------------------------------------------------------------------------------------------

    def commit(
        self, base: str, branch: str, files: Mapping[str, str | None], message: str, *, replace: str | None = None
    ) -> str:
        """Push a branch with one commit on top of `base` that writes `files` (None removes one); return its id.

        Args:
            base: a branch or a commit.
            branch: the branch to make.
            files: paths and their new texts.
            message: the commit message.
            replace: the tip at which a branch of that name may be replaced; one that is at `base` needs none.

        Raises:
            GitError: the branch is elsewhere already, the files change nothing, or the push failed.
            GateError: a hook refuses the push.
        """
        self._update_mirror()
        parent, existing = self._resolve(base), self.tip(branch)
        if existing not in (None, parent, replace):
            raise GitError(f"{self.location} has a branch {branch} already: merge or delete it first")
        with self._scratch() as scratch:
            tree = scratch.write_tree(parent, files)
            if tree == self._git("rev-parse", f"{parent}^{{tree}}").strip():
                raise GitError(f"nothing to commit on {branch}: {self.location} holds these files already")
            new = scratch.commit_tree(tree, [parent], message)
            self._push(scratch, new, branch, existing or "")
        return new

    def merge(self, branch: str, into: str, message: str) -> str:
        """Push a merge commit (never a fast-forward) to `into`; return its id, or that of `into` if it holds `branch`.

        Raises:
            GitError: the branches conflict, or the push failed.
            GateError: a hook refuses the push; its text is the message.
        """
        self._update_mirror()
        ours, theirs = self._resolve(into), self._resolve(branch)
        if self.merge_base(ours, theirs) == theirs:
            return ours
        with self._scratch() as scratch:
            new = scratch.commit_tree(scratch.merge_trees(ours, theirs), [ours, theirs], message)
            self._push(scratch, new, into, ours)
        return new

    # --- how ------------------------------------------------------------------------------------------------------

    def _find_git_dir(self) -> Path:
        folder = Path(self.location).expanduser().absolute()
        for candidate in (folder / ".git", folder):
            if (candidate / "HEAD").is_file() and (candidate / "objects").is_dir():
                return candidate
        if (folder / ".git").is_file():  # a worktree or a submodule: the file says where the repository is
            found = run_git("-C", str(folder), "-c", f"safe.directory={folder}", "rev-parse", "--absolute-git-dir")
            return Path(found.stdout.decode().strip())
        raise GitError(f"no Git repository at {self.location}: `mergeline up` makes one, --repo names another")

    def _run(self, *arguments: str, data: bytes | None = None, allowed: tuple[int, ...] = (0,)) -> Result:
        # The user named this repository; it may belong to somebody else, and safe.directory says that this is meant.
        trust = ("-c", f"safe.directory={self._git_dir}", "-c", f"safe.directory={self._git_dir.parent}")
        options = (*trust, f"--git-dir={self._git_dir}", "--literal-pathspecs")
        return run_git(*options, *arguments, data=data, allowed=allowed, keep_objects=self._in_hook)

    def _git(self, *arguments: str) -> str:
        return self._run(*arguments).stdout.decode(errors="surrogateescape")

    def _resolve(self, revision: str) -> str:
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            result = self._run(
                "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}", allowed=(0, 1, 128)
            )
            if result.status == 0:
                return result.stdout.decode().split()[-1]
        branches = self._git("for-each-ref", "--format=%(refname:short)", "--count=10", "refs/heads").split()
        known = f"its branches: {', '.join(branches)}" if branches else "it has no branch yet"
        raise GitError(f"{self.location} has no revision {revision!r}; {known}")

    def _update_mirror(self) -> None:
        if not self.remote:
            return
        with locked(self._git_dir.with_suffix(".lock")):
            if not self._git_dir.exists():
                with folder_written_whole(self._git_dir) as folder:
                    run_git("init", "--quiet", "--bare", "--template=", str(folder))
            refs = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
            self._git("fetch", "--quiet", "--prune", "--no-auto-gc", "--end-of-options", self.location, *refs)

    @contextmanager
    def _scratch(self) -> Iterator[_Scratch]:
        objects = self._git("rev-parse", "--path-format=absolute", "--git-path", "objects").strip()
        with tempfile.TemporaryDirectory(prefix="mergeline-git-") as folder:
            run_git("init", "--quiet", "--bare", "--template=", folder)
            info = Path(folder, "objects", "info")
            info.mkdir(parents=True, exist_ok=True)
            (info / "alternates").write_text(objects + "\n")
            yield _Scratch(Path(folder), self._identity(), sign=self._config("commit.gpgsign") == "true")

    def _identity(self) -> dict[str, str]:
        name, address = self._config("user.name"), self._config("user.email")
        if not (name and address):
            name, address = IDENTITY
        found = {f"GIT_{role}_NAME": name for role in ("AUTHOR", "COMMITTER")}
        found |= {f"GIT_{role}_EMAIL": address for role in ("AUTHOR", "COMMITTER")}
        return {key: os.environ.get(key) or value for key, value in found.items()}

    def _config(self, key: str) -> str:
        return self._run("config", "--get", key, allowed=(0, 1)).stdout.decode().strip()

    def _push(self, scratch: _Scratch, commit: str, branch: str, expected: str) -> None:
        """Make `branch` point to `commit`, provided that it still is at `expected` (empty: it is not there)."""
        destination, options = self.location, []
        if not self.remote:
            destination = str(self._git_dir)
            trusted = shlex.quote(f"safe.directory={self._git_dir}")  # configuration isn't handed to the other side
            options = [f"--receive-pack=git -c {trusted} receive-pack"]
        lease = f"--force-with-lease=refs/heads/{branch}:{expected}"
        refspec = f"{commit}:refs/heads/{branch}"
        result = scratch.run("push", "--no-verify", *options, lease, destination, refspec, allowed=(0, 1, 128))
        if result.status != 0:
            raise _refusal(f"{self.location}, branch {branch}", result.stderr)


def create_bare(path: Path, seed: Mapping[str, str], hooks: Mapping[str, str]) -> None:
    """Make a bare repository with one commit on main that holds `seed`; one that exists keeps its history.

    Args:
        path: where; it appears whole or not at all.
        seed: paths and texts of the first commit.
        hooks: names and scripts; written anew each time, since they name the Python that runs them.
    """
    if not path.exists():
        with folder_written_whole(path) as folder:
            run_git("init", "--quiet", "--bare", "--template=", f"--initial-branch={MAIN}", str(folder))
            with Repository(folder)._scratch() as scratch:
                first = scratch.commit_tree(scratch.write_tree(None, seed), [], "Begin the deployments repository")
                scratch.run("push", "--quiet", str(folder), f"{first}:refs/heads/{MAIN}")
            _write_hooks(folder, hooks)
    _write_hooks(path, hooks)


def _write_hooks(repository: Path, hooks: Mapping[str, str]) -> None:
    for name, script in hooks.items():
        hook = repository / "hooks" / name
        if not hook.exists() or hook.read_text() != script or not os.access(hook, os.X_OK):
            write_atomically(hook, script)
            hook.chmod(0o755)


def run_git(
    *arguments: str,
    data: bytes | None = None,
    allowed: tuple[int, ...] = (0,),
    variables: Mapping[str, str] | None = None,
    keep_objects: bool = False,
) -> Result:
    """Run git apart from the surroundings that a hook would pass on; never ask for a password.

    Raises:
        GitError: git is missing, takes too long, or ends with a status that is not `allowed`.
    """
    dropped = _LOCAL_VARIABLES - (_OBJECT_VARIABLES if keep_objects else frozenset())
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    environment |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"} | dict(variables or {})
    try:
        done = subprocess.run(
            ["git", *arguments], input=data or b"", capture_output=True, env=environment, timeout=TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise GitError(
            f"the command git was not found: install git {'.'.join(map(str, LEAST_GIT))} or newer"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise GitError(f"git did not finish in {TIMEOUT_S} s: {shlex.join(arguments)}") from error
    stderr = done.stderr.decode(errors="replace")
    if done.returncode not in allowed:
        raise GitError(f"git failed ({done.returncode}): git {shlex.join(arguments)}\n{stderr.strip()}")
    return Result(done.returncode, done.stdout, stderr)


def user_address() -> str:
    """The user's address as Git has it, else that of a nobody."""
    return run_git("config", "--get", "user.email", allowed=(0, 1)).stdout.decode().strip() or IDENTITY[1]


def _refusal(where: str, stderr: str) -> GitError | GateError:
    said = [
        line.removeprefix("remote:").strip("\n").rstrip() for line in stderr.splitlines() if line.startswith("remote:")
    ]
    text = "\n".join(line.removeprefix(" ") for line in said).strip()
    if "hook declined" in stderr:
        return GateError(f"{where}: the push was refused\n{text or stderr.strip()}")
    if "denyCurrentBranch" in stderr or "checked out" in stderr:
        return GitError(f"{where} is checked out there, and a working tree is not pushed to: name a bare repository")
    if "[rejected]" in stderr:  # the lease does not hold any more
        return GitError(f"{where} was changed by somebody else meanwhile: run the command again")
    return GitError(f"{where}: the push failed\n{stderr.strip()}")


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mergeline" / "repositories"
