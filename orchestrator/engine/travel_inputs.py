"""What a caller takes along on a time travel: read, checked against what is declared, and made into stored values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from orchestrator.codec import encode, validate, with_text_keys
from orchestrator.definitions.bodies import NestedBody, StepBody, body_of, step_of
from orchestrator.engine.client_ops import UNSET
from orchestrator.engine.declarations import view_of_state, workflow_at
from orchestrator.engine.executor import Executor
from orchestrator.engine.read.results import StepResult, StepStatus
from orchestrator.engine.read.value_reader import Values, encode_value
from orchestrator.errors import InputInvalid, Issue
from orchestrator.host import new_token
from orchestrator.rules import travel
from orchestrator.rules.graph import Branch, Foreach, Graph, Node, Parallel, Path
from orchestrator.rules.model import Activation, RunHeader, StoredStatus
from orchestrator.rules.value_ids import make_arm_id, make_override_id, make_travel_input_id

_FAILED = frozenset({StepStatus.FAILED, StepStatus.CANCELED})


@dataclass(frozen=True, slots=True)
class TravelOptions:
    """What a caller says of a time travel. ABSENT is nothing; None is a value."""

    ids: Sequence[str]
    input: Any = UNSET
    context: Mapping[str, Any] = field(default_factory=dict)
    nested_context: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    resume_data: Any = UNSET
    state: Mapping[str, Any] | None = None
    request_context: Mapping[str, Any] = field(default_factory=dict, repr=False)
    per_step: bool = False

    def check(self) -> None:
        """Raises TypeError where something has a shape in which it says nothing."""
        _mapping("context", self.context, "step records by step id")
        _mapping("nested_context", self.nested_context, "step records by nested workflow and step id")
        for name, activations in self.nested_context.items():
            _mapping(f"nested_context[{name!r}]", activations, "step records by step id")
        if self.state is not None:
            _mapping("state", self.state, "values", str_keys=False)
        _mapping("request_context", self.request_context, "values", str_keys=False)
        for ids, activation in self.told():
            _said(ids, activation)

    def told(self) -> Iterator[tuple[list[str], Any]]:
        """The records that the caller gives, by the ids of their steps from the outside in."""
        yield from (([name], activation) for name, activation in self.context.items() if name != "input")
        for outer, inner in self.nested_context.items():
            yield from (
                ([*outer.split("."), name], activation) for name, activation in inner.items() if name != "input"
            )


def _mapping(name: str, value: object, what: str, *, str_keys: bool = True) -> None:
    if not isinstance(value, Mapping) or (str_keys and not all(isinstance(key, str) for key in value)):
        raise TypeError(f"`{name}` is a mapping of {what}, not {value!r}")


def _said(ids: Sequence[str], activation: Any) -> StepResult:
    """A given activation, whether it is a step result or a dict like one. Raises TypeError where it is neither."""
    where = f"the record of step {'.'.join(ids)!r} in `context`"
    if isinstance(activation, StepResult):
        return activation
    if not isinstance(activation, Mapping):
        raise TypeError(f"{where} is a StepResult, or a dict with `status` and `output`, not {activation!r}")
    words = {name: activation[name] for name in StepResult.__dataclass_fields__ if name in activation}
    try:
        status = StepStatus(words.pop("status", StepStatus.SUCCESS))
    except ValueError as error:
        raise TypeError(f"{where} has no status of a step: {activation['status']!r}") from error
    said = StepResult(status, **words)
    for name in ("started_at", "ended_at", "suspended_at", "resumed_at"):
        _ms(getattr(said, name), f"`{name}` in {where}")
    return said


def _ms(moment: Any, where: str = "a time") -> int:
    match moment:
        case None:
            return 0
        case datetime():
            return round(moment.timestamp() * 1000)
        case int() | float() if not isinstance(moment, bool):
            return round(moment)
        case _:
            raise TypeError(f"{where} is a datetime or milliseconds since 1970, not {moment!r}")


class TravelInputs:
    """The values of one time travel. `texts` are those to write, by their ids."""

    def __init__(self, executor: Executor, header: RunHeader, graph: Graph, target: Path, wish: TravelOptions) -> None:
        self.executor = executor
        self.header = header
        self.graph = graph
        self.target = target
        self.wish = wish
        self.texts: dict[str, str] = {}
        self._fresh = new_token()
        self._name = graph.node(target).id

    def trip(self, activations: Mapping[Path, Activation]) -> travel.TravelRequest:
        """All that the core has to know. Raises `StepNotFound` for a given step that is not there."""
        wish = self.wish
        return travel.TravelRequest(
            self.graph,
            self.header,
            activations,
            self.target,
            overrides={**self._given(), **self._arms_before()},
            input=None if wish.input is UNSET else self._keep_input(wish.input),
            resume=wish.resume_data is not UNSET,
            per_step=wish.per_step,
            fresh=self._fresh,
        )

    def _keep(self, key: str, value: Any, what: str) -> str:
        self.texts[key] = encode_value(value, what, self.executor.settings.max_payload_bytes)
        return key

    def _keep_input(self, value: Any) -> str:
        return self._keep(make_travel_input_id(self._fresh), value, f"input of step {self._name!r}")

    def _keep_part(self, number: int, part: str, value: Any, step: str) -> str:
        return self._keep(make_override_id(self._fresh, number, part), value, f"{part} of step {step!r} in `context`")

    def _given(self) -> dict[Path, travel.StepOverride]:
        given: dict[Path, travel.StepOverride] = {}
        for number, (ids, activation) in enumerate(self.wish.told()):
            path, said, name = travel.find_target(self.graph, ids), _said(ids, activation), ".".join(ids)
            made = said.status == StepStatus.SUCCESS or (said.status in _FAILED and said.output is not None)
            if made and not isinstance(activation, StepResult):  # what comes from a run may be as it was there
                _check_made(self.graph.node(path), said.output, f"Invalid output of step {name!r} in `context`: ")
            parts = {"input": said.payload, "suspend": said.suspend_payload, "resume": said.resume_payload}
            keys = {
                part: self._keep_part(number, part, value, name) for part, value in parts.items() if value is not None
            }
            given[path] = travel.StepOverride(
                output=self._keep_part(number, "output", said.output, name) if made else "",
                has_ended=made,
                is_suspended=said.status == StepStatus.SUSPENDED,
                started_at=_ms(said.started_at),
                ended_at=_ms(said.ended_at),
                suspended_at=_ms(said.suspended_at),
                resumed_at=_ms(said.resumed_at),
                **keys,
            )
        return given

    def _arms_before(self) -> dict[Path, travel.StepOverride]:
        """Where the target gets the dict of a block, the input is also what its arms have made."""
        path = travel.entry_before(self.graph, self.target)
        node = self.graph.node(path) if path is not None else None
        if path is None or not isinstance(node, Parallel | Branch) or not isinstance(self.wish.input, Mapping):
            return {}
        return {
            (*path, index): travel.StepOverride(
                self._keep(make_arm_id(self._fresh, index), self.wish.input[arm.id], f"output of step {arm.id!r}")
            )
            for index, arm in enumerate(node.arms)
            if arm.id in self.wish.input
        }

    def check(self, journey: travel.TravelPlan) -> None:
        """Check what the journey hands out, and add the resume data. Raises `InputInvalid`."""
        self._check_input(journey)
        node = self.graph.node(self.target)
        if _takes(node) or (isinstance(node, Foreach) and journey.target_input in self.texts):
            _check_given(node, self._plain(journey, journey.target_input), f"Invalid input of step {node.id!r}: ")
        for key, path in journey.resumed.items():
            self._resume(key, self.graph.node(path))

    def _check_input(self, journey: travel.TravelPlan) -> None:
        """Where the input of a workflow is new, it has to be what that declares."""
        scope = self.graph.scope(self.target)
        if self.wish.input is UNSET:
            scope, is_new = (), journey.begins and not self.header.input
        else:
            is_new = self.target[len(scope)] == 0
        workflow = workflow_at(self.graph, scope)
        if is_new and workflow.validate_inputs and workflow.input is not None:
            fitted = validate(workflow.input, self._plain(journey, journey.target_input))
            if journey.target_input in self.texts:
                limit = self.executor.settings.max_payload_bytes
                self.texts[journey.target_input] = encode_value(fitted, f"input of workflow {workflow.id!r}", limit)

    def _plain(self, journey: travel.TravelPlan, key: str) -> Any:
        known = {**journey.plan.values, **self.texts}
        return Values(self.executor.store.values, self.header.run_id, known).plain(key)

    def _resume(self, key: str, node: Node) -> None:
        step = step_of(node)
        annotation = None if step is None else step.resume
        data, limit = self.wish.resume_data, self.executor.settings.max_payload_bytes
        fitted = data if annotation is None else validate(annotation, data, header="Invalid resume data: ")
        self.texts[key] = encode_value(fitted, f"resume data of step {node.id!r}", limit)

    def state(self) -> dict[str, str | None]:
        """What becomes of the run's state: a given one takes its place, a new run gets the model's defaults.

        Raises `InputInvalid` where the model does not allow it.
        """
        if self.wish.state is None and self.header.status != StoredStatus.PENDING:
            return {}
        workflow, given = workflow_at(self.graph, ()), with_text_keys(self.wish.state or {}, "state")
        state = {**given, **view_of_state(workflow, given)} if workflow.state is not None else dict(given)
        limit = self.executor.settings.max_payload_bytes
        gone: dict[str, str | None] = dict.fromkeys(self.executor.store.state(self.header.run_id))
        return gone | {key: encode(value, where=f"state[{key!r}]", limit=limit) for key, value in state.items()}


def _declared(node: Node) -> tuple[Any, Any]:
    """The types that a step or nested workflow checks its input against, and that it declares for its output."""
    match body_of(node):
        case StepBody(step=step, validate=True):
            return step.input, step.output
        case NestedBody(definition=definition, validate=True):
            return definition.input, definition.output
        case _:
            return None, None


def _takes(node: Node) -> bool:
    return _takes(node.body_node) if isinstance(node, Foreach) else _declared(node)[0] is not None


def _check_given(node: Node, plain: Any, header: str) -> None:
    if isinstance(node, Foreach):
        for item in _items(plain, header):
            _check_given(node.body_node, item, header)
    elif (annotation := _declared(node)[0]) is not None:
        validate(annotation, plain, header=header)


def _check_made(node: Node, plain: Any, header: str) -> None:
    if isinstance(node, Foreach):
        for item in _items(plain, header):
            _check_made(node.body_node, item, header)
    elif (annotation := _declared(node)[1]) is not None:
        validate(annotation, plain, header=header)


def _items(plain: Any, header: str) -> list[Any] | tuple[Any, ...]:
    if not isinstance(plain, list | tuple):
        issue = Issue("", "list_type", f"a foreach works on a list, not on {type(plain).__name__}")
        raise InputInvalid([issue], header=header)
    return plain
