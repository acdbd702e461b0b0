"""An environment's `serve-config.yaml`: plain Ray Serve configuration, read strictly and edited in its own lines only.

Ray Serve's REST API takes unknown keys and unknown deployments without a word, so they are refused here.
"""

import difflib
import importlib.resources
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from gitops import bounded_yaml
from gitops.errors import ContractError
from gitops.manifest import Contract, FleetConfig, ServedModel, Trial, UserConfig
from gitops.serve_keys import KNOWN_KEYS
from gitops.state import State, usable_cores

PROJECT_PATH = "project.yaml"
"""Where a deployments repository keeps the project file; those of further projects stand beside it, see below."""
ENVIRONMENTS = "gitops/environments"
MODELS = "gitops/models"
SEED = "local"
"""The packaged environment that one of an unknown name starts from."""
DEFAULT_HTTP = ("0.0.0.0", 8000)  # noqa: S104 - Ray Serve's own default, where a file names no other
DEFAULT_GRPC_PORT = 9000
# Where a further replica has cores of its own: `target_ongoing_requests` and `max_replicas` of the packaged production.
_REQUESTS_OF_A_REPLICA, _MOST_REPLICAS = 8, 8
MONITOR = "Monitor"
"""The deployment that watches for drift; it is there only where `args.windows` is set."""
MEMBERS = "/models"
"""Where a fleet has the paths of its models, each under its name."""


@dataclass(frozen=True)
class Builder:
    """What an application builder of ours makes."""

    deployment: str
    user_config: type[UserConfig | FleetConfig]
    """What the deployment's `user_config` may hold."""
    monitored: bool
    """Whether it makes a deployment `MONITOR` too, where `args.windows` is set."""

    @property
    def deployments(self) -> tuple[str, ...]:
        """All that it makes."""
        return (self.deployment, MONITOR) if self.monitored else (self.deployment,)


BUILDERS: Mapping[str, Builder] = {
    "serve.app:build": Builder("Classifier", UserConfig, monitored=True),
    "serve.fleet:build": Builder("Fleet", FleetConfig, monitored=False),
}
"""By their import paths; other builders are not checked."""
GRPC_SERVICER = "serve.open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server"
"""What `grpc_options.grpc_servicer_functions` names for the Open Inference Protocol."""

_MODELS_KEY: Mapping[type[Contract], str] = {UserConfig: "model", FleetConfig: "models"}
"""The key of a `user_config` by which it is known."""
_SERVE_CONFIG = re.compile(r"^gitops/environments/([a-z0-9-]+)/serve-config\.yaml\Z")
_PROJECT = re.compile(r"^projects/[a-z0-9-]+\.yaml\Z")
_ROUTE_PREFIX = re.compile(r"/([^{}]*[^{}/])?\Z")
_MODEL = re.compile(r"^gitops/models/([a-z0-9-]+)/([1-9][0-9]{0,8})\.yaml\Z")


def serve_config_path(environment: str) -> str:
    """Where a deployments repository keeps an environment."""
    return f"{ENVIRONMENTS}/{environment}/serve-config.yaml"


def parse_serve_config_path(path: str) -> str | None:
    """The environment whose serve-config.yaml `path` is, or None."""
    match = _SERVE_CONFIG.match(path)
    return match[1] if match else None


def project_path(name: str) -> str:
    """Where a deployments repository keeps the project file of a further project."""
    return f"projects/{name}.yaml"


def is_project_path(path: str) -> bool:
    """Whether `path` is that of a project file."""
    return path == PROJECT_PATH or _PROJECT.match(path) is not None


def model_path(name: str, version: str) -> str:
    """Where a deployments repository keeps a registered version of a model."""
    return f"{MODELS}/{name}/{version}.yaml"


def parse_model_path(path: str) -> tuple[str, str] | None:
    """Name and version of the model whose manifest `path` is, or None."""
    match = _MODEL.match(path)
    return (match[1], match[2]) if match else None


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

    def targets(self) -> "tuple[Target, ...]":
        """Where models are."""
        if isinstance(self.wanted, FleetConfig):
            return tuple(Target(self, name) for name in self.wanted.models)
        return (Target(self),)


@dataclass(frozen=True)
class Target:
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

    def url(self, target: Target) -> str:
        """Where this machine reaches a model."""
        return f"http://127.0.0.1:{self.http_port}{target.route}"

    def targets(self) -> tuple[Target, ...]:
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

    def find(self, application: str | None, model: str | None, source: str) -> Target:
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
            found = taking[wanted]
            if isinstance(found.wanted, UserConfig):
                return Target(found)
            if model is not None:
                return Target(found, model)
            raise ContractError(f"{source}: {found.name} is {found.wanted}: say which of them is meant")
        names = ", ".join(taking) or "none: `user_config: {model: null}` under a deployment makes one"
        asked = (
            f"no application {wanted!r} that serves a model" if wanted else "not one application to take for granted"
        )
        raise ContractError(f"{source} has {asked}; name one of those that serve a model ({names})")


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
    if target.member is None:
        edited = _write(text, app, "model", model.model_dump())
        if target.trial and not (trial and trial.kind == target.trial.kind):
            edited = _remove(edited, app, target.trial.kind)
        if trial:
            edited = _write(edited, app, trial.kind, trial.model_dump())
    elif trial:
        raise ContractError(
            f"{source}: {app.name} is a fleet, whose models are promoted at once: to try one on a share of the "
            "requests, give it an application of its own"
        )
    else:
        edited = _write_member(text, app, target.member, model.model_dump())
    after = Environment.parse(edited, source)
    expected = before.wanted() | {target.name: UserConfig.of(model, trial)}
    if after.wanted() != expected or after.settings() != before.settings():
        raise ContractError(
            f"{source}: cannot edit the model of {target.name} alone; write it without anchors or aliases"
        )
    return edited


def with_application(text: str, project: str, environment: str, state: State | None = None) -> str:
    """The text with another application behind the others: the packaged one, at a route of the project's name.

    Args:
        text: a serve-config.yaml.
        project: name of the application.
        environment: which packaged environment it is taken from.
        state: of this machine, whose folders the application may use; None: it runs elsewhere.

    Raises:
        ContractError: the text is not valid, has an application of that name or route, or is laid out otherwise.
    """
    source = serve_config_path(environment)
    before = Environment.parse(text, source)
    seed = seed_environment(project, environment, state=state)
    values = {"route_prefix": f"/{project}"}
    if state and "feedback" in (Environment.parse(seed, source).applications[project].config.get("args") or {}):
        values["args.feedback"] = str(state.feedback / environment / project)  # each project imports its own
    for key, value in values.items():
        seed = _set(seed, value, "applications", project, *key.split("."))
    added, there = (_pair(_compose(of), "applications")[1].value for of in (seed, text))
    block = seed[seed.rindex("\n", 0, added[0].start_mark.index) :].rstrip()
    end = _line_end(text, _end(text, there[-1])) if there else 0
    edited = text[:end] + block + text[end:]
    expected = {**before.applications, project: Environment.parse(seed, source).applications[project]}
    if not there or Environment.parse(edited, source).applications != expected:
        raise ContractError(f"{source}: cannot add the application {project} behind the others; write it there by hand")
    return edited


def seed_environment(project: str, environment: str, port: int | None = None, state: State | None = None) -> str:
    """The packaged serve-config.yaml of an environment (`local`'s where there is none) with the project's name.

    Args:
        project: name of the application.
        environment: which environment.
        port: HTTP port; None: the packaged one.
        state: of this machine, whose folders the application may use, and whose cores its replicas; None: it runs
            elsewhere.
    """
    environments = importlib.resources.files("gitops") / "environments"
    packaged = environments / environment / "serve-config.yaml"
    text = (packaged if packaged.is_file() else environments / SEED / "serve-config.yaml").read_text()
    name = _pair(_pair(_compose(text), "applications")[1].value[0], "name")[1]
    text = _replace(text, _span(name), _scalar(project))
    if port is not None:
        text = with_port(text, port)
    arguments = Environment.parse(text, str(packaged)).applications[project].config.get("args") or {}
    if state is None or "journal" not in arguments:  # it runs elsewhere, or is made for other machines
        return text
    here = "applications", project
    text = _set(text, str(state.feedback / environment), *here, "args", "feedback")
    text = _set(text, str(state.reconciler / environment), *here, "args", "journal")
    text = _set(text, str(state.windows / environment), *here, "args", "windows")
    if (replicas := min(usable_cores() // arguments["threads"], _MOST_REPLICAS)) > 1:
        scaling = *here, "deployments", "Classifier", "autoscaling_config"
        text = _set(text, replicas, *scaling, "max_replicas")
        text = _set(text, _REQUESTS_OF_A_REPLICA, *scaling, "target_ongoing_requests")
    return text


def with_port(text: str, port: int) -> str:
    """The text with another HTTP port; every other character stays.

    Raises:
        ContractError: the text names no port.
    """
    return _set(text, port, "http_options", "port")


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
    deployments = _entries(entry, "deployments", source, where, required=False)
    for deployment in deployments:
        _check_deployment(deployment, entry["import_path"], source, where)
    _refuse_doubles([deployment["name"] for deployment in deployments], f"deployment in {where}", source)
    if builder := BUILDERS.get(entry["import_path"]):
        _check_monitor(builder, entry, deployments, source, where)
    found = models_of(entry, source)
    return Application(
        name=name,
        route_prefix=_route_prefix(entry, source, where),
        deployment=found[0] if found else None,
        wanted=found[1] if found else UserConfig(),
        config=entry,
    )


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
        raise ContractError(f"{source}: {import_path} makes no deployment {name!r}{_hint(name, builder.deployments)}")
    _check_keys(deployment, "deployments", source, where)
    for section in ("autoscaling_config", "ray_actor_options"):
        _check_section(deployment, section, source, where)
    user_config = deployment.get("user_config") or {}
    if not isinstance(user_config, dict):
        raise ContractError(f"{source}: {where}: user_config must be a mapping")
    if builder:
        _refuse_unknown(user_config, tuple(builder.user_config.model_fields), source, f"{where}, user_config")
        builder.user_config.parse(user_config, f"{source}: the user_config of {where}")


def _check_monitor(
    builder: Builder, entry: Mapping[str, Any], deployments: list[dict[str, Any]], source: str, where: str
) -> None:
    """Refuse what Serve would fail on: a deployment that the builder does not make, or that takes no configuration."""
    arguments = entry.get("args")
    windows = isinstance(arguments, dict) and arguments.get("windows")
    if windows and not builder.monitored:
        raise ContractError(f"{source}: {where}: {entry['import_path']} has no monitor: take `args.windows` out")
    monitor = next((deployment for deployment in deployments if deployment["name"] == MONITOR), None)
    if monitor is None:
        return
    if not windows:
        raise ContractError(
            f"{source}: {where} has the deployment {MONITOR}, which is made only where `args.windows` names a folder: "
            f"set that, or take the deployment out"
        )
    if monitor.get("user_config") is not None:
        raise ContractError(f"{source}: {where}, deployment {MONITOR}: it takes no user_config")


def _check_section(parent: Mapping[str, Any], section: str, source: str, where: str) -> None:
    found = parent.get(section)
    if found is None:
        return
    where = f"{where}, {section}" if where else section
    if not isinstance(found, dict):
        raise ContractError(f"{source}: {where} must be a mapping")
    _check_keys(found, section, source, where)


def _check_grpc(options: Mapping[str, Any], source: str) -> None:
    """Refuse a function that cannot be imported: Serve would answer 500 to all of it, and start nothing."""
    functions = options.get("grpc_servicer_functions") or []
    if not isinstance(options.get("port", 0), int) or not isinstance(functions, list):
        raise ContractError(f"{source}: grpc_options wants a number as port and a list as grpc_servicer_functions")
    for function in functions:
        if not isinstance(function, str) or (function.startswith("serve.") and function != GRPC_SERVICER):
            raise ContractError(
                f"{source}: grpc_servicer_functions: unknown {function!r}{_hint(str(function), (GRPC_SERVICER,))}"
            )


def _check_keys(found: Mapping[str, Any], section: str, source: str, where: str) -> None:
    _refuse_unknown(found, KNOWN_KEYS[section], source, where or "the top level")


def _refuse_unknown(found: Iterable[Any], known: tuple[str, ...], source: str, where: str) -> None:
    for key in found:
        if key not in known:
            raise ContractError(f"{source}: {where}: unknown key {key!r}{_hint(str(key), known)}")


def _hint(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


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


# --- editing in place -------------------------------------------------------------------------------------------------
# ruamel.yaml's nodes know where in the text they stand. Only that stretch is replaced, because writing the whole
# document anew would keep comments, but fold long lines and move indentation that the promotion has no business with.


def _write(text: str, target: Application, key: str, values: Mapping[str, Any]) -> str:
    """The text with `values` under a key of the application's `user_config`, which need not be there yet."""
    user_config = _user_config(text, target)
    if key not in _keys(user_config):
        # Behind `model`, which is not null then.
        return _insert(text, user_config, _pair(user_config, "model")[1], key, values)
    return _put(text, user_config, key, values)


def _write_member(text: str, target: Application, name: str, values: Mapping[str, Any]) -> str:
    """The text with `values` under a name in the fleet's `user_config.models`, which need not have it yet."""
    user_config = _user_config(text, target)
    models = _pair(user_config, "models")[1]
    if not isinstance(models, MappingNode) or not models.value:  # null, or {}
        return _put(text, user_config, "models", {name: values})
    if name not in _keys(models):
        return _insert(text, models, models.value[-1][1], name, values)
    return _put(text, models, name, values)


def _put(text: str, mapping: MappingNode, key: str, values: Mapping[str, Any]) -> str:
    """The text with `values` under a key that the mapping has."""
    name, node = _pair(mapping, key)
    if isinstance(node, MappingNode) and node.value:  # value by value, so that comments between them stay
        changed = [(found, value) for found, value in _leaves(node, values) if found.value != str(value)]
        for found, value in sorted(changed, key=lambda pair: -pair[0].start_mark.index):
            text = _replace(text, _span(found), _scalar(value))
        return text
    if mapping.flow_style:
        start, end = _span(node)
        space = " " if start == end else ""  # an empty value has none before it
        return _replace(text, (start, end), space + _flow(values))
    return _replace_below(text, name, node, _block(values, mapping.start_mark.column + 2))


def _insert(text: str, mapping: MappingNode, before: Node, key: str, values: Mapping[str, Any]) -> str:
    """The text with a new key in a mapping, behind the value `before`."""
    end = _end(text, before)
    if mapping.flow_style:
        return _replace(text, (end, end), f", {key}: {_flow(values)}")
    end = _line_end(text, end)  # a comment behind the last value stays there
    return _replace(text, (end, end), _block({key: values}, mapping.start_mark.column))


def _remove(text: str, target: Application, key: str) -> str:
    """The text without a key of the application's `user_config`, whose value is a mapping."""
    user_config = _user_config(text, target)
    name, node = _pair(user_config, key)
    start, end = name.start_mark.index, _end(text, node)
    if not user_config.flow_style:
        return _replace(text, (text.rindex("\n", 0, start), _line_end(text, end)), "")
    place = _keys(user_config).index(key)
    if place == 0:
        return _replace(text, (start, user_config.value[1][0].start_mark.index), "")
    return _replace(text, (_end(text, user_config.value[place - 1][1]), end), "")


def _user_config(text: str, target: Application) -> MappingNode:
    node = _find(_compose(text), "applications", target.name, "deployments", target.deployment or "", "user_config")
    if not isinstance(node, MappingNode):
        raise ContractError(f"cannot edit the user_config of {target.name}: it must stand there as a mapping")
    return node


def _keys(mapping: MappingNode) -> list[str]:
    return [key.value for key, _ in mapping.value]


def _leaves(node: Node, values: Mapping[str, Any]) -> Iterator[tuple[Node, str | int]]:
    """The scalars of a mapping, each with what shall stand there."""
    for key, value in values.items():
        found = _pair(node, key)[1]
        if isinstance(value, Mapping):
            yield from _leaves(found, value)
        else:
            yield found, value


def _end(text: str, node: Node) -> int:
    """Where a value's last character is; a block mapping is said to end where the next thing begins."""
    while isinstance(node, MappingNode) and not node.flow_style:
        node = node.value[-1][1]
    return len(text[: node.end_mark.index].rstrip())


def _line_end(text: str, start: int) -> int:
    found = text.find("\n", start)
    return len(text) if found < 0 else found


def _block(values: Mapping[str, Any], column: int) -> str:
    """Lines of a mapping in block style, each with the line break before it."""
    return "".join(
        f"\n{' ' * column}{key}:" + (_block(value, column + 2) if isinstance(value, Mapping) else f" {_scalar(value)}")
        for key, value in values.items()
    )


def _flow(values: Mapping[str, Any]) -> str:
    """A mapping in flow style."""
    pairs = (
        f"{key}: {_flow(value) if isinstance(value, Mapping) else _scalar(value)}" for key, value in values.items()
    )
    return f"{{{', '.join(pairs)}}}"


def _compose(text: str) -> Node:
    node: Node = YAML(typ="safe", pure=True).compose(text)
    return node


def _find(node: Node, *steps: str) -> Node:
    """The node that `steps` lead to: keys of mappings, and names of the mappings in a list."""
    for step in steps:
        if isinstance(node, SequenceNode):
            node = next(item for item in node.value if _pair(item, "name")[1].value == step)
        else:
            node = _pair(node, step)[1]
    return node


def _pair(node: Node, key: str) -> tuple[Node, Node]:
    for pair in node.value:
        if pair[0].value == key:
            return pair[0], pair[1]
    line = node.start_mark.line + 1
    raise ContractError(
        f"cannot edit the mapping on line {line}: its {key!r} must stand there, not come from elsewhere"
    )


def _span(node: Node) -> tuple[int, int]:
    return node.start_mark.index, node.end_mark.index


def _replace(text: str, span: tuple[int, int], value: str) -> str:
    return text[: span[0]] + value + text[span[1] :]


def _set(text: str, value: str | int, *steps: str) -> str:
    """The text with another scalar where `steps` lead to."""
    return _replace(text, _span(_find(_compose(text), *steps)), _scalar(value))


def _replace_below(text: str, key: Node, node: Node, lines: str) -> str:
    """Replace the scalar behind a key by `lines` below it; a comment behind the key stays there."""
    start, end = _span(node)
    if start == end:  # an empty value is said to stand where the next thing begins
        start = end = text.index(":", key.end_mark.index) + 1
    line_end = _line_end(text, end)
    comment = text[end:line_end].strip()
    return text[:start].rstrip(" ") + (f" {comment}" if comment else "") + lines + text[line_end:]


def _scalar(value: str | int) -> str:
    """`value` in YAML; a text is quoted where it would otherwise be read as something else."""
    if isinstance(value, int):
        return str(value)
    try:
        # In flow and in block style, which differ: a lone colon is a text in the one only.
        plain = YAML(typ="safe", pure=True).load(f"[{value}]\n") == [value]
        plain = plain and YAML(typ="safe", pure=True).load(f"key: {value}\n") == {"key": value}
    except (YAMLError, ValueError):
        plain = False
    return value if plain else json.dumps(value, ensure_ascii=False)
