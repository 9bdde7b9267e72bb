"""The activations that a time travel carries over: those before the target and beside it, as far as they are kept.

Each stays as it was stored, or becomes what the caller gives for it. A step that had failed or was canceled counts as a
success without an output, unless the caller gives one. Anything else that is missing is a gap. In a run that has run
steps, a gap forbids the travel. A new run may begin anywhere, as long as the target gets some input. This module must
not know what happens at the target: that is `plan`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from orchestrator.errors import GraphChanged
from orchestrator.rules import values
from orchestrator.rules.change import CreateActivation, UpdateActivation
from orchestrator.rules.graph import Branch, Foreach, Loop, Node, Parallel, Path, Sleep
from orchestrator.rules.model import (
    ENDED,
    Activation,
    ActivationFields,
    ActivationStatus,
    Role,
    StoredStatus,
    with_fields,
)
from orchestrator.rules.plan import Done, Plan, new_activation
from orchestrator.rules.travel.request import StepOverride, TravelRequest, entry_before
from orchestrator.rules.value_ids import make_gathered_id, make_item_id, make_items_prefix


class CarriedOver:
    """Carries the older generation's activations over into a plan."""

    def __init__(self, request: TravelRequest, plan: Plan) -> None:
        self.request = request
        self.plan = plan
        self.kept: set[Path] = set()  # paths of activations that stay as they are
        self.copies: dict[str, str] = {}  # new ids of values, by their old ones
        self.changed = False  # the value that flows on is another than the stored one
        self.missing = ""  # the step that should have made it, where nothing is known of it
        self.passed = False  # the target does not begin the run: an entry stands before it
        self.overrides = dict(request.overrides)
        self._paths = sorted(request.activations)
        self._before = entry_before(request.graph, request.target) if request.input is not None else None
        self._made = 0
        if request.input is not None and self._before is not None:
            self._override_output(request.input, self._before)

    def _override_output(self, output: str, path: Path) -> None:
        """Let the input of the target be the output of the entry before it."""
        node = self.request.graph.node(path)
        # A parallel or branch gets the output as a whole (`_carry_over_arms`): no arm of it can be given one.
        if not isinstance(node, Parallel | Branch):
            where = (*path, 0) if isinstance(node, Loop) else path
            self.overrides[where] = replace(
                self.overrides.get(where, StepOverride()), output=output, has_ended=True, is_suspended=False
            )

    # --- what is stored ------------------------------------------------------------------------------------------

    def find_stored(self, node: Node, path: Path) -> Activation | None:
        """Find the activation at `path`, if it is of this node; None where the graph has changed there."""
        found = self.request.activations.get(path)
        name = node.body_node.id if isinstance(node, Foreach) else node.id
        return found if found is not None and found.step == name else None

    def activations_in(self, path: Path) -> Iterator[Activation]:
        """Give the activation at `path` and those inside it."""
        # Paths are sorted, so everything at or inside a path stands between it and its next sibling.
        behind = (*path[:-1], path[-1] + 1)
        for place in self._paths[bisect_left(self._paths, path) : bisect_left(self._paths, behind)]:
            yield self.request.activations[place]

    def keep(self, path: Path) -> None:
        """Keep the activation at `path` with everything inside it."""
        self.kept.update(activation.at for activation in self.activations_in(path))

    def is_awaiting(self, path: Path) -> bool:
        """Tell whether everything unfinished at `path` is awaiting something from outside."""
        found = {activation.status for activation in self.activations_in(path)}
        return bool(found & _STILL_WAITING) and found <= _KEPT

    def keep_awaiting(self, path: Path) -> None:
        """Let what is awaiting at `path` go on waiting."""
        # Items that have not begun get their input by an id that has the generation in it, so they are copied.
        self.keep(path)
        for activation in self.activations_in(path):
            if activation.component == "FOREACH" and activation.status == ActivationStatus.OPEN:
                self.copy_items(activation, range(activation.next_item, activation.total))

    def copy_items(self, foreach: Activation, indices: Sequence[int]) -> None:
        """Copy the inputs of these items to the ids that they have in the new generation."""
        old = make_items_prefix(foreach.path, foreach.visit, self.request.header.generation)
        new = make_items_prefix(foreach.path, foreach.visit, self.plan.generation)
        for index in indices:
            item = self.request.activations.get((*foreach.at, index))
            source = item.input if item is not None and item.input else make_item_id(old, index)
            self.copies[source] = make_item_id(new, index)

    def _is_reset(self, activation: Activation) -> bool:
        """Tell whether an activation had failed or was canceled, with the run or by its own step."""
        # A cancel writes the run header alone: what was unfinished in it was canceled with it.
        canceled = self.request.header.status == StoredStatus.CANCELED and activation.status not in ENDED
        return canceled or activation.status in (ActivationStatus.FAILED, ActivationStatus.CANCELED)

    def _report_missing(self, node: Node, what: str = "is neither recorded nor given in `context`") -> None:
        """Refuse a gap before the target; in a run without any steps, note it instead."""
        # A new run is allowed to skip steps; in one that has run, a gap means that the graph has changed.
        if any(activation.role == Role.STEP for activation in self.request.activations.values()):
            text = f"step {node.id!r} stands before the target and {what}"
            raise GraphChanged(text, run_id=self.request.header.run_id, workflow_id=self.request.graph.id)
        self.changed, self.missing = False, f"step {node.id!r}"

    # --- what is passed ------------------------------------------------------------------------------------------

    def begin(self, scope: Path, value: Done) -> Done:
        """Return the value that the flow at `scope` begins with.

        It is what flows in, the input that the caller gives, or the input of a first step that the caller gives.
        """
        graph, target = self.request.graph, self.request.target
        if self.request.input is not None and self._before is None and graph.scope(target) == scope:
            self.changed, self.missing = True, ""
            return Done(self.request.input)
        payload = "" if value.output else self._first_payload(scope)
        if payload:
            self.changed, self.missing = True, ""
        return Done(payload) if payload else value

    def _first_payload(self, scope: Path) -> str:
        """Find the input that the caller gives for a step with which the flow at `scope` begins."""
        first, graph = (*scope, 0), self.request.graph
        if isinstance(graph.node(first), Loop):  # what is stored is the input of the last iteration
            return ""
        arms = [path for path in self.overrides if path[: len(first)] == first and graph.scope(path) == scope]
        return next((self.overrides[path].input for path in arms if self.overrides[path].input), "")

    def carry_over(self, node: Node, path: Path, visit: Path, value: Done) -> Done:
        """Carry over the node at `path`, which stands before the target. Return its result."""
        self.passed = True
        if isinstance(node, Parallel | Branch):
            return self._carry_over_arms(node, path, visit, value)
        override = self.overrides.get((*path, 0) if isinstance(node, Loop) else path)
        stored = self.find_stored(node, path)
        if override is not None and override.has_ended:
            return self._apply_override(node, path, visit, value, override)
        if isinstance(node, Sleep) and self.changed:  # a sleep passes on what it gets
            return self._apply_override(node, path, visit, value, StepOverride(output=value.output))
        # Nothing needs to be known of these: without it, their input stands for their output.
        if stored is None and isinstance(node, Sleep | Loop | Foreach):
            return value
        if stored is None:
            self._report_missing(node)
            return Done("")
        # Kept even where something before it has changed: the caller asks for the target to start anew, nothing else.
        if stored.status == ActivationStatus.SUCCESS:
            self.keep(path)
            self.changed, self.missing = False, ""
            return Done(stored.output)
        if not self._is_reset(stored):
            self._report_missing(node, "has not ended: give its output in `context`")
        return self._apply_override(node, path, visit, value, StepOverride())

    def _apply_override(self, node: Node, path: Path, visit: Path, value: Done, override: StepOverride) -> Done:
        """End the node as the override says. A loop is known by its body, so both end."""
        stored = self.find_stored(node, path)
        self._write_success(node, path, visit, value, override)
        if isinstance(node, Loop):
            turn = max(1, stored.iteration) if stored is not None else 1
            self._write_success(node.body_node, (*path, 0), (*visit, turn), value, override)
        self.changed, self.missing = True, ""
        return Done(override.output)

    def _write_success(self, node: Node, path: Path, visit: Path, value: Done, override: StepOverride) -> None:
        """Create the activation of a success: as the override says, else as it was stored."""
        old = self.find_stored(node, path) or Activation()
        activation = new_activation(self.plan, node, path, visit, Done(override.input or value.output or old.input))
        fields: ActivationFields = {
            "status": ActivationStatus.SUCCESS.value,
            "output": override.output,
            "started_at": override.started_at or override.ended_at or old.started_at,
            "suspended_at": override.suspended_at or old.suspended_at,
            "resumed_at": override.resumed_at or old.resumed_at,
            "suspend": override.suspend or old.suspend,
            "resume": override.resume or old.resume,
            "finished": old.finished,
            "first_seq": old.first_seq,
        }
        self.plan.ops.append(CreateActivation(with_fields(activation, **fields)))
        # The store stamps an end with the present time, so the older one is written after it.
        if ended := override.ended_at or old.ended_at:
            self.plan.ops.append(UpdateActivation(activation.path, {"ended_at": ended}))

    # --- arms ----------------------------------------------------------------------------------------------------

    def carry_over_arm(self, arm: Node, path: Path, visit: Path, value: Done, *, reuse: bool = True) -> str | None:
        """Carry over an arm that is given, or a success that may be reused. Return its output, else None."""
        override = self.overrides.get(path)
        if override is not None and override.has_ended:
            self._write_success(arm, path, visit, value, override)
            return override.output
        stored = self.find_stored(arm, path)
        if not reuse or stored is None or stored.status != ActivationStatus.SUCCESS:
            return None
        self.keep(path)
        return stored.output

    def skip(self, arm: Node, path: Path, visit: Path, value: Done) -> None:
        """Create the activation of an arm that has no part in the block."""
        self.plan.ops.append(
            CreateActivation(
                replace(new_activation(self.plan, arm, path, visit, value), status=ActivationStatus.SKIPPED.value)
            )
        )

    def _carry_over_arms(self, node: Parallel | Branch, path: Path, visit: Path, value: Done) -> Done:
        """Carry over a parallel or branch, arm by arm, and gather its output."""
        places = [(arm, (*path, index)) for index, arm in enumerate(node.arms)]
        stored, given = self.find_stored(node, path), self.request.input if path == self._before else None
        touched = given is not None or any(
            self.overrides[where].has_ended for _, where in places if where in self.overrides
        )
        if not touched and stored is not None and stored.status == ActivationStatus.SUCCESS:
            self.keep(path)
            self.changed, self.missing = False, ""
            return Done(stored.output)
        # Something about the block is new, so it is written afresh, with the output that its arms make together.
        kept = {arm.id: self.carry_over_arm(arm, where, visit, value) for arm, where in places}
        outputs = {name: output for name, output in kept.items() if output is not None}
        outputs |= self._reset_arms(node, [place for place in places if place[0].id not in outputs], visit, value)
        missing = [arm for arm, _ in places if arm.id not in outputs]
        if missing and given is None and (isinstance(node, Parallel) or not outputs):
            self._report_missing(missing[0])
        if outputs or given is not None:
            self.changed, self.missing = True, ""
        key = given if given is not None else self._gather_outputs(outputs)
        activation = new_activation(self.plan, node, path, visit, value)
        self.plan.ops.append(CreateActivation(replace(activation, status=ActivationStatus.SUCCESS.value, output=key)))
        return Done(key, tuple(filter(None, outputs.values())) if given is None else ())

    def _reset_arms(
        self, node: Parallel | Branch, places: Sequence[tuple[Node, Path]], visit: Path, value: Done
    ) -> dict[str, str]:
        """Let arms that had failed count as successes without an output.

        Those of a branch are skipped instead, if another arm has an output: its conditions could have left them out.
        """
        failed = [
            (arm, where) for arm, where in places if (old := self.find_stored(arm, where)) and self._is_reset(old)
        ]
        for arm, where in failed:
            if isinstance(node, Branch) and len(places) < len(node.arms):
                self.skip(arm, where, visit, value)
            else:
                self._write_success(arm, where, visit, value, StepOverride())
        skips = isinstance(node, Branch) and len(places) < len(node.arms)
        return {} if skips else {arm.id: "" for arm, _ in failed}

    def _gather_outputs(self, outputs: Mapping[str, str]) -> str:
        """Write the dict of these outputs as a new value. Return its id."""
        self._made += 1
        key = make_gathered_id(self.request.fresh, self._made)
        self.plan.values[key] = values.refers_dict(outputs)
        return key


# An arm with anything else in it was cut off, and begins anew as a whole: what was kept of it would wait for ever.
_STILL_WAITING = frozenset({ActivationStatus.SUSPENDED, ActivationStatus.WAITING})
_KEPT = frozenset({*_STILL_WAITING, ActivationStatus.OPEN, ActivationStatus.SUCCESS, ActivationStatus.SKIPPED})
