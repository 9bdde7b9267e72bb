"""What must hold: of a state, of two that follow each other, and of what a user's change has left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from orchestrator.core import flow
from orchestrator.core.changes import Claimed
from orchestrator.core.graph import Graph, Nested, Path
from orchestrator.core.records import ENDED, HELD, LIVE, Phase, Record, Role, RunState, Status
from tests.simulation.state import RESTING, State, Violation

WAITS = HELD | {Status.OPEN}
FIRST = frozenset({Phase.CHOOSE, Phase.SPLIT, Phase.ENTER, Phase.CHECK})  # they begin a step and are none themselves


def in_order(state: State) -> None:
    """The state itself is in order."""
    header = state.header
    counts = _counters(state)
    if (header.live, header.suspended, header.waiting, header.paused) != counts:
        raise Violation(f"the header counts {header.live} live, {header.suspended} suspended; there are {counts}")
    _rests(state)
    heard = [record.output for record in state.records if record.output.startswith("v")]
    if len(heard) != len(set(heard)):
        raise Violation(f"two have heard the same event: {heard}")
    kept = [entry for entry in state.mail if not entry.startswith(flow.WAITER)]
    waiting = [record for record in state.records if record.status == Status.WAITING]
    if kept and waiting:
        raise Violation(f"{waiting[0].path} waits although {kept} has been sent")


def _counters(state: State) -> tuple[int, int, int, int]:
    found = Counter(record.status for record in state.records if record.path)
    live = sum(found[status] for status in LIVE)
    return live, found[Status.SUSPENDED], found[Status.WAITING], found[Status.PAUSED]


def _rests(state: State) -> None:
    """A run at rest is what its records say, and whoever waits for it hears of it."""
    header = state.header
    held = header.suspended or header.waiting
    if header.status == RunState.SUSPENDED and (header.live or not held):
        raise Violation("the run is suspended while something is live, or with nothing suspended")
    if header.status == RunState.PAUSED and (header.live or held or not header.paused):
        raise Violation("the run is paused while something is live or suspended, or with nothing paused")
    if header.status in (RunState.SUSPENDED, RunState.PAUSED) and (header.outcome or header.failure):
        raise Violation(f"the run is {header.status} although it has come to its end")
    ended = all(record.status in ENDED for record in state.records if record.path)
    if header.status == RunState.SUCCESS and not header.closed and not ended:
        raise Violation("the run is a success with something unfinished")
    if header.status == RunState.FAILED and header.live:
        raise Violation("the run has failed while something is live")
    if header.status == RunState.PENDING and state.records:
        raise Violation("the run has not been started, and has records")
    if header.status in RESTING and header.rests <= state.awaited:
        raise Violation("the run is at rest, and who waits for that hears nothing of it")


def follows(before: State, after: State, now: int) -> None:
    """What has ended stays ended in this life, and no sleep is over before its moment."""
    old, new = before.header, after.header
    if old.final and new.status != old.status and new.life == old.life:
        raise Violation(f"a run that is {old.status} becomes {new.status}")
    earlier = {record.path: record for record in before.records}
    for record in after.records:
        was = earlier.get(record.path)
        if record is not was and record.phase == Phase.WAKE and not _may_wake(was, record, now):
            raise Violation(f"{record.path} is awake before its moment, it was {was and was.status}")


def _may_wake(was: Record | None, record: Record, now: int) -> bool:
    if record.status not in (Status.QUEUED, Status.RUNNING):
        return True
    if was is None or was.phase != Phase.WAKE:
        return False
    return was.status in (Status.QUEUED, Status.RUNNING) or (was.status == Status.SLEEPING and was.due <= now)


def holds_back(before: State, after: State, claimed: Claimed) -> None:
    """In a run step by step, what follows a step waits for a word. The items of a foreach are one step together."""
    if not claimed.header.per_step:
        return
    begun = [record.path for record in after.records if _begins(before, record) and record.path != claimed.record.path]
    if len(begun) > (claimed.record.phase in FIRST):
        raise Violation(f"{begun} begin after {claimed.record.path} in a run step by step")


def _begins(before: State, record: Record) -> bool:
    if not record.live or record.phase == Phase.JOIN or record.role == Role.ITEM:
        return False
    was = before.at(record.path)
    return was is None or not was.live or was.visit != record.visit


def claims_taken(after: State, records: Iterable[Record]) -> None:
    """After a restart, or in a new life, nobody holds any more what was claimed before."""
    for record in records:
        now = after.at(record.path)
        if now is not None and now.token:
            raise Violation(f"{record.path or 'the rest'} is still held by a claim from before")


def arrived(of: Graph, target: Path, before: State, after: State) -> None:
    """The new life has of the older one what had ended and stands before the target, and what waits beside it."""
    if after.header.life != before.header.life + 1 or after.header.status != RunState.RUNNING:
        raise Violation(f"life {before.header.life} is followed by {after.header.life}, {after.header.status}")
    claims_taken(after, after.records)
    for record in after.records:
        stays = record.status in ENDED or (record.status in WAITS and _is_beside(of, target, record.at))
        if record is before.at(record.path) and not stays:
            raise Violation(f"{record.path} of the older life is still {record.status}")
        if _order(of, target, record.at) > 0:
            raise Violation(f"{record.path} stands after the target, and is there")
    for record in before.records:
        ended = record.status == Status.SUCCESS and record.at[:-1] == target[: len(record.at) - 1]
        if ended and _order(of, target, record.at) < 0 and record is not after.at(record.path):
            raise Violation(f"{record.path} stands before the target, and has not been kept")


def _order(of: Graph, target: Path, path: Path) -> int:
    """Whether what is at `path` comes in the same flow before (negative) or after the target, or neither."""
    for cut, (mine, theirs) in enumerate(zip(path, target, strict=False)):
        if mine != theirs:
            return mine - theirs if _is_entry(of, path[: cut + 1]) else 0
    return 0


def _is_beside(of: Graph, target: Path, path: Path) -> bool:
    """Whether it is in another arm than the target, of a block around both."""
    differs = any(mine != theirs for mine, theirs in zip(path, target, strict=False))
    return differs and _order(of, target, path) == 0


def _is_entry(of: Graph, path: Path) -> bool:
    """Whether it is one of a flow, and no arm, item or body."""
    return len(path) == 1 or (bool(path) and isinstance(of.node(path[:-1]), Nested))
