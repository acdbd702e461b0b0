"""Photographs are found, and what cannot be looked at is told."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gitops.errors import DataError
from serve.photographs import images_below

_NOBODY = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may look into: pytest's are for their owner only."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_folder_that_cannot_be_read_is_not_passed_over(folder: Path) -> None:
    (folder / "a.png").write_text("")
    (folder / "lost+found").mkdir(mode=0)
    (folder / "bent").mkdir()
    before = os.geteuid()
    if before == 0:  # root may read everything
        os.seteuid(_NOBODY)
    try:
        assert list(images_below(folder)) == ["a.png"]
        os.seteuid(before)
        (folder / "bent").chmod(0)
        if before == 0:
            os.seteuid(_NOBODY)
        with pytest.raises(PermissionError, match="bent"):
            images_below(folder)
    finally:
        os.seteuid(before)
        (folder / "bent").chmod(0o755)


def test_a_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    Path(os.fsdecode(bytes(tmp_path) + b"/bad\xff.png")).write_text("")
    with pytest.raises(DataError, match=r"bad\\udcff\.png is no UTF-8 text: rename it"):
        images_below(tmp_path)


def test_odd_names_are_names(tmp_path: Path) -> None:
    names = ["%41.png", "'quote\".png", "-dash.png", "[red]x[-].png", "a b.png", "new\nline.png", "ü#1.png"]
    for name in names:
        (tmp_path / name).write_text("")
    assert list(images_below(tmp_path)) == names
