"""Workflows with hooks of all kinds, and the app of their workers."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

from celery import Celery

from orchestrator import Context, Orchestrator, Workflow, step
from tests.parity import calls


@step
def double(data: int) -> int:
    return 2 * data


@step
def ask(data: Any, ctx: Context[Any]) -> Any:
    return ctx.resume_data if ctx.resumed else ctx.suspend()


def note(info: Any) -> None:
    calls.note_for(info.run_id, "hook", info.status)


def kill_once(info: Any) -> None:
    """End the child that calls it, the first time."""
    note(info)
    if calls.count(info.run_id, "hook") == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def kill(info: Any) -> None:
    """End the child that calls it."""
    note(info)
    os.kill(os.getpid(), signal.SIGKILL)


def raise_twice(info: Any) -> None:
    note(info)
    if calls.count(info.run_id, "hook") < 3:
        raise ValueError("not now")


def wait_for_another(info: Any) -> None:
    """Start another run and wait for it, which would need the worker."""
    try:
        info.orchestrator.create_run("plain").start(1)
    except RuntimeError as error:
        calls.note_for(info.run_id, "refused", str(error))


def take_a_second(info: Any) -> None:
    """Take longer than what the step has left of a limit for all tasks."""
    time.sleep(1.2)
    note(info)


@step
def brief(data: Any) -> Any:
    time.sleep(1.2)
    return data


def take_a_while(info: Any) -> None:
    note(info)
    time.sleep(3)


def stall_once(info: Any) -> None:
    """Take longer than any limit allows, the first time."""
    note(info)
    if calls.count(info.run_id, "hook") == 1:
        time.sleep(60)


HOOKS: dict[str, Any] = {
    "kills-once": kill_once,
    "kills": kill,
    "raises": raise_twice,
    "waits": wait_for_another,
    "slow": take_a_while,
    "stalls": stall_once,
    "told": note,
}
FLOWS = [
    Workflow("plain").then(double).commit(),
    *(Workflow(name, on_finish=hook).then(double).commit() for name, hook in HOOKS.items()),
    Workflow("asks", on_finish=note).then(ask).commit(),
    Workflow("limited", on_finish=take_a_second).then(brief).commit(),
]


def make(place: dict[str, Any], *, knows: bool = True) -> tuple[Celery, Orchestrator]:
    """Build the app and its orchestrator, as workers and callers have them; `knows` the workflows or none."""
    app = Celery("hooks", broker=place["broker"], backend=place["backend"], set_as_current=False)
    app.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1, **place["settings"])
    flows = FLOWS if knows else []
    return app, Orchestrator(app, store=place["store"], workflows=flows, **place["times"])


if "HOOKS_PLACE" in os.environ:
    app, orchestrator = make(json.loads(os.environ["HOOKS_PLACE"]))
