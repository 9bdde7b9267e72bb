"""A store that is away for longer than a worker waits is nobody's failure: neither the task's nor the step's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, signals, states

from orchestrator import Orchestrator, StoreUnavailable, Workflow, step
from orchestrator.canvas.messages import HEADER, STEP_TASK
from orchestrator.engine.abandoned import Delivery
from orchestrator.engine.executor import Executor
from orchestrator.tasks import deliveries as module
from orchestrator.tasks.deliveries import Deliveries


@step
def plain(x: int) -> int:
    return x


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """An app with a step of its own and an existing task, on a store that has gone away."""

    def unavailable(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("The store at redis://there cannot be used: nobody answers")

    for verb in ("execute", "take"):
        monkeypatch.setattr(Executor, verb, unavailable)
    app = Celery("away", broker="memory://", set_as_current=False)

    @app.task(name="charge", shared=False)  # type: ignore[untyped-decorator]
    def charge(amount: int) -> int:
        return amount

    flows = [Workflow("flow").then(plain).commit(), Workflow("charging").then(charge).commit()]
    with Orchestrator(app, store="memory://", workflows=flows):
        app.finalize()
        yield app
    app.close()


@pytest.mark.parametrize("task", [STEP_TASK, "charge"])
def test_a_step_is_given_up_with_one_line_and_no_failure(
    app: Celery, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its timer in the store brings it back."""
    failures: list[Any] = []

    def note(**details: Any) -> None:
        failures.append(details)

    signals.task_failure.connect(note)
    signals.task_internal_error.connect(note)
    own = {"seq": 1} if task == STEP_TASK else {"sending": 1, "from": "sender"}
    header = {"v": 1, "run": "one", "path": "0", **own}
    with caplog.at_level(logging.INFO):
        ended = app.tasks[task].apply(args=("one", "0", 1) if task == STEP_TASK else (5,), headers={HEADER: header})
    assert (ended.state, failures) == (states.IGNORED, [])
    (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.getMessage().startswith("a step of run one is given up here, and goes on when its lease is over: The")
    assert line.exc_info is None


def test_what_a_dead_process_had_claimed_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever of it talks to the store."""

    def unavailable(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("The store is away")

    monkeypatch.setattr(module, "give_back", unavailable)
    known = Deliveries(lambda: None, lambda: False)  # type: ignore[arg-type, return-value]
    held = module._Held(Delivery("one", "0", "message"), 0, threading.get_ident())
    known._held["message"] = held
    known.lose("message")
    known.close()
    (line,) = caplog.records
    assert (line.levelname, line.exc_info) == ("WARNING", None)
    assert "goes on when its lease is over: The store is away" in line.getMessage()
