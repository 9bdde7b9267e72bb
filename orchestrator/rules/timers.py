"""The timers of activations: which have one, what follows when its moment comes, and who looks after them.

Outbox, lease, retry, sleep and the time limit of a wait are all one moment of an activation. What follows from it knows no
graph and runs no user code: the sweep may be in the process of another service, which has none of this one's workflows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.rules.change import Change, Dispatch, Op, Precondition, RequestGuard, UpdateActivation
from orchestrator.rules.flow import time_out_wait
from orchestrator.rules.model import Activation, ActivationStatus, RunHeader, StoredStatus
from orchestrator.rules.transitions import TABLE, Deadline

# Runs of these runtimes live in the process of their caller, and no worker has to know their workflows. A sweep would
# hand their steps to workers all the same; `restart` alone takes them over.
UNSWEPT_RUNTIMES = frozenset({"local"})
NEVER = 1 << 50  # ms since a sweep that never was

# Runs whose timers may mean something. One that is suspended may wait for an event whose time is limited.
SWEPT = frozenset({StoredStatus.RUNNING.value, StoredStatus.SUSPENDED.value})
_SLOWEST = 3_600_000  # a queued activation is looked at again at least this often
_MOST_DOUBLINGS = 3  # of the pause before another look at a message in a long queue, which may be lost all the same
LANE = 200_000_000_000_000  # ms; the width of a lane in an index of timers, wider than every moment that can be stored


class Lane(StrEnum):
    """One of the kinds of timers, which are swept apart and in this order, so that none waits behind another kind."""

    MOMENTS = "moments"  # sleeps, retries and the time limits of waits
    LEASES = "leases"  # workers that may be lost
    OUTBOX = "outbox"  # messages that may be lost

    @property
    def offset(self) -> int:
        """What a store adds to a deadline for its place in the index of timers: one index has both lanes."""
        return LANE * list(Lane).index(self)


_LANES = {Deadline.LEASE: Lane.LEASES, Deadline.REDELIVERY: Lane.OUTBOX}
LANE_OF = {deadline: _LANES.get(deadline, Lane.MOMENTS) for deadline in Deadline}


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


def lane_of(activation: Activation) -> Lane:
    """The lane in which the timer of this activation is swept."""
    return LANE_OF[TABLE[activation.status].deadline]


def place_of(activation: Activation) -> int:
    """The place of an activation's timer in a store's index."""
    return lane_of(activation).offset + activation.deadline


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
            # number would make the message at the head of the queue stale.
            if not short and activation.sends:
                return DeadlineAction(
                    _guarded(activation, (_look_later(activation, redelivery_delay),), redelivery_delay)
                )
            again = (Dispatch(activation.path, activation.seq, activation.route),)
            return DeadlineAction(
                _guarded(activation, (_send_again(activation, redelivery_delay),), redelivery_delay), again
            )
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
            fields = {
                "status": ActivationStatus.QUEUED.value,
                "abandoned_attempts": activation.abandoned_attempts + 1,
                "restarted": True,
            }
            return DeadlineAction(_guarded(activation, (UpdateActivation(activation.path, fields),), redelivery_delay))
        case _:
            return None


def _send_again(activation: Activation, redelivery_delay: int) -> UpdateActivation:
    """Count one more message. With each the pause until the next doubles, however old the activation is."""
    sends = max(0, activation.sends) + 1
    delay = max(redelivery_delay, min(_SLOWEST, redelivery_delay << min(sends - 1, 30)))
    return UpdateActivation(activation.path, {"sends": sends, "looks": 0}, delay=delay)


def _look_later(activation: Activation, redelivery_delay: int) -> UpdateActivation:
    """Leave the message in its long queue. A backlog is looked through ever more rarely, up to a limit."""
    delay = redelivery_delay << min(activation.looks, _MOST_DOUBLINGS)
    return UpdateActivation(activation.path, {"looks": activation.looks + 1}, delay=delay)


def on_unsent(dispatches: Sequence[Dispatch], delay: int, *, sends: Mapping[str, int] | None = None) -> Change:
    """Note that nobody could be told of these queued activations: their timers come after `delay`, as if untried.

    `sends` says how many messages had been sent before, by path; else there was none, so that a long queue is no reason
    to wait: no message is in it. What has been claimed meanwhile refuses the change: it was told after all.
    """
    known = sends or {}
    ops = tuple(
        UpdateActivation(dispatch.path, {"sends": known.get(dispatch.path, 0)}, delay=max(1, delay))
        for dispatch in dispatches
    )
    expect = tuple(Precondition(dispatch.path, ActivationStatus.QUEUED.value, dispatch.seq) for dispatch in dispatches)
    return Change(RequestGuard("", SWEPT), ops, expect=expect)


def _guarded(activation: Activation, ops: tuple[Op, ...], redelivery_delay: int) -> Change:
    guard = RequestGuard("", SWEPT)  # without an id: it must not push the answer of a caller out, who may repeat it
    return Change(
        guard,
        ops,
        expect=(Precondition(activation.path, activation.status, activation.seq, activation.deadline),),
        redelivery_delay=redelivery_delay,
    )
