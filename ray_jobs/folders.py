"""What folders say of the photographs in them: classes, kinds of defect, or nothing."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

# Folders that say nothing about what is in the picture; the line splits by itself.
_PARTITION = re.compile(r"(train|test|val|valid|validation)(ing)?([ _-]?(set|data|images))?|images|data", re.IGNORECASE)


def class_of_folder(name: str, classes: Sequence[str], folders: Mapping[str, str | None]) -> str | None:
    """The class that a folder's name means, if any: `OK_front` means the class `ok-front`.

    Args:
        name: of the folder.
        classes: the project's.
        folders: `data.folders` of the project file.
    """
    label = folders.get(name) or re.sub(r"[ _]", "-", name.lower())
    return label if label in classes else None


def usual_depth(depths: Iterable[int]) -> int:
    """How deep the folders lie that name classes: where most of the good ones do; 0 without any."""
    return max(Counter(depths).most_common(1), default=(0, 0))[0]


def name_at(parts: Sequence[str], depth: int) -> str | None:
    """What a photograph's folders call it, at the depth of the classes: `test/bent` at depth 1 is `bent`.

    Args:
        parts: names of the folders, outermost first.
        depth: see `usual_depth`.

    Returns:
        None: nothing; it lies in no folder, or only in one as `test`, which says nothing of it.
    """
    name = parts[min(depth, len(parts) - 1)] if parts else None
    return None if name is None or _PARTITION.fullmatch(name) else name


def absolute(data: str) -> str:
    """What `--data` means to whoever runs elsewhere: a folder's whole path, the names of other sources as they are."""
    return data if data in ("", "rendered", "kaggle") else str(Path(data).expanduser().resolve())
