"""The plan of a commit, and what starting a node of the graph means.

`flow` decides what follows from an outcome. Whatever it starts is started here, in one way: the first entry of a run,
the next entry of a flow, another iteration, an arm, an item, or the target of a time travel. This module must not know
what an outcome was.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import assert_never

from orchestrator.rules import events
from orchestrator.rules.bounds import to_delay
from orchestrator.rules.change import CreateActivation, Doc, Op, StartNextItem, UpdateActivation
from orchestrator.rules.graph import Branch, Foreach, Graph, Loop, Nested, Node, Parallel, Path, Sleep, Step, Wait
from orchestrator.rules.model import (
    Activation,
    ActivationFields,
    ActivationStatus,
    Phase,
    Role,
    RunHeader,
    format_path,
    pack_route,
    unpack_route,
)
from orchestrator.rules.pending_resumes import Progress
from orchestrator.rules.value_ids import make_item_id, make_items_prefix

# Items that one commit starts. While a store works on a commit, the run waits; on Redis, everybody does.
MAX_STARTED = 200
MAX_NEEDS = 500  # value ids that an activation lists for its claim to bring; the step itself reads more


@dataclass(frozen=True, slots=True)
class Done:
    """The result of a node that has succeeded."""

    output: str  # id of the value
    needs: tuple[str, ...] = ()  # ids of the values that it refers to, which the next claim is to bring


@dataclass(frozen=True, slots=True)
class Failed:
    """The result of a node that has failed."""

    error: str  # id of the error
    tripwire: bool = False  # the step ended the run on purpose, with a reason


Result = Done | Failed


@dataclass(frozen=True, slots=True)
class ClaimedNode:
    """A claimed activation with all that its worker knows of the run."""

    graph: Graph
    header: RunHeader
    activation: Activation
    token: str  # a fresh lease token, for one successor that the commit may claim; empty: none
    inline: bool = False  # the worker may go on with a plain step, too

    @property
    def path(self) -> Path:
        return self.activation.at

    @property
    def node(self) -> Node:
        return self.graph.node(self.path)


class Admission(Enum):
    """The number of activations that this commit may start. Those beyond are paused (`per_step`)."""

    ALL = "all"
    ONE = "one"  # the first entry of a run or workflow, the first arm of a block
    NONE = "none"


@dataclass(slots=True)
class Plan:
    """The change in the making: what a commit will do."""

    graph: Graph
    token: str  # the lease token for one successor; empty once it is taken
    quiet: bool = False  # emits no events of steps
    admission: Admission = Admission.ALL  # what may still start
    generation: int = 0  # part of the ids of item inputs
    inline: str = ""  # route of the worker's step: a plain step with the same one may be claimed, too
    ops: list[Op] = field(default_factory=list)
    events: list[Doc] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)  # values that the rules make: references of joins, manifests
    drop_values: tuple[str, ...] = ()  # ids of values that nothing refers to any more
    settle_now: bool = False  # a step has ended the run: it settles whatever else is live

    def start(self, activation: Activation, *, control: bool = False, delay: int = 0) -> None:
        """Start an activation. A control activation is claimed by this commit, if the token is still free."""
        if self.admission is Admission.NONE:
            self.ops.append(CreateActivation(replace(activation, status=ActivationStatus.PAUSED.value)))
            return
        if self.admission is Admission.ONE:
            self.admission = Admission.NONE
        # Claimed in the commit that creates it, so it has a lease from the start, and needs no message.
        claim = self._take() if control else ""
        self.ops.append(CreateActivation(activation, claim, delay))

    def reopen_block(self, path: str, fields: ActivationFields) -> UpdateActivation:
        """Give a block work again: its join or its condition. This commit claims it, if the token is still free."""
        return UpdateActivation(path, {"status": ActivationStatus.QUEUED.value, "attempt": 0, **fields}, self._take())

    def emit(self, activation: Activation, event: Doc) -> None:
        """Emit an event about an activation, unless the run or the activation is quiet."""
        if not (self.quiet or activation.quiet):
            self.events.append(event)

    def record_result(self, activation: Activation, result: Result) -> None:
        """End the activation with this result."""
        match result:
            case Done(output=output):
                self.ops.append(
                    UpdateActivation(activation.path, {"status": ActivationStatus.SUCCESS.value, "output": output})
                )
                self.emit(activation, events.make_step_success(activation, output))
            case Failed(error=error, tripwire=tripwire):
                fields: ActivationFields = {
                    "status": ActivationStatus.FAILED.value,
                    "error": error,
                    "tripwire": tripwire,
                }
                self.ops.append(UpdateActivation(activation.path, fields))
                self.emit(activation, events.make_step_failure(activation, error))
            case _:
                assert_never(result)
        self.emit(activation, events.make_step_finish(activation))

    def _take(self) -> str:
        # A worker runs one activation at a time, so one commit claims at most one.
        token, self.token = self.token, ""
        return token

    def end(self) -> Plan:
        """Return the finished plan. A single plain step that may go on inline is claimed too."""
        queued = [
            index
            for index, op in enumerate(self.ops)
            if isinstance(op, CreateActivation) and op.activation.status == ActivationStatus.QUEUED
        ]
        # Of several that could run at once, none is kept: other workers begin all of them without waiting.
        if self.inline and self.token and len(queued) == 1:
            op = self.ops[queued[0]]
            if isinstance(op, CreateActivation) and op.activation.path and not op.claim and _fits(self, op.activation):
                self.ops[queued[0]] = replace(op, claim=self._take())
        return self


def _fits(plan: Plan, activation: Activation) -> bool:
    node = plan.graph.node(activation.at)
    if not isinstance(node, Step) or not node.inline:
        return False
    # Another queue, priority or time limit would not be kept by going on in this worker. The name is for monitors only.
    here, there = activation.where, unpack_route(plan.inline)
    # A time limit is its message's: what goes on inline would share what the step before has left of it.
    if here.has_limit or there.has_limit:
        return False
    return replace(here, name="") == replace(there, name="") and here.task is None


def root_activation(graph: Graph) -> Activation:
    """Make the run's own activation. Its work is to settle the run."""
    root = Activation(
        path="", step=graph.id, component="RUN", role=Role.BLOCK, phase=Phase.SETTLE, status=ActivationStatus.OPEN.value
    )
    # The settling runs where the first step runs: there is a worker for that queue.
    return replace(root, route=_route(graph.flow[0], graph.id))


def _route(node: Node, name: str) -> str:
    # Without the time limits of the step: they must not cut the settling off.
    return pack_route(replace(node.route, name=name, task=None, time_limit=None, soft_time_limit=None))


def begin_node(plan: Plan, node: Node, path: Path, visit: Path, given: Done) -> None:
    """Start `node` at `path` with the value `given`. An item is started by its foreach (`begin_items`)."""
    activation = new_activation(plan, node, path, visit, given)
    match node:
        case Step(control=control):
            plan.start(activation, control=control)
        # A sleep that is paused begins on its resume, so its end cannot be computed yet.
        case Sleep(seconds=seconds) if seconds is None or plan.admission is Admission.NONE:
            plan.start(replace(activation, phase=Phase.COMPUTE_SLEEP), control=True)
        case Sleep(seconds=seconds):
            _sleep(plan, activation, seconds or 0.0)
        case Wait():
            plan.start(replace(activation, phase=Phase.AWAIT_EVENT), control=True)
        # A nested workflow is paused as a whole, before any activation inside it exists.
        case Nested() if node.checks or plan.admission is Admission.NONE:
            plan.start(replace(activation, phase=Phase.VALIDATE_INPUT), control=True)
        case Nested():
            plan.ops.append(CreateActivation(replace(activation, status=ActivationStatus.OPEN.value)))
            plan.emit(activation, events.make_step_start(activation))
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
    """Make a queued activation of `node`."""
    # Blocks and items show under their children or their foreach, and so emit no events of their own.
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
        sending=int(node.route.task is not None),
    )


def _sleep(plan: Plan, activation: Activation, seconds: float) -> None:
    asleep = replace(activation, phase=Phase.SLEEP_OVER, status=ActivationStatus.SLEEPING.value)
    plan.start(asleep, delay=to_delay(seconds, "a sleep"))
    plan.emit(activation, events.make_step_waiting(activation))


def item_template(plan: Plan, node: Foreach, path: Path, visit: Path) -> Activation:
    """Make an item of a foreach but for its index."""
    item = new_activation(plan, node.body_node, (*path, 0), visit, Done(""), Role.ITEM)
    if isinstance(node.body_node, Nested):
        return replace(item, phase=Phase.VALIDATE_INPUT.value)
    return item


def begin_items(plan: Plan, node: Foreach, path: Path, visit: Path, progress: Progress, width: int) -> None:
    """Start the items of a foreach whose block is open.

    Those that had begun and not succeeded start again, and as many more as may run at once.
    """
    where = format_path(path)
    template = item_template(plan, node, path, visit)
    prefix = make_items_prefix(where, format_path(visit), plan.generation)
    # Items that had begun get their old places. The others are created by the block's counter, like any item.
    again = progress.unfinished_items()
    for index in again:
        item = replace(template, path=f"{where}.{index}", index=index, input=make_item_id(prefix, index))
        plan.ops.append(CreateActivation(item))
    start_items(plan, node, path, visit, min(width - len(again), progress.total - progress.begun))


def start_items(plan: Plan, node: Foreach, path: Path, visit: Path, free: int) -> None:
    """Start so many further items of a foreach whose block is open, in this commit or in some that follow."""
    where = format_path(path)
    item = StartNextItem(
        where, item_template(plan, node, path, visit), make_items_prefix(where, format_path(visit), plan.generation)
    )
    plan.ops.extend([item] * min(free, MAX_STARTED))
    # The block is claimed, or queued, for the rest. So the rest has a timer, like any work that somebody has to do.
    if free > MAX_STARTED:
        plan.ops.append(plan.reopen_block(where, {"phase": Phase.START_ITEMS.value}))
