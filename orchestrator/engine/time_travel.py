"""Time travel: a run that has settled goes on from one of its steps, in a new generation."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from orchestrator.engine.executor import Executor
from orchestrator.engine.logs import log_context
from orchestrator.engine.observe import observer
from orchestrator.engine.observe.protocols import CallObserver
from orchestrator.engine.read.run_reader import Reader
from orchestrator.engine.requests import (
    add_trace,
    adopt,
    arm_adopted,
    error_context,
    graph_of,
    request,
    require_secrets,
)
from orchestrator.engine.settlement import discard_result
from orchestrator.engine.travel_inputs import TravelInputs, TravelOptions
from orchestrator.errors import RunStillRunning
from orchestrator.host import new_token
from orchestrator.rules import commands, travel
from orchestrator.rules.envelope import StoredTexts
from orchestrator.rules.graph import Graph, Path
from orchestrator.rules.model import LIVE, Activation, RunHeader, StoredStatus, is_report
from orchestrator.rules.reports import HOOKS

__all__ = ["TravelOptions", "time_travel"]

log = logging.getLogger("orchestrator")


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
    _log_dropped_hooks(header, stored)
    change = commands.time_travel(
        header, travel_plan, stored, reader.activations, new_token(), texts, executor.settings.limits
    )
    changed = request(
        executor,
        header,
        add_trace(observed, adopt(executor, header, change)),
        lambda answer: _refusal(header),
        # Whoever asks the result backend from now on is not to get the old one.
        on_commit=lambda: discard_result(executor.runtime, header),
    )
    arm_adopted(executor, header)
    return changed


def _log_dropped_hooks(header: RunHeader, stored: Iterable[Activation]) -> None:
    """Log the hooks that the older generation is still to call, and will not: its end is one no more."""
    hooks = [one.step for one in stored if is_report(one.path) and one.status in LIVE and one.step in HOOKS]
    if hooks:
        text = "run %s travels in time before %s of its end as %s could be called: it is not called any more"
        log.warning(text, header.run_id, ", ".join(hooks), header.status, extra=log_context(header))


def _refusal(header: RunHeader) -> Exception:
    text = f"run {header.run_id!r} is still running, or another caller has changed it meanwhile"
    return RunStillRunning(text, run_id=header.run_id, workflow_id=header.workflow_id)
