"""Finds the photographs below a folder."""

import os
from collections.abc import Iterator
from pathlib import Path

from gitops.errors import DataError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff"}
"""By which photographs are found in a folder; a file that is named is taken whatever it is called."""
_OF_THE_DISK = "lost+found"
"""What lies at the top of a disk's own file system, and is for its owner only."""


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder in the order of their names, hidden ones left out; links to folders are followed.

    Raises:
        OSError: a folder cannot be read: its photographs must not be missing without a word.
        DataError: a file's name is no text, and could be written down nowhere.
    """
    seen = set()
    for name, children, files in os.walk(folder, followlinks=True, onerror=_refuse):
        seen.add(os.path.realpath(name))
        # In place: os.walk goes where this says. A link back to where it has been would never end.
        children[:] = sorted(
            child
            for child in children
            if not child.startswith(".") and child != _OF_THE_DISK and os.path.realpath(Path(name, child)) not in seen
        )
        paths = (Path(name, file) for file in sorted(files) if not file.startswith("."))
        # A link to nothing is a photograph that cannot be read, and to be told; a pipe is none.
        yield from (_named(path) for path in paths if path.is_file() or path.is_symlink())


def _named(path: Path) -> Path:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = str(path).encode(errors="backslashreplace").decode()
        raise DataError(f"the name of the file {shown} is no UTF-8 text: rename it") from error
    return path


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # else somebody has removed it meanwhile
        raise error


def images_below(folder: Path) -> dict[str, Path]:
    """Every image below a folder by its path in it, whatever its name; hidden ones are left out."""
    images = (path for path in files_below(folder) if path.suffix.lower() in IMAGE_SUFFIXES)
    return {path.relative_to(folder).as_posix(): path for path in images}
