"""The real engine in seeded schedules: a fixed part of them, and what they see of rules that are taken away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import pytest

from orchestrator.engine import client_ops, iterations, settlement, sweep
from orchestrator.host import MARK
from orchestrator.rules import apply, commands, timers
from orchestrator.rules.change import Claimed, ClaimRequest, Refused
from orchestrator.rules.model import is_report
from orchestrator.stores import memory
from orchestrator.stores.memory import MemoryStore
from tests.simulation.schedules import cluster, faults, schedule
from tests.simulation.schedules.programs import Maker
from tests.simulation.schedules.schedule import run_schedule, shrink

FIXED = range(600)
MOST = 1_000  # schedules within which each rule that is taken away is seen

Patch = pytest.MonkeyPatch


def test_a_fixed_part_of_all_schedules_keeps_every_promise() -> None:
    """Nothing is lost, stuck, wrong, recorded twice, or run twice without a fault of its own."""
    found = [verdict for seed in FIXED if (verdict := run_schedule(seed)).violations]
    if found:
        shortest = min((shrink(verdict) for verdict in found[:3]), key=lambda verdict: len(verdict.faults))
        pytest.fail("\n".join([f"seed {shortest.seed}", *shortest.violations, *shortest.story]))


def test_the_fixed_part_has_every_fault_and_every_end() -> None:
    """A fault that never strikes would prove nothing."""
    verdicts = [run_schedule(seed) for seed in range(250)]
    kinds = {kind for verdict in verdicts for _, kind in verdict.faults}
    assert kinds >= set(faults.KINDS) - {"limit"}  # rare
    assert {verdict.status for verdict in verdicts} == {"success", "failed", "canceled"}


def test_a_seed_is_one_schedule() -> None:
    """So that what was found can be looked at."""
    first, again = run_schedule(11), run_schedule(11)
    assert (first.story, first.turns) == (again.story, again.turns)
    assert first.story != run_schedule(12).story


def test_programs_have_every_block() -> None:
    """Also those that somebody has to answer."""
    programs = [Maker(seed).make() for seed in range(100)]
    kinds = {type(block).__name__ for program in programs for block in program.body.blocks}
    assert kinds == {"Add", "Flow", "Side", "Again", "Each", "Nap", "Hear"}
    assert sum(bool(program.suspends) for program in programs) > 20
    assert sum(bool(program.hears) for program in programs) > 10


# --- rules less -------------------------------------------------------------------------------------------------------


def _callers_are_forgotten(patch: Patch) -> None:
    """A caller's answer is kept until the next caller alone."""
    whole = apply.apply
    patch.setattr(memory, "apply", lambda *args: whole(*args[:5]))


def _leases_are_lax(patch: Patch) -> None:
    """Whoever once had the lease may commit."""
    strict = apply._lease_refusal

    def lax(header: Any, activation: Any, path: str, token: str) -> str:
        reason = strict(header, activation, path, token)
        return "" if reason == apply.LOST and activation is not None else reason

    patch.setattr(apply, "_lease_refusal", lax)


def _claims_are_taken_at_once(patch: Patch) -> None:
    """The scheduler does not ask for how long the store has been there."""
    patch.setattr(sweep, "may_take_claim", lambda *args: True)
    patch.setattr(schedule, "LENGTHS", (9.0,))  # steps are at work when the store goes


def _nobody_renews(patch: Patch) -> None:
    patch.setattr(cluster.Keeper, "_renew", lambda self, refs: True)


def _messages_are_not_sent_again(patch: Patch) -> None:
    whole = timers.on_deadline

    def forgetful(header: Any, activation: Any, *args: Any, **kwargs: Any) -> Any:
        return None if activation.status == "queued" else whole(header, activation, *args, **kwargs)

    patch.setattr(sweep, "on_deadline", forgetful)


def _resumes_expect_nothing(patch: Patch) -> None:
    whole = commands.resume
    patch.setattr(commands, "resume", lambda *args, **kwargs: replace(whole(*args, **kwargs), expect=()))


def _claims_are_asked_for_anew(patch: Patch) -> None:
    """Each try of a claim has a token of its own."""
    tokens, whole = count(), MemoryStore.claim

    def claim(self: MemoryStore, ask: ClaimRequest) -> Claimed | Refused:
        return whole(self, replace(ask, token=f"{ask.token[:MARK]}{next(tokens)}"))

    patch.setattr(MemoryStore, "claim", claim)


def _old_headers_are_started(patch: Patch) -> None:
    """A start goes by the header that the caller has, however old that is."""
    patch.setattr(client_ops, "_require_pending", lambda executor, workflow, header, patience: header)


def _hooks_are_tried_once(patch: Patch) -> None:
    patch.setattr(settlement.reports, "find_report_pause", lambda activation: None)


def _reports_have_no_timers(patch: Patch) -> None:
    """Nobody looks after a report whose worker was lost."""
    whole = timers.on_deadline

    def forgetful(header: Any, activation: Any, *args: Any, **kwargs: Any) -> Any:
        return None if is_report(activation.path) else whole(header, activation, *args, **kwargs)

    patch.setattr(sweep, "on_deadline", forgetful)


def _iterations_keep_nothing(patch: Patch) -> None:
    """What the iteration that has just finished has made goes, too: the next begins with nothing, as do all others."""
    whole = iterations.release

    def lax(claim: Any, iteration: Any, keep: int, texts: Any, in_use: Any) -> Any:
        found = whole(claim, iteration, keep, texts, in_use)
        return replace(found, drop_values=(*found.drop_values, *iteration.list_made(texts)))

    patch.setattr(iterations, "release", lax)


@dataclass(frozen=True)
class Mutant:
    """A rule that is taken away, what is seen of it, and where not all faults are needed, those that bring it out."""

    take_away: Callable[[Patch], None]
    seen: str
    kinds: Mapping[str, int] = field(default_factory=lambda: faults.KINDS)
    chances: Sequence[float] = faults.CHANCES


MUTANTS = {
    "callers are forgotten": Mutant(_callers_are_forgotten, "was told that it has not", {"resent": 30}, (0.5,)),
    "leases are lax": Mutant(_leases_are_lax, "raised: IllegalTransition"),
    "claims are taken at once": Mutant(_claims_are_taken_at_once, "was called", {"store gone": 4}, (0.005, 0.01)),
    "nobody renews": Mutant(_nobody_renews, "was called"),
    "messages are not sent again": Mutant(_messages_are_not_sent_again, "stuck"),
    "resumes expect nothing": Mutant(_resumes_expect_nothing, "was accepted, and it got"),
    "claims are asked for anew": Mutant(
        _claims_are_asked_for_anew, "was told that it is called again", {"lost answer": 3, "resent": 3}
    ),
    "old headers are started": Mutant(_old_headers_are_started, "stuck", {"broker away": 2}),
    "hooks are tried once": Mutant(_hooks_are_tried_once, "on_finish was told 0 times"),
    "reports have no timers": Mutant(_reports_have_no_timers, "stuck"),
    "iterations keep nothing": Mutant(_iterations_keep_nothing, "stuck"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_rule_that_is_taken_away_is_missed(name: str, monkeypatch: Patch) -> None:
    """A check that cannot fail proves nothing."""
    mutant = MUTANTS[name]
    mutant.take_away(monkeypatch)
    monkeypatch.setattr(faults, "KINDS", mutant.kinds)
    monkeypatch.setattr(faults, "CHANCES", mutant.chances)
    for seed in range(MOST):
        found = [one for one in run_schedule(seed).violations if mutant.seen in one]
        if found:
            print(seed, found)
            return
    pytest.fail(f"{MOST} schedules see nothing of it")
