"""Dotted paths into values: keys of dicts, fields of models and dataclasses, indexes of lists."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, RootModel


class NoSuchPlace(Exception):
    """The path leads nowhere in this value. With `through` it goes on where nothing can be inside."""

    def __init__(self, through: bool) -> None:
        super().__init__(through)
        self.through = through


def words_of(path: str) -> tuple[str, ...]:
    """The words of a path; none for the whole value, which is written as the empty path or as `.`."""
    return () if path in ("", ".") else tuple(path.split("."))


def read_path(value: Any, path: str, where: str) -> Any:
    """The part of the value at the path; None where the last key, field or index is missing.

    Raises ValueError, naming the path and `where`, for a path through something that has no parts (None, a text, a
    number), or whose place is missing before the last word.
    """
    words = words_of(path)
    for number, word in enumerate(words, 1):
        try:
            value = _part(value, word)
        except NoSuchPlace as error:
            if number == len(words) and not error.through:
                return None
            raise ValueError(f"Invalid path {path!r} in {where}: there is no {'.'.join(words[:number])!r}") from None
    return value


def require_text(given: Any, what: str) -> str:
    """A text that is not empty. TypeError, beginning with `what`, for anything else."""
    if isinstance(given, str) and given:
        return given
    raise TypeError(f"{what}, not {given!r}")


def seek(value: Any, words: Iterable[str]) -> Any:
    """The part of the value at these words; None where there is none."""
    try:
        for word in words:
            value = _part(value, word)
    except NoSuchPlace:
        return None
    return value


def _part(value: Any, word: str) -> Any:
    match value:
        case Mapping():
            if word in value:
                return value[word]
            raise NoSuchPlace(through=False)
        case RootModel():
            return _part(value.root, word)
        case BaseModel():
            return _field(value, word, (*type(value).model_fields, *(value.model_extra or ())))
        case str() | bytes() | bytearray():
            raise NoSuchPlace(through=True)
        case Sequence() if word.isascii() and word.isdigit():
            if int(word) < len(value):
                return value[int(word)]
            raise NoSuchPlace(through=False)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return _field(value, word, [each.name for each in dataclasses.fields(value)])
        case _:
            raise NoSuchPlace(through=True)


def _field(value: Any, word: str, names: Iterable[str]) -> Any:
    if word not in names:
        raise NoSuchPlace(through=False)
    return getattr(value, word)
