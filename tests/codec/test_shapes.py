"""The static type of a value in the graph: what is declared comes back as its type, the rest stays plain."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Generic, NewType, NotRequired, Optional, TypeVar
from uuid import UUID

import pydantic
import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel, computed_field, field_validator
from typing_extensions import TypeAliasType, TypedDict

from orchestrator.codec import ANY, DictOf, ListOf, Shape, Typed, decode, encode, restore, shape_at

T = TypeVar("T")


class Colour(Enum):
    RED = "red"


class Line(BaseModel):
    sku: str
    price: Decimal = Decimal(0)


class Extra(TypedDict):
    line: Line
    day: NotRequired[date]


@dataclasses.dataclass
class Parcel:
    lines: list[Line]
    parent: Parcel | None = None


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    number: int = Field(alias="no", gt=0)
    lines: list[Line]
    by_id: dict[UUID, Line] = {}
    pair: tuple[int, Line] = (1, Line(sku="x"))
    colour: Colour = Colour.RED
    parcel: Parcel | None = None
    extra: Extra | None = None
    either: int | Line = 1
    anything: Any = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def count(self) -> int:
        return len(self.lines)


class Page(BaseModel, Generic[T]):
    items: list[T]


Sku = NewType("Sku", str)
Lines = TypeAliasType("Lines", list[Line])


def order() -> Order:
    line = Line(sku="a", price=Decimal("1.20"))
    return Order(
        no=1,
        lines=[line],
        by_id={UUID(int=1): line},
        pair=(1, line),
        parcel=Parcel([line], Parcel([])),
        extra={"line": line, "day": date(2024, 1, 1)},
        either=line,
    )


def again(shape: Shape, value: Any) -> Any:
    """Return the value after a journey, with its declared parts as their types."""
    return restore(shape, decode(encode(value)))


# -- restore ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "annotation, value",
    [
        (Order, order()),
        (Line, Line(sku="a")),
        (list[Line], [Line(sku="a")]),
        (dict[int, Line], {1: Line(sku="a")}),
        (Parcel, Parcel([Line(sku="a")])),
        (Colour, Colour.RED),
        (set[Colour], {Colour.RED}),
        (tuple[Colour, int], (Colour.RED, 1)),
        (Optional[Line], None),  # noqa: UP045 - the older spelling works too
        (Page[Line], Page[Line](items=[Line(sku="a")])),
        (Lines, [Line(sku="a")]),
        (RootModel[dict[str, int]], RootModel[dict[str, int]]({"$date": 1})),
        (None, None),
        (int, 7),
    ],
    ids=str,
)
def test_a_declared_value_comes_back_as_its_type(annotation: Any, value: Any) -> None:
    back = again(Typed(annotation), value)
    assert back == value
    assert type(back) is type(value)


def test_a_value_that_does_not_fit_stays_plain() -> None:
    assert again(Typed(Order), {"number": "many"}) == {"number": "many"}
    assert again(Typed(int), "seven") == "seven"
    assert again(Typed(Line), None) is None


def test_nothing_that_a_declared_type_does_is_an_error() -> None:
    class Picky(BaseModel):
        a: int

        @field_validator("a")
        @classmethod
        def _fail(cls, value: int) -> int:
            raise ZeroDivisionError

    class Foreign:
        pass

    assert again(Typed(Picky), {"a": 1}) == {"a": 1}
    assert again(Typed(Foreign), {"a": 1}) == {"a": 1}
    assert again(Typed("Undefined"), {"a": 1}) == {"a": 1}
    assert again(Typed(Annotated[int, []]), 1) == 1
    assert again(Typed(7), 1) == 1


def test_the_arms_of_a_dict_come_back_each_as_its_type() -> None:
    shape = DictOf({"charge": Typed(Line), "notify": Typed(type(None)), "nested": DictOf({"a": ListOf(Typed(Colour))})})
    value = {"charge": Line(sku="a"), "notify": None, "nested": {"a": [Colour.RED]}, "other": Line(sku="b")}
    assert again(shape, value) == {**value, "other": {"sku": "b", "price": Decimal(0)}}
    assert again(shape, [1]) == [1]


def test_the_items_of_a_list_come_back_each_by_itself() -> None:
    assert again(ListOf(Typed(Line)), [Line(sku="a"), {"no": 1}]) == [Line(sku="a"), {"no": 1}]
    assert again(ListOf(Typed(Line)), {"a": 1}) == {"a": 1}


def test_without_a_declaration_a_value_stays_plain() -> None:
    for shape in (ANY, Typed(Any), Typed(object)):
        assert again(shape, Line(sku="a")) == {"sku": "a", "price": Decimal(0)}


def test_an_instance_stays_that_instance() -> None:
    value = order()
    assert restore(Typed(Order), value) is value


# -- shape_at ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path, expected",
    [
        ("", Typed(Order)),
        ("lines", Typed(list[Line])),
        ("lines.0", Typed(Line)),
        ("lines.0.price", Typed(Decimal)),
        ("lines.first", ANY),
        ("lines.-1", ANY),
        ("by_id.abc", Typed(Line)),
        ("pair.1.sku", Typed(str)),
        ("pair.2", ANY),
        ("colour", Typed(Colour)),
        ("colour.value", ANY),
        ("parcel.lines.3.sku", Typed(str)),
        ("parcel.parent.lines.0", Typed(Line)),
        ("extra.line.sku", Typed(str)),
        ("extra.day", Typed(date)),
        ("extra.none", ANY),
        ("either.sku", ANY),
        ("anything", ANY),
        ("anything.deep", ANY),
        ("missing", ANY),
        ("missing.deep", ANY),
        ("no", ANY),
        ("count", ANY),
    ],
)
def test_the_declared_type_at_a_path_is_found(path: str, expected: Shape) -> None:
    assert shape_at(Typed(Order), path) == expected


@pytest.mark.parametrize(
    "annotation, path, expected",
    [
        (list[Line], "0.sku", Typed(str)),
        (list, "0", ANY),
        (Sequence[Line], "1", Typed(Line)),
        (tuple[Line, ...], "7", Typed(Line)),
        (tuple[()], "0", ANY),
        (Mapping[str, Line], "x", Typed(Line)),
        (dict, "x", ANY),
        (set[Line], "0", ANY),
        (Annotated[list[Line], Field(max_length=2)], "0", Typed(Line)),
        (Lines, "0", Typed(Line)),
        (Page[Line], "items.0", Typed(Line)),
        (RootModel[list[Line]], "0", Typed(Line)),
        (Sku, "0", ANY),
        (NewType("Bag", list[Line]), "0", Typed(Line)),
        (T, "a", ANY),
        (str, "0", ANY),
        (None, "a", ANY),
        ("Undefined", "a", ANY),
    ],
    ids=str,
)
def test_the_declared_type_in_other_annotations_is_found(annotation: Any, path: str, expected: Shape) -> None:
    assert shape_at(Typed(annotation), path) == expected


def test_a_fields_validators_are_part_of_its_type() -> None:
    class Loud(BaseModel):
        name: Annotated[str, BeforeValidator(str.upper)]

    shape = shape_at(Typed(Loud), "name")
    assert restore(shape, "a") == "A"


def test_paths_lead_through_dicts_and_lists() -> None:
    shape = DictOf({"pack": ListOf(Typed(Order)), "plain": ANY})
    assert shape_at(shape, "pack.2.lines.0") == Typed(Line)
    assert shape_at(shape, "pack") == ListOf(Typed(Order))
    assert shape_at(shape, "pack.x") == ANY
    assert shape_at(shape, "plain.x") == ANY
    assert shape_at(shape, "other") == ANY
    assert shape_at(ANY, "a.b") == ANY


def test_an_annotation_that_cannot_be_resolved_is_any() -> None:
    class Broken(TypedDict):
        a: Missing  # type: ignore[name-defined]  # noqa: F821

    assert shape_at(Typed(Broken), "a") == ANY


def test_pydantic_dataclasses_are_followed() -> None:
    @pydantic.dataclasses.dataclass
    class Box:
        line: Line

    assert shape_at(Typed(Box), "line") == Typed(Line)
    assert again(Typed(Box), Box(Line(sku="a"))) == Box(Line(sku="a"))
