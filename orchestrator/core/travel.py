"""Time travel: what a run looks like when it goes on from one of its steps, and what of its past is kept.

Everything before the target is kept as it was recorded, or taken from what the caller gives; the target starts anew;
everything after it goes away. Where the past has gaps that the graph does not allow, nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.core import values
from orchestrator.core.changes import Next, Put, Run
from orchestrator.core.graph import Branch, Foreach, Graph, Loop, Nested, Node, Parallel, Path, Sleep, Step, Wait
from orchestrator.core.plan import Done, Gate, Plan, begin_node, item_template, items_prefix, new_record, root_record
from orchestrator.core.records import Header, Record, Role, RunState, Status, changed, dotted
from orchestrator.errors import GraphChanged, StepNotFound


@dataclass(frozen=True, slots=True)
class Trip:
    """Where a run travels to, and with what.

    `records` are those of the present visits, by path; `given` are outputs (value ids) that the caller gives for
    steps, by path. `input` replaces what the target would get, `resume` makes it a resumed one. `fresh` makes new
    value ids.
    """

    graph: Graph
    header: Header
    records: Mapping[Path, Record]
    target: Path
    given: Mapping[Path, str] = field(default_factory=dict)
    input: str | None = None
    resume: str | None = None
    per_step: bool = False
    fresh: str = ""


@dataclass(slots=True)
class Journey:
    """The plan of a time travel: what to write, which records go away, and which values to copy to which ids."""

    plan: Plan
    drop: tuple[str, ...] = ()
    copies: dict[str, str] = field(default_factory=dict)


def place(graph: Graph, ids: Sequence[str]) -> Path:
    """The path that a list of step ids leads to, from the outside in. Raises `StepNotFound`, naming it."""
    path: Path = ()
    if not ids:
        raise StepNotFound("time travel needs a step to go to", workflow_id=graph.id)
    for depth, step_id in enumerate(ids):
        inside = depth == 0 or isinstance(graph.node(path), Nested)
        found = graph.find(path, step_id) if inside else None
        if found is None:
            where = ".".join(ids[:depth]) or graph.id
            raise StepNotFound(f"there is no step {step_id!r} in {where}", workflow_id=graph.id)
        path = found
    return path


def travel(trip: Trip) -> Journey:
    """Raises `GraphChanged` where something before the target is neither recorded nor given."""
    return _Traveler(trip).go()


class _Traveler:
    def __init__(self, trip: Trip) -> None:
        self.trip = trip
        self.graph = trip.graph
        life = trip.header.life + 1
        self.plan = Plan(trip.graph, "", trip.header.quiet, life=life)
        self.kept: set[Path] = set()
        self.copies: dict[str, str] = {}
        self.made = 0

    def go(self) -> Journey:
        plan, header = self.plan, self.trip.header
        plan.ops.append(Put(root_record(self.graph)))
        cleared = {"outcome": "", "failure": "", "tripwire": False, "closed": False, "output": "", "error": ""}
        running = {"status": RunState.RUNNING.value, "life": plan.life, "per_step": self.trip.per_step}
        plan.ops.append(Run({**cleared, **running, "fingerprint": self.graph.fingerprint}))
        self._scope((), (), Done(header.input))
        drop = tuple(dotted(path) for path in self.trip.records if path not in self.kept)
        return Journey(plan, drop, self.copies)

    def _scope(self, above: Path, visit: Path, value: Done) -> None:
        flow = self.graph.entries(above)
        index = self.trip.target[len(above)]
        for before in range(index):
            value = self._past(flow[before], (*above, before), visit, value)
        self._toward(flow[index], (*above, index), visit, value)

    def _toward(self, node: Node, path: Path, visit: Path, value: Done) -> None:
        """The node at `path` is the target, or stands around it."""
        if path == self.trip.target:
            self._arrive(node, path, visit, value)
            return
        match node:
            case Nested():
                stored = self.trip.records.get(path)
                given = Done(stored.input) if stored is not None and stored.input else value
                self._open(node, path, visit, given)
                self._scope(path, visit, given)
            case Parallel(arms=arms) | Branch(arms=arms):
                self._arm(node, arms, path, visit, value)
            case Loop(body_node=body):
                stored = self.trip.records.get(path)
                iteration = max(1, stored.iteration) if stored is not None else 1
                self._open(node, path, visit, value, iteration=iteration)
                self._toward(body, (*path, 0), (*visit, iteration), value)
            case Wait(otherwise=otherwise) if otherwise is not None:
                self._open(node, path, visit, value)
                self._toward(otherwise, (*path, 0), visit, value)
            case _:
                raise StepNotFound(f"{node.id!r} has no place inside to travel to", workflow_id=self.graph.id)

    def _open(self, node: Node, path: Path, visit: Path, given: Done, **fields: int) -> None:
        record = new_record(self.plan, node, path, visit, given)
        self.plan.ops.append(Put(changed(record, status=Status.OPEN.value, **fields)))

    def _arm(self, node: Node, arms: Sequence[Node], path: Path, visit: Path, value: Done) -> None:
        """One arm of a block is the target, or around it; of the others stays what had succeeded."""
        count, chosen = len(arms), self.trip.target[len(path)]
        self._open(node, path, visit, value, left=1, total=count, next=count)
        for index, arm in enumerate(arms):
            where = (*path, index)
            if index == chosen:
                self._toward(arm, where, visit, value)
            elif not self._keep(arm, where, visit):
                skipped = new_record(self.plan, arm, where, visit, value)
                self.plan.ops.append(Put(replace(skipped, status=Status.SKIPPED.value)))

    def _arrive(self, node: Node, path: Path, visit: Path, value: Done) -> None:
        given = value if self.trip.input is None else Done(self.trip.input)
        self.plan.gate = Gate.FIRST if self.trip.per_step else Gate.OPEN
        stored = self.trip.records.get(path)
        if isinstance(node, Foreach) and stored is not None and stored.total and self.trip.input is None:
            self._items(node, path, visit, stored)
            return
        begin_node(self.plan, node, path, visit, given)
        if self.trip.resume is not None:
            self._resumed(path, stored)

    def _resumed(self, path: Path, stored: Record | None) -> None:
        """The target gets resume data, and what it had suspended with."""
        for index, op in enumerate(self.plan.ops):
            if isinstance(op, Put) and op.record.path == dotted(path):
                said = stored.suspend if stored is not None else ""
                fields = {"resume": self.trip.resume, "resumed": True, "suspend": said}
                self.plan.ops[index] = replace(op, record=changed(op.record, **fields))

    def _items(self, node: Foreach, path: Path, visit: Path, stored: Record) -> None:
        """A foreach that had got somewhere: finished items stay, the others run again."""
        begun = [self.trip.records.get((*path, index)) for index in range(stored.total)]
        done = [item for item in begun if item is not None and item.status == Status.SUCCESS]
        first = 1 + max((index for index, item in enumerate(begun) if item is not None), default=-1)
        block = new_record(self.plan, node, path, visit, Done(stored.input))
        counts = {"left": stored.total - len(done), "total": stored.total, "next": first, "width": stored.width}
        self.plan.ops.append(Put(changed(block, status=Status.OPEN.value, **counts)))
        for item in done:
            self.kept |= {place for place in self.trip.records if place[: len(item.at)] == item.at}
        template = item_template(self.plan, node, path, visit)
        again = [item for item in begun if item is not None and item.status != Status.SUCCESS]
        for item in again:
            fields = {"path": item.path, "index": item.index, "input": item.input}
            self.plan.ops.append(Put(changed(template, **fields)))
        prefix = items_prefix(dotted(path), dotted(visit), self.plan.life)
        before = items_prefix(dotted(path), dotted(visit), self.trip.header.life)
        self.copies |= {f"{before}.{index}": f"{prefix}.{index}" for index in range(first, stored.total)}
        free = max(0, min(stored.width - len(again), stored.total - first))
        self.plan.ops.extend([Next(dotted(path), template, prefix)] * free)

    # --- the past ------------------------------------------------------------------------------------------------

    def _past(self, node: Node, path: Path, visit: Path, value: Done) -> Done:
        """What the node at `path`, which stands before the target, has made. It stays as it was, or is as given."""
        match node:
            case Parallel(arms=arms) | Branch(arms=arms):
                return self._past_arms(node, arms, path, visit, value)
            case Loop(body_node=body):
                return self._past_body(node, body, path, (*path, 0), visit, value)
            case Foreach(body_node=body):
                return self._past_body(node, body, path, path, visit, value)
            case Step() | Nested() | Wait() | Sleep():
                return self._kept(node, path, visit, value)

    def _kept(self, node: Node, path: Path, visit: Path, value: Done) -> Done:
        output = self._keep(node, path, visit)
        if output is not None:
            return Done(output)
        if isinstance(node, Sleep):
            return value
        self._refuse_gap(node)
        return Done("")

    def _refuse_gap(self, node: Node) -> None:
        """A run that has recorded steps must have recorded this one too; a new run may begin anywhere."""
        if any(record.role == Role.STEP for record in self.trip.records.values()):
            text = (
                f"step {node.id!r} stands before the target and is neither recorded as a success nor given in `context`"
            )
            raise GraphChanged(text, run_id=self.trip.header.run_id, workflow_id=self.graph.id)

    def _keep(self, node: Node, path: Path, visit: Path) -> str | None:
        """The output of a node that is given or recorded as a success, which stays; None where it is neither."""
        given = self.trip.given.get(path)
        if given is not None:
            role = Role.STEP
            record = new_record(self.plan, node, path, visit, Done(""), role)
            self.plan.ops.append(Put(replace(record, status=Status.SUCCESS.value, output=given)))
            return given
        stored = self.trip.records.get(path)
        if stored is None or stored.status != Status.SUCCESS or stored.step != _name(node):
            return None
        self.kept |= {place for place in self.trip.records if place[: len(path)] == path}
        return stored.output

    def _past_body(self, node: Node, body: Node, path: Path, result: Path, visit: Path, value: Done) -> Done:
        """A loop or foreach, whose output is known by its body's id."""
        given = self.trip.given.get(result)
        if given is None:
            return Done(self._keep(node, path, visit) or value.output)
        record = new_record(self.plan, node, path, visit, value)
        self.plan.ops.append(Put(replace(record, status=Status.SUCCESS.value, output=given)))
        if result != path:
            inner = new_record(self.plan, body, result, (*visit, 1), value)
            self.plan.ops.append(Put(replace(inner, status=Status.SUCCESS.value, output=given)))
        return Done(given)

    def _past_arms(self, node: Node, arms: Sequence[Node], path: Path, visit: Path, value: Done) -> Done:
        places = [(arm, (*path, index)) for index, arm in enumerate(arms)]
        stored = self.trip.records.get(path)
        untouched = not any(where in self.trip.given for _, where in places)
        if untouched and stored is not None and stored.status == Status.SUCCESS:
            self.kept |= {place for place in self.trip.records if place[: len(path)] == path}
            return Done(stored.output)
        outputs = {arm.id: output for arm, where in places if (output := self._keep(arm, where, visit)) is not None}
        missing = next((arm for arm in arms if arm.id not in outputs), None)
        if missing is not None and (isinstance(node, Parallel) or not outputs):
            self._refuse_gap(missing)
        self.made += 1
        key = f"{self.trip.fresh}.{self.made}"
        self.plan.values[key] = values.refers_dict(outputs)
        record = new_record(self.plan, node, path, visit, value)
        self.plan.ops.append(Put(replace(record, status=Status.SUCCESS.value, output=key)))
        return Done(key, tuple(outputs.values()))


def _name(node: Node) -> str:
    return node.body_node.id if isinstance(node, Foreach) else node.id
