"""Editing YAML in place: a few values of a text change, and every other character of it stays.

ruamel.yaml's nodes know where in the text they stand. Only that stretch is replaced, because writing the whole document
anew would keep comments, but fold long lines and move indentation that the edit has no business with. `steps` lead to a
node: keys of mappings, and names (their key `name`) of the mappings in a list.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from gitops.errors import ContractError


def set_scalar(text: str, value: str | int, *steps: str) -> str:
    """The text with another scalar where `steps` lead to."""
    return _replace(text, _span(_find(_compose(text), *steps)), _scalar(value))


def set_mapping(text: str, key: str, values: Mapping[str, Any], *steps: str, behind: str | None = None) -> str:
    """The text with `values` under a key of the mapping that `steps` lead to.

    Args:
        text: a YAML document.
        key: may be missing; one that is there has a mapping or null.
        values: texts, integers, and mappings of such. What the key has there already stays if it is not among them.
        steps: to the mapping.
        behind: the key behind which a missing one is put; None: the last.

    Raises:
        ContractError: something stands there by a merge or an alias, or is no mapping.
    """
    mapping = _mapping(text, *steps)
    if key in _keys(mapping):
        return _put(text, mapping, key, values)
    return _insert(text, mapping, _pair(mapping, behind)[1] if behind else mapping.value[-1][1], key, values)


def remove(text: str, key: str, *steps: str) -> str:
    """The text without a key, whose value is a mapping, of the mapping that `steps` lead to.

    Raises:
        ContractError: something stands there by a merge or an alias, or is no mapping.
    """
    mapping = _mapping(text, *steps)
    name, node = _pair(mapping, key)
    start, end = name.start_mark.index, _end(text, node)
    if not mapping.flow_style:
        return _replace(text, (text.rindex("\n", 0, start), _line_end(text, end)), "")
    place = _keys(mapping).index(key)
    if place == 0:
        return _replace(text, (start, mapping.value[1][0].start_mark.index), "")
    return _replace(text, (_end(text, mapping.value[place - 1][1]), end), "")


def append_entry(text: str, other: str, key: str) -> str:
    """The text with the list that `other` ends with, from its first entry on, behind the entries of its own.

    Args:
        text: a YAML document with a list under `key`, in block style and not empty.
        other: one whose list under `key` is all of its rest, with the same indentation.
        key: of both documents.
    """
    first, last = _pair(_compose(other), key)[1].value[0], _pair(_compose(text), key)[1].value[-1]
    block = other[other.rindex("\n", 0, first.start_mark.index) :].rstrip()
    end = _line_end(text, _end(text, last))
    return text[:end] + block + text[end:]


def _mapping(text: str, *steps: str) -> MappingNode:
    node = _find(_compose(text), *steps)
    if not isinstance(node, MappingNode):
        raise ContractError(f"cannot edit {'.'.join(steps)}: it must stand there as a mapping")
    return node


def _put(text: str, mapping: MappingNode, key: str, values: Mapping[str, Any]) -> str:
    """The text with `values` under a key that the mapping has."""
    name, node = _pair(mapping, key)
    if isinstance(node, MappingNode) and node.value:  # value by value, so that comments between them stay
        changed = [(leaf, value) for leaf, value in _leaves(node, values) if leaf.value != str(value)]
        for leaf, value in sorted(changed, key=lambda pair: -pair[0].start_mark.index):
            text = _replace(text, _span(leaf), _scalar(value))
        return text
    if mapping.flow_style:
        start, end = _span(node)
        space = " " if start == end else ""  # an empty value has none before it
        return _replace(text, (start, end), space + _flow(values))
    return _replace_below(text, name, node, _block(values, mapping.start_mark.column + 2))


def _insert(text: str, mapping: MappingNode, before: Node, key: str, values: Mapping[str, Any]) -> str:
    """The text with a new key in a mapping, behind the value `before`."""
    end = _end(text, before)
    if mapping.flow_style:
        return _replace(text, (end, end), f", {key}: {_flow(values)}")
    end = _line_end(text, end)  # a comment behind the last value stays there
    return _replace(text, (end, end), _block({key: values}, mapping.start_mark.column))


def _keys(mapping: MappingNode) -> list[str]:
    return [key.value for key, _ in mapping.value]


def _leaves(node: Node, values: Mapping[str, Any]) -> Iterator[tuple[Node, str | int]]:
    """The scalars of a mapping, each with what shall stand there."""
    for key, value in values.items():
        present = _pair(node, key)[1]
        if isinstance(value, Mapping):
            yield from _leaves(present, value)
        else:
            yield present, value


def _end(text: str, node: Node) -> int:
    """Where a value's last character is; a block mapping is said to end where the next thing begins."""
    while isinstance(node, MappingNode) and not node.flow_style:
        node = node.value[-1][1]
    return len(text[: node.end_mark.index].rstrip())


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end


def _block(values: Mapping[str, Any], column: int) -> str:
    """Lines of a mapping in block style, each with the line break before it."""
    return "".join(
        f"\n{' ' * column}{key}:" + (_block(value, column + 2) if isinstance(value, Mapping) else f" {_scalar(value)}")
        for key, value in values.items()
    )


def _flow(values: Mapping[str, Any]) -> str:
    """A mapping in flow style."""
    pairs = (
        f"{key}: {_flow(value) if isinstance(value, Mapping) else _scalar(value)}" for key, value in values.items()
    )
    return f"{{{', '.join(pairs)}}}"


def _compose(text: str) -> Node:
    node: Node = YAML(typ="safe", pure=True).compose(text)
    return node


def _find(node: Node, *steps: str) -> Node:
    """The node that `steps` lead to: keys of mappings, and names of the mappings in a list."""
    for step in steps:
        if isinstance(node, SequenceNode):
            node = next(item for item in node.value if _pair(item, "name")[1].value == step)
        else:
            node = _pair(node, step)[1]
    return node


def _pair(node: Node, key: str) -> tuple[Node, Node]:
    for pair in node.value:
        if pair[0].value == key:
            return pair[0], pair[1]
    line = node.start_mark.line + 1
    raise ContractError(
        f"cannot edit the mapping on line {line}: its {key!r} must stand there, not come from elsewhere"
    )


def _span(node: Node) -> tuple[int, int]:
    return node.start_mark.index, node.end_mark.index


def _replace(text: str, span: tuple[int, int], value: str) -> str:
    return text[: span[0]] + value + text[span[1] :]


def _replace_below(text: str, key: Node, node: Node, lines: str) -> str:
    """Replace the scalar behind a key by `lines` below it; a comment behind the key stays there."""
    start, end = _span(node)
    if start == end:  # an empty value is said to stand where the next thing begins
        start = end = text.index(":", key.end_mark.index) + 1
    line_end = _line_end(text, end)
    comment = text[end:line_end].strip()
    return text[:start].rstrip(" ") + (f" {comment}" if comment else "") + lines + text[line_end:]


def _scalar(value: str | int) -> str:
    """`value` in YAML; a text is quoted where it would otherwise be read as something else."""
    if isinstance(value, int):
        return str(value)
    try:
        # In flow and in block style, which differ: a lone colon is a text in the one only.
        plain = YAML(typ="safe", pure=True).load(f"[{value}]\n") == [value]
        plain = plain and YAML(typ="safe", pure=True).load(f"key: {value}\n") == {"key": value}
    except (YAMLError, ValueError):
        plain = False
    return value if plain else json.dumps(value, ensure_ascii=False)
