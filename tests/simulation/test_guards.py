"""Taking a guard of workers away makes the explorer find what the guard is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.rules import apply as apply_module
from orchestrator.rules import commands, timers
from orchestrator.rules.change import (
    CancelPendingItems,
    Change,
    Claimed,
    CountDown,
    LeaseGuard,
    RequestGuard,
    StartNextItem,
    UpdateActivation,
)
from orchestrator.rules.model import Activation, ActivationStatus, Phase, RunHeader, StoredStatus
from orchestrator.stores import memory
from tests.simulation import acts
from tests.simulation.acts import foreach, graph, loop, parallel, sleep, step, wait
from tests.simulation.edits import guard_is
from tests.simulation.explorer import Explorer
from tests.simulation.mutants import Mutant, Patch, commands_are
from tests.simulation.state import State

SEQUENCE = graph(step("a"), step("b", suspends=1))
JOIN = graph(parallel("q", parallel("n", step("a"), step("b")), step("c")), step("f"))
WINDOW = graph(foreach("each", 3, 2, step("item")))
BAIL = graph(parallel("q", step("a", suspends=1), step("b", closes="bail")))
RETRY = graph(step("a", fails=1, retries=1), sleep("nap"))
EVENT = graph(wait("w"), step("a"))
NOTED = graph(parallel("q", step("a", notes=True), step("b", notes=True)))
STEPS = graph(step("a"), step("b"))
LOOP = graph(loop("again", 2, step("a")), step("f"))

apply, claim = apply_module.apply, apply_module.claim


def tokens_are_not_compared(patch: Patch) -> None:
    def lax(change: Change, header: Any, activations: Any, mail: Any, now: int, *more: Any) -> Any:
        guard = change.guard
        if (
            isinstance(guard, LeaseGuard)
            and guard.path in activations
            and activations[guard.path].status == ActivationStatus.RUNNING
        ):
            change = replace(change, guard=LeaseGuard(guard.path, activations[guard.path].lease_token))
        return apply(change, header, activations, mail, now, *more)

    patch.setattr(memory, "apply", lax)


def live_activations_are_overwritten(patch: Patch) -> None:
    """Neither tokens nor live activations stand in the way of a zombie."""

    def lax(change: Change, header: Any, activations: Any, mail: Any, now: int, *more: Any) -> Any:
        guard = change.guard
        if isinstance(guard, LeaseGuard) and guard.path in activations:
            token = activations[guard.path].lease_token or "none"
            over = {
                **activations,
                guard.path: replace(
                    activations[guard.path], status=ActivationStatus.RUNNING, lease_token=token, last_lease_token=""
                ),
            }
            puts = {op.activation.path for op in change.ops if hasattr(op, "activation")}
            over = {
                path: replace(r, status=ActivationStatus.SUCCESS) if path in puts else r for path, r in over.items()
            }
            return apply(replace(change, guard=LeaseGuard(guard.path, token)), header, over, mail, now, *more)
        return apply(change, header, activations, mail, now, *more)

    patch.setattr(memory, "apply", lax)
    patch.setattr(Explorer, "owners", False)


def settling_is_claimed_while_something_is_live(patch: Patch) -> None:
    def lax(self: Any, token: str, at_once: bool) -> None:
        root = self.activations.get("")
        if root is not None and self.header.status == StoredStatus.RUNNING and root.status == ActivationStatus.OPEN:
            self.put(root, {"status": ActivationStatus.QUEUED, "phase": Phase.SETTLE}, token, 0)

    patch.setattr(apply_module._Work, "settle", lax)


def settling_is_claimed_by_nobody(patch: Patch) -> None:
    patch.setattr(apply_module._Work, "settle", lambda self, token, at_once: None)


def what_follows_is_a_commit_of_its_own(patch: Patch) -> None:
    def two(self: Explorer, claimed: Claimed, entries: tuple[str, ...]) -> list[Change]:
        first = acts.changes(self.graph, self.store, claimed, self.fresh, entries=entries)
        later = tuple(op for op in first[-1].ops if isinstance(op, CountDown | StartNextItem | CancelPendingItems))
        if not later:
            return first
        now = tuple(op for op in first[-1].ops if not isinstance(op, CountDown | StartNextItem | CancelPendingItems))
        second = replace(
            first[-1], guard=RequestGuard(self.fresh(), frozenset({StoredStatus.RUNNING})), ops=later, events=()
        )
        return [*first[:-1], replace(first[-1], ops=now), second]

    patch.setattr(Explorer, "commits", two)
    patch.setattr(Explorer, "owners", False)  # the second commit belongs to nobody
    patch.setattr(Explorer, "hears", False)  # and tells too late


def a_resume_leaves_the_settling(patch: Patch) -> None:
    resume = commands.resume

    def lax(*args: Any, **kwargs: Any) -> Change:
        change = resume(*args, **kwargs)
        return replace(
            change, ops=tuple(op for op in change.ops if not (isinstance(op, UpdateActivation) and not op.path))
        )

    patch.setattr(commands, "resume", lax)


def a_resume_is_not_guarded(patch: Patch) -> None:
    resume = commands.resume

    def lax(*args: Any, **kwargs: Any) -> Change:
        change = resume(*args, **kwargs)
        return replace(change, guard=RequestGuard(change.guard.id, frozenset(StoredStatus)))

    patch.setattr(commands, "resume", lax)


def a_resume_is_let_into_a_closed_run(patch: Patch) -> None:
    patch.setattr(apply_module, "_is_too_late", lambda change, header: False)
    patch.setattr(Explorer, "judges", False)  # what comes of it is to be seen


def queued_activations_are_never_due(patch: Patch) -> None:
    original = Explorer._moments

    def fewer(self: Explorer, state: State) -> Any:
        return (move for move in original(self, state) if "(queued)" not in move[0])

    patch.setattr(Explorer, "_moments", fewer)


def leases_never_end(patch: Patch) -> None:
    original = Explorer._moments

    def fewer(self: Explorer, state: State) -> Any:
        return (move for move in original(self, state) if "(running)" not in move[0])

    patch.setattr(Explorer, "_moments", fewer)


def claims_are_lax(**fields: Any) -> Callable[[Patch], None]:
    """Claims believe these fields of the activation (or `header_…` of the header), whatever is stored."""

    def mutate(patch: Patch) -> None:
        def lax(ask: Any, header: Any, activation: Any, now: int) -> Any:
            about = {name[7:]: value for name, value in fields.items() if name.startswith("header_")}
            own = {name: value for name, value in fields.items() if not name.startswith("header_")}
            header = header and replace(header, **about)
            if activation is not None and ("deadline" not in own or activation.status != ActivationStatus.QUEUED):
                activation = replace(activation, **own)
            return claim(ask, header, activation, now)

        patch.setattr(memory, "claim", lax)

    return mutate


def held_claims_are_free(patch: Patch) -> None:
    """A message takes the claim of whoever is at work."""

    def lax(ask: Any, header: Any, activation: Any, now: int) -> Any:
        if activation is not None and activation.status == ActivationStatus.RUNNING:
            activation = replace(activation, status=ActivationStatus.RETRYING, deadline=0)
        return claim(ask, header, activation, now)

    patch.setattr(memory, "claim", lax)


def commits_do_not_ask_whether_the_run_has_ended(patch: Patch) -> None:
    def lax(change: Change, header: RunHeader, activations: Any, mail: Any, now: int, *more: Any) -> Any:
        if isinstance(change.guard, LeaseGuard) and header.status != StoredStatus.SUSPENDED:
            header = replace(header, status=StoredStatus.RUNNING, closed=False)
        return apply(change, header, activations, mail, now, *more)

    patch.setattr(memory, "apply", lax)


def mailboxes_are_not_compared(patch: Patch) -> None:
    patch.setattr(apply_module, "find_refusal", lambda update, mailbox: "")


def states_are_not_compared(patch: Patch) -> None:
    """A worker writes what it has computed from a state that another has written meanwhile."""

    def lax(change: Change, header: Any, activations: Any, mail: int, now: int, *more: Any) -> Any:
        return apply(replace(change, expect_state=None), header, activations, mail, now, *more)

    patch.setattr(memory, "apply", lax)


def states_have_one_version(patch: Patch) -> None:
    """A write of the state gives it no version of its own."""
    patch.setattr("orchestrator.rules.apply._Work.write_state", lambda work, guard: None)


def repeats_are_not_remembered(patch: Patch) -> None:
    def lax(change: Change, header: Any, activations: dict[str, Activation], mail: Any, now: int, *more: Any) -> Any:
        return apply(
            change, header, {path: replace(r, last_lease_token="") for path, r in activations.items()}, mail, now, *more
        )

    patch.setattr(memory, "apply", lax)


def claims_are_ended_without_a_token_of_ones_own(patch: Patch) -> None:
    """An outcome that comes too late is taken for a repeat of the commit that has ended its claim."""
    commands_are(guard_is(ender=""), "commit_outcome")(patch)


def moments_are_not_looked_at_again(patch: Patch) -> None:
    """A timer that was due when it was found counts as due when its activation is read."""
    patch.setattr(timers, "is_due", lambda activation, now: True)


NOTHING = "nothing awaiting and no outcome"

MUTANTS = {
    "moments are looked at again": Mutant(
        moments_are_not_looked_at_again, RETRY, {"glance": 1, "repeat": 1, "timer": 0}, "whose lease has just begun"
    ),
    "tokens": Mutant(tokens_are_not_compared, SEQUENCE, {"expire": 1}, "that does not hold its lease"),
    "tokens and what is live": Mutant(live_activations_are_overwritten, LOOP, {"expire": 1}, "ends again"),
    "settling needs nothing live": Mutant(settling_is_claimed_while_something_is_live, JOIN, {}, NOTHING),
    "some worker settles the run": Mutant(settling_is_claimed_by_nobody, SEQUENCE, {}, "hangs"),
    "one commit, join": Mutant(what_follows_is_a_commit_of_its_own, JOIN, {"kill": 1}, NOTHING),
    "one commit, window": Mutant(what_follows_is_a_commit_of_its_own, WINDOW, {"kill": 1}, "0 items at a time"),
    "resume takes the settling": Mutant(
        a_resume_leaves_the_settling, SEQUENCE, {}, "suspended while something is live"
    ),
    "resume takes the settling, paused": Mutant(
        a_resume_leaves_the_settling, STEPS, {}, "paused while something is live", {"per_step": True}
    ),
    "resume needs an active run": Mutant(a_resume_is_not_guarded, BAIL, {"cancel": 1}, "although the run is"),
    "closed for requests": Mutant(a_resume_is_let_into_a_closed_run, BAIL, {}, "hangs"),
    "outbox": Mutant(queued_activations_are_never_due, SEQUENCE, {"lose": 1}, "hangs"),
    "leases": Mutant(leases_never_end, SEQUENCE, {"kill": 1}, "hangs"),
    "busy": Mutant(held_claims_are_free, SEQUENCE, {"repeat": 1}, "by a message, while it is running"),
    "busy, also when the lease is over": Mutant(
        held_claims_are_free, SEQUENCE, {"repeat": 1, "expire": 1}, "by a message, while it is running"
    ),
    "early": Mutant(claims_are_lax(deadline=0), RETRY, {"timer": 0}, "before its moment, while it is retrying"),
    "ended, claims": Mutant(
        claims_are_lax(header_status=StoredStatus.RUNNING, header_closed=False),
        SEQUENCE,
        {"cancel": 1},
        "claimed in a run",
    ),
    "ended, commits": Mutant(commits_do_not_ask_whether_the_run_has_ended, SEQUENCE, {"cancel": 1}, "accepted in"),
    "closed for workers": Mutant(commits_do_not_ask_whether_the_run_has_ended, BAIL, {}, "in a run that is closed"),
    "mailboxes": Mutant(mailboxes_are_not_compared, EVENT, {"send": 1}, "waits although"),
    "states are compared": Mutant(states_are_not_compared, NOTED, {}, "is lost"),
    "states have versions": Mutant(states_have_one_version, NOTED, {}, "is lost"),
    "who ends a claim": Mutant(claims_are_ended_without_a_token_of_ones_own, STEPS, {"outrun": 1}, "is at work on it"),
    "repeats": Mutant(repeats_are_not_remembered, SEQUENCE, {"resend": 1}, "somebody else's"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_without_a_guard_a_violation_is_found(name: str, monkeypatch: Patch) -> None:
    """The same search finds nothing with the guard and something without it."""
    MUTANTS[name].must_be_seen(monkeypatch)


def test_a_stale_message_is_harmless_even_if_its_number_is_not_looked_at(monkeypatch: Patch) -> None:
    """A message only says that a worker should look: status, deadline and token protect the activation."""

    def lax(ask: Any, header: Any, activation: Any, now: int) -> Any:
        return claim(replace(ask, seq=activation.seq) if activation else ask, header, activation, now)

    monkeypatch.setattr(memory, "claim", lax)
    in_generations: dict[str, int] = {"travel": 1, "cancel": 1, "expire": 1, "late": 0}
    budget: dict[str, int] = {"repeat": 1, "expire": 1, "late": 0}
    for of, happens in ((SEQUENCE, budget), (LOOP, budget), (STEPS, in_generations)):
        found = Explorer(of, targets=("a",), **happens).explore()
        assert not found.violation, found.way
