"""Whether Argo CD would take an environment's objects: by the AppProject and the ApplicationSet of the same tree."""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from gitops import bounded_yaml
from gitops.findings import Finding, refuse
from gitops.objects import Object, at, dicts, group_of, name_of

FOLDER = "gitops/argocd/"
"""Where a repository keeps what Argo CD is told. One without it is not asked for what stands there."""
_NAME = re.compile(r"\{\{\s*\.path\.basename\s*\}\}")


def refusals(objects: Sequence[Object], files: Mapping[str, str], environment: str) -> Iterator[Finding]:
    """What keeps Argo CD from applying objects, or lets it apply them somewhere else.

    Args:
        objects: of the environment.
        files: the tree's, as `overlay.files_at` returns them.
        environment: its name.

    Raises:
        ContractError: a file for Argo CD cannot be read.
    """
    told = list(_told(files))
    projects = [item for item in told if item.get("kind") == "AppProject"]
    namespaces = [
        _NAME.sub(environment, str(namespace))
        for item in told
        if item.get("kind") == "ApplicationSet"
        and (namespace := at(item, "spec", "template", "spec", "destination", "namespace"))
    ]
    for item in objects:
        of_cluster = any(_is_in(item, project, "clusterResourceWhitelist") for project in projects)
        if projects and not of_cluster and not any(_is_in(item, one, "namespaceResourceWhitelist") for one in projects):
            found = f"{name_of(item)}: the AppProject takes no {item['kind']} of the group {group_of(item)!r}"
            yield refuse("argocd", found, f"take it out, or add it to `namespaceResourceWhitelist` in {FOLDER}")
        namespace = at(item, "metadata", "namespace")
        if namespaces and not of_cluster and namespace not in namespaces:
            found = f"{name_of(item)} is of the namespace {namespace}, and {environment} goes to {namespaces[0]}"
            yield refuse("argocd", found, f"`namespace: {namespaces[0]}` in the overlay's kustomization.yaml")


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
