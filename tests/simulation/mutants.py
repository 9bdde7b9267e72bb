"""A rule less, and what the search sees of it: how the tests of guards are written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator.core.graph import Graph
from tests.simulation.explorer import Explorer, Found

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Mutant:
    """A rule less, and what is seen of it in this workflow with these faults.

    Where one rule stands behind another, that one is taken away `already`, of which nothing is to be seen yet.
    """

    take_away: Callable[[Patch], None]
    graph: Graph
    budget: Mapping[str, int]
    seen: str
    options: Mapping[str, Any] = field(default_factory=dict)
    already: Callable[[Patch], None] | None = None

    def explore(self) -> Found:
        """Search, with the rule or without it, as things are."""
        return Explorer(self.graph, **self.options, **self.budget).explore()

    def must_be_seen(self, patch: Patch) -> None:
        """The same search finds nothing with the guard and something without it."""
        if self.already is not None:
            self.already(patch)
        found = self.explore()
        assert not found.violation, "\n".join([found.violation, *found.way])
        self.take_away(patch)
        found = self.explore()
        print(found.violation, *found.way, sep="\n  ")
        assert found.violation
        assert self.seen in found.violation
