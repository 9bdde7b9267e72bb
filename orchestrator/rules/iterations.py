"""Finished iterations of loops: the values that each has made, and those of them that may go.

A loop that goes on for long makes values in each iteration, and no activation refers to most of them any more: those of
the next iteration take the places of those that made them. So the commit that begins an iteration may list what the one
before it has made, in a value of its own, the manifest, and drop what an older manifest lists. The loop keeps the ids
of the newest manifests in `Activation.finished`.

An older iteration's value may still be in use: its output is the input of the next iteration, a sleep passes on what it
got, and the output of a join refers to those of its children. So nothing goes that the loop's present value is or
refers to; it is listed again with the iteration that has just finished. What is in no manifest never goes.

This module must not know how activations and values are read: whoever asks reads what `FinishedIteration` names.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import assert_never

from orchestrator.rules import values
from orchestrator.rules.graph import Branch, Foreach, Loop, Nested, Node, Parallel, Path, Sleep, Step, Wait
from orchestrator.rules.model import Activation, format_path, visits
from orchestrator.rules.plan import ClaimedNode
from orchestrator.rules.value_ids import is_item_of, make_item_id, make_items_prefix, make_manifest_id

# Activations of one iteration that are read, and values that its manifest lists. A loop's condition pays for both, and
# while a store drops what a manifest lists, the run waits. A larger iteration drops nothing.
MAX_LISTED = 5_000
# Manifests that one commit drops. More than one, so that a loop comes down to a setting that was lowered.
MAX_OUTGOING = 2


class FinishedIteration:
    """Collects the ids of what the latest iteration of a loop has made.

    Read the activations at `paths` and `add` them, level by level, until there are none to be read.
    """

    def __init__(self, claim: ClaimedNode) -> None:
        self._claim = claim
        self._expected: dict[str, Path] = {}  # the visits of this iteration, by the paths that are to be read
        self._made: dict[str, None] = {}  # a set that keeps its order: a repeated attempt lists the same
        self._places = 0
        self.is_too_large = False
        # the ids of the manifests of the loops inside: what they list was made in this iteration, too
        self.manifests: list[str] = []
        self._expect(claim.activation)

    @property
    def paths(self) -> list[str]:
        """The paths of the activations that are to be read next."""
        return list(self._expected)

    def add(self, activations: Iterable[Activation]) -> None:
        """Take the activations at `paths`, as far as they exist, and go on to what is inside them."""
        expected, self._expected = self._expected, {}
        # An earlier iteration may have left an activation at a place that this one has not come to.
        present = [found for found in activations if visits(found) == expected.get(found.path)]
        for found in present:
            self._expect(found)
        for found in present if not self.is_too_large else ():
            node = self._claim.graph.node(found.at)
            self._made.update(dict.fromkeys(filter(None, _made_by(found, node, self._claim.header.generation))))
            self.manifests += found.finished.split()
        if len(self._made) + len(self.manifests) > MAX_LISTED:
            self._give_up()

    def _expect(self, around: Activation) -> None:
        """Expect what is inside an activation, unless that is too much."""
        node = self._claim.graph.node(around.at)
        count, visit = _count_children(node, around), visits(around)
        if isinstance(node, Loop):
            visit = (*visit, around.iteration)
        self._places += count
        # Counted before they are listed: a foreach may have a million items.
        if self._places > MAX_LISTED:
            self._give_up()
        else:
            self._expected.update((f"{around.path}.{index}", visit) for index in range(count))

    def _give_up(self) -> None:
        """Collect no more, and list nothing."""
        self.is_too_large = True
        self._expected, self._made, self.manifests = {}, {}, []

    def list_made(self, texts: Mapping[str, str]) -> list[str]:
        """List the ids of all that the iteration has made; none if they are too many.

        `texts` has the manifests of the loops inside, as far as they exist.
        """
        found = dict.fromkeys([*self._made, *self.manifests])
        for manifest in self.manifests:
            found.update(dict.fromkeys(parse_manifest(texts.get(manifest))))
        return list(found) if len(found) <= MAX_LISTED else []


def _count_children(node: Node, activation: Activation) -> int:
    """Count the places inside an activation: all arms of a branch, whichever were chosen."""
    match node:
        case Parallel(arms=inner) | Branch(arms=inner) | Nested(flow=inner):
            return len(inner)
        case Foreach():
            return activation.total
        case Loop():
            return 1
        case Wait(otherwise=otherwise):
            return 0 if otherwise is None else 1
        case Step() | Sleep():
            return 0
        case _:
            assert_never(node)


def _made_by(found: Activation, node: Node, generation: int) -> Iterator[str]:
    """Give the ids of the values that an activation has made, or that were made for it alone."""
    # A node that makes no output passes its input on. That of a loop is its latest output, and says nothing: what it
    # hands on was made by its body, or came from outside.
    if found.output != found.input and not isinstance(node, Loop):
        yield found.output
    # No error comes from outside: a failure ends the loop, unless a block inside it tolerates it.
    yield from (found.error, found.suspend, found.resume)
    # A nested workflow whose input was changed by its validation.
    if found.last_lease_token and found.input.startswith(found.last_lease_token):
        yield found.input
    if isinstance(node, Foreach):
        prefix = make_items_prefix(found.path, found.visit, generation)
        yield from (make_item_id(prefix, index) for index in range(found.total))
    # An item that a time travel has carried over has its input from an older generation.
    if found.index >= 0 and is_item_of(found.input, format_path(found.at[:-1])):
        yield found.input


# --- manifests -------------------------------------------------------------------------------------------------------


def write_manifest(ids: Iterable[str]) -> str:
    """Write a list of ids as a stored text."""
    # A value of its own, and no list of references: whoever follows references must not read what it lists.
    return values.own(json.dumps(list(ids), separators=(",", ":")))


def parse_manifest(text: str | None) -> list[str]:
    """Read what `write_manifest` wrote; an empty list where there is nothing."""
    return [str(id_) for id_ in json.loads(text.removeprefix(values.OWN))] if text else []


def find_outgoing(loop: Activation, keep: int) -> list[str]:
    """Return the ids of the manifests, oldest first, that go when one more comes and `keep` stay."""
    finished = loop.finished.split()
    return finished[: min(MAX_OUTGOING, max(0, len(finished) + 1 - keep))]


@dataclass(frozen=True, slots=True)
class Release:
    """The part of the commit that begins another iteration which is about those that have finished."""

    finished: str  # ids of the manifests that the loop keeps
    values: Mapping[str, str] = field(default_factory=dict)  # the new manifest
    drop_values: tuple[str, ...] = ()


def release(
    claim: ClaimedNode, iteration: FinishedIteration, keep: int, texts: Mapping[str, str], in_use: Collection[str]
) -> Release:
    """List what the finished iteration has made, and drop what only older ones than the newest `keep` refer to.

    `texts` has the manifests of `iteration` and of `find_outgoing`, as far as they exist. `in_use` are the ids of the
    loop's present value, and of all that it refers to.
    """
    outgoing = find_outgoing(claim.activation, keep)
    older = dict.fromkeys(id_ for manifest in outgoing for id_ in parse_manifest(texts.get(manifest)))
    listed, still_used = iteration.list_made(texts), [id_ for id_ in older if id_ in in_use]
    # What finds no room in the manifest is never dropped, as nobody would know when.
    if len(listed) + len(still_used) <= MAX_LISTED:
        listed += still_used
    key = make_manifest_id(claim.activation.lease_token)
    kept = claim.activation.finished.split()[len(outgoing) :]
    drop = (*outgoing, *(id_ for id_ in older if id_ not in in_use))
    return Release(" ".join([*kept, key]), {key: write_manifest(listed)}, drop)
