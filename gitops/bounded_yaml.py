"""Reads YAML that somebody pushed, within limits: a few lines of aliases can stand for gigabytes."""

from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

from gitops.errors import ContractError

LONGEST = 4 * 2**20
"""Letters of a text."""
DEEPEST = 64
"""Lists and mappings in one another, aliases written out."""
MOST_NODES = 200_000
"""Values and keys, aliases written out."""


class _Constructor(SafeConstructor):
    """Takes a plain `=`, as in an AlertmanagerConfig, for the text that YAML 1.2 says it is."""


_Constructor.add_constructor("tag:yaml.org,2002:value", SafeConstructor.construct_yaml_str)


def load(text: str, source: str) -> Any:
    """The text's one document as dictionaries, lists and scalars.

    Args:
        text: YAML 1.2 (or JSON).
        source: named in errors.

    Raises:
        ContractError: it is no YAML, a key is double, or it exceeds a limit.
    """
    documents = load_all(text, source)
    if len(documents) > 1:
        raise ContractError(f"{source} is not YAML of one document: it has {len(documents)}")
    return documents[0] if documents else None


def load_all(text: str, source: str) -> list[Any]:
    """The same for a text of any number of documents.

    Raises:
        ContractError: as of `load`.
    """
    if len(text) > LONGEST:
        raise ContractError(f"{source} has {len(text)} letters; at most {LONGEST} are read")
    try:
        _mind_limits(text, source)
        yaml = YAML(typ="safe", pure=True)
        yaml.Constructor = _Constructor
        return list(yaml.load_all(text))
    except (YAMLError, ValueError, LookupError) as error:  # the last two are ruamel's, for an impossible date, say
        raise ContractError(f"{source} is not YAML: {error}") from error


def _mind_limits(text: str, source: str) -> None:
    """Read the events alone, which takes no more memory than the text, and count what they would become."""
    anchors: dict[str, tuple[int, int]] = {}  # nodes and depth of what each stands for
    open_: list[tuple[str | None, int, int]] = [(None, 0, 0)]  # anchor, nodes and depth of what is being read
    for event in YAML(typ="safe", pure=True).parse(text):
        if isinstance(event, CollectionStartEvent):
            open_.append((event.anchor, 1, 1))
        elif isinstance(event, CollectionEndEvent):
            anchor, nodes, depth = open_.pop()
            _close(open_, anchors, anchor, nodes, depth)
        elif isinstance(event, ScalarEvent):
            _close(open_, anchors, event.anchor, 1, 0)
        elif isinstance(event, AliasEvent):
            if event.anchor in (anchor for anchor, _, _ in open_):
                raise ContractError(f"{source}: the alias *{event.anchor} stands within what it names")
            nodes, depth = anchors.get(event.anchor, (1, 0))  # one that is not defined is the loader's to refuse
            _close(open_, anchors, None, nodes, depth)
        if len(open_) - 2 + open_[-1][2] > DEEPEST:
            raise ContractError(f"{source} is nested more than {DEEPEST} deep")
        if open_[-1][1] > MOST_NODES:
            raise ContractError(f"{source} stands for more than {MOST_NODES} values, its aliases written out")


def _close(
    open_: list[tuple[str | None, int, int]],
    anchors: dict[str, tuple[int, int]],
    anchor: str | None,
    nodes: int,
    depth: int,
) -> None:
    """Count a value that has been read to what it stands in."""
    if anchor is not None:
        anchors[anchor] = (nodes, depth)
    outer, so_far, deepest = open_[-1]
    open_[-1] = (outer, so_far + nodes, max(deepest, depth + 1))
