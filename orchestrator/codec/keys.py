"""Keys as text: those of a dict inside a value, and those that are names of their own in a store.

A key that is no string becomes the text that pydantic would give it in JSON, so that a declared type reads it back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from orchestrator.codec.tags import NotEncodable
from orchestrator.errors import PayloadTooLarge, ValueNotSerializable
from orchestrator.rules.bounds import MAX_NAME, name_size

_KINDS = "strings, ints, floats, bools, Decimals, UUIDs, dates and times, or enums of strings or ints"
_MAX_SHOWN = 80  # characters of a key in an error
_SURROGATE = re.compile("[\ud800-\udfff]")
# Two code points that JSON's escapes cannot tell from one character outside the basic plane.
SPLIT_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")

_TEXTS: tuple[tuple[type | tuple[type, ...], Callable[[Any], str]], ...] = (
    (float, float.__repr__),
    ((UUID, Decimal), str),
    ((date, time), lambda moment: moment.isoformat()),  # a datetime is a date
)


def key_text(key: Any) -> str:
    """The text that stands for a dict's key: a string is its own; a number, bool, UUID, date, time or enum has one.

    It comes back as what it was where the key's type is declared, and as text elsewhere. Raises `NotEncodable`.
    """
    value = key.value if isinstance(key, Enum) else key
    if isinstance(value, str):
        if SPLIT_PAIR.search(value):
            raise NotEncodable("is a key with a split surrogate pair, which JSON cannot hold")
        return str.__str__(value)
    if isinstance(value, int):
        return ("false", "true")[value] if isinstance(value, bool) else int.__repr__(value)
    if not isinstance(key, Enum):
        for kinds, text_of in _TEXTS:
            if isinstance(value, kinds):
                return text_of(value)
    raise NotEncodable(f"is a key of type {type_name(type(key))}: keys must be {_KINDS}")


def printable_key(key: Any) -> str:
    """Any key as text for people: short, with nothing that cannot be printed."""
    try:
        text = str.__str__(str(key))
    except Exception:  # noqa: BLE001 - a key that cannot say its text must not hide what is wrong with it
        text = f"<{type(key).__qualname__}>"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def with_text_keys(values: Mapping[Any, Any] | Iterable[tuple[Any, Any]], where: str) -> dict[str, Any]:
    """The values under the texts of their keys, which are names of their own in a store.

    Raises:
        ValueNotSerializable: a key has no text, or none that can be told to a store; two keys have the same.
    """
    found: dict[str, Any] = {}
    for key, value in dict(values).items():
        name = name_text(key, where)
        if name in found:
            raise ValueNotSerializable(f"{where} has two keys that both become {name!r}", where=where, field=name)
        found[name] = value
    return found


def name_text(key: Any, where: str) -> str:
    """The text of one such key. Raises `ValueNotSerializable`, and `PayloadTooLarge` for one that is too long."""
    try:
        name = key_text(key)
    except NotEncodable as refused:
        field = printable_key(key)
        raise ValueNotSerializable(f"{where}, field {field!r}, {refused.reason}", where=where, field=field) from None
    return require_name(name, f"{where}, field {printable_key(key)!r},")


def require_name(text: str, where: str) -> str:
    """The text itself, as a name in a store. Raises as `require_unicode`, and `PayloadTooLarge` for a long one."""
    require_unicode(text, where)
    # Databases index names, and their indexes have a limit of their own. A character has up to six bytes.
    if 6 * len(text) > MAX_NAME and (size := name_size(text)) > MAX_NAME:
        message = f"{where} is too long for a name: {size} bytes, where {MAX_NAME} are allowed"
        raise PayloadTooLarge(message, where=where, size=size, limit=MAX_NAME)
    return text


def require_unicode(text: str, where: str) -> str:
    """The text itself. Raises `ValueNotSerializable` for one with a lone surrogate: no server takes it for text."""
    if not text.isascii() and _SURROGATE.search(text):
        raise ValueNotSerializable(f"{where} has a lone surrogate, which is no text", where=where)
    return text


def type_name(kind: type) -> str:
    """The qualified name of a type; only its name for Python's own."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
