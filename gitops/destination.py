"""Whether Argo CD would take an environment's objects, and apply them where they belong: by what the same tree says."""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from gitops import bounded_yaml, kustomize
from gitops.errors import NotHereError
from gitops.findings import Finding, refuse, skip
from gitops.layout import ENVIRONMENTS
from gitops.objects import Object, at, dicts, group_of, mapping, name_of, texts

FOLDER = "gitops/argocd"
"""Where a repository keeps what Argo CD is told. One without it is not asked for what stands there."""
NO_REPOSITORY = "https://github.com/OWNER/REPOSITORY.git"
"""Stands in the packaged folder for a repository that nobody has yet."""
_GROUP = "argoproj.io"
NAME = re.compile(r"\{\{\s*\.?path\.basename\s*\}\}")
"""Where an ApplicationSet puts an environment's name."""
_TEMPLATE = re.compile(r"\{\{[^}]*\}\}")
"""Where it puts something, which may be that too."""


def told(files: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[Finding]]:
    """What Argo CD is told, each with version, kind and name, as kustomize renders it; and what is to be said of that.

    Args:
        files: the tree's, as `overlay.files_at` returns them.

    Raises:
        ContractError: a file for Argo CD cannot be read, or the folder not be rendered.
    """
    if kustomize.path_in(files, FOLDER) is None:
        written = _written(files)
        return written, list(_without_repository(written))
    try:
        rendered = kustomize.render_folder(files, FOLDER)
    except NotHereError as error:
        found = f"what {FOLDER} makes was not rendered ({error}): its files were judged, and no patch or replacement"
        return _written(files), [skip("argocd", found, f"look at what `kustomize build {FOLDER}` prints")]
    kustomize.mind_targets(files, FOLDER, rendered)
    return rendered, list(_without_repository(rendered))


def _written(files: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        document
        for path, text in files.items()
        if path.startswith(f"{FOLDER}/") and path.endswith((".yaml", ".yml"))
        for document in bounded_yaml.load_all(text, path)
        if all(isinstance(at(document, *way), str) and at(document, *way) for way in kustomize.IDENTITY)
    ]


def refusals(objects: Sequence[Object], found_in_tree: Sequence[Object], environment: str) -> Iterator[Finding]:
    """What keeps Argo CD from applying objects, or lets it apply them somewhere else.

    Args:
        objects: of the environment.
        found_in_tree: what `told` returns.
        environment: its name.
    """
    projects = projects_of(found_in_tree, environment)
    namespaces = namespaces_of(found_in_tree, environment)
    for item in objects:
        of_cluster = any(_is_in(item, project, "clusterResourceWhitelist") for project in projects)
        if projects and not of_cluster and not any(_takes(project, item) for project in projects):
            found = f"{name_of(item)}: the AppProject takes no {item['kind']} of the group {group_of(item)!r}"
            yield refuse("argocd", found, f"take it out, or add it to `namespaceResourceWhitelist` in {FOLDER}")
        namespace = at(item, "metadata", "namespace")
        if namespaces and not of_cluster and namespace not in namespaces:
            found = f"{name_of(item)} is of the namespace {namespace}, and {environment} goes to {namespaces[0]}"
            yield refuse("argocd", found, f"`namespace: {namespaces[0]}` in the overlay's kustomization.yaml")


def _without_repository(found_in_tree: Sequence[Object]) -> Iterator[Finding]:
    """The template's URL stands everywhere until somebody writes theirs, and nowhere from then on."""
    sets = [mapping(item, "spec", "template", "spec") for item in found_in_tree if is_of_environments(item)]
    own = {source.get("repoURL") for spec in sets for source in sources_of(spec)}
    remedy = f"write the repository's URL into {FOLDER}/kustomization.yaml, from where `replacements` take it"
    if NO_REPOSITORY in own:
        found = f"Argo CD is told of no repository yet: {FOLDER} names {NO_REPOSITORY}"
        yield skip("argocd", found, f"{remedy}, if Argo CD is to be told by it")
        return
    for item in found_in_tree if own else ():
        for path in (path for path, text in texts(item) if text == NO_REPOSITORY):
            found = f"{name_of(item)}: {path} is still {NO_REPOSITORY}, which stands for none"
            yield refuse("argocd", found, f"{remedy}, if this place is named there")


def projects_of(found_in_tree: Sequence[Object], environment: str) -> list[Object]:
    """Those that an environment is in; a team may have others, for operators say. All, where that is not known."""
    projects = [item for item in found_in_tree if is_told(item, "AppProject")]
    asked = {
        template.sub(environment, str(at(item, "spec", "template", "spec", "project")))
        for item in found_in_tree
        if is_of_environments(item)
        for template in (NAME, _TEMPLATE)
    }
    return [item for item in projects if item["metadata"]["name"] in asked] or projects


def is_told(item: Mapping[str, Any], kind: str) -> bool:
    """Whether it is of a kind of Argo CD's own."""
    return item["kind"] == kind and group_of(item) == _GROUP


def is_of_environments(item: Mapping[str, Any]) -> bool:
    """Whether it makes the Applications of environments: a team may have others, of what is none of ours."""
    folder = f"{ENVIRONMENTS}/"
    places = (text for path, text in texts(item) if path.endswith("path"))
    return is_told(item, "ApplicationSet") and any(folder in place for place in places)


def namespaces_of(found: Sequence[Mapping[str, Any]], environment: str) -> list[str]:
    """Those that an environment may go to, as far as they are said."""
    places = (
        at(item, "spec", "template", "spec", "destination", "namespace") for item in found if is_of_environments(item)
    )
    return [name for place in places if place and "{{" not in (name := NAME.sub(environment, str(place)))]


def sources_of(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What an Application of this `spec` applies; where that is rendered into a branch first, what it is made of."""
    return dicts(spec, "sources") or [mapping(spec, "source") or mapping(spec, "sourceHydrator", "drySource")]


def _takes(project: Object, item: Object) -> bool:
    """Whether a project takes an object into a namespace."""
    is_listed = (
        _is_in(item, project, "namespaceResourceWhitelist")
        if lists_kinds(project)
        else at(item, "metadata", "namespace") is not None
    )
    return is_listed and not _is_in(item, project, "namespaceResourceBlacklist")


def lists_kinds(project: Object) -> bool:
    """Whether a project says which kinds it takes into a namespace; else it takes all but those that it refuses."""
    return at(project, "spec", "namespaceResourceWhitelist") is not None


def _is_in(item: Object, project: Object, key: str) -> bool:
    return is_listed(project, key, group_of(item), item["kind"], item["metadata"]["name"])


def is_listed(project: Object, key: str, group: str, kind: str, name: str = "") -> bool:
    """Whether a list of kinds in a project has a kind, as far as the list does not say names."""
    return any(
        fnmatchcase(group, str(entry.get("group", "")))
        and fnmatchcase(kind, str(entry.get("kind", "")))
        and fnmatchcase(name, str(entry.get("name", "*")))
        for entry in dicts(project, "spec", key)
    )
