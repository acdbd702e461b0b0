"""Promotion: a branch with one commit that puts a registered version into an environment, and the way back."""

import io
import re
import shlex
from dataclasses import dataclass
from typing import Literal

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from gitops import environment, gates
from gitops.environment import Environment, model_path, serve_config_path
from gitops.errors import ContractError, GateError, GitError
from gitops.findings import Finding, explain, failed
from gitops.manifest import Comparison, ModelVersion, ServedModel
from gitops.pull_request import Remote, open_pull_request, report_markdown
from gitops.repository import MAIN, Repository

_BRANCH = re.compile(r"^(promote|rollback)/([a-z0-9-]+)/([a-z0-9-]+)-([1-9][0-9]{0,8})\Z")


@dataclass(frozen=True)
class BranchName:
    """`promote/<environment>/<name>-<version>`, or `rollback/…` for the way back to that version."""

    kind: Literal["promote", "rollback"]
    environment: str
    name: str
    version: str

    def __str__(self) -> str:
        """The branch's name."""
        return f"{self.kind}/{self.environment}/{self.name}-{self.version}"

    @classmethod
    def parse(cls, branch: str) -> "BranchName | None":
        """What a branch is for; None for a branch of another kind."""
        match = _BRANCH.match(branch)
        if match is None:
            return None
        return cls("promote" if match[1] == "promote" else "rollback", match[2], match[3], match[4])


@dataclass(frozen=True)
class Promotion:
    """What a promotion or a rollback came to."""

    title: str
    """What it does, in a line."""
    branch: str | None
    """The branch that holds it; None: the environment wants that model already."""
    commit: str
    """The commit that has it: on the main branch once it is merged, else on its own branch."""
    merged: bool
    """Whether `commit` is on the main branch."""
    findings: tuple[Finding, ...] = ()
    """What the gates say of it."""
    url: str | None = None
    """The pull request."""
    commands: tuple[str, ...] = ()
    """What to type to merge it."""

    @property
    def text(self) -> str:
        """The outcome for a person to read, and what to do next."""
        if self.branch is None:
            return f"{self.title}: nothing to do, commit {self.commit[:12]} says so already"
        if self.merged:
            return f"{self.title}: merged as {self.commit[:12]}"
        lines = [f"{self.title}: branch {self.branch}, commit {self.commit[:12]}"]
        lines += ["the gates refuse it as it is"] if failed(self.findings) else []
        lines += [f"pull request: {self.url}"] if self.url else []
        lines += ["to merge it, type", *(f"  {command}" for command in self.commands)] if self.commands else []
        return "\n".join(lines)


@dataclass(frozen=True)
class _Proposal:
    branch: str
    title: str
    message: str
    files: dict[str, str]
    version: ModelVersion
    comparison: Comparison | str | None = None


def promote(
    repository: Repository,
    version: ModelVersion,
    environment_name: str,
    *,
    application: str | None = None,
    base: str = MAIN,
    merge: bool = False,
    comparison: Comparison | str | None = None,
) -> Promotion:
    """Make a branch that puts `version` into an environment; open a pull request where the remote is GitHub.

    Args:
        repository: the deployments repository.
        version: a registered version.
        environment_name: where it shall be served.
        application: which application; None: that of the model's name, or the only one.
        base: the branch that environments are read from.
        merge: merge as well.
        comparison: with the version now served, or why there is none: for whoever decides about the merge.

    Raises:
        GateError: it should be merged, and the gates refuse it; nothing was pushed.
        GitError: the repository cannot be reached, or has no such environment.
        ContractError: the environment's file is not valid, or has no application for the model.
    """
    tip, path = repository.fetch(base).id, serve_config_path(environment_name)
    text = _read_environment(repository, tip, environment_name)
    model = version.model
    title = f"Promote {model.name} {model.version} to {environment_name}"
    if Environment.parse(text, path).find(application, model.name, path).model == model:
        return Promotion(title, None, tip, merged=True)
    files = {path: environment.promote(text, application, model, path)}
    manifest = model_path(model.name, model.version)
    if not _holds(repository, tip, manifest, version):
        files[manifest] = to_yaml(version)
    branch = str(BranchName("promote", environment_name, model.name, model.version))
    compared = f"{comparison.summary}\n" if isinstance(comparison, Comparison) else ""
    proposal = _Proposal(branch, title, f"{title}\n\n{_figures(version)}{compared}", files, version, comparison)
    return _propose(repository, proposal, base, tip, merge=merge)


def served(
    repository: Repository, environment_name: str, model: str, *, application: str | None = None, base: str = MAIN
) -> ServedModel | None:
    """The model that an environment wants now, where one of the name `model` would be promoted to.

    Args:
        repository: the deployments repository.
        environment_name: which environment.
        model: the model's name.
        application: which application; None: that of the model's name, or the only one.
        base: the branch that environments are read from.

    Returns:
        None: nothing was promoted there yet.

    Raises:
        GitError: the repository cannot be reached, or has no such environment.
        ContractError: the environment's file is not valid, or has no application for the model.
    """
    path = serve_config_path(environment_name)
    text = _read_environment(repository, repository.fetch(base).id, environment_name)
    return Environment.parse(text, path).find(application, model, path).model


def rollback(
    repository: Repository,
    environment_name: str,
    *,
    application: str | None = None,
    base: str = MAIN,
    merge: bool = False,
) -> Promotion:
    """Make a branch that returns an environment to the model before; it passes the same gates.

    A reverted commit would delete the manifest of the version that it leaves; only the environment's lines go back.

    Args:
        repository: the deployments repository.
        environment_name: which environment.
        application: which application; None: the only one that serves a model.
        base: the branch that environments are read from.
        merge: merge as well.

    Raises:
        GateError: it should be merged, and the gates refuse it; nothing was pushed.
        GitError: there is no earlier model.
        ContractError: the environment's file is not valid, or it is not clear which application is meant.
    """
    tip, path = repository.fetch(base).id, serve_config_path(environment_name)
    text = _read_environment(repository, tip, environment_name)
    target = Environment.parse(text, path).find(application, None, path)
    before, since = _model_before(repository, tip, environment_name, target.name, target.model)
    manifest = model_path(before.name, before.version)
    version = ModelVersion.from_yaml(repository.read(tip, manifest), manifest)
    title = f"Roll {environment_name} back to {before.name} {before.version}"
    branch = str(BranchName("rollback", environment_name, before.name, before.version))
    files = {path: environment.promote(text, target.name, before, path)}
    message = f"{title}\n\nThis reverts what commit {since} served.\n{_figures(version)}"
    return _propose(repository, _Proposal(branch, title, message, files, version), base, tip, merge=merge)


def to_yaml(version: ModelVersion) -> str:
    """A version as `gitops/models/<name>/<version>.yaml` holds it: the same value always gives the same text."""
    data = version.model_dump(mode="json")
    for row in (rows := CommentedSeq(CommentedSeq(row) for row in data["evaluation"]["calibration"])):
        row.fa.set_flow_style()  # a bin on a line, not a figure on a line
    data["evaluation"]["calibration"] = rows
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 1000  # nothing is folded
    text = io.StringIO()
    yaml.dump(data, text)
    return text.getvalue()


def _propose(repository: Repository, proposal: _Proposal, base: str, tip: str, *, merge: bool) -> Promotion:
    """Judge first, so that nothing is pushed that shall be merged and cannot be."""
    findings = tuple(gates.check_files(repository, tip, proposal.files))
    refused = failed(findings)
    if merge and refused:
        raise GateError(f"the gates refuse to merge: {proposal.title}\n{explain(refused)}")
    commit = _reusable(repository, proposal, tip) or repository.commit(
        tip, proposal.branch, proposal.files, proposal.message, replace=True
    )
    if merge:
        merged = repository.merge(proposal.branch, base, f"Merge {proposal.branch}\n\n{proposal.title}")
        return Promotion(proposal.title, proposal.branch, merged, merged=True, findings=findings)
    url: str | None = None
    commands = _merge_commands(repository, proposal.branch, base)
    if remote := Remote.of(repository.location):
        body = report_markdown(proposal.version, findings, proposal.comparison)
        url = open_pull_request(remote, proposal.branch, base, proposal.title, body)
        commands = () if url else (f"open {remote.compare_url(base, proposal.branch)}", *commands)
    return Promotion(
        proposal.title, proposal.branch, commit, merged=False, findings=findings, url=url, commands=commands
    )


def _reusable(repository: Repository, proposal: _Proposal, tip: str) -> str | None:
    """The branch's commit, if it is there already and does exactly this."""
    found = repository.tip(proposal.branch)
    if found is None or repository.merge_base(tip, found) != tip:
        return None
    same = set(repository.changed(tip, found)) == set(proposal.files)
    return (
        found if same and all(repository.read(found, path) == text for path, text in proposal.files.items()) else None
    )


def _read_environment(repository: Repository, tip: str, name: str) -> str:
    path = serve_config_path(name)
    if not repository.exists(tip, path):
        parsed = (
            environment.parse_serve_config_path(found) for found in repository.list(tip, environment.ENVIRONMENTS)
        )
        known = ", ".join(found for found in parsed if found) or "none"
        raise GitError(f"{repository.location} has no environment {name!r} (no {path}); it has {known}")
    return repository.read(tip, path)


def _holds(repository: Repository, tip: str, path: str, version: ModelVersion) -> bool:
    """Whether the version is registered there as it is, be it in other words."""
    try:
        return repository.exists(tip, path) and ModelVersion.from_yaml(repository.read(tip, path), path) == version
    except ContractError:
        return False


def _model_before(
    repository: Repository, tip: str, environment_name: str, application: str, now: ServedModel | None
) -> tuple[ServedModel, str]:
    """The model that the application had before its present one, and the commit that changed it."""
    path, since = serve_config_path(environment_name), tip
    for commit in repository.log(tip, path, first_parent=True):
        try:
            model = Environment.parse(repository.read(commit.id, path), path).served().get(application)
        except (ContractError, GitError):  # it could not be read then, so that it was not served then
            continue
        if model is not None and model != now:
            return model, since
        since = commit.id
    present = f"{now.name} {now.version}" if now else "none"
    raise GitError(f"{environment_name} has no earlier model to return to (now: {present}); promote a version instead")


def _figures(version: ModelVersion) -> str:
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in version.evaluation.metrics.items())
    return f"Held-out images: {version.evaluation.images}; {metrics}\nBundle: {version.model.uri}\n"


def _merge_commands(repository: Repository, branch: str, base: str) -> tuple[str, ...]:
    if not repository.bare:
        folder = shlex.quote(repository.location)
        return (f"git -C {folder} switch {base}", f"git -C {folder} merge --no-ff {branch}")
    message = shlex.quote(f"Merge {branch}")
    return (
        f"git clone --branch {base} {shlex.quote(repository.location)} deployments",
        f"git -C deployments merge --no-ff -m {message} origin/{branch}",
        f"git -C deployments push origin {base}",
    )
