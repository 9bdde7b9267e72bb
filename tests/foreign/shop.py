"""A project whose workflows use the tasks of another one, by their names."""

from __future__ import annotations

from typing import Any

from celery import Celery

from orchestrator import Orchestrator, Workflow, step

TIMES: dict[str, float] = {"lease_seconds": 3, "tick_seconds": 0.2, "republish_seconds": 1}


@step
def see(paid: dict[str, Any]) -> dict[str, Any]:
    return {**paid, "seen": True}


def workflows() -> list[Workflow]:
    """One for each way in which a task of another service may end."""
    billing: dict[str, Any] = {"queue": "billing"}
    return [
        Workflow("pays").then(step("billing.charge", **billing), id="pay").then(see).commit(),
        Workflow("cannot-pay").then(step("billing.fails", retries=1, **billing)).commit(),
        Workflow("in-time").then(step("billing.charge", timeout=2, **billing)).commit(),
        Workflow("unknown").then(step("billing.nothing", timeout=2, **billing)).commit(),
        Workflow("ignored").then(step("billing.ignores", timeout=2, **billing)).commit(),
        Workflow("slow").then(step("billing.slow", timeout=4, **billing)).commit(),
    ]


def make(broker: str, backend: str, store: str) -> tuple[Celery, Orchestrator]:
    """The app as workers and callers have it."""
    app = Celery("shop", broker=broker, backend=backend or None, set_as_current=False)
    app.conf.broker_connection_retry_on_startup = True
    return app, Orchestrator(app, store=store, workflows=workflows(), **TIMES)
