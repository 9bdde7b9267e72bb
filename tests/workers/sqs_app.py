"""The app of the tests on Amazon SQS."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from orchestrator import Context, Orchestrator, Workflow, step


@step
def ask(data: int, ctx: Context[Any]) -> list[int]:
    if not ctx.resumed:
        ctx.suspend()
    return list(range(data + int(ctx.resume_data)))


@step
def same(data: int) -> int:
    return data


spreading = Workflow("spreading", input=int).then(ask).foreach(same, concurrency=3).commit()


def make_app(broker: str) -> Celery:
    """Make the app alone."""
    app = Celery("queueing", broker=broker, set_as_current=False)
    app.conf.update(
        worker_enable_remote_control=False,
        worker_prefetch_multiplier=1,
        broker_transport_options={
            "is_secure": False,
            "region": "us-east-1",
            "polling_interval": 0.1,
            "wait_time_seconds": 1,
        },
    )
    return app


def make(broker: str, store: str) -> tuple[Celery, Orchestrator]:
    """Build the app and its orchestrator, as workers and callers have them."""
    app = make_app(broker)
    return app, Orchestrator(app, store=store, workflows=[spreading], tick_seconds=0.3)


if "SQS_BROKER" in os.environ:
    app, orchestrator = make(os.environ["SQS_BROKER"], os.environ["SQS_STORE"])
