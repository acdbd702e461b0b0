"""A few values of a text change, and nothing else; the tests of promotions (test_environment.py) go further."""

import pytest

from gitops.errors import ContractError
from gitops.yaml_edit import append_entry, remove, set_mapping, set_scalar

TEXT = """\
# Parts.
parts:
  - name: screw   # the first
    size: {length: 3, width: 1}
    made:
      year: 2026  # so it says
      by: them
"""


def test_a_scalar_is_set_where_the_steps_lead() -> None:
    assert set_scalar(TEXT, 4, "parts", "screw", "size", "length") == TEXT.replace("3", "4")
    assert set_scalar(TEXT, "a: b", "parts", "screw", "made", "by") == TEXT.replace("them", '"a: b"')


def test_a_mapping_is_written_into_block_and_flow_style_and_taken_out_again() -> None:
    place = "parts", "screw", "made"
    block = set_mapping(TEXT, "at", {"town": "Ulm"}, *place, behind="year")
    assert block == TEXT.replace("# so it says\n", "# so it says\n      at:\n        town: Ulm\n")
    assert remove(block, "at", *place) == TEXT
    flow = set_mapping(TEXT, "head", {"width": 2}, "parts", "screw", "size")
    assert flow == TEXT.replace("width: 1}", "width: 1, head: {width: 2}}")
    assert remove(flow, "head", "parts", "screw", "size") == TEXT


def test_an_entry_is_added_behind_the_others() -> None:
    assert append_entry(TEXT, "parts:\n  - name: nut\n", "parts") == TEXT.rstrip() + "\n  - name: nut\n"


def test_what_is_no_mapping_is_not_edited() -> None:
    with pytest.raises(ContractError, match=r"cannot edit parts\.screw\.name: it must stand there as a mapping"):
        set_mapping(TEXT, "key", {}, "parts", "screw", "name")
    with pytest.raises(ContractError, match="its 'colour' must stand there"):
        remove(TEXT, "colour", "parts", "screw")
