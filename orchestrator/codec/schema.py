"""Declared types: pydantic's adapters for them, and checking an input against one."""

from __future__ import annotations

import inspect
from collections.abc import Hashable
from functools import lru_cache, partial
from typing import Any

from pydantic import BaseModel, ConfigDict, RootModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import to_json
from typing_extensions import is_typeddict

from orchestrator.codec.mending import repair_enums
from orchestrator.errors import InputInvalid, Issue
from orchestrator.host import is_time_limit

_UNHASHABLE_LIMIT = 256
# By id, beside the annotation itself: as long as that is here, no other object gets its id.
_unhashable: dict[int, tuple[Any, TypeAdapter[Any]]] = {}


def is_any_annotation(annotation: Any) -> bool:
    """True for an annotation that says nothing: it is missing, `Any` or `object`."""
    return annotation is Any or annotation is object or annotation is inspect.Parameter.empty


def type_adapter(annotation: Any) -> TypeAdapter[Any]:
    """pydantic's adapter for the annotation, made once.

    A class that pydantic knows nothing of is checked with `isinstance`. Raises pydantic's own errors for an annotation
    that is none, or that names what is not defined.
    """
    if isinstance(annotation, Hashable):
        try:
            return _cached_adapter(annotation)
        except TypeError:
            pass  # hashable by its type, but not by what it holds: Annotated[int, []]
    return _unhashable_adapter(annotation)


@lru_cache(maxsize=1024, typed=True)
def _cached_adapter(annotation: Hashable) -> TypeAdapter[Any]:
    return _make_adapter(annotation)


def _unhashable_adapter(annotation: Any) -> TypeAdapter[Any]:
    known = _unhashable.get(id(annotation))
    if known is not None:
        return known[1]
    adapter = _make_adapter(annotation)
    if len(_unhashable) >= _UNHASHABLE_LIMIT:
        _unhashable.clear()
    _unhashable[id(annotation)] = (annotation, adapter)
    return adapter


def _make_adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation)
    except PydanticSchemaGenerationError:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))


def validate(annotation: Any, plain: Any, *, header: str = "Invalid input data: ") -> Any:
    """The value as its declared type: defaults filled in, unknown keys dropped (or refused where the model says so).

    Accepts what `decode` returns, keys by field name or by alias, and an instance of the declared type. A missing
    annotation, and a model or TypedDict without any fields, let the value through unchanged.

    Raises:
        InputInvalid: it does not fit; its cause is pydantic's `ValidationError`, with the same issues.
    """
    if is_any_annotation(annotation) or has_no_fields(annotation):
        return plain
    adapter = type_adapter(annotation)
    try:
        return adapter.validate_python(plain, by_alias=True, by_name=True)
    except ValidationError as error:
        for attempt in (_validate_as_json, partial(_validate_repaired, annotation)):
            try:
                return attempt(adapter, plain)
            # A value that contains itself, or is nested deeply, is not walked to its end: it has not fitted anyway.
            except (ValidationError, ValueError, RecursionError):
                continue
        raise InputInvalid(issues_of(error), header=header) from error


def _validate_as_json(adapter: TypeAdapter[Any], plain: Any) -> Any:
    """Validate for a strict model, which takes an enum's value or a list for a tuple only where it sees JSON.

    Whatever does not fit without strictness either is refused first, so that nothing else gets in this way.
    """
    adapter.validate_python(plain, strict=False, by_alias=True, by_name=True)
    return adapter.validate_json(to_json(plain), by_alias=True, by_name=True)


def _validate_repaired(annotation: Any, adapter: TypeAdapter[Any], plain: Any) -> Any:
    found = repair_enums_of(annotation, plain)
    if found is plain:
        raise ValueError("there is nothing to repair")
    return adapter.validate_python(found, by_alias=True, by_name=True)


def repair_enums_of(annotation: Any, plain: Any) -> Any:
    """The value with enums where pydantic does not find them by their value; the same object where there are none."""
    return repair_enums(annotation, plain, _fits)


def _fits(annotation: Any, plain: Any) -> bool:
    try:
        type_adapter(annotation).validate_python(plain, strict=False, by_alias=True, by_name=True)
    except Exception as error:  # validators are user code
        if is_time_limit(error):
            raise
        return False
    return True


def has_no_fields(annotation: Any) -> bool:
    """True for a model or TypedDict that declares no field: any value passes it unchanged."""
    if is_typeddict(annotation):
        return not annotation.__annotations__
    return (
        isinstance(annotation, type)
        and issubclass(annotation, BaseModel)
        and not issubclass(annotation, RootModel)
        and not annotation.model_fields
    )


def issues_of(error: ValidationError) -> tuple[Issue, ...]:
    """The issues that pydantic found. They never quote the input, which may hold secrets."""
    return tuple(
        Issue(".".join(str(part) for part in found["loc"]), found["type"], found["msg"])
        for found in error.errors(include_url=False, include_context=False, include_input=False)
    )
