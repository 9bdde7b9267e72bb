"""The app of the tests of the scheduler: sleeps, with a redelivery delay that no test waits for."""

from __future__ import annotations

import os

from celery import Celery

from orchestrator import Orchestrator, Workflow, step


@step
def after(seconds: float) -> float:
    return seconds


napping = Workflow("napping", input=float).sleep(lambda seconds: seconds).then(after).commit()


def make(broker: str, store: str) -> tuple[Celery, Orchestrator]:
    """Build the app and its orchestrator, as workers and callers have them."""
    app = Celery("scheduled", broker=broker, set_as_current=False)
    app.conf.update(broker_connection_retry_on_startup=True, broker_connection_max_retries=None)
    orchestrator = Orchestrator(
        app, store=store, workflows=[napping], tick_seconds=0.5, lease_seconds=30, republish_seconds=120
    )
    return app, orchestrator


if "SCHEDULER_BROKER" in os.environ:
    app, orchestrator = make(os.environ["SCHEDULER_BROKER"], os.environ["SCHEDULER_STORE"])
