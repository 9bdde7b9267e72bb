"""Time travel: a run that has settled goes on from one of its steps, in a new generation."""

from __future__ import annotations

from orchestrator.engine.client_ops import add_trace, error_context, graph_of, request, require_secrets
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


def time_travel(executor: Executor, header: RunHeader, options: TravelOptions) -> RunHeader:
    """Let a run that has settled go on from one of its steps; returns the header. A refusal writes nothing.

    Raises `StepNotFound`, `RunStillRunning`, `InputInvalid` where a value does not fit, TypeError where one has the
    wrong shape, `StepNotSuspended` where no step can take the resume data, and `GraphChanged` where a step before the
    target has no result.
    """
    options.check()
    graph = graph_of(executor, header)
    target = travel.find_target(graph, options.ids)
    # A running run has workers with leases, and events on their way: only a settled one is all in the store.
    if header.status == StoredStatus.RUNNING:
        text = f"run {header.run_id!r} is still running: wait for it, or cancel it, before it travels"
        raise RunStillRunning(text, run_id=header.run_id, workflow_id=header.workflow_id, actual_status=header.status)
    require_secrets(executor, header)
    with error_context(header), observer.observe_call("travel", header) as observed:
        return _travel(executor, graph, header, target, options, observed)


def _travel(
    executor: Executor, graph: Graph, header: RunHeader, target: Path, options: TravelOptions, observed: CallObserver
) -> RunHeader:
    inputs = TravelInputs(executor, header, graph, target, options)
    reader = Reader(executor.store, header, graph)
    travel_plan = travel.plan_travel(inputs.make_request(reader.activations))
    inputs.check(travel_plan)
    # The values of a foreach's items have the generation in their ids. Items that still have to run get copies of
    # theirs under the ids of the new generation.
    copied = executor.store.values(header.run_id, travel_plan.copies)
    copies = {travel_plan.copies[key]: text for key, text in copied.items()}
    context = executor.contexts.encode_all(header.run_id, options.request_context)
    texts = StoredTexts({**inputs.texts, **copies}, inputs.make_state(), context)
    # With those of past iterations, which the reader leaves out: the new generation would find them, so they go too.
    stored = executor.store.load(header.run_id)
    change = commands.time_travel(
        header, travel_plan, stored, reader.activations, new_token(), texts, executor.settings.limits
    )
    return request(
        executor,
        header,
        add_trace(observed, change),
        lambda answer: _refusal(header),
        # Result backends never replace a success: the old result is deleted before the run can come to a new one.
        on_commit=lambda: executor.runtime.discard_result(header.run_id),
    )


def _refusal(header: RunHeader) -> Exception:
    text = f"run {header.run_id!r} is still running, or another caller has changed it meanwhile"
    return RunStillRunning(text, run_id=header.run_id, workflow_id=header.workflow_id)
