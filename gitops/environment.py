"""An environment's `serve-config.yaml`: plain Ray Serve configuration, read strictly and edited in its own lines only.

Ray Serve's REST API takes unknown keys and unknown deployments without a word, so they are refused here.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gitops import bounded_yaml
from gitops.arguments import ApplicationArguments, FleetArguments
from gitops.contracts.base import Contract
from gitops.contracts.serving import FleetConfig, ServedModel, Trial, UserConfig
from gitops.errors import ContractError, did_you_mean
from gitops.serve_keys import KNOWN_KEYS
from gitops.yaml_edit import remove, set_mapping

DEFAULT_HTTP = ("0.0.0.0", 8000)  # noqa: S104 - Ray Serve's own default, where a file names no other
DEFAULT_GRPC_PORT = 9000
CLASSIFIER, FLEET = "Classifier", "Fleet"
"""The deployments that serve a model, and many."""
MONITOR = "Monitor"
"""The deployment that watches for drift; it is there only where `args.windows` is set."""
MEMBERS = "/models"
"""Where a fleet has the paths of its models, each under its name."""


@dataclass(frozen=True)
class Builder:
    """What an application builder of ours makes."""

    deployment: str
    arguments: type[ApplicationArguments]
    """What the application's `args` may hold."""
    user_config: type[UserConfig | FleetConfig]
    """What the deployment's `user_config` may hold."""
    monitored: bool
    """Whether it makes a deployment `MONITOR` too, where `args.windows` is set."""

    @property
    def deployments(self) -> tuple[str, ...]:
        """All that it makes."""
        return (self.deployment, MONITOR) if self.monitored else (self.deployment,)


BUILDERS: Mapping[str, Builder] = {
    "serve.app:build": Builder(CLASSIFIER, ApplicationArguments, UserConfig, monitored=True),
    "serve.fleet:build": Builder(FLEET, FleetArguments, FleetConfig, monitored=False),
}
"""By their import paths; other builders are not checked."""
GRPC_SERVICER = "serve.open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server"
"""What `grpc_options.grpc_servicer_functions` names for the Open Inference Protocol."""

_MODELS_KEY: Mapping[type[Contract], str] = {UserConfig: "model", FleetConfig: "models"}
"""The key of a `user_config` by which it is known."""
_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*[.:][A-Za-z_]\w*\Z")
"""As Ray takes it: with a colon before the last name, or a dot."""
_OUR_PACKAGE = "serve"
_ROUTE_PREFIX = re.compile(r"/([^{}]*[^{}/])?\Z")


@dataclass(frozen=True)
class Application:
    """One application of an environment."""

    name: str
    route_prefix: str | None
    """Where its HTTP routes begin; None: it has none."""
    deployment: str | None
    """The deployment whose `user_config` has the key `model` or `models`; None: it serves no model of ours."""
    wanted: UserConfig | FleetConfig
    """The model that it shall serve, and what it shall try beside it; or a fleet of models."""
    config: Mapping[str, Any]
    """Its part of the configuration as Ray Serve's REST API takes it."""

    def settings(self) -> dict[str, Any]:
        """A copy of the configuration without the models: all that a promotion leaves alone."""
        copy: dict[str, Any] = json.loads(json.dumps(self.config))
        key = _MODELS_KEY[type(self.wanted)]
        for deployment in copy.get("deployments") or ():
            if deployment["name"] == self.deployment:
                deployment["user_config"] |= {key: None}  # the key itself says that this deployment takes models
                for other in set(type(self.wanted).model_fields) - {key}:
                    deployment["user_config"].pop(other, None)
        return copy

    def targets(self) -> "tuple[ModelTarget, ...]":
        """Where models are."""
        if isinstance(self.wanted, FleetConfig):
            return tuple(ModelTarget(self, name) for name in self.wanted.models)
        return (ModelTarget(self),)


@dataclass(frozen=True)
class ModelTarget:
    """Where a model is or goes: an application that serves one, or its place in a fleet."""

    application: Application
    member: str | None = None
    """The model's name in a fleet, which may not have it yet; None: the application serves one model."""

    @property
    def name(self) -> str:
        """The application's; of a fleet's model `<application>/<model>`."""
        return self.application.name if self.member is None else f"{self.application.name}/{self.member}"

    @property
    def route(self) -> str:
        """Where its HTTP paths begin, without a final slash."""
        prefix = (self.application.route_prefix or "").rstrip("/")
        return prefix if self.member is None else f"{prefix}{MEMBERS}/{self.member}"

    @property
    def wanted(self) -> UserConfig:
        """The model that shall be served there, and what shall be tried beside it."""
        wanted = self.application.wanted
        if isinstance(wanted, UserConfig):
            return wanted
        return UserConfig.of(wanted.models.get(self.member or ""))

    @property
    def model(self) -> ServedModel | None:
        """The model that shall be served there; None: nothing was promoted yet."""
        return self.wanted.model

    @property
    def trial(self) -> Trial | None:
        """What shall be tried beside the model; None: nothing."""
        return self.wanted.trial


@dataclass(frozen=True)
class Environment:
    """What an environment wants, as its serve-config.yaml says."""

    config: dict[str, Any]
    """All of it as Ray Serve's REST API takes it."""
    applications: Mapping[str, Application]
    """Applications by name, in the file's order."""
    http_host: str
    http_port: int

    @classmethod
    def parse(cls, text: str, source: str) -> "Environment":
        """Read a serve-config.yaml; `source` is named in errors.

        Raises:
            ContractError: it is not YAML, a key is unknown or double, or a model is not described wholly.
        """
        config = _load(text, source)
        _check_keys(config, "", source, "")
        for section in ("http_options", "grpc_options"):
            _check_section(config, section, source, "")
        _check_grpc(config.get("grpc_options") or {}, source)
        applications = [_application(entry, source) for entry in _entries(config, "applications", source, "")]
        _refuse_doubles([app.name for app in applications], "application", source)
        routes = [app.route_prefix for app in applications if app.route_prefix is not None]
        _refuse_doubles(routes, "route_prefix", source)
        http = config.get("http_options") or {}
        host, port = http.get("host", DEFAULT_HTTP[0]), http.get("port", DEFAULT_HTTP[1])
        if not isinstance(host, str) or not isinstance(port, int):
            raise ContractError(f"{source}: http_options wants a text as host and a number as port")
        return cls(config, {app.name: app for app in applications}, host, port)

    @property
    def grpc(self) -> tuple[int, tuple[str, ...]]:
        """Where Serve shall listen for gRPC, and the functions that add services to it: none, and it shall not."""
        options = self.config.get("grpc_options") or {}
        return options.get("port", DEFAULT_GRPC_PORT), tuple(options.get("grpc_servicer_functions") or ())

    def url(self, target: ModelTarget) -> str:
        """Where this machine reaches a model."""
        return f"http://127.0.0.1:{self.http_port}{target.route}"

    def targets(self) -> tuple[ModelTarget, ...]:
        """Where models are."""
        return tuple(target for app in self.applications.values() for target in app.targets())

    def served(self) -> dict[str, ServedModel | None]:
        """The model that shall be served at each target, by its name; None where nothing was promoted yet."""
        return {target.name: target.model for target in self.targets()}

    def wanted(self) -> dict[str, UserConfig]:
        """The same, and what shall be tried beside it."""
        return {target.name: target.wanted for target in self.targets()}

    def settings(self) -> dict[str, Any]:
        """All of the configuration but the models."""
        return self.config | {"applications": [app.settings() for app in self.applications.values()]}

    def find(self, application: str | None, model: str | None, source: str) -> ModelTarget:
        """Where a model goes: the named application, the one of the model's name, a fleet that has it, or the only one.

        Args:
            application: its name, if one was asked for.
            model: the model's name, if one is meant.
            source: named in errors.

        Raises:
            ContractError: there is none, or it is not clear which.
        """
        taking = {name: app for name, app in self.applications.items() if app.deployment is not None}
        wanted = application or model
        if application is None and wanted not in taking:
            having = [target.application.name for target in self.targets() if model and target.member == model]
            fit = having or list(taking)
            wanted = fit[0] if len(fit) == 1 else None
        if wanted in taking:
            app = taking[wanted]
            if isinstance(app.wanted, UserConfig):
                return ModelTarget(app)
            if model is not None:
                return ModelTarget(app, model)
            raise ContractError(f"{source}: {app.name} is {app.wanted}: say which of them is meant")
        names = ", ".join(taking) or "none: `user_config: {model: null}` under a deployment makes one"
        lacking = (
            f"no application {wanted!r} that serves a model" if wanted else "not one application to take for granted"
        )
        raise ContractError(f"{source} has {lacking}; name one of those that serve a model ({names})")


# --- reading strictly -------------------------------------------------------------------------------------------------


def _load(text: str, source: str) -> dict[str, Any]:
    config = bounded_yaml.load(text, source)
    if not isinstance(config, dict):
        raise ContractError(f"{source} is not a Ray Serve configuration: it needs the key `applications`")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(config, allow_nan=False))
    except (TypeError, ValueError) as error:  # a date, a set, infinity
        raise ContractError(f"{source} holds a value that Ray Serve's REST API cannot take: {error}") from error
    return plain


def _application(entry: dict[str, Any], source: str) -> Application:
    name = _name(entry, "application", source)
    where = f"application {name}"
    _check_keys(entry, "applications", source, where)
    if not isinstance(entry.get("import_path"), str):
        raise ContractError(f"{source}: {where} needs an `import_path` such as serve.app:build")
    _check_import_path(entry["import_path"], source, where)
    deployments = _entries(entry, "deployments", source, where, required=False)
    for deployment in deployments:
        _check_deployment(deployment, entry["import_path"], source, where)
    _refuse_doubles([deployment["name"] for deployment in deployments], f"deployment in {where}", source)
    if builder := BUILDERS.get(entry["import_path"]):
        arguments = builder.arguments.parse(entry.get("args") or {}, f"{source}: the args of {where}")
        _check_monitor(arguments, deployments, source, where)
    models = models_of(entry, source)
    return Application(
        name=name,
        route_prefix=_route_prefix(entry, source, where),
        deployment=models[0] if models else None,
        wanted=models[1] if models else UserConfig(),
        config=entry,
    )


def _check_import_path(path: str, source: str, where: str) -> None:
    """Refuse what Serve could not import: a path that is none, and of our own package what makes no application."""
    if not _IMPORT_PATH.match(path):
        raise ContractError(f"{source}: {where}: the `import_path` {path!r} must look like serve.app:build")
    if path.split(".", maxsplit=1)[0] == _OUR_PACKAGE and path not in BUILDERS:
        hint = did_you_mean(path, tuple(BUILDERS))
        raise ContractError(f"{source}: {where}: the `import_path` {path!r} makes no application; {hint}")


def _route_prefix(entry: dict[str, Any], source: str, where: str) -> str | None:
    """As Ray Serve takes it; another one it would refuse only when it deploys the application."""
    prefix = entry.get("route_prefix", "/")
    if prefix is None or (isinstance(prefix, str) and _ROUTE_PREFIX.match(prefix)):
        return prefix
    raise ContractError(
        f"{source}: {where}: the `route_prefix` {prefix!r} must begin with a slash, end with none and hold no braces"
    )


def models_of(entry: Mapping[str, Any], source: str) -> tuple[str, UserConfig | FleetConfig] | None:
    """The deployment of an application whose `user_config` names models, and what it names; None: there is none.

    Args:
        entry: an application's configuration.
        source: named in errors.

    Raises:
        ContractError: several deployments do, or one does so wrongly.
    """
    builder = BUILDERS.get(entry.get("import_path", ""))
    kind = builder.user_config if builder else UserConfig  # other people's builders may serve a model as ours does
    key, where = _MODELS_KEY[kind], f"application {entry.get('name')}"
    taking = [
        (deployment["name"], user_config)
        for deployment in entry.get("deployments") or []
        if isinstance(user_config := deployment.get("user_config"), dict) and key in user_config
    ]
    if len(taking) > 1:
        raise ContractError(f"{source}: {where} has `user_config.{key}` in several deployments; one may have it")
    for name, user_config in taking:
        named = {field: user_config[field] for field in kind.model_fields if field in user_config}
        return name, kind.parse(named, f"{source}: the user_config of {where}")
    return None


def _check_deployment(deployment: dict[str, Any], import_path: str, source: str, where: str) -> None:
    name = _name(deployment, "deployment", source)
    where = f"{where}, deployment {name}"
    builder = BUILDERS.get(import_path)
    if builder and name not in builder.deployments:
        raise ContractError(
            f"{source}: {import_path} makes no deployment {name!r}; {did_you_mean(name, builder.deployments)}"
        )
    _check_keys(deployment, "deployments", source, where)
    for section in ("autoscaling_config", "ray_actor_options"):
        _check_section(deployment, section, source, where)
    user_config = deployment.get("user_config") or {}
    if not isinstance(user_config, dict):
        raise ContractError(f"{source}: {where}: user_config must be a mapping")
    if builder:
        _refuse_unknown(user_config, tuple(builder.user_config.model_fields), source, f"{where}, user_config")
        builder.user_config.parse(user_config, f"{source}: the user_config of {where}")


def _check_monitor(arguments: ApplicationArguments, deployments: list[dict[str, Any]], source: str, where: str) -> None:
    """Refuse what Serve would fail on: a deployment that the builder does not make, or that takes no configuration."""
    monitor = next((deployment for deployment in deployments if deployment["name"] == MONITOR), None)
    if monitor is None:
        return
    if arguments.windows is None:
        raise ContractError(
            f"{source}: {where} has the deployment {MONITOR}, which is made only where `args.windows` names a folder: "
            f"set that, or take the deployment out"
        )
    if monitor.get("user_config") is not None:
        raise ContractError(f"{source}: {where}, deployment {MONITOR}: it takes no user_config")


def _check_section(parent: Mapping[str, Any], section: str, source: str, where: str) -> None:
    mapping = parent.get(section)
    if mapping is None:
        return
    where = f"{where}, {section}" if where else section
    if not isinstance(mapping, dict):
        raise ContractError(f"{source}: {where} must be a mapping")
    _check_keys(mapping, section, source, where)


def _check_grpc(options: Mapping[str, Any], source: str) -> None:
    """Refuse a function that cannot be imported: Serve would answer 500 to all of it, and start nothing."""
    functions = options.get("grpc_servicer_functions") or []
    if not isinstance(options.get("port", 0), int) or not isinstance(functions, list):
        raise ContractError(f"{source}: grpc_options wants a number as port and a list as grpc_servicer_functions")
    for function in functions:
        if not isinstance(function, str) or (function.startswith("serve.") and function != GRPC_SERVICER):
            hint = did_you_mean(str(function), (GRPC_SERVICER,))
            raise ContractError(f"{source}: grpc_servicer_functions: unknown {function!r}; {hint}")


def _check_keys(mapping: Mapping[str, Any], section: str, source: str, where: str) -> None:
    _refuse_unknown(mapping, KNOWN_KEYS[section], source, where or "the top level")


def _refuse_unknown(keys: Iterable[Any], known: tuple[str, ...], source: str, where: str) -> None:
    for key in keys:
        if key not in known:
            raise ContractError(f"{source}: {where}: unknown key {key!r}; {did_you_mean(str(key), known)}")


def _entries(
    parent: Mapping[str, Any], key: str, source: str, where: str, *, required: bool = True
) -> list[dict[str, Any]]:
    entries = parent.get(key)
    if entries is None and not required:
        return []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ContractError(f"{source}: {where or 'the top level'} needs `{key}`, a list of mappings")
    return entries


def _name(entry: Mapping[str, Any], noun: str, source: str) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise ContractError(f"{source}: an entry without `name` stands among the {noun}s; give it one")
    return name


def _refuse_doubles(names: list[str], noun: str, source: str) -> None:
    doubles = sorted({name for name in names if names.count(name) > 1})
    if doubles:
        raise ContractError(f"{source}: {noun} {doubles[0]!r} stands there twice; rename or remove one")


# --- promoting in place -----------------------------------------------------------------------------------------------


def promote(
    text: str,
    application: str | None,
    model: ServedModel,
    source: str = "serve-config.yaml",
    *,
    trial: Trial | None = None,
) -> str:
    """The text with `model` in the application's `user_config`, and `trial` below it; all other characters stay.

    Args:
        text: a serve-config.yaml.
        application: whose model; None: what `Environment.find` says.
        model: what it shall serve.
        source: named in errors.
        trial: what it shall try beside it; None: nothing, and the lines of what it tried go.

    Raises:
        ContractError: the text is not valid, its `user_config` cannot be edited in place (an alias, say), or a fleet
            should try something.
    """
    before = Environment.parse(text, source)
    target = before.find(application, model.name, source)
    app = target.application
    place = "applications", app.name, "deployments", app.deployment or "", "user_config"
    if target.member is None:
        edited = set_mapping(text, "model", model.model_dump(), *place, behind="model")
        if target.trial and not (trial and trial.kind == target.trial.kind):
            edited = remove(edited, target.trial.kind, *place)
        if trial:
            edited = set_mapping(edited, trial.kind, trial.model_dump(), *place, behind="model")
    elif trial:
        raise ContractError(
            f"{source}: {app.name} is a fleet, whose models are promoted at once: to try one on a share of the "
            "requests, give it an application of its own"
        )
    elif isinstance(app.wanted, FleetConfig) and app.wanted.models:
        edited = set_mapping(text, target.member, model.model_dump(), *place, "models")
    else:  # null, or {}
        edited = set_mapping(text, "models", {target.member: model.model_dump()}, *place)
    after = Environment.parse(edited, source)
    expected = before.wanted() | {target.name: UserConfig.of(model, trial)}
    if after.wanted() != expected or after.settings() != before.settings():
        raise ContractError(
            f"{source}: cannot edit the model of {target.name} alone; write it without anchors or aliases"
        )
    return edited
