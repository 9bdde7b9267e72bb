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

    # tells the one who resumes what is asked of them
    payload: Any
    # a name by which they can resume it; empty for none
    label: str


@dataclass(frozen=True, slots=True)
class BailRequested:
    """The function ended its run well."""

    value: Any


@dataclass(frozen=True, slots=True)
class AbortRequested:
    """The function asked to end its run as canceled, or left because that had happened."""


@dataclass(frozen=True, slots=True)
class RetryRequested:
    """The function asked for another attempt in so many seconds, whatever the step's own retries are."""

    seconds: float


class RetryAsked(Exception):
    """An existing task asked to be retried."""

    def __init__(self, seconds: float, error: BaseException | None) -> None:
        super().__init__(f"to be retried in {seconds} s: {error!r}")
        self.seconds = seconds


class WorkerLost(BaseException):
    """Raised in a step by a test: everything is left as a killed worker would leave it."""


Outcome = RetryRequested | Returned | Raised | SuspendRequested | BailRequested | AbortRequested


def outcome_of(call: Callable[[], Any], context: Context[Any]) -> Outcome:
    """Call it, and return its outcome.

    Control-flow exceptions of ours are outcomes, ordinary exceptions, `sys.exit()` and a cancelled coroutine; what ends
    the worker is not.
    """
    # An abort wins over whatever the function does after it: it has said that nothing else is wanted.
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
            raise  # Celery's words for a worker that ends
        return AbortRequested() if context.aborted else Raised(error)
    finally:
        _inside_step.reset(inside)
    return AbortRequested() if context.aborted else Returned(value)


def refuse_inside_step(what: str) -> None:
    """Raise RuntimeError where the caller is a step: it would hold its worker while it waits for other workers."""
    if _inside_step.get():
        text = f"{what} waits, and a step must not: use `.submit()` or nest the workflow with `.then(workflow)`"
        raise RuntimeError(text)


def resolve_value(value: Any, context: Context[Any] | None = None) -> Any:
    """Return the final value of what a user's function returned: awaited, or its generator run to the end."""
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
            # What a generator yields is streamed; what it returns is its output.
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
    """Await it in another thread, as a loop runs in this one already: the caller is async code that blocks."""
    box: list[Any] = []

    def run() -> None:
        try:
            box.append((True, asyncio.run(_wait_for(value))))
        except BaseException as error:  # noqa: BLE001  (handed over to the thread that waits, control flow included)
            box.append((False, error))

    # With the context of the caller: tracing and `refuse_inside_step` go by what it holds.
    thread = threading.Thread(target=copy_context().run, args=(run,))
    thread.start()
    thread.join()
    good, result = box[0]
    if good:
        return result
    raise result
