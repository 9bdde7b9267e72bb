"""Another code base: its tasks are known to the project by name alone, and its worker cannot import the library."""

from __future__ import annotations

import os
import sys
import time

from celery import Celery
from celery.exceptions import Ignore

sys.modules["orchestrator"] = None  # type: ignore[assignment]

app = Celery("billing", broker=os.environ["FOREIGN_BROKER"], backend=os.environ.get("FOREIGN_BACKEND") or None)
app.conf.update(task_default_queue="billing", broker_connection_retry_on_startup=True, task_track_started=True)


def note(label: str) -> None:
    """Count a call in a file."""
    with open(os.path.join(os.environ["FOREIGN_RECORDINGS"], label), "a") as file:
        file.write("x")


@app.task(name="billing.charge")
def charge(label: str, amount: int = 1) -> dict[str, int]:
    note(label)
    return {"charged": amount}


@app.task(name="billing.fails")
def fails(label: str) -> None:
    note(label)
    raise ValueError("no such account")


@app.task(name="billing.slow")
def slow(label: str, seconds: float = 60) -> str:
    note(label)
    time.sleep(seconds)
    return "slow"


@app.task(name="billing.ignores")
def ignores(label: str) -> None:
    note(label)
    raise Ignore
