"""Whether what Argo CD is told would let anything through, or an environment before staging, or come to nothing."""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any

from gitops import clear_text, cron, pod_security
from gitops.destination import (
    FOLDER,
    NAME,
    is_listed,
    is_of_environments,
    is_told,
    lists_kinds,
    namespaces_of,
    projects_of,
    sources_of,
)
from gitops.findings import Finding, refuse
from gitops.layout import ENVIRONMENTS, STAGING
from gitops.objects import Object, at, dicts, mapping, name_of, texts

_NO_KEY = "0" * 16
"""Stands in the component signed-commits for a key that nobody has yet."""
_SECRET_TYPE = "argocd.argoproj.io/secret-type"  # noqa: S105 - a label
_OPEN = {"type", "url", "name", "project", "enableLfs", "enableOCI", "depth"}
"""What a Secret of that type says of a repository that anybody can read."""
_RIGHTS = "rbac.authorization.k8s.io"
"""The group of what a merge could give itself rights by."""
_NEEDED = "ServerSideApply=true"
_LARGE = ("kuberay-operator", "kube-prometheus-stack")
"""Charts with definitions that are larger than an annotation may be."""
_REPLACING = "Replace=true"
_HARMFUL = {
    _REPLACING: "takes away what others have set, replicas of the autoscaler's among it",
    "Force=true": "deletes what it cannot change, with all that runs in it",
    "Validate=false": "applies what the API server would refuse",
}
"""Options of a sync, and what they do."""
_RESPECTFUL = "RespectIgnoreDifferences=true"
_INTO_A_LIST = re.compile(r"\[|/\d+(/|$)")
"""In a path of `ignoreDifferences`, as jq or JSON Pointer writes it."""
_MADE = ("ray.io", "RayCluster")
"""What KubeRay makes of an environment's RayService, and Argo CD does not apply."""
_MOVING = re.compile(r"(HEAD|main|master)?\Z|.*[*^~<>]")
"""Revisions that are another one tomorrow; ranges of versions among them."""
_ALL = re.compile(r"(\w+://|git@)?[*/:]*\*[*/:]*\Z")
"""Patterns of repositories that take every one, of a scheme at least."""
_BARRED = (("", "Secret"), (_RIGHTS, "Role"), (_RIGHTS, "RoleBinding"))
"""Groups and kinds that a project which takes all but some must refuse."""


def refusals(found_in_tree: Sequence[Object], environment: str, *, staged: bool) -> Iterator[Finding]:
    """What Argo CD is told that would let anything through, or an environment before staging.

    Args:
        found_in_tree: what `destination.told` returns.
        environment: its name.
        staged: whether there is a staging that it waits for.
    """
    sets = [item for item in found_in_tree if is_of_environments(item)]
    projects = {item["metadata"]["name"]: item for item in found_in_tree if is_told(item, "AppProject")}
    own = {source.get("repoURL") for item in sets for source in sources_of(mapping(item, "spec", "template", "spec"))}
    alone = [item for item in found_in_tree if not sets and _is_of(item, environment)]
    own |= {source.get("repoURL") for item in alone for source in sources_of(mapping(item, "spec"))}
    asked = projects_of(found_in_tree, environment)
    namespaces = namespaces_of(found_in_tree, environment) or [f"mergeline-{environment}"]
    for item in found_in_tree:
        yield from clear_text.refusals_in(item, name_of(item)) if _is_open(item) else clear_text.refusals(item)
        found: Iterator[str] = iter(())
        if is_told(item, "AppProject"):
            yield from _signatures(item)
            found = chain(_windows(item), _of_project(item, namespaces) if item in asked else ())
        elif item in sets:
            found = _of_set(item, projects, environment, staged=staged)
        elif is_told(item, "ApplicationSet"):
            found = _of_application(mapping(item, "spec", "template", "spec"), projects, own)
        elif is_told(item, "Application"):
            found = _of_application(mapping(item, "spec"), projects, own)
            if item in alone and staged and environment != STAGING:
                found = chain(found, [f"nothing keeps it behind {STAGING}, as a step of an ApplicationSet would"])
        for complaint in found:
            yield refuse("argocd", f"{name_of(item)}: {complaint}", f"take it as {FOLDER} of Mergeline has it")


def _is_open(item: Object) -> bool:
    """Whether a Secret tells Argo CD of a repository, and no way to get in: others it is not told of at all."""
    kind, said = mapping(item, "metadata", "labels").get(_SECRET_TYPE), mapping(item, "stringData")
    return item["kind"] == "Secret" and kind == "repository" and not item.get("data") and said.keys() <= _OPEN


def _is_of(item: Object, environment: str) -> bool:
    """Whether it is an Application of an environment, which no ApplicationSet made."""
    paths = (str(source.get("path")).strip("/") for source in sources_of(mapping(item, "spec")))
    return is_told(item, "Application") and f"{ENVIRONMENTS}/{environment}" in paths


def _of_project(project: Object, namespaces: Sequence[str]) -> Iterator[str]:
    if any(_ALL.match(str(pattern)) for pattern in at(project, "spec", "sourceRepos") or ()):
        yield "spec.sourceRepos takes every repository"
    places = dicts(project, "spec", "destinations")
    if any(fnmatchcase("kube-system", str(place.get("namespace"))) for place in places):
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
    if not lists_kinds(project):
        for group, kind in _BARRED:
            if not is_listed(project, "namespaceResourceBlacklist", group, kind):
                yield f"spec.namespaceResourceBlacklist takes the kind {kind}, which no merge should bring"


def _windows(project: Object) -> Iterator[str]:
    for window in dicts(project, "spec", "syncWindows"):
        if window.get("kind") not in ("allow", "deny"):
            yield f"a window of spec.syncWindows is of the kind {window.get('kind')}, which is neither allow nor deny"
        if obstacle := cron.obstacle(str(window.get("schedule"))):
            yield f"spec.syncWindows: {obstacle}"


def _signatures(project: Object) -> Iterator[Finding]:
    for path, text in texts(at(project, "spec", "sourceIntegrity"), "spec.sourceIntegrity"):
        if text == _NO_KEY:
            found = f"{name_of(project)}: {path} is the key that stands for none: Argo CD would sync no commit"
            yield refuse("argocd", found, "name yours, by a patch of the same path or in components/signed-commits")


def _of_set(item: Object, projects: Mapping[str, Object], environment: str, *, staged: bool) -> Iterator[str]:
    template = mapping(item, "spec", "template")
    spec = mapping(template, "spec")
    project = NAME.sub(environment, str(spec.get("project")))
    if projects and project not in projects and "{{" not in project:
        yield f"its project {project} is none of {', '.join(projects)}"
    yield from _of_application(spec, projects, {source.get("repoURL") for source in sources_of(spec)})
    steps = dicts(item, "spec", "strategy", "rollingSync", "steps")
    labels = {key: str(label) for key, label in mapping(template, "metadata", "labels").items()}
    first, here = (
        _step(steps, {key: NAME.sub(name, label) for key, label in labels.items()}) for name in (STAGING, environment)
    )
    is_known = not any("{{" in NAME.sub("", label) for label in labels.values())
    if at(item, "spec", "strategy", "type") != "RollingSync" or (is_known and here is None):
        yield f"`strategy` has no step of a RollingSync that takes {environment} by its labels"
    elif is_known and here is not None and staged and environment != STAGING and (first is None or first >= here):
        yield f"`strategy` takes {environment} no later than {STAGING}"
    for generator in dicts(item, "spec", "generators"):
        revision = at(generator, "git", "revision")
        applied = [str(source.get("targetRevision")) for source in sources_of(spec)]
        are_said = not any(one in ("HEAD", "None") or "{{" in one for one in (str(revision), *applied))
        if revision and are_said and str(revision) not in applied:
            yield f"it looks for environments at {revision}, and applies {', '.join(applied)}"
    for _, path in _ignored(spec):
        if not path.endswith("replicas"):
            yield f"`ignoreDifferences` leaves out {path}, so that a commit that changes it counts as synced"
    makes = "CreateNamespace=true" in (at(spec, "syncPolicy", "syncOptions") or ())
    level = at(spec, "syncPolicy", "managedNamespaceMetadata", "labels", pod_security.LEVEL)
    if makes and level != "restricted":
        yield f"the namespaces that it makes have {pod_security.LEVEL}: {level}, and not restricted"


def _step(steps: Sequence[Object], labels: Mapping[str, str]) -> int | None:
    """The first step that takes an Application of these labels."""
    for index, step in enumerate(steps):
        if all(
            (labels.get(str(found.get("key"))) in (found.get("values") or ())) == (found.get("operator") == "In")
            for found in dicts(step, "matchExpressions")
        ):
            return index
    return None


def _of_application(spec: Mapping[str, Any], projects: Mapping[str, Object], own: set[Any]) -> Iterator[str]:
    options = at(spec, "syncPolicy", "syncOptions") or ()
    is_own = any(source.get("repoURL") in own for source in sources_of(spec))
    is_large = is_own or any(source.get("chart") in _LARGE for source in sources_of(spec))
    if is_large and _NEEDED not in options:
        yield f"`syncOptions` lacks {_NEEDED}: what it applies is larger than an annotation may be"
    for option in options:
        if option in _HARMFUL and (is_own or option != _REPLACING):
            yield f"`syncOptions` has {option}, which {_HARMFUL[option]}"
    applied = (path for kind, path in _ignored(spec) if not (is_own and kind == _MADE))
    lists = filter(_INTO_A_LIST.search, applied)
    if _RESPECTFUL in options and (path := next(lists, None)):
        whole = "takes the whole list from what runs, so that no change of it comes (argo-cd#17694)"
        yield f"`syncOptions` has {_RESPECTFUL}, and `ignoreDifferences` has {path}: Argo CD {whole}"
    for source in sources_of(spec):
        revision = str(source.get("targetRevision") or "")
        if source.get("repoURL") not in own and _MOVING.match(revision):
            yield f"targetRevision {revision!r} is another one tomorrow; name a release"
        project, url = projects.get(str(spec.get("project"))), source.get("repoURL")
        if project and isinstance(url, str) and not _takes(project, url):
            yield f"its {name_of(project)} does not take the repository {url}: Argo CD would apply nothing of it"


def _ignored(spec: Mapping[str, Any]) -> Iterator[tuple[tuple[Any, Any], str]]:
    """The paths in which an Application may differ from what Git says, each with the group and kind that it is for."""
    for entry in dicts(spec, "ignoreDifferences"):
        for path in (*(entry.get("jqPathExpressions") or ()), *(entry.get("jsonPointers") or ())):
            yield (entry.get("group"), entry.get("kind")), str(path)


def _takes(project: Object, url: str) -> bool:
    """Whether a project takes a repository; one of templates, or of patterns that are not ours, is taken."""
    patterns = [str(pattern) for pattern in at(project, "spec", "sourceRepos") or ()]
    unknown = "{{" in url or any(letter in pattern for pattern in patterns for letter in "!{[")
    return unknown or any(fnmatchcase(_plain(url), _plain(pattern)) for pattern in patterns)


def _plain(url: str) -> str:
    """The URL of a repository as Argo CD compares it."""
    lower = url.strip().lower()
    host_and_path = lower if "://" in lower or "@" not in lower else lower.replace(":", "/", 1)
    return host_and_path.removesuffix(".git").removeprefix("ssh://")
