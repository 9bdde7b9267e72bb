"""Histories of users against workers and against each other, each told once, by the commands.

Below them stands what the search sees of the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator import Orchestrator, Workflow
from orchestrator import step as as_step
from orchestrator.rules import commands
from orchestrator.rules.apply import LOST
from orchestrator.rules.change import Committed
from orchestrator.rules.envelope import CommitLimits, StoredTexts
from orchestrator.rules.graph import Graph
from orchestrator.rules.model import Activation, ActivationStatus, StoredStatus
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing import VirtualClock
from tests.simulation import acts, callers
from tests.simulation.acts import RUN, foreach, graph, parallel, sleep, step
from tests.simulation.explorer import Explorer
from tests.simulation.play import Play
from tests.simulation.test_histories import reason

BAIL = graph(parallel("q", step("a"), step("b", closes="bail")))
ASKS = graph(parallel("q", step("a", suspends=1), step("b", suspends=1)))


def test_a_time_travel_to_items_that_have_all_succeeded_runs_them_anew() -> None:
    """There is nothing of it to go on with: the foreach begins again, and what follows runs again."""
    play = Play(graph(foreach("each", 2, 2, step("item")), step("f")))
    assert play.through().status == StoredStatus.SUCCESS
    play.send(callers.travel_change(play.graph, play.store, "item", play.fresh))
    assert play.through().status == StoredStatus.SUCCESS
    assert (play.header.generation, play.status("0", "0.0", "1")) == (1, [ActivationStatus.SUCCESS] * 3)


def test_a_sleep_that_was_paused_is_slept_after_its_resume() -> None:
    """Step by step or not, a minute is a minute."""

    @as_step
    def early(n: int) -> int:
        return n

    clock = VirtualClock()
    workflow = Workflow("naps", input=int).then(early).sleep(60.0).commit()
    with Orchestrator(store=MemoryStore(clock), workflows=[workflow]) as orchestrator:
        run = orchestrator.create_run(workflow)
        assert run.start(1, per_step=True).status == "paused"
        before = clock.now()
        assert run.resume(per_step=True).status == "success"
    assert clock.now() - before >= 60_000


@pytest.mark.parametrize("fails", [0, 1])
def test_a_resume_that_is_taken_back_does_not_hide_what_others_did_meanwhile(fails: int) -> None:
    """Another step was resumed and has ended: the run settles anew, and users who wait hear of it."""
    play = Play(graph(parallel("q", step("a", suspends=1), step("b", suspends=1, fails=fails))))
    before, awaiting = play.through(), play.store.load_awaiting(RUN)
    resumed = play.resume("0.0")
    assert isinstance(resumed, Committed)
    other = play.resume("0.1")
    assert isinstance(other, Committed)
    play.go_on(play.claim("0.1"))
    left = play.store.load_awaiting(RUN)
    undo = commands.undo_resume(before, awaiting[:1], left, resumed, (play.fresh(), play.fresh()))
    assert any(isinstance(play.send(change), Committed) for change in undo)
    assert play.through().status == (StoredStatus.FAILED if fails else StoredStatus.SUSPENDED)
    assert play.header.settle_count > other.header.settle_count


class Moving(MemoryStore):
    """A store in which something happens, once, as soon as activations have been read."""

    then: Callable[[], Any] | None = None

    def load(self, *which: Any, **how: Any) -> list[Activation]:
        found, then = super().load(*which, **how), self.then
        self.then = None
        if then is not None:
            then()
        return found


def test_a_cancel_that_meets_the_end_of_a_start_still_cancels() -> None:
    """It has seen the run's own activation; then the start is taken back, and the activation is gone."""

    @as_step
    def early(n: int) -> int:
        return n

    store = Moving()
    workflow = Workflow("early", input=int).then(early).commit()
    with Orchestrator(store=store, workflows=[workflow]) as orchestrator:
        run = orchestrator.create_run(workflow)
        header = run.header()
        texts = StoredTexts({"input": "=1"})
        start = commands.start(workflow.compiled, header, "input", "start", texts, CommitLimits())
        started = store.commit(run.run_id, start)
        assert isinstance(started, Committed)
        store.then = lambda: store.commit(run.run_id, commands.undo_start(start, started, "undo"))
        run.cancel()
        assert run.status == "canceled"
    assert store.load(run.run_id) == []


def test_a_run_that_a_bail_has_closed_can_be_restarted() -> None:
    """The worker that was to tell of the end is lost, and only a user brings the settling back."""
    play = Play(BAIL)
    play.claim("0.0")  # its worker dies too: nothing of it is committed any more
    settling = play.run("0.1")
    assert settling is not None
    activations, now = play.store.load(RUN), play.store.now()
    play.send(commands.restart(play.header, activations, now, play.fresh(), acts.LIMITS))
    assert reason(play.send(play.outcome(settling))) == LOST
    assert play.through().status == StoredStatus.SUCCESS


# --- what the search sees of it -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Search:
    """A workflow in which it is seen, and what happens to it."""

    graph: Graph
    budget: Mapping[str, int]
    options: Mapping[str, Any] = field(default_factory=dict)


SEARCHES = {
    "a time travel to items": Search(
        graph(foreach("each", 2, 2, step("item")), step("f")), {"travel": 1, "cancel": 1}, {"targets": ("item",)}
    ),
    "a sleep step by step": Search(graph(step("a"), sleep("nap"), step("b")), {"kill": 1}, {"per_step": True}),
    "a resume that is taken back": Search(ASKS, {"away": 1}),
    "a resume that is taken back, beside a failure": Search(
        graph(parallel("q", step("a", suspends=1), step("b", suspends=1, fails=1))), {"away": 1}
    ),
    "a resume of a paused run that is taken back": Search(
        graph(step("a"), parallel("q", step("b"), step("c"))), {"away": 1}, {"per_step": True}
    ),
    "a start that is taken back": Search(graph(step("a")), {"unstart": 1, "cancel": 1, "race": 1}),
    "a restart after a bail": Search(BAIL, {"restart": 1, "race": 1}),
    "a restart after a bail, by nobody else": Search(BAIL, {"kill": 1}, {"auto_restart": False}),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_no_order_of_events_breaks_it(name: str) -> None:
    """Not only the history above."""
    search = SEARCHES[name]
    found = Explorer(search.graph, **search.options, **search.budget).explore()
    assert not found.violation, "\n".join([found.violation, *found.way])
