"""Photographs are found, and what cannot be looked at is told."""

import os
from pathlib import Path

import pytest

from gitops.errors import DataError
from serve.photographs import images_below
from tests.rights import as_nobody, open_folder


def test_a_folder_that_cannot_be_read_is_not_passed_over() -> None:
    with open_folder() as folder:
        (folder / "a.png").write_text("")
        (folder / "lost+found").mkdir(mode=0)
        (folder / "bent").mkdir()
        with as_nobody():
            assert list(images_below(folder)) == ["a.png"]
        (folder / "bent").chmod(0)
        with as_nobody(), pytest.raises(PermissionError, match="bent"):
            images_below(folder)
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
