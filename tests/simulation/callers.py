"""The changes that users make of a run, as the engine builds them: whom a resume means, restart, time travel, undoing.

What the engine has as a function of what was read is called here, not written again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.core import travel
from orchestrator.core.changes import Caller, Change, Committed, Expect, Run, Set
from orchestrator.core.graph import Graph
from orchestrator.core.records import HELD, LIVE, Header, Record, RunState, Status
from orchestrator.engine.read.run_reader import Reader
from orchestrator.engine.targets import Target, addressed, around
from orchestrator.ports import Store
from tests.simulation.acts import GRACE, LEASE, RUN, Fresh

_RUNNING = frozenset({RunState.RUNNING})
_AT_REST = frozenset(state for state in RunState if state is not RunState.RUNNING)


def meant(target: Target, header: Header, records: Iterable[Record], *, per_step: bool = False) -> list[Record]:
    """The records that a user's resume speaks of. Raises what the user would get."""
    inside = len(target.scope)
    held = [found for found in records if found.status in HELD and found.at[:inside] == target.scope]
    paths = set(around(held))
    above = {found.at: found for found in records if found.path in paths}
    return addressed(header, held, above, target, per_step=per_step)


def restart_change(header: Header, records: Iterable[Record], now: int, fresh: Fresh) -> Change:
    """A user starts again whatever is unfinished: claims are taken away, timers stay."""
    live = [record for record in records if record.status in LIVE]
    unfinished = [record for record in live if not (header.closed and record.path)]
    expect = tuple(Expect(record.path, record.status, record.seq) for record in unfinished)
    ops = tuple(_again(record, now) for record in unfinished)
    guard = Caller(fresh(), _RUNNING, life=header.life, rests=header.rests)
    return Change(guard, ops, expect, lease=LEASE, grace=GRACE)


def _again(record: Record, now: int) -> Set:
    counts_down = record.status == Status.RETRYING and not (record.attempt or record.parked)
    if counts_down or record.status == Status.SLEEPING:
        return Set(record.path, {"status": record.status}, delay=max(0, record.due - now))
    lost = record.status == Status.RUNNING
    return Set(record.path, {"status": Status.QUEUED, "restarted": record.restarted or lost})


def travel_change(of: Graph, store: Store, target: str, fresh: Fresh, *, per_step: bool = False) -> Change:
    """A user lets the run go on from the target, a dotted path of step ids. Raises what the user would get."""
    header = store.header(RUN)
    assert header is not None
    place = travel.place(of, target.split("."))
    present = Reader(store, header, of).records
    journey = travel.travel(travel.Trip(of, header, present, place, per_step=per_step, fresh=fresh()))
    copied = {journey.copies[key]: text for key, text in store.values(RUN, journey.copies).items()}
    gone = {record.path for record in store.load(RUN) if record.at not in present}
    return Change(
        Caller(fresh(), _AT_REST, life=header.life, rests=header.rests),
        tuple(journey.plan.ops),
        values={**journey.plan.values, **copied},
        drop=tuple(sorted({*journey.drop, *gone})),
        lease=LEASE,
        grace=GRACE,
    )


def suspend_again(
    answer: Committed, records: Sequence[Record], held: Iterable[Record], header: Header, fresh: Fresh
) -> tuple[Change, ...]:
    """A resume is taken back, because nobody could be told of it: by the first of these that fits."""
    back = tuple(
        Set(r.path, {"status": r.status, "resume": r.resume, "resumed": r.resumed, "attempt": r.attempt})
        for r in records
    )
    guards = [Caller(fresh(), _RUNNING, life=answer.header.life, rests=answer.header.rests) for _ in range(2)]
    beside = Change(guards[0], back, expect=_still_queued(answer))
    if answer.header.live > len(records):
        return (beside,)
    others = tuple(Expect(r.path, r.status, r.seq) for r in held if r not in records)
    as_it_was = (*back, Run({"status": header.status}))
    return Change(guards[1], as_it_was, expect=(*_still_queued(answer), *others)), beside


def start_undone(answer: Committed, change: Change, fresh: Fresh) -> Change:
    """A start is taken back, because nobody could be told of it."""
    return Change(
        Caller(fresh(), _RUNNING, life=answer.header.life, rests=answer.header.rests),
        (Run({"status": RunState.PENDING, "started_at": 0}),),
        expect=_still_queued(answer),
        drop=tuple(record.path for op in change.ops if (record := getattr(op, "record", None)) is not None),
    )


def _still_queued(answer: Committed) -> tuple[Expect, ...]:
    return tuple(Expect(told.path, Status.QUEUED, told.seq) for told in answer.dispatches)
