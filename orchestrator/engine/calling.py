"""Calls of user code: plain, async and generator functions, and their outcomes as values."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any

from orchestrator.definitions.context import Aborted, Bailing, Context, Suspending

# A context variable and no thread-local: async code and the threads it is given to inherit it.
_inside_step: ContextVar[bool] = ContextVar("orchestrator_inside_step", default=False)


@dataclass(frozen=True, slots=True)
class Returned:
    """The function returned."""

    value: Any


@dataclass(frozen=True, slots=True)
class Raised:
    """The function raised an exception, or did what only processes and event loops do: exit, cancel itself."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class SuspendRequested:
    """The function asked to suspend its run."""

    # tells the caller who resumes the step what the step asks for
    payload: Any
    # the user's own name for the suspended step, for `resume(label=…)`; empty for none
    label: str


@dataclass(frozen=True, slots=True)
class BailRequested:
    """The function ended its run as a success."""

    # the result of the run
    value: Any


@dataclass(frozen=True, slots=True)
class AbortRequested:
    """The function asked to end its run as canceled, or left because its run was canceled already."""


@dataclass(frozen=True, slots=True)
class RetryRequested:
    """The function asked for another attempt, whatever the step's own retries are."""

    # the pause before that attempt
    seconds: float


class RetryAsked(Exception):
    """An existing task asked to be retried."""

    def __init__(self, seconds: float, error: BaseException | None) -> None:
        super().__init__(f"to be retried in {seconds} s: {error!r}")
        self.seconds = seconds


class WorkerLost(BaseException):
    """Raised in a step by a test: the attempt is abandoned, as by a worker that is killed."""


Outcome = RetryRequested | Returned | Raised | SuspendRequested | BailRequested | AbortRequested


def outcome_of(call: Callable[[], Any], context: Context[Any]) -> Outcome:
    """Call the function, and return its outcome.

    Outcomes are a returned value, the library's own control-flow exceptions, ordinary exceptions, `sys.exit()` and a
    cancelled coroutine. An exception that ends the worker passes through.
    """
    # An abort wins over whatever the function returns or raises after it: the author wanted nothing else.
    inside = _inside_step.set(True)
    try:
        value = resolve_value(call(), context)
    except Suspending as signal:
        return AbortRequested() if context.aborted else SuspendRequested(signal.payload, signal.label)
    except Bailing as signal:
        return AbortRequested() if context.aborted else BailRequested(signal.value)
    except Aborted:
        return AbortRequested()
    except RetryAsked as wish:
        return RetryRequested(wish.seconds)
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  (the boundary to user code)
        return AbortRequested() if context.aborted else Raised(error)
    except SystemExit as error:
        # Celery ends workers by subclasses of it. A plain one is the function's own `sys.exit()`, which must not end a
        # worker that others use.
        if type(error) is not SystemExit:
            raise
        return AbortRequested() if context.aborted else Raised(error)
    finally:
        _inside_step.reset(inside)
    return AbortRequested() if context.aborted else Returned(value)


def refuse_inside_step(what: str) -> None:
    """Raise RuntimeError where the caller is a step."""
    # A step that waits occupies its worker. With all workers occupied so, the run that they wait for never goes on.
    if _inside_step.get():
        text = f"{what} waits, and a step must not: use `.submit()` or nest the workflow with `.then(workflow)`"
        raise RuntimeError(text)


def resolve_value(value: Any, context: Context[Any] | None = None) -> Any:
    """Await an awaitable, run a generator to its end, and return the value; any other value as it is."""
    if inspect.isawaitable(value):
        return _await(value)
    if inspect.isgenerator(value):
        return _drain(value, context)
    return value


def _drain(generator: Generator[Any, Any, Any], context: Context[Any] | None) -> Any:
    while True:
        try:
            chunk = next(generator)
        except StopIteration as stop:
            return stop.value
        if context is not None:
            # Yielded values are chunks of the stream; the value that the generator returns is its output.
            context.write(chunk)


async def _wait_for(value: Awaitable[Any]) -> Any:
    return await value


def _await(value: Awaitable[Any]) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_wait_for(value))
    return _in_thread(value)


def _in_thread(value: Awaitable[Any]) -> Any:
    """Await the value in another thread."""
    # The caller is async code that blocks: an event loop runs in this thread already, and no second one fits inside.
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((True, asyncio.run(_wait_for(value))))
        except BaseException as error:  # noqa: BLE001  (handed over to the thread that waits, control flow included)
            outcome.append((False, error))

    # With the caller's context variables: tracing and `refuse_inside_step` read them.
    thread = threading.Thread(target=copy_context().run, args=(run,))
    thread.start()
    thread.join()
    has_returned, result = outcome[0]
    if has_returned:
        return result
    raise result
