"""What we ask of an environment's objects beyond their schemas: pure functions of what kustomize rendered."""

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gitops import (
    bounded_yaml,
    capacity,
    clear_text,
    disruption,
    exposure,
    folders,
    kuberay,
    pod_security,
    reach,
)
from gitops.environment import DEFAULT_GRPC_PORT
from gitops.errors import ContractError
from gitops.findings import Finding, accept, refuse
from gitops.layout import STAGING
from gitops.objects import Object, at, dicts, mapping, mappings, name_of, pods, quantity, ray_groups

NO_DIGEST = "0" * 64
"""Stands in the packaged overlays for an image that nobody has built yet."""

_DIGEST = re.compile(r"@sha256:([0-9a-f]{64})\Z")
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]+)?/)?{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?(?:@\w+:[0-9A-Za-z]+)?\Z"
)
_TAG = re.compile(r":([^:/@]+)(?:@|\Z)")
_LIMITS = ("cpu", "memory")
_LEAST_MEMORY = 2**20
"""Bytes; no process of ours starts with less, so that a unit is missing or wrong."""
# Keys of a runtime environment that bring no code, and variables that make Python load other code.
_HARMLESS = ("env_vars", "config", "excludes")
_LOADING = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "LD_PRELOAD", "LD_LIBRARY_PATH")


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
        *exposure.refusals(objects),
        *_http(objects, config),
        *kuberay.missing_services(objects),
        *capacity.refusals(objects, config),
        *disruption.refusals(objects, environment),
        *_api_tokens(objects),
        *folders.refusals(objects, config),
    ]
    found = (
        "images by digest, limits, no secret, restricted pods, Ray closed, a known upgrade strategy, folders on volumes"
    )
    return refused or [accept("policies", found)]


def refusals(objects: Iterable[Object]) -> list[Finding]:
    """What stands against objects, whatever they are for."""
    asked = (_images, _limits, clear_text.refusals, pod_security.refusals, _tokens, kuberay.refusals)
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
        # What has no `resources` gets KubeRay's own: those of the autoscaler have limits.
        scaling = [found for found in pod_security.autoscalers(item, pod) if found.get("resources") is not None]
        for container in (*pod.containers(), *scaling):
            where = f"{pod}: container {container.get('name')}"
            limits, requests = (mapping(container, "resources", key) for key in ("limits", "requests"))
            if missing := [limit for limit in _LIMITS if limits.get(limit) is None or quantity(limits[limit]) == 0]:
                yield refuse("limits", f"{where} has no limit of {' and '.join(missing)}", "give `resources.limits`")
            for key in sorted(limits.keys() & requests.keys()):
                limit, request = quantity(limits[key]), quantity(requests[key])
                if limit is not None and request is not None and limit < request:
                    found = f"{where} requests {requests[key]} of {key}, and its limit is {limits[key]}"
                    yield refuse("limits", found, "give a limit that is not below the request")
            memory = quantity(limits.get("memory"))
            if memory and memory < _LEAST_MEMORY:
                found = f"{where} has a limit of {limits['memory']} of memory, which is {memory.normalize():f} bytes"
                yield refuse("limits", found, "write Mi or Gi behind the number; `m` is a thousandth")


def _tokens(item: Object) -> Iterator[Finding]:
    """Who reaches Ray's dashboard without a token runs code in the cluster."""
    for path, cluster in mappings(item):
        if "headGroupSpec" in cluster and at(cluster, "authOptions", "mode") != "token":
            found = f"{name_of(item)}: {path}.authOptions.mode is not `token`: who reaches Ray runs code in it"
            yield refuse("token", found, "take `authOptions` of gitops/base/rayservice.yaml")


def _api_tokens(objects: Sequence[Object]) -> Iterator[Finding]:
    """Only Ray's head asks the API server for anything; who runs code in another pod finds no token there."""
    key = "automountServiceAccountToken"
    accounts = {item["metadata"]["name"]: item.get(key) for item in objects if item["kind"] == "ServiceAccount"}
    for pod in (pod for item in objects for pod in pods(item) if not pod.is_head):
        mounted = pod.spec.get(key, accounts.get(pod.spec.get("serviceAccountName", "default")))
        if mounted or (mounted is None and pod.is_rays) or any(map(_is_for_the_api, dicts(pod.spec, "volumes"))):
            remedy = f"say `{key}: false`, and give each projected token the `audience` that it is for"
            yield refuse("pod-security", f"{pod}: it has a token of the API server", remedy)


def _is_for_the_api(volume: Mapping[str, Any]) -> bool:
    """Whether a volume has a token of the API server, which is one for no other audience."""
    tokens = [
        found["serviceAccountToken"]
        for found in dicts(volume, "projected", "sources")
        if "serviceAccountToken" in found
    ]
    return not all(at(token, "audience") for token in tokens)


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
    if _is_loopback(str(host)):
        yield refuse("http", f"serve-config.yaml: Serve would listen on {host}, inside its pod only", "take 0.0.0.0")
    place = str(config.get("proxy_location", "EveryNode"))
    without_head = any(at(item, "spec", "excludeHeadPodFromServeSvc") for item in objects)
    if place == "Disabled" or (place == "HeadOnly" and without_head):
        found = f"serve-config.yaml: proxy_location is {place}, and KubeRay's Service sends requests to the workers"
        yield refuse("http", found, "take EveryNode")
    wanted = {"serve": ("http_options", port)}
    if (grpc := config.get("grpc_options") or {}).get("grpc_servicer_functions"):
        wanted["serve-grpc"] = ("grpc_options", grpc.get("port", DEFAULT_GRPC_PORT))
    for item in objects:
        if item["kind"] != "RayService":
            continue
        for group, spec in ray_groups(item):
            container = spec["template"]["spec"]["containers"][0]
            ports = {found.get("name"): found.get("containerPort") for found in dicts(container, "ports")}
            for name, (option, asked) in wanted.items():
                if ports.get(name) != asked:
                    port = f"the port `{name}` of {name_of(item)}, {group}"
                    there = f"{port}, another one: {ports[name]}" if name in ports else f"{port}, is not said"
                    found = f"serve-config.yaml: {option}.port is {asked}, {there}"
                    yield refuse("http", found, "give both the same")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
