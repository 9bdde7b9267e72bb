"""An input is checked against its declared type, and the error says what does not fit and where."""

from __future__ import annotations

import inspect
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, ValidationError
from typing_extensions import TypedDict

from orchestrator.codec import decode, encode, is_any_annotation, schema, type_adapter, validate
from orchestrator.errors import InputInvalid


class Colour(Enum):
    RED = "red"


class Nested(BaseModel):
    value: int = 1


class Order(BaseModel):
    required: str
    nested: Nested = Nested()
    number: int = Field(default=0, alias="no")


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    name: str
    colour: Colour = Colour.RED
    pair: tuple[int, int] = (1, 2)
    nested: Nested = Nested()
    price: Decimal = Decimal(0)
    day: date = date(2024, 1, 1)


class Empty(BaseModel):
    pass


class EmptyDict(TypedDict):
    pass


class Item(TypedDict):
    a: int


def issues(annotation: Any, value: Any) -> list[tuple[str, str]]:
    with pytest.raises(InputInvalid) as caught:
        validate(annotation, value)
    return [(issue.path, issue.kind) for issue in caught.value.issues]


def test_every_field_that_does_not_fit_is_listed() -> None:
    with pytest.raises(InputInvalid) as caught:
        validate(Order, {"nested": {"value": "x"}})
    error = caught.value
    assert [(issue.path, issue.kind) for issue in error.issues] == [
        ("required", "missing"),
        ("nested.value", "int_parsing"),
    ]
    assert str(error).split("\n") == [
        "Invalid input data: ",
        "- required: Field required",
        "- nested.value: Input should be a valid integer, unable to parse string as an integer",
    ]
    assert isinstance(error.__cause__, ValidationError)


def test_the_header_can_be_another() -> None:
    with pytest.raises(InputInvalid, match=r"^Step input validation failed: \n- a: "):
        validate(Item, {"a": "x"}, header="Step input validation failed: ")


def test_error_and_cause_have_the_issues_after_a_journey() -> None:
    with pytest.raises(InputInvalid) as caught:
        validate(Order, {"nested": {"value": "x"}})
    back: Any = decode(encode(caught.value))
    assert isinstance(back, InputInvalid)
    assert str(back) == str(caught.value)
    assert back.issues == caught.value.issues
    cause: Any = back.__cause__
    assert cause.issues == caught.value.issues


def test_numbers_are_no_strings_and_the_whole_value_has_an_empty_path() -> None:
    assert issues(Order, {"required": 123}) == [("required", "string_type")]
    assert issues(int, "x") == [("", "int_parsing")]
    assert issues(Order, None) == [("", "model_type")]
    assert issues(list[Item], [{"a": 1}, {}]) == [("1.a", "missing")]


def test_defaults_are_filled_in_and_unknown_keys_dropped() -> None:
    assert validate(Order, {"required": "a", "other": 1}) == Order(required="a")
    assert validate(Item, {"a": "1", "b": 2}) == {"a": 1}


def test_keys_may_be_names_or_aliases() -> None:
    assert validate(Order, {"required": "a", "no": 2}).number == 2
    assert validate(Order, {"required": "a", "number": 2}).number == 2


def test_unknown_keys_are_refused_where_the_model_says_so() -> None:
    assert issues(Strict, {"name": "a", "other": 1}) == [("other", "extra_forbidden")]


def test_an_instance_passes_as_it_is() -> None:
    order = Order(required="a")
    assert validate(Order, order) is order


@pytest.mark.parametrize("annotation", [Empty, EmptyDict, Any, object, inspect.Parameter.empty], ids=str)
@pytest.mark.parametrize("value", [{"a": 1}, {}, "text", [1], None, 5], ids=repr)
def test_a_type_without_fields_lets_everything_through(annotation: Any, value: Any) -> None:
    assert validate(annotation, value) is value


def test_a_root_model_has_a_field() -> None:
    assert issues(RootModel[list[int]], {"a": 1}) == [("", "list_type")]


def test_a_strict_model_takes_what_it_was_encoded_to() -> None:
    strict = Strict(name="a", price=Decimal("1.20"), pair=(3, 4))
    assert validate(Strict, decode(encode(strict))) == strict


def test_a_strict_model_stays_strict() -> None:
    assert issues(Strict, {"name": 1}) == [("name", "string_type")]
    assert issues(Strict, {"name": "a", "pair": ["1", 2]}) == [("pair", "tuple_type")]
    assert issues(Strict, {"name": b"\xff", "colour": "red"})[0][0] == "name"


def test_scalars_that_the_codec_brought_back_fit() -> None:
    plain = decode(encode({"name": "a", "price": Decimal("1.5"), "day": date(2024, 5, 5)}))
    assert validate(Strict, plain).price == Decimal("1.5")


def test_an_error_of_a_validator_is_not_an_invalid_input() -> None:
    def fail(value: int) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        validate(Annotated[int, AfterValidator(fail)], 1)


def test_a_class_that_pydantic_does_not_know_is_checked_by_isinstance() -> None:
    class Foreign:
        pass

    value = Foreign()
    assert validate(Foreign, value) is value
    assert issues(Foreign, 1) == [("", "is_instance_of")]


def test_what_says_nothing_is_recognised() -> None:
    assert all(map(is_any_annotation, [Any, object, inspect.Parameter.empty, inspect.Signature.empty]))
    assert not any(map(is_any_annotation, [None, type(None), int, list[Any], Empty]))


def test_adapters_are_made_once() -> None:
    assert type_adapter(list[Order]) is type_adapter(list[Order])
    unhashable = Annotated[int, []]
    assert type_adapter(unhashable) is type_adapter(unhashable)


def test_adapters_of_annotations_without_a_hash_do_not_pile_up() -> None:
    for number in range(2 * schema._UNHASHABLE_LIMIT):
        assert validate(Annotated[int, [number]], number) == number
    assert len(schema._unhashable) <= schema._UNHASHABLE_LIMIT
