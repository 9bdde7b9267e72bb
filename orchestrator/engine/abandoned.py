"""Ends the claims of a delivery whose process is gone, for the process around it.

A delivery may have made several claims by then: that of its message, and one by each of its commits. All have its mark.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.engine.executor import Executor
from orchestrator.engine.logs import log_context
from orchestrator.errors import StoreUnavailable
from orchestrator.host import delivery_mark, new_token
from orchestrator.rules import attempt_commands
from orchestrator.rules.change import Committed
from orchestrator.rules.model import Activation, RunHeader, StoredStatus, is_report
from orchestrator.rules.timers import with_request_id

log = logging.getLogger("orchestrator")

_TRIES = 3  # a renewal that was on its way when the process ended moves the lease once more


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that a worker has taken."""

    # the activation that it names
    run_id: str
    path: str
    # the message's own id
    id: str


def give_back(executor: Executor, delivery: Delivery, *, is_abandoned: bool = True) -> None:
    """Put back into the queue what the delivery had claimed; where `is_abandoned`, each attempt counts as such."""
    _end_claims(executor, delivery, lambda header, mine: _release(executor, header, mine, is_abandoned))


def fail_by_limit(executor: Executor, delivery: Delivery, error: Exception) -> None:
    """End the step that the message names by its time limit, and put back into the queue what else it had claimed."""

    def end(header: RunHeader, mine: Activation) -> bool:
        # The limit was that step's. What goes on after it (a condition, hooks) has done nothing wrong. The message of a
        # settling is for the hooks that it calls: theirs is the limit.
        is_meant = mine.path == delivery.path or (not delivery.path and is_report(mine.path))
        if not is_meant or not attempt_commands.may_fail_claim(mine, mine.seq):
            return _release(executor, header, mine, True)
        executor.fail_claim(header, mine, error)
        return True

    _end_claims(executor, delivery, end)


def _end_claims(executor: Executor, delivery: Delivery, end: Callable[[RunHeader, Activation], bool]) -> None:
    def try_once() -> bool:
        found = _find_claims(executor, delivery)
        if found is None:
            return True
        ended = [end(found[0], mine) for mine in found[1]]  # each of them, whatever becomes of the others
        return all(ended)

    try:
        for _ in range(_TRIES):
            if executor.services.retry_while_unavailable(try_once):
                return
    except StoreUnavailable as error:
        text = "what a dead process had claimed of run %s goes on when its lease is over: %s"
        log.warning(text, delivery.run_id, error, extra={"run_id": delivery.run_id})


def _find_claims(executor: Executor, delivery: Delivery) -> tuple[RunHeader, list[Activation]] | None:
    """Return the run with the delivery's claims that hold; None where the run does not go on."""
    store, mark = executor.store, delivery_mark(delivery.id)
    header = store.header(delivery.run_id)
    if header is None or not (header.status == StoredStatus.RUNNING or header.calling or header.delivering):
        return None
    # Mostly it is the message's own, or the run's end. The others may be anywhere in the run.
    for paths in ([delivery.path, ""] if delivery.path else [""]), None:
        held = [one for one in store.load(delivery.run_id, paths) if attempt_commands.is_claim_of(one, mark)]
        if held:
            return header, held
    return header, []


def _release(executor: Executor, header: RunHeader, mine: Activation, is_abandoned: bool) -> bool:
    """Put one claim back into the queue. Returns False where it has been renewed meanwhile."""
    change = attempt_commands.release(header, mine, mine.seq, executor.settings.limits, is_abandoned=is_abandoned)
    if change is None:
        return True
    # It has an id, unlike a sweep: should its answer get lost, nobody else would publish it for a while.
    answer = executor.store.commit(header.run_id, with_request_id(change, new_token()))
    if not isinstance(answer, Committed):
        return False
    text = "step %s of run %s goes back into the queue: its process is gone"
    log.info(text, mine.step, header.run_id, extra=log_context(header, mine))
    executor.publish(answer.header, answer.dispatches)
    return True
