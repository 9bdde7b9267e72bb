"""The app of the test of what a worker shows: a step and an existing task that get a secret, and fail with it near."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from orchestrator import Context, Orchestrator, RunInfo, Workflow, from_context, step

TOKEN = "Bearer abc-123-do-not-show"
KEY = "the-key-that-nobody-sees"


@step(retries=1)
def pay(data: Any, ctx: Context[Any]) -> None:
    assert ctx.request_context["token"] == TOKEN
    raise ValueError(f"the bank refused {data}")


@step
def use(data: Any, ctx: Context[Any]) -> Any:
    assert ctx.request_context["token"] == TOKEN
    return data


def tell(info: RunInfo) -> None:
    assert info.request_context["token"] == TOKEN
    info.logger.warning("%s ended: %s", info, info.request_context)
    raise RuntimeError("a hook that fails")


def make(broker: str, store: str, backend: str) -> tuple[Celery, Orchestrator]:
    """Build the app and its orchestrator, as workers and callers have them."""
    app = Celery("secrets", broker=broker, backend=backend, set_as_current=False)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        orchestrator_database_url=store,
        orchestrator_secret_key=KEY,
        orchestrator_secret_context_keys=["token"],
        worker_send_task_events=True,
        task_send_sent_event=True,
        task_track_started=True,
    )

    @app.task(name="existing.refund", shared=False)  # type: ignore[untyped-decorator]
    def refund(data: Any) -> None:
        raise ValueError(f"the bank refused {data}")

    flows = [
        Workflow("paying", on_error=tell).then(pay).commit(),
        Workflow("refunding", on_error=tell).then(use).then(refund).commit(),
        Workflow("keeping").then(use).map({"tenant": from_context("tenant")}).commit(),
    ]
    return app, Orchestrator(app, workflows=flows, tick_seconds=0.2)


if "SECRETS_BROKER" in os.environ:
    app, orchestrator = make(*(os.environ[f"SECRETS_{name}"] for name in ("BROKER", "STORE", "BACKEND")))
