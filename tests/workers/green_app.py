"""The app of the tests of gevent and eventlet. Its steps wait as greenlets do, and one stops them all."""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any

from celery import Celery

from orchestrator import Context, Orchestrator, Workflow, step
from tests.parity import calls

LEASE = 3.0  # seconds


@step
async def wait_async(seconds: float, ctx: Context[Any]) -> float:
    calls.note(ctx, "wait_async")
    await asyncio.sleep(seconds)
    return seconds


@step
def wait(seconds: float, ctx: Context[Any]) -> float:
    calls.note(ctx, "wait")
    time.sleep(seconds)
    return seconds


@step
def compute(seconds: float, ctx: Context[Any]) -> float:
    """Gives no other greenlet a turn."""
    calls.note(ctx, "compute")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1_000))
    return seconds


@step
def write(data: Any, ctx: Context[Any]) -> Any:
    for _ in range(50):
        ctx.write({"kind": "line"})
    return data


@step
def watch(data: Any, ctx: Context[Any]) -> bool:
    """Waits until the run is canceled."""
    calls.note(ctx, "watch")
    if ctx.abort_signal.wait(30):
        calls.note(ctx, "heard")
    return True


def workflows() -> list[Workflow]:
    """One for each of the steps."""
    return [
        Workflow("async-many").foreach(wait_async, concurrency=50).commit(),
        Workflow("many").foreach(wait, concurrency=500).commit(),
        Workflow("long").then(wait).commit(),
        Workflow("computing").then(compute).commit(),
        Workflow("writing").then(write).commit(),
        Workflow("watching").then(watch).commit(),
    ]


def make(broker: str, store: str, settings: dict[str, Any], **options: Any) -> tuple[Celery, Orchestrator]:
    """The app as workers and callers have it."""
    made = Celery("green", broker=broker, set_as_current=False)
    made.conf.update(settings, broker_connection_retry_on_startup=True)
    own = {"lease_seconds": LEASE, "tick_seconds": 0.3, **options}
    return made, Orchestrator(made, store=store, workflows=workflows(), **own)


if "GREEN_BROKER" in os.environ:
    app, orchestrator = make(
        os.environ["GREEN_BROKER"],
        os.environ["GREEN_STORE"],
        json.loads(os.environ["GREEN_SETTINGS"]),
        **json.loads(os.environ["GREEN_OPTIONS"]),
    )
