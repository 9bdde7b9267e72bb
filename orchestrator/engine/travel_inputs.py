"""The inputs of a time travel: its values are read, checked against the declared types, and encoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from orchestrator.codec import validate, with_text_keys
from orchestrator.definitions.bodies import NestedBody, StepBody, body_of, step_of
from orchestrator.engine.client_ops import UNSET
from orchestrator.engine.declarations import view_of_state, workflow_at
from orchestrator.engine.executor import Executor
from orchestrator.engine.read.results import StepResult, StepStatus
from orchestrator.engine.read.value_reader import Values, encode_all, encode_value
from orchestrator.errors import InputInvalid, Issue
from orchestrator.host import new_token
from orchestrator.rules import travel
from orchestrator.rules.graph import Branch, Foreach, Graph, Node, Parallel, Path
from orchestrator.rules.model import Activation, RunHeader, StoredStatus
from orchestrator.rules.value_ids import make_arm_id, make_override_id, make_travel_input_id
from orchestrator.safe_text import short_repr

# Steps that have ended, but not as a success.
_FAILED = frozenset({StepStatus.FAILED, StepStatus.CANCELED})


@dataclass(frozen=True, slots=True)
class TravelOptions:
    """The arguments of a time travel. UNSET stands for no value, because None is one."""

    # the step to go on from: its ids, from the outermost workflow in
    ids: Sequence[str]
    # the input of that step
    input: Any = UNSET
    # step results that replace the stored ones, by step id; the name `input` is ignored
    context: Mapping[str, Any] = field(default_factory=dict)
    # the same for steps of nested workflows, by the dotted ids of the workflow and then by step id
    nested_context: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # resume data for a suspended step
    resume_data: Any = UNSET
    # replaces the run's state
    state: Mapping[str, Any] | None = None
    # merged into the run's request context; not shown, because it may hold secrets
    request_context: Mapping[str, Any] = field(default_factory=dict, repr=False)
    # pause after each step
    per_step: bool = False

    def check(self) -> None:
        """Raise TypeError for an argument of the wrong shape."""
        # Before anything is read, so that a mistake in a call shows whatever the run's status is.
        _require_mapping("context", self.context, "step results by step id")
        _require_mapping("nested_context", self.nested_context, "step results by nested workflow and step id")
        for name, results in self.nested_context.items():
            _require_mapping(f"nested_context[{name!r}]", results, "step results by step id")
        if self.state is not None:
            _require_mapping("state", self.state, "values", str_keys=False)
        _require_mapping("request_context", self.request_context, "values", str_keys=False)
        for ids, result in self.iter_results():
            _as_step_result(ids, result)

    def iter_results(self) -> Iterator[tuple[list[str], Any]]:
        """Yield the step results of the caller, with the ids of their steps from the outermost workflow in."""
        # A context may be `run.result().steps` with the run's input beside it, under the name `input`. That is no step.
        yield from (([name], result) for name, result in self.context.items() if name != "input")
        for outer, inner in self.nested_context.items():
            yield from (([*outer.split("."), name], result) for name, result in inner.items() if name != "input")


def _require_mapping(name: str, value: object, what: str, *, str_keys: bool = True) -> None:
    if not isinstance(value, Mapping) or (str_keys and not all(isinstance(key, str) for key in value)):
        raise TypeError(f"`{name}` is a mapping of {what}, not {short_repr(value)}")


def _as_step_result(ids: Sequence[str], result: Any) -> StepResult:
    """Return a step result, or a dict like one, as a step result. Raises TypeError for anything else."""
    where = f"the result of step {'.'.join(ids)!r} in `context`"
    if isinstance(result, StepResult):
        return result
    if not isinstance(result, Mapping):
        raise TypeError(f"{where} is a StepResult, or a dict with `status` and `output`, not {short_repr(result)}")
    # Other keys are ignored: the dict may be one of `to_dict()`, perhaps of another release.
    fields = {name: result[name] for name in StepResult.__dataclass_fields__ if name in result}
    try:
        status = StepStatus(fields.pop("status", StepStatus.SUCCESS))
    except ValueError as error:
        raise TypeError(f"{where} has no status of a step: {short_repr(result['status'])}") from error
    found = StepResult(status, **fields)
    for name in ("started_at", "ended_at", "suspended_at", "resumed_at"):
        _to_ms(getattr(found, name), f"`{name}` in {where}")
    return found


def _to_ms(moment: Any, where: str = "a time") -> int:
    match moment:
        case None:
            return 0
        case datetime():
            return round(moment.timestamp() * 1000)
        # A bool is an int for Python, and no time for anybody.
        case int() | float() if not isinstance(moment, bool):
            return round(moment)
        case _:
            raise TypeError(f"{where} is a datetime or milliseconds since 1970, not {short_repr(moment)}")


class TravelInputs:
    """The values of one time travel. `texts` are those to write, by their ids."""

    def __init__(
        self, executor: Executor, header: RunHeader, graph: Graph, target: Path, options: TravelOptions
    ) -> None:
        self.executor = executor
        self.header = header
        self.graph = graph
        self.target = target
        self.options = options
        self.texts: dict[str, str] = {}
        # One random prefix for all ids of this travel: stored values never change, so no id may be used twice.
        self._fresh = new_token()
        self._name = graph.node(target).id

    def make_request(self, activations: Mapping[Path, Activation]) -> travel.TravelRequest:
        """Return all that the rules need to know. Raises `StepNotFound` for a result of a step that is not there."""
        options = self.options
        has_input = options.input is not UNSET
        return travel.TravelRequest(
            self.graph,
            self.header,
            activations,
            self.target,
            overrides={**self._read_overrides(), **self._override_arms()},
            input=self._store(make_travel_input_id(self._fresh), options.input, f"input of step {self._name!r}")
            if has_input
            else None,
            resume=options.resume_data is not UNSET,
            per_step=options.per_step,
            fresh=self._fresh,
        )

    def _store(self, key: str, value: Any, what: str) -> str:
        """Encode a value to be written with the travel under this id, and return the id."""
        self.texts[key] = encode_value(value, what, self.executor.settings.packing)
        return key

    def _read_overrides(self) -> dict[Path, travel.StepOverride]:
        """Encode the step results that the caller has given, by the paths of their steps."""
        overrides: dict[Path, travel.StepOverride] = {}
        for number, (ids, result) in enumerate(self.options.iter_results()):
            path, found, name = travel.find_target(self.graph, ids), _as_step_result(ids, result), ".".join(ids)
            # A step that had failed may be given an output: then it is carried over as if it had succeeded.
            has_output = found.status == StepStatus.SUCCESS or (found.status in _FAILED and found.output is not None)
            # A `StepResult` comes from a run, and may be as it was there, even if the step declares another type now.
            if has_output and not isinstance(result, StepResult):
                _check_output(self.graph.node(path), found.output, f"Invalid output of step {name!r} in `context`: ")
            output = f"output of step {name!r} in `context`"
            parts = {"input": found.payload, "suspend": found.suspend_payload, "resume": found.resume_payload}
            keys = {
                part: self._store(
                    make_override_id(self._fresh, number, part), value, f"{part} of step {name!r} in `context`"
                )
                for part, value in parts.items()
                if value is not None
            }
            overrides[path] = travel.StepOverride(
                output=self._store(make_override_id(self._fresh, number, "output"), found.output, output)
                if has_output
                else "",
                has_ended=has_output,
                is_suspended=found.status == StepStatus.SUSPENDED,
                started_at=_to_ms(found.started_at),
                ended_at=_to_ms(found.ended_at),
                suspended_at=_to_ms(found.suspended_at),
                resumed_at=_to_ms(found.resumed_at),
                **keys,
            )
        return overrides

    def _override_arms(self) -> dict[Path, travel.StepOverride]:
        """Take the outputs of a block's arms from the input of the target, where the block stands before it."""
        # A parallel or a branch hands on a dict of its arms' outputs. If the caller replaces that dict, the arms' own
        # results have to agree with it: steps further down may read them by their ids.
        path = travel.entry_before(self.graph, self.target)
        node = self.graph.node(path) if path is not None else None
        if path is None or not isinstance(node, Parallel | Branch) or not isinstance(self.options.input, Mapping):
            return {}
        return {
            (*path, index): travel.StepOverride(
                self._store(make_arm_id(self._fresh, index), self.options.input[arm.id], f"output of step {arm.id!r}")
            )
            for index, arm in enumerate(node.arms)
            if arm.id in self.options.input
        }

    def check(self, travel_plan: travel.TravelPlan) -> None:
        """Check the values that the plan gives to steps, and add the resume data. Raises `InputInvalid`."""
        self._check_workflow_input(travel_plan)
        node = self.graph.node(self.target)
        # The items of a foreach are checked only where the caller has given the list: stored ones have been checked.
        if _declares_input(node) or (isinstance(node, Foreach) and travel_plan.target_input in self.texts):
            plain = self._read_plain(travel_plan, travel_plan.target_input)
            _check_input(node, plain, f"Invalid input of step {node.id!r}: ")
        for key, path in travel_plan.resumed.items():
            self._add_resume_data(key, self.graph.node(path))

    def _check_workflow_input(self, travel_plan: travel.TravelPlan) -> None:
        """Check a new input of a workflow against its declared type, and fill in its defaults."""
        # The first step of a workflow gets the workflow's own input.
        scope = self.graph.scope(self.target)
        if self.options.input is UNSET:
            scope, is_new = (), travel_plan.begins and not self.header.input
        else:
            is_new = self.target[len(scope)] == 0
        workflow = workflow_at(self.graph, scope)
        if is_new and workflow.validate_inputs and workflow.input is not None:
            fitted = validate(workflow.input, self._read_plain(travel_plan, travel_plan.target_input))
            if travel_plan.target_input in self.texts:
                packing, name = self.executor.settings.packing, f"input of workflow {workflow.id!r}"
                self.texts[travel_plan.target_input] = encode_value(fitted, name, packing)

    def _read_plain(self, travel_plan: travel.TravelPlan, key: str) -> Any:
        # Some values are not in the store yet, because the travel itself writes them.
        known = {**travel_plan.plan.values, **self.texts}
        return Values(self.executor.store.values, self.header.run_id, known).plain(key)

    def _add_resume_data(self, key: str, node: Node) -> None:
        # One value for each step, though the data is the same: each step checks it against a type of its own.
        step = step_of(node)
        annotation = None if step is None else step.resume
        data, packing = self.options.resume_data, self.executor.settings.packing
        fitted = data if annotation is None else validate(annotation, data, header="Invalid resume data: ")
        self.texts[key] = encode_value(fitted, f"resume data of step {node.id!r}", packing)

    def make_state(self) -> dict[str, str | None]:
        """Return the changes of the run's state: a given state replaces it, a new run gets its model's defaults.

        Raises `InputInvalid` where the model does not allow it.
        """
        if self.options.state is None and self.header.status != StoredStatus.PENDING:
            return {}
        workflow, given = workflow_at(self.graph, ()), with_text_keys(self.options.state or {}, "state")
        state = {**given, **view_of_state(workflow, given)} if workflow.state is not None else dict(given)
        # A state that is given replaces the old one whole: keys that it does not have are deleted.
        deleted: dict[str, str | None] = dict.fromkeys(self.executor.store.state(self.header.run_id))
        return deleted | encode_all(state, self.executor.settings.packing)


def _declared_types(node: Node) -> tuple[Any, Any]:
    """Return the types of input and output that a step or nested workflow declares; None for those not checked."""
    match body_of(node):
        case StepBody(step=step, validate=True):
            return step.input, step.output
        case NestedBody(definition=definition, validate=True):
            return definition.input, definition.output
        case _:
            return None, None


def _declares_input(node: Node) -> bool:
    return _declares_input(node.body_node) if isinstance(node, Foreach) else _declared_types(node)[0] is not None


def _check_input(node: Node, plain: Any, header: str) -> None:
    if isinstance(node, Foreach):
        for item in _items(plain, header):
            _check_input(node.body_node, item, header)
    elif (annotation := _declared_types(node)[0]) is not None:
        validate(annotation, plain, header=header)


def _check_output(node: Node, plain: Any, header: str) -> None:
    if isinstance(node, Foreach):
        for item in _items(plain, header):
            _check_output(node.body_node, item, header)
    elif (annotation := _declared_types(node)[1]) is not None:
        validate(annotation, plain, header=header)


def _items(plain: Any, header: str) -> list[Any] | tuple[Any, ...]:
    if not isinstance(plain, list | tuple):
        issue = Issue("", "list_type", f"a foreach works on a list, not on {type(plain).__name__}")
        raise InputInvalid([issue], header=header)
    return plain
