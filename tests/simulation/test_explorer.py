"""Every order of events of small workflows, with faults of each kind: each run settles, nothing happens twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.simulation.acts import MAX_ABANDONED
from tests.simulation.explorer import Explorer
from tests.simulation.scenarios import SCENARIOS


def _cases(form: str) -> Iterator[Any]:
    for name, scenario in SCENARIOS.items():
        for budget in getattr(scenario, form):
            told = ", ".join(f"{count} {fault}" for fault, count in budget.items())
            yield pytest.param(name, budget, id=f"{name}: {told}")


def _explore(name: str, budget: Mapping[str, int]) -> None:
    scenario = SCENARIOS[name]
    found = Explorer(scenario.graph, **scenario.options, **budget).explore(most=5_000_000)
    print(f"{name}: {dict(budget)}: {found.states} states, {found.moves} moves, {dict(found.outcomes)}")
    assert not found.violation, "\n".join([found.violation, *found.way])
    possible = set(scenario.outcomes)
    possible |= {"canceled"} if budget.get("cancel") else set()
    possible |= {"failed"} if budget.get("kill", 0) + budget.get("expire", 0) >= MAX_ABANDONED else set()
    assert scenario.outcomes <= set(found.outcomes) <= possible


@pytest.mark.parametrize("name, budget", list(_cases("short")))
def test_whatever_happens_the_run_settles(name: str, budget: Mapping[str, int]) -> None:
    """No order of events breaks a rule, and nothing but the expected outcomes is ever reached."""
    _explore(name, budget)


@pytest.mark.chaos
@pytest.mark.parametrize("name, budget", list(_cases("full")))
def test_whatever_happens_several_times_the_run_settles(name: str, budget: Mapping[str, int]) -> None:
    """The same with larger budgets and faults of several kinds."""
    _explore(name, budget)
