"""What we ask of an environment's objects beyond their schemas: pure functions of what kustomize rendered."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import PurePosixPath
from typing import Any

from gitops.environment import BUILDERS, DEFAULT_GRPC_PORT
from gitops.findings import Finding, accept, refuse

PRODUCTION = "production"
"""The environment in which code comes from the image alone."""
UPGRADES = ("NewCluster", "NewClusterWithIncrementalUpgrade", "None")
"""What KubeRay 1.7 knows as `upgradeStrategy.type`; the API server takes any text there."""
NO_DIGEST = "0" * 64
"""Stands in the packaged overlays for an image that nobody has built yet."""

_DIGEST = re.compile(r"@sha256:([0-9a-f]{64})\Z")
_TAG = re.compile(r":([^:/@]+)(?:@|\Z)")
_SECRET_NAME = re.compile(r"(?i)(password|passwd|token|secret|credentials?|(access|api|private|secret)_?key(_id)?)\Z")
_LIMITS = ("cpu", "memory")
# Arguments of our applications that name folders: what nobody could get again, and what can be fetched again.
_KEPT, _FETCHED = ("feedback", "windows"), ("cache",)


def check(objects: Sequence[Mapping[str, Any]], config: Mapping[str, Any], environment: str) -> list[Finding]:
    """Every policy's finding.

    Args:
        objects: of the environment.
        config: the Serve configuration in them.
        environment: its name.
    """
    refused = [
        *refusals(objects),
        *_secrets_in(config, "serve-config.yaml"),
        *(_working_dirs(config) if environment == PRODUCTION else ()),
        *_http(objects, config),
        *_folders(objects, config),
    ]
    found = "images by digest, limits, no secret, a known upgrade strategy, folders on volumes"
    return refused or [accept("policies", found)]


def refusals(objects: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """What stands against objects, whatever they are for."""
    asked = (_images, _limits, _secrets, _upgrade)
    return [finding for item in objects for policy in asked for finding in policy(item)]


def name_of(item: Mapping[str, Any]) -> str:
    """An object as errors name it."""
    return f"{item['kind']} {item['metadata']['name']}"


def _images(item: Mapping[str, Any]) -> Iterator[Finding]:
    """An image is what its digest says; a tag can be moved, and `latest` always is."""
    remedy = "name it by digest, under `images:` in the overlay's kustomization.yaml"
    for path, mapping in _mappings(item):
        image = mapping.get("image")
        if not isinstance(image, str):
            continue
        where = f"{name_of(item)}: {path}: the image {image}"
        tag, digest = _TAG.search(image), _DIGEST.search(image)
        if (tag is None and digest is None) or (tag and tag[1] == "latest"):
            yield refuse("image", f"{where} is `latest`, which is another one tomorrow", remedy)
        elif digest is None:
            yield refuse("image", f"{where} has no digest", remedy)
        elif digest[1] == NO_DIGEST:
            yield refuse("image", f"{where} has the digest that stands for none yet", remedy)


def _limits(item: Mapping[str, Any]) -> Iterator[Finding]:
    """Ray takes its CPUs and memory from the limits, and a container without them may take its node's."""
    for path, mapping in _mappings(item):
        containers = (*(mapping.get("containers") or ()), *(mapping.get("initContainers") or ()))
        for container in containers:
            if not isinstance(container, dict):
                continue
            limits = (container.get("resources") or {}).get("limits") or {}
            if missing := [limit for limit in _LIMITS if limit not in limits]:
                where = f"{name_of(item)}: {path}: container {container.get('name')}"
                yield refuse("limits", f"{where} has no limit of {' and '.join(missing)}", "give `resources.limits`")


def _secrets(item: Mapping[str, Any]) -> Iterator[Finding]:
    if item["kind"] == "Secret" and (item.get("data") or item.get("stringData")):
        remedy = "make it by hand, or let External Secrets or Sealed Secrets do it"
        yield refuse("secret", f"{name_of(item)} would lie in Git in clear (base64 hides nothing)", remedy)
    elif "Secret" not in item["kind"]:  # a SealedSecret or an ExternalSecret names keys, and holds no value in clear
        yield from _secrets_in(item, name_of(item))


def _secrets_in(value: Mapping[str, Any], source: str) -> Iterator[Finding]:
    """A value in clear under a name that says what it is: of a variable, or of a key."""
    for path, mapping in _mappings(value):
        named = {str(mapping.get("name")): mapping.get("value")}
        keys = {key: found.get("value") if isinstance(found, dict) else found for key, found in mapping.items()}
        for name, found in (named | keys).items():
            if isinstance(found, str) and found and _SECRET_NAME.search(str(name)):
                remedy = "take it from a Secret with `valueFrom.secretKeyRef`"
                yield refuse("secret", f"{source}: {path or 'the top level'}: {name} stands there in clear", remedy)


def _upgrade(item: Mapping[str, Any]) -> Iterator[Finding]:
    if item["kind"] != "RayService":
        return
    strategy = (item.get("spec") or {}).get("upgradeStrategy") or {}
    kind = strategy.get("type") or UPGRADES[0]
    if kind not in UPGRADES:
        found = f"{name_of(item)}: upgradeStrategy.type {kind!r} is none that KubeRay knows"
        yield refuse("upgrade", found, f"take one of {', '.join(UPGRADES)}")
    elif kind == UPGRADES[1] and not strategy.get("clusterUpgradeOptions"):
        found = f"{name_of(item)}: {kind} needs `clusterUpgradeOptions`"
        yield refuse("upgrade", found, "add the component incremental-upgrade")


def _working_dirs(config: Mapping[str, Any]) -> Iterator[Finding]:
    """Code that is fetched when a replica starts wins over the image's, without a word."""
    for path, mapping in _mappings(config):
        if "working_dir" in mapping:
            found = f"serve-config.yaml: {path}: `working_dir` wins over the code in the image"
            yield refuse("working-dir", found, "take it out, and build an image with that code")


def _http(objects: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> Iterator[Finding]:
    """Serve listens where KubeRay's Service sends requests to."""
    options = config.get("http_options") or {}
    host, port = options.get("host", "0.0.0.0"), options.get("port", 8000)  # noqa: S104 - Ray Serve's defaults
    if host in ("127.0.0.1", "localhost"):
        yield refuse("http", f"serve-config.yaml: Serve would listen on {host}, inside its pod only", "take 0.0.0.0")
    wanted = {"serve": ("http_options", port)}
    if (grpc := config.get("grpc_options") or {}).get("grpc_servicer_functions"):
        wanted["serve-grpc"] = ("grpc_options", grpc.get("port", DEFAULT_GRPC_PORT))
    for item in objects:
        if item["kind"] != "RayService":
            continue
        for group, pod in _ray_pods(item):
            container = pod["containers"][0]
            ports = {found.get("name"): found.get("containerPort") for found in container.get("ports") or ()}
            for name, (option, asked) in wanted.items():
                if ports.get(name) != asked:
                    there = f"the port `{name}` of {name_of(item)}, {group}, another one: {ports.get(name)}"
                    found = f"serve-config.yaml: {option}.port is {asked}, {there}"
                    yield refuse("http", found, "give both the same")


def _folders(objects: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> Iterator[Finding]:
    """What an application writes has a volume in every pod that it may run in, which outlives the pod if it is kept."""
    services = [item for item in objects if item["kind"] == "RayService"]
    for application in config.get("applications") or ():
        if application.get("import_path") not in BUILDERS:
            continue  # its arguments are its own
        arguments = application.get("args") or {}
        named = {key: arguments[key] for key in (*_KEPT, *_FETCHED) if arguments.get(key)}
        for (key, folder), item in product(named.items(), services):
            for group, pod in _ray_pods(item):
                if obstacle := _obstacle(pod, PurePosixPath(str(folder)), kept=key in _KEPT):
                    where = f"serve-config.yaml: {application.get('name')}: args.{key} is {folder}"
                    found = f"{where}, and in {name_of(item)}, {group}, {obstacle}"
                    yield refuse("folder", found, "mount a volume there in each group, or name a folder on one")


def _obstacle(pod: Mapping[str, Any], folder: PurePosixPath, *, kept: bool) -> str:
    """Why Ray's container cannot write into a folder, or not for long; empty if it can."""
    container = pod["containers"][0]
    over = [found for found in container.get("volumeMounts") or () if folder.is_relative_to(found.get("mountPath", ""))]
    if not over:
        read_only = (container.get("securityContext") or {}).get("readOnlyRootFilesystem")
        if kept or read_only:
            return "no volume is mounted there" + (": the root file system is read-only" if read_only else "")
        return ""
    mount = max(over, key=lambda found: len(PurePosixPath(found["mountPath"]).parts))  # it hides those above it
    if mount.get("readOnly"):
        return f"the volume {mount.get('name')} is mounted there to be read only"
    volumes = {found.get("name"): found for found in pod.get("volumes") or ()}
    if kept and "emptyDir" in volumes.get(mount.get("name"), {}):
        return f"the volume {mount.get('name')} ends with the pod"
    return ""


def _ray_pods(service: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The pods that Ray runs in, in each one's first container, by the group's name."""
    cluster = service["spec"]["rayClusterConfig"]
    yield "head", cluster["headGroupSpec"]["template"]["spec"]
    for group in cluster.get("workerGroupSpecs") or ():
        yield f"group {group.get('groupName')}", group["template"]["spec"]


def _mappings(value: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping in a value, with where it stands."""
    if isinstance(value, dict):
        yield path, value
        for key, inner in value.items():
            yield from _mappings(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _mappings(inner, f"{path}.{index}")
