"""The app of the tests of starts: by name, with a hook in which its process may be killed, once for each run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Celery

from orchestrator import Context, Orchestrator, Workflow, step


@step
def double(number: int) -> int:
    return 2 * number


@step
def ask(number: int, ctx: Context[Any]) -> Any:
    if not ctx.resumed:
        ctx.suspend()
    return ctx.resume_data


def strike(info: Any) -> None:
    """Kill this process, or the worker around it, the first time that this run is started."""
    how, mark = os.environ.get("STARTS_KILL"), Path(f"struck-{info.run_id}")
    if how and not mark.exists():
        mark.touch()
        os.kill(os.getppid() if how == "worker" else os.getpid(), signal.SIGKILL)


def strike_always(info: Any) -> None:
    """Kill this process, or the worker around it, each time that this run is started."""
    with Path(f"struck-{info.run_id}").open("a") as mark:
        mark.write("x")
    os.kill(os.getppid() if os.environ["STARTS_KILL"] == "worker" else os.getpid(), signal.SIGKILL)
    time.sleep(60)


asking = Workflow("asking", input=int).then(ask).then(double).commit()
plain = Workflow("plain", input=int).then(double).commit()
struck = Workflow("struck", input=int, on_start=strike).then(double).commit()

deadly = Workflow("deadly", input=int, on_start=strike_always).then(double).commit()


def make(broker: str, store: str, backend: str) -> tuple[Celery, Orchestrator]:
    """Build the app and its orchestrator, as workers and callers have them."""
    app = Celery("starts", broker=broker, backend=backend, set_as_current=False)
    app.conf.update(broker_connection_retry_on_startup=True, broker_connection_max_retries=None)
    flows = [asking] if "STARTS_FEW" in os.environ else [asking, plain, struck, deadly]
    orchestrator = Orchestrator(
        app,
        store=store,
        workflows=flows,
        tick_seconds=0.5,
        lease_seconds=10,
        republish_seconds=120,
    )
    return app, orchestrator


if "STARTS_BROKER" in os.environ:
    app, orchestrator = make(*(os.environ[f"STARTS_{name}"] for name in ("BROKER", "STORE", "BACKEND")))
