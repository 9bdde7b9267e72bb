"""A message of a step names one activation, in its header and in its arguments; a forged one does nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from orchestrator import Orchestrator, Run, RunInfo, Workflow, step
from orchestrator.canvas.messages import HEADER, STEP_TASK
from orchestrator.rules.model import Report, report_path
from tests.vendor import wait_until


@step
def plain(x: int) -> int:
    return x


class Worker:
    """An app whose messages are run here, one by one, as a worker would run them."""

    def __init__(self) -> None:
        self.app = Celery("shop", broker="memory://", set_as_current=False)
        self.called: list[Any] = []

        @self.app.task(name="charge", shared=False)
        def charge(amount: Any) -> Any:
            self.called.append(("charge", amount))
            return amount

        @self.app.task(name="refund", shared=False)
        def refund(amount: Any) -> Any:
            self.called.append(("refund", amount))
            return amount

        flow = Workflow("flow").then(plain).commit()
        charging = Workflow("charging").then(charge).commit()
        refunding = Workflow("refunding").then(refund).commit()
        telling = Workflow("telling", on_finish=self.fail_first).then(plain).commit()
        flows = [flow, charging, refunding, telling]
        self.orchestrator = Orchestrator(self.app, store="memory://", workflows=flows)
        self.app.finalize()

    def fail_first(self, info: RunInfo) -> None:
        """A hook that is called again."""
        self.called.append(("hook", info.result))
        if len(self.called) == 1:
            raise RuntimeError("not now")

    def begin(self, workflow: str) -> Run:
        return self.orchestrator.create_run(workflow).submit(5)

    def seq(self, run: Run) -> int:
        return self.orchestrator.store.load(run.run_id, ["0"])[0].seq

    def sent(self, run: Run) -> dict[str, Any]:
        """Let the task of the run be sent, and return the header of its message."""
        header = {"v": 1, "run": run.run_id, "path": "0", "seq": self.seq(run)}
        self.run_message(STEP_TASK, (run.run_id, "0", self.seq(run)), header)
        (task,) = self.orchestrator.store.load(run.run_id, ["0"])
        return {"v": 1, "run": run.run_id, "path": "0", "sending": task.sending, "from": task.sender}

    def status(self, run: Run) -> str:
        return self.orchestrator.store.load(run.run_id, ["0"])[0].status

    def run_message(self, task: str, args: tuple[Any, ...], header: Any) -> None:
        self.app.tasks[task].apply(args=args, headers={HEADER: header}, throw=True)


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A worker's app, with a step of its own and two existing tasks."""
    made = Worker()
    with made.orchestrator:
        yield made
    made.app.close()


def test_header_and_arguments_have_to_agree(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    mine, victim = worker.begin("flow"), worker.begin("flow")
    args = (mine.run_id, "0", worker.seq(mine))
    header = {"v": 1, "run": victim.run_id, "path": "0", "seq": worker.seq(victim)}
    worker.run_message(STEP_TASK, args, header)
    assert (worker.status(mine), worker.status(victim)) == ("queued", "queued")
    assert "whose header and arguments differ" in caplog.text
    worker.run_message(STEP_TASK, args, {"v": 1, "run": mine.run_id, "path": "0", "seq": worker.seq(mine)})
    assert (worker.status(mine), worker.status(victim)) == ("success", "queued")


@pytest.mark.parametrize(
    "header",
    [
        {"v": 1},
        {"v": 1, "run": 5, "path": "0", "seq": 1},
        {"v": 1, "run": "r", "path": "../..", "seq": 1},
        {"v": 1, "run": "r", "path": "0", "seq": 10**400},
        {"v": 1, "run": "r", "path": "0", "seq": -1},
        {"v": 1, "run": "r", "path": "0", "seq": "1"},
        {"v": "2\nFORGED LINE", "run": "r", "path": "0", "seq": 1},
        ["run", "0", 1],
        "run",
    ],
    ids=["empty", "number", "path", "huge", "negative", "text", "format", "list", "string"],
)
@pytest.mark.parametrize("task", [STEP_TASK, "charge"])
def test_a_header_that_names_nothing_does_nothing(
    worker: Worker, task: str, header: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a line in the log, and one line."""
    run = worker.begin("flow")
    args = (run.run_id, "0", worker.seq(run)) if task == STEP_TASK else (7,)
    worker.run_message(task, args, header)
    assert (worker.status(run), worker.called) == ("queued", [])
    (line,) = [record for record in caplog.records if "was left alone" in record.getMessage()]
    assert "\n" not in line.getMessage()


def test_a_message_may_name_a_hook_that_is_called_again(worker: Worker) -> None:
    """It is no node of the graph, so its path begins below zero."""
    run = worker.begin("telling")
    first = (run.run_id, "0", worker.seq(run))
    worker.run_message(STEP_TASK, first, {"v": 1, "run": run.run_id, "path": "0", "seq": worker.seq(run)})
    assert worker.called == [("hook", 5)]
    path = report_path(1, Report.ON_FINISH)
    (hook,) = worker.orchestrator.store.load(run.run_id, [path])
    again = {"v": 1, "run": run.run_id, "path": path, "seq": hook.seq}

    def is_called_again() -> bool:
        worker.run_message(STEP_TASK, (run.run_id, path, hook.seq), again)
        return worker.called == [("hook", 5)] * 2

    assert wait_until(is_called_again, 10.0)  # a message that comes too early is refused


def test_a_message_without_a_header_does_nothing(worker: Worker) -> None:
    run = worker.begin("flow")
    worker.app.tasks[STEP_TASK].apply(args=(run.run_id, "0", worker.seq(run)), throw=True)
    assert worker.status(run) == "queued"


def test_a_task_is_not_called_with_what_is_another_tasks(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    """A refund is not charged because a message of `charge` names it; it waits for its own message."""
    run = worker.begin("refunding")
    worker.run_message("charge", (5,), worker.sent(run))
    assert (worker.status(run), worker.called) == ("sent", [])
    assert "a message of another task, 'charge'" in caplog.text
    right = worker.begin("charging")
    worker.run_message("charge", (5,), worker.sent(right))
    assert (worker.status(right), worker.called) == ("success", [("charge", 5)])


@pytest.mark.parametrize("forged", [{"sending": 2}, {"sending": 0}, {"from": "another"}, {"from": ""}, {"from": 5}])
def test_a_task_is_not_called_by_a_message_of_the_past(worker: Worker, forged: dict[str, Any]) -> None:
    """It is of the present sending, and sent by the claim that the store knows, or it does nothing."""
    run = worker.begin("charging")
    header = worker.sent(run)
    worker.run_message("charge", (5,), {**header, **forged})
    assert (worker.status(run), worker.called) == ("sent", [])
    worker.run_message("charge", (5,), header)
    worker.run_message("charge", (5,), header)  # a copy
    assert (worker.status(run), worker.called) == ("success", [("charge", 5)])
