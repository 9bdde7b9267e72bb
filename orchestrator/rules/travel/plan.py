"""Time travel: what a run looks like when it goes on from one of its steps.

What stands before the target is `past`'s business; the target starts anew; everything after it goes away, but for
steps that had suspended, where there is resume data for them. Of the blocks around the target, the arms of a parallel
that are not finished go on too; those of a branch that were not chosen are skipped. A loop or foreach that had not
ended goes on where it was, one that had begins anew. Where the past has gaps, nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.errors import GraphChanged, StepNotFound, StepNotSuspended
from orchestrator.rules.change import CreateActivation, UpdateRun
from orchestrator.rules.events import make_workflow_start
from orchestrator.rules.graph import Branch, Foreach, Graph, Loop, Nested, Node, Parallel, Path, Step, Wait
from orchestrator.rules.model import (
    Activation,
    ActivationFields,
    ActivationStatus,
    RunHeaderFields,
    StoredStatus,
    format_path,
    visits,
    with_fields,
)
from orchestrator.rules.pending_resumes import PendingResumes, Progress, activation_key, ranges
from orchestrator.rules.plan import Admission, Done, Plan, begin_items, begin_node, new_activation, root_activation
from orchestrator.rules.travel.carried_over import CarriedOver, TravelRequest
from orchestrator.rules.value_ids import make_travel_resume_id


@dataclass(slots=True)
class TravelPlan:
    """The plan of a time travel: what to write, which activations go away, and which values to copy to which ids.

    `given` is the value that the target gets; `begins` says that no entry stands before it. `resumed` are the steps
    that get the resume data, by the ids that it must be written under.
    """

    plan: Plan
    drop: tuple[str, ...] = ()
    copies: dict[str, str] = field(default_factory=dict)
    given: str = ""
    begins: bool = False
    resumed: dict[str, Path] = field(default_factory=dict)


def find_target(graph: Graph, ids: Sequence[str]) -> Path:
    """The path that a list of step ids leads to, from the outside in. Raises `StepNotFound`, naming it."""
    path: Path = ()
    if not ids:
        raise StepNotFound("time travel needs a step to go to", workflow_id=graph.id)
    for depth, step_id in enumerate(ids):
        around = graph.node(path) if depth else None
        where = ".".join(ids[:depth]) or graph.id
        if isinstance(around, Foreach):
            text = f"{where} runs once for each item: travel to {where} as a whole, and not to {step_id!r} in it"
            raise StepNotFound(text, workflow_id=graph.id)
        found = graph.find(path, step_id) if around is None or isinstance(around, Nested) else None
        if found is None:
            raise StepNotFound(f"there is no step {step_id!r} in {where}", workflow_id=graph.id)
        path = found
    return path


def plan_travel(trip: TravelRequest) -> TravelPlan:
    """Raises `GraphChanged` where something before the target is missing, `StepNotSuspended` where nobody is there
    for the resume data."""
    return _Traveler(trip).go()


class _Traveler:
    def __init__(self, trip: TravelRequest) -> None:
        self.trip = trip
        self.graph = trip.graph
        self.plan = Plan(trip.graph, "", trip.header.quiet, generation=trip.header.generation + 1)
        self.past = CarriedOver(trip, self.plan)
        self.kept = self.past.kept
        self.journey = TravelPlan(self.plan, copies=self.past.copies)

    def go(self) -> TravelPlan:
        plan, header, past = self.plan, self.trip.header, self.past
        if not header.input:
            past.missing = "the payload of the first step"
        start = past.begin((), Done(header.input))
        plan.events.append(make_workflow_start(start.output))
        plan.ops.append(CreateActivation(root_activation(self.graph)))
        about = len(plan.ops)
        self._scope((), (), start)
        cleared: RunHeaderFields = {
            "outcome": "",
            "failure": "",
            "tripwire": False,
            "closed": False,
            "output": "",
            "error": "",
        }
        running: RunHeaderFields = {
            "status": StoredStatus.RUNNING.value,
            "generation": plan.generation,
            "per_step": self.trip.per_step,
        }
        known: RunHeaderFields = {
            "fingerprint": self.graph.fingerprint,
            "input": start.output,
            "pending_resumes": plan.pending_resumes.text(),
        }
        plan.ops.insert(about, UpdateRun({**cleared, **running, **known}))
        self.journey.drop = tuple(format_path(path) for path in self.trip.activations if path not in self.kept)
        return self.journey

    # --- the way to the target -----------------------------------------------------------------------------------

    def _scope(self, above: Path, visit: Path, value: Done) -> None:
        flow = self.graph.entries(above)
        index = self.trip.target[len(above)]
        for earlier in range(index):
            value = self._kept(flow[earlier], (*above, earlier), visit, value)
        self._toward(flow[index], (*above, index), visit, value)

    def _kept(self, node: Node, path: Path, visit: Path, value: Done) -> Done:
        return self.past.carry_over(node, path, visit, value)

    def _toward(self, node: Node, path: Path, visit: Path, value: Done) -> None:
        """The node at `path` is the target, or stands around it."""
        if path == self.trip.target:
            self._arrive(node, path, visit, value)
            return
        match node:
            case Nested():
                given = self.past.begin(path, self._given(node, path, value))
                self._open(node, path, visit, given, {})
                self._scope(path, visit, given)
            case Parallel() | Branch():
                self._arm(node, path, visit, value)
            case Loop():
                self._loop(node, path, visit, value)
            case Wait(otherwise=otherwise) if otherwise is not None:
                self._open(node, path, visit, value, {})
                self._toward(otherwise, (*path, 0), visit, value)
            case _:
                raise StepNotFound(f"{node.id!r} has no place inside to travel to", workflow_id=self.graph.id)

    def _given(self, node: Node, path: Path, value: Done) -> Done:
        """What a node around the target has got: as recorded, unless something before it is another by now."""
        stored = self.past.recorded(node, path)
        if stored is None or not stored.input or self.past.changed:
            return value
        self.past.missing = ""
        return Done(stored.input)

    def _open(self, node: Node, path: Path, visit: Path, given: Done, fields: ActivationFields) -> None:
        activation = new_activation(self.plan, node, path, visit, given)
        fields = {**fields, "status": ActivationStatus.OPEN.value}
        self.plan.ops.append(CreateActivation(with_fields(activation, **fields)))

    def _loop(self, node: Loop, path: Path, visit: Path, value: Done) -> None:
        """A loop goes on with the iteration it was in, which has its recorded input, or begins anew."""
        body, inside = node.body_node, (*path, 0)
        stored, latest = self.past.recorded(node, path), self.past.recorded(body, inside)
        whole = inside == self.trip.target  # its body is the target, and not a step of it
        if (
            stored is None
            or latest is None
            or (whole and (self.past.changed or stored.status == ActivationStatus.SUCCESS))
        ):
            iteration, given = 1, value
        else:
            iteration, given = max(1, stored.iteration), self._given(body, inside, value)
        self._open(node, path, visit, self._given(node, path, value), {"iteration": iteration})
        self._toward(body, inside, (*visit, iteration), given)

    # --- arms ----------------------------------------------------------------------------------------------------

    def _arm(self, node: Parallel | Branch, path: Path, visit: Path, value: Done) -> None:
        """One arm of a block is the target, or around it; it comes first of those that begin."""
        chosen, count = self.trip.target[len(path)], len(node.arms)
        others = [(arm, (*path, index)) for index, arm in enumerate(node.arms) if index != chosen]
        stands = isinstance(node, Parallel) or self._stands(node, path, chosen)
        block = len(self.plan.ops)
        begins: list[tuple[Node, Path]] = []
        left = 1
        for arm, where in others:
            if self.past.carry_over_arm(arm, where, visit, value, recorded=stands) is not None:
                continue
            if stands and self._tolerates(node, arm, where):
                self.past.keep(where)
            elif stands and self.past.is_held(where):
                self.past.hold(where)
                left += 1
            elif isinstance(node, Branch):
                self.past.skip(arm, where, visit, value)
            else:
                begins.append((arm, where))
        activation = new_activation(self.plan, node, path, visit, value)
        counts: ActivationFields = {
            "status": ActivationStatus.OPEN.value,
            "pending_children": left + len(begins),
            "total": count,
            "next_item": count,
        }
        self.plan.ops.insert(block, CreateActivation(with_fields(activation, **counts)))
        self._toward(node.arms[chosen], (*path, chosen), visit, value)
        for arm, where in begins:
            begin_node(self.plan, arm, where, visit, value)

    def _stands(self, node: Branch, path: Path, chosen: int) -> bool:
        """Whether the conditions had chosen this arm, and nothing has changed since: then the others chosen stay."""
        stored = self.past.recorded(node.arms[chosen], (*path, chosen))
        return stored is not None and stored.status != ActivationStatus.SKIPPED and not self.past.changed

    def _tolerates(self, node: Parallel | Branch, arm: Node, where: Path) -> bool:
        stored = self.past.recorded(arm, where)
        failed = stored is not None and stored.status == ActivationStatus.FAILED
        return failed and isinstance(node, Parallel) and node.allow_failure

    # --- the target ----------------------------------------------------------------------------------------------

    def _arrive(self, node: Node, path: Path, visit: Path, value: Done) -> None:
        past = self.past
        if past.missing and past.passed:
            text = f"nothing is known that {node.id!r} could get: give `input`, or {past.missing} in `context`"
            raise GraphChanged(text, run_id=self.trip.header.run_id, workflow_id=self.graph.id)
        self.journey.given, self.journey.begins = value.output, not past.passed
        if self.trip.resume:
            self._promise(node, visit)
        self.plan.admission = Admission.ONE if self.trip.per_step else Admission.ALL
        stored = past.recorded(node, path)
        if isinstance(node, Foreach) and stored is not None and not past.changed:
            progress = self._progress(stored, visit)
            if stored.status != ActivationStatus.SUCCESS and progress.total and progress.pending_children:
                self._items(node, path, visit, stored, progress)
                return
        begin_node(self.plan, node, path, visit, value)

    def _progress(self, foreach: Activation, visit: Path) -> Progress:
        """How far a foreach had come, as far as its finished items count in this visit."""
        items = [self.trip.activations.get((*foreach.at, index)) for index in range(foreach.total)]
        begun = 1 + max((index for index, item in enumerate(items) if item is not None), default=-1)
        same = visits(foreach) == visit
        done = [index for index, item in enumerate(items) if same and item and item.status == ActivationStatus.SUCCESS]
        return Progress(foreach.total, begun, ranges(done))

    def _keep_items(self, foreach: Activation, progress: Progress) -> None:
        for first, end in progress.done:
            for index in range(first, end):
                self.past.keep((*foreach.at, index))

    def _items(self, node: Foreach, path: Path, visit: Path, stored: Activation, progress: Progress) -> None:
        """A foreach that had got somewhere: finished items stay, the others run again."""
        self._keep_items(stored, progress)
        counts: ActivationFields = {
            "pending_children": progress.pending_children,
            "total": progress.total,
            "next_item": progress.begun,
            "concurrency": stored.concurrency,
        }
        self._open(node, path, visit, Done(stored.input), counts)
        self.past.copy_items(stored, [*progress.unfinished(), *range(progress.begun, progress.total)])
        begin_items(self.plan, node, path, visit, progress, stored.concurrency)
        if self.plan.admission is Admission.ONE:
            self.plan.admission = Admission.NONE

    # --- resume data ---------------------------------------------------------------------------------------------

    def _promise(self, node: Node, visit: Path) -> None:
        """The resume data goes to the steps at or behind the target that had suspended, else to the target."""
        had = {
            activation.at: activation.suspend
            for activation in self.trip.activations.values()
            if self._has_suspended(activation)
        }
        had |= {path: told.suspend for path, told in self.past.given.items() if told.held}
        had = {path: said for path, said in had.items() if self._follows(path)}
        if not had and isinstance(node, Step):
            stored = self.past.recorded(node, self.trip.target)
            had = {self.trip.target: stored.suspend if stored is not None else ""}
        if not had:
            text = f"nothing at {node.id!r} or behind it had suspended: there is nobody for the resume data"
            raise StepNotSuspended(text, run_id=self.trip.header.run_id, workflow_id=self.graph.id)
        resumes: dict[str, tuple[str, str]] = {}
        items: dict[str, Progress] = {}
        for number, (path, said) in enumerate(sorted(had.items())):
            key = make_travel_resume_id(self.trip.fresh, number)
            self.journey.resumed[key] = path
            resumes[activation_key(format_path(path), format_path(self._visit(path, visit)))] = (key, said)
            items |= self._around(path, visit)
        self.plan.pending_resumes = PendingResumes(resumes, items)

    def _around(self, path: Path, visit: Path) -> dict[str, Progress]:
        """The progress of each foreach around a step that had suspended. Its finished items stay."""
        found: dict[str, Progress] = {}
        for cut in range(1, len(path)):
            stored = self.trip.activations.get(path[:cut])
            if stored is not None and stored.total and isinstance(self.graph.node(path[:cut]), Foreach):
                here = self._visit(path[:cut], visit)
                progress = self._progress(stored, here)
                self._keep_items(stored, progress)
                found[activation_key(stored.path, format_path(here))] = progress
        return found

    def _has_suspended(self, activation: Activation) -> bool:
        """Whether it is a suspended step that the graph still has."""
        try:
            return (
                activation.status == ActivationStatus.SUSPENDED and self.graph.node(activation.at).id == activation.step
            )
        except LookupError:
            return False

    def _follows(self, path: Path) -> bool:
        """Whether the place is at the target, in it, or comes after it; what stands beside it goes on by itself."""
        target = self.trip.target
        same = _common(path, target)
        if same == len(target):
            return True
        around = self.graph.node(path[:same]) if same else None
        return len(path) > same and path[same] > target[same] and isinstance(around, Nested | None)

    def _visit(self, path: Path, visit: Path) -> Path:
        """The visit in which the run will first come to the place: loops that are still to come begin anew."""
        shared = path[: _common(path, self.trip.target)]
        loops = sum(isinstance(self.graph.node(shared[:cut]), Loop) for cut in range(1, len(shared) + 1))
        here = visit[: min(loops, len(visit))]
        return (*here, *(1 for _ in range(self.graph.loops(path) - len(here))))


def _common(one: Path, other: Path) -> int:
    """How many places two paths share from the outside in."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
