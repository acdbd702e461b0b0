"""What differs between Git and the cluster, application by application: pure functions of two configurations."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from gitops.contracts.base import Contract
from gitops.serve_api import Application, ServeDetails
from gitops.state import stable_json

_ABSENT = object()
_APPLICATION_DEFAULTS: dict[str, Any] = {
    "route_prefix": "/",
    "runtime_env": {},
    "args": {},
    "autoscaling_policy": None,
    "logging_config": None,
    "external_scaler_enabled": False,
}


class Difference(Contract):
    """One place where Git and the cluster differ."""

    application: str
    path: str = Field(description="Where, as in `deployments.Classifier.num_replicas`; empty: the whole application.")
    kind: Literal["added", "removed", "changed"] = Field(description="What applying Git would do here.")
    desired: Any = Field(default=None, description="Git's value, as JSON.")
    live: Any = Field(default=None, description="The cluster's value, as JSON.")

    def __str__(self) -> str:
        """A line as `mergeline diff` prints it."""
        where = f"{self.application}: {self.path}" if self.path else self.application
        if not self.path:
            return f"{'+' if self.kind == 'added' else '-'} {where}"
        if self.kind == "changed":
            return f"~ {where}: {stable_json(self.live)} → {stable_json(self.desired)}"
        sign, value = ("+", self.desired) if self.kind == "added" else ("-", self.live)
        return f"{sign} {where}: {stable_json(value)}"


def applications(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The applications of a Serve configuration by name, each with what the top level hands down to it."""
    logging = config.get("logging_config")
    inherited = {"logging_config": logging} if logging is not None else {}
    return {app["name"]: {**inherited, **app} for app in config.get("applications", [])}


def differences(desired: Mapping[str, Any], live: ServeDetails) -> list[Difference]:
    """Where the applications that `desired` names are not as the cluster has them.

    Applications that only the cluster has are not looked at: see `left_over`.

    Args:
        desired: a configuration for Serve's REST API.
        live: what the cluster answered.
    """
    return [
        difference
        for name, config in applications(desired).items()
        for difference in _of_application(name, config, live.living.get(name))
    ]


def between(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Where the applications of two configurations differ: `live` is the value before, `desired` the one after."""
    old, new = applications(before), applications(after)
    gone = [Difference(application=name, path="", kind="removed", live=old[name]) for name in old if name not in new]
    come = [Difference(application=name, path="", kind="added", desired=new[name]) for name in new if name not in old]
    kept = [item for name in new if name in old for item in _of_configurations(name, new[name], old[name])]
    return [*gone, *come, *kept]


def left_over(desired: Mapping[str, Any], live: ServeDetails) -> dict[str, Application]:
    """The applications that `desired` doesn't name, and that a PUT of it would delete."""
    names = applications(desired)
    declared = {name: app for name, app in live.living.items() if app.source == "declarative" and name not in names}
    return {name: app for name, app in declared.items() if app.deployed_app_config is not None}


def with_kept(desired: Mapping[str, Any], kept: Mapping[str, Application]) -> dict[str, Any]:
    """`desired` and the applications that a PUT would otherwise delete."""
    return {
        **desired,
        "applications": [*desired.get("applications", []), *(app.deployed_app_config for app in kept.values())],
    }


def _of_application(name: str, desired: dict[str, Any], live: Application | None) -> Iterator[Difference]:
    if live is None or live.deployed_app_config is None:
        yield Difference(application=name, path="", kind="added", desired=desired)
        return
    if live.source == "imperative":
        yield Difference(application=name, path="source", kind="changed", desired="declarative", live=live.source)
    yield from _of_configurations(name, desired, live.deployed_app_config)


def _of_configurations(name: str, desired: Mapping[str, Any], live: Mapping[str, Any]) -> Iterator[Difference]:
    for path, wanted, found in _walk((), comparable(desired), comparable(live)):
        kind: Literal["added", "removed", "changed"] = "changed"
        if found is _ABSENT:
            kind = "added"
        elif wanted is _ABSENT:
            kind = "removed"
        yield Difference(
            application=name,
            path=".".join(path),
            kind=kind,
            desired=None if wanted is _ABSENT else wanted,
            live=None if found is _ABSENT else found,
        )


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """An application's configuration without what makes no difference: its defaults, and the order of deployments."""
    kept = {
        key: value
        for key, value in config.items()
        if key != "deployments" and not (key in _APPLICATION_DEFAULTS and value == _APPLICATION_DEFAULTS[key])
    }
    options = {
        deployment["name"]: {key: value for key, value in deployment.items() if key != "name"}
        for deployment in config.get("deployments") or []
    }
    return {**kept, "deployments": {name: values for name, values in options.items() if values}}


def _walk(path: tuple[str, ...], desired: object, live: object) -> Iterator[tuple[tuple[str, ...], object, object]]:
    if isinstance(desired, dict) and isinstance(live, dict):
        for key in sorted(desired.keys() | live.keys()):
            yield from _walk((*path, str(key)), desired.get(key, _ABSENT), live.get(key, _ABSENT))
    elif not _same(desired, live):
        yield path, desired, live


def _same(one: object, other: object) -> bool:
    """Equal as JSON: 1 and 1.0 are, 1 and true are not."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
