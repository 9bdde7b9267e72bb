"""The reading that users do before a request: the activations that a resume means, and the past of a time travel."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.engine.read.run_reader import Reader
from orchestrator.ports import Store
from orchestrator.rules import commands, travel
from orchestrator.rules.addressing import Target, ancestor_paths, select
from orchestrator.rules.change import Change
from orchestrator.rules.envelope import StoredTexts
from orchestrator.rules.graph import Graph
from orchestrator.rules.model import AWAITING, Activation, RunHeader
from tests.simulation.acts import LIMITS, RUN, Fresh


def select_meant(
    target: Target, header: RunHeader, activations: Iterable[Activation], *, per_step: bool = False
) -> list[Activation]:
    """Select the activations that a user's resume means. Raises what the user would get."""
    inside = len(target.scope)
    awaiting = [found for found in activations if found.status in AWAITING and found.at[:inside] == target.scope]
    paths = set(ancestor_paths(awaiting))
    above = {found.at: found for found in activations if found.path in paths}
    return select(header, awaiting, above, target, per_step=per_step)


def travel_change(of: Graph, store: Store, target: str, fresh: Fresh, *, per_step: bool = False) -> Change:
    """A user lets the run go on from the target, a dotted path of step ids. Raises what the user would get."""
    header = store.header(RUN)
    assert header is not None
    place = travel.find_target(of, target.split("."))
    present = Reader(store, header, of).activations
    plan = travel.plan_travel(travel.TravelRequest(of, header, present, place, per_step=per_step, fresh=fresh()))
    copies = {plan.copies[key]: text for key, text in store.values(RUN, plan.copies).items()}
    return commands.time_travel(header, plan, store.load(RUN), present, fresh(), StoredTexts(copies), LIMITS)
