"""Promotion: a branch with one commit that puts a registered version into an environment, at once or on trial.

A trial lets the version answer a share of the requests (a canary) or none (a shadow) beside the model that is served,
until it is finished, which promotes it, or aborted. A rollback is the way back to the model before.
"""

import io
import re
import shlex
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, cast, get_args

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from gitops import environment, gates
from gitops.environment import Environment, Target, model_path, serve_config_path
from gitops.errors import ContractError, GateError, GitError
from gitops.findings import Finding, explain, failed
from gitops.manifest import Canary, Comparison, ModelVersion, ServedModel, Shadow, Trial, UserConfig
from gitops.pull_request import Remote, open_pull_request, report_markdown
from gitops.repository import MAIN, Repository

BranchKind = Literal["promote", "canary", "shadow", "finish", "abort", "rollback"]
_BRANCH = re.compile(rf"^({'|'.join(get_args(BranchKind))})/([a-z0-9-]+)/([a-z0-9-]+)-([1-9][0-9]{{0,8}})\Z")


@dataclass(frozen=True)
class BranchName:
    """`<kind>/<environment>/<name>-<version>`: the version is the one that is promoted, tried, or returned to."""

    kind: BranchKind
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
        return cls(cast("BranchKind", match[1]), match[2], match[3], match[4])


@dataclass(frozen=True)
class Promotion:
    """What a promotion, a trial or a rollback came to."""

    title: str
    """What it does, in a line."""
    branch: str | None
    """The branch that holds it; None: the environment wants that already."""
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
    branch: BranchName
    title: str
    files: dict[str, str]
    version: ModelVersion | None
    """Whose figures stand in the commit and in the pull request; None: nobody's."""
    purpose: str = ""
    """What it does, in a sentence or two, where the title does not say it all."""
    comparison: Comparison | str | None = None

    @property
    def message(self) -> str:
        """Of the commit."""
        lines: list[str] = []
        if self.version:
            report = self.version.evaluation
            metrics = ", ".join(f"{name} {value:.4f}" for name, value in report.metrics.items())
            lines = [f"Held-out images: {report.images}; {metrics}", f"Bundle: {self.version.model.uri}"]
        compared = [self.comparison.summary] if isinstance(self.comparison, Comparison) else []
        return "\n".join([self.title, "", *filter(None, [self.purpose]), *lines, *compared, ""])


@dataclass(frozen=True)
class _Place:
    """Where a model of an environment is, at the tip of the branch that environments are read from."""

    repository: Repository
    environment: str
    base: str
    tip: str
    text: str
    """The environment's file."""
    target: Target

    @classmethod
    def at(
        cls, repository: Repository, environment_name: str, application: str | None, model: str | None, base: str
    ) -> "_Place":
        """Where a model of the name `model` would go.

        Raises:
            GitError: the repository cannot be reached, or has no such environment.
            ContractError: the environment's file is not valid, or it is not clear which application is meant.
        """
        tip, path = repository.fetch(base).id, serve_config_path(environment_name)
        text = _read_environment(repository, tip, environment_name)
        target = Environment.parse(text, path).find(application, model, path)
        return cls(repository, environment_name, base, tip, text, target)

    def files(self, model: ServedModel, trial: Trial | None = None) -> dict[str, str]:
        """The environment's file where it serves `model`, and tries `trial` beside it."""
        path = serve_config_path(self.environment)
        return {path: environment.promote(self.text, self.target.application.name, model, path, trial=trial)}

    def manifest(self, version: ModelVersion) -> dict[str, str]:
        """The version's manifest, if it is not there as it is, be it in other words."""
        path = model_path(version.model.name, version.model.version)
        with suppress(ContractError):
            if self.repository.exists(self.tip, path) and self._read(path) == version:
                return {}
        return {path: to_yaml(version)}

    def registered(self, model: ServedModel) -> ModelVersion:
        """The version of a model that the environment has, or has had."""
        return self._read(model_path(model.name, model.version))

    def _read(self, path: str) -> ModelVersion:
        return ModelVersion.from_yaml(self.repository.read(self.tip, path), path)

    def refuse_trial(self) -> None:
        """Leave a trial to whoever began it.

        Raises:
            ContractError: the environment tries a version.
        """
        if self.target.trial:
            end = f"`mergeline promote --to {self.environment}` with --finish or --abort"
            raise ContractError(f"{self.environment} has a {self.target.trial}: end that first, by {end}")

    def trial(self, version: str | None) -> tuple[ServedModel, Trial]:
        """The model that is served, and what is tried beside it.

        Raises:
            ContractError: nothing is tried, or another version than the one that is meant.
        """
        model, trial = self.target.model, self.target.trial
        if model is None or trial is None:
            raise ContractError(f"{self.environment} tries no version: there is nothing to end")
        if version not in (None, trial.model.version):
            raise ContractError(f"{self.environment} has a {trial}, not one of version {version}")
        return model, trial


def promote(
    repository: Repository,
    version: ModelVersion,
    environment_name: str,
    *,
    application: str | None = None,
    base: str = MAIN,
    merge: bool = False,
    comparison: Comparison | str | None = None,
    purpose: str = "",
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
        purpose: why it is done, for the commit and the pull request.

    Raises:
        GateError: it should be merged, and the gates refuse it; nothing was pushed.
        GitError: the repository cannot be reached, or has no such environment.
        ContractError: the environment's file is not valid, has no application for the model, or tries a version.
    """
    place = _Place.at(repository, environment_name, application, version.model.name, base)
    title = f"Promote {_label(version.model)} to {environment_name}"
    if place.target.wanted == UserConfig.of(version.model):
        return Promotion(title, None, place.tip, merged=True)
    place.refuse_trial()
    branch = BranchName("promote", environment_name, version.model.name, version.model.version)
    files = place.files(version.model) | place.manifest(version)
    return _propose(place, _Proposal(branch, title, files, version, purpose, comparison), merge=merge)


def try_beside(
    repository: Repository,
    version: ModelVersion,
    environment_name: str,
    *,
    percent: int | None,
    application: str | None = None,
    base: str = MAIN,
    merge: bool = False,
    comparison: Comparison | str | None = None,
) -> Promotion:
    """Make a branch that tries `version` beside the model that an environment serves; it passes the same gates.

    The same version may be tried in another way, or on another share, without ending the trial first.

    Args:
        repository: the deployments repository.
        version: a registered version: the candidate.
        environment_name: where it shall be tried.
        percent: share of the requests that it shall answer, 1 to 99; None: none, it only judges (a shadow).
        application: which application; None: that of the model's name, or the only one.
        base: the branch that environments are read from.
        merge: merge as well.
        comparison: with the version now served, or why there is none: for whoever decides about the merge.

    Raises:
        GateError: it should be merged, and the gates refuse it; nothing was pushed.
        GitError: the repository cannot be reached, or has no such environment.
        ContractError: the environment's file is not valid, serves nothing or this very version, or tries another one.
    """
    candidate = version.model
    place = _Place.at(repository, environment_name, application, candidate.name, base)
    model, label = place.target.model, _label(candidate)
    if model is None:
        raise ContractError(f"{environment_name} serves nothing beside which {label} could be tried: promote a version")
    if model.version == candidate.version:
        raise ContractError(f"{environment_name} serves {label} already: try another version")
    if place.target.trial and place.target.trial.model != candidate:
        place.refuse_trial()
    trial: Trial
    if percent is None:
        trial = Shadow(model=candidate)
        title = f"Try {label} in {environment_name} without answering"
        does = f"{label} judges the photographs that {_label(model)} has answered, and answers nothing itself."
    else:
        trial = Canary(percent=percent, model=candidate)
        title = f"Try {label} on {percent} % of the requests to {environment_name}"
        does = f"{label} answers {percent} % of the requests, {_label(model)} the others."
    if place.target.trial == trial:
        return Promotion(title, None, place.tip, merged=True)
    purpose = f"{does} `mergeline promote --to {environment_name} --finish` promotes it, `--abort` takes it away."
    branch = BranchName(trial.kind, environment_name, candidate.name, candidate.version)
    files = place.files(model, trial) | place.manifest(version)
    return _propose(place, _Proposal(branch, title, files, version, purpose, comparison), merge=merge)


def finish(
    repository: Repository,
    environment_name: str,
    model: str,
    *,
    version: str | None = None,
    application: str | None = None,
    base: str = MAIN,
    merge: bool = False,
    comparison: Comparison | str | None = None,
) -> Promotion:
    """Make a branch that promotes the version that an environment tries; it passes the same gates.

    Args:
        repository: the deployments repository.
        environment_name: which environment.
        model: the model's name.
        version: the version that is meant; None: whichever is tried.
        application: which application; None: that of the model's name, or the only one.
        base: the branch that environments are read from.
        merge: merge as well.
        comparison: with the version now served, or why there is none: for whoever decides about the merge.

    Raises:
        GateError: it should be merged, and the gates refuse it; nothing was pushed.
        GitError: the repository cannot be reached, or has no such environment.
        ContractError: the environment's file is not valid, or tries nothing or another version.
    """
    place = _Place.at(repository, environment_name, application, model, base)
    served, trial = place.trial(version)
    label = _label(trial.model)
    title = f"Promote {label} to {environment_name}"
    purpose = f"This ends the {trial}: {label} answers all requests, in place of {_label(served)}."
    branch = BranchName("finish", environment_name, trial.model.name, trial.model.version)
    proposal = _Proposal(branch, title, place.files(trial.model), place.registered(trial.model), purpose, comparison)
    return _propose(place, proposal, merge=merge)


def abort(
    repository: Repository,
    environment_name: str,
    model: str,
    *,
    version: str | None = None,
    application: str | None = None,
    base: str = MAIN,
    merge: bool = False,
) -> Promotion:
    """Make a branch that takes away the version that an environment tries; the gates ask for no evidence to do so.

    Args:
        repository: the deployments repository.
        environment_name: which environment.
        model: the model's name.
        version: the version that is meant; None: whichever is tried.
        application: which application; None: that of the model's name, or the only one.
        base: the branch that environments are read from.
        merge: merge as well.

    Raises:
        GateError: it should be merged, and the gates refuse it; nothing was pushed.
        GitError: the repository cannot be reached, or has no such environment.
        ContractError: the environment's file is not valid, or tries nothing or another version.
    """
    place = _Place.at(repository, environment_name, application, model, base)
    served, trial = place.trial(version)
    title = f"End the {trial.kind} of {_label(trial.model)} in {environment_name}"
    purpose = f"This ends the {trial}: {_label(served)} answers alone."
    branch = BranchName("abort", environment_name, trial.model.name, trial.model.version)
    version_served = None  # its figures only inform: a manifest that cannot be read must not keep a bad candidate there
    with suppress(ContractError, GitError):
        version_served = place.registered(served)
    return _propose(place, _Proposal(branch, title, place.files(served), version_served, purpose), merge=merge)


def target_of(
    repository: Repository, environment_name: str, model: str, *, application: str | None = None, base: str = MAIN
) -> Target:
    """Where a model of the name `model` would be promoted to in an environment, and what that wants now.

    Args:
        repository: the deployments repository.
        environment_name: which environment.
        model: the model's name.
        application: which application; None: that of the model's name, or the only one.
        base: the branch that environments are read from.

    Raises:
        GitError: the repository cannot be reached, or has no such environment.
        ContractError: the environment's file is not valid, or has no application for the model.
    """
    return _Place.at(repository, environment_name, application, model, base).target


def rollback(
    repository: Repository,
    environment_name: str,
    *,
    model: str | None = None,
    application: str | None = None,
    base: str = MAIN,
    merge: bool = False,
) -> Promotion:
    """Make a branch that returns an environment to the model before; it passes the same gates.

    A reverted commit would delete the manifest of the version that it leaves; only the environment's lines go back.

    Args:
        repository: the deployments repository.
        environment_name: which environment.
        model: the model's name; None: whichever the application serves.
        application: which application; None: that of the model's name, or the only one that serves a model.
        base: the branch that environments are read from.
        merge: merge as well.

    Raises:
        GateError: it should be merged, and the gates refuse it; nothing was pushed.
        GitError: there is no earlier model.
        ContractError: the environment's file is not valid, it is not clear which application is meant, or that tries a
            version.
    """
    place = _Place.at(repository, environment_name, application, model, base)
    place.refuse_trial()
    before, since = _model_before(repository, place.tip, environment_name, place.target.name, place.target.model)
    title = f"Roll {environment_name} back to {_label(before)}"
    purpose = f"This reverts what commit {since} served."
    branch = BranchName("rollback", environment_name, before.name, before.version)
    return _propose(
        place, _Proposal(branch, title, place.files(before), place.registered(before), purpose), merge=merge
    )


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


def _propose(place: _Place, proposal: _Proposal, *, merge: bool) -> Promotion:
    """Judge first, so that nothing is pushed that shall be merged and cannot be."""
    repository, base, branch = place.repository, place.base, str(proposal.branch)
    findings = tuple(gates.check_files(repository, place.tip, proposal.files))
    refused = failed(findings)
    if merge and refused:
        raise GateError(f"the gates refuse to merge: {proposal.title}\n{explain(refused)}")
    commit = _reusable(place, proposal) or repository.commit(
        place.tip, branch, proposal.files, proposal.message, replace=True
    )
    if merge:
        merged = repository.merge(branch, base, f"Merge {branch}\n\n{proposal.title}")
        return Promotion(proposal.title, branch, merged, merged=True, findings=findings)
    url: str | None = None
    commands = _merge_commands(repository, branch, base)
    if remote := Remote.of(repository.location):
        body = report_markdown(proposal.version, findings, proposal.comparison, proposal.purpose)
        url = open_pull_request(remote, branch, base, proposal.title, body)
        commands = () if url else (f"open {remote.compare_url(base, branch)}", *commands)
    return Promotion(proposal.title, branch, commit, merged=False, findings=findings, url=url, commands=commands)


def _reusable(place: _Place, proposal: _Proposal) -> str | None:
    """The branch's commit, if it is there already and does exactly this."""
    repository, tip = place.repository, place.tip
    found = repository.tip(str(proposal.branch))
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


def _model_before(
    repository: Repository, tip: str, environment_name: str, target: str, now: ServedModel | None
) -> tuple[ServedModel, str]:
    """The model that was served at a target before its present one, and the commit that changed it."""
    path, since = serve_config_path(environment_name), tip
    for commit in repository.log(tip, path, first_parent=True):
        try:
            model = Environment.parse(repository.read(commit.id, path), path).served().get(target)
        except (ContractError, GitError):  # it could not be read then, so that it was not served then
            continue
        if model is not None and model != now:
            return model, since
        since = commit.id
    present = f"{now.name} {now.version}" if now else "none"
    raise GitError(f"{environment_name} has no earlier model to return to (now: {present}); promote a version instead")


def _label(model: ServedModel) -> str:
    return f"{model.name} {model.version}"


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
