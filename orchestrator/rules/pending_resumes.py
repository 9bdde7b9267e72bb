"""What a time travel with resume data promises: the data goes to the steps behind its target that had suspended.

They begin again only when the run comes to them, in commits that read nothing. So until then the header carries, as
text, who they are and how far the items had come of the foreach blocks they are in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from orchestrator.rules.model import Activation, with_fields


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a foreach of `total` items had come: `begun` of them, of which those in the ranges of `done` went well.

    A range is the first index and the one behind the last.
    """

    total: int
    begun: int = 0
    done: tuple[tuple[int, int], ...] = ()

    @property
    def pending_children(self) -> int:
        """How many items have still to end."""
        return self.total - sum(end - first for first, end in self.done)

    def unfinished_items(self) -> list[int]:
        """The items that had begun and not ended well."""
        well = {index for first, end in self.done for index in range(first, end)}
        return [index for index in range(self.begun) if index not in well]


@dataclass(frozen=True, slots=True)
class PendingResumes:
    """Resume data and suspend payload (value ids) by `spot`, and the progress of each foreach around, by `spot`."""

    resumes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    items: Mapping[str, Progress] = field(default_factory=dict)

    def apply_to(self, activation: Activation) -> Activation:
        """The activation of a step that begins: as a resumed one, if that was promised."""
        found = self.resumes.get(activation_key(activation.path, activation.visit))
        return activation if found is None else with_fields(activation, resume=found[0], resumed=True, suspend=found[1])

    def progress(self, path: str, visit: str, total: int) -> Progress:
        """Where a foreach of so many items goes on: at its beginning, if nothing else was promised or the list has
        changed."""
        found = self.items.get(activation_key(path, visit))
        return found if found is not None and found.total == total else Progress(total)

    def text(self) -> str:
        """As text for the header; the empty text where nothing is promised."""
        if not self.resumes:
            return ""
        items = {where: [found.total, found.begun, found.done] for where, found in self.items.items()}
        return json.dumps([self.resumes, items], separators=(",", ":"))


NO_PENDING_RESUMES = PendingResumes()


@lru_cache(maxsize=64)
def parse_pending_resumes(text: str) -> PendingResumes:
    """The opposite of `PendingResumes.text`."""
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
    """One activation of this life, as a key."""
    return f"{path}@{visit}"


def ranges(indices: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Ascending numbers as ranges."""
    found: list[tuple[int, int]] = []
    for index in indices:
        if found and found[-1][1] == index:
            found[-1] = (found[-1][0], index + 1)
        else:
            found.append((index, index + 1))
    return tuple(found)
