"""Existing tasks as steps: a claim sends the task, another is its execution, and word of its end comes from outside.

Where the runtime has no messages, the task is called in the place of its step (`step_calls`).
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, assert_never

from orchestrator.definitions.bodies import TaskBody
from orchestrator.definitions.foreign import TaskEntry
from orchestrator.engine.attempt import Attempt
from orchestrator.engine.idempotency import idempotency_key
from orchestrator.engine.outcome import StepOutcome, Writes
from orchestrator.engine.read.value_reader import encode_value
from orchestrator.engine.step_calls import fail, fail_for_good, retry_or_fail
from orchestrator.errors import BrokerUnavailable, OrchestratorError, TaskTimeout
from orchestrator.ports import Store, TaskCarrier, TaskEnd, TaskMessage
from orchestrator.rules import flow, sendings
from orchestrator.rules.graph import Graph, Step
from orchestrator.rules.model import Activation, ActivationStatus, Phase, RunHeader
from orchestrator.rules.plan import Done
from orchestrator.rules.value_ids import make_outcome_id

log = logging.getLogger("orchestrator")


class CannotSend(Exception):
    """The broker is away, which says nothing of the task that was to be sent."""


def task_id_of(header: RunHeader, activation: Activation) -> str:
    """Return the id of the present sending of a task.

    It is computed from the record, never drawn: word of the end may come before anything is committed about it.
    """
    text = f"{idempotency_key(header, activation)}#{activation.sending}"
    return str(uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4))


def entry_of(attempt: Attempt) -> TaskEntry:
    """Return the task of the attempt's node."""
    node = attempt.graph.node(attempt.activation.at)
    assert isinstance(node, Step)
    assert isinstance(node.body, TaskBody)
    return node.body.task


def send(attempt: Attempt, carrier: TaskCarrier) -> StepOutcome:
    """Send the task of a claimed activation. What its `apply_async` raises fails the step; `CannotSend` does not."""
    _send(attempt, carrier, attempt.activation.lease_token)
    entry, grace = entry_of(attempt), attempt.services.settings.redelivery_delay
    if not carrier.knows(entry.name):
        grace = min(grace, _timeout_of(entry, carrier))
    return StepOutcome(sendings.send(attempt.as_claimed_node(), grace))


def look(attempt: Attempt, carrier: TaskCarrier) -> StepOutcome:
    """Look after a task that was sent: end the step as the task has ended, or leave it and come again later."""
    activation, entry = attempt.activation, entry_of(attempt)
    task_id = task_id_of(attempt.header, activation)
    if (end := carrier.find_end(task_id)) is not None:
        return end_by(attempt, end)
    # Executions of our own are seen: such a task may wait in its queue for as long as it likes.
    is_own = carrier.knows(entry.name) and bool(activation.sender)
    left = None
    if not is_own:
        timeout = _timeout_of(entry, carrier)
        left = timeout - sendings.waited_for(attempt.header, activation)
        if left <= 0:
            carrier.revoke(task_id)
            text = f"no end of the task {entry.name!r} was heard of within {timeout / 1000:g} s after it was sent"
            return retry_or_fail(attempt, TaskTimeout(text, task=entry.name, task_id=task_id))
    # What was replaced, or is of another code base, is never sent twice: each copy would run.
    if is_own and activation.phase == Phase.SEND_AGAIN:
        _send(attempt, carrier, activation.sender)
    grace = attempt.services.settings.redelivery_delay
    return StepOutcome(sendings.look_later(attempt.as_claimed_node(), grace, left))


def _send(attempt: Attempt, carrier: TaskCarrier, sender: str) -> None:
    try:
        carrier.send(_message(attempt, sender))
    except BrokerUnavailable as error:
        if error.is_refused:
            raise
        raise CannotSend(str(error)) from error


def _timeout_of(entry: TaskEntry, carrier: TaskCarrier) -> int:
    """Return the milliseconds after which a task that cannot be sent again is given up."""
    return round((carrier.default_timeout if entry.timeout is None else entry.timeout) * 1000)


def _message(attempt: Attempt, sender: str) -> TaskMessage:
    activation, entry = attempt.activation, entry_of(attempt)
    if activation.arguments:
        chosen = attempt.values.plain(activation.arguments)
        args, kwargs = tuple(chosen["args"]), dict(chosen["kwargs"])
    else:
        args, kwargs = entry.arguments(attempt.values.plain(activation.input))
    return TaskMessage(
        name=entry.name,
        args=args,
        kwargs=kwargs,
        options=entry.options,
        carries_value=entry.value,
        task_id=task_id_of(attempt.header, activation),
        run_id=attempt.header.run_id,
        path=activation.path,
        sending=activation.sending,
        sender=sender,
        retries=activation.task_retries,
    )


def revoke_sent(store: Store, carrier: TaskCarrier | None, graph: Graph | None, header: RunHeader) -> None:
    """Ask workers not to begin what was sent for a run that has been canceled. A courtesy: its executions are refused.

    The run is read for it where its graph has tasks, and only there.
    """
    if carrier is None or graph is None or not any(node.route.task for node in graph.walk()):
        return
    for activation in store.load(header.run_id):
        if activation.status == ActivationStatus.SENT:
            carrier.revoke(task_id_of(header, activation))


def end_by(attempt: Attempt, end: TaskEnd) -> StepOutcome:
    """End the step as its task has ended; `retries` of the step apply to a failure, unless it is final."""
    if end.error is None:
        return _on_value(attempt, end.value)
    return fail(attempt, end.error) if end.is_final else retry_or_fail(attempt, end.error)


def _on_value(attempt: Attempt, value: Any) -> StepOutcome:
    key = make_outcome_id(attempt.activation.lease_token)
    try:
        text = attempt.store_value(value, "output")
    except OrchestratorError as error:
        return fail_for_good(attempt, error)
    return StepOutcome(flow.on_result(attempt.as_claimed_node(), Done(key)), Writes({key: text}))


@dataclass(frozen=True, slots=True)
class Retried:
    """The task has sent its own retry, due in so many seconds, with these arguments."""

    seconds: float
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


class Replaced:
    """The task has put something else into its place."""


class Returned:
    """The worker gives the message back to the broker."""


# How an execution ends; None where its process ends, which is no outcome of the task.
Ending = TaskEnd | Retried | Replaced | Returned | None


class _Leaving(Exception):
    """The execution has no outcome."""


class Execution:
    """One execution of a task that is a step, under a lease. It ends once; what comes after its end changes nothing."""

    def __init__(
        self, attempt: Attempt, sender: str, record: Callable[[Attempt, StepOutcome], None], keep: ExitStack
    ) -> None:
        self.attempt = attempt
        self._sender = sender  # of its message, which comes again as it is if the worker gives it back
        self._record = record
        self._keep = keep
        self._is_over = False

    @property
    def token(self) -> str:
        """The name of this execution, by which its own retry is claimed."""
        return self.attempt.activation.lease_token

    def run(self, call: Callable[[], Any], find_ending: Callable[[Any, BaseException | None], Ending]) -> Any:
        """Call the task's code in the span of its step, and commit its end. Returns and raises what the code does.

        Raises `StoreUnavailable` where the end could not be committed.
        """
        left: list[Any] = [None, None]  # the value and the error with which the code has been left

        def work() -> StepOutcome:
            try:
                left[0] = call()
            except BaseException as error:  # noqa: BLE001  (it is raised again below)
                left[1] = error
            return self._plan(find_ending(left[0], left[1]))

        self._commit(lambda: self.attempt.observer.run(work))
        if left[1] is not None:
            raise left[1]
        return left[0]

    def end(self, ending: Ending) -> None:
        """Commit the end of a task whose code was not called."""
        self._commit(lambda: self._plan(ending))

    def _plan(self, ending: Ending) -> StepOutcome:
        claim, grace = self.attempt.as_claimed_node(), self.attempt.services.settings.redelivery_delay
        match ending:
            case TaskEnd():
                return end_by(self.attempt, ending)
            case Retried(seconds=seconds, args=args, kwargs=kwargs):
                key, chosen = make_outcome_id(self.token), {"args": list(args), "kwargs": dict(kwargs)}
                what = f"arguments of the retry of {self.attempt.activation.step!r}"
                try:
                    text = encode_value(chosen, what, self.attempt.services.settings.packing)
                except OrchestratorError as error:
                    return fail_for_good(self.attempt, error)
                delay = max(0, round(seconds * 1000))
                return StepOutcome(sendings.retry_task(claim, delay, key, grace), Writes({key: text}))
            case Replaced():
                return StepOutcome(sendings.replace_task(claim, grace))
            case Returned():
                return StepOutcome(sendings.return_message(claim, self._sender, grace))
            case None:
                raise _Leaving
            case _:
                assert_never(ending)

    def _commit(self, make: Callable[[], StepOutcome]) -> None:
        if self._is_over:
            return
        self._is_over = True
        try:
            with suppress(_Leaving):  # the lease says so
                self._record(self.attempt, make())
        finally:
            self.attempt.chunks.stop()
            self._keep.close()
