"""Pending resumes: resume data of a time travel, for steps behind its target that had suspended.

Such a step begins again only when the run comes to it. Until then a value of its own says with which data, and another
for each foreach around it how far that had come. Their ids follow from the place, and the run header has no more than
the beginning of them: each commit writes the header, so it must not grow with the number of steps. Whoever commits an
outcome that lets steps begin asks for the values of these, and `begin_resumed` writes them into its operations. This
module must not know how the steps were found: that is `travel`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeGuard

from orchestrator.rules.change import CreateActivation, Op
from orchestrator.rules.model import Activation, ActivationStatus, Phase, with_fields
from orchestrator.rules.value_ids import make_pending_id

# The statuses in which a step begins; paused where a run goes by single steps.
_BEGINNING = frozenset({ActivationStatus.QUEUED.value, ActivationStatus.PAUSED.value})


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a foreach of `total` items, as the older generation left it."""

    total: int
    begun: int = 0  # items that had begun: the next item to start
    done: tuple[
        tuple[int, int], ...
    ] = ()  # the items that succeeded, as ranges: the first index, and the one behind the last

    @property
    def pending_children(self) -> int:
        """The number of items that are not finished."""
        return self.total - sum(end - first for first, end in self.done)

    def unfinished_items(self) -> list[int]:
        """List the items that had begun and not succeeded."""
        succeeded = {index for first, end in self.done for index in range(first, end)}
        return [index for index in range(self.begun) if index not in succeeded]


@dataclass(frozen=True, slots=True)
class PendingResumes:
    """Steps that begin as resumed ones, and the progress of each foreach around them."""

    # ids of the resume data and of the suspend payload, by `activation_key`
    resumes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    # by `activation_key` of the foreach
    items: Mapping[str, Progress] = field(default_factory=dict)

    def texts(self, prefix: str) -> dict[str, str]:
        """Write it as values whose ids begin with `prefix`, one for each step and each foreach."""
        if not self.resumes:
            return {}
        items = {where: [found.total, found.begun, found.done] for where, found in self.items.items()}
        docs = {**self.resumes, **items}
        return {make_pending_id(prefix, where): json.dumps(doc, separators=(",", ":")) for where, doc in docs.items()}


def find_beginning(prefix: str, ops: Iterable[Op]) -> list[str]:
    """List the ids of the values that say of the steps which begin by these operations whether they were resumed."""
    if not prefix:
        return []
    return [make_pending_id(prefix, _key_of(op.activation)) for op in ops if _begins_step(op)]


def begin_resumed(prefix: str, ops: Sequence[Op], texts: Mapping[str, str]) -> list[Op]:
    """Let the steps for which resume data is pending begin as resumed ones. `texts` has the values that exist."""

    def resume(op: Op) -> Op:
        if not _begins_step(op) or not (text := texts.get(make_pending_id(prefix, _key_of(op.activation)))):
            return op
        data, payload = json.loads(text)
        return replace(op, activation=with_fields(op.activation, resume=data, resumed=True, suspend=payload))

    return [resume(op) for op in ops]


def _begins_step(op: Op) -> TypeGuard[CreateActivation]:
    return isinstance(op, CreateActivation) and op.activation.phase == Phase.RUN and op.activation.status in _BEGINNING


def make_progress_id(prefix: str, foreach: Activation) -> str:
    """The id of the value that says where a foreach goes on; empty where none is pending."""
    return make_pending_id(prefix, _key_of(foreach)) if prefix else ""


def parse_progress(text: str | None, total: int) -> Progress:
    """Return where a foreach of `total` items goes on: with its first, unless `text` says otherwise of that length."""
    if text:
        known, begun, done = json.loads(text)
        # Another length means that the steps before the foreach have made another list: its old items mean nothing.
        if known == total:
            return Progress(total, begun, tuple((first, end) for first, end in done))
    return Progress(total)


def _key_of(activation: Activation) -> str:
    # By path and visit: in a later iteration of a loop the step begins as any other.
    return activation_key(activation.path, activation.visit)


def activation_key(path: str, visit: str) -> str:
    """Name one activation of this generation."""
    return f"{path}@{visit}"


def ranges(indices: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Write ascending numbers as ranges."""
    # Ten thousand finished items are one range, and the header stays small.
    found: list[tuple[int, int]] = []
    for index in indices:
        if found and found[-1][1] == index:
            found[-1] = (found[-1][0], index + 1)
        else:
            found.append((index, index + 1))
    return tuple(found)
