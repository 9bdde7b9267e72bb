"""Executions of tasks that were sent for steps, in this process, and word of their ends from others.

Each claims the step, as a message of our own does, and is refused where it is of the past.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol

from orchestrator.definitions.context import AbortSignal
from orchestrator.engine.attempt import Attempt
from orchestrator.engine.declarations import unknown_graph
from orchestrator.engine.executor import Executor
from orchestrator.engine.logs import log_context
from orchestrator.engine.outcome import StepOutcome
from orchestrator.engine.task_steps import Execution, end_by, task_id_of
from orchestrator.host import delivery_mark, new_token
from orchestrator.ports import TaskEnd
from orchestrator.rules import sendings
from orchestrator.rules.change import Claimed, ClaimRequest

log = logging.getLogger("orchestrator")

_TRIES = 5  # an execution, or who looks after the task, may take the step between our reading and our claim


class SentMessage(Protocol):
    """The message of a task, as far as it names a step."""

    @property
    def run_id(self) -> str:
        """The run."""
        ...

    @property
    def path(self) -> str:
        """The step in it."""
        ...

    @property
    def sending(self) -> int:
        """The number of the sending."""
        ...

    @property
    def sender(self) -> str:
        """The claim that has sent it, or the execution whose retry it is."""
        ...


class UnknownGraph(Exception):
    """This process does not know what follows from the step."""


def begin_execution(executor: Executor, message: SentMessage, task: str, *, delivery: str) -> Execution | None:
    """Claim the execution of a task of this name, by what its message says. Returns None where that is of the past.

    Raises `UnknownGraph`; the message is then as it was, and word of the end ends the step.
    """
    token, lease, sender = new_token(delivery_mark(delivery)), executor.settings.lease, message.sender
    runtime = executor.runtime.name
    request = ClaimRequest(message.run_id, message.path, 0, token, lease, runtime, message.sending, sender)
    claimed = executor.take(request)
    if claimed is None:
        return None
    if claimed.activation.where.task != task:  # forged: it would be executed with what is meant for another one
        text = "a message of another task, %r, names step %s of run %s: it is left alone"
        about = log_context(claimed.header, claimed.activation)
        log.warning(text, task, claimed.activation.step, message.run_id, extra=about)
        _return_message(executor, claimed, sender)
        return None
    graph = executor.graph_if_same(claimed.header)
    if graph is None:
        _return_message(executor, claimed, sender)
        raise UnknownGraph(executor.why_unknown(claimed.header))
    keep = ExitStack()
    signal = keep.enter_context(executor.keeper.keep_alive(claimed))
    attempt = Attempt(executor.services, claimed, graph, signal, claims=False)

    def record(attempt: Attempt, outcome: StepOutcome) -> None:
        executor.finish(attempt, outcome, "")

    return Execution(attempt, sender, record, keep)


def _return_message(executor: Executor, claimed: Claimed, sender: str) -> None:
    attempt = Attempt(executor.services, claimed, unknown_graph(claimed.header), AbortSignal(), claims=False)
    plan = sendings.return_message(attempt.as_claimed_node(), sender, executor.settings.redelivery_delay)
    executor.finish(attempt, StepOutcome(plan), "")


def end_sending(
    executor: Executor, run_id: str, path: str, sending: int, task_id: str, find_end: Callable[[], TaskEnd]
) -> None:
    """End a step by word of its task's end. What is of the past changes nothing, nor does a repeat.

    Raises `UnknownGraph`.
    """
    for _ in range(_TRIES):
        found = executor.find(run_id, path)
        if found is None or not sendings.may_end(*found, sending) or task_id_of(*found) != task_id:
            return
        header, activation = found
        graph = executor.graph_if_same(header)
        if graph is None:
            raise UnknownGraph(executor.why_unknown(header))
        # Taken from whoever has it: what has ended is nobody's work any more.
        lease, runtime, sender = executor.settings.lease, executor.runtime.name, activation.sender
        claimed = executor.take(ClaimRequest(run_id, path, 0, new_token(), lease, runtime, sending, sender))
        if claimed is not None:
            _end(executor, Attempt(executor.services, claimed, graph, AbortSignal(), claims=False), find_end)
            return


def _end(executor: Executor, attempt: Attempt, find_end: Callable[[], TaskEnd]) -> None:
    executor.finish(attempt, executor.make_outcome(attempt, lambda: end_by(attempt, find_end())), "")
