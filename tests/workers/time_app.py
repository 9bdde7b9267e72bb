"""The app of the tests of time: workflows that sleep, wait, fail and are lost, on the servers of the environment.

Effects are noted in files that no crash takes back (`tests.parity.calls`); a step that is to be caught in the middle
waits for a file of the test's.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from celery import Celery

from orchestrator import Context, Orchestrator, Workflow, step
from tests.parity import calls

TIMES: dict[str, float] = {"lease_seconds": 2, "tick_seconds": 0.2, "republish_seconds": 1}


def note(ctx: Context[Any], name: str) -> None:
    """Remember a call: when, in which process, under which key, and whether it is a repetition."""
    about = {"at": time.time(), "pid": os.getpid(), "key": ctx.idempotency_key, "restarted": ctx.restarted}
    calls.note(ctx, name, about)


@step
def after(data: Any, ctx: Context[Any]) -> Any:
    note(ctx, "after")
    return data


@step
def too_late(data: Any, ctx: Context[Any]) -> str:
    note(ctx, "too_late")
    return "too late"


@step(retries=2, retry_delay=0.5)
def flaky(data: Any, ctx: Context[Any]) -> int:
    note(ctx, "flaky")
    if ctx.retry_count < 2:
        raise ConnectionError("busy")
    return ctx.retry_count


@step(retries=2, retry_delay=0.1, retry_backoff=True, retry_jitter=False)
def backing_off(data: Any, ctx: Context[Any]) -> int:
    note(ctx, "backing_off")
    if ctx.retry_count < 2:
        raise ConnectionError("busy")
    return ctx.retry_count


@step
def gate(path: str, ctx: Context[Any]) -> str:
    """Stays until the file is there."""
    note(ctx, "gate")
    end = time.monotonic() + 60
    while not Path(path).exists() and time.monotonic() < end:
        time.sleep(0.02)
    return path


def _link(number: int) -> Any:
    def link(data: Any, ctx: Context[Any]) -> Any:
        note(ctx, "link")
        time.sleep(0.2)
        return data

    return step(link, id=f"link-{number}", inline=True)


LINKS = 20
napping = Workflow("napping").sleep(5).then(after).commit()
dozing = Workflow("dozing").sleep(1).then(after).commit()
waiting = Workflow("waiting").wait_for_event("paid", timeout=0.6).then(after).commit()
patient = Workflow("patient").wait_for_event("paid", timeout=0.6, on_timeout=too_late).then(after).commit()
retrying = Workflow("retrying").then(flaky).commit()
backing = Workflow("backing").then(backing_off).commit()
gated = Workflow("gated").then(gate).then(after).commit()
plain = Workflow("plain").then(after).commit()
chain = Workflow("chain")
for _number in range(LINKS):
    chain.then(_link(_number))
chain.commit()

ALL = [napping, dozing, waiting, patient, retrying, backing, gated, plain, chain]


def make(broker: str, store: str, **settings: Any) -> tuple[Celery, Orchestrator]:
    """Build the app and its orchestrator, as workers and callers have them."""
    app = Celery("timely", broker=broker, set_as_current=False)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_prefetch_multiplier=1,
        **settings,
    )
    return app, Orchestrator(app, store=store, workflows=ALL, **TIMES)


if "TIME_BROKER" in os.environ:
    app, orchestrator = make(
        os.environ["TIME_BROKER"], os.environ["TIME_STORE"], **json.loads(os.environ.get("TIME_SETTINGS", "{}"))
    )
