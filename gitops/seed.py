"""The packaged environments, and what is made of them for a project and this machine."""

import importlib.resources

from gitops.environment import CLASSIFIER, Environment
from gitops.errors import ContractError
from gitops.layout import serve_config_path
from gitops.state import State, usable_cores
from gitops.yaml_edit import append_entry, set_scalar

SEED = "local"
"""The packaged environment that one of an unknown name starts from."""
_PACKAGED_CORES = 2
"""What the packaged environments of one machine are for."""
# Where a further replica has cores of its own: `max_replicas` of the packaged production, and for each thread as many
# requests as there.
_MOST_REPLICAS, _REQUESTS_OF_A_THREAD = 8, 4


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
    (name,) = Environment.parse(text, str(packaged)).applications
    text = set_scalar(text, project, "applications", name, "name")
    if port is not None:
        text = with_port(text, port)
    arguments = Environment.parse(text, str(packaged)).applications[project].config.get("args") or {}
    if state is None or "journal" not in arguments:  # it runs elsewhere, or is made for other machines
        return text
    here = "applications", project
    text = set_scalar(text, str(state.feedback / environment), *here, "args", "feedback")
    text = set_scalar(text, str(state.reconciler / environment), *here, "args", "journal")
    text = set_scalar(text, str(state.windows / environment), *here, "args", "windows")
    if (cores := usable_cores()) != _PACKAGED_CORES:
        scaling = *here, "deployments", CLASSIFIER, "autoscaling_config"
        replicas = min(cores, _MOST_REPLICAS)
        threads = cores // replicas
        text = set_scalar(text, threads, *here, "args", "threads")
        text = set_scalar(text, max(threads, min(cores, _PACKAGED_CORES)), *here, "args", "threads_alone")
        text = set_scalar(text, min(replicas, _PACKAGED_CORES), *scaling, "min_replicas")
        text = set_scalar(text, replicas, *scaling, "max_replicas")
        text = set_scalar(text, _REQUESTS_OF_A_THREAD * threads, *scaling, "target_ongoing_requests")
    return text


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
        seed = set_scalar(seed, value, "applications", project, *key.split("."))
    edited = append_entry(text, seed, "applications") if before.applications else text
    expected = {**before.applications, project: Environment.parse(seed, source).applications[project]}
    if Environment.parse(edited, source).applications != expected:
        raise ContractError(f"{source}: cannot add the application {project} behind the others; write it there by hand")
    return edited


def with_port(text: str, port: int) -> str:
    """The text with another HTTP port; every other character stays.

    Raises:
        ContractError: the text names no port.
    """
    return set_scalar(text, port, "http_options", "port")
