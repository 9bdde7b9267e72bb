"""Existing tasks in the default runtime, and what user code does to its process instead of raising."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import nullcontext
from typing import Any

import celery
import pytest
from celery import Celery
from celery.exceptions import Ignore, Reject

from orchestrator import GraphInvalid, InputInvalid, Orchestrator, ResumeAmbiguous, Workflow, step
from orchestrator.errors import Issue
from orchestrator.stores import MemoryStore

app = Celery("here", set_as_current=False)


@app.task(bind=True, max_retries=3)
def stubborn(self: Any, number: int) -> list[int]:
    """Ask for two retries."""
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return [number, self.request.retries]


@app.task(bind=True, max_retries=1)
def hopeless(self: Any, number: int) -> None:
    """Ask for one retry too many."""
    raise self.retry(countdown=0, exc=ConnectionError("never"))


@app.task(autoretry_for=(ConnectionError,), max_retries=2, default_retry_delay=0)
def automatic(number: int) -> int:
    """Fail for a while."""
    failures.append(number)
    if len(failures) < 3:
        raise ConnectionError("not yet")
    return number


@app.task
def ignored(number: int) -> None:
    """End without a result."""
    raise Ignore


@app.task
def rejected(number: int) -> None:
    """End without a result."""
    raise Reject("no")


failures: list[int] = []


def outcome(entry: Any) -> Any:
    """Run it alone."""
    with Orchestrator() as orchestrator:
        return orchestrator.create_run(Workflow("alone", input=int).then(entry).commit()).start(7)


def test_a_tasks_own_retry_is_a_retry_of_the_step() -> None:
    """With its count in `request.retries`, until its own `max_retries`."""
    assert outcome(stubborn).result == [7, 2]
    failed = outcome(hopeless)
    assert failed.status == "failed"
    assert isinstance(failed.error, ConnectionError)
    failures.clear()
    assert outcome(automatic).result == 7
    assert len(failures) == 3


@pytest.mark.parametrize("task, error", [(ignored, Ignore), (rejected, Reject)], ids=["ignore", "reject"])
def test_a_task_that_ends_without_a_result_has_failed(task: Any, error: type[Exception]) -> None:
    """As it has on workers: what follows would have no input."""
    result = outcome(task)
    assert result.status == "failed"
    assert isinstance(result.error, error)


def cancels_itself(number: int) -> None:
    raise asyncio.CancelledError("away")


async def is_cancelled(number: int) -> None:
    raise asyncio.CancelledError("away")


def leaves(number: int) -> None:
    sys.exit(3)


@pytest.mark.parametrize("function", [cancels_itself, is_cancelled, leaves], ids=lambda function: function.__name__)
def test_what_would_end_a_loop_or_a_process_fails_the_step(function: Any) -> None:
    """Once, with that error: no worker is lost by it."""
    result = outcome(step(function, retries=0))
    assert result.status == "failed"
    assert ("away" in str(result.error)) or ("3" in str(result.error))


@pytest.mark.parametrize(
    "error",
    [
        InputInvalid([Issue("order.qty", "Field required", "missing")]),
        GraphInvalid(["one thing", "another"]),
        ResumeAmbiguous(candidates=["a", "b"]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_that_celery_hands_on_keep_their_words(error: Exception) -> None:
    """Its result backends make them anew from `args`."""
    assert str(type(error)(*error.args)) == str(error)


def test_a_name_that_a_task_has_already_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """At once where the tasks are known, and in the log when they become known."""

    def charge() -> None:
        pass

    known, unknown = (Celery(name, broker="memory://", set_as_current=False) for name in ("known", "unknown"))
    flow = Workflow("charge", input=int).then(stubborn).commit()
    for one in (known, unknown):
        one.task(name="charge", shared=False)(charge)  # else every app of later tests has it
    known.finalize()
    with pytest.raises(ValueError, match="a task named 'charge' already"):
        Orchestrator(known, store=MemoryStore(), workflows=[flow])
    with (
        pytest.warns(Warning, match="charge") if celery.VERSION >= (5, 7) else nullcontext(),  # Celery's own
        caplog.at_level(logging.ERROR),
        Orchestrator(unknown, store=MemoryStore(), workflows=[flow]),
    ):
        unknown.finalize()
    assert "has a task named 'charge' of its own" in caplog.text
