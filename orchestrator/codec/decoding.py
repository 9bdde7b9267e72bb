"""From text to a value. Nothing that the data names is imported or called."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic_core import from_json

from orchestrator.codec import tags
from orchestrator.codec.exceptions import rebuild
from orchestrator.codec.packing import unpack
from orchestrator.errors import Issue, ValueNotReadable

_MAX_DIGITS = 600  # that Python reads by itself, whatever it is told


def decode(text: str) -> Any:
    """The value that `encode` wrote: plain JSON shapes, the tagged scalars, and exceptions.

    An exception has its class where that is loaded in this process, else it is a `RemoteError`.

    Raises:
        ValueNotReadable: the text is not of this format, or of a version that this release does not know.
    """
    try:
        document = _parse(unpack(text))
    except ValueNotReadable:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueNotReadable(f"The stored text cannot be read: {error}") from error
    if not isinstance(document, dict) or "v" not in document or "d" not in document:
        raise ValueNotReadable("The stored text is not of the orchestrator's format")
    if document["v"] != tags.VERSION:
        raise ValueNotReadable(
            f"The stored text has format version {document['v']!r}; this release reads {tags.VERSION}",
            version=document["v"],
        )
    return document["d"]


def _parse(text: str) -> Any:
    # Only in our own spacing is the mark to be found; a store may have laid the text out anew.
    if text.startswith(tags.PREFIX) and tags.MARK not in text:
        try:
            return from_json(text)
        except ValueError:
            pass  # it knows no lone surrogates; what is really broken fails again below
    return _DECODER.decode(text)


def untag(tree: dict[str, Any]) -> Any:
    """The value that a JSON object stands for. Its members are values already: the parser works from the inside out."""
    if len(tree) != 1:
        return tree
    [(key, value)] = tree.items()
    if not key.startswith("$"):
        return tree
    if key.startswith("$$"):
        return {key[1:]: value}
    reader = _READERS.get(key)
    if reader is None:
        raise ValueNotReadable(f"The stored text has an unknown tag: {key}")
    return reader(value)


def _read_int(digits: str) -> int:
    # Python refuses to read very long ints by default, because its way of doing it takes the square of their length.
    if len(digits) <= _MAX_DIGITS:
        return int(digits)
    sign, digits = (-1, digits[1:]) if digits.startswith("-") else (1, digits)
    return sign * _read_halves(digits)


def _read_halves(digits: str) -> int:
    if len(digits) <= _MAX_DIGITS:
        return int(digits)
    cut = len(digits) // 2
    power: int = 10**cut
    return _read_halves(digits[:-cut]) * power + _read_halves(digits[-cut:])


def _hashable(item: Any) -> Any:
    """The member of a set that this item was: only a tuple can have become a list."""
    return tuple(map(_hashable, item)) if isinstance(item, list) else item


def _read_set(items: list[Any]) -> Any:
    try:
        return set(map(_hashable, items))
    except TypeError:
        return items  # models and dataclasses have become dicts; the declared type makes a set of them again


def _read_frozenset(items: list[Any]) -> Any:
    read = _read_set(items)
    return frozenset(read) if isinstance(read, set) else read


_READERS: dict[str, Callable[[Any], Any]] = {
    tags.DATETIME: datetime.fromisoformat,
    tags.DATE: date.fromisoformat,
    tags.TIME: time.fromisoformat,
    tags.TIMEDELTA: lambda parts: timedelta(*parts),
    tags.DECIMAL: Decimal,
    tags.UUID: UUID,
    tags.BYTES: lambda text: base64.b64decode(text, validate=True),
    tags.SET: _read_set,
    tags.FROZENSET: _read_frozenset,
    tags.FLOAT: float,
    tags.TEXT: lambda text: base64.b64decode(text, validate=True).decode("utf-8", "surrogatepass"),
    tags.ERROR: rebuild,
    tags.TUPLE: tuple,
    tags.ISSUE: lambda parts: Issue(*parts),
}
_DECODER = json.JSONDecoder(object_hook=untag, parse_int=_read_int)
