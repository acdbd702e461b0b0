"""Whether Argo CD would take an environment's objects, only these, and staging first: by what the same tree says."""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from gitops import bounded_yaml, cron
from gitops.findings import Finding, refuse
from gitops.layout import ENVIRONMENTS, STAGING
from gitops.objects import Object, at, dicts, group_of, mapping, name_of, texts

_VERSION = "argoproj.io/v1alpha1"
FOLDER = "gitops/argocd/"
"""Where a repository keeps what Argo CD is told. One without it is not asked for what stands there."""
_RIGHTS = "rbac.authorization.k8s.io"
"""The group of what a merge could give itself rights by."""
_NEEDED = "ServerSideApply=true"
_LARGE = ("kuberay-operator", "kube-prometheus-stack")
"""Charts with definitions that are larger than an annotation may be."""
_HARMFUL = {
    "RespectIgnoreDifferences=true": "takes worker groups from what runs: no change of them comes (argo-cd#17694)",
    "Replace=true": "takes away what others have set, replicas of the autoscaler's among it",
    "Force=true": "deletes what it cannot change, with all that runs in it",
    "Validate=false": "applies what the API server would refuse",
}
"""Options of a sync, and what they do."""
_LEVEL = "pod-security.kubernetes.io/enforce"
_MOVING = ("", "HEAD", "main", "master", "*")
_NAME = re.compile(r"\{\{\s*\.?path\.basename\s*\}\}")


def refusals(objects: Sequence[Object], files: Mapping[str, str], environment: str) -> Iterator[Finding]:
    """What keeps Argo CD from applying objects, or lets it apply them somewhere else.

    Args:
        objects: of the environment.
        files: the tree's, as `overlay.files_at` returns them.
        environment: its name.

    Raises:
        ContractError: a file for Argo CD cannot be read.
    """
    found_in_tree = list(_told(files))
    projects = [item for item in found_in_tree if item.get("kind") == "AppProject"]
    namespaces = _namespaces(found_in_tree, environment)
    for item in objects:
        of_cluster = any(_is_in(item, project, "clusterResourceWhitelist") for project in projects)
        if projects and not of_cluster and not any(_is_in(item, one, "namespaceResourceWhitelist") for one in projects):
            found = f"{name_of(item)}: the AppProject takes no {item['kind']} of the group {group_of(item)!r}"
            yield refuse("argocd", found, f"take it out, or add it to `namespaceResourceWhitelist` in {FOLDER}")
        namespace = at(item, "metadata", "namespace")
        if namespaces and not of_cluster and namespace not in namespaces:
            found = f"{name_of(item)} is of the namespace {namespace}, and {environment} goes to {namespaces[0]}"
            yield refuse("argocd", found, f"`namespace: {namespaces[0]}` in the overlay's kustomization.yaml")


def told(files: Mapping[str, str]) -> list[dict[str, Any]]:
    """What Argo CD is told, each with a kind and a name.

    Raises:
        ContractError: a file for Argo CD cannot be read.
    """
    named = (item for item in _told(files) if item.get("kind") and at(item, "metadata", "name"))
    return [item for item in named if item.get("apiVersion") == _VERSION]


def complaints(found_in_tree: Sequence[Object], environment: str, *, staged: bool) -> Iterator[Finding]:
    """What Argo CD is told that would let anything through, or an environment before staging.

    Args:
        found_in_tree: what `told` returns.
        environment: its name.
        staged: whether there is a staging that it waits for.
    """
    sets = [item for item in found_in_tree if _is_of_environments(item)]
    projects = {item["metadata"]["name"]: item for item in found_in_tree if item["kind"] == "AppProject"}
    asked = {at(item, "spec", "template", "spec", "project") for item in sets}
    own = {source.get("repoURL") for item in sets for source in _sources(mapping(item, "spec", "template", "spec"))}
    namespaces = _namespaces(found_in_tree, environment) or [f"mergeline-{environment}"]
    for item in found_in_tree:
        found: Iterator[str] = iter(())
        if item["kind"] == "AppProject":
            found = _of_project(item, namespaces if item["metadata"]["name"] in asked or not sets else ())
        elif item in sets:
            found = _of_set(item, projects, environment, staged=staged)
        elif item["kind"] == "ApplicationSet":
            found = _of_application(mapping(item, "spec", "template", "spec"), own)
        elif item["kind"] == "Application":
            found = _of_application(mapping(item, "spec"), own)
        for complaint in found:
            yield refuse("argocd", f"{name_of(item)}: {complaint}", f"take it as {FOLDER} of Mergeline has it")


def _is_of_environments(item: Mapping[str, Any]) -> bool:
    """Whether it makes the Applications of environments: a team may have others, of what is none of ours."""
    folder = f"{ENVIRONMENTS}/"
    places = (text for path, text in texts(item) if path.endswith("path"))
    return item.get("kind") == "ApplicationSet" and any(folder in place for place in places)


def _namespaces(found: Sequence[Mapping[str, Any]], environment: str) -> list[str]:
    """Those that an environment may go to, as far as they are said."""
    places = (
        at(item, "spec", "template", "spec", "destination", "namespace") for item in found if _is_of_environments(item)
    )
    return [name for place in places if place and "{{" not in (name := _NAME.sub(environment, str(place)))]


def _of_project(project: Object, namespaces: Sequence[str]) -> Iterator[str]:
    if "*" in (at(project, "spec", "sourceRepos") or ()):
        yield "spec.sourceRepos takes every repository"
    places = dicts(project, "spec", "destinations")
    if any(place.get("namespace") == "*" for place in places):
        yield "spec.destinations takes every namespace"
    if namespaces and not any(
        fnmatchcase(name, str(place.get("namespace"))) for place in places for name in namespaces
    ):
        yield f"spec.destinations has no namespace {' or '.join(namespaces)}"
    for key in ("clusterResourceWhitelist", "namespaceResourceWhitelist"):
        for entry in dicts(project, "spec", key):
            if "*" in (entry.get("group"), entry.get("kind")):
                yield f"spec.{key} takes every kind"
            elif entry.get("group") == _RIGHTS or (entry.get("group"), entry.get("kind")) == ("", "Secret"):
                yield f"spec.{key} takes the kind {entry['kind']}, which no merge should bring"
    for window in dicts(project, "spec", "syncWindows"):
        if window.get("kind") not in ("allow", "deny"):
            yield f"a window of spec.syncWindows is of the kind {window.get('kind')}, which is neither allow nor deny"
        if obstacle := cron.obstacle(str(window.get("schedule"))):
            yield f"spec.syncWindows: {obstacle}"


def _of_set(item: Object, projects: Mapping[str, Object], environment: str, *, staged: bool) -> Iterator[str]:
    template = mapping(item, "spec", "template")
    spec = mapping(template, "spec")
    if projects and spec.get("project") not in projects:
        yield f"its project {spec.get('project')} is none of {', '.join(projects)}"
    yield from _of_application(spec, {source.get("repoURL") for source in _sources(spec)})
    steps = dicts(item, "spec", "strategy", "rollingSync", "steps")
    labels = {key: str(label) for key, label in mapping(template, "metadata", "labels").items()}
    first, here = (
        _step(steps, {key: _NAME.sub(name, label) for key, label in labels.items()}) for name in (STAGING, environment)
    )
    is_known = not any("{{" in _NAME.sub("", label) for label in labels.values())
    if at(item, "spec", "strategy", "type") != "RollingSync" or (is_known and here is None):
        yield f"`strategy` has no step of a RollingSync that takes {environment} by its labels"
    elif is_known and here is not None and staged and environment != STAGING and (first is None or first >= here):
        yield f"`strategy` takes {environment} no later than {STAGING}"
    for generator in dicts(item, "spec", "generators"):
        revision = at(generator, "git", "revision")
        applied = [str(source.get("targetRevision")) for source in _sources(spec)]
        if revision and str(revision) not in applied:
            yield f"it looks for environments at {revision}, and applies {', '.join(applied)}"
    for entry in dicts(spec, "ignoreDifferences"):
        for path in (*(entry.get("jqPathExpressions") or ()), *(entry.get("jsonPointers") or ())):
            if not str(path).endswith("replicas"):
                yield f"`ignoreDifferences` leaves out {path}, so that a commit that changes it counts as synced"
    makes = "CreateNamespace=true" in (at(spec, "syncPolicy", "syncOptions") or ())
    if makes and (level := at(spec, "syncPolicy", "managedNamespaceMetadata", "labels", _LEVEL)) != "restricted":
        yield f"the namespaces that it makes have {_LEVEL}: {level}, and not restricted"


def _step(steps: Sequence[Object], labels: Mapping[str, str]) -> int | None:
    """The first step that takes an Application of these labels."""
    for index, step in enumerate(steps):
        if all(
            (labels.get(str(found.get("key"))) in (found.get("values") or ())) == (found.get("operator") == "In")
            for found in dicts(step, "matchExpressions")
        ):
            return index
    return None


def _of_application(spec: Mapping[str, Any], own: set[Any]) -> Iterator[str]:
    options = at(spec, "syncPolicy", "syncOptions") or ()
    is_large = any(source.get("repoURL") in own or source.get("chart") in _LARGE for source in _sources(spec))
    if is_large and _NEEDED not in options:
        yield f"`syncOptions` lacks {_NEEDED}: what it applies is larger than an annotation may be"
    for option in options:
        if option in _HARMFUL:
            yield f"`syncOptions` has {option}, which {_HARMFUL[option]}"
    for source in _sources(spec):
        revision = str(source.get("targetRevision") or "")
        if source.get("repoURL") not in own and revision in _MOVING:
            yield f"targetRevision {revision!r} is another one tomorrow; name a release"


def _sources(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    return dicts(spec, "sources") or [mapping(spec, "source")]


def _told(files: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for path, text in files.items():
        if path.startswith(FOLDER) and path.endswith((".yaml", ".yml")):
            for document in bounded_yaml.load_all(text, path):
                if isinstance(document, dict):
                    yield document


def _is_in(item: Object, project: Object, whitelist: str) -> bool:
    return any(
        fnmatchcase(group_of(item), str(entry.get("group", "")))
        and fnmatchcase(item["kind"], str(entry.get("kind", "")))
        and fnmatchcase(item["metadata"]["name"], str(entry.get("name", "*")))
        for entry in dicts(project, "spec", whitelist)
    )
