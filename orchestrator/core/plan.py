"""The plan of a commit, and what starting a node of the graph means.

`flow` decides what follows from an outcome; whatever it decides to start is started here, in one way: a new run, the
next entry of a flow, another iteration, an arm, an item, or the target of a time travel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, assert_never

from orchestrator.core.changes import Doc, Next, Op, Put, Set
from orchestrator.core.graph import Branch, Foreach, Graph, Loop, Nested, Node, Parallel, Path, Sleep, Step, Wait
from orchestrator.core.promises import NOTHING, Progress, Promises
from orchestrator.core.records import Header, Phase, Record, Role, Status, dotted, pack_route, unpack_route

MOST_NEEDS = 500  # value ids that a record lists for its claim to bring; more are read by the step itself


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
class Spot:
    """A claimed activation: the graph, its record and the header. `token` is for a successor that may be claimed."""

    graph: Graph
    header: Header
    record: Record
    token: str
    inline: bool = False

    @property
    def path(self) -> Path:
        return self.record.at

    @property
    def node(self) -> Node:
        return self.graph.node(self.path)


class Gate(Enum):
    """Which of the activations that follow may go on (per-step runs hold the others back)."""

    OPEN = "open"
    FIRST = "first"
    SHUT = "shut"


@dataclass(slots=True)
class Plan:
    """What a commit will do: operations, events, values the core itself makes, and whether the run ends by a word."""

    graph: Graph
    token: str
    quiet: bool = False
    gate: Gate = Gate.OPEN
    life: int = 0
    inline: str = ""  # the route whose successor may be claimed too
    promises: Promises = NOTHING
    ops: list[Op] = field(default_factory=list)
    events: list[Doc] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    rest_now: bool = False

    def live(self, record: Record, *, control: bool = False, delay: int = 0) -> None:
        """Start an activation: claimed by this commit if it is a control activation and the token is free."""
        if self.gate is Gate.SHUT:
            self.ops.append(Put(replace(record, status=Status.PAUSED.value)))
            return
        if self.gate is Gate.FIRST:
            self.gate = Gate.SHUT
        claim = self._take() if control else ""
        self.ops.append(Put(record, claim, delay))

    def control(self, path: str, fields: Mapping[str, Any]) -> Set:
        """An existing block becomes an activation again, claimed by this commit if the token is free."""
        return Set(path, {"status": Status.QUEUED.value, "attempt": 0, **fields}, self._take())

    def tell(self, kind: str, record: Record, **more: Any) -> None:
        """An event about a record, unless its workflow is quiet."""
        if not (self.quiet or record.quiet):
            about = {"path": record.path, "visit": record.visit, "step": record.step}
            self.events.append({"type": kind, **about, **more})

    def settle(self, record: Record, result: Result) -> None:
        """The record ends with this result."""
        match result:
            case Done(output=output):
                self.ops.append(Set(record.path, {"status": Status.SUCCESS.value, "output": output}))
                self.tell("workflow-step-result", record, status="success", output=output)
            case Failed(error=error, tripwire=tripwire):
                fields = {"status": Status.FAILED.value, "error": error, "tripwire": tripwire}
                self.ops.append(Set(record.path, fields))
                self.tell("workflow-step-result", record, status="failed", error=error)
            case _:
                assert_never(result)
        self.tell("workflow-step-finish", record)

    def _take(self) -> str:
        token, self.token = self.token, ""
        return token

    def end(self) -> Plan:
        """The finished plan. A lone plain step that may go on inline is claimed too."""
        puts = [index for index, op in enumerate(self.ops) if isinstance(op, Put) and op.record.status == Status.QUEUED]
        if self.inline and self.token and len(puts) == 1:
            put = self.ops[puts[0]]
            if isinstance(put, Put) and put.record.path and not put.claim and _fits(self, put.record):
                self.ops[puts[0]] = replace(put, claim=self._take())
        return self


def _fits(plan: Plan, record: Record) -> bool:
    node = plan.graph.node(record.at)
    if not isinstance(node, Step) or not node.inline:
        return False
    here, there = record.where, unpack_route(plan.inline)
    return replace(here, name="") == replace(there, name="") and here.task is None


def root_record(graph: Graph) -> Record:
    """The record of the run itself: its activation is the rest."""
    root = Record(path="", step=graph.id, component="RUN", role=Role.BLOCK, phase=Phase.REST, status=Status.OPEN.value)
    return replace(root, route=_route(graph.flow[0], graph.id))


def _route(node: Node, name: str) -> str:
    return pack_route(replace(node.route, name=name, task=None, time_limit=None, soft_time_limit=None))


def begin_node(plan: Plan, node: Node, path: Path, visit: Path, given: Done, role: Role = Role.STEP) -> None:
    """Start `node` at `path` with the value `given`."""
    record = new_record(plan, node, path, visit, given, role)
    match node:
        case Step(control=control):
            plan.live(plan.promises.kept(record), control=control)
        case Sleep(seconds=seconds) if seconds is None or plan.gate is Gate.SHUT:  # held back, it begins with its word
            plan.live(replace(record, phase=Phase.NAP), control=True)
        case Sleep(seconds=seconds):
            _sleep(plan, record, seconds or 0.0)
        case Wait():
            plan.live(replace(record, phase=Phase.LISTEN), control=True)
        case Nested() if node.checks or plan.gate is Gate.SHUT:  # held back as a whole, it has no records inside
            plan.live(replace(record, phase=Phase.ENTER), control=True)
        case Nested():
            plan.ops.append(Put(replace(record, status=Status.OPEN.value)))
            plan.tell("workflow-step-start", record, input=record.input)
            begin_node(plan, node.flow[0], (*path, 0), visit, given)
        case Parallel(arms=arms):
            count = len(arms)
            plan.ops.append(Put(replace(record, status=Status.OPEN.value, left=count, total=count, next=count)))
            for index, arm in enumerate(arms):
                begin_node(plan, arm, (*path, index), visit, given)
        case Branch():
            plan.live(replace(record, phase=Phase.CHOOSE), control=True)
        case Loop(body_node=body):
            plan.ops.append(Put(replace(record, status=Status.OPEN.value, iteration=1)))
            begin_node(plan, body, (*path, 0), (*visit, 1), given)
        case Foreach():
            plan.live(replace(record, phase=Phase.SPLIT), control=True)
        case _:
            assert_never(node)


def new_record(plan: Plan, node: Node, path: Path, visit: Path, given: Done, role: Role = Role.STEP) -> Record:
    """The record of an activation of `node`, queued."""
    block = isinstance(node, Parallel | Branch | Loop)
    return Record(
        path=dotted(path),
        step=node.body_node.id if isinstance(node, Foreach) else node.id,
        component=node.component if isinstance(node, Step) else type(node).__name__.upper(),
        role=(Role.BLOCK if block else role).value,
        visit=dotted(visit),
        route=pack_route(node.route),
        quiet=plan.quiet or role is Role.ITEM or block,
        input=given.output,
        needs=" ".join(given.needs[:MOST_NEEDS]),
        scope=len(plan.graph.scope(path)),
    )


def _sleep(plan: Plan, record: Record, seconds: float) -> None:
    asleep = replace(record, phase=Phase.WAKE, status=Status.SLEEPING.value)
    plan.live(asleep, delay=round(max(seconds, 0.0) * 1000))
    plan.tell("workflow-step-waiting", record, input=record.input)


def item_template(plan: Plan, node: Foreach, path: Path, visit: Path) -> Record:
    """An item of a foreach, all but its place."""
    item = new_record(plan, node.body_node, (*path, 0), visit, Done(""), Role.ITEM)
    if isinstance(node.body_node, Nested):
        return replace(item, phase=Phase.ENTER.value)
    return item


def begin_items(plan: Plan, node: Foreach, path: Path, visit: Path, progress: Progress, width: int) -> None:
    """Start the items of a foreach whose block stands: those that had not ended well, and as many more as may run."""
    where, when = dotted(path), dotted(visit)
    template, prefix = item_template(plan, node, path, visit), items_prefix(where, when, plan.life)
    again = progress.again()
    for index in again:
        item = replace(template, path=f"{where}.{index}", index=index, input=f"{prefix}.{index}")
        plan.ops.append(Put(plan.promises.kept(item)))
    free = max(0, min(width - len(again), progress.total - progress.begun))
    plan.ops.extend([Next(where, template, prefix)] * free)


def items_prefix(path: str, visit: str, life: int) -> str:
    """What the ids of the item inputs of one foreach begin with; `.<index>` follows."""
    return f"{path}@{visit}@{life}"
