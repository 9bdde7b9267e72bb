"""The timers of activations: which have one, what follows when its moment comes, and who looks after them.

Outbox, lease, retry, sleep and the time limit of a wait are all one moment of an activation. What follows from it knows no
graph and runs no user code: the sweep may be in the process of another service, which has none of this one's workflows.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.rules.change import Change, Dispatch, Op, Precondition, RequestGuard, UpdateActivation
from orchestrator.rules.flow import time_out_wait
from orchestrator.rules.model import Activation, ActivationFields, ActivationStatus, RunHeader, StoredStatus
from orchestrator.rules.transitions import TABLE, Deadline

# Runs of these runtimes live in the process of their caller, and no worker has to know their workflows. A sweep would
# hand their steps to workers all the same; `restart` alone takes them over.
UNSWEPT_RUNTIMES = frozenset({"local"})
NEVER = 1 << 50  # ms since a sweep that never was

# Runs whose timers may mean something. One that is suspended may wait for an event whose time is limited.
SWEPT = frozenset({StoredStatus.RUNNING.value, StoredStatus.SUSPENDED.value})
_SLOWEST = 3_600_000  # a queued activation is looked at again at least this often


# --- which activations have one ------------------------------------------------------------------------------------------


def is_swept(header: RunHeader) -> bool:
    """Tell whether somebody else than the run's own process looks after its timers."""
    return header.runtime not in UNSWEPT_RUNTIMES


def has_timer(header: RunHeader, activation: Activation) -> bool:
    """Tell whether a store must find this activation when its moment comes."""
    return bool(activation.deadline) and TABLE[activation.status].deadline is not Deadline.NONE and is_swept(header)


def is_timer_live(header: RunHeader, activation: Activation) -> bool:
    """Tell whether a timer still means something. Stores drop the others as they fire.

    A cancel, for one, is a commit of the header alone, and leaves ten thousand timers behind. Only a wait for an event
    outlasts the run's settling. In a closed run nothing but the settling is still to come.
    """
    if header.status == StoredStatus.RUNNING:
        return not header.closed or not activation.path
    return header.status in SWEPT and TABLE[activation.status].deadline is Deadline.TIMEOUT


# --- who sweeps them -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SweepRight:
    """The right to sweep a namespace, as a store keeps it."""

    holder: str = ""
    until: int = 0  # when it may pass to another
    last: int = 0  # when its holder last took or kept it


def take_sweep_right(right: SweepRight, holder: str, lease: int, now: int) -> tuple[int, SweepRight | None]:
    """Take or keep the right to sweep. Return the ms since the last sweep and the right as it is now; 0 and None where
    another holds it.

    The time since the last sweep matters: after a gap every lease is over, also those of workers that are alive, so
    that the first sweep must not take them for lost.
    """
    if right.holder not in ("", holder) and right.until > now:
        return 0, None
    return max(1, now - right.last) if right.last else NEVER, SweepRight(holder, now + lease, now)


# --- what follows from one -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeadlineAction:
    """A guarded change, and what to publish once it is committed beside the dispatches that it brings itself."""

    change: Change
    again: tuple[Dispatch, ...] = ()


def on_deadline(
    header: RunHeader, activation: Activation, redelivery_delay: int, *, short: bool = True
) -> DeadlineAction | None:
    """Decide what follows now that the activation's moment has come; None where nothing does.

    The commit moves the timer on first, guarded by what was read; the word to a worker comes after it. So two sweeps at
    once, one that stalls and one that dies in between are all harmless, and what cannot be published does not stay at
    the head of the queue of timers, where everything behind it would starve.

    `short` says that the activation's queue has been seen short since it was published: only then is its message sent
    again, under the same seq. Otherwise a backlog would make more backlog, and never end.
    """
    if not is_timer_live(header, activation):
        return None
    match activation.status:
        case ActivationStatus.WAITING:
            return DeadlineAction(_guarded(activation, tuple(time_out_wait(activation)), redelivery_delay))
        case ActivationStatus.QUEUED:
            # Its message may be lost, or far back in a long queue. The number stays: a copy does no harm, while a new
            # number would make the message at the head of the queue stale. Each time it takes twice as long.
            waited = max(
                redelivery_delay, header.updated_at - activation.queued_at, activation.deadline - activation.queued_at
            )
            op = UpdateActivation(activation.path, {}, delay=min(_SLOWEST, 2 * waited) if short else redelivery_delay)
            again = (Dispatch(activation.path, activation.seq, activation.route),) if short else ()
            return DeadlineAction(_guarded(activation, (op,), redelivery_delay), again)
        case ActivationStatus.RETRYING | ActivationStatus.SLEEPING:
            return DeadlineAction(
                _guarded(
                    activation,
                    (UpdateActivation(activation.path, {"status": ActivationStatus.QUEUED.value}),),
                    redelivery_delay,
                )
            )
        # Nobody may take it over but `restart`; the timer stays, for the day on which the run is closed.
        case ActivationStatus.RUNNING if not header.auto_restart:
            return DeadlineAction(
                _guarded(activation, (UpdateActivation(activation.path, {}, delay=_SLOWEST),), redelivery_delay)
            )
        # The worker is lost. How many in a row are too many is the executor's to say, when it claims the activation.
        case ActivationStatus.RUNNING:
            fields: ActivationFields = {
                "status": ActivationStatus.QUEUED.value,
                "abandoned_attempts": activation.abandoned_attempts + 1,
                "restarted": True,
            }
            return DeadlineAction(_guarded(activation, (UpdateActivation(activation.path, fields),), redelivery_delay))
        case _:
            return None


def _guarded(activation: Activation, ops: tuple[Op, ...], redelivery_delay: int) -> Change:
    guard = RequestGuard("", SWEPT)  # without an id: it must not push the answer of a caller out, who may repeat it
    return Change(
        guard,
        ops,
        expect=(Precondition(activation.path, activation.status, activation.seq, activation.deadline),),
        redelivery_delay=redelivery_delay,
    )
