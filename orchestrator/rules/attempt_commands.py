"""Commits of a worker: the outcome of a claim, what it writes on the way, and how it gives a claim back.

As in `commands`, each is a pure function of what was read. All but the last are guarded by the claim's token: whoever
has lost the lease meanwhile is refused, so that a zombie writes nothing into the work of its successor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestrator.rules import flow
from orchestrator.rules.change import Change, Doc, LeaseGuard, MailboxUpdate, UpdateActivation, mailbox_version
from orchestrator.rules.envelope import CommitLimits, StoredTexts
from orchestrator.rules.graph import Step, Wait
from orchestrator.rules.model import Activation, ActivationStatus, Phase, RunHeader
from orchestrator.rules.plan import ClaimedNode, Failed, Plan
from orchestrator.rules.timers import on_deadline

# Claims in a row that ended without a commit. A step that kills its worker would else kill one worker per lease, for
# ever; fewer than three would fail steps for two deployments in a row.
MAX_ABANDONED_ATTEMPTS = 3

MAX_DEFERRAL = 300_000  # milliseconds


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
    """Record the outcome of a claim together with all that follows from it.

    One commit, because a worker may die behind it: a successor that was started in a second one could be lost.
    `settle_token` claims the settling of the run for this worker, if nothing is live any more; without one it is
    queued. `chunks` are what the step has streamed last: they come before the events of its end. With `ender`, a token
    of its own, somebody else ends the claim than its holder, whose own commit is then refused.
    """
    return Change(
        # The token is the only guard: a seq may come again (time travel, a store's failover), a token never does.
        LeaseGuard(activation.path, activation.lease_token, ender=ender),
        tuple(plan.ops),
        # Values go with the commit that refers to them. One that nobody refers to would never be found and purged.
        values={**plan.values, **texts.values},
        state=texts.state,
        context=texts.context,
        events=(*chunks, *plan.events),
        # The mailbox is compared in the same commit: an event that came since it was read is not overlooked.
        mailbox=mail,
        # Neither do hooks run under the time limit of the step that was the last.
        settle_token="" if activation.where.has_limit else settle_token,
        settle_now=plan.settle_now,
        lease=limits.lease,
        redelivery_delay=limits.redelivery_delay,
        max_events=limits.max_events,
        max_event_age=limits.max_event_age,
    )


def find_retry_pause(claim: ClaimedNode, chance: float, *, is_retryable: bool) -> float | None:
    """Decide whether a failed attempt is followed by another: the seconds until it, or None.

    `chance` in [0, 1) spreads a backoff. Abandoned attempts do not count: nobody knows whether the function had failed.
    """
    node = claim.node if claim.activation.path else None
    if not is_retryable or not isinstance(node, Step) or claim.activation.attempt >= node.retry.attempts:
        return None
    return node.retry.pause(claim.activation.attempt + 1, chance)


def retry(claim: ClaimedNode, seconds: float) -> Plan:
    """Let another attempt follow after so many seconds."""
    # It gets a new number: an old message of the first attempt must not skip the pause.
    return flow.retry(claim, round(seconds * 1000))


def must_give_up(activation: Activation) -> bool:
    """Decide whether a claim is to fail without another try. The settling of a run is tried for ever: it must end."""
    return activation.abandoned_attempts >= MAX_ABANDONED_ATTEMPTS and activation.phase != Phase.SETTLE


def give_up(claim: ClaimedNode, error_id: str) -> Plan:
    """Fail a step whose last attempts were all abandoned, whatever its own retries are."""
    # A failure like any other: a parallel block that tolerates failures tolerates this one too.
    return flow.on_result(claim, Failed(error_id))


# --- events ----------------------------------------------------------------------------------------------------------


def await_event(claim: ClaimedNode, entries: Sequence[str]) -> tuple[Plan, MailboxUpdate]:
    """Take the oldest event that has been sent already, else begin to wait for one. `entries` is the mailbox as read.

    The mark is the counterpart of the one in `commands.send_event`: neither side can miss the other.
    """
    name = _event_of(claim)
    sent = next((entry for entry in entries if not entry.startswith(flow.WAITER)), None)
    if sent is not None:
        return flow.on_event(claim, sent), MailboxUpdate(name, mailbox_version(entries), pop=sent)
    return flow.on_await(claim), MailboxUpdate(name, mailbox_version(entries), push=flow.waiter(claim.activation))


def time_out_event(claim: ClaimedNode, error_id: str) -> tuple[Plan, MailboxUpdate]:
    """End a wait whose time is over. Its entry leaves the mailbox, so that nobody sends an event into the void."""
    # No mark is expected: an event that is sent now finds the activation queued and clears the entry away by itself.
    return flow.on_timeout(claim, error_id), MailboxUpdate(_event_of(claim), pop=claim.activation.label)


def _event_of(claim: ClaimedNode) -> str:
    node = claim.node
    if not isinstance(node, Wait):
        raise TypeError(f"{claim.activation.path} is not a wait")
    return node.event


# --- on the way ------------------------------------------------------------------------------------------------------


def write_items(activation: Activation, page: Mapping[str, str], limits: CommitLimits) -> Change:
    """Write some of the items of a foreach, each under an id of its own. The claim goes on.

    No part number: the ids are the same whoever writes them, so a repeat writes what stands there already.
    """
    return Change(LeaseGuard(activation.path, activation.lease_token), values=page, lease=limits.lease)


def flush_events(activation: Activation, number: int, events: Sequence[Doc], limits: CommitLimits) -> Change:
    """Append what a step has streamed. The claim goes on.

    `number` counts the flushes of one claim from 1: one whose answer was lost is sent again, and appended once.
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
    """Compute how long a claim that cannot be run here is put off: the pause doubles from `first_delay` on.

    It follows from how long the activation has waited already, so that nothing has to be counted.
    """
    since = max(activation.started_at, activation.resumed_at) or header.updated_at
    waited = max(0, header.updated_at - since)
    return min(MAX_DEFERRAL, max(first_delay, 2 * waited))


def defer_unrunnable(activation: Activation, reason: str, delay: int) -> Change:
    """Give back a claim that this process cannot run: it has no such workflow, or another graph of it.

    No attempt is counted, and the run is never failed for it: during a rolling deployment the process that can run it
    may just not be there yet.
    """
    # The reason is kept for operators, and tells a later claim that the step has been told to start before.
    fields = {"status": ActivationStatus.RETRYING.value, "parked": reason}
    return Change(
        LeaseGuard(activation.path, activation.lease_token), (UpdateActivation(activation.path, fields, delay=delay),)
    )


def is_claim(activation: Activation, seq: int) -> bool:
    """Check that an activation is still in the claim of this number, before somebody else ends it on its worker's behalf."""
    return activation.status == ActivationStatus.RUNNING and activation.seq == seq


def is_claim_of(activation: Activation, mark: str) -> bool:
    """Tell whether an activation is held by a claim of the delivery with this mark."""
    return bool(mark) and activation.status == ActivationStatus.RUNNING and activation.lease_token.startswith(mark)


def may_fail_claim(activation: Activation, seq: int) -> bool:
    """Decide whether a claim of this number may be ended as failed by somebody else than its worker.

    The settling of a run cannot fail, whatever time limit it ran into: the end of its lease brings it back.
    """
    return is_claim(activation, seq) and activation.path != ""


def release(
    header: RunHeader, activation: Activation, seq: int, limits: CommitLimits, *, is_loss: bool = True
) -> Change | None:
    """Put a claim back in the queue whose process is known to be gone; None where the claim has ended.

    The same as the end of its lease, only at once: the attempt counts as abandoned. Where it `is_loss` no more (the
    worker was told to stop) it does not count: however many deployments a long step meets, it is no poison.
    """
    if not is_claim(activation, seq):
        return None
    # The sweep is guarded by the moment that was read. A heartbeat that comes through proves that the worker lives.
    action = on_deadline(header, activation, limits.redelivery_delay)
    if action is None or is_loss or not header.auto_restart:
        return action.change if action is not None else None
    fields = {"status": ActivationStatus.QUEUED.value, "restarted": True}
    return replace(action.change, ops=(UpdateActivation(activation.path, fields),))
