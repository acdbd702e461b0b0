"""Servers to compare: ours as `mergeline up` starts it, the peers, and a load generator (Debian's `hey`)."""

import base64
import csv
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx
import psutil

from benchmarks.peers.judging import BUNDLE_VARIABLE
from gitops import environment
from gitops.bundle import MANIFEST, digest
from gitops.contracts.model import BundleManifest
from gitops.contracts.serving import ServedModel
from gitops.seed import seed_environment
from gitops.serve_api import ServeApi
from gitops.state import State, usable_cores
from ray_jobs import cluster, processes
from tests.processes import processes_named

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / ".mergeline-peers"
"""Where the peers' environments are kept between runs."""
_READY_SECONDS = 90
_GONE_SECONDS = 120
# What the code behind every server needs; a peer's environment takes the newest that go with it.
_OURS = (
    *("kornia-rs", "numpy", "opencv-python-headless", "openvino", "pillow", "pydantic", "ruamel.yaml"),
    "simplejpeg",
)


class NotStartedError(Exception):
    """A server did not come up; the reason says why."""


@dataclass(frozen=True)
class Body:
    """A request's body and its headers."""

    content: bytes
    headers: Mapping[str, str]


def raw(photograph: bytes) -> Body:
    """The photograph as it is."""
    return Body(photograph, {"content-type": "application/octet-stream"})


def base64_tensor(photograph: bytes) -> Body:
    """The Open Inference Protocol in JSON."""
    text = base64.b64encode(photograph).decode()
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [text]}
    return Body(json.dumps({"inputs": [tensor]}).encode(), {"content-type": "application/json"})


def base64_field(photograph: bytes) -> Body:
    """A JSON object with the photograph in it."""
    text = base64.b64encode(photograph).decode()
    return Body(json.dumps({"image": text}).encode(), {"content-type": "application/json"})


def base64_instance(photograph: bytes) -> Body:
    """TensorFlow Serving's protocol, which KServe calls V1."""
    text = base64.b64encode(photograph).decode()
    return Body(json.dumps({"instances": [{"image": {"b64": text}}]}).encode(), {"content-type": "application/json"})


class Server(Protocol):
    """What answers at a URL."""

    @property
    def name(self) -> str: ...

    @property
    def url(self) -> str: ...

    @property
    def body(self) -> Callable[[bytes], Body]: ...


@dataclass(frozen=True)
class Peer:
    """How a peer is installed and started."""

    name: str
    requirements: tuple[str, ...]
    command: tuple[str, ...]
    """`{python}`, `{bin}` and `{port}` are filled in."""
    path: str = "/predict"
    body: Callable[[bytes], Body] = raw
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """JSON files of its working folder."""


PEERS = (
    Peer(
        "fastapi",
        ("fastapi==0.140.0", "uvicorn[standard]==0.41.0"),
        (
            "{bin}/uvicorn",
            "benchmarks.peers.fastapi_service:app",
            "--workers={cores}",
            "--port={port}",
            "--no-access-log",
        ),
    ),
    Peer(
        "bentoml",
        ("bentoml==1.4.40",),
        ("{bin}/bentoml", "serve", "benchmarks.peers.bentoml_service:Classifier", "--port={port}"),
    ),
    Peer(
        "litserve",
        ("litserve==0.2.19",),
        ("{python}", "-m", "benchmarks.peers.litserve_service", "{port}"),
        body=base64_field,
    ),
    Peer(
        "kserve",
        ("kserve==0.21.0",),
        ("{python}", "-m", "benchmarks.peers.kserve_service", "{port}"),
        "/v1/models/classifier:predict",
        base64_instance,
    ),
    Peer(
        "mlserver",
        ("mlserver==1.7.1", "uvloop<0.22"),  # with later ones its workers raise at their start
        ("{bin}/mlserver", "start", "."),
        "/v2/models/classifier/infer",
        base64_tensor,
        {
            "settings.json": {
                "http_port": "{port}",
                "grpc_port": "{grpc}",
                "metrics_endpoint": None,
                "parallel_workers": "{cores}",
                "debug": False,
            },
            "model-settings.json": {
                "name": "classifier",
                "implementation": "benchmarks.peers.mlserver_runtime.Classifier",
            },
        },
    ),
)
NAIVE = Peer(
    "naive",
    (),
    ("{python}", "-m", "uvicorn", "benchmarks.peers.naive_service:app", "--port={port}", "--no-access-log"),
)
"""In our own environment, which has TensorFlow."""


@dataclass
class RunningPeer:
    """A peer's process."""

    name: str
    url: str
    body: Callable[[bytes], Body]
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """End it and its workers."""
        left: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            left = psutil.Process(self.process.pid).children(recursive=True)
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.kill()
        self.process.wait()


def install(peer: Peer) -> Path:
    """The folder of a peer's programs: in an environment that is made if it isn't there, or in ours if it needs none.

    Raises:
        NotStartedError: the registry has no such thing, or it cannot be reached.
    """
    if not peer.requirements:
        return Path(sys.executable).parent
    folder = ENVIRONMENTS / "-".join(re.sub(r"[^\w.]+", "-", requirement) for requirement in peer.requirements)
    installed, wanted = folder / "installed", "\n".join((*peer.requirements, *_OURS))
    if not installed.exists() or installed.read_text() != wanted:  # made when our code needed less
        shutil.rmtree(folder, ignore_errors=True)
        uv = [sys.executable, "-m", "uv"]
        try:
            subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
            install_them = [*uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python")]
            subprocess.run([*install_them, *peer.requirements, *_OURS], check=True)
        except subprocess.CalledProcessError as error:
            raise NotStartedError(f"{peer.name} could not be installed: {error}") from error
        installed.write_text(wanted)
    return folder / "bin"


def start(peer: Peer, bundle: Path, folder: Path, photograph: bytes) -> RunningPeer:
    """Install and start a peer, and wait until it judges.

    Raises:
        NotStartedError: it did not; with the end of its log.
    """
    programs, port = install(peer), cluster.free_port(0)
    folder.mkdir(parents=True)
    values = {
        "bin": str(programs),
        "python": str(programs / "python"),
        "port": port,
        "grpc": cluster.free_port(0),
        "cores": usable_cores(),
    }
    for name, content in peer.files.items():
        filled = {key: values.get(str(value).strip("{}"), value) for key, value in content.items()}
        (folder / name).write_text(json.dumps(filled))
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [part.format(**values) for part in peer.command],
            cwd=folder,
            env=os.environ
            | {BUNDLE_VARIABLE: str(bundle), "PYTHONPATH": str(ROOT), "PATH": f"{programs}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = RunningPeer(peer.name, f"http://127.0.0.1:{port}{peer.path}", peer.body, process)
    try:
        await_answer(running, photograph, lambda: process.poll() is None)
    except NotStartedError as error:
        running.stop()
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise NotStartedError(f"{peer.name} did not answer: {error}\n{tail}") from error
    return running


def await_answer(server: Server, photograph: bytes, lives: Callable[[], bool]) -> None:
    """Wait until a server answers a photograph with 200."""
    body, last = server.body(photograph), "nothing yet"
    deadline = time.monotonic() + _READY_SECONDS
    while lives() and time.monotonic() < deadline:
        try:
            answer = httpx.post(server.url, content=body.content, headers=body.headers, timeout=30, trust_env=False)
            if answer.status_code == httpx.codes.OK:
                return
            last = f"{answer.status_code} {answer.text[:300]}"
        except httpx.HTTPError as error:
            last = repr(error)
        time.sleep(0.3)
    raise NotStartedError(f"last answer: {last}" if lives() else "its process ended")


@dataclass
class Mergeline:
    """Our own service, with the packaged `local` environment."""

    state: State
    bundle: Path
    name: str = "mergeline"
    path: str = "/predict"
    body: Callable[[bytes], Body] = raw
    port: int = field(default_factory=lambda: cluster.free_port(0))
    settings: dict[str, int] = field(default_factory=dict)
    """Lines of the environment that have another value."""

    @property
    def url(self) -> str:
        """Where it takes photographs."""
        return f"http://127.0.0.1:{self.port}{self.path}"

    def start(self, photograph: bytes) -> None:
        """Start Ray, deploy, and wait until it judges."""
        session = cluster.start(self.state, dashboard_port=cluster.free_port(0), variables={"PYTHONPATH": str(ROOT)})
        self.api().put(self.config())
        await_answer(self, photograph, session.is_running)

    def config(self) -> dict[str, Any]:
        """What Serve is asked for."""
        return environment.Environment.parse(self.text(), "the packaged environment").config

    def text(self) -> str:
        """The packaged environment with the bundle as version 1."""
        name = BundleManifest.read(self.bundle / MANIFEST).name
        model = ServedModel(name=name, version="1", uri=self.bundle.as_uri(), sha256=digest(self.bundle))
        text = seed_environment(name, "local", self.port)
        for key, value in self.settings.items():
            text, found = re.subn(rf"(?<=\b{key}: )\d+", str(value), text)
            assert found == 1, f"the environment has {found} lines {key}"
        return environment.promote(text, None, model)

    def api(self) -> ServeApi:
        """Serve's REST API of the Ray that runs."""
        session = cluster.session_of(self.state)
        assert session is not None
        return ServeApi(session.dashboard, Path(session.token_file).read_text().strip())

    def processes(self) -> list[psutil.Process]:
        """All of Ray's."""
        session = cluster.session_of(self.state)
        return processes.of(session.id) if session else []

    def pause(self) -> None:
        """Stop Ray's processes where they are: at rest they take a tenth of a core, which a peer should have."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def stop(self) -> None:
        """End Ray."""
        self.resume()
        cluster.stop(self.state)


def await_no_replica(served: Mergeline) -> None:
    """Wait until the last replica's process has ended: one that drains still answers, and Serve lists it no more."""
    deadline = time.monotonic() + _GONE_SECONDS
    while left := processes_named(served.state, "ray::ServeReplica:"):
        assert time.monotonic() < deadline, f"replicas did not end: {list(left)}"
        time.sleep(0.2)


@dataclass(frozen=True)
class Answered:
    """A request, as the load generator saw it."""

    sent: float
    """When, in seconds of `time.time`."""
    seconds: float
    """Until the answer had come."""
    status: int
    """0: there was none."""


@dataclass(frozen=True)
class Load:
    """What a load generator saw."""

    seconds: list[float]
    """Of each answer."""
    throughput: float
    """Answers a second."""
    failed: int
    """Answers other than 200, and requests without one."""


def load(server: Server, photograph: Path, concurrency: int, requests: int) -> Load:
    """Send one photograph again and again, from so many connections that are kept open.

    Args:
        server: where to.
        photograph: its file; beside it lies what was sent.
        concurrency: connections, each with one request at a time.
        requests: at least so many; each connection sends as many.
    """
    total, begin = concurrency * math.ceil(requests / concurrency), time.time()
    found = _hey(server, photograph, concurrency, "-n", str(total))
    answered = [one for one in found if one.status == httpx.codes.OK]
    end = max((one.sent + one.seconds for one in answered), default=math.inf)
    return Load([one.seconds for one in answered], len(answered) / (end - begin), total - len(answered))


def load_for(server: Server, photograph: Path, concurrency: int, seconds: int) -> list[Answered]:
    """As `load`, for so long; each request by itself."""
    return _hey(server, photograph, concurrency, "-z", f"{seconds}s")


def _hey(server: Server, photograph: Path, concurrency: int, *how_many: str) -> list[Answered]:
    body = server.body(photograph.read_bytes())
    file = photograph.with_suffix(f".{server.name}")
    file.write_bytes(body.content)
    headers = [f"-H={name}: {value}" for name, value in body.headers.items() if name != "content-type"]
    command = ["hey", *how_many, "-c", str(concurrency), "-m", "POST", "-o", "csv", "-D", str(file)]
    options = ["-t", "60", "-T", body.headers["content-type"], "-disable-compression", *headers]
    begin = time.time()
    output = subprocess.run([*command, *options, server.url], check=True, capture_output=True, text=True).stdout
    return [
        Answered(begin + float(row["offset"]), float(row["response-time"]), int(row["status-code"]))
        for row in csv.DictReader(io.StringIO(output))
    ]
