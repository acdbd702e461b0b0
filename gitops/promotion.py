"""Promotion: a branch with one commit that puts a registered version into an environment, at once or on trial.

A trial lets the version answer a share of the requests (a canary) or none (a shadow) beside the model that is served,
until it is finished, which promotes it, or aborted. A rollback is the way back to the model before.
"""

import hashlib
import io
import json
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from gitops import environment, gates
from gitops.contracts.comparison import Comparison
from gitops.contracts.serving import Canary, ModelVersion, ServedModel, Shadow, Trial, UserConfig
from gitops.environment import Environment, ModelTarget
from gitops.errors import ContractError, GateError, GitError
from gitops.findings import Finding, explain, failed
from gitops.layout import ENVIRONMENTS, model_path, parse_serve_config_path, serve_config_path
from gitops.pull_request import Remote, open_pull_request, report_markdown
from gitops.repository import MAIN, Repository

BranchKind = Literal["promote", "canary", "shadow", "finish", "abort", "rollback"]
_FILES_TRAILER = "Mergeline-Files"
"""By which a promotion knows a commit as its own: the digest of the files that it writes."""


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
    branch: str
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
        body = [*filter(None, [self.purpose]), *lines, *compared]
        trailer = f"{_FILES_TRAILER}: {_digest(self.files)}"
        return "\n".join([self.title, "", *body, *([""] if body else []), trailer, ""])


@dataclass(frozen=True)
class Destination:
    """Where models are promoted to: an environment, as the main branch of a deployments repository has it.

    Each method looks at the repository anew. Those that change something make a branch with one commit, and open a pull
    request where the remote is GitHub; told to `merge`, they merge as well. A `comparison` is one with the version now
    served, or why there is none: for whoever decides about the merge.

    Each of them raises GateError where it should merge and the gates refuse it (nothing is pushed then); GitError where
    the repository cannot be reached, has no such environment, or has commits of somebody else on the branch; and
    ContractError where the environment's file is not valid, or it is not clear which application is meant.
    """

    repository: Repository
    environment: str
    application: str | None = None
    """Which application; None: that of the model's name, or the only one that serves a model."""

    def target(self, model: str | None) -> ModelTarget:
        """Where a model of the name `model` (None: whichever is served) would go, and what is wanted there now."""
        return _Place.of(self, model).target

    def promote(
        self,
        version: ModelVersion,
        *,
        merge: bool = False,
        comparison: Comparison | str | None = None,
        purpose: str = "",
    ) -> Promotion:
        """Serve a registered version; `purpose` says why, in the commit and in the pull request.

        Raises:
            ContractError: the environment tries a version.
        """
        place = _Place.of(self, version.model.name)
        title = f"Promote {version.model} to {self.environment}"
        if place.target.wanted == UserConfig.of(version.model):
            return Promotion(title, None, place.tip, merged=True)
        place.refuse_trial()
        files = place.files(version.model) | place.manifest(version)
        proposal = _Proposal(place.branch("promote", version.model), title, files, version, purpose, comparison)
        return place.propose(proposal, merge=merge)

    def try_beside(
        self,
        version: ModelVersion,
        percent: int | None,
        *,
        merge: bool = False,
        comparison: Comparison | str | None = None,
    ) -> Promotion:
        """Try a registered version beside the model that is served; it passes the same gates.

        The same version may be tried in another way, or on another share, without ending the trial first.

        Args:
            version: the candidate.
            percent: share of the requests that it shall answer, 1 to 99; None: none, it only judges (a shadow).
            merge: merge as well.
            comparison: of the candidate with the version now served.

        Raises:
            ContractError: the environment serves nothing or this very version, or tries another one.
        """
        candidate = version.model
        place = _Place.of(self, candidate.name)
        model = place.target.model
        if model is None:
            raise ContractError(
                f"{place.where} serves nothing beside which {candidate} could be tried: promote a version"
            )
        if model.version == candidate.version:
            raise ContractError(f"{place.where} serves {candidate} already: try another version")
        if place.target.trial and place.target.trial.model != candidate:
            place.refuse_trial()
        trial: Trial
        if percent is None:
            trial = Shadow(model=candidate)
            title = f"Try {candidate} in {self.environment} without answering"
            does = f"{candidate} judges the photographs that {model} has answered, and answers nothing itself."
        else:
            trial = Canary(percent=percent, model=candidate)
            title = f"Try {candidate} on {percent} % of the requests to {self.environment}"
            does = f"{candidate} answers {percent} % of the requests, {model} the others."
        if place.target.trial == trial:
            return Promotion(title, None, place.tip, merged=True)
        purpose = f"{does} `{place.command} --finish` promotes it, `--abort` takes it away."
        files = place.files(model, trial) | place.manifest(version)
        proposal = _Proposal(place.branch(trial.kind, candidate), title, files, version, purpose, comparison)
        return place.propose(proposal, merge=merge)

    def finish(
        self,
        model: str,
        version: str | None = None,
        *,
        merge: bool = False,
        comparison: Comparison | str | None = None,
    ) -> Promotion:
        """Promote the version of `model` that is tried, which must be `version` if one is given; the gates judge it.

        Raises:
            ContractError: the environment tries nothing, or another version.
        """
        place = _Place.of(self, model)
        served, trial = place.trial(version)
        title = f"Promote {trial.model} to {self.environment}"
        purpose = f"This ends the {trial}: {trial.model} answers all requests, in place of {served}."
        files, tried = place.files(trial.model), place.registered(trial.model)
        proposal = _Proposal(place.branch("finish", trial.model), title, files, tried, purpose, comparison)
        return place.propose(proposal, merge=merge)

    def abort(self, model: str, version: str | None = None, *, merge: bool = False) -> Promotion:
        """Take away the version of `model` that is tried, which must be `version` if one is given.

        The gates ask for no evidence to do so.

        Raises:
            ContractError: the environment tries nothing, or another version.
        """
        place = _Place.of(self, model)
        served, trial = place.trial(version)
        title = f"End the {trial.kind} of {trial.model} in {self.environment}"
        purpose = f"This ends the {trial}: {served} answers alone."
        shown = None  # its figures only inform: a manifest that cannot be read must not keep a bad candidate there
        with suppress(ContractError, GitError):
            shown = place.registered(served)
        proposal = _Proposal(place.branch("abort", trial.model), title, place.files(served), shown, purpose)
        return place.propose(proposal, merge=merge)

    def rollback(self, model: str | None = None, *, merge: bool = False) -> Promotion:
        """Return to the version of `model` (None: whichever is served) before; it passes the same gates.

        A reverted commit would delete the manifest of the version that it leaves; only the environment's lines go back.

        Raises:
            GitError: there is no earlier one.
            ContractError: the environment tries a version.
        """
        place = _Place.of(self, model)
        place.refuse_trial()
        before, since = place.model_before()
        title = f"Roll {self.environment} back to {before}"
        purpose = f"This reverts what commit {since} served."
        files, registered = place.files(before), place.registered(before)
        proposal = _Proposal(place.branch("rollback", before), title, files, registered, purpose)
        return place.propose(proposal, merge=merge)


@dataclass(frozen=True)
class _Place:
    """A destination at the tip of the main branch, and where in it a model is or goes."""

    repository: Repository
    environment: str
    tip: str
    text: str
    """The environment's file."""
    target: ModelTarget
    application: str | None
    """The application that was asked for."""

    @classmethod
    def of(cls, destination: Destination, model: str | None) -> "_Place":
        repository, name = destination.repository, destination.environment
        tip, path = repository.fetch(MAIN).id, serve_config_path(name)
        if not repository.exists(tip, path):
            environments = map(parse_serve_config_path, repository.list(tip, ENVIRONMENTS))
            known = ", ".join(filter(None, environments)) or "none"
            raise GitError(f"{repository.location} has no environment {name!r} (no {path}); it has {known}")
        text = repository.read(tip, path)
        target = Environment.parse(text, path).find(destination.application, model, path)
        return cls(repository, name, tip, text, target, destination.application)

    @property
    def where(self) -> str:
        """For errors: several applications of an environment may serve a model of the same name."""
        return self.environment + (f", application {self.application}," if self.application else "")

    @property
    def command(self) -> str:
        """What ends a trial here, with `--finish` or `--abort`."""
        return f"mergeline promote --to {self.environment}" + (
            f" --application {self.application}" if self.application else ""
        )

    def branch(self, kind: BranchKind, model: ServedModel) -> str:
        """The branch for a version: the one that is promoted, tried, or returned to."""
        name = self.target.application.name
        # Else of two applications that serve a model of the same name one's branch would replace the other's.
        return f"{kind}/{self.environment}/{model.name}-{model.version}" + (f"@{name}" if name != model.name else "")

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
        """Leave a trial to whoever began it."""
        if self.target.trial:
            end = f"`{self.command}` with --finish or --abort"
            raise ContractError(f"{self.where} has a {self.target.trial}: end that first, by {end}")

    def trial(self, version: str | None) -> tuple[ServedModel, Trial]:
        """The model that is served, and what is tried beside it: of `version`, if one is given."""
        model, trial = self.target.model, self.target.trial
        if model is None or trial is None:
            raise ContractError(f"{self.where} tries no version: there is nothing to end")
        if version not in (None, trial.model.version):
            raise ContractError(f"{self.where} has a {trial}, not one of version {version}")
        return model, trial

    def model_before(self) -> tuple[ServedModel, str]:
        """The model that was served before the present one, and the commit that changed it."""
        path, since, now = serve_config_path(self.environment), self.tip, self.target.model
        for commit in self.repository.log(self.tip, path, first_parent=True):
            try:
                served = Environment.parse(self.repository.read(commit.id, path), path).served()
            except (ContractError, GitError):  # it could not be read then, so that it was not served then
                continue
            model = served.get(self.target.name)
            if model is not None and model != now:
                return model, since
            since = commit.id
        present = f"now: {now or 'none'}"
        raise GitError(f"{self.environment} has no earlier model to return to ({present}); promote a version instead")

    def propose(self, proposal: _Proposal, *, merge: bool) -> Promotion:
        """Judge first, so that nothing is pushed that shall be merged and cannot be."""
        repository, branch = self.repository, proposal.branch
        findings = tuple(gates.check_files(repository, self.tip, proposal.files))
        refused = failed(findings)
        if merge and refused:
            raise GateError(f"the gates refuse to merge: {proposal.title}\n{explain(refused)}")
        commit = self._commit(proposal)
        if merge:
            merged = repository.merge(branch, MAIN, f"Merge {branch}\n\n{proposal.title}")
            return Promotion(proposal.title, branch, merged, merged=True, findings=findings)
        url: str | None = None
        commands = _merge_commands(repository, branch)
        if remote := Remote.of(repository.location):
            body = report_markdown(proposal.version, findings, proposal.comparison, proposal.purpose)
            url = open_pull_request(remote, branch, MAIN, proposal.title, body)
            commands = () if url else (f"open {remote.compare_url(MAIN, branch)}", *commands)
        return Promotion(proposal.title, branch, commit, merged=False, findings=findings, url=url, commands=commands)

    def _commit(self, proposal: _Proposal) -> str:
        """Push the branch; one that is there already stays if it does exactly this, or if somebody has worked on it."""
        branch = proposal.branch
        present = self.repository.tip(branch)
        if present:
            if self._does(present, proposal.files):
                return present
            self._refuse_others(branch, present)
        return self.repository.commit(self.tip, branch, proposal.files, proposal.message, replace=present)

    def _does(self, commit: str, files: Mapping[str, str]) -> bool:
        """Whether a commit stands on the tip and differs from it in `files` alone."""
        repository = self.repository
        return (
            repository.merge_base(self.tip, commit) == self.tip
            and set(repository.changed(self.tip, commit)) == set(files)
            and all(repository.exists(commit, path) for path in files)
            and all(repository.read(commit, path) == text for path, text in files.items())
        )

    def _refuse_others(self, branch: str, present: str) -> None:
        commits = self.repository.log(f"{self.tip}..{present}")
        others = [commit for commit in commits if not _is_ours(self.repository, commit.id)]
        if others:
            listed = "".join(f"\n  {commit.id[:12]} {commit.subject} ({commit.author})" for commit in others)
            raise GitError(
                f"{self.repository.location}: somebody has committed to {branch}, which would be made anew:{listed}\n"
                "merge the branch, or delete it"
            )


def _is_ours(repository: Repository, commit: str) -> bool:
    """Whether a promotion made a commit, and nobody has amended what it changes: a rebase leaves it ours."""
    digest = repository.trailer(commit, _FILES_TRAILER)
    if not digest:
        return False
    try:
        files = {path: repository.read(commit, path) for path in repository.changed(f"{commit}^", commit)}
    except GitError:  # a file was taken away, or is no text: no promotion does that
        return False
    return digest == _digest(files)


def _digest(files: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


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


def _merge_commands(repository: Repository, branch: str) -> tuple[str, ...]:
    if not repository.bare:
        folder = shlex.quote(repository.location)
        return (f"git -C {folder} switch {MAIN}", f"git -C {folder} merge --no-ff {branch}")
    message = shlex.quote(f"Merge {branch}")
    return (
        f"git clone --branch {MAIN} {shlex.quote(repository.location)} deployments",
        f"git -C deployments merge --no-ff -m {message} origin/{branch}",
        f"git -C deployments push origin {MAIN}",
    )
