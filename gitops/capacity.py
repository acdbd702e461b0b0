"""Whether the pods of a cluster hold what Serve would place there: Ray waits for ever for room that cannot come."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

from gitops.findings import Finding, refuse
from gitops.objects import Object, at, dicts, mapping, quantity, ray_groups

_GPU = re.compile(r"(gpu|nvidia\.com/mig-\d+g\.\d+gb)\Z")
"""How the names of GPUs end among a container's limits, as KubeRay knows them: nvidia.com/gpu, amd.com/gpu."""
_CPUS_UNLESS_SAID = Decimal(1)
"""Of a replica whose `ray_actor_options` say no `num_cpus`: Ray Serve's own."""


@dataclass(frozen=True)
class _Group:
    """What a pod of a group gives Ray."""

    name: str
    cpus: Decimal
    gpus: Decimal

    def __str__(self) -> str:
        """As errors name it."""
        return f"{self.name} {self.cpus} CPUs" + (f" and {self.gpus} GPUs" if self.gpus else "")


def refusals(objects: Sequence[Object], config: Mapping[str, Any]) -> Iterator[Finding]:
    """Deployments of which no pod holds a replica.

    Args:
        objects: of an environment.
        config: its Serve configuration.
    """
    for service in objects:
        if service["kind"] != "RayService":
            continue
        groups = [_group(name, spec) for name, spec in ray_groups(service) if spec.get("maxReplicas") != 0]
        for application in dicts(config, "applications"):
            for deployment in dicts(application, "deployments"):
                where = f"serve-config.yaml: {application.get('name')}, {deployment.get('name')}"
                if found := _complaint(deployment, groups):
                    remedy = "ask for less, or give a group larger limits, or `num-cpus`"
                    yield refuse("capacity", f"{where}: {found}", remedy)


def _complaint(deployment: Mapping[str, Any], groups: Sequence[_Group]) -> str | None:
    options = mapping(deployment, "ray_actor_options")
    cpus, gpus = (_number(options.get(key)) for key in ("num_cpus", "num_gpus"))
    if cpus is None and gpus is None:
        return None
    cpus, gpus = _CPUS_UNLESS_SAID if cpus is None else cpus, gpus or Decimal(0)
    asked = f"a replica asks for {cpus} CPUs" + (f" and {gpus} GPUs" if gpus else "")
    if any(group.cpus >= cpus and group.gpus >= gpus for group in groups):
        return None
    return f"{asked}, and no pod has as many: {', '.join(map(str, groups))}"


def _group(name: str, spec: Mapping[str, Any]) -> _Group:
    """As KubeRay tells Ray: by `rayStartParams` or `resources`, else by the limits of the first container."""
    said = {"CPU": at(spec, "rayStartParams", "num-cpus"), "GPU": at(spec, "rayStartParams", "num-gpus")}
    said = {key: value for key, value in said.items() if value is not None}
    for key, value in mapping(spec, "resources").items():  # in letters of any size
        name = str(key).lower()
        said["GPU" if _GPU.search(name) else name.upper()] = value
    resources = mapping(spec["template"]["spec"]["containers"][0], "resources")
    limits = mapping(resources, "limits")
    cpu = quantity(limits.get("cpu", at(resources, "requests", "cpu"))) or Decimal(0)
    gpu = sum((quantity(value) or Decimal(0) for key, value in limits.items() if _GPU.search(str(key))), Decimal(0))
    cpus, gpus = (_number(said.get(key)) for key in ("CPU", "GPU"))
    return _Group(
        name,
        cpu.to_integral_value(ROUND_CEILING) if cpus is None else cpus,
        gpu if gpus is None else gpus,
    )


def _number(value: Any) -> Decimal | None:
    return quantity(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
