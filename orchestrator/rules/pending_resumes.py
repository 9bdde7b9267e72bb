"""Pending resumes: resume data of a time travel, for steps behind its target that had suspended.

Such a step begins again only when the run comes to it, in a commit that reads nothing. So until then the run header
carries, as text, which steps these are, and how far each foreach around them had come. This module must not know how
the steps were found: that is `travel`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from orchestrator.rules.model import Activation, with_fields


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

    def apply_to(self, activation: Activation) -> Activation:
        """Return the activation of a step that begins: as a resumed one, if resume data is pending for it."""
        # By path and visit: in a later iteration of a loop the step begins as any other.
        found = self.resumes.get(activation_key(activation.path, activation.visit))
        return activation if found is None else with_fields(activation, resume=found[0], resumed=True, suspend=found[1])

    def progress(self, path: str, visit: str, total: int) -> Progress:
        """Return where a foreach of `total` items goes on.

        It begins with its first item, unless progress is known for a list of that length.
        """
        # Another length means that the steps before the foreach have made another list: its old items mean nothing.
        found = self.items.get(activation_key(path, visit))
        return found if found is not None and found.total == total else Progress(total)

    def text(self) -> str:
        """Write it as text for the run header; the empty text where nothing is pending."""
        if not self.resumes:
            return ""
        items = {where: [found.total, found.begun, found.done] for where, found in self.items.items()}
        return json.dumps([self.resumes, items], separators=(",", ":"))


NO_PENDING_RESUMES = PendingResumes()


# Every outcome of a run parses the same text, so the last ones are remembered.
@lru_cache(maxsize=64)
def parse_pending_resumes(text: str) -> PendingResumes:
    """Read what `PendingResumes.text` wrote."""
    if not text:
        return NO_PENDING_RESUMES
    resumes, items = json.loads(text)
    return PendingResumes(
        {where: (resume, suspend) for where, (resume, suspend) in resumes.items()},
        {where: Progress(total, begun, _pairs(done)) for where, (total, begun, done) in items.items()},
    )


def _pairs(done: Iterable[Iterable[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((first, end) for first, end in done)


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
