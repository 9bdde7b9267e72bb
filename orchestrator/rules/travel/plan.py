"""The plan of a time travel: the way to the target, the target itself, and what follows it.

What stands before the target is carried over (`carried_over`). The target starts anew. What comes after it is deleted,
but steps that had suspended there may get resume data when the run comes to them again. Of the blocks around the
target, the unfinished arms of a parallel go on too, and those of a branch that were not chosen are skipped. A loop or
foreach that had not ended goes on where it was; one that had ended begins anew. Where a gap is found, nothing is
written.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.errors import GraphChanged, StepNotFound, StepNotSuspended
from orchestrator.rules.change import CreateActivation, UpdateRun
from orchestrator.rules.events import make_workflow_start
from orchestrator.rules.graph import Branch, Foreach, Loop, Nested, Node, Parallel, Path, Step, Wait
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
from orchestrator.rules.pending_resumes import PendingResumes, Progress, activation_key, begin_resumed, ranges
from orchestrator.rules.plan import Admission, Done, Plan, begin_items, begin_node, new_activation, root_activation
from orchestrator.rules.travel.carried_over import CarriedOver
from orchestrator.rules.travel.request import TravelRequest
from orchestrator.rules.value_ids import make_travel_resume_id


@dataclass(slots=True)
class TravelPlan:
    """The plan of a time travel, and what the engine must write with it."""

    plan: Plan
    drop: tuple[str, ...] = ()  # paths of the activations to delete
    copies: dict[str, str] = field(default_factory=dict)  # new ids of values that must be copied, by their old ids
    target_input: str = ""  # id of the value that the target gets
    begins: bool = False  # no entry stands before the target
    resumed: dict[str, Path] = field(default_factory=dict)  # steps that get the resume data, by its new id


def plan_travel(request: TravelRequest) -> TravelPlan:
    """Plan a time travel.

    Raises `GraphChanged` where something before the target is missing, and `StepNotSuspended` where there is resume
    data but no step to get it.
    """
    return _Traveler(request).go()


class _Traveler:
    """Walks from the start of a run to the target, and writes the plan on the way."""

    def __init__(self, request: TravelRequest) -> None:
        self.request = request
        self.graph = request.graph
        self.plan = Plan(request.graph, "", request.header.quiet, generation=request.header.generation + 1)
        self.carried = CarriedOver(request, self.plan)
        self.kept = self.carried.kept
        self.pending = PendingResumes()
        self.travel = TravelPlan(self.plan, copies=self.carried.copies)

    def go(self) -> TravelPlan:
        """Make the plan."""
        plan, header, carried = self.plan, self.request.header, self.carried
        if not header.input:
            carried.missing = "the payload of the first step"
        start = carried.begin((), Done(header.input))
        plan.events.append(make_workflow_start(start.output))
        plan.ops.append(CreateActivation(root_activation(self.graph)))
        # The run header comes before what the walk writes, but the walk must find what is pending for it first.
        about = len(plan.ops)
        self._enter_scope((), (), start)
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
            "per_step": self.request.per_step,
        }
        pending = self.pending.texts(self.request.fresh)
        known: RunHeaderFields = {
            "fingerprint": self.graph.fingerprint,
            "input": start.output,
            "pending_resumes": self.request.fresh if pending else "",
        }
        plan.ops.insert(about, UpdateRun({**cleared, **running, **known}))
        plan.values.update(pending)
        plan.ops = begin_resumed(self.request.fresh, plan.ops, pending)
        self.travel.drop = tuple(format_path(path) for path in self.request.activations if path not in self.kept)
        return self.travel

    # --- the way to the target -----------------------------------------------------------------------------------

    def _enter_scope(self, above: Path, visit: Path, value: Done) -> None:
        """Carry over the entries of a flow before the target, and go on to the entry that leads to it."""
        flow = self.graph.entries(above)
        index = self.request.target[len(above)]
        for earlier in range(index):
            value = self._carry_over(flow[earlier], (*above, earlier), visit, value)
        self._descend(flow[index], (*above, index), visit, value)

    def _carry_over(self, node: Node, path: Path, visit: Path, value: Done) -> Done:
        """Carry over one entry before the target."""
        return self.carried.carry_over(node, path, visit, value)

    def _descend(self, node: Node, path: Path, visit: Path, value: Done) -> None:
        """Go into the node at `path`, which is the target or stands around it."""
        if path == self.request.target:
            self._start_target(node, path, visit, value)
            return
        match node:
            case Nested():
                given = self.carried.begin(path, self._stored_input(node, path, value))
                self._open_block(node, path, visit, given, {})
                self._enter_scope(path, visit, given)
            case Parallel() | Branch():
                self._enter_arm(node, path, visit, value)
            case Loop():
                self._enter_loop(node, path, visit, value)
            case Wait(otherwise=otherwise) if otherwise is not None:
                self._open_block(node, path, visit, value, {})
                self._descend(otherwise, (*path, 0), visit, value)
            case _:
                raise StepNotFound(f"{node.id!r} has no place inside to travel to", workflow_id=self.graph.id)

    def _stored_input(self, node: Node, path: Path, value: Done) -> Done:
        """Return a node's input as it was stored, unless something before the node has changed since."""
        stored = self.carried.find_stored(node, path)
        # What was stored closes a gap: the value was known when the run came here the first time.
        if stored is None or not stored.input or self.carried.changed:
            return value
        self.carried.missing = ""
        return Done(stored.input)

    def _open_block(self, node: Node, path: Path, visit: Path, given: Done, fields: ActivationFields) -> None:
        """Create the open activation of a node around the target."""
        activation = new_activation(self.plan, node, path, visit, given)
        fields = {**fields, "status": ActivationStatus.OPEN.value}
        self.plan.ops.append(CreateActivation(with_fields(activation, **fields)))

    def _enter_loop(self, node: Loop, path: Path, visit: Path, value: Done) -> None:
        """Open a loop in the iteration that it was in, with its stored input, or let it begin anew."""
        body, inside = node.body_node, (*path, 0)
        stored, latest = self.carried.find_stored(node, path), self.carried.find_stored(body, inside)
        whole = inside == self.request.target  # its body is the target, and not a step of it
        # If the body as a whole is the target, and the loop had succeeded or gets another input, the loop begins anew.
        # A step inside the body belongs to the stored iteration, as do the results before it.
        if (
            stored is None
            or latest is None
            or (whole and (self.carried.changed or stored.status == ActivationStatus.SUCCESS))
        ):
            iteration, given = 1, value
        else:
            iteration, given = max(1, stored.iteration), self._stored_input(body, inside, value)
        # What it had kept of finished iterations goes as further ones finish, also where it begins anew.
        kept: ActivationFields = {"iteration": iteration, "finished": stored.finished if stored is not None else ""}
        self._open_block(node, path, visit, self._stored_input(node, path, value), kept)
        self._descend(body, inside, (*visit, iteration), given)

    # --- arms ----------------------------------------------------------------------------------------------------

    def _enter_arm(self, node: Parallel | Branch, path: Path, visit: Path, value: Done) -> None:
        """Open a block of which one arm is the target, or stands around it.

        That arm starts before the others that begin, because a run by single steps lets only one activation start.
        """
        chosen, count = self.request.target[len(path)], len(node.arms)
        others = [(arm, (*path, index)) for index, arm in enumerate(node.arms) if index != chosen]
        stands = isinstance(node, Parallel) or self._choice_stands(node, path, chosen)
        # The block is written before its arms, but its counter is known after them: it counts all that is unfinished.
        block = len(self.plan.ops)
        begins: list[tuple[Node, Path]] = []
        left = 1
        for arm, where in others:
            if self.carried.carry_over_arm(arm, where, visit, value, reuse=stands) is not None:
                continue
            if stands and self._tolerates(node, arm, where):
                self.carried.keep(where)
            elif stands and self.carried.is_awaiting(where):
                self.carried.keep_awaiting(where)
                left += 1
            elif isinstance(node, Branch):
                self.carried.skip(arm, where, visit, value)
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
        self._descend(node.arms[chosen], (*path, chosen), visit, value)
        for arm, where in begins:
            begin_node(self.plan, arm, where, visit, value)

    def _choice_stands(self, node: Branch, path: Path, chosen: int) -> bool:
        """Tell whether the conditions had chosen this arm, and nothing has changed since."""
        stored = self.carried.find_stored(node.arms[chosen], (*path, chosen))
        return stored is not None and stored.status != ActivationStatus.SKIPPED and not self.carried.changed

    def _tolerates(self, node: Parallel | Branch, arm: Node, where: Path) -> bool:
        """Tell whether the arm has failed in a block that allows failures: then it stays as it is."""
        stored = self.carried.find_stored(arm, where)
        failed = stored is not None and stored.status == ActivationStatus.FAILED
        return failed and isinstance(node, Parallel) and node.allow_failure

    # --- the target ----------------------------------------------------------------------------------------------

    def _start_target(self, node: Node, path: Path, visit: Path, value: Done) -> None:
        """Start the target anew, or a foreach with what it had not finished."""
        carried = self.carried
        # Where no entry was passed, the caller may leave the input out: the run gets none, as at a start without one.
        if carried.missing and carried.passed:
            text = f"nothing is known that {node.id!r} could get: give `input`, or {carried.missing} in `context`"
            raise GraphChanged(text, run_id=self.request.header.run_id, workflow_id=self.graph.id)
        self.travel.target_input, self.travel.begins = value.output, not carried.passed
        if self.request.resume:
            self._plan_resumes(node, visit)
        self.plan.admission = Admission.ONE if self.request.per_step else Admission.ALL
        # A foreach that had not succeeded goes on where it was: its finished items need not run again.
        stored = carried.find_stored(node, path)
        if isinstance(node, Foreach) and stored is not None and not carried.changed:
            progress = self._find_progress(stored, visit)
            if stored.status != ActivationStatus.SUCCESS and progress.total and progress.pending_children:
                self._continue_foreach(node, path, visit, stored, progress)
                return
        begin_node(self.plan, node, path, visit, value)

    def _find_progress(self, foreach: Activation, visit: Path) -> Progress:
        """Return how far a foreach had come. Finished items count only in the same visit."""
        items = [self.request.activations.get((*foreach.at, index)) for index in range(foreach.total)]
        begun = 1 + max((index for index, item in enumerate(items) if item is not None), default=-1)
        # The items of another iteration had other inputs.
        same = visits(foreach) == visit
        done = [index for index, item in enumerate(items) if same and item and item.status == ActivationStatus.SUCCESS]
        return Progress(foreach.total, begun, ranges(done))

    def _keep_items(self, foreach: Activation, progress: Progress) -> None:
        """Keep the finished items of a foreach."""
        for first, end in progress.done:
            for index in range(first, end):
                self.carried.keep((*foreach.at, index))

    def _continue_foreach(self, node: Foreach, path: Path, visit: Path, stored: Activation, progress: Progress) -> None:
        """Open a foreach that had come some way: finished items stay, the others run again."""
        self._keep_items(stored, progress)
        counts: ActivationFields = {
            "pending_children": progress.pending_children,
            "total": progress.total,
            "next_item": progress.begun,
            "concurrency": stored.concurrency,
        }
        self._open_block(node, path, visit, Done(stored.input), counts)
        self.carried.copy_items(stored, [*progress.unfinished_items(), *range(progress.begun, progress.total)])
        begin_items(self.plan, node, path, visit, progress, stored.concurrency)
        if self.plan.admission is Admission.ONE:
            self.plan.admission = Admission.NONE

    # --- resume data ---------------------------------------------------------------------------------------------

    def _plan_resumes(self, node: Node, visit: Path) -> None:
        """Address the resume data: to the steps at the target or behind it that had suspended, else to the target."""
        payloads = {
            activation.at: activation.suspend
            for activation in self.request.activations.values()
            if self._has_suspended(activation)
        }
        # A caller may also say of a step that it has suspended, as in a new run.
        payloads |= {
            path: override.suspend for path, override in self.carried.overrides.items() if override.is_suspended
        }
        payloads = {path: payload for path, payload in payloads.items() if self._follows(path)}
        # A step can always begin as a resumed one. A block cannot, because nothing says which of its steps is meant.
        if not payloads and isinstance(node, Step):
            stored = self.carried.find_stored(node, self.request.target)
            payloads = {self.request.target: stored.suspend if stored is not None else ""}
        if not payloads:
            text = f"nothing at {node.id!r} or behind it had suspended: there is nobody for the resume data"
            raise StepNotSuspended(text, run_id=self.request.header.run_id, workflow_id=self.graph.id)
        resumes: dict[str, tuple[str, str]] = {}
        items: dict[str, Progress] = {}
        for number, (path, payload) in enumerate(sorted(payloads.items())):
            key = make_travel_resume_id(self.request.fresh, number)
            self.travel.resumed[key] = path
            resumes[activation_key(format_path(path), format_path(self._first_visit(path, visit)))] = (key, payload)
            items |= self._foreach_progress(path, visit)
        self.pending = PendingResumes(resumes, items)

    def _foreach_progress(self, path: Path, visit: Path) -> dict[str, Progress]:
        """Return the progress of each foreach around a step that had suspended. Its finished items stay."""
        found: dict[str, Progress] = {}
        for cut in range(1, len(path)):
            stored = self.request.activations.get(path[:cut])
            if stored is not None and stored.total and isinstance(self.graph.node(path[:cut]), Foreach):
                here = self._first_visit(path[:cut], visit)
                progress = self._find_progress(stored, here)
                self._keep_items(stored, progress)
                found[activation_key(stored.path, format_path(here))] = progress
        return found

    def _has_suspended(self, activation: Activation) -> bool:
        """Tell whether the activation is a suspended step that the graph still has."""
        try:
            return (
                activation.status == ActivationStatus.SUSPENDED and self.graph.node(activation.at).id == activation.step
            )
        except LookupError:
            return False

    def _follows(self, path: Path) -> bool:
        """Tell whether the node at `path` is the target, is inside it, or comes after it.

        What stands beside the target has not been undone, so it needs no resume data.
        """
        target = self.request.target
        same = _shared_length(path, target)
        if same == len(target):
            return True
        # Later entries of a flow come after the target; other arms and items stand beside it.
        around = self.graph.node(path[:same]) if same else None
        return len(path) > same and path[same] > target[same] and isinstance(around, Nested | None)

    def _first_visit(self, path: Path, visit: Path) -> Path:
        """Return the visit in which the run will first come to `path`. Loops behind the target begin anew."""
        shared = path[: _shared_length(path, self.request.target)]
        loops = sum(isinstance(self.graph.node(shared[:cut]), Loop) for cut in range(1, len(shared) + 1))
        here = visit[: min(loops, len(visit))]
        return (*here, *(1 for _ in range(self.graph.loops(path) - len(here))))


def _shared_length(one: Path, other: Path) -> int:
    """Count the indices that two paths share, from the outside in."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
