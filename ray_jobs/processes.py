"""Processes that outlive the command which starts them: found again by a mark, and ended without touching others."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

SESSION_VARIABLE = "MERGELINE_SESSION"
"""Set for every process that a session starts and inherited by their children: how they are found again."""
STOP_SECONDS = 20
"""What processes get to end by themselves."""


def spawn(session: str, command: list[str], log: Path, environment: Mapping[str, str]) -> int:
    """Start a process of a session in the background: out of reach of the terminal's Ctrl-C, its output in a file.

    Args:
        session: the session's id.
        command: the program's path, and its arguments.
        log: gets what it says, behind what is there.
        environment: all of its variables but the session's.

    Returns:
        Its process id.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    # Not subprocess.Popen, which wants to be waited for: this process outlives the one that starts it.
    variables = {**environment, SESSION_VARIABLE: session}
    return os.posix_spawn(command[0], command, variables, file_actions=files, setsid=True)


def of(session: str, folder: str | None = None) -> list[psutil.Process]:
    """Every living process of a session but the one that asks.

    Args:
        session: the session's id.
        folder: Ray's folder of it. Ray's own processes that have outlived all others are known by their files there.
    """
    folder = os.path.realpath(folder) if folder else None
    mark = f"{SESSION_VARIABLE}={session}".encode()
    living = [process for process in psutil.process_iter() if process.pid != os.getpid() and is_alive(process)]
    marked = [process for process in living if mark in _environment_of(process)]
    marked += [process for process in living if folder and _is_of_ray(process, folder)]
    # Ray's processes rename themselves, which may overwrite their environment; but `spawn` gave them a POSIX session of
    # their own, that no process from elsewhere can join.
    groups = {_posix_session(process) for process in marked} - {None, _posix_session(psutil.Process())}
    return [process for process in living if process in marked or _posix_session(process) in groups]


def end(session: str, folder: str | None = None, *, grace: float = STOP_SECONDS) -> int:
    """End every process of a session, politely first; returns how many there were.

    Args:
        session: as for `of`.
        folder: the same.
        grace: seconds after which those are ended by force that are still there.
    """
    ours = of(session, folder)
    # The parents end their children themselves; what they leave after the grace is ended by force.
    roots = [process for process in ours if not any(parent in ours for parent in _parents(process))]
    for process in roots:
        _signal(process, force=False)
    psutil.wait_procs(roots, timeout=grace)
    left = of(session, folder)
    for process in left:
        _signal(process, force=True)
    psutil.wait_procs(left, timeout=STOP_SECONDS)
    return len(ours)


def is_alive(process: psutil.Process) -> bool:
    """Whether a process has not ended, be it that nobody has asked for its end yet."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _environment_of(process: psutil.Process) -> bytes:
    """What a process was started with. psutil's own reading stops where a process has overwritten a part."""
    try:
        file = Path(f"/proc/{process.pid}/environ")
        if file.exists():
            return file.read_bytes()
        return "\0".join(f"{name}={value}" for name, value in process.environ().items()).encode()
    except (psutil.Error, OSError):
        return b""  # gone, or another user's: then it is none of ours


def _is_of_ray(process: psutil.Process, folder: str) -> bool:
    """Whether this is a process that Ray has renamed, and that writes into its folder."""
    with suppress(psutil.Error, OSError):
        renamed = "".join(process.cmdline()[:1]).startswith("ray::")
        return renamed and any(file.path.startswith(f"{folder}/") for file in process.open_files())
    return False


def _posix_session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except OSError:
        return None


def _parents(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.parents()
    except psutil.NoSuchProcess:
        return []


def _signal(process: psutil.Process, *, force: bool) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill() if force else process.terminate()
