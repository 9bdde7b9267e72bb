"""A foreach that starts more items at a time than one commit may: what happens between two such commits is found."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from orchestrator.rules import flow
from orchestrator.rules import plan as plan_module
from orchestrator.rules.plan import start_items
from tests.simulation.acts import foreach, graph, step
from tests.simulation.explorer import Explorer
from tests.simulation.mutants import Mutant, Patch

THREE = graph(foreach("each", 3, 3, step("item")))
FOUR = graph(foreach("each", 4, 3, step("item")))
FAILING = graph(foreach("each", 3, 3, step("item", bad=frozenset({0}))))


@pytest.fixture(autouse=True)
def _one_item_in_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "MAX_STARTED", 1)


@pytest.mark.parametrize(
    "budget",
    [{}, {"kill": 1}, {"expire": 1}, {"resend": 1}, {"lose": 1}, {"cancel": 1}, {"restart": 1}],
    ids=lambda budget: next(iter(budget), "nothing"),
)
def test_whatever_happens_in_between_all_items_run(budget: Mapping[str, int]) -> None:
    """A worker that dies between two commits is followed by another, by the lease of the block."""
    found = Explorer(THREE, **budget).explore(most=1_000_000)
    assert not found.violation, "\n".join([found.violation, *found.way])
    assert set(found.outcomes) == {"success", *(["canceled"] if "cancel" in budget else [])}


@pytest.mark.parametrize("budget", [{}, {"expire": 1}], ids=lambda budget: next(iter(budget), "nothing"))
def test_items_may_fail_before_the_others_have_started(budget: Mapping[str, int]) -> None:
    """Then no further item starts, and whoever is starting them is refused."""
    found = Explorer(FAILING, **budget).explore(most=1_000_000)
    assert not found.violation, "\n".join([found.violation, *found.way])
    assert set(found.outcomes) == {"failed"}


def the_rest_is_forgotten(patch: Patch) -> None:
    """The first commit starts its items, and nobody the others."""

    def start(plan: plan_module.Plan, *more: object) -> None:
        free = more[-1]
        assert isinstance(free, int)
        start_items(plan, *more[:-1], min(free, 1))  # type: ignore[arg-type]

    patch.setattr(plan_module, "start_items", start)
    patch.setattr(flow, "start_items", start)


def places_are_not_counted(patch: Patch) -> None:
    """One more than may run at a time is started."""
    patch.setattr(
        flow, "start_items", lambda *where_and_free: start_items(*where_and_free[:-1], where_and_free[-1] + 1)
    )


@pytest.mark.parametrize(
    "mutant",
    [
        Mutant(the_rest_is_forgotten, THREE, {}, "items at a time"),
        Mutant(places_are_not_counted, FOUR, {}, "items at a time"),
    ],
    ids=["the rest", "the places"],
)
def test_a_rule_less_is_seen(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same search finds nothing with the rule as it is."""
    mutant.must_be_seen(monkeypatch)
