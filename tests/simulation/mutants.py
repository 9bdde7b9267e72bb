"""A rule less, and what the search sees of it: the form of the tests of guards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator.rules import attempt_commands, commands, ownership, undoing
from orchestrator.rules.change import Change
from orchestrator.rules.graph import Graph
from tests.simulation.explorer import Explorer, Found

COMMANDS = (commands, attempt_commands, undoing, ownership)  # the modules that make changes
Patch = pytest.MonkeyPatch
Edit = Callable[[Any], Any]
_WHOLE: dict[str, Found] = {}


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

    def _explore_whole(self) -> Found:
        """Search with the rule. Mutants that differ in nothing but the rule share one such search."""
        if self.already is not None:
            return self.explore()
        which = repr((self.graph, self.budget, self.options))  # graphs are equal whatever their steps do
        if which not in _WHOLE:
            _WHOLE[which] = self.explore()
        return _WHOLE[which]

    def must_be_seen(self, patch: Patch) -> None:
        """The same search finds nothing with the guard and something without it."""
        if self.already is not None:
            self.already(patch)
        found = self._explore_whole()
        assert not found.violation, "\n".join([found.violation, *found.way])
        self.take_away(patch)
        found = self.explore()
        print(found.violation, *found.way, sep="\n  ")
        assert found.violation
        assert self.seen in found.violation


def commands_are(edit: Edit, *names: str, judges: bool = True, hears: bool = True) -> Callable[[Patch], None]:
    """Let commands of these names make another change.

    Without judges only what comes of it is looked at; without hearing, not the events either.
    """

    def mutate(patch: Patch) -> None:
        for name in names:
            module = next(module for module in COMMANDS if name in vars(module))
            patch.setattr(module, name, _edited(getattr(module, name), edit))
        patch.setattr(Explorer, "judges", judges)
        patch.setattr(Explorer, "hears", judges and hears)

    return mutate


def _edited(build: Callable[..., Any], edit: Edit) -> Callable[..., Any]:
    def edited(*args: Any, **kwargs: Any) -> Any:
        built = build(*args, **kwargs)
        several = isinstance(built, tuple) and all(isinstance(each, Change) for each in built)
        return tuple(map(edit, built)) if several else edit(built)

    return edited
