"""The app of the tests of monitoring and of published events: workflows that wait, fail, spread and use a task."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from orchestrator import Context, Orchestrator, Workflow, step

TIMES: dict[str, float] = {"lease_seconds": 5, "tick_seconds": 1.0, "republish_seconds": 20}


@step
def collect(data: Any) -> list[int]:
    return [1, 2, 3]


@step
def double(number: int) -> int:
    return 2 * number


@step
def approve(data: Any, ctx: Context[Any]) -> Any:
    if not ctx.resumed:
        ctx.suspend({"amount": data}, label="manager")
    return {"approved": ctx.resume_data, "of": data}


@step(retries=1, retry_delay=0.1)
def charge(data: Any, ctx: Context[Any]) -> str:
    if ctx.retry_count < 1:
        raise ConnectionError("the line is bad")
    return "charged"


@step
def refuse(data: Any) -> None:
    raise ValueError("not this one")


def make(broker: str, store: str, **settings: Any) -> tuple[Celery, Orchestrator]:
    """Build the app and its orchestrator, as workers and callers have them."""
    app = Celery("watched", broker=broker, set_as_current=False)
    own = {"task_default_queue": "watched"}  # other workers of the test session listen to the usual queue
    app.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1, **own, **settings)

    @app.task(name="shop.stamp", shared=False)
    def stamp(data: Any) -> Any:
        if data == "bad":
            raise ValueError("cannot be stamped")
        return data

    checkout = (
        Workflow("checkout")
        .then(collect)
        .foreach(double, concurrency=2)
        .map(sum, id="total")
        .then(approve)
        .then(charge)
        .commit()
    )
    failing = Workflow("failing").map(lambda data: data, id="same").then(refuse).commit()
    stamping = Workflow("stamping").then(stamp).commit()
    orchestrator = Orchestrator(app, store=store, workflows=[checkout, failing, stamping], **TIMES)
    return app, orchestrator


if "WATCHED_BROKER" in os.environ:
    app, orchestrator = make(
        os.environ["WATCHED_BROKER"],
        os.environ["WATCHED_STORE"],
        orchestrator_publish_events=os.environ.get("WATCHED_PUBLISH") == "yes",
    )
