"""Where things lie under the state folder (`.mergeline/` unless `--state` says otherwise)."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from gitops.contracts.serving import ModelVersion, ServedModel
from gitops.errors import ContractError

_BLOCK_BYTES = 64 * 1024


@dataclass(frozen=True)
class State:
    """The state folder; asking for a path makes nothing."""

    root: Path

    @classmethod
    def at(cls, root: Path) -> "State":
        """The state under `root`, which need not exist yet."""
        return cls(root.expanduser().resolve())

    @property
    def sources(self) -> Path:
        """Photographs as they came: one folder a source."""
        return self.root / "sources"

    @property
    def labels(self) -> Path:
        """Labels that were imported: `<project>.json`; photographs that came with feedback: `<project>/`."""
        return self.root / "labels"

    @property
    def datasets(self) -> Path:
        """Datasets by digest: Parquet shards, manifest, quality report."""
        return self.root / "datasets"

    @property
    def runs(self) -> Path:
        """Training runs by id: checkpoints, result, evaluation."""
        return self.root / "runs"

    @property
    def stages(self) -> Path:
        """How the runs of the stages went: `<project>/<stage>.json`."""
        return self.root / "stages"

    @property
    def bundles(self) -> Path:
        """Model bundles by digest."""
        return self.root / "bundles"

    @property
    def models(self) -> Path:
        """Registered versions: `<name>/<version>.yaml`."""
        return self.root / "models"

    @property
    def comparisons(self) -> Path:
        """Comparisons of two versions: `<A>-<B>`."""
        return self.root / "comparisons"

    @property
    def mlflow(self) -> Path:
        """MLflow's database and artifacts."""
        return self.root / "mlflow"

    @property
    def repository(self) -> Path:
        """The bare deployments repository that `mergeline up` makes."""
        return self.root / "deployments.git"

    @property
    def reconciler(self) -> Path:
        """Status, history and lock of the reconciler: one folder an environment."""
        return self.root / "reconciler"

    @property
    def feedback(self) -> Path:
        """What users said of judgements, with the photographs: one folder an environment."""
        return self.root / "feedback"

    @property
    def monitoring(self) -> Path:
        """Prometheus's and Alertmanager's configuration and data, and in `targets` what there is to scrape."""
        return self.root / "monitoring"

    @property
    def targets(self) -> Path:
        """Files for Prometheus's service discovery: `<who exports>.json`."""
        return self.monitoring / "targets"

    @property
    def windows(self) -> Path:
        """Windows of photographs, by which drift is judged: one folder an environment, with one an application."""
        return self.root / "windows"

    @property
    def drift(self) -> Path:
        """Reports on drift: `<project>/<time>.html`."""
        return self.root / "drift"

    @property
    def retraining(self) -> Path:
        """The latest retraining of each project, `<project>.json`; what asks for the next, `<project>.request.json`."""
        return self.root / "retraining"

    @property
    def session(self) -> Path:
        """What `mergeline up` started: process ids, addresses, the token, logs."""
        return self.root / "session"

    def versions(self, name: str) -> list[ModelVersion]:
        """The registered versions of a model, oldest first.

        Raises:
            ContractError: one of them cannot be read, or a file there is not named like a version.
        """
        files = list((self.models / name).glob("*.yaml"))
        if strange := [file for file in files if not file.stem.isdecimal()]:
            raise ContractError(f"{strange[0]} is not named like a version, as 1.yaml: move it away")
        files.sort(key=lambda file: int(file.stem))
        return [_read_version(file, file.stat().st_mtime_ns) for file in files]

    def version_of(self, model: ServedModel) -> ModelVersion | None:
        """The registered version of this bundle; None where there is none, or another registry gave its number.

        Raises:
            ContractError: it cannot be read.
        """
        file = self.models / model.name / f"{model.version}.yaml"
        try:
            version = _read_version(file, file.stat().st_mtime_ns)
        except OSError:
            return None
        return version if version.model.sha256 == model.sha256 else None

    def evaluation_pages(self) -> dict[str, Path]:
        """The evaluation's page of each bundle, by its digest, where the run that made it is still here."""
        pages: dict[str, Path] = {}
        for report in self.runs.glob("*/evaluation.json"):
            page = report.parent / "evaluation" / "report.html"
            if page.exists() and (bundle := json.loads(report.read_text()).get("bundle")):
                pages.setdefault(bundle, page)
        return pages


@lru_cache(maxsize=512)
def _read_version(file: Path, _changed_ns: int) -> ModelVersion:
    return ModelVersion.read(file)  # YAML takes a tenth of a second


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock on a file, which is made if it is not there.

    The kernel gives it back when its process ends, however that happens.

    Args:
        path: the file.
        wait: until whoever holds it gives it back.

    Raises:
        BlockingIOError: somebody holds it, and it is not to be waited for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def write_atomically(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Write a file that is there whole or not at all, and on the disk when this returns; text as UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say where it is
            error.filename = str(path)
        raise


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, on the disk when this returns; what a crash left behind the last whole line is cut off.

    Args:
        path: the file, made with its folder if it is not there; only one process writes into it at a time.
        line: without its end.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = path.exists()
    with path.open("a+b") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        if file.read(1) not in (b"", b"\n"):  # nobody was told that this line is kept
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    if not begun:
        sync_folder(path.parent)
        sync_folder(path.parent.parent)


def lines_backwards(path: Path) -> Iterator[str]:
    """Yield the lines of a file that are not empty, the last one first, reading no more of it than is asked for."""
    with path.open("rb") as file:
        position, rest = file.seek(0, os.SEEK_END), b""
        while position:
            size = min(_BLOCK_BYTES, position)
            position -= size
            file.seek(position)
            rest, *lines = (file.read(size) + rest).split(b"\n")
            yield from (line.decode(errors="replace") for line in reversed(lines) if line)
        if rest:
            yield rest.decode(errors="replace")


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk: without, a file that was written may have none after a power cut."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int = os.O_RDONLY) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def folder_written_whole(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `target` that becomes `target` if the block succeeds, and vanishes if not.

    All of it is on the disk then: whoever finds the folder after a power cut finds its files.

    Args:
        target: the folder. One that exists already is kept: another run was faster, and its name says that its contents
            are the same.
        replace: the name says no such thing: what is there gives way, but not before the new one is whole.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield temporary
        temporary.chmod(0o755)
        for path in (*temporary.rglob("*"), temporary):
            if not path.is_symlink():
                _sync(path)
        if replace:
            shutil.rmtree(target, ignore_errors=True)
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():
                raise
        sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def stable_json(value: object) -> str:
    """JSON whose bytes depend on the value only: what digests are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
