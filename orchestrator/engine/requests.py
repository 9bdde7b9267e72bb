"""The parts that requests of callers share: commit, publish, undo or let stand.

Commit first, then publish: a message that came before its commit would find nothing to claim. Where the broker cannot
be reached, the request stands and the scheduler publishes, or it is undone and the caller gets an error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from orchestrator.engine.executor import Executor
from orchestrator.engine.logs import log_context
from orchestrator.engine.observe.protocols import CallObserver
from orchestrator.engine.unsent import note_unsent
from orchestrator.errors import BrokerUnavailable, OrchestratorError, StoreUnavailable, WorkflowNotRegistered
from orchestrator.rules import ownership
from orchestrator.rules.change import Change, Committed, Refused
from orchestrator.rules.graph import Graph
from orchestrator.rules.model import RunHeader

log = logging.getLogger("orchestrator")

Undo = Callable[[Committed], Change | None]
MAX_LOOKS = 10  # times that a caller looks again because what has refused it was being undone


def request(
    executor: Executor,
    header: RunHeader,
    change: Change,
    refusal: Callable[[Refused], Exception],
    on_commit: Callable[[], None] = lambda: None,
) -> RunHeader:
    """Commit a request and publish its messages; returns the header.

    Raises `refusal(answer)` where the store refuses the change. Where the broker is away, the scheduler will publish.
    """
    # Not retried: the caller gets the error where the store is away, and decides whether to ask again.
    answer = executor.store.commit(header.run_id, change)
    if isinstance(answer, Refused):
        raise refusal(answer)  # nothing was written: the caller may read the run again
    on_commit()
    publish(executor, answer)
    return answer.header


def publish(executor: Executor, answer: Committed, undo: Undo = lambda answer: None) -> None:
    """Publish the messages of a commit. Where the broker is away, the scheduler will, unless the change is undone.

    `undo` makes the change that undoes it, for where the settings say so, or the broker does not take the message. If
    it makes none, or the store refuses it because the run has gone on, the request stands. Raises `BrokerUnavailable`
    where it was undone, and `StoreUnavailable` where nobody knows.
    """
    answer = executor.with_all_dispatches(answer)
    try:
        executor.runtime.publish(answer.header, answer.dispatches)
    except BrokerUnavailable as unsent:
        change = None if executor.settings.may_send_later(unsent) else undo(answer)
        if change is not None and _is_undone(executor, answer.header, change, unsent):
            raise
        text = "run %s: %s; the scheduler will publish"
        log.warning(text, answer.header.run_id, unsent, extra=log_context(answer.header))
        delay = executor.settings.retry_delay_of(unsent)
        note_unsent(executor.store, answer.header, answer.dispatches, delay)


def _is_undone(executor: Executor, header: RunHeader, change: Change, unsent: BrokerUnavailable) -> bool:
    try:
        answer = executor.store.commit(header.run_id, change)
    except StoreUnavailable as error:
        # The change stands, and the scheduler will find its timer. The caller must not take this for a refusal.
        text = "neither broker nor store can be reached: whether the run goes on is unknown"
        raise StoreUnavailable(text, run_id=header.run_id) from error
    if isinstance(answer, Refused):
        return False
    # The run may have to settle again; of that nobody can be told either.
    note_unsent(executor.store, answer.header, answer.dispatches, executor.settings.retry_delay_of(unsent))
    return True


def adopt(executor: Executor, header: RunHeader, change: Change, *, takes_all: bool = False) -> Change:
    """Let the run that a change lets go on belong to this application from then on, with all of its timers."""
    runtime, namespace = executor.runtime.name, executor.settings.namespace
    if (header.runtime, header.namespace) == (runtime, namespace):
        return change
    # All activations are read, though few have timers: it is rare that a run goes on elsewhere.
    activations = executor.store.load(header.run_id)
    return ownership.adopt(change, header, activations, runtime, namespace, takes_all=takes_all)


def arm_adopted(executor: Executor, before: RunHeader) -> None:
    """End the waits of a run in this process which has come from workers: they did so before."""
    if before.runtime != executor.runtime.name:
        executor.runtime.arm_timeouts(before.run_id)


def is_final(executor: Executor, header: RunHeader, confirmation: Change | None) -> bool:
    """Tell whether what refuses this caller can be undone no more; false where it has just been undone.

    Of two callers who want the same, both would have lost otherwise: one because the other was first, and that one
    because nobody could be told.
    """
    return confirmation is None or isinstance(executor.store.commit(header.run_id, confirmation), Committed)


def add_trace(observed: CallObserver, change: Change) -> Change:
    """Store the ids of the caller's spans with the change: workers make their own spans below those."""
    return replace(change, ops=tuple(observed.add_traces(change.ops)))


@contextmanager
def error_context(header: RunHeader) -> Iterator[None]:
    """Add the ids of run and workflow to the library's own errors."""
    # The functions that check values raise these errors, and do not know the run.
    try:
        yield
    except OrchestratorError as error:
        error.details = {"workflow_id": header.workflow_id, "run_id": header.run_id, **error.details}
        raise


def require_secrets(executor: Executor, header: RunHeader) -> None:
    """Raise `SecretUnavailable` where this process alone goes on with the run, and cannot read its secrets.

    Workers may have another key than the caller: one that lacks it leaves the run to the others.
    """
    if not executor.runtime.is_shared:
        executor.contexts.read(header.run_id, executor.store.context(header.run_id))


def graph_of(executor: Executor, header: RunHeader) -> Graph:
    """Return the graph of a run's workflow. Raises `WorkflowNotRegistered`."""
    workflow = executor.registry.get(header.workflow_id)
    if workflow is None:
        text = (
            f"workflow {header.workflow_id!r} of run {header.run_id!r} is not registered here: pass it in `workflows`"
        )
        raise WorkflowNotRegistered(text, run_id=header.run_id, workflow_id=header.workflow_id)
    return workflow.compiled
