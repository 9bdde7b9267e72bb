"""Stored text is a value of its own, or refers to others. The first character tells which."""

from __future__ import annotations

import pytest

from orchestrator.rules import values


@pytest.mark.parametrize("text", ["[]", "{}", '["a"]', '"="', ""])
def test_a_value_of_its_own_refers_to_nothing(text: str) -> None:
    stored = values.own(text)
    assert stored == values.OWN + text
    assert values.references(stored) == ()


@pytest.mark.parametrize(
    "stored, refs",
    [
        (values.EMPTY_DICT, ()),
        (values.EMPTY_LIST, ()),
        (values.refers_dict({"a": "v1", "b": "", "c": "v1"}), ("v1", "v1")),
        (values.refers_list(["v2", "", "v1"]), ("v2", "v1")),
    ],
)
def test_references_are_found_in_order(stored: str, refs: tuple[str, ...]) -> None:
    """The empty id stands for None and refers to nothing."""
    assert values.references(stored) == refs


def test_the_forms_are_told_apart_by_their_first_character() -> None:
    """A store keeps them without reading them."""
    forms = [values.own("1"), values.refers_dict({"a": "v"}), values.refers_list(["v"])]
    assert [form[0] for form in forms] == ["=", "{", "["]
