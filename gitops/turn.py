"""Whose turn it is: one reconciler writes for an environment, others ask it, and signals end it in order."""

import fcntl
import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

from gitops.errors import StalledError
from gitops.state import State, write_atomically
from gitops.status import Health, Journal, Status, Sync

# Who only looks whether the lock is held holds it for that moment, and a new holder has yet to write who it is.
_PATIENCE_SECONDS = 0.5
_TICK_SECONDS = 0.01


class Turn:
    """The lock of one environment, and the requests to who holds it.

    Args:
        folder: the environment's folder of the reconciler; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = folder / "lock"
        self._requests = folder / "sync-request.json"

    @contextmanager
    def tried(self) -> Iterator[bool]:
        """Hold the lock; yields False if another process does."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._lock.open("a+") as file:
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while not (taken := _try_lock(file)) and time.monotonic() < deadline:
                time.sleep(_TICK_SECONDS)
            if taken:
                file.truncate(0)
                file.write(f"{os.getpid()}\n")
                file.flush()
            yield taken

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the lock.

        Raises:
            StalledError: another process does.
        """
        with self.tried() as taken:
            if not taken:
                holder = self._lock.read_text().strip() or "?"
                raise StalledError(
                    f"another reconciler (process {holder}) works for environment {self._folder.name} "
                    f"in {self._folder}; end it first, or ask it with `mergeline sync`"
                )
            yield

    def is_taken(self) -> bool:
        """Whether a process holds the lock now."""
        # Shared, as several may look at once; and for reading, as the folder may be mounted so.
        try:
            with self._lock.open() as file:
                return not _try_lock(file, fcntl.LOCK_SH)
        except FileNotFoundError:
            return False

    def ask(self) -> str:
        """Ask who holds the lock for a sync; returns the request's id, which the operation will carry."""
        request = secrets.token_hex(8)
        write_atomically(self._requests, json.dumps({"id": request}) + "\n")
        return request

    def is_asked(self) -> bool:
        """Whether a request waits."""
        return self._requests.exists()

    def take_request(self) -> str | None:
        """The id of the request that waits, which waits no longer; None if there is none."""
        taken = self._requests.with_suffix(".taken")
        try:
            self._requests.rename(taken)  # first: a request that comes while this one is read must not go with it
        except FileNotFoundError:
            return None
        return str(json.loads(taken.read_text())["id"])


def is_watched(state: State, environment: str) -> bool:
    """Whether a reconciler works for the environment now."""
    return Turn(state.reconciler / environment).is_taken()


def known_status(journal: Journal) -> tuple[Status, bool]:
    """The status of an environment as far as anybody knows it now, and whether a reconciler keeps it up.

    Where none does, what was seen last need not be so any more: sync and health are Unknown, and the message says it.
    """
    found, watched = journal.status(), is_watched(journal.state, journal.environment)
    if watched or found.reconciled_at is None:
        return found, watched
    seen = found.reconciled_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    text = f"nobody looks any more; at {seen} it was {found.sync.status} and {found.health.status}"
    health, sync = Health(status="Unknown", message=text), Sync(status="Unknown", revision=found.sync.revision)
    return found.model_copy(update={"sync": sync, "health": health}), watched


@contextmanager
def stopping_by_signal(stop: threading.Event) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C set `stop`; a second one ends the process where it stands."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    earlier = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _try_lock(file: IO[str], kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
