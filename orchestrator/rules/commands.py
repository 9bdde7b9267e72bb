"""Requests from outside: start, resume, cancel, restart, travel in time, send an event, and what takes one back.

A command is a pure function of what a caller has read of the run. It returns the `Change` that the store takes or
refuses as a whole, so a caller who read too early changes nothing. Reading, encoding, committing and publishing are the
engine's (`client_ops`, `restart`, `time_travel`); what a worker commits stands in `attempt_commands`.

Every request has an id that never comes back. A store that has lost its answer is asked again under the same id and
gives the first answer, so no request is obeyed twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from orchestrator.rules import flow
from orchestrator.rules.change import (
    Change,
    Committed,
    CreateActivation,
    MailboxUpdate,
    Op,
    Precondition,
    RequestGuard,
    UpdateActivation,
    UpdateRun,
    mailbox_version,
)
from orchestrator.rules.envelope import CommitLimits, StoredTexts
from orchestrator.rules.graph import Graph, Path
from orchestrator.rules.model import (
    FINAL,
    LIVE,
    Activation,
    ActivationStatus,
    Phase,
    RunHeader,
    RunHeaderFields,
    StoredStatus,
    parse_path,
)
from orchestrator.rules.travel import TravelPlan

STARTABLE = frozenset({StoredStatus.PENDING.value})
RESUMABLE = frozenset({StoredStatus.SUSPENDED.value, StoredStatus.PAUSED.value, StoredStatus.RUNNING.value})
UNENDED = frozenset(state.value for state in StoredStatus if state not in FINAL)
_ACTIVE = frozenset({StoredStatus.RUNNING.value})
_IDLE = frozenset(state.value for state in StoredStatus if state is not StoredStatus.RUNNING)


# --- start -----------------------------------------------------------------------------------------------------------


def start(
    graph: Graph,
    header: RunHeader,
    input_id: str,
    request_id: str,
    texts: StoredTexts,
    limits: CommitLimits,
    *,
    delay: int = 0,
) -> Change:
    """Start a pending run with the value `input_id`, `delay` milliseconds from now.

    `header` is as the run is to begin: whose it is, in which namespace, step by step or not.
    """
    plan = flow.start(graph, header, input_id)
    # A run may be created in one process and started in another: what counts is the graph that it was started with.
    fields: RunHeaderFields = {
        "resource_id": header.resource_id,
        "namespace": header.namespace,
        "fingerprint": graph.fingerprint,
    }
    ops: tuple[Op, ...] = (*plan.ops, UpdateRun(fields))
    return Change(
        # Pending alone: of two who start the same run, one is refused.
        RequestGuard(request_id, STARTABLE),
        tuple(_delay_start(op, delay) for op in ops) if delay else ops,
        values=texts.values,
        state=texts.state,
        context=texts.context,
        events=tuple(plan.events),
        lease=limits.lease,
        redelivery_delay=limits.redelivery_delay,
    )


def _delay_start(op: Op, delay: int) -> Op:
    """Let what a start puts in the queue wait for its moment. A sleep begins at that moment.

    The wait is a timer in the store and no delayed message: brokers keep those in memory, or redeliver them too soon.
    """
    match op:
        case CreateActivation(activation=activation) if activation.status == ActivationStatus.QUEUED:
            return replace(op, activation=replace(activation, status=ActivationStatus.RETRYING.value), delay=delay)
        case CreateActivation(activation=activation) if activation.status == ActivationStatus.SLEEPING:
            return replace(op, delay=op.delay + delay)
        case _:
            return op


def undo_start(started: Change, answer: Committed, request_id: str) -> Change:
    """Make the run pending again, because nobody could be told that it had begun.

    A worker may have claimed its first step all the same (a message can arrive although the broker's answer did not).
    Then that step is queued no more, this is refused, and the run has begun.
    """
    return Change(
        _guard_as_left(answer, request_id),
        (UpdateRun({"status": StoredStatus.PENDING.value, "started_at": 0}),),
        expect=_expect_queued(answer),
        drop=tuple(op.activation.path for op in started.ops if isinstance(op, CreateActivation)),
    )


def _guard_as_left(answer: Committed, request_id: str) -> RequestGuard:
    """Guard what takes a request back: the run is as that request has left it, and has settled nothing since."""
    return RequestGuard(
        request_id, _ACTIVE, generation=answer.header.generation, settle_count=answer.header.settle_count
    )


def _expect_queued(answer: Committed) -> tuple[Precondition, ...]:
    return tuple(Precondition(told.path, ActivationStatus.QUEUED.value, told.seq) for told in answer.dispatches)


# --- resume ----------------------------------------------------------------------------------------------------------


def resume(
    header: RunHeader,
    activations: Sequence[Activation],
    data_ids: Mapping[str, str],
    request_id: str,
    texts: StoredTexts,
    limits: CommitLimits,
    *,
    per_step: bool = False,
) -> Change:
    """Let the chosen activations go on. `data_ids` has the value of each suspended one, by its path; paused ones get none.

    All of them or none: where one of several items was resumed by somebody else, the caller has to look again.
    """
    ops: list[Op] = []
    for activation in activations:
        ops += (
            _unpause(activation)
            if activation.status == ActivationStatus.PAUSED
            else flow.resume(activation, data_ids[activation.path])
        )
    return Change(
        # Running is among the states: one step may be suspended while others are at work. The life is guarded, for
        # a time travel may put an activation at the same path again.
        RequestGuard(request_id, RESUMABLE, generation=header.generation),
        (*ops, UpdateRun({"per_step": per_step})),
        # The number tells this suspension from a later one of the same step: of two who saw the same, one wins.
        expect=_expect_unmoved(activations),
        values=texts.values,
        context=texts.context,
        lease=limits.lease,
        redelivery_delay=limits.redelivery_delay,
    )


def _expect_unmoved(activations: Iterable[Activation]) -> tuple[Precondition, ...]:
    return tuple(Precondition(activation.path, activation.status, activation.seq) for activation in activations)


def _unpause(activation: Activation) -> list[Op]:
    """Let an activation go on that a run step by step has held back. It has no data, for it has not run yet."""
    # The run's own activation is opened too: a run that was about to settle as paused goes on instead.
    return [*flow.reopen_run(), UpdateActivation(activation.path, {"status": ActivationStatus.QUEUED.value})]


def undo_resume(
    header: RunHeader,
    activations: Sequence[Activation],
    held: Iterable[Activation],
    answer: Committed,
    request_ids: tuple[str, str],
) -> tuple[Change, ...]:
    """Take a resume back, because nobody could be told of it: by the first of these changes that fits.

    `header`, `records` and `held` are as they were read before the resume. If nothing else can have gone on
    meanwhile, the first makes everything as it was. The second takes back what was resumed alone: others are at work,
    and the run settles anew as whatever has come of them by then.
    """
    # The attempt and the resume data come back too: else the next resume would find a step that had been resumed.
    back: tuple[Op, ...] = tuple(
        UpdateActivation(
            activation.path,
            {
                "status": activation.status,
                "resume": activation.resume,
                "resumed": activation.resumed,
                "attempt": activation.attempt,
            },
        )
        for activation in activations
    )
    first_id, second_id = request_ids
    alone = Change(_guard_as_left(answer, second_id), back, expect=_expect_queued(answer))
    if answer.header.live > len(activations):
        return (alone,)
    # Others that were held must be so still, or the run's former status would hide what somebody made of them.
    others = _expect_unmoved(activation for activation in held if activation not in activations)
    whole = replace(
        alone,
        guard=_guard_as_left(answer, first_id),
        ops=(*back, UpdateRun({"status": header.status})),
        expect=(*alone.expect, *others),
    )
    return whole, alone


# --- cancel, restart, travel -----------------------------------------------------------------------------------------


def cancel(header: RunHeader, request_id: str, *, has_begun: bool) -> Change:
    """End a run as canceled. `has_begun` says that its own activation has been seen, so that it has one to settle.

    Only the run's header is written. Whatever is unfinished under an ended run reads as canceled: a run of ten
    thousand items is canceled as fast as one of two.
    """
    number = header.settle_count + 1
    ended: RunHeaderFields = {
        "status": StoredStatus.CANCELED.value,
        "outcome": StoredStatus.CANCELED.value,
        "closed": True,
        "error": "",
        "settle_count": number,
    }
    # The settling that somebody may be busy with is taken away: the run has been settled by this change.
    taken = (
        (UpdateActivation("", {"status": ActivationStatus.OPEN.value, "phase": Phase.SETTLE.value}),)
        if has_begun
        else ()
    )
    return Change(
        # A start may come between reading and canceling, or be taken back: either way the caller has to look again.
        # The count of rests is guarded, for its next number is what those who wait for the end know it by.
        RequestGuard(request_id, RESUMABLE if has_begun else STARTABLE, settle_count=header.settle_count),
        (*taken, UpdateRun(ended)),
        events=tuple(flow.settled_events(StoredStatus.CANCELED, number)),
    )


def select_unfinished(header: RunHeader, activations: Iterable[Activation]) -> list[Activation]:
    """Choose the records that a restart lets begin again: the live ones."""
    live = [activation for activation in activations if activation.status in LIVE]
    # A run that `bail` or `abort` has closed has nothing left but to settle.
    return [activation for activation in live if not (header.closed and activation.path)]


def restart(
    header: RunHeader, activations: Iterable[Activation], now: int, request_id: str, limits: CommitLimits
) -> Change:
    """Let whatever a run was doing begin again, its claims taken away. Timers fire when they are due, and no earlier.

    The caller vouches that the workers are dead. Where one lives after all, its token is void: its commit is refused.
    """
    unfinished = select_unfinished(header, activations)
    return Change(
        RequestGuard(request_id, _ACTIVE, generation=header.generation, settle_count=header.settle_count),
        tuple(_restart_record(activation, now) for activation in unfinished),
        # Any step that moved since proves that somebody lives, or was first with the same request.
        expect=_expect_unmoved(unfinished),
        lease=limits.lease,
        redelivery_delay=limits.redelivery_delay,
    )


def _restart_record(activation: Activation, now: int) -> UpdateActivation:
    # A delayed start waits as a retry without an attempt; what is parked waits so too, and is to be tried at once.
    is_delayed_start = activation.status == ActivationStatus.RETRYING and not (activation.attempt or activation.parked)
    if is_delayed_start or activation.status == ActivationStatus.SLEEPING:
        return UpdateActivation(activation.path, {"status": activation.status}, delay=max(0, activation.deadline - now))
    was_claimed = activation.status == ActivationStatus.RUNNING
    return UpdateActivation(
        activation.path, {"status": ActivationStatus.QUEUED.value, "restarted": activation.restarted or was_claimed}
    )


def time_travel(
    header: RunHeader,
    journey: TravelPlan,
    stored: Iterable[Activation],
    present: Iterable[Path],
    request_id: str,
    texts: StoredTexts,
    limits: CommitLimits,
) -> Change:
    """Let a run that nobody works on go on from one of its steps, in a new life.

    `stored` are all its activations. Those at none of the `present` paths are left over from iterations that are past:
    they go away with what stands behind the target, or they would be found where the new life comes again.
    """
    here = set(present)
    left_over = {activation.path for activation in stored if activation.at not in here}
    return Change(
        # The plan was made of all that was read, and guards no activation: the counts of lives and rests say that the
        # run has not gone on since.
        RequestGuard(request_id, _IDLE, generation=header.generation, settle_count=header.settle_count),
        tuple(journey.plan.ops),
        values={**journey.plan.values, **texts.values},
        state=texts.state,
        context=texts.context,
        events=tuple(journey.plan.events),
        drop=tuple(sorted({*journey.drop, *left_over})),
        lease=limits.lease,
        redelivery_delay=limits.redelivery_delay,
    )


# --- events ----------------------------------------------------------------------------------------------------------


def find_first_waiter(entries: Iterable[str]) -> str:
    """Find the entry of whoever waits first, in the order of the paths; the empty text where nobody waits.

    Paths are compared as numbers: item 2 comes before item 10.
    """
    waiters = (entry for entry in entries if entry.startswith(flow.WAITER))
    return min(waiters, key=lambda entry: parse_path(flow.waiter_path(entry)), default="")


def send_event(
    name: str,
    entries: Sequence[str],
    waiting: Activation | None,
    value_id: str,
    request_id: str,
    texts: StoredTexts,
    limits: CommitLimits,
) -> Change:
    """Give an event to the first that waits for it; without one, keep it in the mailbox for the next.

    `entries` is the mailbox as it was read, and `waiting` the activation at the path of its first waiter. A waiter that
    has given up is only cleared away. Such a change writes no values, and its caller reads again.
    """
    guard = RequestGuard(request_id, UNENDED)
    first = find_first_waiter(entries)
    # Sender and listener may come at the same moment. Each commits only if the mailbox has the mark that it has read,
    # so that one of them sees what the other did. A length would not do: a waiter that went and an event that came
    # leave it as it was.
    read = mailbox_version(entries)
    if not first:
        kept = MailboxUpdate(name, read, push=value_id)
        return Change(guard, values=texts.values, mailbox=kept, redelivery_delay=limits.redelivery_delay)
    taken = MailboxUpdate(name, read, pop=first)
    # The entry has the token of the claim that began to wait: a later wait at the same path is another waiter.
    if waiting is None or waiting.status != ActivationStatus.WAITING or waiting.waiter != first:
        return Change(guard, mailbox=taken)
    return Change(
        guard,
        tuple(flow.deliver_event(waiting, value_id)),
        expect=_expect_unmoved([waiting]),
        values=texts.values,
        mailbox=taken,
        redelivery_delay=limits.redelivery_delay,
    )
