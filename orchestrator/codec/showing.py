"""A value for readers without Python: events, `to_dict()`, the command line, the result backend.

What is shown is never read back, so nothing is tagged here and nothing is refused: it must not know the stored format.
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from math import inf, isfinite
from types import NoneType
from typing import Any

from pydantic_core import to_jsonable_python

from orchestrator.codec import tags
from orchestrator.codec.keys import key_text
from orchestrator.codec.tags import NotEncodable

_PLAIN = frozenset({bool, int, NoneType})
_NO_NUMBERS = {inf: "Infinity", -inf: "-Infinity"}
_LISTS = (list, tuple, deque, set, frozenset)
_MAX_DEPTH = 2 * tags.MAX_DEPTH  # models and dataclasses are levels of their own here


def as_json(value: Any) -> Any:
    """The value in JSON's shapes; never raises.

    NaN and the infinities, which JSON has not, are `"NaN"`, `"Infinity"` and `"-Infinity"`. Bytes are base64, wherever
    they are; lone surrogates, which are no text, are their escapes; a model is what it
    writes of itself in JSON; anything unknown is its `str`.
    """
    try:
        return _show(value, ())
    except Exception:  # noqa: BLE001 - mappings and attributes may be user code, too
        return _as_text(value)


def _show(value: Any, inside: tuple[int, ...]) -> Any:
    if type(value) in _PLAIN or (type(value) is str and value.isascii()):
        return value
    match value:
        case dict() | list() if id(value) not in inside and len(inside) <= _MAX_DEPTH:
            return _show_parts(value, (*inside, id(value)))
        case Enum():
            return _show(value.value, inside)
        case str():
            return _text(value)
        case int():
            return int.__int__(value)
        case float():
            number = float.__float__(value)
            return number if isfinite(number) else _NO_NUMBERS.get(number, "NaN")
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode("ascii")
        case _ if id(value) in inside or len(inside) > _MAX_DEPTH:
            return _as_text(value)
        case _:
            return _show_parts(value, (*inside, id(value)))


def _show_parts(value: Any, inside: tuple[int, ...]) -> Any:
    if isinstance(value, Mapping):
        return {key_as_json(key): _show(part, inside) for key, part in value.items()}
    if isinstance(value, _LISTS):
        return [_show(part, inside) for part in value]
    if _is_dataclass(value):
        return {name: _show(getattr(value, name, None), inside) for name in value.__dataclass_fields__}
    dumped = _attempt(lambda: _dump(value))
    written = None if _holds_bytes(dumped) else _attempt(lambda: to_jsonable_python(value, fallback=_as_text))
    shown = dumped if written is None else written
    return _as_text(value) if shown is None else _show(shown, inside)


def _is_dataclass(value: Any) -> bool:
    """True for a plain dataclass, of which pydantic knows nothing."""
    kind = type(value)
    return hasattr(kind, "__dataclass_fields__") and not hasattr(kind, "__pydantic_serializer__")


def _dump(value: Any) -> Any:
    """The Python values inside a model; None for anything else."""
    serializer = getattr(type(value), "__pydantic_serializer__", None)
    return serializer and serializer.to_python(value, mode="python", by_alias=True, warnings=False)


def _holds_bytes(part: Any) -> bool:
    match part:
        case bytes() | bytearray() | memoryview():
            return True
        case Mapping():
            return any(map(_holds_bytes, part.values()))
        case _:
            return isinstance(part, _LISTS) and any(map(_holds_bytes, part))


def _attempt(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception:  # noqa: BLE001 - serializers and properties are user code; there is another way to show the value
        return None


def key_as_json(key: Any) -> str:
    """A dict's key as such an object's; never raises."""
    if type(key) is str and key.isascii():
        return key
    try:
        return _text(key_text(key))
    except NotEncodable:
        return _as_text(key)


def _as_text(value: Any) -> str:
    text = _attempt(lambda: _text(str(value)))
    return f"<{type(value).__qualname__} without text>" if text is None else text


def _text(value: str) -> str:
    text = str.__str__(value)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
