"""The timers of activations: which activations have one, what follows from a deadline, and the right to sweep.

Outbox, lease, retry, sleep and the timeout of a wait are all one deadline of an activation. What follows from it needs
no graph and runs no user code: the sweep may run in a process of another service, which has none of these workflows.
This module must not know how a store finds what is due.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.rules.change import Change, Dispatch, Op, Precondition, RequestGuard, UpdateActivation
from orchestrator.rules.flow import time_out_wait
from orchestrator.rules.model import Activation, ActivationFields, ActivationStatus, RunHeader, StoredStatus
from orchestrator.rules.transitions import TABLE, Deadline

# Runs of these runtimes live in the process of their caller, and no worker needs to know their workflows. A sweep would
# hand their steps to workers all the same. Only `restart` takes them over.
UNSWEPT_RUNTIMES = frozenset({"local"})
NEVER = 1 << 50  # milliseconds since the last sweep, where there was none

# Runs whose timers may mean something. A suspended run may have a wait with a timeout.
SWEPT = frozenset({StoredStatus.RUNNING.value, StoredStatus.SUSPENDED.value})
_SLOWEST = 3_600_000  # milliseconds; a queued activation is looked at again at least this often


# --- which activations have one --------------------------------------------------------------------------------------


def is_swept(header: RunHeader) -> bool:
    """Tell whether the schedulers of workers look after the timers of this run."""
    return header.runtime not in UNSWEPT_RUNTIMES


def has_timer(header: RunHeader, activation: Activation) -> bool:
    """Tell whether a store must find this activation when its deadline comes."""
    return bool(activation.deadline) and TABLE[activation.status].deadline is not Deadline.NONE and is_swept(header)


def is_timer_live(header: RunHeader, activation: Activation) -> bool:
    """Tell whether a timer still means something. Stores drop the others when they fire.

    A cancel, for one, is a commit of the run header alone, and may leave ten thousand timers behind. Only a wait for an
    event outlasts the settling of its run. In a closed run nothing but the settling is still to come.
    """
    if header.status == StoredStatus.RUNNING:
        return not header.closed or not activation.path
    return header.status in SWEPT and TABLE[activation.status].deadline is Deadline.TIMEOUT


# --- the right to sweep them -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SweepRight:
    """The right to sweep a namespace, as a store keeps it."""

    holder: str = ""  # the scheduler that has it
    until: int = 0  # moment from which on another scheduler may take it
    last: int = 0  # moment of the last sweep: when it was last taken or kept


def take_sweep_right(right: SweepRight, holder: str, lease: int, now: int) -> tuple[int, SweepRight | None]:
    """Take or keep the right to sweep. Return the milliseconds since the last sweep, and the right as it is now.

    Where another scheduler has the right, return 0 and None. The time since the last sweep matters, because after a gap
    every lease is over, also those of workers that are alive: the first sweep must not call their attempts abandoned.
    """
    if right.holder not in ("", holder) and right.until > now:
        return 0, None
    return max(1, now - right.last) if right.last else NEVER, SweepRight(holder, now + lease, now)


# --- what follows from a deadline -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeadlineAction:
    """A guarded change, and the dispatches that are published again after it, beside those of its commit."""

    change: Change
    again: tuple[Dispatch, ...] = ()


def on_deadline(
    header: RunHeader, activation: Activation, redelivery_delay: int, *, short: bool = True
) -> DeadlineAction | None:
    """Decide what follows now that the deadline of an activation has come; None where nothing does.

    The commit moves the timer first, guarded by what was read, and the message comes after it. So two sweeps at once, a
    sweep that stalls and a sweep that dies are all harmless. What cannot be published does not stay at the head of the
    timers, where everything behind it would starve.

    `short` says that the activation's queue has been seen short since its message was sent. Only then is the message
    sent again, under the same seq. Otherwise a backlog would add to itself and never end.
    """
    if not is_timer_live(header, activation):
        return None
    match activation.status:
        case ActivationStatus.WAITING:
            return DeadlineAction(_upkeep_change(activation, tuple(time_out_wait(activation)), redelivery_delay))
        case ActivationStatus.QUEUED:
            # Its message may be lost, or far back in a long queue. The number stays: a copy is harmless, while a new
            # number would make the message at the head of the queue stale. The pause doubles each time, because a
            # copy costs a claim, and an overload must be able to drain.
            waited = max(
                redelivery_delay, header.updated_at - activation.queued_at, activation.deadline - activation.queued_at
            )
            op = UpdateActivation(activation.path, {}, delay=min(_SLOWEST, 2 * waited) if short else redelivery_delay)
            again = (Dispatch(activation.path, activation.seq, activation.route),) if short else ()
            return DeadlineAction(_upkeep_change(activation, (op,), redelivery_delay), again)
        case ActivationStatus.RETRYING | ActivationStatus.SLEEPING:
            return DeadlineAction(
                _upkeep_change(
                    activation,
                    (UpdateActivation(activation.path, {"status": ActivationStatus.QUEUED.value}),),
                    redelivery_delay,
                )
            )
        # Only `restart` may take it over. The timer stays, for the day on which the run is closed.
        case ActivationStatus.RUNNING if not header.auto_restart:
            return DeadlineAction(
                _upkeep_change(activation, (UpdateActivation(activation.path, {}, delay=_SLOWEST),), redelivery_delay)
            )
        # The attempt is abandoned. The executor says how many in a row are too many, when it claims the activation
        # (`attempt_commands.must_give_up`): ending a step needs its graph.
        case ActivationStatus.RUNNING:
            fields: ActivationFields = {
                "status": ActivationStatus.QUEUED.value,
                "abandoned_attempts": activation.abandoned_attempts + 1,
                "restarted": True,
            }
            return DeadlineAction(
                _upkeep_change(activation, (UpdateActivation(activation.path, fields),), redelivery_delay)
            )
        case _:
            return None


def _upkeep_change(activation: Activation, ops: tuple[Op, ...], redelivery_delay: int) -> Change:
    # Without an id: upkeep must not push out the remembered answer to a caller, who may still repeat a request.
    guard = RequestGuard("", SWEPT)
    return Change(
        guard,
        ops,
        expect=(Precondition(activation.path, activation.status, activation.seq, activation.deadline),),
        redelivery_delay=redelivery_delay,
    )
