"""What this machine has and lacks for the line."""

import importlib.metadata
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import psutil
from pydantic import Field

from gitops.contracts.base import Contract
from gitops.repository import LEAST_GIT
from gitops.state import State, usable_cores
from ray_jobs import cluster, ingress, monitor

_GIB = 2**30
_LEAST_MEMORY, _LEAST_DISK, _LEAST_SHARED_MEMORY = 6 * _GIB, 5 * _GIB, 1 * _GIB


class Level(Enum):
    """How much a finding matters."""

    OK = "ok"
    OPTIONAL = "optional"
    """Lacking, and something that not everybody needs does not work."""
    MISSING = "missing"
    """Lacking, and the line does not run."""


class Check(Contract):
    """One finding."""

    name: str
    level: Level
    found: str = Field(description="What is there.")
    remedy: str = Field(default="", description="What to do where something lacks.")


def examine(state: State, port: int) -> list[Check]:
    """Look at everything that the line needs; nothing is changed."""
    return [*_software(), *_hardware(state), *_ports(state, port), *_ingress(state), *_optional()]


def _check(name: str, fine: bool, found: str, remedy: str, otherwise: Level = Level.MISSING) -> Check:
    return Check(name=name, level=Level.OK if fine else otherwise, found=found, remedy="" if fine else remedy)


def _software() -> Iterator[Check]:
    version = sys.version_info
    yield _check("Python", version >= (3, 11), sys.version.split()[0], "install Python 3.11 or newer")
    git = _git_version()
    found = ".".join(map(str, git)) if git else "none"
    yield _check("git", git >= LEAST_GIT, found, f"install git {'.'.join(map(str, LEAST_GIT))} or newer")
    for package in ("ray", "openvino", "mlflow", "keras"):
        found = _installed(package)
        yield _check(package, bool(found), found or "none", "run `make install`")
    tensorflow = _installed("tensorflow-cpu") or _installed("tensorflow")
    yield _check("TensorFlow", bool(tensorflow), tensorflow or "none", "run `make install`, or install mergeline[gpu]")


def _git_version() -> tuple[int, ...]:
    import subprocess

    if not shutil.which("git"):
        return ()
    words = subprocess.run(["git", "--version"], capture_output=True, text=True, check=False).stdout.split()
    return tuple(int(part) for part in words[2].split(".")[:3] if part.isdigit()) if len(words) > 2 else ()


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _hardware(state: State) -> Iterator[Check]:
    cores = usable_cores()
    yield _check(
        "cores", cores > 1, str(cores), "training and serving share one core: expect it to be slow", Level.OPTIONAL
    )
    memory = psutil.virtual_memory().available
    yield _check(
        "memory", memory >= _LEAST_MEMORY, f"{memory / _GIB:.1f} GiB free", "free memory: the line takes 6 GiB"
    )
    place = next(folder for folder in (state.root, *state.root.parents) if folder.exists())
    disk = shutil.disk_usage(place).free
    yield _check("disk", disk >= _LEAST_DISK, f"{disk / _GIB:.1f} GiB free at {place}", "free 5 GiB, or use --state")
    shared = Path("/dev/shm")  # noqa: S108 - this is where Ray keeps its objects
    size = shutil.disk_usage(shared).free if shared.exists() else 0
    remedy = "Ray falls back to the disk, slower: give the container --shm-size 2g"
    yield _check("shared memory", size >= _LEAST_SHARED_MEMORY, f"{size / _GIB:.1f} GiB", remedy, Level.OPTIONAL)


def _ports(state: State, port: int) -> Iterator[Check]:
    session = cluster.session_of(state)
    if session and session.is_running():
        yield Check(name="Ray", level=Level.OK, found=f"running for this state folder, {session.dashboard}")
        return
    busy = in_use(port)
    found = "in use" if busy else "free"
    yield _check(
        f"port {port}", not busy, found, f"end what listens on {port}, or choose another: `mergeline up --port`"
    )


def in_use(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _ingress(state: State) -> Iterator[Check]:
    session = cluster.session_of(state)
    lacking = session.without_haproxy if session else ingress.obstacle(cluster.next_folder())
    found = "Ray Serve's own, slower proxy answers instead" if lacking else "takes requests"
    yield _check("HAProxy", not lacking, found, lacking, Level.OPTIONAL)


def _optional() -> Iterator[Check]:
    gpu = shutil.which("nvidia-smi")
    yield _check("GPU", bool(gpu), gpu or "none", "training runs on the CPU", Level.OPTIONAL)
    kaggle = _kaggle_credentials()
    yield _check(
        "Kaggle credentials", bool(kaggle), kaggle or "none", "set KAGGLE_API_TOKEN for --data kaggle", Level.OPTIONAL
    )
    github = shutil.which("gh") or ("GITHUB_TOKEN" if os.environ.get("GITHUB_TOKEN") else "")
    remedy = "install gh or set GITHUB_TOKEN to open pull requests on GitHub"
    yield _check("GitHub", bool(github), github or "none", remedy, Level.OPTIONAL)
    prometheus = all(map(shutil.which, (monitor.PROMETHEUS, monitor.ALERTMANAGER)))
    remedy = f"for `mergeline monitor up`: install {monitor.PROMETHEUS} and {monitor.ALERTMANAGER}"
    yield _check("Prometheus", prometheus, "installed" if prometheus else "none", remedy, Level.OPTIONAL)


def _kaggle_credentials() -> str:
    if os.environ.get("KAGGLE_API_TOKEN"):
        return "KAGGLE_API_TOKEN"
    if os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"):
        return "KAGGLE_USERNAME and KAGGLE_KEY"
    folder = Path(os.environ.get("KAGGLE_CONFIG_DIR", "~/.kaggle")).expanduser()
    return next((str(folder / name) for name in ("access_token", "kaggle.json") if (folder / name).exists()), "")
