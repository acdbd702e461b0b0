"""Where things lie, and that they are written whole or not at all."""

import os
import threading
from pathlib import Path

import pytest

from gitops.errors import ContractError, told
from gitops.promotion import to_yaml
from gitops.state import (
    State,
    append_line,
    folder_written_whole,
    lines_backwards,
    locked,
    stable_json,
    write_atomically,
)
from tests.gitops.deployments import make_version


def test_asking_for_paths_makes_nothing(tmp_path: Path) -> None:
    state = State.at(tmp_path / "state")
    places = (state.sources, state.datasets, state.runs, state.bundles, state.models, state.comparisons)
    assert len({*places, state.mlflow, state.repository, state.reconciler, state.session}) == 10
    assert not state.root.exists()


def test_a_relative_state_folder_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert State.at(Path(".mergeline")).root == tmp_path / ".mergeline"


def test_versions_are_counted_as_numbers(tmp_path: Path) -> None:
    state = State.at(tmp_path)
    for number in ("2", "10", "1"):
        version = make_version(tmp_path, number)
        write_atomically(state.models / "screw" / f"{number}.yaml", to_yaml(version))
    assert [version.model.version for version in state.versions("screw")] == ["1", "2", "10"]
    assert state.versions("bolt") == []


def test_a_version_is_known_by_its_bundle_and_read_again_once_it_has_changed(tmp_path: Path) -> None:
    state, file = State.at(tmp_path), tmp_path / "models" / "screw" / "1.yaml"
    first, other = make_version(tmp_path, "1"), make_version(tmp_path, "2")
    second = other.model_copy(update={"model": other.model.model_copy(update={"version": "1"})})
    assert state.version_of(first.model) is None
    write_atomically(file, to_yaml(first))
    assert state.version_of(first.model) == first
    assert state.version_of(second.model) is None
    write_atomically(file, to_yaml(second))
    assert (state.version_of(first.model), state.version_of(second.model)) == (None, second)


def test_a_secret_is_never_for_others_to_read(tmp_path: Path) -> None:
    write_atomically(tmp_path / "token", "secret", mode=0o600)
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


def test_lines_are_read_from_the_end_whatever_their_length(tmp_path: Path) -> None:
    file, lines = tmp_path / "deep" / "lines", [f"{number} " + "ü" * 40_000 * (number % 3) for number in range(7)]
    for line in lines:
        append_line(file, line)
    assert list(lines_backwards(file)) == lines[::-1]
    assert next(lines_backwards(file)) == lines[-1]
    file.write_text(file.read_text() + "cut o")
    append_line(file, "last")
    assert list(lines_backwards(file)) == ["last", *lines[::-1]]
    file.write_text("")
    assert list(lines_backwards(file)) == []


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomically(path, "one")
    write_atomically(path, "two")
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_the_name_of_a_file_is_brought_to_the_disk_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def note(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    write_atomically(tmp_path / "file", "x")
    assert synced == [(tmp_path / "file").stat().st_ino, tmp_path.stat().st_ino]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "bundles" / "abc"
    with folder_written_whole(target) as folder:
        (folder / "file").write_text("x")
        assert not target.exists()
    assert (target / "file").read_text() == "x"
    assert target.stat().st_mode & 0o777 == 0o755


def test_a_folder_is_on_the_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(Path(f"/proc/self/fd/{handle}").readlink().name))
    with folder_written_whole(tmp_path / "abc") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("x")
    assert sorted(synced) == sorted(["deep", "file", folder.name, tmp_path.name])
    assert synced[-1] == tmp_path.name


def test_of_two_that_write_a_folder_at_once_both_succeed(tmp_path: Path) -> None:
    target = tmp_path / "abc"
    with folder_written_whole(target) as slow:
        (slow / "file").write_text("slow")
        with folder_written_whole(target) as fast:
            (fast / "file").write_text("fast")
    assert (target / "file").read_text() == "fast"
    assert [entry.name for entry in tmp_path.iterdir()] == ["abc"]


def test_a_folder_that_is_replaced_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    def write(text: str, error: type[BaseException] | None = None) -> None:
        with folder_written_whole(tmp_path / "1-2", replace=True) as folder:
            (folder / "file").write_text(text)
            if error:
                raise error

    write("old")
    with pytest.raises(OSError, match=r"^$"):  # a full disk, say
        write("half", OSError)
    assert (tmp_path / "1-2" / "file").read_text() == "old"
    write("new")
    assert (tmp_path / "1-2" / "file").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["1-2"]


def test_a_folder_whose_writing_fails_never_appears(tmp_path: Path) -> None:
    def write_half() -> None:
        with folder_written_whole(tmp_path / "abc") as folder:
            (folder / "file").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_already_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "abc"
    target.mkdir()
    (target / "file").write_text("first")
    with folder_written_whole(target) as folder:
        (folder / "file").write_text("second")
    assert (target / "file").read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["abc"]


def test_digests_are_taken_of_stable_text() -> None:
    assert (
        stable_json({"b": 1, "a": [1, 2.5, "ü"]})
        == stable_json({"a": [1, 2.5, "ü"], "b": 1})
        == '{"a":[1,2.5,"ü"],"b":1}'
    )


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    path, order = tmp_path / "deep" / "lock", []

    def second() -> None:
        with locked(path):
            order.append("second")

    with locked(path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.1)  # it waits
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_file_that_is_named_like_no_version_is_told(tmp_path: Path) -> None:
    write_atomically(tmp_path / "models" / "screw" / "notes.yaml", "x")
    with pytest.raises(ContractError, match=r"notes\.yaml is not named like a version, as 1\.yaml: move it away"):
        State.at(tmp_path).versions("screw")


def test_what_cannot_be_written_is_told_with_its_place_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for place, named, said in (
        ("file/x", tmp_path / "file", "File exists; something else lies there"),
        ("file/x/y", tmp_path / "file/x", "Not a directory; something else lies there"),
        ("folder", tmp_path / "folder", "Is a directory; something else lies there"),
        ("n" * 256, tmp_path / f".{'n' * 256}", "File name too long; choose a shorter name"),
    ):
        with pytest.raises(OSError, match="Errno") as caught:
            write_atomically(tmp_path / place, "text")
        line = told(caught.value)
        assert line is not None
        assert line.startswith(str(named))
        assert said in line
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"], "nothing is half-written"


def test_a_mistake_of_ours_is_no_message() -> None:
    assert told(FileNotFoundError(2, "No such file or directory", "ours")) is None


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="this system has no device that is always full")
def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr("tempfile.mkstemp", lambda **_: (full, str(tmp_path / "temporary")))
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(tmp_path / "page.html", "text")
    assert told(caught.value) == f"{tmp_path / 'page.html'}: No space left on device; make room"
