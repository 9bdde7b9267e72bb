"""Keys that are no strings, and enums that stand where pydantic looks for the member: both come back as declared."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from orchestrator.codec import Typed, decode, encode, restore, validate
from orchestrator.errors import InputInvalid


class Kind(Enum):
    CARD = "card"
    CASH = "cash"


class Level(Enum):
    LOW = 1
    HIGH = 2


class Size(IntEnum):
    SMALL = 1


class Colour(StrEnum):
    RED = "red"


KEYS = [
    (date, date(2024, 2, 29), "2024-02-29"),
    (datetime, datetime(2024, 2, 29, 12, 30, 1, 5, tzinfo=timezone(timedelta(hours=2))), None),
    (datetime, datetime(2024, 2, 29, 12, 30, tzinfo=UTC), None),
    (datetime, datetime(1, 1, 1), None),
    (time, time(23, 59, 59, 999999), "23:59:59.999999"),
    (Decimal, Decimal("1.20"), "1.20"),
    (Decimal, Decimal("1E+40"), "1E+40"),
    (float, 1.5, "1.5"),
    (float, 1e22, "1e+22"),
    (float, float("inf"), "inf"),
    (bool, True, "true"),
    (bool, False, "false"),
    (int, -(2**70), str(-(2**70))),
    (UUID, UUID(int=7), str(UUID(int=7))),
    (Kind, Kind.CARD, "card"),
    (Colour, Colour.RED, "red"),
    (Level, Level.HIGH, "2"),
    (Size, Size.SMALL, "1"),
    (str, "a", "a"),
]


@pytest.mark.parametrize("kind, key, text", KEYS, ids=str)
def test_a_key_comes_back_as_its_declared_type_and_else_as_text(kind: Any, key: Any, text: str | None) -> None:
    class Prices(BaseModel):
        at: dict[kind, Decimal]

    plain = decode(encode(Prices(at={key: Decimal("1.10")})))

    assert all(type(name) is str for name in plain["at"])
    assert text is None or list(plain["at"]) == [text]
    for made in (restore(Typed(Prices), plain), validate(Prices, plain)):
        assert isinstance(made, Prices)
        assert [(type(name), name) for name in made.at] == [(kind, key)]
        assert made.at[key] == Decimal("1.10")
    assert restore(Typed(list[dict[kind, int]]), decode(encode([{key: 1}]))) == [{key: 1}]


class Card(BaseModel):
    kind: Literal[Kind.CARD] = Kind.CARD
    number: str
    levels: dict[Level, date] = {}


class Cash(BaseModel):
    kind: Literal[Kind.CASH] = Kind.CASH
    coins: list[Decimal] = []


class Order(BaseModel):
    paid: Annotated[Card | Cash, Field(discriminator="kind")]
    either: Card | Cash | None = None
    first: Literal[Kind.CARD, "other", 1] = "other"
    more: list[Card | Cash] = []
    by_name: dict[str, Card] = {}
    pair: tuple[int, Literal[Level.LOW]] = (1, Level.LOW)


@dataclasses.dataclass
class Parcel:
    order: Order | None
    kind: Literal[Kind.CASH] = Kind.CASH


ORDER = Order(
    paid=Card(number="1", levels={Level.LOW: date(2024, 1, 1)}),
    either=Cash(coins=[Decimal("0.10")]),
    first=Kind.CARD,
    more=[Cash(), Card(number="2")],
    by_name={"mine": Card(number="3")},
)


@pytest.mark.parametrize(
    "annotation, value",
    [
        (Order, ORDER),
        (Order, Order(paid=Cash(), first=1)),
        (list[Order], [ORDER, Order(paid=Cash())]),
        (Card | Cash, Cash()),
        (Card | None, Card(number="1")),
        (Parcel, Parcel(ORDER)),
        (Literal[Kind.CARD, Level.HIGH], Level.HIGH),
        (dict[Level, Card], {Level.HIGH: Card(number="1")}),
    ],
    ids=str,
)
def test_a_literal_member_of_an_enum_comes_back(annotation: Any, value: Any) -> None:
    plain = decode(encode(value))

    assert restore(Typed(annotation), plain) == value
    assert validate(annotation, plain) == value


@pytest.mark.parametrize("plain", [{"paid": {"kind": "cheque"}}, {"paid": {"kind": "card"}}, {"paid": "card"}, 1])
def test_what_does_not_fit_is_refused_as_before(plain: Any) -> None:
    with pytest.raises(InputInvalid):
        validate(Order, plain)
    assert restore(Typed(Order), plain) is plain


def test_no_other_value_becomes_a_member() -> None:
    """Neither True, which equals 1, nor the text of a value that is no text."""
    for other in (True, "1", 1.0):
        with pytest.raises(InputInvalid):
            validate(Literal[Level.LOW], other)
    assert validate(Literal[Level.LOW], 1) is Level.LOW
