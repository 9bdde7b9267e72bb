"""Enums that pydantic does not find again by their value, because of where they stand.

It takes an enum's value for the enum, but not where the member itself is declared (`Literal[Kind.CARD]`, as a
discriminator is), nor the text of an int where an enum is the key of a dict. Only a value that has not fitted comes
here, so none that fits is looked at twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from orchestrator.codec.annotations import part_annotation, unwrap


def repair_enums(annotation: Any, plain: Any, fits: Callable[[Any, Any], bool]) -> Any:
    """Return the plain value with its enums restored; the same object where there is none.

    `fits` decides whether a value belongs to an annotation, by which the arm of a union is found.
    """
    declared = unwrap(annotation)
    origin = get_origin(declared)
    if origin is Literal:
        return _member(get_args(declared), plain)
    if origin in (Union, UnionType):
        arms = [arm for arm in get_args(declared) if arm is not NoneType]
        found = ((arm, repair_enums(arm, plain, fits)) for arm in arms)
        return next((value for arm, value in found if value is not plain and fits(arm, value)), plain)
    if isinstance(plain, dict):
        return _repair_dict(declared, plain, fits)
    if isinstance(plain, list):
        items = [repair_enums(part_annotation(declared, str(index)), item, fits) for index, item in enumerate(plain)]
        return plain if all(map(_same, items, plain)) else items
    return plain


def _repair_dict(declared: Any, plain: dict[Any, Any], fits: Callable[[Any, Any], bool]) -> Any:
    members = _int_members(declared)
    items: dict[Any, Any] = {}
    for key, value in plain.items():
        part = part_annotation(declared, key) if isinstance(key, str) else Any
        items[members.get(key, key)] = repair_enums(part, value, fits)
    return plain if all(map(_same, items, plain)) and all(map(_same, items.values(), plain.values())) else items


def _int_members(declared: Any) -> Mapping[Any, Enum]:
    """The members of an enum that is the key of this dict, by the text of their int."""
    origin, args = get_origin(declared), get_args(declared)
    if not (isinstance(origin, type) and issubclass(origin, Mapping) and len(args) == 2):
        return {}
    kind = unwrap(args[0])
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        return {}
    return {str(int(member.value)): member for member in kind if isinstance(member.value, int)}


def _member(allowed: tuple[Any, ...], plain: Any) -> Any:
    if any(plain is choice or (type(plain) is type(choice) and plain == choice) for choice in allowed):
        return plain
    members = (choice for choice in allowed if isinstance(choice, Enum))
    return next((one for one in members if type(one.value) is type(plain) and one.value == plain), plain)


def _same(one: Any, other: Any) -> bool:
    return one is other
