"""The app of the tests of deployments: its configuration comes from the environment, as JSON."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from celery import Celery
from kombu.serialization import register

from orchestrator import Context, Orchestrator, Workflow, step

REPUBLISH = 3.0


@step
def ask(data: int, ctx: Context[Any]) -> int:
    if not ctx.resumed:
        ctx.suspend()
    return data + int(ctx.resume_data)


@step
def double(data: int) -> int:
    return 2 * data


@step
def die_once(data: int, ctx: Context[Any]) -> str:
    if not ctx.restarted:
        os.kill(os.getpid(), signal.SIGKILL)
    return "again"


@step
def fail(data: int) -> None:
    raise ValueError("no")


@step(queue="checks")
def check(data: int) -> int:
    return data


def make(broker: str, store: str, settings: dict[str, Any]) -> tuple[Celery, Orchestrator]:
    """Build the app and its orchestrator, as workers and callers have them."""
    backend, security = settings.pop("result_backend", None), settings.pop("sign_with", None)
    app = Celery("deployed", broker=broker, backend=backend, set_as_current=False)
    app.conf.update({"broker_connection_retry_on_startup": True, "worker_prefetch_multiplier": 1, **settings})
    if "jsonish" in (app.conf.accept_content or ()):
        register("jsonish", json.dumps, json.loads, content_type="application/x-jsonish", content_encoding="utf-8")
    if security is not None:
        folder = Path(security)
        app.conf.update(
            security_key=str(folder / "worker.key"),
            security_certificate=str(folder / "worker.pem"),
            security_cert_store=str(folder / "*.pem"),
        )
        app.setup_security()

    @app.task(shared=False)
    def halve(data: int) -> int:
        return data // 2

    workflows = [
        Workflow("asking", input=int).then(ask).then(halve).sleep(0.1).then(double).commit(),
        Workflow("dying", input=int).then(die_once).commit(),
        Workflow("failing", input=int).then(fail).commit(),
        Workflow("checking", input=int).then(double).then(check).commit(),
    ]
    orchestrator = Orchestrator(
        app, store=store, workflows=workflows, tick_seconds=0.3, lease_seconds=60, republish_seconds=REPUBLISH
    )
    return app, orchestrator


if "DEPLOYMENT_BROKER" in os.environ:
    app, orchestrator = make(
        os.environ["DEPLOYMENT_BROKER"],
        os.environ["DEPLOYMENT_STORE"],
        json.loads(os.environ.get("DEPLOYMENT_SETTINGS", "{}")),
    )
