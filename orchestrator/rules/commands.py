"""The changes of callers: start, resume, cancel, restart, time travel, an event.

A command is a pure function of what a caller has read of the run. It returns the `Change` that the store takes or
refuses as a whole, so a caller who has read too early changes nothing. This module must not know how a run is read, or
how a message is sent: reading, encoding, committing and publishing are the engine's (`client_ops`, `restart`,
`time_travel`). `undoing` has the undo of a start or resume, `ownership` to whom a run belongs after a change. The
changes of workers are in `attempt_commands`.

Every request has an id that is used once. If the answer of the store is lost, the engine asks again under the same id
and gets the first answer. So no request takes effect twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from orchestrator.rules import flow, reports, sendings
from orchestrator.rules.change import (
    Change,
    CreateActivation,
    Op,
    Precondition,
    RequestGuard,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.envelope import CommitLimits, StoredTexts
from orchestrator.rules.graph import Graph, Path
from orchestrator.rules.mailbox import MailboxUpdate, is_waiter
from orchestrator.rules.model import (
    FINAL,
    LIVE,
    Activation,
    ActivationFields,
    ActivationStatus,
    Phase,
    RunHeader,
    RunHeaderFields,
    StoredStatus,
    is_report,
)
from orchestrator.rules.travel import TravelPlan

# The statuses of a run in which each request makes sense. A store refuses it in any other.
STARTABLE = frozenset({StoredStatus.PENDING.value})
RESUMABLE = frozenset({StoredStatus.SUSPENDED.value, StoredStatus.PAUSED.value, StoredStatus.RUNNING.value})
UNENDED = frozenset(status.value for status in StoredStatus if status not in FINAL)
ACTIVE = frozenset({StoredStatus.RUNNING.value})
_ENDED = frozenset(FINAL)
_IDLE = frozenset(status.value for status in StoredStatus if status is not StoredStatus.RUNNING)
_LIMITS = CommitLimits()


# --- start -----------------------------------------------------------------------------------------------------------


def note_abandoned_start(header: RunHeader, request_id: str) -> Change:
    """Count a process that was lost while it started the run: the run is pending still, and its message has come again.

    Nothing but the count is written. It is refused where anything has happened to the run since it was read.
    """
    guard = RequestGuard(request_id, STARTABLE, commits=header.commits)
    return Change(guard, (UpdateRun({"abandoned_starts": header.abandoned_starts + 1}),))


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

    `header` is as the run is to begin: its owner, its runtime and namespace, by single steps or not.
    """
    plan = flow.start(graph, header, input_id)
    # A run may be created in one process and started in another. The graph that it was started with counts.
    fields: RunHeaderFields = {
        "resource_id": header.resource_id,
        "namespace": header.namespace,
        "runtime": header.runtime,
        "fingerprint": graph.fingerprint,
    }
    if header.hooks:
        fields["hooks"] = header.hooks
    ops: tuple[Op, ...] = (*plan.ops, UpdateRun(fields))
    return Change(
        # Only a pending run: of two callers who start the same run, one is refused.
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
    """Let what a start puts into the queue wait for its moment. A sleep begins at that moment.

    The delay is a timer in the store and no delayed message: brokers keep those in memory, or redeliver them too soon.
    """
    match op:
        case CreateActivation(activation=activation) if activation.status == ActivationStatus.QUEUED:
            return replace(op, activation=replace(activation, status=ActivationStatus.RETRYING.value), delay=delay)
        case CreateActivation(activation=activation) if activation.status == ActivationStatus.SLEEPING:
            return replace(op, delay=op.delay + delay)
        case _:
            return op


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
    """Let the chosen activations go on: all of them, or none.

    `data_ids` has the value of each suspended one, by path; paused ones get no data. If another caller has resumed one
    of several items, this caller must look again.
    """
    ops: list[Op] = []
    for activation in activations:
        ops += (
            _unpause(activation)
            if activation.status == ActivationStatus.PAUSED
            else flow.resume(activation, data_ids[activation.path])
        )
    return Change(
        # Running is among the statuses: one step may be suspended while others are at work. The generation is guarded,
        # because a time travel may create an activation at the same path.
        RequestGuard(request_id, RESUMABLE, generation=header.generation),
        (*ops, UpdateRun({"per_step": per_step})),
        # The seq tells this suspension from a later one of the same step. Of two callers who saw the same, one wins.
        expect=expect_unmoved(activations),
        values=texts.values,
        context=texts.context,
        lease=limits.lease,
        redelivery_delay=limits.redelivery_delay,
    )


def expect_unmoved(activations: Iterable[Activation]) -> tuple[Precondition, ...]:
    """Expect that these activations are as they were read. The number tells a suspension from a later one."""
    return tuple(Precondition(activation.path, activation.status, activation.seq) for activation in activations)


def _unpause(activation: Activation) -> list[Op]:
    """Let a paused activation go on. It has no data, because it has not run yet."""
    # The run's own activation is opened too, so a run that was about to settle as paused goes on instead.
    return [*flow.reopen_run(), UpdateActivation(activation.path, {"status": ActivationStatus.QUEUED.value})]


# --- cancel, restart, travel -----------------------------------------------------------------------------------------


def cancel(
    header: RunHeader,
    request_id: str,
    *,
    has_begun: bool,
    told: reports.Told = reports.NOBODY,
    route: str = "",
    token: str = "",
    limits: CommitLimits = _LIMITS,
) -> Change:
    """End a run as canceled, and begin to report it: the first report is claimed under `token`, if it is ours.

    Of the run itself only the header is written. Whatever is unfinished in an ended run reads as canceled, so a run of
    ten thousand items is canceled as fast as a run of two. `has_begun` says that the run's own activation has been
    read, with its `route`: then there may be a settling to take away. By the end of a run that had not begun nothing
    has finished, so its hooks are not called.
    """
    number = header.settle_count + 1
    ended: RunHeaderFields = {
        "status": StoredStatus.CANCELED.value,
        "outcome": StoredStatus.CANCELED.value,
        "closed": True,
        "error": "",
        "settle_count": number,
    }
    # A settling that a worker may be busy with is taken away, because this change settles the run.
    taken = (
        (UpdateActivation("", {"status": ActivationStatus.OPEN.value, "phase": Phase.SETTLE.value}),)
        if has_begun
        else ()
    )
    return Change(
        # A start or its undoing may come between reading and canceling. In either case the caller must look again. The
        # settle count is guarded, because those who wait for the end recognize it by its next number.
        RequestGuard(request_id, RESUMABLE if has_begun else STARTABLE, settle_count=header.settle_count),
        (
            *taken,
            UpdateRun(ended),
            *reports.begin(
                number,
                StoredStatus.CANCELED,
                told if header.started_at else replace(told, hooks=()),
                route,
                token,
            ),
        ),
        events=tuple(flow.settled_events(StoredStatus.CANCELED, number)),
        lease=limits.lease,
        redelivery_delay=limits.redelivery_delay,
    )


def select_unfinished(header: RunHeader, activations: Iterable[Activation]) -> list[Activation]:
    """Select the activations that a restart lets begin again: the live ones. Of a run that has ended, its reports."""
    live = [activation for activation in activations if activation.status in LIVE]
    # In a run that `bail` or `abort` has closed, only the settling is left.
    is_over = header.closed or header.final
    return [activation for activation in live if not is_over or is_report(activation.path) or not activation.path]


def restart(
    header: RunHeader, activations: Iterable[Activation], now: int, request_id: str, limits: CommitLimits
) -> Change:
    """Let whatever a run was doing begin again, and void its claims. Timers keep their moments.

    The caller vouches that the workers are dead. If one is alive after all, its commit is refused, because its lease
    token is void.
    """
    unfinished = select_unfinished(header, activations)
    return Change(
        RequestGuard(
            request_id,
            _ENDED if header.final else ACTIVE,
            generation=header.generation,
            settle_count=header.settle_count,
        ),
        tuple(_restart_activation(activation, now) for activation in unfinished),
        # A step that has moved since proves that a worker is alive, or that another caller restarted the run first.
        expect=expect_unmoved(unfinished),
        lease=limits.lease,
        redelivery_delay=limits.redelivery_delay,
    )


def _restart_activation(activation: Activation, now: int) -> UpdateActivation:
    # A delayed start waits as a retry without an attempt. What is parked waits in the same way, but is tried at once.
    is_delayed_start = activation.status == ActivationStatus.RETRYING and not (activation.attempt or activation.parked)
    if is_delayed_start or activation.status == ActivationStatus.SLEEPING:
        return UpdateActivation(activation.path, {"status": activation.status}, delay=max(0, activation.deadline - now))
    # Users see `restarted` on a step whose function may have run in part: so it is set for what was claimed only.
    was_claimed = activation.status == ActivationStatus.RUNNING
    fields: ActivationFields = {
        "status": ActivationStatus.QUEUED.value,
        "restarted": activation.restarted or was_claimed,
        **sendings.begin_anew(activation, forget=True),
    }
    return UpdateActivation(activation.path, fields)


def time_travel(
    header: RunHeader,
    travel_plan: TravelPlan,
    stored: Iterable[Activation],
    present: Iterable[Path],
    request_id: str,
    texts: StoredTexts,
    limits: CommitLimits,
) -> Change:
    """Let a run on which no worker is busy go on from one of its steps, in a new generation.

    `stored` are all its activations. Those at none of the `present` paths are left over from earlier iterations. They
    are deleted together with what is behind the target; otherwise the new generation would find them when it comes
    there.
    """
    here = set(present)
    left_over = {activation.path for activation in stored if activation.at not in here}
    return Change(
        # The plan is made of everything that was read, and guards no single activation. Generation and settle count
        # prove that the run has not gone on since.
        RequestGuard(request_id, _IDLE, generation=header.generation, settle_count=header.settle_count),
        tuple(travel_plan.plan.ops),
        values={**travel_plan.plan.values, **texts.values},
        state=texts.state,
        context=texts.context,
        events=tuple(travel_plan.plan.events),
        drop=tuple(sorted({*travel_plan.drop, *left_over})),
        lease=limits.lease,
        redelivery_delay=limits.redelivery_delay,
    )


# --- events ----------------------------------------------------------------------------------------------------------


def send_event(
    name: str,
    first: str,
    waiting: Activation | None,
    value_id: str,
    request_id: str,
    texts: StoredTexts,
    limits: CommitLimits,
    *,
    is_scoped: bool = False,
) -> Change:
    """Give an event to the first waiter; without one, keep it in the mailbox for the next.

    `first` is the first entry of the mailbox as it was read, and `waiting` the activation at the path of that waiter.
    An entry whose wait is over is only removed. Such a change writes no values, and the caller reads again. Where it
    `is_scoped`, `first` is the first waiter of a nested workflow, wherever it stands in the mailbox.
    """
    guard = RequestGuard(request_id, UNENDED)
    if not is_waiter(first):
        # Refused where a step has begun to wait meanwhile. Other events that have come are no obstacle.
        size = len(texts.values[value_id].encode())
        kept = MailboxUpdate(
            name, push=value_id, size=size, max_events=limits.max_mailbox_events, max_bytes=limits.max_mailbox_bytes
        )
        return Change(guard, values=texts.values, mailbox=kept, redelivery_delay=limits.redelivery_delay)
    taken = MailboxUpdate(name, pop=first, anywhere=is_scoped)
    # The entry has the lease token of the claim that began to wait, so a later wait at the same path is another waiter.
    if waiting is None or waiting.status != ActivationStatus.WAITING or waiting.waiter != first:
        return Change(guard, mailbox=taken)
    return Change(
        guard,
        tuple(flow.deliver_event(waiting, value_id)),
        expect=expect_unmoved([waiting]),
        values=texts.values,
        mailbox=taken,
        redelivery_delay=limits.redelivery_delay,
    )


# --- delete ----------------------------------------------------------------------------------------------------------


def may_delete(header: RunHeader, states: Collection[str] | None, created_at: int | None, before: int | None) -> bool:
    """Tell whether a run may be removed: its status is one of `states`, it is the one that was created at `created_at`,
    and it was last written before `before`; None allows everything.

    A deletion may come late, or a second time because its answer was lost. By then the id may be another run's, or the
    run may have gone on.
    """
    return (
        (states is None or header.status in states)
        and created_at in (None, header.created_at)
        and (before is None or header.updated_at < before)
    )
