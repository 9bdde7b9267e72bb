"""The static type of a value that flows through a graph: declared, or following from what was declared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    NewType,
    NotRequired,
    Required,
    TypeAlias,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import BaseModel, RootModel
from typing_extensions import ReadOnly, is_typeddict

from orchestrator.codec.schema import has_no_fields, is_any_annotation, type_adapter


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
        # By field name, as the encoder dumped it; not strictly, since enums and tuples have lost what they were.
        return type_adapter(annotation).validate_python(plain, strict=False, by_alias=False, by_name=True)
    except Exception:  # noqa: BLE001 - validators are user code, and a value that does not fit stays plain
        return plain


def shape_at(shape: Shape, dotted_path: str) -> Shape:
    """The shape of the part at a path ("order.lines.0"; "" is the value itself); `ANY` where nothing is declared."""
    for word in dotted_path.split(".") if dotted_path else ():
        shape = _shape_below(shape, word)
    return shape


def _shape_below(shape: Shape, word: str) -> Shape:
    match shape:
        case Plain():
            return ANY
        case Typed(annotation):
            return _declared(_annotation_below(annotation, word))
        case DictOf(items):
            return items.get(word, ANY)
        case ListOf(item):
            return item if _is_index(word) else ANY


def _declared(annotation: Any) -> Shape:
    return ANY if is_any_annotation(annotation) else Typed(annotation)


def _is_index(word: str) -> bool:
    return word.isascii() and word.isdigit()


def _annotation_below(annotation: Any, word: str) -> Any:
    """The annotation of a field, key or item; `Any` where the annotation has none."""
    bare = _unwrap(annotation)
    if isinstance(bare, type) and get_origin(bare) is None:
        if issubclass(bare, BaseModel):
            return _field_of_model(bare, word)
        if is_typeddict(bare) or dataclasses.is_dataclass(bare):
            return _unwrap_qualifiers(_hints(bare).get(word, Any))
        return Any
    return _annotation_in_generic(get_origin(bare), get_args(bare), word)


def _field_of_model(model: type[BaseModel], word: str) -> Any:
    if issubclass(model, RootModel):
        return _annotation_below(model.model_fields["root"].annotation, word)
    field = model.model_fields.get(word)
    if field is None:
        return Any
    # With its metadata, where validators may stand that make the value what it is.
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _annotation_in_generic(origin: Any, args: tuple[Any, ...], word: str) -> Any:
    if not isinstance(origin, type):
        return Any
    if issubclass(origin, Mapping):
        return args[1] if len(args) == 2 else Any
    if not _is_index(word):
        return Any
    if origin is tuple and args and args[-1] is not Ellipsis:
        return args[int(word)] if int(word) < len(args) else Any
    return args[0] if args and issubclass(origin, Sequence) else Any


def _unwrap(annotation: Any) -> Any:
    """The annotation without what says nothing about its parts: metadata, aliases, `None` as an alternative."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated or isinstance(annotation, NewType):
            annotation = annotation.__supertype__ if isinstance(annotation, NewType) else get_args(annotation)[0]
        elif type(annotation).__name__ == "TypeAliasType":  # there are two: typing's and its backport
            annotation = annotation.__value__
        elif origin in (Union, UnionType):
            present = [arm for arm in get_args(annotation) if arm is not NoneType]
            if len(present) != 1:
                return Any
            annotation = present[0]
        else:
            return annotation


def _unwrap_qualifiers(annotation: Any) -> Any:
    while get_origin(annotation) in (Required, NotRequired, ReadOnly):
        annotation = get_args(annotation)[0]
    return annotation


def _hints(cls: Any) -> dict[str, Any]:
    try:
        return get_type_hints(cls, include_extras=True)
    except Exception:  # noqa: BLE001 - a name in an annotation that is not defined here
        return {}
