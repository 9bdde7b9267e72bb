"""Every way in which a function can be left by itself, and what each is, wherever the function runs.

`WAYS` is the table; the tests go through it on each pool and in the default runtime. What a signal, a limit or a crash
does is another matter: that is the process's.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from orchestrator import Context, TripWire, Workflow, step
from tests.parity import calls

RETRIES = 1
ATTEMPTS = RETRIES + 1


class Quit(SystemExit):
    """A command-line library's own way to exit."""


class Apart(BaseException):
    """An exception of somebody who wants it to be caught by nobody."""


class Wrapped(Exception):
    """What a library makes of everything that comes out of a callback."""


class Unsayable(Exception):
    """Its text is an error."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def _raise(error: BaseException) -> NoReturn:
    raise error


def interrupt(ctx: Context[Any]) -> NoReturn:
    """Raise what Ctrl-C raises, which in the main thread of the default runtime is the caller's."""
    raise KeyboardInterrupt


def _recurse(depth: int = 0) -> int:
    return _recurse(depth + 1) + 1


def _caught(call: Callable[[], Any]) -> BaseException:
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - it is made to be raised in a group
        return error
    raise AssertionError("it has returned")


def _group(*requests: Callable[[], Any]) -> NoReturn:
    raise BaseExceptionGroup("several", [_caught(each) for each in requests])


def _nested(*requests: Callable[[], Any]) -> NoReturn:
    raise BaseExceptionGroup("outer", [BaseExceptionGroup("inner", [_caught(each)]) for each in requests])


def _tasks(*requests: Callable[[], Any]) -> None:
    async def one(call: Callable[[], Any]) -> None:
        await asyncio.sleep(0)
        call()

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for call in requests:
                group.create_task(one(call))

    asyncio.run(all_of_them())


def _wrap(call: Callable[[], Any]) -> NoReturn:
    try:
        call()
    except BaseException as error:
        raise Wrapped("the callback failed") from error
    raise AssertionError("it has returned")


def _clean_up_badly(call: Callable[[], Any]) -> None:
    try:
        call()
    finally:
        raise OSError("while cleaning up")


async def _cancel() -> None:
    raise asyncio.CancelledError


@dataclass(frozen=True)
class Way:
    """One way out, and what is right."""

    leave: Callable[[Context[Any]], Any]
    status: str
    # the name of the error's class, for what fails
    error: str = ""
    # how often the function is called, with one retry
    attempts: int = 1


WAYS: dict[str, Way] = {
    "returns": Way(lambda ctx: "here", "success"),
    # errors
    "error": Way(lambda ctx: _raise(ValueError("no")), "failed", "ValueError", ATTEMPTS),
    "group of errors": Way(
        lambda ctx: _raise(ExceptionGroup("two", [ValueError("no"), KeyError("k")])),
        "failed",
        "ExceptionGroup",
        ATTEMPTS,
    ),
    "memory": Way(lambda ctx: _raise(MemoryError("all of it")), "failed", "MemoryError", ATTEMPTS),
    "recursion": Way(lambda ctx: _recurse(), "failed", "RecursionError", ATTEMPTS),
    "stop iteration": Way(lambda ctx: _raise(StopIteration(1)), "failed", "StopIteration", ATTEMPTS),
    "without text": Way(lambda ctx: _raise(Unsayable()), "failed", "Unsayable", ATTEMPTS),
    "timeout": Way(lambda ctx: _raise(TimeoutError("late")), "failed", "TimeoutError", ATTEMPTS),
    # what is no `Exception`: a failure too, and tried again only where `retry_on` says so
    "sys.exit": Way(lambda ctx: sys.exit(3), "failed", "SystemExit"),
    "exit code of a signal": Way(lambda ctx: sys.exit(-241), "failed", "SystemExit"),
    "a library's exit": Way(lambda ctx: _raise(Quit(1)), "failed", "Quit"),
    "generator exit": Way(lambda ctx: _raise(GeneratorExit()), "failed", "GeneratorExit"),
    "apart": Way(lambda ctx: _raise(Apart("mine")), "failed", "Apart"),
    "cancelled": Way(lambda ctx: asyncio.run(_cancel()), "failed", "CancelledError"),
    "group apart": Way(lambda ctx: _raise(BaseExceptionGroup("one", [Apart()])), "failed", "ExceptionGroup"),
    # requests
    "suspend": Way(lambda ctx: ctx.suspend("why"), "suspended"),
    "suspend in a group": Way(lambda ctx: _group(lambda: ctx.suspend("why")), "suspended"),
    "suspends in groups": Way(lambda ctx: _nested(lambda: ctx.suspend("why"), lambda: ctx.suspend("too")), "suspended"),
    "suspends in tasks": Way(lambda ctx: _tasks(lambda: ctx.suspend("why"), lambda: ctx.suspend("too")), "suspended"),
    "wrapped suspend": Way(lambda ctx: _wrap(lambda: ctx.suspend("why")), "suspended"),
    "wrapped group": Way(lambda ctx: _wrap(lambda: _nested(lambda: ctx.suspend("why"))), "suspended"),
    "bail": Way(lambda ctx: ctx.bail("early"), "success"),
    "bail in a group": Way(lambda ctx: _group(lambda: ctx.bail("early")), "success"),
    "bail in tasks": Way(lambda ctx: _tasks(lambda: ctx.bail("early")), "success"),
    "bail beside a suspend": Way(lambda ctx: _group(lambda: ctx.suspend(1), lambda: ctx.bail("early")), "success"),
    "wrapped bail": Way(lambda ctx: _wrap(lambda: ctx.bail("early")), "success"),
    "abort": Way(lambda ctx: ctx.abort(), "canceled"),
    "abort, then an error": Way(lambda ctx: (ctx.abort(), _raise(ValueError("no"))), "canceled"),
    "abort in tasks": Way(lambda ctx: _tasks(lambda: (ctx.abort(), ctx.raise_if_aborted())), "canceled"),
    "tripwire": Way(lambda ctx: _raise(TripWire("stop")), "tripwire"),
    "tripwire in tasks": Way(lambda ctx: _tasks(lambda: _raise(TripWire("stop"))), "tripwire"),
    # a real error beside a request wins: a run that waits must not hide it
    "error beside a suspend": Way(
        lambda ctx: _group(lambda: ctx.suspend(1), lambda: _raise(ValueError("no"))),
        "failed",
        "ExceptionGroup",
        ATTEMPTS,
    ),
    "error beside a bail, in tasks": Way(
        lambda ctx: _tasks(lambda: ctx.bail(1), lambda: _raise(ValueError("no"))), "failed", "ExceptionGroup", ATTEMPTS
    ),
    "error while a suspend unwinds": Way(
        lambda ctx: _clean_up_badly(lambda: ctx.suspend(1)), "failed", "OSError", ATTEMPTS
    ),
}


@step(retries=RETRIES, retry_delay=0.01)
def leave(way: str, ctx: Context[Any]) -> Any:
    """Leave in this way."""
    calls.note(ctx, "leave")
    if ctx.resumed:
        return "resumed"
    return interrupt(ctx) if way == "keyboard interrupt" else WAYS[way].leave(ctx)


@step(retries=RETRIES, retry_delay=0.01)
async def leave_async(way: str, ctx: Context[Any]) -> Any:
    """Leave in this way from a coroutine's helper thread, where other loops can run."""
    calls.note(ctx, "leave")
    await asyncio.sleep(0)
    return await asyncio.to_thread(WAYS[way].leave, ctx)


leaving = Workflow("leaving").then(leave).commit()
leaving_async = Workflow("leaving-async").then(leave_async).commit()
FLOWS = [leaving, leaving_async]


def found_in(run: Any) -> Way:
    """What came of a run, as the table says it."""
    result = run.result()
    error = result.error
    return Way(
        WAYS["returns"].leave,
        str(result.status),
        "" if error is None else str(getattr(error, "name", type(error).__name__)).rsplit(".", 1)[-1],
        calls.count(run.run_id, "leave"),
    )


def expected(way: str) -> tuple[str, str, int]:
    """What is right for this way."""
    return WAYS[way].status, WAYS[way].error, WAYS[way].attempts
