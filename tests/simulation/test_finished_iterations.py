"""Runs whose finished iterations keep no values come to the same; each rule that is taken away shows in one of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.rules import iterations
from orchestrator.rules.change import Claimed, Committed
from orchestrator.rules.graph import Node
from orchestrator.rules.iterations import FinishedIteration, Release
from orchestrator.rules.model import ActivationStatus, StoredStatus
from orchestrator.rules.plan import ClaimedNode
from tests.simulation import acts
from tests.simulation.acts import RUN, branch, foreach, graph, loop, nested, parallel, sleep, step, wait
from tests.simulation.explorer import Explorer
from tests.simulation.mutants import Mutant
from tests.simulation.play import Play

TIMES = 6
BODIES = {
    "a step": step("a"),
    "a step that is tried again": step("a", fails=1, retries=1),
    "a step that suspends": step("a", suspends=1),
    "steps": nested("n", step("a"), step("b"), checks=True),
    "a nap": sleep("s"),
    "a nap and a step": nested("n", sleep("s"), step("a"), sleep("t")),
    "a parallel that passes something on": parallel("p", step("a"), sleep("s")),
    "a parallel that passes all on": parallel("p", sleep("s"), nested("n", sleep("t"))),
    "a failure that is allowed": parallel("p", step("a", fails=1), step("b"), allow_failure=True),
    "a branch": branch("b", (1,), step("a"), step("b")),
    "no arm": nested("n", branch("b", (), step("a")), step("c")),
    "items": nested("n", foreach("f", 3, 2, step("a")), step("b")),
    "items that are joined": foreach("f", 2, 2, nested("n", step("a"), step("b"))),
    "items that suspend": nested("n", foreach("f", 2, 1, step("a", suspends=1)), step("b")),
    "a loop": loop("inner", 4, step("a")),
    "a loop of naps": loop("inner", 3, sleep("s")),
    "a loop whose end naps": loop("inner", 4, nested("n", branch("b", (0,), step("a")), sleep("s"))),
    "loops": nested("n", loop("i", 3, parallel("p", step("a"), sleep("s"))), loop("j", 2, step("b")), step("c")),
    "items with loops": nested("n", foreach("f", 2, 1, nested("m", loop("i", 3, step("a")))), step("b")),
    "a wait with an alternative": nested("n", wait("w", 1.0, sleep("s")), step("a")),
}
# What grows by reference keeps all that it refers to.
GROWING = {"a parallel that passes something on", "a parallel that passes all on", "loops"}


class Talk(Play):
    """A run of a loop with this body, to its end."""

    def __init__(self, body: Node, keep: int, times: int = TIMES) -> None:
        super().__init__(graph(step("first"), loop("talk", times, body), step("last")), keep=keep)
        self.most = 0  # values that were there at once

    def end(self, claimed: Claimed) -> Claimed | None:
        """Commit all that a claim leads to, the values of items too."""
        entries = self.store.mail(RUN, acts.EVENT)
        todo = acts.changes(self.graph, self.store, claimed, self.fresh, entries=entries, keep=self.keep)
        for change in todo:
            answer = self.send(change)
            assert isinstance(answer, Committed), answer
        self.most = max(self.most, len(self.store._runs[RUN].values))
        return answer.claimed

    def result(self) -> Any:
        """Let everything happen, whatever has to be answered."""
        while True:
            while self.header.waiting and not self.header.final:
                self.pass_time()
                self.tick()
                self.through()
            if self.through().final:
                break
            for activation in self.store.load_awaiting(RUN):
                if activation.status == ActivationStatus.SUSPENDED:
                    self.send(acts.resume_all(self.header, [activation], self.fresh, data=f"{self.fresh()}r"))
        assert self.header.status == StoredStatus.SUCCESS
        return acts.plain(self.store, self.header.output)


@pytest.mark.parametrize("name", BODIES)
def test_a_run_comes_to_the_same_whatever_it_lets_go_of(name: str) -> None:
    """Whatever the body of the loop is."""
    whole = Talk(BODIES[name], 0).result()
    assert "no value" not in str(whole)
    for keep in (1, 2):
        assert Talk(BODIES[name], keep).result() == whole


@pytest.mark.parametrize("name", [name for name in BODIES if name not in GROWING])
def test_a_run_has_as_many_values_after_many_iterations_as_after_few(name: str) -> None:
    """At the end, and at no moment before it."""
    most = []
    for times in (TIMES, 3 * TIMES):
        talk = Talk(BODIES[name], 1, times)
        talk.result()
        most.append(talk.most)
    assert most[0] == most[1]


# --- rules that are taken away ----------------------------------------------------------------------------------------

_release = iterations.release


def the_iteration_that_has_just_finished_goes_too(patch: pytest.MonkeyPatch) -> None:
    """None at all is kept."""

    def lax(
        claim: ClaimedNode, iteration: FinishedIteration, keep: int, texts: Any, in_use: Collection[str]
    ) -> Release:
        found = _release(claim, iteration, keep, texts, in_use)
        return replace(found, drop_values=(*found.drop_values, *iteration.list_made(texts)))

    patch.setattr(iterations, "release", lax)


def what_is_in_use_goes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(iterations, "release", lambda *args: _release(*args[:4], frozenset()))


def what_is_in_use_is_not_looked_into(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(iterations, "release", lambda *args: _release(*args[:4], {args[0].activation.input}))


def older_manifests_go_whatever_is_to_be_kept(patch: pytest.MonkeyPatch) -> None:
    """With them all that they list, and they stay among those that the loop has."""

    def lax(
        claim: ClaimedNode, iteration: FinishedIteration, keep: int, texts: Any, in_use: Collection[str]
    ) -> Release:
        found = _release(claim, iteration, keep, texts, in_use)
        return replace(found, finished=f"{claim.activation.finished} {found.finished}".strip())

    patch.setattr(iterations, "release", lax)


@pytest.mark.parametrize(
    "take_away, name",
    [
        (the_iteration_that_has_just_finished_goes_too, "a step"),
        (the_iteration_that_has_just_finished_goes_too, "items with loops"),
        (what_is_in_use_goes, "a parallel that passes something on"),
        (what_is_in_use_is_not_looked_into, "a parallel that passes something on"),
    ],
)
def test_a_rule_that_is_taken_away_is_missed(
    take_away: Callable[[pytest.MonkeyPatch], None], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value is gone that somebody still reads."""
    whole = Talk(BODIES[name], 1).result()
    take_away(monkeypatch)
    assert Talk(BODIES[name], 1).result() != whole


# --- in every order ---------------------------------------------------------------------------------------------------

_PASSES = graph(loop("talk", 4, parallel("p", step("a"), sleep("s"))), step("last"))
_LOOPS = graph(loop("talk", 3, nested("n", loop("inner", 3, step("a")), step("b"))))
_ITEMS = graph(loop("talk", 3, foreach("f", 2, 2, step("a"))), step("last"))
_STEPS = graph(loop("talk", 4, nested("n", step("a"), step("b"))), step("last"))
SEARCHES: dict[str, tuple[Any, dict[str, Any]]] = {
    "a worker dies": (_PASSES, {"kill": 1}),
    "a lease ends under its worker": (_LOOPS, {"expire": 1}),
    "a commit is sent again": (_ITEMS, {"resend": 1, "kill": 1}),
    "a message comes twice": (_PASSES, {"repeat": 1, "early": 1}),
    "the run is canceled and travels": (_STEPS, {"cancel": 1, "travel": 1, "targets": ("n", "n.b")}),
    "the run travels, and a lease ends": (_STEPS, {"travel": 1, "expire": 1, "targets": ("n.b",)}),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_whatever_happens_nothing_goes_that_is_in_use(name: str) -> None:
    """Neither of the run nor of any activation, in any order of events; and the run settles."""
    of, options = SEARCHES[name]
    found = Explorer(of, keep=1, **options).explore()
    assert not found.violation, "\n".join([found.violation, *found.way])
    assert found.states > 100


@pytest.mark.parametrize(
    "mutant",
    [
        Mutant(the_iteration_that_has_just_finished_goes_too, _STEPS, {"kill": 1}, "are dropped, and", {"keep": 1}),
        Mutant(what_is_in_use_goes, _PASSES, {"kill": 1}, "are dropped, and", {"keep": 1}),
        Mutant(what_is_in_use_is_not_looked_into, _PASSES, {"kill": 1}, "are dropped, and", {"keep": 1}),
        Mutant(older_manifests_go_whatever_is_to_be_kept, _LOOPS, {}, "and a loop still has them", {"keep": 1}),
    ],
    ids=lambda mutant: mutant.take_away.__name__,
)
def test_the_search_sees_a_rule_that_is_taken_away(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the very commit that drops too much."""
    mutant.must_be_seen(monkeypatch)
