"""A value without a form is refused before anything is written, and the error names it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Secret, SecretBytes, SecretStr, model_serializer

from orchestrator.codec import decode, encode, with_text_keys
from orchestrator.errors import PayloadTooLarge, ValueNotSerializable


class Foreign:
    """A class that nobody knows how to write."""


@pytest.mark.parametrize(
    "value",
    [Foreign(), object(), len, lambda: None, Foreign, int, iter([1]), (x for x in "ab"), range(3), dataclasses],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_json_form_is_refused(value: Any) -> None:
    with pytest.raises(ValueNotSerializable, match=type(value).__name__) as caught:
        encode({"a": [1, {"b": value}]}, where="output of step charge")
    assert caught.value.where == "output of step charge"
    assert caught.value.field == "a.1.b"
    assert "output of step charge" in str(caught.value)
    assert "'a.1.b'" in str(caught.value)


def test_the_refusal_is_a_type_error_too() -> None:
    with pytest.raises(TypeError):
        encode(Foreign())


def test_a_value_refused_as_a_whole_has_no_field() -> None:
    with pytest.raises(
        ValueNotSerializable, match=r"^input is of type tests\.codec\.test_refusals\.Foreign, "
    ) as caught:
        encode(Foreign(), where="input")
    assert caught.value.field == ""


def test_a_field_inside_models_and_dataclasses_is_named() -> None:
    @dataclasses.dataclass
    class Inner:
        part: Any

    class Outer(BaseModel):
        inner: list[Any]

    with pytest.raises(ValueNotSerializable) as caught:
        encode([Outer(inner=[0, Inner(Foreign())])])
    assert caught.value.field == "0.inner.1.part"


@pytest.mark.parametrize("secret", [SecretStr("s3cret"), SecretBytes(b"s3cret"), Secret[int](7)], ids=repr)
def test_a_secret_is_neither_written_nor_named(secret: Any) -> None:
    class Login(BaseModel):
        user: str
        password: Any

    for value in (secret, [secret], Login(user="me", password=secret)):
        with pytest.raises(ValueNotSerializable, match="secrets are not stored") as caught:
            encode(value)
        assert "s3cret" not in str(caught.value)


class Half(Enum):
    ONE = 0.5


@pytest.mark.parametrize("key", [None, (1, 2), b"k", timedelta(1), frozenset(), Foreign(), Half.ONE], ids=repr)
@pytest.mark.parametrize("surrogate", ["a", "\ud800", float("nan")], ids=["plain", "surrogate", "nan"])
def test_a_key_that_is_no_name_is_refused(key: Any, surrogate: Any) -> None:
    with pytest.raises(ValueNotSerializable, match="keys must be strings"):
        encode({"a": {key: surrogate}})


def test_keys_that_become_one_are_refused() -> None:
    with pytest.raises(ValueNotSerializable, match="two keys that both become '1'"):
        encode({1: "a", "1": "b"})


@pytest.mark.parametrize("keys", [(True, "true"), (0.1, Decimal("0.1")), (date(2024, 1, 1), "2024-01-01")], ids=repr)
def test_keys_of_other_types_that_become_one_are_refused(keys: tuple[Any, Any]) -> None:
    with pytest.raises(ValueNotSerializable, match="two keys that both become"):
        encode({key: number for number, key in enumerate(keys)})


def test_a_refused_key_is_named_however_little_it_says_of_itself() -> None:
    class Mute:
        def __str__(self) -> str:
            raise RuntimeError("no")

    for key in (Mute(), ("\ud800" * 1000,)):
        with pytest.raises(ValueNotSerializable, match="keys must be strings") as caught:
            encode({"a": {key: 1}})
        assert caught.value.field.startswith("a.")
        assert len(caught.value.field) < 100
        assert caught.value.field.isprintable()


@pytest.mark.parametrize("key", ["\ud800", "a\udce9b", "\ud83d\ude00", None, (1, 2), b"k", object()], ids=ascii)
def test_a_name_that_is_no_text_is_refused(key: Any) -> None:
    with pytest.raises(ValueNotSerializable, match="state of step 'charge', field .*, (is a key|has a lone)") as caught:
        with_text_keys({key: 1}, "state of step 'charge'")
    assert str(caught.value).encode()


def test_names_that_become_one_are_refused() -> None:
    with pytest.raises(ValueNotSerializable, match="state has two keys that both become '1'"):
        with_text_keys({1: "a", "1": "b"}, "state")


def test_names_become_the_text_that_keys_of_dicts_become() -> None:
    keys = ["a", "a\0b", "", "😀", 1, True, 1.5, Half.__name__, UUID(int=1), date(2024, 1, 1)]
    assert with_text_keys(dict.fromkeys(keys, 1), "state") == decode(encode(dict.fromkeys(keys, 1)))


def test_a_key_with_a_split_pair_is_refused() -> None:
    with pytest.raises(ValueNotSerializable, match="surrogate"):
        encode({"\ud83d\ude00": 1})


def _itself() -> Any:
    value: list[Any] = []
    value += [value, value]
    return value


def _dict_of_itself() -> Any:
    value: dict[str, Any] = {}
    value["a"] = [value, value]
    return value


def _model_of_itself() -> Any:
    class Node(BaseModel):
        next: Any = None

    node = Node()
    node.next = [node]
    return node


def _dataclass_of_itself() -> Any:
    @dataclasses.dataclass
    class Node:
        next: Any = None

    node = Node()
    node.next = node
    return node


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "make",
    [_itself, _dict_of_itself, _model_of_itself, _dataclass_of_itself, lambda: _deep(200), lambda: _deep(100_000)],
)
def test_a_value_that_contains_itself_or_is_too_deep_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueNotSerializable) as caught:
        encode(make())
    assert len(str(caught.value)) < 400


def test_what_is_just_deep_enough_comes_back() -> None:
    assert decode(encode(_deep(128))) == _deep(128)
    assert decode(encode([_deep(100), Decimal(1), "\ud800"])) == [_deep(100), Decimal(1), "\ud800"]


def test_a_level_of_dataclasses_counts_once() -> None:
    @dataclasses.dataclass
    class Node:
        next: Any = None

    value = Node()
    for _ in range(100):
        value = Node(value)
    assert decode(encode(value))["next"]["next"]


def test_a_number_that_only_the_slow_writer_meets_may_be_too_long() -> None:
    with pytest.raises(ValueNotSerializable, match="cannot be written"):
        encode(["\ud800", 10**5000])


def test_refusing_works_near_the_end_of_the_stack() -> None:
    def dive() -> str:
        try:
            return dive()
        except RecursionError:
            try:
                return encode(_deep(120))
            except ValueNotSerializable:
                return "refused"

    assert dive()


def test_a_serializer_that_fails_is_a_refusal() -> None:
    class Broken(BaseModel):
        model_config = ConfigDict(frozen=True)

        @model_serializer
        def _fail(self) -> dict[str, Any]:
            raise RuntimeError("out of order")

    with pytest.raises(ValueNotSerializable, match="out of order"):
        encode([Broken()])


def test_a_payload_has_a_limit_in_bytes() -> None:
    text = encode("é" * 10)
    size = len(text.encode())
    assert encode("é" * 10, limit=size) == text
    with pytest.raises(PayloadTooLarge, match=rf"output of a is too large: {size} bytes") as caught:
        encode("é" * 10, where="output of a", limit=size - 1)
    assert (caught.value.where, caught.value.size, caught.value.limit) == ("output of a", size, size - 1)
