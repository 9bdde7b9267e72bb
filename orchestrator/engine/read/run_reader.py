"""The reader of a stored run, which returns values as their declared types where the workflow is known."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from orchestrator.codec import ANY, Shape
from orchestrator.definitions.bodies import shape_made
from orchestrator.engine.contexts import shown_context
from orchestrator.engine.declarations import shape_of, view_of_state, workflow_at
from orchestrator.engine.read.final_status import FinalStatus
from orchestrator.engine.read.names import Names
from orchestrator.engine.read.results import RunRecord, RunResult, RunStatus, StepResult, StepStatus, moment
from orchestrator.engine.read.step_view import StepView
from orchestrator.engine.read.tree import Tree
from orchestrator.engine.read.value_reader import Values, decode_all
from orchestrator.errors import InputInvalid, RunNotFound, TripWire
from orchestrator.ports import Store
from orchestrator.rules.addressing import make_resume_token
from orchestrator.rules.graph import Graph, Path
from orchestrator.rules.model import (
    AWAITING,
    FINAL,
    Activation,
    ActivationStatus,
    Role,
    RunHeader,
    belongs,
    format_path,
    is_report,
)

# The status of a nested workflow read as a run, by its status as a step.
_AS_RUN = {StepStatus.QUEUED: RunStatus.PENDING, StepStatus.RETRYING: RunStatus.RUNNING}
_AS_RUN |= {StepStatus.SKIPPED: RunStatus.PENDING}
_AS_RUN |= {status: RunStatus(status) for status in StepStatus if status not in _AS_RUN}


class Reader:
    """Reads one run for a caller. `graph` is None where the workflow is not known here: then all values are plain.

    With a `scope`, the path of a nested workflow inside the run, it reads that one as if it were a run of its own. The
    store is read on demand, and activations once, so that the answers of one reader fit together.
    """

    # More public methods than most classes: one for each thing that a caller may ask of a run. Computations stand in
    # `names`, `final_status` and `step_view`.

    def __init__(self, store: Store, header: RunHeader, graph: Graph | None, scope: Path = ()) -> None:
        self.store = store
        self.header = header
        self.graph = graph
        self.scope = scope
        self.values = Values(store.values, header.run_id)

    @cached_property
    def _stored(self) -> list[Activation]:
        return self.store.load(self.header.run_id)

    def open_reports(self) -> list[Activation]:
        """Return the hooks and deliveries that are still to come, and those that were given up."""
        return [one for one in self._stored if is_report(one.path) and one.status != ActivationStatus.SUCCESS]

    @cached_property
    def activations(self) -> dict[Path, Activation]:
        """The activations of the present visits, by path."""
        # An activation of an earlier iteration stays in the store until the present one comes to its path. The store
        # returns outer ones first, so that each can be compared with the one around it. Where that one is of an earlier
        # iteration, so is all that is inside it.
        found: dict[Path, Activation] = {}
        for activation in self._stored:
            if not activation.path or is_report(activation.path):
                continue
            above = found.get(activation.at[:-1])
            if len(activation.at) == 1 or (above is not None and belongs(activation, above)):
                found[activation.at] = activation
        return found

    @cached_property
    def names(self) -> Names:
        """Names the activations of this run."""
        return Names(self.activations, self.scope)

    @cached_property
    def _final(self) -> FinalStatus:
        return FinalStatus(self.header, self.graph, self.activations, self._tree)

    @cached_property
    def _tree(self) -> Tree:
        return Tree(self.activations)

    @property
    def run_id(self) -> str:
        """The id of the run; `<run id>/<path>` for a nested workflow."""
        return f"{self.header.run_id}/{format_path(self.scope)}" if self.scope else self.header.run_id

    @property
    def workflow_id(self) -> str:
        """The id of the workflow."""
        if not self.scope:
            return self.header.workflow_id
        # Where the graph is not known, the id of the step stands for it: by default that is the workflow's.
        return workflow_at(self.graph, self.scope).id if self.graph else self.scope_activation().step

    def is_there(self) -> bool:
        """Return False where the scope is no nested workflow, or one that has not begun."""
        found = self.activations.get(self.scope) if self.scope else None
        return not self.scope or (found is not None and found.component == "NESTED")

    def scope_activation(self) -> Activation:
        """Return the activation of the nested workflow. Raises `RunNotFound` where there is none (any more)."""
        found = self.activations.get(self.scope)
        if found is None or not self.is_there():
            text = f"there is no run {self.run_id!r}"
            raise RunNotFound(text, run_id=self.run_id, workflow_id=self.header.workflow_id)
        return found

    def status(self) -> RunStatus:
        """Return the run's status."""
        if not self.scope:
            return RunStatus(self.header.status)
        activation = self.with_final_status(self.scope_activation())
        return RunStatus.TRIPWIRE if activation.tripwire else _AS_RUN[self.step_status(activation)]

    def input(self) -> Any:
        """Read the run's input."""
        key = self.scope_activation().input if self.scope else self.header.input
        return self.values.as_type(key, shape_of(workflow_at(self.graph, self.scope).input) if self.graph else ANY)

    def result(self) -> Any:
        """Read the run's result; None unless it has succeeded."""
        # `bail` stores the output before the run has settled: until then it is no result.
        if self.status() != RunStatus.SUCCESS:
            return None
        shape: Shape = ANY
        if self.graph is not None:
            workflow = workflow_at(self.graph, self.scope)
            made = shape_made(self.graph.entries(self.scope)[-1])
            shape = shape_of(workflow.output) if workflow.output is not None else made
        return self.values.as_type(
            self.with_final_status(self.scope_activation()).output if self.scope else self.header.output, shape
        )

    def error(self) -> BaseException | None:
        """Read the run's error."""
        # A nested workflow has no header. Its activation stands for one.
        key = self.with_final_status(self.scope_activation()).error if self.scope else self.header.error
        found = self.values.plain(key) if key else None
        return found if isinstance(found, BaseException) else None

    def state(self) -> dict[str, Any]:
        """Read the run's state, as its model declares it where it fits. A nested workflow sees its own model's part."""
        plain = decode_all(self.store.state(self.header.run_id))
        if self.graph is None:
            return plain
        try:
            seen = view_of_state(workflow_at(self.graph, self.scope), plain)
        except InputInvalid:
            # State that does not fit (any more) is shown as it is: that may be the very reason why the run is read.
            return plain
        return seen if self.scope else {**plain, **seen}

    def steps(self, *, nested: bool = False) -> dict[str, StepResult]:
        """Read the step results, by id. With `nested`, also those of `outer.inner` and `outer[item].inner`."""
        view = StepView(self.header.run_id, self.graph, self._tree, self.names, self._final, self.values)
        return view.results(activation for activation in self.activations.values() if self._shows(activation, nested))

    def _shows(self, activation: Activation, nested: bool) -> bool:
        # A step is shown from its first claim on. Before that it is planned, and has no result.
        if activation.status == ActivationStatus.PAUSED or (
            activation.status == ActivationStatus.QUEUED and not activation.first_seq
        ):
            return False
        return (
            activation.role == Role.STEP
            and self._inside(activation)
            and (nested or activation.scope == len(self.scope))
        )

    def _inside(self, activation: Activation) -> bool:
        return len(activation.at) > len(self.scope) and activation.at[: len(self.scope)] == self.scope

    def with_final_status(self, activation: Activation) -> Activation:
        """Return the activation. One that was open when its run ended gets the end that this was for it."""
        return self._final.with_final_status(activation)

    def step_status(self, activation: Activation) -> StepStatus:
        """Return the activation's status as a reader sees it."""
        return self._final.step_status(activation)

    def awaiting_activations(self, *, paused: bool = True) -> list[Activation]:
        """Return the awaiting activations in declaration order, with or without those that are only paused."""
        # After the end of a run nothing is awaited, though a step that was suspended when it failed is so still.
        if self.header.status in FINAL:
            return []
        statuses = AWAITING if paused else AWAITING - {ActivationStatus.PAUSED}
        # Paths are in declaration order.
        found = [activation for _, activation in sorted(self.activations.items()) if activation.status in statuses]
        return [activation for activation in found if self._inside(activation)]

    def suspended_paths(self) -> list[list[str]]:
        """Return the step ids from the outermost workflow down to each suspended step, each list once."""
        # Several items of one foreach have the same ids: its step is named once.
        found = (tuple(self.names.step_ids(each)) for each in self.awaiting_activations(paused=False))
        return [list(ids) for ids in dict.fromkeys(found)]

    def resume_labels(self) -> dict[str, dict[str, Any]]:
        """Return the labels, each with its step (and the item of a foreach)."""
        # A label that a step gave itself counts as long as the step is suspended.
        return {found.label: self._where(found) for found in self._suspended_activations() if found.label}

    def resume_tokens(self) -> dict[str, dict[str, Any]]:
        """Return the token of each suspension, with its step (and the item of a foreach)."""
        return {make_resume_token(found.suspend): self._where(found) for found in self._suspended_activations()}

    def _suspended_activations(self) -> list[Activation]:
        awaiting = self.awaiting_activations(paused=False)
        return [activation for activation in awaiting if activation.status == ActivationStatus.SUSPENDED]

    def _where(self, activation: Activation) -> dict[str, Any]:
        index = self.names.item_index(activation)
        where = {"step_id": ".".join(self.names.step_ids(activation))}
        return where | ({"foreach_index": index} if index >= 0 else {})

    def request_context(self) -> dict[str, Any]:
        """Read the request context, without its secrets."""
        return shown_context(self.store.context(self.header.run_id))

    def execution_path(self) -> list[str]:
        """Return the ids of the workflow's own steps in the order in which they first ran, each once."""
        # `first_seq` numbers the first attempts in the store, so steps of two workers have an order too.
        own = [r for r in self.activations.values() if r.scope == len(self.scope) and self._inside(r)]
        ran = [r for r in own if r.role == Role.STEP and r.first_seq]
        return list(
            dict.fromkeys(activation.step for activation in sorted(ran, key=lambda activation: activation.first_seq))
        )

    def run_result(self) -> RunResult:
        """Return all that a caller gets when the run has settled."""
        steps, error = self.steps(), self.error()
        # From the same activations as the steps, so that the fields of a result fit together.
        suspended = self.suspended_paths()
        payloads = {ids[0]: steps[ids[0]].suspend_payload or {} for ids in suspended if ids[0] in steps}
        return RunResult(
            run_id=self.run_id,
            status=self.status(),
            input=self.input(),
            result=self.result(),
            error=None if isinstance(error, TripWire) else error,
            steps=steps,
            state=self.state(),
            suspended=suspended,
            suspend_payload=payloads,
            resume_labels=self.resume_labels(),
            resume_tokens=self.resume_tokens(),
            tripwire=error if isinstance(error, TripWire) else None,
            execution_path=self.execution_path(),
        )

    def run_record(self, wanted: Mapping[str, bool], nested: bool) -> RunRecord:
        """Return the stored run with the wanted fields."""
        header = self.header
        created_at = self.scope_activation().started_at if self.scope else header.created_at
        record = RunRecord(
            self.run_id,
            self.workflow_id,
            header.resource_id or None,
            self.status(),
            moment(created_at) or datetime.fromtimestamp(0, UTC),
            moment(header.updated_at) or datetime.fromtimestamp(0, UTC),
        )
        makers = {
            "input": self.input,
            "result": self.result,
            "error": self.error,
            "state": self.state,
            "steps": lambda: self.steps(nested=nested),
            "suspended": self.suspended_paths,
            "resume_labels": self.resume_labels,
            "resume_tokens": self.resume_tokens,
            "request_context": self.request_context,
        }
        # Only wanted fields are read: a page of runs would else read all values of each of them.
        for name, make in makers.items():
            if wanted.get(name):
                setattr(record, name, make())
        return record
