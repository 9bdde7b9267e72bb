"""The annotations of a value's parts. No other module looks inside annotations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, NewType, NotRequired, Required, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, RootModel
from typing_extensions import ReadOnly, is_typeddict


def is_index(word: str) -> bool:
    """True for a word that can be the place of an item in a list."""
    return word.isascii() and word.isdigit()


def part_annotation(annotation: Any, word: str) -> Any:
    """The annotation of a field, key or item; `Any` where the annotation has none."""
    inner = unwrap(annotation)
    if isinstance(inner, type) and get_origin(inner) is None:
        if issubclass(inner, BaseModel):
            return _field_of_model(inner, word)
        if is_typeddict(inner) or dataclasses.is_dataclass(inner):
            return _unwrap_qualifiers(_hints(inner).get(word, Any))
        return Any
    return _annotation_in_generic(get_origin(inner), get_args(inner), word)


def _field_of_model(model: type[BaseModel], word: str) -> Any:
    if issubclass(model, RootModel):
        return part_annotation(model.model_fields["root"].annotation, word)
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
    if not is_index(word):
        return Any
    if origin is tuple and args and args[-1] is not Ellipsis:
        return args[int(word)] if int(word) < len(args) else Any
    return args[0] if args and issubclass(origin, Sequence) else Any


def unwrap(annotation: Any) -> Any:
    """The annotation without its wrappers: metadata, aliases, and `None` where it is the only alternative.

    None of them says anything about the parts of a value.
    """
    while True:
        origin = get_origin(annotation)
        if origin is Annotated or isinstance(annotation, NewType):
            annotation = annotation.__supertype__ if isinstance(annotation, NewType) else get_args(annotation)[0]
        elif type(annotation).__name__ == "TypeAliasType":  # there are two: typing's and its backport
            annotation = annotation.__value__
        elif origin in (Union, UnionType):
            present = [arm for arm in get_args(annotation) if arm is not NoneType]
            if len(present) != 1:
                return annotation
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
