"""Addressing: the suspended steps that a caller means by a resume, found by what their activations say of themselves.

Activations name their step, item and label, so this module needs no graph and must not ask for one: the process of the
caller may have another graph than the run was started with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.errors import ResumeAmbiguous, RunNotSuspended, StepNotSuspended, SuspensionOver
from orchestrator.rules.graph import Graph, Nested, Path, Place, Step
from orchestrator.rules.model import Activation, ActivationStatus, RunHeader, format_path


@dataclass(frozen=True, slots=True)
class Target:
    """A caller's description of what to resume. All None: the only step that is suspended."""

    # an id, a dotted path of ids, an entry of a workflow, or a list of those
    step: Any = None
    # the label under which a step has suspended
    label: str | None = None
    # the index of an item
    index: int | None = None
    # the path of the nested workflow whose step ids the caller uses
    scope: Path = ()
    # the token of one suspension, as a reader was shown it (see `make_resume_token`)
    token: str | None = None

    @property
    def ids(self) -> list[str]:
        """The step ids from the outside in."""
        return step_ids(self.step)

    @property
    def is_open(self) -> bool:
        """True if the caller names nothing."""
        return not self.ids and self.label is None and self.index is None and self.token is None

    def normalize(self) -> Target:
        """Return the same target with its step as a list of ids.

        Raises TypeError if `label` or `token` is not a str, `index` not an int, or `step` nothing that has ids.
        """
        label: Any = self.label
        index: Any = self.index
        token: Any = self.token
        if token is not None and not isinstance(token, str):
            raise TypeError(f"`token` is a text, not {token!r}")
        if label is not None and not isinstance(label, str):
            raise TypeError(f"`label` is a text, not {label!r}")
        if index is not None and (not isinstance(index, int) or isinstance(index, bool)):
            raise TypeError(f"`index` is the number of an item, not {index!r}")
        return replace(self, step=step_ids(self.step))

    def __str__(self) -> str:
        label = f"label {self.label!r}" if self.label is not None else ""
        index = f"item {self.index}" if self.index is not None else ""
        token = f"token {self.token!r}" if self.token is not None else ""
        return " ".join(filter(None, [".".join(self.ids), label, index, token]))


def make_resume_token(suspend_id: str) -> str:
    """Make the token of the suspension with this payload: no other suspension has it, in this run or another.

    Whoever answers with a token means this question, and not a later one of the same step.
    """
    # Made of the id of the payload, which a resume that was taken back leaves as it is: a `seq` would be another. It is
    # a digest, because the id has the lease token of the attempt in it, which is nobody else's.
    return hashlib.sha256(suspend_id.encode()).hexdigest()[:_TOKEN_DIGITS]


_TOKEN_DIGITS = 20


def step_ids(step: Any) -> list[str]:
    """List the ids of a step from the outside in. It is given as an id, a dotted path, an entry, or a list of those.

    Raises TypeError for anything else.
    """
    if step is None:
        return []
    if isinstance(step, str):
        return step.split(".")
    known = getattr(step, "id", None)
    if isinstance(known or getattr(step, "name", None), str):
        return [known or step.name.rsplit(".", 1)[-1]]  # an existing task has no id but a dotted name
    if isinstance(step, Iterable) and not isinstance(step, (bytes, Mapping)):
        return [name for part in step for name in step_ids(part)]
    raise TypeError(f"`step` is an id, a dotted path, a step, or a list of those, not {step!r}")


def id_path(graph: Graph, path: Path) -> list[str]:
    """List the step ids from the outermost workflow down to the node at `path`."""
    ids = [graph.node(path[:cut]).id for cut in range(1, len(path)) if isinstance(graph.node(path[:cut]), Nested)]
    return [*ids, graph.node(path).id]


@dataclass(frozen=True, slots=True)
class SuspendedStep:
    """A suspended activation with its address, read from the activations around it."""

    activation: Activation
    # the step ids that lead to it from the workflow in which the caller resumes
    ids: tuple[str, ...]
    # the ids with the items (`each[0].ask`), for error messages
    name: str
    # the index of the innermost item around it
    index: int | None


def paths_below_which(graph: Graph, target: Target) -> list[str] | None:
    """List paths at or below which every step is that the target can mean; None where it may be anywhere.

    So a resume among ten thousand steps that wait reads those that it may mean. A label says nothing of a path.
    """
    ids = target.ids
    if not ids and target.index is None:
        return None
    found: set[str] = set()
    around: dict[Place, tuple[str, ...]] = {}  # the step ids of the nested workflows, by their paths
    for place, node in graph.places(target.scope):
        outer = next((around[place[:cut]] for cut in range(len(place) - 1, 0, -1) if place[:cut] in around), ())
        if isinstance(node, Nested):
            around[place] = (*outer, node.id)
        elif isinstance(node, Step) and (*outer, node.id)[: len(ids)] == tuple(ids):
            found.add(_known_path(place, target.index))
    return sorted(found)


def _known_path(place: Place, index: int | None) -> str:
    """The path of a place as far as it is known, where the innermost item around it has this index."""
    if index is not None and None in place:
        at = len(place) - 1 - place[::-1].index(None)
        place = (*place[:at], index, *place[at + 1 :])
    known = place[: place.index(None)] if None in place else place
    return ".".join(map(str, known))


def ancestor_paths(awaiting: Iterable[Activation]) -> list[str]:
    """List the paths of the activations around these."""
    return sorted({format_path(activation.at[:cut]) for activation in awaiting for cut in range(1, len(activation.at))})


def _locate(activation: Activation, above: Mapping[Path, Activation], scope: Path) -> SuspendedStep:
    # Blocks other than nested workflows have no step ids of their own in an address; items only add their index.
    outer = [above[activation.at[:cut]] for cut in range(1, len(activation.at)) if activation.at[:cut] in above]
    inside = [found for found in outer if found.component == "NESTED" and len(found.at) > len(scope)]
    lineage = [*inside, activation]
    names = [f"{found.step}[{found.index}]" if found.index >= 0 else found.step for found in lineage]
    indices = [found.index for found in (*outer, activation) if found.index >= 0]
    ids = tuple(found.step for found in lineage)
    return SuspendedStep(activation, ids, ".".join(names), indices[-1] if indices else None)


def select(
    header: RunHeader,
    awaiting: Sequence[Activation],
    above: Mapping[Path, Activation],
    target: Target,
    *,
    per_step: bool,
) -> list[Activation]:
    """Select the activations that a resume means: one, all suspended items of a foreach, or those of a paused run.

    Of the paused ones, a caller who wants a single step gets the first. `above` are the activations around those that
    are awaiting. Raises `StepNotSuspended` where none fits, and `ResumeAmbiguous`, naming the candidates, where several
    do.
    """
    about = {"run_id": header.run_id, "workflow_id": header.workflow_id}
    paused = [activation for activation in awaiting if activation.status == ActivationStatus.PAUSED]
    places = [
        _locate(activation, above, target.scope)
        for activation in awaiting
        if activation.status == ActivationStatus.SUSPENDED
    ]
    # Where a step is suspended too, data is expected. Only a resume that names nothing lets a paused run go on.
    if paused and not places and target.is_open:
        return paused[:1] if per_step else paused
    if target.token is not None:
        places = [place for place in places if make_resume_token(place.activation.suspend) == target.token]
        if not places:
            text = (
                f"no step of run {header.run_id!r} is suspended with the token {target.token!r} (any more): read again"
            )
            raise SuspensionOver(f"{text} what waits, if anything does", actual_status=header.status, **about)
    if not places:
        raise RunNotSuspended(_why_nothing(header, awaiting), actual_status=header.status, **about)
    fitting = _filter(places, target)
    if not fitting:
        waits = ", ".join(sorted({".".join(place.ids) for place in places}))
        raise StepNotSuspended(f"{target} is not suspended in run {header.run_id!r}: {waits} is", **about)
    _refuse_several(header, fitting, target)
    return [place.activation for place in fitting]


def _why_nothing(header: RunHeader, awaiting: Sequence[Activation]) -> str:
    steps = sorted({found.step for found in awaiting if found.status == ActivationStatus.WAITING})
    if steps:
        return f"no step of run {header.run_id!r} is suspended: {', '.join(steps)} wait for an event, see `send_event`"
    return f"nothing in run {header.run_id!r} is suspended (it is {header.status})"


def _filter(places: list[SuspendedStep], target: Target) -> list[SuspendedStep]:
    ids = tuple(target.ids)
    found = [place for place in places if place.ids[: len(ids)] == ids]
    if target.label is not None:
        found = [place for place in found if place.activation.label == target.label]
    if target.index is not None:
        found = [place for place in found if place.index == target.index]
    return found


def _refuse_several(header: RunHeader, fitting: list[SuspendedStep], target: Target) -> None:
    """Raise `ResumeAmbiguous` unless it is one step, or all items of one that the caller has not told apart."""
    about = {"run_id": header.run_id, "workflow_id": header.workflow_id}
    # Steps are told apart by their ids before items are: a caller who names none may not know of both.
    steps = list(dict.fromkeys(".".join(place.ids) for place in fitting))
    if len(steps) > 1:
        text = f"multiple steps are suspended in run {header.run_id!r}: pass `step`."
        raise ResumeAmbiguous(text, candidates=steps, **about)
    if len(fitting) == 1 or (target.label is None and target.index is None):
        return
    names = [place.name for place in fitting]
    text = f"multiple items that are suspended in run {header.run_id!r} have {target}"
    if len({place.index for place in fitting}) == len(fitting):
        raise ResumeAmbiguous(f"{text}: pass `index`.", candidates=names, **about)
    runs = [f"{header.run_id}/{format_path(place.activation.at[: place.activation.scope])}" for place in fitting]
    # The index is that of the innermost item, so items of nested foreach blocks may share it.
    text += f": resume in the nested workflow itself, which is the run {' or '.join(dict.fromkeys(runs))}."
    raise ResumeAmbiguous(text, candidates=names, **about)
