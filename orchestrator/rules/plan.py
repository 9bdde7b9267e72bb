"""The plan of a commit, and what starting a node of the graph means.

`flow` decides what follows from an outcome; whatever it decides to start is started here, in one way: a new run, the
next entry of a flow, another iteration, an arm, an item, or the target of a time travel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, assert_never

from orchestrator.rules.change import CreateActivation, Doc, Op, StartNextItem, UpdateActivation
from orchestrator.rules.graph import Branch, Foreach, Graph, Loop, Nested, Node, Parallel, Path, Sleep, Step, Wait
from orchestrator.rules.model import (
    Activation,
    ActivationStatus,
    Phase,
    Role,
    RunHeader,
    format_path,
    pack_route,
    unpack_route,
)
from orchestrator.rules.pending_resumes import NO_PENDING_RESUMES, PendingResumes, Progress

MAX_NEEDS = 500  # value ids that an activation lists for its claim to bring; more are read by the step itself


@dataclass(frozen=True, slots=True)
class Done:
    """Ended well with the value `output`; `needs` are ids of further values it refers to."""

    output: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """Ended badly with the error value `error`."""

    error: str
    tripwire: bool = False


Result = Done | Failed


@dataclass(frozen=True, slots=True)
class ClaimedNode:
    """A claimed activation: the graph, its activation and the header. `token` is for a successor that may be claimed."""

    graph: Graph
    header: RunHeader
    activation: Activation
    token: str
    inline: bool = False

    @property
    def path(self) -> Path:
        return self.activation.at

    @property
    def node(self) -> Node:
        return self.graph.node(self.path)


class Admission(Enum):
    """Which of the activations that follow may go on (per-step runs hold the others back)."""

    ALL = "open"
    ONE = "first"
    NONE = "shut"


@dataclass(slots=True)
class Plan:
    """What a commit will do: operations, events, values the core itself makes, and whether the run ends by a word."""

    graph: Graph
    token: str
    quiet: bool = False
    admission: Admission = Admission.ALL
    generation: int = 0
    inline: str = ""  # the route whose successor may be claimed too
    pending_resumes: PendingResumes = NO_PENDING_RESUMES
    ops: list[Op] = field(default_factory=list)
    events: list[Doc] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    settle_now: bool = False

    def start(self, activation: Activation, *, control: bool = False, delay: int = 0) -> None:
        """Start an activation: claimed by this commit if it is a control activation and the token is free."""
        if self.admission is Admission.NONE:
            self.ops.append(CreateActivation(replace(activation, status=ActivationStatus.PAUSED.value)))
            return
        if self.admission is Admission.ONE:
            self.admission = Admission.NONE
        claim = self._take() if control else ""
        self.ops.append(CreateActivation(activation, claim, delay))

    def reopen_block(self, path: str, fields: Mapping[str, Any]) -> UpdateActivation:
        """An existing block becomes an activation again, claimed by this commit if the token is free."""
        return UpdateActivation(path, {"status": ActivationStatus.QUEUED.value, "attempt": 0, **fields}, self._take())

    def emit(self, kind: str, activation: Activation, **more: Any) -> None:
        """An event about an activation, unless its workflow is quiet."""
        if not (self.quiet or activation.quiet):
            about = {"path": activation.path, "visit": activation.visit, "step": activation.step}
            self.events.append({"type": kind, **about, **more})

    def record_result(self, activation: Activation, result: Result) -> None:
        """The activation ends with this result."""
        match result:
            case Done(output=output):
                self.ops.append(
                    UpdateActivation(activation.path, {"status": ActivationStatus.SUCCESS.value, "output": output})
                )
                self.emit("workflow-step-result", activation, status="success", output=output)
            case Failed(error=error, tripwire=tripwire):
                fields = {"status": ActivationStatus.FAILED.value, "error": error, "tripwire": tripwire}
                self.ops.append(UpdateActivation(activation.path, fields))
                self.emit("workflow-step-result", activation, status="failed", error=error)
            case _:
                assert_never(result)
        self.emit("workflow-step-finish", activation)

    def _take(self) -> str:
        token, self.token = self.token, ""
        return token

    def end(self) -> Plan:
        """The finished plan. A lone plain step that may go on inline is claimed too."""
        puts = [
            index
            for index, op in enumerate(self.ops)
            if isinstance(op, CreateActivation) and op.activation.status == ActivationStatus.QUEUED
        ]
        if self.inline and self.token and len(puts) == 1:
            put = self.ops[puts[0]]
            if (
                isinstance(put, CreateActivation)
                and put.activation.path
                and not put.claim
                and _fits(self, put.activation)
            ):
                self.ops[puts[0]] = replace(put, claim=self._take())
        return self


def _fits(plan: Plan, activation: Activation) -> bool:
    node = plan.graph.node(activation.at)
    if not isinstance(node, Step) or not node.inline:
        return False
    here, there = activation.where, unpack_route(plan.inline)
    # A time limit is its message's: what goes on inline would share what the step before has left of it.
    if here.has_limit or there.has_limit:
        return False
    return replace(here, name="") == replace(there, name="") and here.task is None


def root_activation(graph: Graph) -> Activation:
    """The activation of the run itself: its activation is the rest."""
    root = Activation(
        path="", step=graph.id, component="RUN", role=Role.BLOCK, phase=Phase.SETTLE, status=ActivationStatus.OPEN.value
    )
    return replace(root, route=_route(graph.flow[0], graph.id))


def _route(node: Node, name: str) -> str:
    return pack_route(replace(node.route, name=name, task=None, time_limit=None, soft_time_limit=None))


def begin_node(plan: Plan, node: Node, path: Path, visit: Path, given: Done, role: Role = Role.STEP) -> None:
    """Start `node` at `path` with the value `given`."""
    activation = new_activation(plan, node, path, visit, given, role)
    match node:
        case Step(control=control):
            plan.start(plan.pending_resumes.apply_to(activation), control=control)
        case Sleep(seconds=seconds) if (
            seconds is None or plan.admission is Admission.NONE
        ):  # held back, it begins with its word
            plan.start(replace(activation, phase=Phase.COMPUTE_SLEEP), control=True)
        case Sleep(seconds=seconds):
            _sleep(plan, activation, seconds or 0.0)
        case Wait():
            plan.start(replace(activation, phase=Phase.AWAIT_EVENT), control=True)
        case Nested() if (
            node.checks or plan.admission is Admission.NONE
        ):  # held back as a whole, it has no activations inside
            plan.start(replace(activation, phase=Phase.VALIDATE_INPUT), control=True)
        case Nested():
            plan.ops.append(CreateActivation(replace(activation, status=ActivationStatus.OPEN.value)))
            plan.emit("workflow-step-start", activation, input=activation.input)
            begin_node(plan, node.flow[0], (*path, 0), visit, given)
        case Parallel(arms=arms):
            count = len(arms)
            plan.ops.append(
                CreateActivation(
                    replace(
                        activation,
                        status=ActivationStatus.OPEN.value,
                        pending_children=count,
                        total=count,
                        next_item=count,
                    )
                )
            )
            for index, arm in enumerate(arms):
                begin_node(plan, arm, (*path, index), visit, given)
        case Branch():
            plan.start(replace(activation, phase=Phase.EVALUATE_BRANCH), control=True)
        case Loop(body_node=body):
            plan.ops.append(CreateActivation(replace(activation, status=ActivationStatus.OPEN.value, iteration=1)))
            begin_node(plan, body, (*path, 0), (*visit, 1), given)
        case Foreach():
            plan.start(replace(activation, phase=Phase.FAN_OUT), control=True)
        case _:
            assert_never(node)


def new_activation(plan: Plan, node: Node, path: Path, visit: Path, given: Done, role: Role = Role.STEP) -> Activation:
    """The activation of an activation of `node`, queued."""
    block = isinstance(node, Parallel | Branch | Loop)
    return Activation(
        path=format_path(path),
        step=node.body_node.id if isinstance(node, Foreach) else node.id,
        component=node.component if isinstance(node, Step) else type(node).__name__.upper(),
        role=(Role.BLOCK if block else role).value,
        visit=format_path(visit),
        route=pack_route(node.route),
        quiet=plan.quiet or role is Role.ITEM or block,
        input=given.output,
        needs=" ".join(given.needs[:MAX_NEEDS]),
        scope=len(plan.graph.scope(path)),
    )


def _sleep(plan: Plan, activation: Activation, seconds: float) -> None:
    asleep = replace(activation, phase=Phase.SLEEP_OVER, status=ActivationStatus.SLEEPING.value)
    plan.start(asleep, delay=round(max(seconds, 0.0) * 1000))
    plan.emit("workflow-step-waiting", activation, input=activation.input)


def item_template(plan: Plan, node: Foreach, path: Path, visit: Path) -> Activation:
    """An item of a foreach, all but its place."""
    item = new_activation(plan, node.body_node, (*path, 0), visit, Done(""), Role.ITEM)
    if isinstance(node.body_node, Nested):
        return replace(item, phase=Phase.VALIDATE_INPUT.value)
    return item


def begin_items(plan: Plan, node: Foreach, path: Path, visit: Path, progress: Progress, width: int) -> None:
    """Start the items of a foreach whose block stands: those that had not ended well, and as many more as may run."""
    where, when = format_path(path), format_path(visit)
    template, prefix = item_template(plan, node, path, visit), items_prefix(where, when, plan.generation)
    again = progress.unfinished()
    for index in again:
        item = replace(template, path=f"{where}.{index}", index=index, input=f"{prefix}.{index}")
        plan.ops.append(CreateActivation(plan.pending_resumes.apply_to(item)))
    free = max(0, min(width - len(again), progress.total - progress.begun))
    plan.ops.extend([StartNextItem(where, template, prefix)] * free)


def items_prefix(path: str, visit: str, generation: int) -> str:
    """What the ids of the item inputs of one foreach begin with; `.<index>` follows."""
    return f"{path}@{visit}@{generation}"
