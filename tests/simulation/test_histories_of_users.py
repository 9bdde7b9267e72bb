"""Histories of users against workers and against each other, each told once, by the engine's own operations.

Below them stands what the search sees of the same: the users of the explorer do what the engine did when they were
written down (`test_mirrors` compares them), so whoever changes the one changes the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator import Orchestrator, Workflow
from orchestrator import step as as_step
from orchestrator.core.apply import LOST
from orchestrator.core.changes import Committed
from orchestrator.core.graph import Graph
from orchestrator.core.records import Header, Record, RunState, Status
from orchestrator.engine import again, operations
from orchestrator.engine.targets import Target
from orchestrator.errors import BrokerUnavailable
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing import VirtualClock
from tests.simulation import acts, callers
from tests.simulation.acts import RUN, foreach, graph, parallel, sleep, step
from tests.simulation.engines import engine_of, nobody_hears
from tests.simulation.explorer import Explorer
from tests.simulation.play import Play
from tests.simulation.test_histories import reason

BAIL = graph(parallel("q", step("a"), step("b", word="bail")))
ASKS = graph(parallel("q", step("a", suspends=1), step("b", suspends=1)))


def told(header: Header, dispatches: Any) -> None:
    """The broker takes the messages; the test delivers them."""


def test_a_time_travel_to_items_that_have_all_succeeded_runs_them_anew() -> None:
    """There is nothing of it to go on with: the foreach begins again, and what follows runs again."""
    play = Play(graph(foreach("each", 2, 2, step("item")), step("f")))
    assert play.through().status == RunState.SUCCESS
    again.time_travel(engine_of(play, told), play.header, again.Itinerary(["item"]))
    assert play.through().status == RunState.SUCCESS
    assert (play.header.life, play.status("0", "0.0", "1")) == (1, [Status.SUCCESS] * 3)


def test_a_sleep_that_was_held_back_is_slept_when_its_word_comes() -> None:
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
    """Another step was resumed and has ended: the run rests anew, as what it has come to, and who waits hears of it."""
    play = Play(graph(parallel("q", step("a", suspends=1), step("b", suspends=1, fails=fails))))
    play.through()
    waits_for_more: list[int] = []

    def others_come(header: Header, dispatches: Any) -> None:
        answer = play.resume("0.1")
        assert isinstance(answer, Committed)
        waits_for_more.append(answer.header.rests)
        play.go_on(play.claim("0.1"))
        nobody_hears(header, dispatches)

    with pytest.raises(BrokerUnavailable):
        operations.resume(engine_of(play, others_come), play.header, "x", Target("a"), {})
    assert play.through().status == (RunState.FAILED if fails else RunState.SUSPENDED)
    assert play.header.rests > waits_for_more[0]


class Moving:
    """A store in which something happens as soon as somebody has read records."""

    def __init__(self, play: Play, then: Callable[[], Any]) -> None:
        self._play, self._then = play, then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._play.store, name)

    def load(self, *which: Any, **how: Any) -> list[Record]:
        found = self._play.store.load(*which, **how)
        self._then()
        return found


def test_a_cancel_that_meets_the_end_of_a_start_still_cancels() -> None:
    """It has seen the run's own record; then the start is taken back, and the record is gone."""
    play = Play(graph(step("a")), started=False)
    change = acts.start_change(play.graph, play.header, play.fresh)
    started = play.send(change)
    assert isinstance(started, Committed)
    undo = callers.start_undone(started, change, play.fresh)
    moving = Moving(play, lambda: play.send(undo))
    assert operations.cancel(engine_of(play, store=moving), play.header).status == RunState.CANCELED
    assert (play.header.status, play.store.load(RUN)) == (RunState.CANCELED, [])


def test_a_run_that_a_word_has_ended_can_be_restarted() -> None:
    """The worker that was to tell of the end is lost, and nobody but a user brings the rest back."""
    play = Play(BAIL)
    play.claim("0.0")  # its worker is lost too: what it does is not recorded any more
    rest = play.run("0.1")
    assert rest is not None
    again.restart(engine_of(play, told), play.header)
    assert reason(play.send(play.outcome(rest))) == LOST
    assert play.through().status == RunState.SUCCESS


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
    "a word to a paused run that is taken back": Search(
        graph(step("a"), parallel("q", step("b"), step("c"))), {"away": 1}, {"per_step": True}
    ),
    "a start that is taken back": Search(graph(step("a")), {"unstart": 1, "cancel": 1, "race": 1}),
    "a restart after a word": Search(BAIL, {"restart": 1, "race": 1}),
    "a restart after a word, by nobody else": Search(BAIL, {"kill": 1}, {"auto_restart": False}),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_no_order_of_events_breaks_it(name: str) -> None:
    """Not only the history above."""
    search = SEARCHES[name]
    found = Explorer(search.graph, **search.options, **search.budget).explore()
    assert not found.violation, "\n".join([found.violation, *found.way])
