"""Ray on one machine: started for a state folder, found again by it, and ended without touching any other Ray."""

import os
import random
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
from pydantic import Field

from gitops.contracts.base import Contract
from gitops.errors import MergelineError
from gitops.state import State, locked, usable_cores, write_atomically
from monitoring.configuration import targets
from ray_jobs import ingress, processes

_START_SECONDS = 180
_POLL_SECONDS = 0.2
_FOLDER_PREFIX = "mergeline-ray-"
_HEAD_NODE = "ray.scripts.scripts"  # what the command `ray` runs
_VITAL = ("gcs_server", "raylet")  # a Ray on one machine is lost without either
_ATTEMPTS = 3  # Ray gives its own processes 30 s to come up, which a busy machine exceeds
# Some are bound a minute after they were chosen: none that the system gives to connections (on Linux 32768 and up), and
# none that Ray gives to its workers (10002 to 19999).
_FREE_PORTS = range(20_000, 30_000)
_LEAST_CPUS = 4  # Ray only counts them: training and serving must be placed beside each other on two cores


class ClusterError(MergelineError):
    """The local Ray could not be started, or is not what the state folder says."""


SILENCE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",  # where it would report that it does not; nobody listens there
}
"""What keeps Ray from telling others that it is used; for the pods it stands in gitops/base/rayservice.yaml."""


# When it is told to end, a node goes on serving for up to 30 s, until others have taken over: here there are none, so
# that this only delays the end, in which what is being answered fails either way.
_ALONE = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}


class Session(Contract):
    """What runs for a state folder: `session/session.json`."""

    id: str = Field(description="Value of MERGELINE_SESSION in every process of the session.")
    ray_address: str = Field(description="host:port of Ray's GCS.")
    dashboard: str = Field(description="URL of Ray's dashboard, Jobs API and Serve API.")
    token_file: str = Field(description="File with Ray's authentication token.")
    folder: str = Field(description="Ray's temporary folder: sockets, logs, spilled objects; removed at the end.")
    without_haproxy: str = Field(
        default="", description="Why Ray Serve's own, slower proxy takes requests; empty: HAProxy does."
    )

    def environment(self) -> dict[str, str]:
        """Variables that make a client use this Ray, and no other on the machine."""
        return {
            "RAY_ADDRESS": self.ray_address,
            "RAY_API_SERVER_ADDRESS": self.dashboard,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": self.token_file,
            **SILENCE,
            # A driver that uv started would have Ray build its environment anew for the workers.
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        }

    def is_running(self) -> bool:
        """Whether the session's Ray answers and has a node to work on."""
        token = Path(self.token_file)
        if not token.exists():
            return False
        try:
            answer = httpx.get(
                f"{self.dashboard}/nodes?view=summary",
                headers={"Authorization": f"Bearer {token.read_text().strip()}"},
                timeout=5,
                trust_env=False,  # a proxy for the internet must not see this machine's own addresses
            )
        except httpx.HTTPError:
            return False
        return answer.status_code == httpx.codes.OK and '"ALIVE"' in answer.text


def next_folder() -> Path:
    """A folder as Ray would be given now: its name's length counts."""
    return Path(tempfile.gettempdir(), f"{_FOLDER_PREFIX}{'x' * 8}")


def session_of(state: State) -> Session | None:
    """The session that the state folder knows of, running or not."""
    file = state.session / "session.json"
    return Session.read(file) if file.exists() else None


def start(state: State, *, dashboard_port: int | None = None, variables: Mapping[str, str] | None = None) -> Session:
    """Start a Ray head node for the state folder, or return the one that runs.

    Args:
        state: the state folder.
        dashboard_port: port on 127.0.0.1; 8265 if it is free, else any, when None.
        variables: further environment variables for Ray's processes.

    Raises:
        ClusterError: Ray did not come up.
    """
    return start_or_join(state, dashboard_port, variables)[0]


def start_or_join(
    state: State, dashboard_port: int | None = None, variables: Mapping[str, str] | None = None
) -> tuple[Session, bool]:
    """What `start` does, and whether it was this call that started the session: who did is to end it, and nobody else.

    Of two commands at once the second waits for what the first starts. Each with a session of its own, one would be in
    no file, and nothing would ever end it.
    """
    with locked(state.session / "lock"):
        session = session_of(state)
        if session and session.is_running():
            return session, False
        if session:
            stop(state)
        for _ in range(_ATTEMPTS - 1):
            with suppress(ClusterError):
                return _launch(state, dashboard_port or free_port(8265), dict(variables or {})), True
        return _launch(state, dashboard_port or free_port(8265), dict(variables or {})), True


def _launch(state: State, dashboard_port: int, variables: dict[str, str]) -> Session:
    state.session.mkdir(parents=True, exist_ok=True)
    token_file = state.session / "ray-token"
    write_atomically(token_file, secrets.token_hex(32), mode=0o600)
    port = free_port(6379)
    # Ray's sockets lie in its temporary folder, and a socket's path may have 107 characters only.
    folder = tempfile.mkdtemp(prefix=_FOLDER_PREFIX)
    session = Session(
        id=secrets.token_hex(8),
        ray_address=f"127.0.0.1:{port}",
        dashboard=f"http://127.0.0.1:{dashboard_port}",
        token_file=str(token_file),
        folder=folder,
        without_haproxy=ingress.obstacle(Path(folder)),
    )
    try:
        write_atomically(state.session / "session.json", session.to_json())
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # what no file names, nobody would ever remove
        raise
    command = [
        *[sys.executable, "-m", _HEAD_NODE, "start", "--head", "--block", "--disable-usage-stats"],
        *[f"--port={port}", "--node-ip-address=127.0.0.1", f"--temp-dir={folder}"],
        *["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"],
        *[f"--num-cpus={max(_LEAST_CPUS, usable_cores())}", f"--ray-client-server-port={free_port(10001)}"],
        "--dashboard-agent-listen-port=0",  # free where it binds: two Rays that start together would pick the same
    ]
    log = state.session / "ray.log"
    if session.without_haproxy:
        with log.open("a") as lines:
            lines.write(f"Ray Serve's own, slower proxy takes requests: {session.without_haproxy}\n")
    chosen = _ALONE | ingress.variables(Path(folder), free_port) | variables
    head = spawn(session, command, log, chosen)
    try:
        _await_answer(session, head, log)
        _publish_targets(state, session, chosen.get(ingress.METRICS_PORT))
    except BaseException:
        stop(state)
        raise
    return session


def _await_answer(session: Session, head: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not session.is_running():
        ended, _ = os.waitpid(head, os.WNOHANG)
        if ended or time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise ClusterError(f"Ray did not start at {session.ray_address}; the end of {log}:\n{tail}")
        time.sleep(_POLL_SECONDS)


def _target_files(state: State) -> tuple[Path, Path]:
    """Where Prometheus finds Ray's metrics, and HAProxy's own."""
    return state.targets / "ray.json", state.targets / "haproxy.json"


def _publish_targets(state: State, session: Session, haproxy_port: str | None) -> None:
    """Let Prometheus find what this session exports."""
    ray, haproxy = _target_files(state)
    ray.parent.mkdir(parents=True, exist_ok=True)
    ray.unlink(missing_ok=True)
    # Ray keeps this file up to date: nodes come and go.
    ray.symlink_to(Path(session.folder) / "session_latest" / "prom_metrics_service_discovery.json")
    if haproxy_port:
        write_atomically(haproxy, targets(f"127.0.0.1:{haproxy_port}", "haproxy"))


def spawn(session: Session, command: list[str], log: Path, variables: Mapping[str, str] | None = None) -> int:
    """Start a process of the session in the background, with what it needs to use this Ray; returns its id."""
    environment = os.environ | session.environment() | dict(variables or {})
    if _HEAD_NODE in command:  # it must not look for another Ray to join
        environment.pop("RAY_ADDRESS")
    return processes.spawn(session.id, command, log, environment)


def vital_processes(session: Session) -> list[psutil.Process]:
    """Those without which the session's Ray has ended."""
    found = []
    for process in processes.of(session.id):
        with suppress(psutil.NoSuchProcess):
            if process.name() in _VITAL:
                found.append(process)
    return found


def stop(state: State) -> int:
    """End every process of the state folder's session, politely first; returns how many there were."""
    session = session_of(state)
    if session is None:
        return 0
    count = processes.end(session.id, session.folder)
    shutil.rmtree(session.folder, ignore_errors=True)
    (state.session / "session.json").unlink(missing_ok=True)
    for file in _target_files(state):
        file.unlink(missing_ok=True)
    return count


def free_port(preferred: int) -> int:
    """`preferred` if nothing listens there on 127.0.0.1, else any free port; 0: any.

    Raises:
        ClusterError: none is free.
    """
    others = random.sample(_FREE_PORTS, len(_FREE_PORTS))
    for port in [preferred, *others] if preferred else others:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ClusterError("no port is free on 127.0.0.1")
