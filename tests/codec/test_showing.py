"""Values for readers without Python: JSON's shapes whatever the value is, and never an error instead."""

from __future__ import annotations

import dataclasses
import json
from collections import UserDict, deque
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from types import MappingProxyType
from typing import Annotated, Any
from uuid import UUID

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, PlainSerializer, SecretStr, computed_field, model_serializer

from orchestrator.codec import as_json, decode, encode


class Kind(Enum):
    CARD = "card"


class File(BaseModel):
    content: bytes
    name: str = Field(default="a", alias="called")
    age: timedelta = timedelta(days=1)


class Account(BaseModel):
    secret: SecretStr = SecretStr("s3cret")
    shown: Annotated[Decimal, PlainSerializer(float, when_used="json")] = Decimal("1.5")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2


class Broken(BaseModel):
    @model_serializer
    def refuse(self) -> Any:
        raise RuntimeError("no")


class Mute:
    def __str__(self) -> str:
        raise RuntimeError("no")


@dataclasses.dataclass
class Box:
    part: Any


@pydantic.dataclasses.dataclass
class Crate:
    part: bytes


@pytest.mark.parametrize(
    "value, shown",
    [
        (None, None),
        (True, True),
        (10**30, 10**30),
        (1.5, 1.5),
        ("é", "é"),
        (b"\xff", "/w=="),
        (b"abc", "YWJj"),
        (bytearray(b"\xff"), "/w=="),
        (memoryview(b"\xff"), "/w=="),
        ("caf\udce9", "caf\\udce9"),
        ({"\ud800": "\ud83d\ude00"}, {"\\ud800": "\\ud83d\\ude00"}),
        ({1: 1, None: 2, (1, 2): 3, Kind.CARD: 4}, {"1": 1, "None": 2, "(1, 2)": 3, "card": 4}),
        ({Mute(): 1}, {"<Mute without text>": 1}),
        (Kind.CARD, "card"),
        ((1, [2], deque([3])), [1, [2], [3]]),
        (MappingProxyType({"a": {1}}), {"a": [1]}),
        (Decimal("1.20"), "1.20"),
        (UUID(int=7), str(UUID(int=7))),
        (datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01T00:00:00Z"),
        (date(2024, 1, 1), "2024-01-01"),
        (File(content=b"\xff", called="b"), {"content": "/w==", "called": "b", "age": "P1D"}),
        ([File(content=b"abc", called="b")], [{"content": "YWJj", "called": "b", "age": "P1D"}]),
        (Account(), {"secret": "**********", "shown": 1.5, "twice": 2}),
        (Box([Box(b"\xff"), Crate(b"a")]), {"part": [{"part": "/w=="}, {"part": "YQ=="}]}),
        (ValueError("no \udce9"), "no \\udce9"),
        (Mute(), "<Mute without text>"),
        (int, "<class 'int'>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_everything_is_shown(value: Any, shown: Any) -> None:
    assert as_json(value) == shown
    json.dumps(as_json(value), ensure_ascii=False).encode()


class Measured(BaseModel):
    """A model with a number that JSON has not."""

    at: float


@pytest.mark.parametrize(
    "value", [float("nan"), [float("inf")], {"a": {"b": -float("inf")}}, Measured(at=float("nan")), {float("nan"): 1}]
)
def test_what_is_shown_is_strict_json(value: Any) -> None:
    """Strict writers and readers (browsers, Starlette, PostgreSQL) refuse NaN and the infinities."""
    text = json.dumps(as_json(value), allow_nan=False)
    assert any(f'"{word}"' in text.replace('"-', '"') for word in ("NaN", "Infinity", "nan"))


def test_a_model_that_cannot_be_written_is_its_text() -> None:
    assert as_json([Broken()]) == [str(Broken())]


def test_a_mapping_that_cannot_be_read_is_its_text() -> None:
    class Closed(UserDict[str, Any]):
        def __iter__(self) -> Any:
            raise RuntimeError("closed")

        def __repr__(self) -> str:
            return "<closed>"

    assert as_json({"a": Closed()}) == "{'a': <closed>}"


def test_what_contains_itself_is_shown_once() -> None:
    twice: list[Any] = []
    twice += [twice, twice]
    box = Box(None)
    box.part = [box, box]
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    assert as_json(twice) == ["[[...], [...]]"] * 2
    assert as_json(box)["part"][0] == as_json(box)["part"][1]
    json.dumps(as_json(deep))


@given(st.recursive(st.text(st.characters(codec=None, categories=None)) | st.binary(), st.lists))
def test_whatever_was_stored_can_be_sent(value: Any) -> None:
    """Every text and every bytes can be written as UTF-8, without escapes."""
    json.dumps(as_json(decode(encode(value))), ensure_ascii=False).encode()
