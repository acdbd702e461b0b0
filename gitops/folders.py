"""Whether Ray's pods have mounted what an application reads and writes, and whether what is kept outlives them."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Any
from urllib.parse import urlsplit

from gitops.environment import BUILDERS
from gitops.findings import Finding, refuse
from gitops.objects import Object, at, dicts, mapping, mappings, name_of, ray_groups

# Arguments of our applications that name folders: what nobody could get again, and what can be fetched again.
_KEPT, _FETCHED = ("feedback", "windows"), ("cache",)
_TMP = "/tmp"  # noqa: S108 - where Ray keeps its sessions
# Sources of volumes that go with their pod, and that nobody can write to; of `csi` only the driver knows.
_PASSING = {"emptyDir", "ephemeral"}
_READ_ONLY = {"configMap", "secret", "projected", "downwardAPI", "image"}


def refusals(objects: Sequence[Object], config: Mapping[str, Any]) -> Iterator[Finding]:
    """Folders that are not there, cannot be written to, or go with their pod.

    Args:
        objects: of an environment.
        config: its Serve configuration.
    """
    services = [item for item in objects if item["kind"] == "RayService"]
    yield from _bundles(services, config)
    yield from _folders(services, config)


def _bundles(services: Sequence[Object], config: Mapping[str, Any]) -> Iterator[Finding]:
    """A bundle in a folder is one that every worker has mounted."""
    for path, model in mappings(config):
        uri = model.get("uri")
        if "sha256" not in model or not isinstance(uri, str) or not uri.startswith("file:"):
            continue
        for item in services:
            for group, spec in ray_groups(item):
                if not _has_no_cpus(spec) and not _mounts_over(spec["template"]["spec"], _normal(urlsplit(uri).path)):
                    found = f"serve-config.yaml: {path}.uri is {uri}, and in {name_of(item)}, {group}, nothing is there"
                    yield refuse("folder", found, "copy it to a store that every node can read (s3://, gs://, abfs://)")


def _folders(services: Sequence[Object], config: Mapping[str, Any]) -> Iterator[Finding]:
    """What an application writes has a volume in every pod that it may run in, which outlives the pod if it is kept."""
    for item in services:
        for group, spec in ray_groups(item):
            if obstacle := _obstacle(spec["template"]["spec"], _TMP, kept=False):
                found = f"{name_of(item)}, {group}: Ray writes to {_TMP}, and {obstacle}"
                yield refuse("folder", found, "mount an emptyDir there")
    for application in config.get("applications") or ():
        arguments = application.get("args")
        if application.get("import_path") not in BUILDERS or not isinstance(arguments, dict):
            continue  # its arguments are its own; or they are none, which the schema says
        named = {key: arguments[key] for key in (*_KEPT, *_FETCHED) if arguments.get(key)}
        for (key, folder), item in product(named.items(), services):
            for group, spec in ray_groups(item):
                if _has_no_cpus(spec) and not _runs_without_cpus(application):
                    continue
                if obstacle := _obstacle(spec["template"]["spec"], str(folder), kept=key in _KEPT):
                    where = f"serve-config.yaml: {application.get('name')}: args.{key} is {folder}"
                    found = f"{where}, and in {name_of(item)}, {group}, {obstacle}"
                    yield refuse("folder", found, "mount a volume there, or name a folder on one")


def _has_no_cpus(group: Mapping[str, Any]) -> bool:
    return str(at(group, "rayStartParams", "num-cpus")) == "0"


def _runs_without_cpus(application: Mapping[str, Any]) -> bool:
    """Whether Ray may place one of the deployments where there are no CPUs; the monitor is one that asks for none."""
    options = [mapping(found, "ray_actor_options") for found in dicts(application, "deployments")]
    return bool(application["args"].get("windows")) or any(found.get("num_cpus") == 0 for found in options)


def _obstacle(pod: Mapping[str, Any], folder: str, *, kept: bool) -> str:
    """Why Ray's container cannot write into a folder, or not for long; empty if it can, or if nobody knows."""
    container = pod["containers"][0]
    if folder.startswith("~"):
        home = next((found.get("value") for found in dicts(container, "env") if found.get("name") == "HOME"), None)
        folder = f"{home or ''}{folder[1:]}"
    place = _normal(folder)
    if not place.is_absolute():
        return ""
    over = _mounts_over(pod, place)
    if not over:
        read_only = at(container, "securityContext", "readOnlyRootFilesystem")
        if kept or read_only:
            return "no volume is mounted there" + (": the root file system is read-only" if read_only else "")
        return ""
    mount = max(over, key=lambda found: len(found[0].parts))[1]  # it hides those above it
    name = mount.get("name")
    volume: Mapping[str, Any] = next((found for found in dicts(pod, "volumes") if found.get("name") == name), {})
    read_only = any(at(volume, source, "readOnly") for source in ("persistentVolumeClaim", "csi"))
    if mount.get("readOnly") or read_only or _READ_ONLY & volume.keys():
        return f"the volume {name} is mounted there to be read only"
    if kept and (_PASSING & volume.keys() or volume.keys() <= {"name"}):  # without a source it is an emptyDir
        return f"the volume {name} ends with the pod"
    return ""


def _mounts_over(pod: Mapping[str, Any], place: PurePosixPath) -> list[tuple[PurePosixPath, dict[str, Any]]]:
    """What Ray's container has mounted at a place or above it, with where."""
    mounts = [(_normal(str(found.get("mountPath"))), found) for found in dicts(pod["containers"][0], "volumeMounts")]
    return [(path, found) for path, found in mounts if place.is_relative_to(path)]


def _normal(path: str) -> PurePosixPath:
    """The path without `..`, and with one slash at its beginning."""
    return PurePosixPath(normpath(path).replace("//", "/"))
