"""The past of a time travel: what stands before the target, or beside it, and what of that is kept.

Everything stays as it was recorded, or is as the caller says. What had failed or was canceled counts as a success that
made nothing, unless the caller says what. Whatever else is missing is a gap: in a run that has recorded steps it
forbids the travel; a new run may begin anywhere, if only the target gets something.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.errors import GraphChanged
from orchestrator.rules import values
from orchestrator.rules.change import CreateActivation, UpdateActivation
from orchestrator.rules.graph import Branch, Foreach, Graph, Loop, Node, Parallel, Path, Sleep
from orchestrator.rules.model import (
    ENDED,
    Activation,
    ActivationFields,
    ActivationStatus,
    Role,
    RunHeader,
    StoredStatus,
    with_fields,
)
from orchestrator.rules.plan import Done, Plan, new_activation
from orchestrator.rules.value_ids import make_gathered_id, make_item_id, make_items_prefix


@dataclass(frozen=True, slots=True)
class StepOverride:
    """What a caller says of a step: ids of values, and times.

    `made`: it has ended well, with that output. `held`: it has suspended, and not ended.
    """

    output: str = ""
    input: str = ""
    suspend: str = ""
    resume: str = ""
    made: bool = True
    held: bool = False
    started_at: int = 0
    ended_at: int = 0
    suspended_at: int = 0
    resumed_at: int = 0


@dataclass(frozen=True, slots=True)
class TravelRequest:
    """Where a run travels to, and with what.

    `records` are those of the present visits, by path; `given` is what the caller says of steps, by their paths.
    `input` (a value id) is what the target gets: the output of what stands before it. `resume` says that there is
    resume data. `fresh` makes new value ids.
    """

    graph: Graph
    header: RunHeader
    activations: Mapping[Path, Activation]
    target: Path
    given: Mapping[Path, StepOverride] = field(default_factory=dict)
    input: str | None = None
    resume: bool = False
    per_step: bool = False
    fresh: str = ""


def entry_before(graph: Graph, target: Path) -> Path | None:
    """The entry before the target in the innermost flow around it; None where the target begins that flow."""
    depth = len(graph.scope(target))
    return (*target[:depth], target[depth] - 1) if target[depth] else None


class CarriedOver:
    """Keeps the past in a plan.

    `changed` says whether the value that flows on is another than was recorded, `missing` which step should have made
    it but is not known, `passed` whether any entry has been passed.
    """

    def __init__(self, trip: TravelRequest, plan: Plan) -> None:
        self.trip = trip
        self.plan = plan
        self.kept: set[Path] = set()
        self.copies: dict[str, str] = {}
        self.changed = False
        self.missing = ""
        self.passed = False
        self.given = dict(trip.given)
        self._paths = sorted(trip.activations)
        self._before = entry_before(trip.graph, trip.target) if trip.input is not None else None
        self._made = 0
        if trip.input is not None and self._before is not None:
            self._give(trip.input, self._before)

    def _give(self, output: str, path: Path) -> None:
        node = self.trip.graph.node(path)
        if not isinstance(node, Parallel | Branch):
            where = (*path, 0) if isinstance(node, Loop) else path
            self.given[where] = replace(self.given.get(where, StepOverride()), output=output, made=True, held=False)

    # --- what is recorded ----------------------------------------------------------------------------------------

    def recorded(self, node: Node, path: Path) -> Activation | None:
        """The activation of the node at `path`, if it is of that node."""
        found = self.trip.activations.get(path)
        name = node.body_node.id if isinstance(node, Foreach) else node.id
        return found if found is not None and found.step == name else None

    def below(self, path: Path) -> Iterator[Activation]:
        """The activation at `path` and those inside it."""
        behind = (*path[:-1], path[-1] + 1)
        for place in self._paths[bisect_left(self._paths, path) : bisect_left(self._paths, behind)]:
            yield self.trip.activations[place]

    def keep(self, path: Path) -> None:
        """What is recorded at `path` stays, with all inside it."""
        self.kept.update(activation.at for activation in self.below(path))

    def is_held(self, path: Path) -> bool:
        """Whether all that is unfinished at `path` waits for somebody outside."""
        found = {activation.status for activation in self.below(path)}
        return bool(found & _WAITS) and found <= _KEEPS

    def hold(self, path: Path) -> None:
        """What waits at `path` goes on waiting; the items that have not begun there are found in the new life too."""
        self.keep(path)
        for activation in self.below(path):
            if activation.component == "FOREACH" and activation.status == ActivationStatus.OPEN:
                self.copy_items(activation, range(activation.next_item, activation.total))

    def copy_items(self, foreach: Activation, indices: Sequence[int]) -> None:
        """The inputs of these items get the ids that they have in the new life."""
        old = make_items_prefix(foreach.path, foreach.visit, self.trip.header.generation)
        new = make_items_prefix(foreach.path, foreach.visit, self.plan.generation)
        for index in indices:
            item = self.trip.activations.get((*foreach.at, index))
            source = item.input if item is not None and item.input else make_item_id(old, index)
            self.copies[source] = make_item_id(new, index)

    def _is_reset(self, activation: Activation) -> bool:
        canceled = self.trip.header.status == StoredStatus.CANCELED and activation.status not in ENDED
        return canceled or activation.status in (ActivationStatus.FAILED, ActivationStatus.CANCELED)

    def _miss(self, node: Node, what: str = "is neither recorded nor given in `context`") -> None:
        if any(activation.role == Role.STEP for activation in self.trip.activations.values()):
            text = f"step {node.id!r} stands before the target and {what}"
            raise GraphChanged(text, run_id=self.trip.header.run_id, workflow_id=self.trip.graph.id)
        self.changed, self.missing = False, f"step {node.id!r}"

    # --- what goes by --------------------------------------------------------------------------------------------

    def begin(self, scope: Path, value: Done) -> Done:
        """What the flow at `scope` begins with: what flows in, the caller's input, or what a given first step got."""
        graph, target = self.trip.graph, self.trip.target
        if self.trip.input is not None and self._before is None and graph.scope(target) == scope:
            self.changed, self.missing = True, ""
            return Done(self.trip.input)
        told = "" if value.output else self._first_payload(scope)
        if told:
            self.changed, self.missing = True, ""
        return Done(told) if told else value

    def _first_payload(self, scope: Path) -> str:
        first, graph = (*scope, 0), self.trip.graph
        if isinstance(graph.node(first), Loop):  # the last iteration's
            return ""
        arms = [path for path in self.given if path[: len(first)] == first and graph.scope(path) == scope]
        return next((self.given[path].input for path in arms if self.given[path].input), "")

    def carry_over(self, node: Node, path: Path, visit: Path, value: Done) -> Done:
        """What the node at `path`, which stands before the target, has made."""
        self.passed = True
        if isinstance(node, Parallel | Branch):
            return self._arms(node, path, visit, value)
        told = self.given.get((*path, 0) if isinstance(node, Loop) else path)
        stored = self.recorded(node, path)
        if told is not None and told.made:
            return self._set(node, path, visit, value, told)
        if isinstance(node, Sleep) and self.changed:  # it passes on what it gets
            return self._set(node, path, visit, value, StepOverride(output=value.output))
        if stored is None and isinstance(node, Sleep | Loop | Foreach):
            return value
        if stored is None:
            self._miss(node)
            return Done("")
        if stored.status == ActivationStatus.SUCCESS:
            self.keep(path)
            self.changed, self.missing = False, ""
            return Done(stored.output)
        if not self._is_reset(stored):
            self._miss(node, "has not ended: give its output in `context`")
        return self._set(node, path, visit, value, StepOverride())

    def _set(self, node: Node, path: Path, visit: Path, value: Done, told: StepOverride) -> Done:
        """The node has ended well, as told. A loop is known by its body."""
        stored = self.recorded(node, path)
        self._write(node, path, visit, value, told)
        if isinstance(node, Loop):
            turn = max(1, stored.iteration) if stored is not None else 1
            self._write(node.body_node, (*path, 0), (*visit, turn), value, told)
        self.changed, self.missing = True, ""
        return Done(told.output)

    def _write(self, node: Node, path: Path, visit: Path, value: Done, told: StepOverride) -> None:
        """The activation of a success: what is told of it, else what was recorded."""
        old = self.recorded(node, path) or Activation()
        activation = new_activation(self.plan, node, path, visit, Done(told.input or value.output or old.input))
        fields: ActivationFields = {
            "status": ActivationStatus.SUCCESS.value,
            "output": told.output,
            "started_at": told.started_at or told.ended_at or old.started_at,
            "suspended_at": told.suspended_at or old.suspended_at,
            "resumed_at": told.resumed_at or old.resumed_at,
            "suspend": told.suspend or old.suspend,
            "resume": told.resume or old.resume,
            "first_seq": old.first_seq,
        }
        self.plan.ops.append(CreateActivation(with_fields(activation, **fields)))
        if ended := told.ended_at or old.ended_at:
            self.plan.ops.append(UpdateActivation(activation.path, {"ended_at": ended}))

    # --- arms ----------------------------------------------------------------------------------------------------

    def carry_over_arm(self, arm: Node, path: Path, visit: Path, value: Done, *, recorded: bool = True) -> str | None:
        """The output of an arm that is given or (`recorded`) was a success, which stays; None where it is neither."""
        told = self.given.get(path)
        if told is not None and told.made:
            self._write(arm, path, visit, value, told)
            return told.output
        stored = self.recorded(arm, path)
        if not recorded or stored is None or stored.status != ActivationStatus.SUCCESS:
            return None
        self.keep(path)
        return stored.output

    def skip(self, arm: Node, path: Path, visit: Path, value: Done) -> None:
        """An arm that counts for nothing."""
        self.plan.ops.append(
            CreateActivation(
                replace(new_activation(self.plan, arm, path, visit, value), status=ActivationStatus.SKIPPED.value)
            )
        )

    def _arms(self, node: Parallel | Branch, path: Path, visit: Path, value: Done) -> Done:
        places = [(arm, (*path, index)) for index, arm in enumerate(node.arms)]
        stored, told = self.recorded(node, path), self.trip.input if path == self._before else None
        touched = told is not None or any(self.given[where].made for _, where in places if where in self.given)
        if not touched and stored is not None and stored.status == ActivationStatus.SUCCESS:
            self.keep(path)
            self.changed, self.missing = False, ""
            return Done(stored.output)
        kept = {arm.id: self.carry_over_arm(arm, where, visit, value) for arm, where in places}
        outputs = {name: output for name, output in kept.items() if output is not None}
        outputs |= self._reset_arms(node, [place for place in places if place[0].id not in outputs], visit, value)
        missing = [arm for arm, _ in places if arm.id not in outputs]
        if missing and told is None and (isinstance(node, Parallel) or not outputs):
            self._miss(missing[0])
        if outputs or told is not None:
            self.changed, self.missing = True, ""
        key = told if told is not None else self._gathered(outputs)
        activation = new_activation(self.plan, node, path, visit, value)
        self.plan.ops.append(CreateActivation(replace(activation, status=ActivationStatus.SUCCESS.value, output=key)))
        return Done(key, tuple(filter(None, outputs.values())) if told is None else ())

    def _reset_arms(
        self, node: Parallel | Branch, places: Sequence[tuple[Node, Path]], visit: Path, value: Done
    ) -> dict[str, str]:
        """Arms that had failed made nothing; of a branch they are skipped, where another arm made something."""
        failed = [(arm, where) for arm, where in places if (old := self.recorded(arm, where)) and self._is_reset(old)]
        for arm, where in failed:
            if isinstance(node, Branch) and len(places) < len(node.arms):
                self.skip(arm, where, visit, value)
            else:
                self._write(arm, where, visit, value, StepOverride())
        skips = isinstance(node, Branch) and len(places) < len(node.arms)
        return {} if skips else {arm.id: "" for arm, _ in failed}

    def _gathered(self, outputs: Mapping[str, str]) -> str:
        self._made += 1
        key = make_gathered_id(self.trip.fresh, self._made)
        self.plan.values[key] = values.refers_dict(outputs)
        return key


_WAITS = frozenset({ActivationStatus.SUSPENDED, ActivationStatus.WAITING})
_KEEPS = frozenset({*_WAITS, ActivationStatus.OPEN, ActivationStatus.SUCCESS, ActivationStatus.SKIPPED})
