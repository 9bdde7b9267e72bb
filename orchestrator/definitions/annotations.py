"""The annotations of a user's function: which parameter is the context, what goes in and what comes out."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from functools import partial
from typing import Annotated, Any, ForwardRef, Never, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from orchestrator.codec import is_any_annotation
from orchestrator.definitions.context import Context

_CONTEXT_TEXT = re.compile(r"(\w+\.)*Context\s*(\[.*)?$", re.DOTALL)
_SAYS_NOTHING = (Never, NoReturn)


class Unresolvable(Exception):
    """An annotation is text that cannot be evaluated where its function stands."""

    def __init__(self, text: str, reason: BaseException) -> None:
        super().__init__(f"{text!r} ({reason})")
        self.text = text


def resolve(fn: Callable[..., Any], annotation: Any) -> Any:
    """The annotation as an object; `None` where it says nothing (missing, `Any`, `object`).

    Raises `Unresolvable` for text that names what is not defined in the function's module or closure.
    """
    if is_any_annotation(annotation):
        return None
    target = _plain_function(fn)
    names = dict(getattr(target, "__globals__", {}))
    cells = zip(getattr(getattr(target, "__code__", None), "co_freevars", ()), _closure(target), strict=False)
    return _evaluate(annotation, names | {name: cell.cell_contents for name, cell in cells if _is_filled(cell)})


def require_annotation(annotation: Any, what: str) -> Any:
    """An annotation that stands by itself; `None` where it says nothing.

    There is no function in whose module a name could be looked up. So it is a TypeError, beginning with `what`, if it
    is text, or has text in it that names what is not built in.
    """
    if annotation is None or is_any_annotation(annotation):
        return None
    if isinstance(annotation, (str, ForwardRef)):
        raise TypeError(f"{what} is the text {annotation!r}, which nobody can resolve: give the type itself")
    try:
        return _evaluate(annotation, {})
    except Unresolvable as error:
        raise TypeError(f"{what}: the annotation {error} cannot be resolved: give the types themselves") from error


def _evaluate(annotation: Any, names: dict[str, Any]) -> Any:
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        found = get_type_hints(holder, names, include_extras=True)["it"]
    except Exception as error:  # evaluating a user's annotation may raise anything
        raise Unresolvable(str(annotation), error) from error
    return None if is_any_annotation(found) else found


def _plain_function(fn: Any) -> Any:
    """The plain function behind decorators, methods, partials and objects that can be called."""
    while True:
        if isinstance(fn, partial):
            fn = fn.func
        elif hasattr(fn, "__wrapped__"):
            fn = fn.__wrapped__
        elif inspect.ismethod(fn):
            fn = fn.__func__
        elif inspect.isfunction(fn) or inspect.isbuiltin(fn) or inspect.isclass(fn):
            return fn
        else:
            call = type(fn).__call__
            return call if inspect.isfunction(call) else fn


def _closure(target: Any) -> tuple[Any, ...]:
    return getattr(target, "__closure__", None) or ()


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - reading an empty cell raises
    except ValueError:
        return False
    return True


def is_context(fn: Callable[..., Any], annotation: Any) -> bool:
    """True for a parameter that gets the context, also where a part of its annotation cannot be resolved."""
    try:
        return _context_in(resolve(fn, annotation)) is not None
    except Unresolvable as error:
        return _CONTEXT_TEXT.match(error.text.strip()) is not None


def resume_type(annotation: Any) -> Any:
    """The `R` of `Context[R]`, or of a subclass of it; `None` where it is not said."""
    found = _context_in(annotation)
    while found is not None:
        origin = get_origin(found) or found
        if origin is Context:
            said = get_args(found)
            return None if not said or is_any_annotation(said[0]) or isinstance(said[0], TypeVar) else said[0]
        found = next((base for base in getattr(origin, "__orig_bases__", ()) if _context_in(base)), None)
    return None


def _context_in(annotation: Any) -> Any:
    """The part of an annotation that is `Context`, `Context[R]` or a subclass; `None` if there is none."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _context_in(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return next((arm for arm in get_args(annotation) if _context_in(arm) is not None), None)
    kind = origin or annotation
    return annotation if isinstance(kind, type) and issubclass(kind, Context) else None


def return_type(fn: Callable[..., Any], annotation: Any) -> Any:
    """The type that a function with this (resolved) return annotation returns in the end; `None` where it is not said.

    Of a generator it is the type of its return value, of an awaitable that of its result.
    """
    origin, said = get_origin(annotation), get_args(annotation)
    if annotation in _SAYS_NOTHING:
        return None
    if inspect.isgeneratorfunction(_plain_function(fn)):
        generator = origin is Generator and len(said) == 3
        return None if not generator or is_any_annotation(said[2]) else said[2]
    if origin in (Coroutine, Awaitable, Generator) and said and not inspect.iscoroutinefunction(_plain_function(fn)):
        return None if is_any_annotation(said[-1]) else said[-1]
    kind = origin or annotation
    if kind in (Awaitable, Coroutine, Generator, Iterator, Iterable, AsyncIterator, AsyncGenerator):
        return annotation if origin is Iterable else None
    return annotation


def returns_generator(fn: Callable[..., Any]) -> bool:
    """True for a generator function, and for a function whose annotation says that it returns a generator."""
    plain = _plain_function(fn)
    if inspect.isgeneratorfunction(plain):
        return True
    try:
        said = resolve(fn, getattr(plain, "__annotations__", {}).get("return", inspect.Parameter.empty))
    except Unresolvable:
        return False
    return (get_origin(said) or said) is Generator


def is_async_generator(fn: Callable[..., Any]) -> bool:
    """True for an async generator function, which cannot return a value."""
    return inspect.isasyncgenfunction(_plain_function(fn))
