"""What we ask of an environment's objects beyond their schemas: pure functions of what kustomize rendered."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import product
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Any

from gitops import bounded_yaml, clear_text, pod_security, reach
from gitops.environment import BUILDERS, DEFAULT_GRPC_PORT
from gitops.errors import ContractError
from gitops.findings import Finding, accept, refuse
from gitops.objects import Object, at, dicts, mapping, mappings, name_of, pods

STAGING = "staging"
"""The one environment of a cluster in which code that is in no image may be tried."""
INCREMENTAL = "NewClusterWithIncrementalUpgrade"
UPGRADES = ("NewCluster", INCREMENTAL, "None")
"""What KubeRay 1.7 knows as `upgradeStrategy.type`; the API server takes any text there."""
NO_DIGEST = "0" * 64
"""Stands in the packaged overlays for an image that nobody has built yet."""

_DIGEST = re.compile(r"@sha256:([0-9a-f]{64})\Z")
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]+)?/)?{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?(?:@\w+:[0-9A-Za-z]+)?\Z"
)
_TAG = re.compile(r":([^:/@]+)(?:@|\Z)")
_LIMITS = ("cpu", "memory")
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[kMGTPEnum]?)\Z")
_FRACTIONS = {"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3")}
# Keys of a runtime environment that bring no code, and variables that make Python load other code.
_HARMLESS = ("env_vars", "config", "excludes")
_LOADING = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "LD_PRELOAD", "LD_LIBRARY_PATH")
# Arguments of our applications that name folders: what nobody could get again, and what can be fetched again.
_KEPT, _FETCHED = ("feedback", "windows"), ("cache",)
# Sources of volumes that go with their pod, and that nobody can write to.
_PASSING = {"emptyDir", "ephemeral", "csi"}
_READ_ONLY = {"configMap", "secret", "projected", "downwardAPI", "image"}


def check(objects: Sequence[Object], config: Mapping[str, Any], environment: str) -> list[Finding]:
    """Every policy's finding.

    Args:
        objects: of the environment.
        config: the Serve configuration in them.
        environment: its name.
    """
    refused = [
        *refusals(objects),
        *clear_text.refusals_in(config, "serve-config.yaml"),
        *(_fetched(objects, config) if environment != STAGING else ()),
        *reach.refusals(objects),
        *_http(objects, config),
        *_missing_services(objects),
        *_folders(objects, config),
    ]
    found = (
        "images by digest, limits, no secret, restricted pods, Ray closed, a known upgrade strategy, folders on volumes"
    )
    return refused or [accept("policies", found)]


def refusals(objects: Iterable[Object]) -> list[Finding]:
    """What stands against objects, whatever they are for."""
    asked = (_images, _limits, clear_text.refusals, pod_security.refusals, _tokens, _upgrade)
    return [finding for item in objects for policy in asked for finding in policy(item)]


def _images(item: Object) -> Iterator[Finding]:
    """An image is what its digest says; a tag can be moved, and `latest` always is."""
    remedy = "name it by digest, under `images:` in the overlay's kustomization.yaml"
    for pod in pods(item):
        for container in pod.containers():
            if not isinstance(container.get("image"), str) or not container["image"]:
                yield refuse("image", f"{pod}: container {container.get('name')} has no image", remedy)
    for path, found in mappings(item):
        image = found.get("image")
        if isinstance(image, dict):  # a volume's
            image = image.get("reference")
        if not isinstance(image, str) or not image:
            continue
        if complaint := image_complaint(image):
            yield refuse("image", f"{name_of(item)}: {path}: {complaint}", remedy)


def image_complaint(image: str) -> str | None:
    """What is wrong with the name of an image; None: nothing."""
    tag, digest = _TAG.search(image), _DIGEST.search(image)
    if not _REFERENCE.match(image):
        return f"the image {image} is no reference of an image"
    if (tag is None and digest is None) or (tag and tag[1] == "latest"):
        return f"the image {image} is `latest`, which is another one tomorrow"
    if digest is None:
        return f"the image {image} has no digest"
    return f"the image {image} has the digest that stands for none yet" if digest[1] == NO_DIGEST else None


def _limits(item: Object) -> Iterator[Finding]:
    """Ray takes its CPUs and memory from the limits, and a container without them may take its node's."""
    for pod in pods(item):
        for container in pod.containers():
            where = f"{pod}: container {container.get('name')}"
            limits, requests = (mapping(container, "resources", key) for key in ("limits", "requests"))
            if missing := [limit for limit in _LIMITS if limits.get(limit) is None or _quantity(limits[limit]) == 0]:
                yield refuse("limits", f"{where} has no limit of {' and '.join(missing)}", "give `resources.limits`")
            for key in sorted(limits.keys() & requests.keys()):
                limit, request = _quantity(limits[key]), _quantity(requests[key])
                if limit is not None and request is not None and limit < request:
                    found = f"{where} requests {requests[key]} of {key}, and its limit is {limits[key]}"
                    yield refuse("limits", found, "give a limit that is not below the request")


def _quantity(value: Any) -> Decimal | None:
    """A quantity of Kubernetes as a number; None: it is none, which the schema says."""
    found = _QUANTITY.match(str(value))
    if found is None:
        return None
    unit = found[2]
    if unit in _FRACTIONS:
        return Decimal(found[1]) * _FRACTIONS[unit]
    base = 1024 if unit.endswith("i") else 1000
    return Decimal(found[1]) * Decimal(base) ** " KMGTPE".index(unit[:1].upper() or " ")


def _tokens(item: Object) -> Iterator[Finding]:
    """Who reaches Ray's dashboard without a token runs code in the cluster."""
    for path, cluster in mappings(item):
        if "headGroupSpec" in cluster and at(cluster, "authOptions", "mode") != "token":
            found = f"{name_of(item)}: {path}.authOptions.mode is not `token`: who reaches Ray runs code in it"
            yield refuse("token", found, "take `authOptions` of gitops/base/rayservice.yaml")


def _upgrade(item: Object) -> Iterator[Finding]:
    if item["kind"] != "RayService":
        return
    strategy = at(item, "spec", "upgradeStrategy")
    if isinstance(strategy, dict) and "type" not in strategy:  # KubeRay's own default
        return
    kind = UPGRADES[0] if strategy is None else at(strategy, "type")
    if kind not in UPGRADES:
        found = f"{name_of(item)}: upgradeStrategy.type {kind!r} is none that KubeRay knows"
        yield refuse("upgrade", found, f"take one of {', '.join(UPGRADES)}, or leave out `upgradeStrategy`")
    elif kind == INCREMENTAL:
        yield from _incremental(item, mapping(strategy, "clusterUpgradeOptions"))


def _incremental(item: Mapping[str, Any], options: Mapping[str, Any]) -> Iterator[Finding]:
    """KubeRay refuses these with an event only, when they are applied; steps of nothing it takes, and never ends."""
    surge, step = options.get("maxSurgePercent", 100), options.get("stepSizePercent")
    cluster = mapping(item, "spec", "rayClusterConfig")
    needs = {
        "`rayClusterConfig.enableInTreeAutoscaling: true`": cluster.get("enableInTreeAutoscaling") is True,
        "a `gatewayClassName`": bool(options.get("gatewayClassName")),
        "a `maxSurgePercent` of 1 to 100": _is_in(surge, 1, 100),
        "a `stepSizePercent` of 1 to `maxSurgePercent`": _is_in(step, 1, surge if _is_in(surge, 1, 100) else 100),
        "`intervalSeconds` above 0": _is_in(options.get("intervalSeconds"), 1),
    }
    missing = [need for need, is_met in needs.items() if not is_met]
    if missing:
        found = f"{name_of(item)}: {INCREMENTAL} needs {', '.join(missing)}"
        yield refuse("upgrade", found, "the component incremental-upgrade has the options, and the base the autoscaler")


def _is_in(value: Any, low: int, high: int | None = None) -> bool:
    return isinstance(value, int) and value >= low and (high is None or value <= high)


def _missing_services(objects: Sequence[Object]) -> Iterator[Finding]:
    """Where requests move in steps they come by KubeRay's own Gateway: it makes no Service for all clusters then."""
    for service in objects:
        if service["kind"] != "RayService" or at(service, "spec", "upgradeStrategy", "type") != INCREMENTAL:
            continue
        name = f"{service['metadata']['name']}-serve-svc"
        for item in objects:
            if any(found.get("name") == name for _, found in mappings(item)):
                found = f"{name_of(item)} sends requests to {name}, which is not there with {INCREMENTAL}"
                yield refuse("upgrade", found, f"take it out: KubeRay makes {service['metadata']['name']}-gateway")


def _fetched(objects: Sequence[Object], config: Mapping[str, Any]) -> Iterator[Finding]:
    """Code that is fetched when a replica starts wins over the image's, without a word."""
    remedy = "take it out, and build an image with that code"
    for path, found in mappings(config):
        if path.endswith("runtime_env"):
            for key in _of_other_code(found):
                yield refuse(
                    "working-dir", f"serve-config.yaml: {path}: `{key}` wins over the code in the image", remedy
                )
    for item in objects:
        for path, found in mappings(item):
            if (text := found.get("runtimeEnvYAML")) is None:
                continue
            where = f"{name_of(item)}: {path}.runtimeEnvYAML"
            try:
                environment = bounded_yaml.load(str(text), where)
            except ContractError as error:
                yield refuse("working-dir", str(error), remedy)
                continue
            for key in _of_other_code(environment if isinstance(environment, dict) else {}):
                yield refuse("working-dir", f"{where}: `{key}` wins over the code in the image", remedy)


def _of_other_code(runtime_env: Mapping[str, Any]) -> list[str]:
    """What in a runtime environment of Ray's runs other code, or the same by another interpreter."""
    variables = [name for name in mapping(runtime_env, "env_vars") if name in _LOADING]
    return [*(str(key) for key in runtime_env if key not in _HARMLESS), *(f"env_vars.{name}" for name in variables)]


def _http(objects: Sequence[Object], config: Mapping[str, Any]) -> Iterator[Finding]:
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
        for group, spec in _ray_groups(item):
            container = spec["template"]["spec"]["containers"][0]
            ports = {found.get("name"): found.get("containerPort") for found in dicts(container, "ports")}
            for name, (option, asked) in wanted.items():
                if ports.get(name) != asked:
                    there = f"the port `{name}` of {name_of(item)}, {group}, another one: {ports.get(name)}"
                    found = f"serve-config.yaml: {option}.port is {asked}, {there}"
                    yield refuse("http", found, "give both the same")


def _folders(objects: Sequence[Object], config: Mapping[str, Any]) -> Iterator[Finding]:
    """What an application writes has a volume in every pod that it may run in, which outlives the pod if it is kept."""
    services = [item for item in objects if item["kind"] == "RayService"]
    for application in config.get("applications") or ():
        arguments = application.get("args")
        if application.get("import_path") not in BUILDERS or not isinstance(arguments, dict):
            continue  # its arguments are its own; or they are none, which the schema says
        named = {key: arguments[key] for key in (*_KEPT, *_FETCHED) if arguments.get(key)}
        for (key, folder), item in product(named.items(), services):
            for group, spec in _ray_groups(item):
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
    mounts = [(_normal(str(found.get("mountPath"))), found) for found in dicts(container, "volumeMounts")]
    over = [(path, found) for path, found in mounts if place.is_relative_to(path)]
    if not over:
        read_only = at(container, "securityContext", "readOnlyRootFilesystem")
        if kept or read_only:
            return "no volume is mounted there" + (": the root file system is read-only" if read_only else "")
        return ""
    mount = max(over, key=lambda found: len(found[0].parts))[1]  # it hides those above it
    name = mount.get("name")
    volume: Mapping[str, Any] = next((found for found in dicts(pod, "volumes") if found.get("name") == name), {})
    if mount.get("readOnly") or at(volume, "persistentVolumeClaim", "readOnly") or _READ_ONLY & volume.keys():
        return f"the volume {name} is mounted there to be read only"
    if kept and (_PASSING & volume.keys() or volume.keys() <= {"name"}):  # without a source it is an emptyDir
        return f"the volume {name} ends with the pod"
    return ""


def _normal(path: str) -> PurePosixPath:
    """The path without `..`, and with one slash at its beginning."""
    return PurePosixPath(normpath(path).replace("//", "/"))


def _ray_groups(service: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The groups of pods that Ray runs in, in each pod's first container."""
    cluster = service["spec"]["rayClusterConfig"]
    yield "head", cluster["headGroupSpec"]
    for group in cluster.get("workerGroupSpecs") or ():
        yield f"group {group.get('groupName')}", group
