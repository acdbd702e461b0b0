"""Kubernetes objects as kustomize renders them, read whatever their shape: what is wrong with that, the schemas say."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

Object = Mapping[str, Any]
"""A Kubernetes object, as JSON has it: `apiVersion`, `kind` and `metadata.name` are texts."""

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[kMGTPEnum]?)\Z")
_KUBERAYS = {"app.kubernetes.io/name": "kuberay", "app.kubernetes.io/created-by": "kuberay-operator"}
"""Labels that KubeRay gives pods which have others of these names not."""
_FRACTIONS = {"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3")}


@dataclass(frozen=True)
class Pod:
    """What an object says of the pods that are made from it."""

    owner: str
    """The object, as errors name it."""
    path: str
    """Where its template stands in that."""
    labels: Mapping[str, Any]
    """Those of the template, and those that KubeRay adds."""
    annotations: Mapping[str, Any]
    spec: Mapping[str, Any]
    group: Mapping[str, Any] | None
    """What KubeRay is told of the pods of its kind, beside the template; None: Ray does not run in it."""

    def __str__(self) -> str:
        """As errors name it."""
        return f"{self.owner}: {self.path}" if self.path else self.owner

    @property
    def is_rays(self) -> bool:
        """Whether Ray runs in it."""
        return self.group is not None

    @property
    def is_head(self) -> bool:
        """Whether Ray's head runs in it."""
        return self.labels.get("ray.io/node-type") == "head"

    def containers(self) -> list[dict[str, Any]]:
        """All of them, those included that run before and beside the others."""
        kinds = ("initContainers", "containers", "ephemeralContainers")
        return [container for kind in kinds for container in dicts(self.spec.get(kind))]


def name_of(item: Object) -> str:
    """An object as errors name it."""
    return f"{item['kind']} {item['metadata']['name']}"


def group_of(item: Object) -> str:
    """The API group; empty for Kubernetes' first."""
    return str(item.get("apiVersion", "")).rpartition("/")[0]


def mappings(value: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping in a value, with where it stands."""
    if isinstance(value, dict):
        yield path, value
        for key, inner in value.items():
            yield from mappings(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from mappings(inner, f"{path}.{index}")


def texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a value, with where it stands."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from texts(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from texts(inner, f"{path}.{index}")
    elif isinstance(value, str):
        yield path, value


def at(value: Any, *keys: str) -> Any:
    """What stands at the end of a way through mappings; None where the way ends before."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def mapping(value: Any, *keys: str) -> dict[str, Any]:
    """The mapping at the end of a way; empty where there is none."""
    found = at(value, *keys)
    return found if isinstance(found, dict) else {}


def dicts(value: Any, *keys: str) -> list[dict[str, Any]]:
    """The mappings in the list at the end of a way; none where there is no list."""
    found = at(value, *keys)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def pods(item: Object) -> Iterator[Pod]:
    """The pods of an object, of whatever kind it is."""
    found = dict(mappings(item))
    for path, template in found.items():
        if not isinstance(at(template, "spec", "containers"), list):
            continue
        labels, group, above = mapping(template, "metadata", "labels"), None, path.rpartition(".")[0]
        if path.endswith("headGroupSpec.template"):
            group = found[above]
            labels = _KUBERAYS | labels | {"ray.io/node-type": "head", "ray.io/group": "headgroup"}
        elif above.rpartition(".")[0].endswith("workerGroupSpecs"):
            group = found[above]
            labels = _KUBERAYS | labels | {"ray.io/node-type": "worker", "ray.io/group": group.get("groupName")}
        annotations = mapping(template, "metadata", "annotations")
        yield Pod(name_of(item), path, labels, annotations, mapping(template, "spec"), group)


def ray_groups(service: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The groups of pods that Ray runs in, in each pod's first container."""
    cluster = service["spec"]["rayClusterConfig"]
    yield "head", cluster["headGroupSpec"]
    for group in cluster.get("workerGroupSpecs") or ():
        yield f"group {group.get('groupName')}", group


def quantity(value: Any) -> Decimal | None:
    """A quantity of Kubernetes as a number; None: it is none, which the schema says."""
    found = _QUANTITY.match(str(value))
    if found is None:
        return None
    unit = found[2]
    if unit in _FRACTIONS:
        return Decimal(found[1]) * _FRACTIONS[unit]
    base = 1024 if unit.endswith("i") else 1000
    return Decimal(found[1]) * Decimal(base) ** " KMGTPE".index(unit[:1].upper() or " ")
