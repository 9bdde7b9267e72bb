"""The scheduler without a worker: sweeps what is due, and reports each tick."""

from __future__ import annotations

import json
import os
import socket
import threading

from orchestrator.cli import exits
from orchestrator.cli.access import Session
from orchestrator.cli.exits import Problem
from orchestrator.cli.texts import milliseconds, time_text
from orchestrator.engine.read.results import moment
from orchestrator.engine.scheduler import Scheduler, SweepReport
from orchestrator.errors import StoreUnavailable
from orchestrator.host import monotonic


def tick(at: Session, *, once: bool, seconds: float | None) -> None:
    """Tick once, for so many seconds, or until the process is ended.

    One tick fails where broker or store do not answer; a longer sweep says so and goes on.
    """
    scheduler = _scheduler(at, once)
    if once:
        swept = _tick_once(scheduler)
        _report(at, swept)
        if swept.failure is not None:
            raise Problem(str(swept.failure), "check broker_url; a later tick sends what was due", exits.DOWN)
        return
    end = None if seconds is None else monotonic() + seconds
    pause = at.orchestrator.settings.tick_seconds
    while end is None or monotonic() < end:
        is_full = False
        try:
            swept = scheduler.tick()
            _report(at, swept)
            is_full = swept.is_full and not swept.is_in_vain
            if swept.failure is not None:
                at.output.note(f"Warning: {swept.failure}")
        except StoreUnavailable as error:
            at.output.note(f"Warning: {error}")
        if not is_full:
            threading.Event().wait(pause if end is None else max(0.0, min(pause, end - monotonic())))


def _tick_once(scheduler: Scheduler) -> SweepReport:
    """Sweep all that is due, round by round, and return the sum."""
    swept = scheduler.tick()
    while swept.is_full and not swept.is_in_vain:
        more = scheduler.tick()
        swept = swept.plus(more)
    return swept


def _scheduler(at: Session, once: bool) -> Scheduler:
    """Make a scheduler of this process. Single ticks of one host share a name, so none waits for the right of another.

    It announces no worker, since it is none.
    """
    ours = at.orchestrator
    if not ours.client.runtime.is_shared:
        raise Problem("runs of this runtime have no scheduler: the process that runs them fires their timers")
    from orchestrator.canvas.listeners import Listeners
    from orchestrator.canvas.queues import Queues

    name = f"tick@{socket.gethostname()}" if once else f"tick-{os.getpid()}@{socket.gethostname()}"
    queues = Queues(ours.app, ours.settings, Listeners(ours.store, ours.settings))
    return Scheduler(ours.store, ours.client.runtime, ours.settings, name, queues)


def _report(at: Session, swept: SweepReport) -> None:
    figures = {"due": swept.due, "republished": swept.republished, "expired": swept.expired}
    figures |= {name: count for name in ("unsent", "unreadable") if (count := getattr(swept, name))}
    now = moment(at.orchestrator.store.now())
    if at.output.as_json:
        at.output.write(json.dumps({"at": milliseconds(now), **figures}) + "\n")
    else:
        at.output.write(f"{time_text(now)}  {'  '.join(f'{name} {count}' for name, count in figures.items())}\n")
