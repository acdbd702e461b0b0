"""Renders an environment's overlay with the real kustomize, which kubectl carries."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from posixpath import normpath
from typing import Any

from gitops import bounded_yaml
from gitops.errors import ContractError, MergelineError
from gitops.layout import ENVIRONMENTS
from gitops.objects import at, dicts, mapping, texts

FOLDERS = ("gitops", "monitoring")
"""What an overlay may refer to, below the repository's root."""
_NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
# The fields of a kustomization that name files or folders, and those that name files only.
_MADE_OF = ("resources", "components", "bases", "generators", "transformers", "validators", "configurations", "crds")
_FILE_FIELDS = ("path", "files", "envs", "env", "patchesStrategicMerge")
_IDENTITY = (("apiVersion",), ("kind",), ("metadata", "name"))
_SECONDS = 120
_HASH = re.compile(r"-[a-z0-9]{10}\Z")
"""Behind the name of what a generator made; a patch is for the name before it."""
_LOGGED = re.compile(r'[EF]\d{4} [\d:.]+ +\d+ \S+\] "command failed" err=')
_SCRATCH = re.compile(r"(/private)?/\S*?mergeline-overlay-[^/\s'\"]+/")


def overlay_path(environment: str) -> str:
    """Where an environment for a cluster says what it is made of."""
    return f"{ENVIRONMENTS}/{environment}/kustomization.yaml"


def render(files: Mapping[str, str], environment: str) -> list[dict[str, Any]]:
    """The objects of an environment, in kustomize's order.

    Args:
        files: paths and texts of a repository, of FOLDERS at least.
        environment: which one.

    Raises:
        ContractError: there is no overlay, or kustomize cannot render it; its own words are the message.
        MergelineError: there is no kubectl.
    """
    if overlay_path(environment) not in files:
        raise ContractError(f"{overlay_path(environment)} is missing: {environment} is no environment for a cluster")
    _mind_what_is_elsewhere(files, f"{ENVIRONMENTS}/{environment}", set())
    with tempfile.TemporaryDirectory(prefix="mergeline-overlay-") as folder:
        for path, text in files.items():
            target = Path(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        rendered = _kustomize(Path(folder, ENVIRONMENTS, environment))
    objects = [item for item in bounded_yaml.load_all(rendered, f"what {environment} renders") if item is not None]
    if not objects:
        raise ContractError(f"{overlay_path(environment)} renders no object: name ../../base among its resources")
    for item in objects:
        if missing := [".".join(way) for way in _IDENTITY if not isinstance(at(item, *way), str) or not at(item, *way)]:
            raise ContractError(
                f"{overlay_path(environment)} renders an object without {', '.join(missing)}: {str(item)[:200]}"
            )
    return objects


def _mind_what_is_elsewhere(files: Mapping[str, str], folder: str, seen: set[str]) -> None:
    """Refuse what a folder is made of if it is not in the repository: tomorrow it would be something else."""
    found = next((path for name in _NAMES if (path := f"{folder}/{name}") in files), None)
    if found is None or folder in seen:
        return
    seen.add(folder)
    document = bounded_yaml.load(files[found], found)
    for field in _MADE_OF:
        entries = at(document, field)
        for entry in entries if isinstance(entries, list) else ():
            if not isinstance(entry, str) or "\n" in entry:  # some may stand there as they are
                continue
            target = normpath(f"{folder}/{entry}")
            if target in files:
                continue
            if not any(f"{target}/{name}" in files for name in _NAMES):
                raise ContractError(f"{found}: `{field}` names {entry}, and {target} is not in this repository as text")
            _mind_what_is_elsewhere(files, target, seen)
    for path, text in texts(document):
        steps = path.split(".")
        if (steps[-1] in _FILE_FIELDS or (steps[-2:-1] and steps[-2] in _FILE_FIELDS)) and "://" in text:
            raise ContractError(f"{found}: {path} names {text}, which is not in this repository")


def mind_targets(files: Mapping[str, str], environment: str, objects: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a patch of the overlay for an object of another name, or a kind of none: kustomize does nothing with it.

    One for a kind that is not there may stay: that of a component which was left out.

    Args:
        files: what `render` got.
        environment: which one.
        objects: what `render` returned.

    Raises:
        ContractError: there is such a patch.
    """
    document = bounded_yaml.load(files[overlay_path(environment)], overlay_path(environment))
    if at(document, "namePrefix") or at(document, "nameSuffix"):  # targets have the names before that
        return
    for index, patch in enumerate(dicts(document, "patches")):
        target = mapping(patch, "target")
        if not target.keys() & {"kind", "name"} or "$patch: delete" in str(patch.get("patch")):
            continue
        try:
            kind, name = (re.compile(str(target.get(key, ".*"))) for key in ("kind", "name"))
        except re.error:  # Go's take what these do not
            continue
        names = [item["metadata"]["name"] for item in objects if kind.fullmatch(item["kind"])]
        left_out = not names and any(
            kind.fullmatch(found) for text in files.values() for found in re.findall(r"(?m)^kind: (.*)$", text)
        )
        if not left_out and not any(name.fullmatch(found) or name.fullmatch(_HASH.sub("", found)) for found in names):
            named = " ".join(str(target[key]) for key in ("kind", "name") if key in target)
            raise ContractError(
                f"{overlay_path(environment)}: patches.{index} is for {named}, which is not there: it changes nothing"
            )


def search_path() -> str:
    """Where kubectl is looked for: beside this Python first, where `make kubectl` puts it."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def _kustomize(folder: Path) -> str:
    kubectl = shutil.which("kubectl", path=search_path())
    if kubectl is None:
        raise MergelineError("the command kubectl was not found: install it, or run `make kubectl`")
    try:
        done = subprocess.run(
            [kubectl, "kustomize", str(folder)], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ContractError(f"kustomize did not finish in {_SECONDS} s; does the overlay name a URL?") from error
    if done.returncode:
        raise ContractError(_SCRATCH.sub("", words_of(done.stderr)))
    return done.stdout


def words_of(printed: str) -> str:
    """What kubectl printed on its standard error, without what its log puts around it."""
    text = printed.strip().removeprefix("error: ")
    if not (logged := _LOGGED.match(text)):
        return text
    text = text[logged.end() :]
    if text.startswith("<"):  # of several lines, each with a tab before it
        return "\n".join(line.removeprefix("\t") for line in text.strip("<> \n").splitlines())
    try:
        return str(json.loads(text))
    except ValueError:
        return text
