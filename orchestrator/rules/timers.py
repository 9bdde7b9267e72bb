"""The timers of activations: which activations have one, what follows from a deadline, and the right to sweep.

Outbox, lease, retry, sleep and the timeout of a wait are all one deadline of an activation. What follows from it needs
no graph and runs no user code: the sweep may run in a process of another service, which has none of these workflows.
This module must not know how a store finds what is due.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from orchestrator.rules import sendings
from orchestrator.rules.change import (
    Change,
    Committed,
    Dispatch,
    Op,
    Precondition,
    RequestGuard,
    UpdateActivation,
)
from orchestrator.rules.flow import time_out_wait
from orchestrator.rules.model import (
    UNSWEPT_RUNTIMES,
    Activation,
    ActivationFields,
    ActivationStatus,
    RunHeader,
    StoredStatus,
    is_report,
)
from orchestrator.rules.stamps import dispatch_of
from orchestrator.rules.transitions import TABLE, Deadline

# Runs whose timers may mean something. A suspended run may have a wait with a timeout.
SWEPT = frozenset({StoredStatus.RUNNING.value, StoredStatus.SUSPENDED.value})
_ANY = frozenset(status.value for status in StoredStatus)  # reports outlast every settling
_SLOWEST = 3_600_000  # milliseconds; a queued activation is looked at again at least this often
_MOST_DOUBLINGS = 3  # of the pause before another look at a message in a long queue, which may be lost all the same
LANE = 200_000_000_000_000  # ms; the width of a lane in an index of timers, wider than every moment that can be stored


class Lane(StrEnum):
    """One of the kinds of timers, which are swept apart and in this order, so that none waits behind another kind."""

    MOMENTS = "moments"  # sleeps, retries and the time limits of waits
    LEASES = "leases"  # workers that may be lost
    OUTBOX = "outbox"  # messages that may be lost

    @property
    def offset(self) -> int:
        """The number that a store adds to a deadline for its place in the index of timers: one index has all lanes."""
        return LANE * list(Lane).index(self)


_LANES = {Deadline.LEASE: Lane.LEASES, Deadline.REDELIVERY: Lane.OUTBOX, Deadline.LOOK: Lane.OUTBOX}
LANE_OF = {deadline: _LANES.get(deadline, Lane.MOMENTS) for deadline in Deadline}
_OFFSETS = {lane: lane.offset for lane in Lane}


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
    event outlasts the settling of its run. In a closed run nothing but the settling is still to come. A report tells of
    a settling that is recorded already.
    """
    if is_report(activation.path):
        return True
    if header.status == StoredStatus.RUNNING:
        return not header.closed or not activation.path
    return header.status in SWEPT and TABLE[activation.status].deadline is Deadline.TIMEOUT


def lane_of(activation: Activation) -> Lane:
    """Return the lane in which the timer of this activation is swept."""
    return LANE_OF[TABLE[activation.status].deadline]


def place_of(activation: Activation) -> int:
    """Return the place of an activation's timer in a store's index."""
    return _OFFSETS[lane_of(activation)] + activation.deadline


def is_due(activation: Activation, now: int) -> bool:
    """Tell whether the activation's moment has come, as it stands there now.

    Where a store finds the timer first and reads its activation after that, a worker may have claimed it in between:
    then its moment is the end of a lease that has just begun, and a sweep would take the claim from a live worker.
    """
    return 0 < activation.deadline <= now


def is_stranded(header: RunHeader, activation: Activation, now: int) -> bool:
    """Tell whether the end of the lease was written by a clock that has gone back since.

    No lease ends farther off than its own length; a whole length more is allowed for, so that no small step matters.
    """
    is_leased = activation.status == ActivationStatus.RUNNING and activation.lease > 0 and header.auto_restart
    return is_leased and is_timer_live(header, activation) and activation.deadline - now > 2 * activation.lease


# --- the right to sweep them -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SweepRight:
    """The right to sweep a namespace, as a store keeps it."""

    holder: str = ""
    until: int = 0  # when it may pass to another
    last: int = 0  # when anybody last asked for it, as far as that is noted
    # Since when they have asked without a pause: no lease counts as over before its own length after that.
    steady_since: int = 0
    ahead: int = 0  # what the clock had shown when it went back; 0 once it has come there again


@dataclass(frozen=True, slots=True)
class SweepGrant:
    """The times that the holder of the right must know."""

    steady: int = 0  # ms for which somebody has looked without a pause
    ahead: int = 0  # ms by which moments that were written before the clock went back are still ahead


def take_sweep_right(
    right: SweepRight, holder: str, lease: int, pause: int, now: int
) -> tuple[SweepGrant | None, SweepRight | None]:
    """Take or keep the right to sweep for `lease` ms. Return what its holder has to know (None where another holds it)
    and the right as it is to be written (None where it may stay as it is).

    A store that was away lets every lease run out, also those of workers that live. So it is noted when somebody asks
    after more than `pause` ms in which nobody has; `may_take_claim` goes by it. It stands in the store and not in the
    process that has seen it, for another may sweep next, and an answer may get lost: whoever asks again finds it noted.
    A clock that jumps looks like a pause, whichever way it goes, and after one that went back no moment before is to be
    trusted: neither the end of the right nor those of leases.
    """
    off = abs(now - right.last)
    is_steady = bool(right.last) and off <= pause
    went_back = right.last - now > pause
    ahead = max(right.ahead, right.last) if went_back else right.ahead
    seen = replace(
        right, last=now, steady_since=right.steady_since if is_steady else now, ahead=ahead if ahead > now else 0
    )
    if right.holder not in ("", holder) and right.last <= now < right.until:
        # The others only look whether it is free. That they do shows all the same that the store was there. It is
        # written where the holder has gone silent, and not each time: they are many.
        return None, seen if off > pause // 2 else None
    taken = replace(seen, holder=holder, until=now + lease)
    return SweepGrant(max(0, now - taken.steady_since), max(0, taken.ahead - now)), taken


def may_take_claim(activation: Activation, steady: int, lease: int) -> bool:
    """Tell whether a claim whose lease is over may be taken from its holder: only one that could have been renewed.

    `steady` is for how long the store has been there without a pause; a live worker renews within the length of a
    lease. `lease` is that of claims that do not say how long theirs is.
    """
    return steady >= (activation.lease or lease)


# --- what a repeated commit could not tell ---------------------------------------------------------------------------


def find_left_out(answer: Committed, activations: Iterable[Activation], now: int) -> tuple[Dispatch, ...]:
    """The dispatches that the answer to a repeat leaves out, found in the run's activations.

    Those that one commit has put in the queue have its number. Where no sweep looks after them, nobody else would ever
    be told of them.
    """
    known = {dispatch.path for dispatch in answer.dispatches}
    number = answer.dispatches[0].seq
    others = (activation for activation in activations if activation.seq == number and activation.path not in known)
    found = (dispatch_of(activation, max(0, activation.deadline - now)) for activation in others)
    return tuple(dispatch for dispatch in found if dispatch is not None)


# --- what follows from a deadline -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class QueueState:
    """The queue that the message of an activation goes to, as far as it is known."""

    # at most a few messages wait in it
    is_short: bool = True
    # The latest moment of which it was seen that all that waited then has been taken out since, as ms ago. None where
    # that was not seen of any.
    worked_off: int | None = None


SHORT, LONG = QueueState(), QueueState(is_short=False)


@dataclass(frozen=True, slots=True)
class DeadlineAction:
    """A guarded change, and the dispatches that are published again after it, beside those of its commit."""

    change: Change
    again: tuple[Dispatch, ...] = ()


def on_deadline(
    header: RunHeader, activation: Activation, redelivery_delay: int, *, queue: QueueState = SHORT
) -> DeadlineAction | None:
    """Decide what follows now that the deadline of an activation has come; None where nothing does.

    The commit moves the timer first, guarded by what was read, and the message comes after it. So two sweeps at once, a
    sweep that stalls and a sweep that dies are all harmless. What cannot be published does not stay at the head of the
    timers, where everything behind it would starve.

    `queue` is the queue of a queued activation's message. Where the message may still wait in it, no other is sent:
    a backlog would add to itself and never end. Otherwise it is sent again, under the same seq.
    """
    if not is_timer_live(header, activation):
        return None
    match activation.status:
        case ActivationStatus.WAITING:
            return DeadlineAction(_upkeep_change(activation, tuple(time_out_wait(activation)), redelivery_delay))
        case ActivationStatus.QUEUED:
            # Its message may be lost, or far back in a long queue. The number stays: a copy is harmless, while a new
            # number would make the message at the head of the queue stale.
            if _may_be_waiting(activation, redelivery_delay, queue):
                return DeadlineAction(
                    _upkeep_change(activation, (_look_later(activation, redelivery_delay),), redelivery_delay)
                )
            again = (Dispatch(activation.path, activation.seq, activation.route),)
            return DeadlineAction(
                _upkeep_change(activation, (_send_again(activation, redelivery_delay),), redelivery_delay), again
            )
        case ActivationStatus.RETRYING | ActivationStatus.SLEEPING:
            return DeadlineAction(
                _upkeep_change(
                    activation,
                    (UpdateActivation(activation.path, {"status": ActivationStatus.QUEUED.value}),),
                    redelivery_delay,
                )
            )
        case ActivationStatus.SENT:
            # In a long queue its message is probably still waiting.
            return DeadlineAction(
                _upkeep_change(activation, (sendings.look(activation, again=queue.is_short),), redelivery_delay)
            )
        # Only `restart` may take it over. The timer stays, for the day on which the run is closed.
        case ActivationStatus.RUNNING if not header.auto_restart and not is_report(activation.path):
            return DeadlineAction(
                _upkeep_change(activation, (UpdateActivation(activation.path, {}, delay=_SLOWEST),), redelivery_delay)
            )
        # The attempt is abandoned. The executor says how many in a row are too many, when it claims the activation
        # (`attempt_commands.must_give_up`): ending a step needs its graph.
        case ActivationStatus.RUNNING:
            looks = sendings.is_looking(activation)
            fields: ActivationFields = {
                "status": ActivationStatus.QUEUED.value,
                "abandoned_attempts": activation.abandoned_attempts + (not looks),
                "restarted": activation.restarted or not looks,
                **sendings.after_loss(activation),
            }
            return DeadlineAction(
                _upkeep_change(activation, (UpdateActivation(activation.path, fields),), redelivery_delay)
            )
        case _:
            return None


def _may_be_waiting(activation: Activation, redelivery_delay: int, queue: QueueState) -> bool:
    """Tell whether the last message of a queued activation may be one of those in its queue.

    A queue that is always long would hide a lost message for ever. But what it holds is younger than the moment up to
    which it was worked off, and a message that is older than that moment is either taken or lost. Queues with
    priorities keep another order: there a message too many may be sent, and the pause before the next one is longer.
    """
    if queue.is_short or not activation.sends:
        return False
    return queue.worked_off is None or _age_of_message(activation, redelivery_delay) <= queue.worked_off


def _age_of_message(activation: Activation, redelivery_delay: int) -> int:
    """The ms since the last message of a queued activation was sent, at least: all the pauses that are over since."""
    # In a sum, 1 + 2 + 4 + … is one less than the next of them.
    doublings, others = min(activation.looks, _MOST_DOUBLINGS), max(0, activation.looks - _MOST_DOUBLINGS)
    looks = (redelivery_delay << doublings) - redelivery_delay + others * (redelivery_delay << _MOST_DOUBLINGS)
    return _pause_after(activation.sends, redelivery_delay) + looks


def _pause_after(sends: int, redelivery_delay: int) -> int:
    """The ms until the next look after so many messages. They double each time, because a copy costs a claim."""
    return max(redelivery_delay, min(_SLOWEST, redelivery_delay << min(sends - 1, 30)))


def _send_again(activation: Activation, redelivery_delay: int) -> UpdateActivation:
    """Count one more message."""
    sends = max(0, activation.sends) + 1
    delay = _pause_after(sends, redelivery_delay)
    return UpdateActivation(activation.path, {"sends": sends, "looks": 0}, delay=delay)


def _look_later(activation: Activation, redelivery_delay: int) -> UpdateActivation:
    """Leave the message in its long queue. A backlog is looked through ever more rarely, up to a limit."""
    delay = redelivery_delay << min(activation.looks, _MOST_DOUBLINGS)
    return UpdateActivation(activation.path, {"looks": activation.looks + 1}, delay=delay)


def on_unsent(dispatches: Sequence[Dispatch], delay: int, *, sends: Mapping[str, int] | None = None) -> Change:
    """Note that these queued activations could not be published: their timers fall due after `delay`, as if untried.

    `sends` says how many messages had been sent before, by path; else there was none, so that a long queue is no reason
    to wait: no message is in it. Where one has been claimed meanwhile the change is refused: its message has
    gone out after all.
    """
    known = sends or {}
    ops = tuple(
        UpdateActivation(dispatch.path, {"sends": known.get(dispatch.path, 0)}, delay=max(1, delay))
        for dispatch in dispatches
    )
    expect = tuple(Precondition(dispatch.path, ActivationStatus.QUEUED.value, dispatch.seq) for dispatch in dispatches)
    swept = _ANY if any(is_report(dispatch.path) for dispatch in dispatches) else SWEPT
    return Change(RequestGuard("", swept), ops, expect=expect)


def with_request_id(change: Change, request_id: str) -> Change:
    """The upkeep under an id, so that it is remembered: for where nobody looks again if its answer gets lost."""
    guard = change.guard
    return replace(change, guard=replace(guard, id=request_id)) if isinstance(guard, RequestGuard) else change


def _upkeep_change(activation: Activation, ops: tuple[Op, ...], redelivery_delay: int) -> Change:
    # Without an id: there is much upkeep, and its preconditions make it safe to repeat.
    guard = RequestGuard("", _ANY if is_report(activation.path) else SWEPT)
    return Change(
        guard,
        ops,
        expect=(Precondition(activation.path, activation.status, activation.seq, activation.deadline),),
        redelivery_delay=redelivery_delay,
    )
