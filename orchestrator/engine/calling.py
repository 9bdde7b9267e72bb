"""Calls of user code: plain, async and generator functions, and their outcomes as values."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any

from orchestrator.definitions.context import Aborted, Bailing, Context, Suspending
from orchestrator.engine.django_threads import await_in_this_thread, close_connections, has_django
from orchestrator.errors import TripWire
from orchestrator.green import is_green, run_in_native_thread
from orchestrator.host import is_main_thread, is_time_limit

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


def _interrupt_of(error: BaseException | None) -> BaseException | None:
    """Ctrl-C reaches the main thread, and is for the caller who waits there; in another thread it is the function's."""
    return error if isinstance(error, KeyboardInterrupt) and is_main_thread() else None


@dataclass(frozen=True, slots=True)
class ProcessSigns:
    """The signs by which the process that runs a function tells its own end from what the function did.

    By themselves they are those of a process of its own; a pool's children have others.
    """

    # what this process, which ends, is to die of, given what has left the function (or None); None where it goes on
    dying_of: Callable[[BaseException | None], BaseException | None] = _interrupt_of

    def raise_if_dying(self, error: BaseException | None = None) -> None:
        """Raise what the process dies of, if it does: whatever the function has said meanwhile is no outcome of it."""
        for leaf in leaves(error):
            if isinstance(leaf, WorkerLost):
                raise leaf
        cause = self.dying_of(error)
        if cause is not None and cause is not error:
            raise cause from error
        if cause is not None:
            raise cause


def is_struck(error: BaseException) -> bool:
    """Tell whether a time limit has struck, and something on the way has made this error of it."""
    return any(is_time_limit(found) for found in _origins(error))


def _origins(error: BaseException | None) -> list[BaseException]:
    """Return an exception and all that it stands for: its parts, its causes, and what was being handled."""
    # By identity, since an exception may be equal to another; looked up, since a group may have 100,000 parts.
    found: dict[int, BaseException] = {}
    todo = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in found:
            continue
        found[id(one)] = one
        todo += [one.__cause__, one.__context__]
        todo += one.exceptions if isinstance(one, BaseExceptionGroup) else ()
    return list(found.values())


def leaves(error: BaseException | None) -> Iterator[BaseException]:
    """Give the exceptions that a group holds, whatever groups are in it; an exception by itself is one."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from leaves(part)
    elif error is not None:
        yield error


_signs: ContextVar[ProcessSigns] = ContextVar("orchestrator_process_signs", default=ProcessSigns())  # noqa: B039


def outcome_of(call: Callable[[], Any], context: Context[Any], signs: ProcessSigns | None = None) -> Outcome:
    """Call the function, and return its outcome.

    Whatever leaves the function is one, but for the end of the process: of that the function knows nothing, and what
    it did on its way out says nothing either.
    """
    signs = signs or ProcessSigns()
    told = _signs.set(signs)
    # An abort wins over whatever the function returns or raises after it: the author wanted nothing else.
    inside = _inside_step.set(True)
    try:
        value = resolve_value(call(), context)
    except BaseException as error:  # noqa: BLE001  (the boundary to user code)
        signs.raise_if_dying(error)
        return AbortRequested() if context.aborted else _outcome_of_error(error, context)
    finally:
        _inside_step.reset(inside)
        _signs.reset(told)
    signs.raise_if_dying()  # something has swallowed it
    return AbortRequested() if context.aborted else Returned(value)


# What a function may ask for by raising. Of several at once, in a group, the first of these counts: it is most final.
_REQUESTS: tuple[type[BaseException], ...] = (Aborted, TripWire, Bailing, Suspending, RetryAsked)
# Those that nobody raises to have them handled. A library that makes an error of its own of everything keeps them as
# the cause; of the others an author may have made another error on purpose.
_UNCATCHABLE = (Aborted, Bailing, Suspending)


def _outcome_of_error(error: BaseException, context: Context[Any]) -> Outcome:
    match _request_in(error):
        case Suspending(payload=payload, label=label):
            return SuspendRequested(payload, label)
        case Bailing(value=value):
            return BailRequested(value)
        case RetryAsked(seconds=seconds):
            return RetryRequested(seconds)
        case Aborted():
            # A step heeds the signal. Where a time limit has set it, that is what ended the attempt, and not the run.
            limit = context.abort_signal.reason
            return AbortRequested() if limit is None else Raised(limit)
        case TripWire() as wire:
            return Raised(wire)
        case _:
            return Raised(_without_requests(error))


def _request_in(error: BaseException) -> BaseException | None:
    """Return the request that an exception is, carries as its cause, or has as a group; None for a real error."""
    if isinstance(error, BaseExceptionGroup):
        asked = [_request_in(part) for part in error.exceptions]
        # A failure beside a request is a failure: it must not be hidden behind a run that waits.
        if any(each is None for each in asked):
            return None
        return min((each for each in asked if each is not None), key=_urgency)
    if isinstance(error, _REQUESTS):
        return error
    carried = (_request_in(cause) if isinstance(cause, BaseExceptionGroup) else cause for cause in _causes(error))
    return next((request for request in carried if isinstance(request, _UNCATCHABLE)), None)


def _causes(error: BaseException) -> list[BaseException]:
    found: dict[int, BaseException] = {}
    cause = error.__cause__
    while cause is not None and id(cause) not in found:
        found[id(cause)] = cause
        cause = cause.__cause__
    return list(found.values())


def _urgency(request: BaseException) -> int:
    return next(place for place, kind in enumerate(_REQUESTS) if isinstance(request, kind))


def _without_requests(error: BaseException) -> BaseException:
    if not isinstance(error, BaseExceptionGroup):
        return error
    return error.split(_REQUESTS)[1] or error


def call_hook(call: Callable[[], Any], signs: ProcessSigns) -> None:
    """Call a hook of a workflow. Raises what it raises, or what this process, which ends, is to die of."""
    told = _signs.set(signs)
    inside = _inside_step.set(True)
    try:
        resolve_value(call())
    except BaseException as error:
        signs.raise_if_dying(error)
        raise
    finally:
        _inside_step.reset(inside)
        _signs.reset(told)
    signs.raise_if_dying()  # something has swallowed it


LIST_IT = "return list(...) of it"
GATHER_IT = "return [item async for item in ...]"


def refuse_inside_step(what: str) -> None:
    """Raise RuntimeError where the caller is a step or a hook."""
    # A step that waits occupies its worker. With all workers occupied so, the run that they wait for never goes on.
    if _inside_step.get():
        how = "use `.submit()` or nest the workflow with `.then(workflow)`"
        raise RuntimeError(f"{what} waits, and a step must not, nor a hook: {how}")


def resolve_value(value: Any, context: Context[Any] | None = None) -> Any:
    """Await an awaitable, run a generator to its end, and return the value; any other value as it is.

    Raises TypeError for a generator where there is no `context`, whose stream its yields could go to, and for an async
    generator, which returns no value.
    """
    if inspect.isawaitable(value):
        return _await(value)
    if inspect.isasyncgen(value):
        # It counts as true: a condition would hold for ever.
        raise TypeError(f"the function returned the async generator {value.__name__}, which is no value: {GATHER_IT}")
    if inspect.isgenerator(value):
        if context is None:
            value.close()
            raise TypeError(f"the function returned the generator {value.__name__}, which is no value: {LIST_IT}")
        return _drain(value, context)
    return value


def _drain(generator: Generator[Any, Any, Any], context: Context[Any]) -> Any:
    while True:
        try:
            chunk = next(generator)
        except StopIteration as stop:
            return stop.value
        # Yielded values are chunks of the stream; the value that the generator returns is its output.
        context.write(chunk)


async def _wait_for(value: Awaitable[Any]) -> Any:
    return await value


def _await(value: Awaitable[Any]) -> Any:
    if is_green():
        return run_in_native_thread(lambda: _run_loop(value))
    return _in_thread(value) if _has_loop() else _run_loop(value)


def _has_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_loop(value: Awaitable[Any]) -> Any:
    """Await it as `asyncio.run` does, which in the end waits for threads: not so in a process that dies."""
    if has_django():
        return await_in_this_thread(value, is_dying=lambda error: _signs.get().dying_of(error) is not None)
    runner = asyncio.Runner()
    try:
        result = runner.run(_wait_for(value))
    except BaseException as error:
        if _signs.get().dying_of(error) is None:
            runner.close()
        raise
    runner.close()
    return result


def _in_thread(value: Awaitable[Any]) -> Any:
    """Await the value in another thread."""
    # The caller is async code that blocks: an event loop runs in this thread already, and no second one fits inside.
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((True, _run_loop(value)))
        except BaseException as error:  # noqa: BLE001  (handed over to the thread that waits, control flow included)
            outcome.append((False, error))
        finally:
            close_connections()

    # With the caller's context variables: tracing and `refuse_inside_step` read them.
    thread = threading.Thread(target=copy_context().run, args=(run,))
    thread.start()
    thread.join()
    has_returned, result = outcome[0]
    if has_returned:
        return result
    raise result
