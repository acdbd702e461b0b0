"""Looks for processes of a session, which may end while they are looked at."""

from contextlib import suppress

import psutil

from gitops.state import State
from ray_jobs import cluster, processes


def processes_named(state: State, name: str) -> dict[int, psutil.Process]:
    """Processes of a state folder's Ray by their ids; Ray gives its own longer names than the system has room for.

    Args:
        state: whose.
        name: the process's own, or the beginning of its command line.
    """
    session = cluster.session_of(state)
    assert session
    found = {}
    for process in processes.of(session.id):
        with suppress(psutil.NoSuchProcess):
            if process.name() == name or "".join(process.cmdline()).startswith(name):
                found[process.pid] = process
    return found
