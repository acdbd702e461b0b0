"""Whose turn it is: a real lock, held by another thread as another process would hold it."""

import fcntl
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gitops.errors import StalledError
from gitops.turn import Turn


def test_the_holder_is_named_to_who_comes_second(tmp_path: Path) -> None:
    first, second = Turn(tmp_path / "local"), Turn(tmp_path / "local")
    with first.taken():
        assert second.is_taken()
        with second.tried() as taken:
            assert not taken
        with pytest.raises(StalledError, match=rf"process {os.getpid()}\) works for environment local"), second.taken():
            pass
    assert not second.is_taken()


def test_a_request_that_comes_while_another_is_taken_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn, read = Turn(tmp_path), Path.read_text
    asked: list[str] = []

    def read_slowly(path: Path) -> str:
        text = read(path)
        if not asked:
            asked.append(turn.ask())
        return text

    monkeypatch.setattr(Path, "read_text", read_slowly)
    first = turn.ask()
    assert [turn.take_request(), turn.take_request(), turn.take_request()] == [first, *asked, None]


def test_a_look_at_the_lock_keeps_nobody_from_taking_it(tmp_path: Path) -> None:
    turn, looking, done = Turn(tmp_path), threading.Event(), threading.Event()

    def look() -> None:  # what `is_taken` does for a moment, made long enough to be met
        with (tmp_path / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            looking.set()
            time.sleep(0.1)
        done.set()

    thread = threading.Thread(target=look)
    thread.start()
    looking.wait()
    with turn.taken():
        assert done.wait(1)
    thread.join()


def test_who_looks_does_not_take_others_who_look_for_the_holder(tmp_path: Path) -> None:
    turn = Turn(tmp_path)
    assert not turn.is_taken()
    with turn.taken():
        pass
    (tmp_path / "lock").chmod(0o444)
    with (tmp_path / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # what `is_taken` does for a moment
        assert not turn.is_taken()
    with ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(lambda _: Turn(tmp_path).is_taken(), range(2000)))
    (tmp_path / "lock").chmod(0o644)
    with turn.taken(), ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: Turn(tmp_path).is_taken(), range(200)))


def test_a_holder_that_has_not_yet_said_who_it_is_is_waited_for(tmp_path: Path) -> None:
    lock, locked = tmp_path / "lock", threading.Event()
    end = threading.Event()

    def hold() -> None:
        with lock.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            locked.set()
            time.sleep(0.1)
            file.write("4711\n")
            file.flush()
            end.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait()
    with pytest.raises(StalledError, match="process 4711"), Turn(tmp_path).taken():
        pass
    end.set()
    thread.join()


def test_a_request_is_taken_once(tmp_path: Path) -> None:
    turn = Turn(tmp_path)
    assert turn.take_request() is None
    request = turn.ask()
    assert turn.is_asked()
    assert turn.take_request() == request
    assert not turn.is_asked()
