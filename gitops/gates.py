"""The gates that a change must pass before it is merged: measuring is done, here it is only decided.

    python -m gitops.gates --pre-receive    # the hook of a bare repository: reads `old new ref` lines

A change of a model may change nothing else, and is judged by the bars that stood before it. Manifests of registered
versions are only ever added. Everything else (settings, bars, other files) is for people to change, in other commits.
"""

import copy
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitops import bundle
from gitops.contracts.project import Project
from gitops.contracts.serving import ModelVersion, ServedModel, UserConfig
from gitops.environment import Environment
from gitops.errors import BundleError, ContractError, GateError, MergelineError, StalledError
from gitops.evidence import judge_bars, judge_report
from gitops.findings import Finding, accept, explain, failed, refuse, skip
from gitops.layout import (
    PROJECT_PATH,
    is_project_path,
    model_path,
    parse_model_path,
    parse_serve_config_path,
    project_path,
    serve_config_path,
)
from gitops.repository import MAIN, NO_COMMIT, Repository

POKE = "mergeline-poke"
"""A file in the bare repository that the post-receive hook touches: the reconciler watches its time of change."""

Schema = Callable[[Mapping[str, Any]], str | None]
"""What is wrong with a Serve configuration, None where nothing is; StalledError where nobody here can say."""
Reader = Callable[[str], str | None]
"""The text of a path at some commit; None where there is no such file."""


@dataclass(frozen=True)
class RepositoryChange:
    """A change of a deployments repository, as the gates see it."""

    paths: tuple[str, ...]
    """Every path that differs."""
    old: Reader
    new: Reader
    into: Reader
    """Reads what the change would be merged into. The bars that apply are those there: it cannot lower its own."""
    first: bool = False
    """Whether there was nothing before: then a model may come with everything else."""


@dataclass(frozen=True)
class Arrival:
    """A version that a change would serve, or try beside what is served."""

    target: str
    """`environment/application`."""
    version: ModelVersion
    served: ModelVersion | None
    """What is served there now; None: nothing, or nothing is known of it."""


@dataclass(frozen=True)
class _EnvironmentChange:
    path: str
    after: Environment
    changed: bool
    """Whether an application shall serve or try another model, or try it otherwise."""
    models: Mapping[str, tuple[ServedModel, ...]]
    """By application, the models to judge: those that are new there, and candidates that are tried otherwise."""
    same_settings: bool
    """Whether everything but the models is as it was."""
    known: bool
    """Whether what was there before could be read; what can be read mends it, whatever it changes."""


def check(repository: Repository, old: str, new: str) -> list[Finding]:
    """Judge what `new` changes since it left `old`, with the bars that stand at `old` (NO_COMMIT: an empty branch)."""
    return judge(_change(repository, old, new))


def brought(repository: Repository, old: str, new: str) -> list[Arrival]:
    """The versions that `new` would serve or try, as far as their manifests can be read."""
    change = _change(repository, old, new)
    arrivals: list[Arrival] = []
    for name in filter(None, map(parse_serve_config_path, change.paths)):
        environment = _environment(change, name)[1]
        now = {} if change.first else _wanted(change.into, name)
        for application, models in environment.models.items() if environment else ():
            served = _registered(change.into, now[application].model) if application in now else None
            versions = filter(None, (_registered(change.new, model) for model in models))
            arrivals += [Arrival(f"{name}/{application}", version, served) for version in versions]
    return arrivals


def _wanted(reader: Reader, name: str) -> Mapping[str, UserConfig]:
    path = serve_config_path(name)
    try:
        return Environment.parse(reader(path) or "", path).wanted()
    except ContractError:
        return {}


def _registered(reader: Reader, model: ServedModel | None) -> ModelVersion | None:
    if model is None:
        return None
    path = model_path(model.name, model.version)
    try:
        return ModelVersion.from_yaml(reader(path) or "", path)
    except ContractError:  # the gates say so
        return None


def _change(repository: Repository, old: str, new: str) -> RepositoryChange:
    first = old == NO_COMMIT
    fork = NO_COMMIT if first else (repository.merge_base(old, new) or old)
    before: Reader = (lambda _: None) if first else _reader(repository, fork)
    after = _reader(repository, new)
    into = after if first else _reader(repository, old)
    return RepositoryChange(tuple(repository.changed(fork, new)), before, after, into, first)


def check_files(repository: Repository, base: str, files: Mapping[str, str]) -> list[Finding]:
    """Judge what writing `files` on top of `base` would change, before there is a commit."""
    before = _reader(repository, base)
    paths = tuple(path for path, text in files.items() if before(path) != text)
    return judge(RepositoryChange(paths, before, lambda path: files[path] if path in files else before(path), before))


def serve_schema(config: Mapping[str, Any]) -> str | None:
    """What Ray Serve's own schema says against a configuration; None: nothing.

    Raises:
        StalledError: Ray is not installed here.
    """
    try:
        from ray.serve.config import AutoscalingConfig
        from ray.serve.schema import ServeDeploySchema
    except ImportError as error:
        raise StalledError(f"Ray cannot be imported here, so that its schema was not asked: {error}") from error
    try:
        ServeDeploySchema.model_validate(copy.deepcopy(dict(config)))
        for application in config["applications"]:
            for deployment in application.get("deployments") or ():  # the schema takes any mapping there
                AutoscalingConfig.model_validate(deployment.get("autoscaling_config") or {})
    except ValueError as error:
        return str(error)
    return None


def bundle_complaint(model: ServedModel) -> str | None:
    """What is wrong with a model's bundle: wholly verified in a folder, by its manifest alone in a remote store."""
    try:
        folder = bundle.local_folder(model.uri)
        if folder:
            manifest = bundle.verify(folder, model.sha256).manifest
        else:
            manifest = bundle.read_manifest(model.uri, model.sha256)
    except BundleError as error:
        return str(error)
    return (
        None
        if manifest.name == model.name
        else f"the bundle {model.uri} is a model of {manifest.name}, not {model.name}"
    )


def judge(
    change: RepositoryChange,
    schema: Schema = serve_schema,
    bundles: Callable[[ServedModel], str | None] = bundle_complaint,
) -> list[Finding]:
    """Every gate's finding on a change; nothing is read but through `change` and the two given questions.

    Args:
        change: what is to be merged.
        schema: says what is wrong with a configuration; raises StalledError where it cannot.
        bundles: says what is wrong with a model's bundle.
    """
    findings = [*_history(change), *_project(change)]
    environments: list[_EnvironmentChange] = []
    for name in filter(None, map(parse_serve_config_path, change.paths)):
        finding, environment = _environment(change, name)
        findings.append(finding)
        environments += [environment] if environment else []
    if any(item.changed for item in environments) and not change.first:
        findings += _scope(change, environments)
    for model in dict.fromkeys(model for item in environments for group in item.models.values() for model in group):
        findings += _model(change, model, bundles)
    if not failed(
        findings
    ):  # Ray takes seconds to import: it is asked last, and not about settings that it took before
        findings += [
            judge_schema(item.path, item.after.config, schema) for item in environments if not item.same_settings
        ]
    return findings


# --- the gates --------------------------------------------------------------------------------------------------------


def _history(change: RepositoryChange) -> Iterator[Finding]:
    """Manifests of registered versions are added, never changed."""
    for path in change.paths:
        registered = parse_model_path(path)
        if registered is None:
            continue
        if change.old(path) is not None:
            remedy = "leave it as it is, and register another version"
            yield refuse("history", f"{path} would be changed or deleted, but a registered version stays", remedy)
            continue
        try:
            version = ModelVersion.from_yaml(change.new(path) or "", path)
        except ContractError as error:
            yield refuse("history", str(error), "write it with `mergeline promote`")
            continue
        if (version.model.name, version.model.version) != registered:
            remedy = f"name it {model_path(version.model.name, version.model.version)}"
            yield refuse("history", f"{path} describes {version.model}", remedy)


def _project(change: RepositoryChange) -> Iterator[Finding]:
    """Project files stay readable, and there is one for each name: without them nobody knows the bars."""
    for path in filter(is_project_path, change.paths):
        text = change.new(path)
        if text is None and path != PROJECT_PATH:
            continue  # its model can be served on, and not promoted any more
        try:
            name = Project.from_yaml(text or "", path).name
            first = Project.from_yaml(change.new(PROJECT_PATH) or "", PROJECT_PATH).name
        except ContractError as error:
            yield refuse("project", str(error), "correct it: the gates read their bars there")
            continue
        if path not in (PROJECT_PATH, project_path(name)):
            yield refuse("project", f"{path} is the project {name}", f"name it {project_path(name)}")
        elif change.new(project_path(first)) is not None:
            reason = f"{first} has two project files: {PROJECT_PATH} and {project_path(first)}"
            yield refuse("project", reason, "take one of them out: nobody would know whose bars count")
        else:
            yield accept("project", f"{path} is valid")


def _environment(change: RepositoryChange, name: str) -> tuple[Finding, _EnvironmentChange | None]:
    """The file can be read without a doubt; what of its models is new."""
    path = serve_config_path(name)
    text, old_text = change.new(path), change.old(path)
    if text is None:
        return _removed(change, name), None
    try:
        after = Environment.parse(text, path)
    except ContractError as error:
        return refuse("environment", str(error), "correct the file; Ray Serve would ignore or misread it"), None
    try:
        before = Environment.parse(old_text, path) if old_text is not None else None
        same_settings = before is not None and before.settings() == after.settings()
        known = True
    except ContractError:
        before, same_settings, known = None, False, False
    earlier = before.wanted() if before else {}
    changes = {app: wanted for app, wanted in after.wanted().items() if wanted != earlier.get(app, UserConfig())}
    models = {app: tuple(_to_judge(earlier.get(app), wanted)) for app, wanted in changes.items()}
    environment = _EnvironmentChange(path, after, bool(changes), models, same_settings, known)
    return accept("environment", f"{path} is valid"), environment


def _to_judge(before: UserConfig | None, after: UserConfig) -> Iterator[ServedModel]:
    """The models that a change brings; what only goes needs no evidence, so that a trial can always be ended."""
    if after.model and (before is None or after.model != before.model):
        yield after.model
    if after.trial and (before is None or after.trial != before.trial):
        yield after.trial.model


def _removed(change: RepositoryChange, name: str) -> Finding:
    try:
        listed = name in Project.from_yaml(change.new(PROJECT_PATH) or "", PROJECT_PATH).environments
    except ContractError:
        listed = True
    if listed:
        remedy = f"keep it, or take {name} out of `environments` in {PROJECT_PATH} as well"
        return refuse("environment", f"{serve_config_path(name)} would be deleted", remedy)
    return accept("environment", f"{name} is no environment of the project any more")


def _scope(change: RepositoryChange, environments: list[_EnvironmentChange]) -> Iterator[Finding]:
    """A change of a model brings its manifest, and nothing else."""
    promoted = [item for item in environments if item.changed]
    allowed = {item.path for item in promoted}
    others = [path for path in change.paths if path not in allowed and parse_model_path(path) is None]
    mixed = [item.path for item in promoted if item.known and not item.same_settings]
    if mixed:
        reason = f"{', '.join(mixed)} changes its model and other settings together"
        remedy = "change settings in a commit of their own (a new environment or application begins with `model: null`)"
        yield refuse("scope", reason, remedy)
    if bars := [path for path in others if is_project_path(path)]:
        remedy = "merge the change of the bars first, on its own"
        yield refuse("scope", f"{', '.join(bars)} and a model change together", remedy)
    elif others:
        shown = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        remedy = "take them out of this branch and merge them on their own"
        yield refuse("scope", f"a promotion may not touch {shown}", remedy)
    if not (mixed or others):
        yield accept("scope", "nothing but the model and its manifest is touched")


def _model(
    change: RepositoryChange, model: ServedModel, bundles: Callable[[ServedModel], str | None]
) -> Iterator[Finding]:
    path = model_path(model.name, model.version)
    text = change.new(path)
    if text is None:
        yield refuse("manifest", f"{path} is missing", f"promote {model} with `mergeline promote`")
        return
    try:
        version = ModelVersion.from_yaml(text, path)
    except ContractError as error:
        yield refuse("manifest", str(error), "register the version again, as another one")
        return
    if version.model != model:
        differing = [key for key, value in model if getattr(version.model, key) != value]
        remedy = f"write into the environment what {path} says"
        yield refuse("manifest", f"the environment's {', '.join(differing)} is not that of {path}", remedy)
        return
    yield accept("manifest", f"{path} is what is served")
    complaint = bundles(model)
    if complaint:
        yield refuse("bundle", complaint, "promote a version whose bundle is whole, at a URI that can be read here")
    else:
        yield accept("bundle", f"{model.uri} has the digest {model.sha256[:12]}")
    yield from judge_report(version)
    yield from judge_bars(change.into(project_path(model.name)) or change.into(PROJECT_PATH), version)


def judge_schema(path: str, config: Mapping[str, Any], schema: Schema) -> Finding:
    """Whether Ray takes the configuration that stands at a path; undecided where there is no Ray to ask."""
    try:
        complaint = schema(config)
    except StalledError as error:
        return skip("schema", f"{path}: {error}", "judge it where Mergeline is installed with Ray")
    if complaint:
        return refuse("schema", f"{path}: {complaint}", "correct the file as Ray's ServeDeploySchema asks")
    return accept("schema", f"Ray's ServeDeploySchema takes {path}")


def _reader(repository: Repository, commit: str) -> Reader:
    return lambda path: repository.read(commit, path) if repository.exists(commit, path) else None


# --- hooks ------------------------------------------------------------------------------------------------------------


def hooks() -> dict[str, str]:
    """The hooks of a deployments repository: pre-receive runs the gates, post-receive pokes the reconciler."""
    return {
        "pre-receive": "#!/bin/sh\n# Written by Mergeline: a push to main passes the gates or is refused.\n"
        f"exec {shlex.quote(sys.executable)} -P -m gitops.gates --pre-receive\n",
        "post-receive": "#!/bin/sh\n# Written by Mergeline: tells the reconciler to look now, not at its next poll.\n"
        f"exec touch {POKE}\n",
    }


def pre_receive(repository: Repository, updates: Iterable[str]) -> list[Finding]:
    """Judge a push: `updates` are the hook's lines `old new ref`; only the main branch is guarded.

    Raises:
        GateError: main would be deleted, or history rewritten.
    """
    findings: list[Finding] = []
    for line in updates:
        old, new, ref = line.split(maxsplit=2)
        if ref.strip() != f"refs/heads/{MAIN}":
            continue
        if new == NO_COMMIT:
            raise GateError(f"{MAIN} would be deleted: it is what is served; push to another branch")
        if old != NO_COMMIT and repository.merge_base(old, new) != old:
            raise GateError(f"{MAIN}'s history would be rewritten: merge into it, or go back with `mergeline rollback`")
        findings += check(repository, old, new)
    return findings


def main() -> int:
    """Run as the pre-receive hook; return its exit status."""
    if sys.argv[1:] != ["--pre-receive"]:
        print("usage: python -m gitops.gates --pre-receive < lines of `old new ref`", file=sys.stderr)
        return 2
    try:
        findings = pre_receive(Repository(Path.cwd(), in_hook=True), sys.stdin)
    except MergelineError as error:
        print(f"REFUSED {error}")
        return 1
    refused = failed(findings)
    if findings:
        print(f"Mergeline's gates {'refuse' if refused else 'let pass'} this change of {MAIN}:\n{explain(findings)}")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
