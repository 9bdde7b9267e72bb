"""The call of a user's function: which of its parameters gets the data, and which the context."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from inspect import Parameter
from typing import Any

from orchestrator.definitions.annotations import is_async_generator, is_context, returns_generator

CONTEXT_NAME = "ctx"


@dataclass(frozen=True, slots=True)
class Callback:
    """A function that takes the data, the context, both in any order, or neither.

    Used for steps, conditions, map functions, computed sleeps and computed concurrency alike. Making one raises
    TypeError for a function that needs more than that.
    """

    fn: Callable[..., Any]
    # The parameter that gets the data, None where the function takes none.
    input: Parameter | None = field(init=False, compare=False)
    # The parameter that gets the context, None where the function takes none.
    context: Parameter | None = field(init=False, compare=False)
    # The parameters to fill, in order, each with True where it is given by keyword.
    _slots: tuple[tuple[str, bool], ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not callable(self.fn):
            raise TypeError(f"{self.fn!r} is not a function")
        parameters = _parameters(self.fn)
        context = _context(self.fn, parameters)
        given = _input(self.fn, parameters, context)
        object.__setattr__(self, "context", context)
        object.__setattr__(self, "input", given)
        object.__setattr__(self, "_slots", tuple(_slots(parameters, given, context)))

    @property
    def name(self) -> str:
        """The function's name, for pictures and messages; `<lambda>` where it has none."""
        return name_of(self.fn)

    def call(self, data: Any, context: Any) -> Any:
        """Call the function. Returns what it returns, which may be a coroutine or a generator."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for name, by_keyword in self._slots:
            value = context if self.context is not None and name == self.context.name else data
            if by_keyword:
                kwargs[name] = value
            else:
                args.append(value)
        return self.fn(*args, **kwargs)


def require_hook(what: str, given: Any) -> None:
    """Raise TypeError for what cannot be called with one argument, or would only make a generator then.

    A hook is called when its run has ended, and what it raises is nobody's failure but its own: it would be tried again
    and again, and be given up in the end.
    """
    if not callable(given):
        raise TypeError(f"{what} is a function that takes a RunInfo, not {given!r}")
    if returns_generator(given) or is_async_generator(given):
        raise TypeError(f"{what}: {name_of(given)} is a generator, which does nothing when it is called")
    try:
        signature = inspect.signature(given)
    except ValueError:  # a builtin that does not tell
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise TypeError(f"{what} is called with one RunInfo, and {name_of(given)}{signature} is not: {error}") from None


def name_of(fn: Any) -> str:
    """The name of a function, or that of its class."""
    inner = getattr(fn, "func", fn)  # a partial has no name of its own
    found = getattr(inner, "__name__", None)
    return found if isinstance(found, str) else type(inner).__name__


def _parameters(fn: Callable[..., Any]) -> list[Parameter]:
    try:
        return list(inspect.signature(fn).parameters.values())
    except ValueError:  # a builtin that does not tell: one value goes in
        return [Parameter("data", Parameter.POSITIONAL_ONLY)]


def _context(fn: Callable[..., Any], parameters: list[Parameter]) -> Parameter | None:
    """The parameter annotated as the context, else the one named so."""
    fixed = [each for each in parameters if each.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)]
    annotated = [each for each in fixed if is_context(fn, each.annotation)]
    if len(annotated) > 1:
        raise TypeError(f"{name_of(fn)}: the parameter {annotated[1].name!r} is a second context; a function gets one")
    return annotated[0] if annotated else next((each for each in fixed if each.name == CONTEXT_NAME), None)


def _input(fn: Callable[..., Any], parameters: list[Parameter], context: Parameter | None) -> Parameter | None:
    """The parameter that gets the data.

    It is the one without a default. A parameter with a default is it only where it stands first: the `n` of
    `lambda ctx, n=n: ...` is the author's own.
    """
    rest = [each for each in parameters if each is not context and each.kind is not Parameter.VAR_KEYWORD]
    fixed = [each for each in rest if each.kind is not Parameter.VAR_POSITIONAL]
    needed = [each for each in fixed if each.default is Parameter.empty]
    if len(needed) > 1:
        raise TypeError(
            f"{name_of(fn)}: the parameter {needed[1].name!r} is neither the input (that is {needed[0].name!r}) nor "
            f"the context (annotated Context, or named {CONTEXT_NAME!r}); give it a default, or bind it with "
            "functools.partial"
        )
    if needed:
        return needed[0]
    if fixed and fixed[0] is parameters[0] and fixed[0].kind is not Parameter.KEYWORD_ONLY:
        return fixed[0]
    takes_any = len(rest) == 1 and context is None and rest[0].kind is Parameter.VAR_POSITIONAL
    return rest[0] if takes_any else None


def _slots(
    parameters: list[Parameter], given: Parameter | None, context: Parameter | None
) -> Iterable[tuple[str, bool]]:
    """The parameters to fill, in order, each with True where it is given by keyword.

    That is by position as long as none is left out before it.
    """
    by_keyword = False
    for each in parameters:
        if each is given or each is context:
            yield each.name, each.kind is Parameter.KEYWORD_ONLY or (by_keyword and _may_be_named(each))
        else:
            by_keyword = True


def _may_be_named(parameter: Parameter) -> bool:
    return parameter.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
