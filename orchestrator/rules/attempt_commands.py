"""The changes of workers: the outcome of a claim, what it writes on the way, and how a claim is given back.

As in `commands`, each is a pure function of what was read. All but the release are guarded by the lease token of the
claim: a worker whose lease has been taken over is refused, so it writes nothing into the work of its successor
(decision 3). This module must not know how user code is called, or what it returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestrator.rules import flow, sendings
from orchestrator.rules.bounds import to_delay
from orchestrator.rules.change import Change, Doc, LeaseGuard, UpdateActivation
from orchestrator.rules.envelope import CommitLimits, StoredTexts
from orchestrator.rules.graph import Step, Wait
from orchestrator.rules.mailbox import MailboxUpdate, event_of, is_waiter
from orchestrator.rules.model import Activation, ActivationFields, ActivationStatus, Phase, RunHeader
from orchestrator.rules.plan import ClaimedNode, Failed, Plan
from orchestrator.rules.timers import on_deadline

# Attempts in a row whose lease ended without a commit. Without a limit, a step that kills its worker would kill one
# worker per lease, for ever. A lower one would fail steps that meet two deployments in a row.
MAX_ABANDONED_ATTEMPTS = 3

_TRIED_FOR_EVER = frozenset({Phase.SETTLE, Phase.START_ITEMS, Phase.LOOK, Phase.SEND_AGAIN})

MAX_DEFERRAL = 300_000  # milliseconds; a worker that can run the step may come at any time


# --- outcomes --------------------------------------------------------------------------------------------------------


def commit_outcome(
    activation: Activation,
    plan: Plan,
    texts: StoredTexts,
    limits: CommitLimits,
    *,
    mail: MailboxUpdate | None = None,
    settle_token: str = "",
    chunks: Sequence[Doc] = (),
    ender: str = "",
) -> Change:
    """Record the outcome of a claim together with everything that follows from it.

    It is one commit, because a worker may die after it: a successor that a second commit starts could be lost.
    `settle_token` claims the settling of the run for this worker if nothing is live any more; without one the settling
    is queued. `chunks` are what the step has streamed last. They come before the events of its end. With `ender`,
    a token of its own, another process ends the claim for its holder, whose own commit is then refused.
    """
    return Change(
        # The token is the only guard. A seq may come again (time travel, the failover of a store), a token never does.
        LeaseGuard(activation.path, activation.lease_token, ender=ender),
        tuple(plan.ops),
        # Values go with the commit that refers to them. A value without a reference would never be found and purged.
        values={**plan.values, **texts.values},
        drop_values=plan.drop_values,
        state=texts.state,
        # A state that another step has written meanwhile is read again, so that neither undoes the other.
        expect_state=texts.expect_state,
        context=texts.context,
        events=(*chunks, *plan.events),
        # Compared in the same commit, so an event that has come since the mailbox was read is not overlooked.
        mailbox=mail,
        # Neither does the settling run under the time limit of the step that was the last: it may call a hook.
        settle_token="" if activation.where.has_limit else settle_token,
        settle_now=plan.settle_now,
        lease=limits.lease,
        redelivery_delay=limits.redelivery_delay,
        max_events=limits.max_events,
        max_event_age=limits.max_event_age,
    )


def find_retry_pause(claim: ClaimedNode, chance: float, *, is_retryable: bool) -> float | None:
    """Return the seconds until the attempt that follows a failed one; None where none follows.

    `chance` in [0, 1) spreads a backoff. Abandoned attempts do not count, because it is unknown whether the
    function failed.
    """
    node = claim.node if claim.activation.path else None
    if not is_retryable or not isinstance(node, Step) or claim.activation.attempt >= node.retry.attempts:
        return None
    return node.retry.pause(claim.activation.attempt + 1, chance)


def retry(claim: ClaimedNode, seconds: float) -> Plan:
    """Let another attempt follow after so many seconds. Raises ValueError for a time that never ends."""
    # The activation gets a new seq: an old message of the first attempt must not skip the pause.
    return flow.retry(claim, to_delay(seconds, f"the retry of step {claim.activation.step!r}"))


def must_give_up(activation: Activation) -> bool:
    """Tell whether a claim must fail without another attempt: too many in a row were abandoned.

    What must be done is tried for ever. A run must settle (only its hook is left out then), and a foreach that has
    items at work already cannot fail without them.
    """
    return is_lost_too_often(activation) and activation.phase not in _TRIED_FOR_EVER


def is_lost_too_often(activation: Activation) -> bool:
    """Tell whether so many attempts in a row were abandoned that the function probably kills its workers."""
    return activation.abandoned_attempts >= MAX_ABANDONED_ATTEMPTS


def give_up(claim: ClaimedNode, error_id: str) -> Plan:
    """Fail a step whose last attempts were all abandoned, whatever its own retries are."""
    # It is a failure like any other: a parallel block that tolerates failures tolerates this one, too.
    return flow.on_result(claim, Failed(error_id))


# --- events ----------------------------------------------------------------------------------------------------------


def await_event(claim: ClaimedNode, first: str) -> tuple[Plan, MailboxUpdate]:
    """Take the oldest event that has been sent already; without one, begin to wait.

    `first` is the first entry of the mailbox as read. An event that has come since is the counterpart of a wait that
    has begun since `commands.send_event` has looked: `mailbox.find_refusal` lets neither side miss the other.
    """
    name = _event_of(claim)
    if first and not is_waiter(first):
        return flow.on_event(claim, event_of(first)), MailboxUpdate(name, pop=first)
    return flow.on_await(claim), MailboxUpdate(name, push=flow.waiter_of(claim))


def time_out_event(claim: ClaimedNode, error_id: str) -> tuple[Plan, MailboxUpdate]:
    """End a wait whose time is over, and remove its entry from the mailbox."""
    # A caller who sends an event now finds the activation queued, and removes the entry itself.
    return flow.on_timeout(claim, error_id), MailboxUpdate(_event_of(claim), pop=claim.activation.waiter, anywhere=True)


def _event_of(claim: ClaimedNode) -> str:
    node = claim.node
    if not isinstance(node, Wait):
        raise TypeError(f"{claim.activation.path} is not a wait")
    return node.event


# --- on the way ------------------------------------------------------------------------------------------------------


def write_items(activation: Activation, page: Mapping[str, str], limits: CommitLimits) -> Change:
    """Write some of the items of a foreach, each under an id of its own. The claim goes on.

    The change has no flush number. The ids are the same whoever writes them, so a repeat writes what is there already.
    """
    return Change(LeaseGuard(activation.path, activation.lease_token), values=page, lease=limits.lease)


def flush_events(activation: Activation, number: int, events: Sequence[Doc], limits: CommitLimits) -> Change:
    """Append what a step has streamed. The claim goes on.

    `number` counts the flushes of one claim from 1. A flush whose answer was lost is sent again, and appended once.
    """
    return Change(
        LeaseGuard(activation.path, activation.lease_token, number),
        events=tuple(events),
        lease=limits.lease,
        max_events=limits.max_events,
        max_event_age=limits.max_event_age,
    )


# --- giving back -----------------------------------------------------------------------------------------------------


def find_deferral(header: RunHeader, activation: Activation, first_delay: int) -> int:
    """Return the milliseconds for which a claim that cannot be run here is put off.

    They begin with `first_delay` and double. They follow from how long the activation has waited already, so nothing
    has to be counted.
    """
    since = max(activation.started_at, activation.resumed_at) or header.updated_at
    waited = max(0, header.updated_at - since)
    return min(MAX_DEFERRAL, max(first_delay, 2 * waited))


def defer_unrunnable(activation: Activation, reason: str, delay: int) -> Change:
    """Give back a claim that this process cannot run: it does not know the workflow, or has another graph of it.

    No attempt is counted, and the run never fails for it. During a rolling deployment, the process that can run it may
    just not be there yet.
    """
    # The reason is for operators. It also tells a later claim that the start event of the step has been emitted.
    fields: ActivationFields = {"status": ActivationStatus.RETRYING.value, "parked": reason}
    return Change(
        LeaseGuard(activation.path, activation.lease_token), (UpdateActivation(activation.path, fields, delay=delay),)
    )


def is_claim(activation: Activation, seq: int) -> bool:
    """Tell whether an activation is still in the claim of this number.

    The main process asks it, before it ends the claim of a child that has died.
    """
    return activation.status == ActivationStatus.RUNNING and activation.seq == seq


def is_claim_of(activation: Activation, mark: str) -> bool:
    """Tell whether an activation is held by a claim of the delivery with this mark."""
    return bool(mark) and activation.status == ActivationStatus.RUNNING and activation.lease_token.startswith(mark)


def may_fail_claim(activation: Activation, seq: int) -> bool:
    """Tell whether the main process may end a claim of this number as failed, on behalf of the child that had it.

    The settling of a run cannot fail, whatever time limit it ran into, nor the start of further items. The end of the
    lease brings it back.
    """
    return is_claim(activation, seq) and activation.path != "" and activation.phase != Phase.START_ITEMS


def release(
    header: RunHeader, activation: Activation, seq: int, limits: CommitLimits, *, is_abandoned: bool = True
) -> Change | None:
    """Put a claim whose process is known to be gone back into the queue; None where the claim has ended.

    It is the same as the end of the lease, only at once: the attempt counts as abandoned. Without
    `is_abandoned` (the worker was told to stop) it does not count: a long step may meet many deployments, and must not
    fail by them.
    """
    if not is_claim(activation, seq):
        return None
    # The change is guarded by the deadline that was read. A heartbeat that comes in between proves a living worker.
    action = on_deadline(header, activation, limits.redelivery_delay)
    if action is None or is_abandoned or not header.auto_restart:
        return action.change if action is not None else None
    fields: ActivationFields = {
        "status": ActivationStatus.QUEUED.value,
        "restarted": True,
        **sendings.after_loss(activation),
    }
    return replace(action.change, ops=(UpdateActivation(activation.path, fields),))
