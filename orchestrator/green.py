"""Threads of the operating system, where gevent or eventlet have put greenlets in the place of threads.

All greenlets of a process share one thread: one that computes for a while stops the others, those among them that keep
its leases, and an event loop that runs in one leaves no place for a second. Both need a thread that is one. Nothing
here is used in a process that gevent and eventlet have not changed.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

__all__ = ["is_green", "run_in_native_thread", "sleep_natively", "start_native_thread"]


def is_green() -> bool:
    """Tell whether the threads of this process are greenlets."""
    return _is_gevent() or _is_eventlet()


def _is_gevent() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _is_eventlet() -> bool:
    patcher = sys.modules.get("eventlet.patcher")
    return patcher is not None and bool(patcher.is_monkey_patched("thread"))


def _original(module: str, name: str) -> Any:
    """Return what a module had under this name before it was changed."""
    if _is_gevent():
        return sys.modules["gevent.monkey"].get_original(module, name)
    return getattr(sys.modules["eventlet.patcher"].original(module), name)


def sleep_natively(seconds: float) -> None:
    """Let this thread of the operating system sleep, with all that runs in it."""
    _original("time", "sleep")(seconds)


def start_native_thread(run: Callable[[], Any]) -> None:
    """Run `run` in a thread of the operating system, which does not keep the process alive."""
    if _is_gevent():
        # gevent's own `Thread` starts greenlets, and its original shares their bookkeeping.
        _original("_thread", "start_new_thread")(run, ())
    else:
        _original("threading", "Thread")(target=run, daemon=True).start()


def run_in_native_thread(call: Callable[[], Any]) -> Any:
    """Return what `call` returns in a thread of the operating system, or raise what it raises.

    Other greenlets go on meanwhile. `call` sees the caller's context variables.
    """
    context, outcome = copy_context(), []
    here, there = socket.socketpair()

    def run() -> None:
        try:
            outcome.append((True, context.run(call)))
        except BaseException as error:  # noqa: BLE001  (handed over to the greenlet that waits, control flow included)
            outcome.append((False, error))
        finally:
            os.write(there.fileno(), b".")

    with here, there:
        start_native_thread(run)
        here.recv(1)  # the one way to wait for a thread that both libraries have
    has_returned, result = outcome[0]
    if has_returned:
        return result
    raise result
