"""Values come back from the text as what they were, or as the plain shape that is promised."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import math
import re
import string
from collections import Counter, OrderedDict, UserDict, defaultdict, deque, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, IntFlag, StrEnum
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, Json, RootModel, computed_field, field_serializer
from typing_extensions import TypedDict

from orchestrator.codec import decode, encode
from orchestrator.errors import ValueNotReadable

# -- properties -------------------------------------------------------------------------------------------------------

text = st.text(st.characters(codec=None, categories=None))  # every code point: NUL, lone surrogates
moments = st.datetimes(timezones=st.none() | st.just(UTC) | st.just(ZoneInfo("Asia/Kolkata")), allow_imaginary=False)
hashable = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | text
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | moments
    | st.dates()
    | st.times()
    | st.timedeltas()
)
keys = st.text(string.printable) | st.sampled_from(
    ["$decimal", "$$decimal", "$", "$$", "$error", "$set", "$unknown", "v", "d", "\0", "\ud800"]
)
values = st.recursive(
    hashable | st.frozensets(hashable, max_size=4) | st.sets(hashable, max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)


def same(left: Any, right: Any) -> bool:
    """True for values that are equal, of the same types all the way down, with nan like nan."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(map(same, left.values(), right.values()))
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return left.hex() == float.hex(right)  # also tells -0.0 from 0.0
    return bool(left == right)


@given(values)
def test_whatever_has_a_form_comes_back_as_it_was(value: Any) -> None:
    assert same(decode(encode(value)), value)


@given(st.lists(st.floats() | st.decimals()))
def test_every_number_comes_back_bit_by_bit(numbers: list[float | Decimal]) -> None:
    assert list(map(repr, decode(encode(numbers)))) == list(map(repr, numbers))


@given(values)
def test_the_text_is_utf_8_json_without_nul(value: Any) -> None:
    encoded = encode(value)
    encoded.encode()  # every database and every script takes it
    assert "\0" not in encoded
    assert set(json.loads(encoded, parse_constant=pytest.fail)) == {"v", "d"}


@given(values)
def test_equal_values_have_equal_text(value: Any) -> None:
    assert encode(decode(encode(value))) == encode(value)


@given(values)
def test_the_text_may_be_laid_out_anew_by_a_store(value: Any) -> None:
    assert same(decode(json.dumps(json.loads(encode(value)), indent=1)), value)


# -- scalars ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        datetime(2024, 2, 29, 12, 30, 1, 5),
        datetime(2024, 2, 29, 12, 30, tzinfo=timezone(timedelta(hours=-5, minutes=-30, seconds=-7))),
        datetime(1, 1, 1),
        date(9999, 12, 31),
        time(23, 59, 59, 999999, tzinfo=UTC),
        timedelta.max,
        timedelta(microseconds=-1),
        Decimal("1.20"),
        Decimal("1E+400"),
        UUID(int=7),
        b"\x00\xff",
        set(),
        frozenset({frozenset({1}), frozenset()}),
        {(1, (2, 3)), ()},
        2**63,
        -(2**200),
        10**5000,
        {"digits": 10**5000, "with": Decimal(1)},
        {10**5000, "a"},
        {("\ud800", 1), Decimal(2)},
        "\ud83d\ude00",  # two halves, not one character
        ["\ud83d", "\ude00", "😀", "\ude00\ud83d"],
        "NaN and Infinity",
        {"NaN": 1.5},
        {"$decimal": "1"},
        {"$decimal": Decimal(1)},
        {"$$": {"$": {}}},
        {"$a": 1, "$b": 2},
        {"": {"$": None}},
        [],
        {},
        None,
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_scalar_keeps_its_type(value: Any) -> None:
    assert same(decode(encode(value)), value)
    assert same(decode(encode([{"in": value}])), [{"in": value}])


def test_floats_that_json_lacks_come_back() -> None:
    assert math.isnan(decode(encode(math.nan)))
    assert decode(encode({"a": [math.inf, -math.inf, -0.0]})) == {"a": [math.inf, -math.inf, 0.0]}


def test_a_zone_comes_back_as_its_offset() -> None:
    moment = datetime(2024, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    back = decode(encode(moment))
    assert back == moment
    assert back.utcoffset() == timedelta(hours=2)


class Colour(Enum):
    RED = "red"
    DEEP = ("a", 1)


class Size(StrEnum):
    BIG = "big"


class Level(IntEnum):
    HIGH = 3


class Rights(IntFlag):
    READ = 1
    WRITE = 2


class Word(str):
    """A string that says something else of itself."""

    __slots__ = ()

    def __str__(self) -> str:
        return "other"


class Count(int):
    """A number of a class of its own."""


class Ratio(float):
    """A fraction of a class of its own."""


class Stamp(datetime):
    """A moment of a class of its own."""


class Point(NamedTuple):
    x: int
    y: Decimal


Pair = namedtuple("Pair", "left right")  # the untyped kind is meant


class Row(TypedDict):
    at: date


@pytest.mark.parametrize(
    "value, plain",
    [
        (Colour.RED, "red"),
        (Colour.DEEP, ["a", 1]),
        (Size.BIG, "big"),
        (Level.HIGH, 3),
        (Rights.READ | Rights.WRITE, 3),
        ((1, (2, Decimal(3))), [1, [2, Decimal(3)]]),
        (Point(1, Decimal(2)), [1, Decimal(2)]),
        (Pair(1, 2), [1, 2]),
        (Row(at=date(2024, 1, 1)), {"at": date(2024, 1, 1)}),
        (Word("one"), "one"),
        ([Word("\ud83d\ude00")], ["\ud83d\ude00"]),
        (Count(4), 4),
        (Ratio(0.5), 0.5),
        (Stamp(2024, 1, 1), datetime(2024, 1, 1)),
        (bytearray(b"a"), b"a"),
        (memoryview(b"a"), b"a"),
        (deque([1, Decimal(2)]), [1, Decimal(2)]),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (MappingProxyType({"a": {"$b": 1}}), {"a": {"$b": 1}}),
        (UserDict({"$b": 1}), {"$b": 1}),
        ({1: "a", -2: "b"}, {"1": "a", "-2": "b"}),
        ({Level.HIGH: 1, Size.BIG: 2, Colour.RED: 3, Word("k"): 4}, {"3": 1, "big": 2, "red": 3, "k": 4}),
        ({UUID(int=1): 1}, {str(UUID(int=1)): 1}),
        (PurePosixPath("/tmp/a"), "/tmp/a"),
        (ipaddress.ip_address("::1"), "::1"),
        (pydantic.HttpUrl("https://example.org/a"), "https://example.org/a"),
        (re.compile("a+"), "a+"),
        (1 + 2j, "1+2j"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_other_values_become_plain(value: Any, plain: Any) -> None:
    assert same(decode(encode(value)), plain)


# -- models and dataclasses -------------------------------------------------------------------------------------------


class Line(BaseModel):
    sku: str
    price: Decimal


class Order(BaseModel):
    model_config = ConfigDict(extra="allow", serialize_by_alias=True)

    at: datetime = Field(alias="placedAt")
    lines: list[Line]
    colours: set[Colour] = {Colour.RED}
    where: PurePosixPath | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> Decimal:
        return sum((line.price for line in self.lines), Decimal(0))


def test_a_model_becomes_its_fields_by_name_and_keeps_what_is_inside() -> None:
    order = Order(placedAt=datetime(2024, 1, 1), lines=[Line(sku="a", price=Decimal("1.50"))], note=b"x")
    assert decode(encode({"order": order})) == {
        "order": {
            "at": datetime(2024, 1, 1),
            "lines": [{"sku": "a", "price": Decimal("1.50")}],
            "colours": {"red"},
            "where": None,
            "note": b"x",
        }
    }


def test_a_model_that_looks_like_a_tag_survives() -> None:
    assert decode(encode(RootModel[dict[str, int]]({"$date": 1}))) == {"$date": 1}


def test_a_models_own_serializers_are_used() -> None:
    class Handle:
        pass

    class Holder(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        handle: Handle
        raw: Json[list[int]]

        @field_serializer("handle")
        def _name(self, handle: Handle) -> str:
            return "handle"

    assert decode(encode(Holder(handle=Handle(), raw="[1]"))) == {"handle": "handle", "raw": "[1]"}


@dataclasses.dataclass
class Leaf:
    at: date
    colour: Colour


@dataclasses.dataclass(frozen=True, slots=True)
class Tree:
    leaves: tuple[Leaf, ...]
    line: Line
    size: int = dataclasses.field(init=False, default=2)


@pydantic.dataclasses.dataclass
class Checked:
    amount: Decimal = pydantic.Field(alias="amountOf")
    leaf: Leaf | None = None


def test_a_dataclass_becomes_its_fields() -> None:
    tree = Tree((Leaf(date(2024, 1, 1), Colour.RED),), Line(sku="a", price=Decimal(1)))
    assert decode(encode(tree)) == {
        "leaves": [{"at": date(2024, 1, 1), "colour": "red"}],
        "line": {"sku": "a", "price": Decimal(1)},
        "size": 2,
    }


def test_a_pydantic_dataclass_becomes_its_fields_by_name() -> None:
    assert decode(encode(Checked(amountOf=Decimal("2.0")))) == {"amount": Decimal("2.0"), "leaf": None}


def test_a_set_of_models_becomes_a_list() -> None:
    class Tag(BaseModel):
        model_config = ConfigDict(frozen=True)
        name: str

    assert decode(encode({Tag(name="b"), Tag(name="a")})) == [{"name": "a"}, {"name": "b"}]
    assert decode(encode(frozenset({Tag(name="a")}))) == [{"name": "a"}]


def test_a_value_that_occurs_twice_is_no_circle() -> None:
    part = {"a": [1]}
    assert decode(encode([part, part, {"b": part}])) == [part, part, {"b": part}]


# -- the format -------------------------------------------------------------------------------------------------------


def test_the_format_has_a_version_and_is_compact() -> None:
    assert encode({"a": [1, None, "é"]}) == '{"v":1,"d":{"a":[1,null,"é"]}}'


@pytest.mark.parametrize(
    "stored, reason",
    [
        ('{"v":2,"d":1}', "version 2"),
        ('{"v":"1","d":1}', "version '1'"),
        ('{"d":1}', "not of the orchestrator's format"),
        ("[1]", "not of the orchestrator's format"),
        ("1", "not of the orchestrator's format"),
        ("", "cannot be read"),
        ('{"v":1,"d":', "cannot be read"),
        ('{"v":1,"d":1} 2', "cannot be read"),
        ('{"v":1,"d":{"$later":1}}', "unknown tag: \\$later"),
        ('{"v":1,"d":{"$date":"tomorrow"}}', "cannot be read"),
        ('{"v":1,"d":{"$decimal":"x"}}', "cannot be read"),
        ('{"v":1,"d":{"$error":{}}}', "cannot be read"),
        ('{"v":1,"d":{"$error":7}}', "cannot be read"),
        ('{"v":1,"d":{"$timedelta":{"a":1}}}', "cannot be read"),
        ('{"v":1,"d":' + "[" * 100_000, "cannot be read"),
    ],
    ids=lambda text: text[:40],
)
def test_text_that_is_not_ours_is_refused_with_the_reason(stored: str, reason: str) -> None:
    with pytest.raises(ValueNotReadable, match=reason):
        decode(stored)
