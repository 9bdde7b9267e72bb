"""Taking a guard of schedulers away makes the explorer find what the guard is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.rules import timers
from orchestrator.rules.change import Change, Op, UpdateActivation
from tests.simulation import users
from tests.simulation.acts import graph, parallel, step
from tests.simulation.mutants import Mutant, Patch

JOIN = graph(parallel("q", step("a"), step("b")), step("f"))


def sweeps_expect(**fields: Any) -> Callable[[Patch], None]:
    """A sweep writes whatever has become of what it had read."""

    def mutate(patch: Patch) -> None:
        guarded = timers._upkeep_change

        def lax(*args: Any) -> Change:
            return replace(guarded(*args), **fields)

        patch.setattr(timers, "_upkeep_change", lax)

    return mutate


def what_is_unsent_is(edit: Callable[[Change], Change]) -> Callable[[Patch], None]:
    """Put back in another way."""

    def mutate(patch: Patch) -> None:
        patch.setattr(users, "on_unsent", lambda *args, **kwargs: edit(timers.on_unsent(*args, **kwargs)))

    return mutate


def _having(change: Change, fields: Mapping[str, Any], delay: int = 0) -> Change:
    ops: list[Op] = [
        replace(op, fields={**op.fields, **fields}, delay=delay)
        for op in change.ops
        if isinstance(op, UpdateActivation)
    ]
    return replace(change, ops=tuple(ops))


MUTANTS = {
    "two sweeps of one entry": Mutant(
        sweeps_expect(expect=()), JOIN, {"second": 0, "pause": 1, "expire": 1}, "cannot be 'queued' after 'success'"
    ),
    "put back without a look": Mutant(
        what_is_unsent_is(lambda change: replace(change, expect=())), JOIN, {"unsent": 1}, "although somebody has them"
    ),
    "put back without a moment": Mutant(
        what_is_unsent_is(lambda change: _having(change, {"deadline": 0})), JOIN, {"unsent": 1}, "hangs"
    ),
    "put back as if it were new": Mutant(
        what_is_unsent_is(lambda change: _having(change, {"status": "queued"})), JOIN, {"unsent": 1}, "tells of them"
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_without_a_guard_a_violation_is_found(name: str, monkeypatch: Patch) -> None:
    """The same search finds nothing with the guard and something without it."""
    MUTANTS[name].must_be_seen(monkeypatch)
