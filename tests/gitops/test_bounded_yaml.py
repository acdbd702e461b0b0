"""YAML that unfolds into more than anybody wrote is refused before it does."""

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from gitops import bounded_yaml
from gitops.contracts.project import Project
from gitops.environment import Environment
from gitops.errors import ContractError
from gitops.seed import seed_environment

BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))]
)
NESTED = f"deep: {'[' * 1000}{']' * 1000}"
CHAIN = "\n".join(["c0: &c0 [x]", *(f"c{n}: &c{n} [*c{n - 1}]" for n in range(1, 200))])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "stands for more than 200000 values, its aliases written out"),
        (NESTED, "is nested more than 64 deep"),
        (CHAIN, "is nested more than 64 deep"),
        ("a: &a [*a]", r"the alias \*a stands within what it names"),
        ("a: *b", "is not YAML"),
        ("a: 1\na: 2", "is not YAML"),
        ("a: 1\n---\nb: 1", "one document"),
        ("# a line\n" * (bounded_yaml.LONGEST // 8), "letters; at most 4194304 are read"),
    ],
)
@pytest.mark.parametrize("read", [bounded_yaml.load, Project.from_yaml, Environment.parse])
def test_what_exceeds_a_limit_is_refused_at_once(text: str, said: str, read: Callable[[str, str], Any]) -> None:
    began = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(ContractError, match=rf"a\.yaml.*{said}"):
            read(text, "a.yaml")
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("text", ["a: !!bool x", "a: !!int ''", "a: !!float ''", "a: 2026-13-45"])
def test_a_value_that_its_tag_cannot_be_is_no_yaml(text: str) -> None:
    with pytest.raises(ContractError, match=r"a\.yaml is not YAML"):
        bounded_yaml.load(text, "a.yaml")


def test_what_people_write_is_read() -> None:
    assert bounded_yaml.load("a: &a {b: [1, 2]}\nc: *a\nd: {<<: *a, e: 1}", "a.yaml") == {
        "a": {"b": [1, 2]},
        "c": {"b": [1, 2]},
        "d": {"b": [1, 2], "e": 1},
    }
    assert bounded_yaml.load("", "a.yaml") is None
    assert bounded_yaml.load_all("a: 1\n---\n---\nb: 1\n", "a.yaml") == [{"a": 1}, None, {"b": 1}]
    deepest = bounded_yaml.DEEPEST
    assert bounded_yaml.load("[" * deepest + "]" * deepest, "a.yaml")
    text = seed_environment("screw", "production")
    assert bounded_yaml.load(text, "a.yaml") == Environment.parse(text, "a.yaml").config
