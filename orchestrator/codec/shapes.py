"""The static type of a value that flows through a graph: declared, or following from what was declared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from pydantic import ValidationError

from orchestrator.codec.annotations import is_index, part_annotation
from orchestrator.codec.schema import has_no_fields, is_any_annotation, repair_enums_of, type_adapter
from orchestrator.host import is_time_limit


@dataclass(frozen=True, slots=True)
class Plain:
    """Nothing is declared: the value stays in plain JSON shapes and the codec's scalars."""


@dataclass(frozen=True, slots=True)
class Typed:
    """An annotation says what it is."""

    annotation: Any


@dataclass(frozen=True, slots=True)
class DictOf:
    """A dict in which each of these keys has its own shape (a parallel's arms, the targets of a map)."""

    items: Mapping[str, Shape]


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list whose items all have one shape (the results of a foreach)."""

    item: Shape


Shape: TypeAlias = Plain | Typed | DictOf | ListOf

ANY = Plain()


def restore(shape: Shape, plain: Any) -> Any:
    """The value with its declared parts as their types. A part that does not fit stays as it is; never raises."""
    match shape:
        case Plain():
            return plain
        case Typed(annotation):
            return _restore_typed(annotation, plain)
        case DictOf(items):
            if not isinstance(plain, dict):
                return plain
            return {key: restore(items.get(key, ANY), value) for key, value in plain.items()}
        case ListOf(item):
            return [restore(item, value) for value in plain] if isinstance(plain, list) else plain


def _restore_typed(annotation: Any, plain: Any) -> Any:
    if is_any_annotation(annotation) or has_no_fields(annotation):
        return plain
    try:
        return _as_shape_of(annotation, plain)
    except Exception as error:  # validators are user code, and a value that does not fit stays plain
        if is_time_limit(error):
            raise
        return plain


def _as_shape_of(annotation: Any, plain: Any) -> Any:
    # By field name, as the encoder dumped it; not strictly, since enums and tuples are stored in plain shapes.
    validate = partial(type_adapter(annotation).validate_python, strict=False, by_alias=False, by_name=True)
    try:
        return validate(plain)
    except ValidationError:
        found = repair_enums_of(annotation, plain)
        if found is plain:
            raise
        return validate(found)


def shape_at(shape: Shape, dotted_path: str) -> Shape:
    """The shape of the part at a path ("order.lines.0"; "" is the value itself); `ANY` where nothing is declared."""
    for word in dotted_path.split(".") if dotted_path else ():
        shape = _part_shape(shape, word)
    return shape


def _part_shape(shape: Shape, word: str) -> Shape:
    match shape:
        case Plain():
            return ANY
        case Typed(annotation):
            return _shape_of(part_annotation(annotation, word))
        case DictOf(items):
            return items.get(word, ANY)
        case ListOf(item):
            return item if is_index(word) else ANY


def _shape_of(annotation: Any) -> Shape:
    return ANY if is_any_annotation(annotation) else Typed(annotation)
