"""Renders what lies in a repository with the real kustomize, which kubectl carries: an environment's overlay, say."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from posixpath import normpath
from typing import Any

from gitops import bounded_yaml
from gitops.errors import ContractError, MergelineError, NotHereError
from gitops.layout import ENVIRONMENTS
from gitops.objects import at, dicts, mapping, texts

FOLDERS = ("gitops", "monitoring")
"""What an overlay may refer to, below the repository's root."""
_NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
# The fields of a kustomization that name files or folders, and those that name files only.
_MADE_OF = ("resources", "components", "bases", "generators", "transformers", "validators", "configurations", "crds")
_FILE_FIELDS = ("path", "files", "envs", "env", "patchesStrategicMerge")
IDENTITY = (("apiVersion",), ("kind",), ("metadata", "name"))
_SECONDS = 120
_HASH = re.compile(r"-[a-z0-9]{10}\Z")
"""Behind the name of what a generator made; a patch is for the name before it."""
_LOGGED = re.compile(r'[EF]\d{4} [\d:.]+ +\d+ \S+\] "command failed" err=')
_ELSEWHERE = re.compile(r"://|\Agit(@|::)|\Agithub\.com[/:]|[?&](ref|version)=")
"""What kustomize fetches, among the names of files and folders."""
_OPTIONS = re.compile(r"must specify --enable-|plugins disabled")
"""How it says that it would do more with an option, as Argo CD can have it in `kustomize.buildOptions`."""
_KIND, _NAMED = re.compile(r"(?m)^kind: (.*)$"), re.compile(r"\bname: *[\"']?([\w.-]+)")
"""As somebody writes an object down."""
_SCRATCH = re.compile(r"(/private)?/\S*?mergeline-overlay-[^/\s'\"]+/")


def overlay_path(environment: str) -> str:
    """Where an environment for a cluster says what it is made of."""
    return f"{ENVIRONMENTS}/{environment}/kustomization.yaml"


def path_in(files: Mapping[str, str], folder: str) -> str | None:
    """The kustomization of a folder; None: it has none."""
    return next((path for name in _NAMES if (path := f"{folder}/{name}") in files), None)


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
    return render_folder(files, f"{ENVIRONMENTS}/{environment}")


def render_folder(files: Mapping[str, str], folder: str) -> list[dict[str, Any]]:
    """The objects that a folder's kustomization makes, in kustomize's order.

    Args:
        files: paths and texts of a repository, of FOLDERS at least.
        folder: which one; it has a kustomization.

    Raises:
        ContractError: kustomize cannot render it; its own words are the message.
        NotHereError: it cannot do so here.
        MergelineError: there is no kubectl.
    """
    where, folders = path_in(files, folder), set[str]()
    _mind_what_is_elsewhere(files, folder, folders)
    within = tuple(f"{one}/" for one in folders)  # kustomize reads no file of other folders
    rendered = _rendered(folder, tuple(sorted(item for item in files.items() if item[0].startswith(within))))
    objects = [item for item in bounded_yaml.load_all(rendered, f"what {folder} renders") if item is not None]
    if not objects:
        raise ContractError(f"{where} renders no object: name what it is made of among its `resources`")
    for item in objects:
        if missing := [".".join(way) for way in IDENTITY if not isinstance(at(item, *way), str) or not at(item, *way)]:
            raise ContractError(f"{where} renders an object without {', '.join(missing)}: {str(item)[:200]}")
    return objects


@lru_cache(maxsize=2)
def _rendered(folder: str, files: tuple[tuple[str, str], ...]) -> str:
    """What kustomize prints; kept, because what Argo CD is told is the same for all environments."""
    with tempfile.TemporaryDirectory(prefix="mergeline-overlay-") as scratch:
        for path, text in files:
            target = Path(scratch, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        return _kustomize(Path(scratch, folder))


def _mind_what_is_elsewhere(files: Mapping[str, str], folder: str, seen: set[str]) -> None:
    """Refuse what a folder is made of if it is not in the repository: tomorrow it would be something else."""
    found = path_in(files, folder)
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
            if path_in(files, target) is None:
                beyond = _ELSEWHERE.search(entry) or target.partition("/")[0] not in FOLDERS
                error = NotHereError if beyond else ContractError
                raise error(f"{found}: `{field}` names {entry}, and {target} is not in this repository as text")
            _mind_what_is_elsewhere(files, target, seen)
    for path, text in texts(document):
        steps = path.split(".")
        if (steps[-1] in _FILE_FIELDS or (steps[-2:-1] and steps[-2] in _FILE_FIELDS)) and "://" in text:
            raise NotHereError(f"{found}: {path} names {text}, which is not in this repository")


def mind_targets(files: Mapping[str, str], folder: str, objects: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a patch for an object of another name, or a kind of none: kustomize does nothing with it.

    One for a kind that is not there may stay: that of a component which was left out. A component's may also be for
    what other folders make, or for what was renamed or deleted behind it.

    Args:
        files: what `render_folder` got.
        folder: which one; asked are its patches, and those of the components that it names.
        objects: what `render_folder` returned.

    Raises:
        ContractError: there is such a patch.
    """
    affixes = _affixes(files, folder)
    there = [(item["kind"], name) for item in objects for name in _names(item["metadata"]["name"], affixes)]
    for one in _with_components(files, folder):
        path = path_in(files, one)
        document = bounded_yaml.load(files[path], path) if path else None
        for index, patch in enumerate(dicts(document, "patches")):
            target = {key: str(mapping(patch, "target")[key]) for key in ("kind", "name") if at(patch, "target", key)}
            if not target or "$patch: delete" in str(patch.get("patch")):
                continue
            if not _is_for_something(target, there, list(files.values()), is_own=one == folder):
                named = " ".join(target.values())
                raise ContractError(f"{path}: patches.{index} is for {named}, which is not there: it changes nothing")


def _affixes(files: Mapping[str, str], folder: str) -> list[tuple[str, str]]:
    """What a folder, and each that it is made of, puts before names and behind them."""
    folders = set[str]()
    _mind_what_is_elsewhere(files, folder, folders)
    documents = [bounded_yaml.load(files[path], path) for one in folders if (path := path_in(files, one))]
    both = ((str(at(found, "namePrefix") or ""), str(at(found, "nameSuffix") or "")) for found in documents)
    return [found for found in both if any(found)]


def _names(name: str, affixes: Sequence[tuple[str, str]]) -> list[str]:
    """A name, and those that it may have had before something was put around it, by which a patch finds it too."""
    names = [name]
    for one in names:  # which grows meanwhile
        for prefix, suffix in affixes:
            if (before := one.removeprefix(prefix).removesuffix(suffix)) not in names:
                names.append(before)
    return names


def _is_for_something(
    target: Mapping[str, str], there: Sequence[tuple[str, str]], said: Sequence[str], *, is_own: bool
) -> bool:
    """Whether a patch finds one of the objects that are there, by kind and name, or may stay without."""
    try:
        kind, name = (re.compile(target.get(key, ".*")) for key in ("kind", "name"))
    except re.error:  # Go's take what these do not
        return True
    names = [found for of_kind, found in there if kind.fullmatch(of_kind)]
    if any(name.fullmatch(found) or name.fullmatch(_HASH.sub("", found)) for found in names):
        return True
    written = [text for text in said if any(map(kind.fullmatch, _KIND.findall(text)))]
    if not names:
        return bool(written)
    return not is_own and any(name.fullmatch(found) for text in written for found in _NAMED.findall(text))


def _with_components(files: Mapping[str, str], folder: str) -> list[str]:
    """The folders whose patches are for what a folder renders: its own, and those of its components."""
    folders = [folder]
    for one in folders:  # which grows meanwhile
        named = at(bounded_yaml.load(files[path], path), "components") if (path := path_in(files, one)) else None
        entries = named if isinstance(named, list) else ()
        folders += [found for entry in entries if (found := normpath(f"{one}/{entry}")) not in folders]
    return folders


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
        said = _SCRATCH.sub("", words_of(done.stderr))
        raise NotHereError(said) if _OPTIONS.search(said) else ContractError(said)
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
