"""Time travel: a run that nobody works on goes on from one of its steps."""

from __future__ import annotations

from orchestrator.engine.client_ops import add_trace, error_context, graph_of, request
from orchestrator.engine.executor import Executor
from orchestrator.engine.observe import observer
from orchestrator.engine.observe.protocols import CallObserver
from orchestrator.engine.read.run_reader import Reader
from orchestrator.engine.travel_inputs import TravelInputs, TravelOptions
from orchestrator.errors import RunStillRunning
from orchestrator.host import new_token
from orchestrator.rules import commands, travel
from orchestrator.rules.envelope import StoredTexts
from orchestrator.rules.graph import Graph, Path
from orchestrator.rules.model import RunHeader, StoredStatus

__all__ = ["TravelOptions", "time_travel"]


def time_travel(executor: Executor, header: RunHeader, wish: TravelOptions) -> RunHeader:
    """Let a run at rest go on from one of its steps. A refusal writes nothing.

    Raises `StepNotFound`, `RunStillRunning`, `InputInvalid` where something does not fit (or TypeError, where it has
    the wrong shape), `StepNotSuspended` where nobody is there for resume data, and `GraphChanged` where the past has
    gaps.
    """
    wish.check()
    graph = graph_of(executor, header)
    target = travel.find_target(graph, wish.ids)
    if header.status == StoredStatus.RUNNING:
        text = f"run {header.run_id!r} is still running: wait for it, or cancel it, before it travels"
        raise RunStillRunning(text, run_id=header.run_id, workflow_id=header.workflow_id, actual_status=header.status)
    with error_context(header), observer.observe_call("travel", header) as observed:
        return _travel(executor, graph, header, target, wish, observed)


def _travel(
    executor: Executor, graph: Graph, header: RunHeader, target: Path, wish: TravelOptions, observed: CallObserver
) -> RunHeader:
    luggage = TravelInputs(executor, header, graph, target, wish)
    reader = Reader(executor.store, header, graph)
    journey = travel.plan_travel(luggage.trip(reader.activations))
    luggage.check(journey)
    # Items of a foreach have ids of their life; those that are still to run are copied, for values never change.
    copied = executor.store.values(header.run_id, journey.copies)
    copies = {journey.copies[key]: text for key, text in copied.items()}
    texts = StoredTexts(
        {**luggage.texts, **copies}, luggage.state(), executor.contexts.encode_all(wish.request_context)
    )
    stored = executor.store.load(header.run_id)
    change = commands.time_travel(
        header, journey, stored, reader.activations, new_token(), texts, executor.settings.limits
    )
    return request(
        executor,
        header,
        add_trace(observed, change),
        lambda answer: _refusal(header),
        # Result backends never replace a success: the former one goes before the run can come to another.
        on_commit=lambda: executor.runtime.discard_result(header.run_id),
    )


def _refusal(header: RunHeader) -> Exception:
    text = f"run {header.run_id!r} is still running, or somebody else has changed it meanwhile"
    return RunStillRunning(text, run_id=header.run_id, workflow_id=header.workflow_id)
