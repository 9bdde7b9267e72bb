"""Time travel: a run that nobody works on goes on from one of its steps."""

from __future__ import annotations

from orchestrator.core import commands, travel
from orchestrator.core.envelope import StoredTexts
from orchestrator.core.graph import Graph, Path
from orchestrator.core.records import Header, RunState
from orchestrator.engine.client_ops import add_trace, error_context, graph_of, request
from orchestrator.engine.delivery import Engine
from orchestrator.engine.luggage import Itinerary, Luggage
from orchestrator.engine.observe import observer
from orchestrator.engine.observe.protocols import CallObserver
from orchestrator.engine.read.run_reader import Reader
from orchestrator.errors import RunStillRunning
from orchestrator.host import new_token

__all__ = ["Itinerary", "time_travel"]


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
    with error_context(header), observer.observe_call("travel", header) as observed:
        return _travel(engine, graph, header, target, wish, observed)


def _travel(
    engine: Engine, graph: Graph, header: Header, target: Path, wish: Itinerary, observed: CallObserver
) -> Header:
    luggage = Luggage(engine, header, graph, target, wish)
    reader = Reader(engine.store, header, graph)
    journey = travel.travel(luggage.trip(reader.records))
    luggage.check(journey)
    # Items of a foreach have ids of their life; those that are still to run are copied, for values never change.
    copied = engine.store.values(header.run_id, journey.copies)
    copies = {journey.copies[key]: text for key, text in copied.items()}
    texts = StoredTexts({**luggage.texts, **copies}, luggage.state(), engine.contexts.encode_all(wish.request_context))
    stored = engine.store.load(header.run_id)
    change = commands.time_travel(header, journey, stored, reader.records, new_token(), texts, engine.settings.limits)
    return request(
        engine,
        header,
        add_trace(observed, change),
        lambda answer: _refusal(header),
        # Result backends never replace a success: the former one goes before the run can come to another.
        on_commit=lambda: engine.runtime.discard_result(header.run_id),
    )


def _refusal(header: Header) -> Exception:
    text = f"run {header.run_id!r} is still running, or somebody else has changed it meanwhile"
    return RunStillRunning(text, run_id=header.run_id, workflow_id=header.workflow_id)
