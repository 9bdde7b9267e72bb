"""Runs that go on once more: restart after lost workers, and time travel."""

from __future__ import annotations

from orchestrator.core import travel
from orchestrator.core.changes import Caller, Change, Expect, Refused, Set
from orchestrator.core.graph import Graph, Path
from orchestrator.core.records import FINAL, LIVE, Header, Record, RunState, Status
from orchestrator.engine import telemetry
from orchestrator.engine.delivery import Engine
from orchestrator.engine.luggage import Itinerary, Luggage
from orchestrator.engine.operations import graph_of, naming, publish
from orchestrator.engine.reader import Reader
from orchestrator.engine.telemetry import Word
from orchestrator.errors import RestartAlreadyClaimed, RunNotActive, RunStillRunning
from orchestrator.host import new_token

__all__ = ["Itinerary", "restart", "time_travel"]

_RUNNING = frozenset({RunState.RUNNING.value})
_AT_REST = frozenset(state.value for state in RunState if state is not RunState.RUNNING)


def restart(engine: Engine, header: Header) -> Header:
    """Start again whatever a run was doing. The caller vouches that its workers are dead: their claims are taken away.

    Finished steps stay; unfinished ones run again with their recorded input. An ended run is left as it is. Raises
    `RunNotActive` for one that was never started or is suspended, `RestartAlreadyClaimed` where another call was first.
    """
    about = {"run_id": header.run_id, "workflow_id": header.workflow_id}
    if header.status in FINAL:
        return header
    if header.status != RunState.RUNNING:
        text = f"run {header.run_id!r} is {header.status}: only an active run can be restarted"
        raise RunNotActive(text, actual_status=header.status, **about)
    graph_of(engine, header)
    with telemetry.going_on("restart", header) as word:
        return _restart(engine, header, word)


def _restart(engine: Engine, header: Header, word: Word) -> Header:
    records = engine.store.load(header.run_id)
    live = [record for record in records if record.status in LIVE]
    unfinished = [record for record in live if not (header.closed and record.path)]  # then nothing but the rest follows
    ops = [_again(record, engine.store.now()) for record in unfinished]
    expect = tuple(Expect(record.path, record.status, record.seq) for record in unfinished)
    change = Change(
        Caller(new_token(), _RUNNING, life=header.life, rests=header.rests),
        tuple(word.planned(ops)),
        expect=expect,
        lease=engine.settings.lease,
        grace=engine.settings.grace,
    )
    answer = engine.store.commit(header.run_id, change)
    if isinstance(answer, Refused):
        text = f"run {header.run_id!r} moves: somebody else has restarted it, or it lives"
        raise RestartAlreadyClaimed(text, run_id=header.run_id, workflow_id=header.workflow_id)
    publish(engine, answer)
    return answer.header


def _again(record: Record, now: int) -> Set:
    counts_down = record.status == Status.RETRYING and not (record.attempt or record.parked)
    if counts_down or record.status == Status.SLEEPING:  # a timer fires when it is due, and no earlier
        return Set(record.path, {"status": record.status}, delay=max(0, record.due - now))
    lost = record.status == Status.RUNNING
    return Set(record.path, {"status": Status.QUEUED.value, "restarted": record.restarted or lost})


def time_travel(engine: Engine, header: Header, wish: Itinerary) -> Header:
    """Let a run at rest go on from one of its steps. A refusal writes nothing.

    Raises `StepNotFound`, `RunStillRunning`, `InputInvalid` where something does not fit (or TypeError, where it has
    the wrong shape), `StepNotSuspended` where nobody is there for resume data, and `GraphChanged` where the past has
    gaps.
    """
    wish.check()
    graph = graph_of(engine, header)
    target = travel.place(graph, wish.ids)
    if header.status == RunState.RUNNING:
        text = f"run {header.run_id!r} is still running: wait for it, or cancel it, before it travels"
        raise RunStillRunning(text, run_id=header.run_id, workflow_id=header.workflow_id, actual_status=header.status)
    with naming(header), telemetry.going_on("travel", header) as word:
        return _travel(engine, graph, header, target, wish, word)


def _travel(engine: Engine, graph: Graph, header: Header, target: Path, wish: Itinerary, word: Word) -> Header:
    luggage = Luggage(engine, header, graph, target, wish)
    reader = Reader(engine.store, header, graph)
    journey = travel.travel(luggage.trip(reader.records))
    luggage.check(journey)
    copied = engine.store.values(header.run_id, journey.copies)
    copies = {journey.copies[key]: text for key, text in copied.items()}
    dropped = {record.path for record in engine.store.load(header.run_id) if record.at not in reader.records}
    change = Change(
        Caller(new_token(), _AT_REST, life=header.life, rests=header.rests),
        tuple(word.planned(journey.plan.ops)),
        values={**journey.plan.values, **luggage.texts, **copies},
        state=luggage.state(),
        context=engine.contexts.written(wish.request_context),
        events=tuple(journey.plan.events),
        drop=tuple({*journey.drop, *dropped}),
        lease=engine.settings.lease,
        grace=engine.settings.grace,
    )
    answer = engine.store.commit(header.run_id, change)
    if isinstance(answer, Refused):
        text = f"run {header.run_id!r} is still running, or somebody else has changed it meanwhile"
        raise RunStillRunning(text, run_id=header.run_id, workflow_id=header.workflow_id)
    engine.runtime.discard_result(header.run_id)
    publish(engine, answer)
    return answer.header
