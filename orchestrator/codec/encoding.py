"""From a value to text.

Every container is looked at once: one whose members are all plain is handed on as it is, anything else is copied with
tags in place of what JSON lacks. pydantic's writer then makes the text. It writes `NaN` for a float that JSON lacks and
refuses lone surrogates, and looking for either beforehand would mean looking at every string and number. So only when
the text (or the refusal) shows that there may be one, the value is walked again, carefully.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections import deque
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from types import NoneType
from typing import Any, Literal, NoReturn
from uuid import UUID

from pydantic import BaseModel, Secret, SecretBytes, SecretStr, TypeAdapter
from pydantic.dataclasses import is_pydantic_dataclass
from pydantic_core import PydanticSerializationError, to_json

from orchestrator.codec import tags
from orchestrator.codec.decoding import untag
from orchestrator.codec.exceptions import describe
from orchestrator.codec.keys import SPLIT_PAIR, key_text, printable_key, type_name
from orchestrator.codec.packing import Packing
from orchestrator.codec.tags import NotEncodable
from orchestrator.errors import Issue, PayloadTooLarge, ValueNotSerializable

_PLAIN_SCALARS: frozenset[type] = frozenset({str, int, float, bool, NoneType})
_CAREFUL_SCALARS: frozenset[type] = frozenset({int, bool, NoneType})
_STR: frozenset[type] = frozenset({str})

_write_surrogates = json.JSONEncoder(check_circular=False, allow_nan=False, separators=(",", ":")).encode


def encode(value: Any, *, where: str = "value", limit: int | None = None) -> str:
    """The value as versioned JSON text. It can always be written as UTF-8: lone surrogates are escaped.

    Plain JSON shapes, dates and times, Decimal, UUID, bytes, sets, exceptions and floats that JSON lacks come back from
    `decode` as what they were. Tuples become lists, enums their values, models and dataclasses dicts by field name
    (without computed fields); keys become text (see `key_text`). Anything else is written as pydantic would write it in
    JSON. What a model or dataclass leaves out of its own dump (`Field(exclude=True)`) or writes differently (its own
    serializers) is left out and differs on the other side, too: that is what it asks for. A dataclass makes its fields
    with `init=False` anew there.

    Args:
        where: the name of the value in an error ("output of step charge").
        limit: the largest allowed text, in bytes.

    Raises:
        ValueNotSerializable: a part has no JSON form or is a secret; the value is nested too deeply or contains itself.
        PayloadTooLarge: the text is longer than `limit`.
    """
    try:
        text = _write(value)
    except NotEncodable as refused:
        raise _not_serializable(where, refused) from None
    except RecursionError:
        raise _not_serializable(where, NotEncodable("is nested too deeply")) from None
    size = len(text) if text.isascii() or limit is None else len(text.encode())
    if limit is not None and size > limit:
        message = f"{where} is too large: {size} bytes, where {limit} are allowed"
        raise PayloadTooLarge(message, where=where, size=size, limit=limit)
    return text


def encode_packed(value: Any, where: str, packing: Packing) -> str:
    """The value as text, compressed if it is long. Raises as `encode` does, with the limit of `packing`."""
    return packing.pack(encode(value, where=where, limit=packing.limit))


def _not_serializable(where: str, refused: NotEncodable) -> ValueNotSerializable:
    path = refused.path[::-1]
    field = ".".join(path[:12]) + (".…" if len(path) > 12 else "")
    subject = f"{where}, field {field!r}," if field else where
    return ValueNotSerializable(f"{subject} {refused.reason}", where=where, field=field)


def _write(value: Any) -> str:
    try:
        text = to_json({"v": tags.VERSION, "d": Walk().plain(value)}).decode()
    except PydanticSerializationError:
        return _write_carefully(value)
    return _write_carefully(value) if "NaN" in text or "Infinity" in text else text


def _write_carefully(value: Any) -> str:
    document = {"v": tags.VERSION, "d": Walk(careful=True).plain(value)}
    try:
        return to_json(document).decode()
    except PydanticSerializationError:
        pass
    try:
        return _write_surrogates(document)
    except ValueError as error:
        raise NotEncodable(f"cannot be written: {error}") from None


class Walk:
    """One pass over a value, from Python objects to what the JSON writer takes."""

    def __init__(self, *, careful: bool = False) -> None:
        self.careful = careful
        self.scalars = _CAREFUL_SCALARS if careful else _PLAIN_SCALARS
        self.open_errors: set[int] = set()  # those we are inside of: exceptions refer to each other in circles

    def plain(self, value: Any, depth: int = 0) -> Any:
        """The value with tags in place of what JSON lacks. Raises `NotEncodable`."""
        kind: Any = type(value)
        if kind in self.scalars:
            return value
        if depth > tags.MAX_DEPTH:
            raise NotEncodable(f"is nested more than {tags.MAX_DEPTH} levels deep, or contains itself")
        write_scalar, write_container = _writers(kind)
        return write_scalar(value) if write_container is None else write_container(self, value, depth)


_ScalarWriter = Callable[[Any], Any]
_ContainerWriter = Callable[[Walk, Any, int], Any]


# -- containers -------------------------------------------------------------------------------------------------------


def _write_dict(walk: Walk, value: Mapping[Any, Any], depth: int) -> Any:
    scalars = walk.scalars
    if (
        _STR.issuperset(map(type, value))
        and scalars.issuperset(map(type, value.values()))
        and not _looks_like_tag(value)
        and type(value) is dict
        and not walk.careful
    ):
        return value
    written: dict[str, Any] = {}
    key: Any = None
    try:
        for key, item in value.items():
            name = key if type(key) is str and not walk.careful else key_text(key)
            if name in written:
                raise NotEncodable(f"has two keys that both become {name!r}")
            written[name] = item if type(item) in scalars else walk.plain(item, depth + 1)
    except NotEncodable as refused:
        refused.path.append(printable_key(key))
        raise
    return {f"${key}": item for key, item in written.items()} if _looks_like_tag(written) else written


def _looks_like_tag(value: Mapping[str, Any]) -> bool:
    return len(value) == 1 and next(iter(value)).startswith("$")


def _write_list(walk: Walk, value: Collection[Any], depth: int) -> Any:
    scalars = walk.scalars
    if scalars.issuperset(map(type, value)):
        return value if type(value) is list else list(value)
    written: list[Any] = []
    try:
        for item in value:
            item = item if type(item) in scalars else walk.plain(item, depth + 1)
            written.append(item)  # not a comprehension: how far it came is the path of what is refused
    except NotEncodable as refused:
        refused.path.append(str(len(written)))
        raise
    return written


def _write_set(walk: Walk, value: Collection[Any], depth: int) -> Any:
    tag = tags.FROZENSET if isinstance(value, frozenset) else tags.SET
    # Sorted, so that equal sets give equal text in every process.
    return {tag: sorted(_write_list(walk, value, depth), key=_order)}


def _order(item: Any) -> bytes:
    try:
        return to_json(item)
    except PydanticSerializationError:
        return json.dumps(item).encode("ascii")


def _write_model(walk: Walk, value: BaseModel, depth: int) -> Any:
    try:
        fields = value.model_dump(mode="python", by_alias=False, round_trip=True, warnings=False)
    except Exception as error:  # noqa: BLE001 - a model's serializers are user code
        raise NotEncodable(f"is of type {type_name(type(value))}, which cannot be dumped: {error}") from None
    return walk.plain(fields, depth)


def _write_dataclass(walk: Walk, value: Any, depth: int) -> Any:
    if is_pydantic_dataclass(type(value)):
        return walk.plain(_dump(value, mode="python"), depth)
    names = [field.name for field in dataclasses.fields(value)]
    return walk.plain({name: getattr(value, name) for name in names if hasattr(value, name)}, depth)


def _write_issue(walk: Walk, value: Issue, depth: int) -> Any:
    return {tags.ISSUE: walk.plain([value.path, value.kind, value.message], depth)}


def _write_enum(walk: Walk, value: Enum, depth: int) -> Any:
    return walk.plain(value.value, depth + 1)


def _write_exception(walk: Walk, value: BaseException, depth: int) -> Any:
    if id(value) in walk.open_errors or len(walk.open_errors) >= tags.MAX_NESTED_ERRORS:
        raise NotEncodable("is an exception that refers to itself, or is nested too deeply")
    walk.open_errors.add(id(value))
    try:
        return {tags.ERROR: describe(value, lambda part: walk.plain(part, depth + 1), _reread)}
    finally:
        walk.open_errors.discard(id(value))


def _reread(written: Any) -> Any:
    return json.loads(json.dumps(written), object_hook=untag)


# -- scalars ----------------------------------------------------------------------------------------------------------


def _write_text(value: str) -> Any:
    text = str.__str__(value)
    if SPLIT_PAIR.search(text):
        return {tags.TEXT: base64.b64encode(text.encode("utf-8", "surrogatepass")).decode("ascii")}
    return text


def _write_float(value: float) -> Any:
    number = float.__float__(value)
    return number if math.isfinite(number) else {tags.FLOAT: repr(number)}


def _write_int(value: int) -> Any:
    return int.__int__(value)


def _write_datetime(value: datetime) -> Any:
    # The offset is kept, the time zone's name is not: looking a zone up by a name from the data is not for a reader.
    return {tags.DATETIME: value.isoformat()}


def _write_date(value: date) -> Any:
    return {tags.DATE: value.isoformat()}


def _write_time(value: time) -> Any:
    return {tags.TIME: value.isoformat()}


def _write_timedelta(value: timedelta) -> Any:
    return {tags.TIMEDELTA: [value.days, value.seconds, value.microseconds]}


def _write_decimal(value: Decimal) -> Any:
    return {tags.DECIMAL: str(value)}


def _write_uuid(value: UUID) -> Any:
    return {tags.UUID: str(value)}


def _write_bytes(value: bytes | bytearray | memoryview) -> Any:
    return {tags.BYTES: base64.b64encode(bytes(value)).decode("ascii")}


# -- everything else --------------------------------------------------------------------------------------------------


def _refuse_secret(value: Any) -> NoReturn:
    raise NotEncodable(
        f"is of type {type_name(type(value))}: secrets are not stored; put it into a secret request-context key"
    )


def _write_by_pydantic(walk: Walk, value: Any, depth: int) -> Any:
    return walk.plain(_dump(value, mode="json"), depth + 1)


def _dump(value: Any, *, mode: Literal["json", "python"]) -> Any:
    """pydantic's own dump of a value by its type. Raises `NotEncodable` where pydantic does not know the type."""
    kind: Any = type(value)
    adapter = _adapter(kind)
    if adapter is None:
        raise NotEncodable(f"is of type {type_name(type(value))}, which has no JSON form")
    try:
        return adapter.dump_python(value, mode=mode, by_alias=False, round_trip=True, warnings=False)
    except Exception as error:  # noqa: BLE001 - a type's serializer is user code
        raise NotEncodable(f"is of type {type_name(type(value))}, which cannot be dumped: {error}") from None


@lru_cache(maxsize=1024)
def _adapter(kind: type) -> TypeAdapter[Any] | None:
    if issubclass(kind, type):  # pydantic has a schema for classes, but no way to write one
        return None
    try:
        return TypeAdapter(kind)
    except Exception:  # noqa: BLE001 - whatever a foreign type's schema hook raises, there is no schema
        return None


# The first line that fits decides: enums may be strings, datetimes are dates, an exception may be a dataclass.
_SCALARS: tuple[tuple[type | tuple[type, ...], _ScalarWriter], ...] = (
    (str, _write_text),
    (int, _write_int),
    (float, _write_float),
    (datetime, _write_datetime),
    (date, _write_date),
    (time, _write_time),
    (timedelta, _write_timedelta),
    (Decimal, _write_decimal),
    (UUID, _write_uuid),
    ((bytes, bytearray, memoryview), _write_bytes),
    ((SecretStr, SecretBytes, Secret), _refuse_secret),
)
_CONTAINERS: tuple[tuple[type | tuple[type, ...], _ContainerWriter], ...] = (
    (Enum, _write_enum),
    (BaseException, _write_exception),
    (BaseModel, _write_model),
    (Issue, _write_issue),
    ((list, tuple, deque), _write_list),
    (Mapping, _write_dict),
    ((set, frozenset), _write_set),
)


@lru_cache(maxsize=4096)
def _writers(kind: type) -> tuple[_ScalarWriter, _ContainerWriter | None]:
    """The writers of values of this type; the first counts only where there is no second."""
    for kinds, container in _CONTAINERS:
        if issubclass(kind, kinds):
            return _write_text, container
    for kinds, scalar in _SCALARS:
        if issubclass(kind, kinds):
            return scalar, None
    return _write_text, _write_dataclass if dataclasses.is_dataclass(kind) else _write_by_pydantic
