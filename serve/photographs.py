"""Finds the photographs below a folder."""

from collections.abc import Iterator
from pathlib import Path

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
"""By which photographs are found in a folder; a file that is named is taken whatever it is called."""


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder that is not hidden."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def images_below(folder: Path) -> dict[str, Path]:
    """Every image below a folder by its path in it, whatever its name; hidden ones are left out."""
    images = (path for path in files_below(folder) if path.suffix.lower() in IMAGE_SUFFIXES)
    return {path.relative_to(folder).as_posix(): path for path in images}
