"""The processes of a worker: how one knows that it is about to end, and the main one that another has ended."""

from __future__ import annotations

import os
from time import sleep

from billiard import common
from celery.exceptions import WorkerShutdown, WorkerTerminate
from celery.worker import state

from orchestrator.host import monotonic

_LOOK = 0.02  # seconds between two looks at a process that is about to end


def dying_of(error: BaseException | None) -> BaseException | None:
    """Return the exception that this process of a worker, which ends, is to die of; None where it goes on.

    A signal that ends a pool's child is a `SystemExit` in whatever it is doing, which may be swallowed there, or lead
    to another error on its way out. The pool's own flag tells, as it does to the pool.
    """
    if common.terminate_handler_fired():
        return error if isinstance(error, SystemExit) else SystemExit(common.EX_SOFTWARE)
    if error is not None and (isinstance(error, (WorkerShutdown, WorkerTerminate)) or _is_killed(error)):
        return error
    # Where steps run in the main process itself (solo), its handler of a cold shutdown raises in the middle of one.
    if error is not None and state.should_terminate not in (None, False) and _is_raised_by_handler(error):
        ending: BaseException = WorkerTerminate(state.should_terminate)
        return ending
    return None


def _is_killed(error: BaseException) -> bool:
    """Tell whether this ends the green thread that runs the step, where the pool has such."""
    return any(kind.__name__ == "GreenletExit" for kind in type(error).__mro__)


def _is_raised_by_handler(error: BaseException) -> bool:
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == "celery.apps.worker":
            return True
        trace = trace.tb_next
    return False


def has_ended(pid: int) -> bool | None:
    """Tell whether a child of this process has ended; None where that cannot be known here.

    It is left as it is, for the pool to see as well.
    """
    if not hasattr(os, "waitid"):
        return None
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True  # the pool has seen it
    return found is not None


def wait_until_ended(pid: int, seconds: float) -> None:
    """Wait for the end of a child that is being killed, for so long at most."""
    end = monotonic() + seconds
    while has_ended(pid) is False and monotonic() < end:
        sleep(_LOOK)
