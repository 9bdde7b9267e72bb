"""Runs that go on once more: restart after lost workers, and time travel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.codec import encode, validate
from orchestrator.core import travel
from orchestrator.core.changes import Caller, Change, Expect, Refused, Set
from orchestrator.core.graph import Graph, Path
from orchestrator.core.records import FINAL, LIVE, Header, Record, RunState, Status
from orchestrator.engine import telemetry
from orchestrator.engine.delivery import Engine
from orchestrator.engine.operations import ABSENT, graph_of, publish
from orchestrator.engine.reader import Reader
from orchestrator.engine.reading import stored
from orchestrator.engine.telemetry import Word
from orchestrator.errors import RestartAlreadyClaimed, RunNotActive, RunStillRunning
from orchestrator.host import new_token

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
    unfinished = [record for record in records if record.status in LIVE]
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
    publish(engine, answer, None)
    return answer.header


def _again(record: Record, now: int) -> Set:
    if record.status == Status.SLEEPING:  # a timer fires when it is due, and no earlier
        return Set(record.path, {"status": Status.SLEEPING.value}, delay=max(0, record.due - now))
    lost = record.status == Status.RUNNING
    return Set(record.path, {"status": Status.QUEUED.value, "restarted": record.restarted or lost})


@dataclass(frozen=True, slots=True)
class Itinerary:
    """What a caller says of a time travel. ABSENT is nothing; None is a value."""

    ids: Sequence[str]
    input: Any = ABSENT
    context: Mapping[str, Any] = field(default_factory=dict)
    nested_context: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    resume_data: Any = ABSENT
    state: Mapping[str, Any] | None = None
    request_context: Mapping[str, Any] = field(default_factory=dict, repr=False)
    per_step: bool = False


def time_travel(engine: Engine, header: Header, wish: Itinerary) -> Header:
    """Let a run at rest go on from one of its steps. A refusal writes nothing.

    Raises `StepNotFound`, `RunStillRunning`, `InputInvalid`, and `GraphChanged` where the past has gaps.
    """
    workflow = engine.registry.get(header.workflow_id)
    graph = graph_of(engine, header)
    assert workflow is not None
    target = travel.place(graph, wish.ids)
    if header.status == RunState.RUNNING:
        text = f"run {header.run_id!r} is still running: wait for it, or cancel it, before it travels"
        raise RunStillRunning(text, run_id=header.run_id, workflow_id=header.workflow_id, actual_status=header.status)
    with telemetry.going_on("travel", header) as word:
        return _travel(engine, graph, header, target, wish, word)


def _travel(engine: Engine, graph: Graph, header: Header, target: Path, wish: Itinerary, word: Word) -> Header:
    fresh, limit = new_token(), engine.settings.max_payload_bytes
    texts: dict[str, str] = {}
    reader = Reader(engine.store, header, graph)
    trip = travel.Trip(
        graph,
        header,
        reader.records,
        target,
        given=_given(graph, wish, texts, fresh, limit),
        input=_input(graph, target, wish, texts, fresh, limit),
        resume=_resume(graph, target, wish, texts, fresh, limit),
        per_step=wish.per_step,
        fresh=fresh,
    )
    journey = travel.travel(trip)
    copied = engine.store.values(header.run_id, journey.copies)
    texts |= {journey.copies[key]: text for key, text in copied.items()}
    dropped = {record.path for record in engine.store.load(header.run_id) if record.at not in reader.records}
    change = Change(
        Caller(new_token(), _AT_REST, life=header.life, rests=header.rests),
        tuple(word.planned(journey.plan.ops)),
        values={**journey.plan.values, **texts},
        state=_state(engine, header, wish.state, limit),
        context=engine.contexts.written(wish.request_context),
        events=({"type": "workflow-start", "input": header.input}, *journey.plan.events),
        drop=tuple({*journey.drop, *dropped}),
        lease=engine.settings.lease,
        grace=engine.settings.grace,
    )
    engine.runtime.forget(header.run_id)
    answer = engine.store.commit(header.run_id, change)
    if isinstance(answer, Refused):
        text = f"run {header.run_id!r} is still running, or somebody else has changed it meanwhile"
        raise RunStillRunning(text, run_id=header.run_id, workflow_id=header.workflow_id)
    publish(engine, answer, None)
    return answer.header


def _input(graph: Graph, target: Path, wish: Itinerary, texts: dict[str, str], fresh: str, limit: int) -> str | None:
    if wish.input is ABSENT:
        return None
    body: Any = getattr(graph.node(target), "body", None)
    entry = getattr(body, "step", None) or getattr(body, "workflow", None)
    annotation = getattr(entry, "input", None)
    fitted = wish.input if annotation is None else validate(annotation, wish.input)
    texts[f"{fresh}i"] = stored(fitted, f"input of step {graph.node(target).id!r}", limit)
    return f"{fresh}i"


def _resume(graph: Graph, target: Path, wish: Itinerary, texts: dict[str, str], fresh: str, limit: int) -> str | None:
    if wish.resume_data is ABSENT:
        return None
    step = getattr(getattr(graph.node(target), "body", None), "step", None)
    annotation = getattr(step, "resume", None)
    header = "Invalid resume data: "
    fitted = wish.resume_data if annotation is None else validate(annotation, wish.resume_data, header=header)
    texts[f"{fresh}r"] = stored(fitted, f"resume data of step {graph.node(target).id!r}", limit)
    return f"{fresh}r"


def _given(graph: Graph, wish: Itinerary, texts: dict[str, str], fresh: str, limit: int) -> dict[Path, str]:
    """Outputs that the caller gives, by the path of their step. Raises `StepNotFound` for a step that is not there."""
    told: list[tuple[list[str], Any]] = [([name], record) for name, record in wish.context.items() if name != "input"]
    for outer, inner in wish.nested_context.items():
        told += [([*outer.split("."), name], record) for name, record in inner.items() if name != "input"]
    given: dict[Path, str] = {}
    for number, (ids, record) in enumerate(told):
        path = travel.place(graph, ids)
        status, output = _parts(record)
        if status == "success":
            key = f"{fresh}c{number}"
            texts[key] = stored(output, f"output of step {'.'.join(ids)!r} in `context`", limit)
            given[path] = key
    return given


def _parts(record: Any) -> tuple[str, Any]:
    if isinstance(record, Mapping):
        return str(record.get("status", "success")), record.get("output")
    return str(record.status), record.output


def _state(engine: Engine, header: Header, wish: Mapping[str, Any] | None, limit: int) -> dict[str, str | None]:
    """A state that is given takes the place of the run's own."""
    if wish is None:
        return {}
    gone: dict[str, str | None] = {key: None for key in engine.store.state(header.run_id) if key not in wish}
    return gone | {key: encode(value, where=f"state[{key!r}]", limit=limit) for key, value in wish.items()}
