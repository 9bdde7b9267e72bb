"""What the explorer's users do is what the engine does: both build the same change of the same run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.changes import Change, Committed, Put, Refused, Run, Set
from orchestrator.core.records import LIVE
from orchestrator.engine import again, operations
from orchestrator.engine.targets import Target
from tests.simulation import acts, callers
from tests.simulation.acts import RUN, foreach, graph, loop, nested, parallel, sleep, step
from tests.simulation.engines import engine_of, workflow_of
from tests.simulation.play import Play

ITEMS = graph(step("a"), foreach("each", 3, 2, step("item", suspends=1, label="L")), step("f"))
BUSY = graph(parallel("q", step("a"), step("b", fails=1, retries=1), sleep("nap"), step("c", suspends=1)))
STEPS = graph(step("a"), parallel("q", step("b"), step("c")))
DEEP = graph(step("z"), loop("again", 2, nested("n", step("a"), parallel("q", step("b"), step("c", suspends=1)))))


class _Caught(Exception):
    """The change that the engine was about to commit."""


class _Ear:
    """A store that lets everything be read, and so many changes be written; the next is caught."""

    def __init__(self, store: Any, lets: int) -> None:
        self.store, self.lets = store, lets
        self.answers: list[Committed | Refused] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def commit(self, run_id: str, change: Change) -> Committed | Refused:
        if len(self.answers) == self.lets:
            raise _Caught(change)
        self.answers.append(self.store.commit(run_id, change))
        return self.answers[-1]


def caught(play: Play, call: Callable[[Any], Any], lets: int = 0) -> tuple[Change, list[Any]]:
    """The change by which this call of the engine goes, and the answers to those before it. No broker is there."""
    ear = _Ear(play.store, lets)
    with pytest.raises(_Caught) as found:
        call(engine_of(play, store=ear))
    return found.value.args[0], ear.answers


def alike(ours: Change, theirs: Change, given: str = "data") -> None:
    """They are the same but for ids, which never come back, and for what is only told."""
    assert replace(ours.guard, id="") == replace(theirs.guard, id="")
    assert _ops(ours, {given}) == _ops(theirs, set(theirs.values))
    assert ours.expect == theirs.expect
    assert set(ours.drop) == set(theirs.drop)
    assert ours.mail == theirs.mail
    assert (ours.rest, ours.rest_now, ours.lease, ours.grace) == (
        theirs.rest,
        theirs.rest_now,
        theirs.lease,
        theirs.grace,
    )


def _ops(change: Change, ids: set[str]) -> list[Any]:
    """What is done; values go by one name, and what is known only to the engine is left out."""
    done: list[Any] = []
    for op in change.ops:
        match op:
            case Put(record=record) if record.input in ids:
                done.append(replace(op, record=replace(record, input="given")))
            case Set(fields=fields) | Run(fields=fields):
                known = {name: value for name, value in fields.items() if name not in ("namespace", "resource_id")}
                done.append(
                    replace(op, fields={key: "given" if value in ids else value for key, value in known.items()})
                )
            case _:
                done.append(op)
    return [op for op in done if not (isinstance(op, Run) and op.fields.keys() <= {"fingerprint"})]


def items() -> Play:
    """Two items wait, of three."""
    play = Play(ITEMS)
    play.through()
    return play


def busy() -> Play:
    """A step is at work, another waits for its retry, a sleep sleeps, and one step is suspended."""
    play = Play(BUSY)
    play.claim("0.0")
    play.run("0.1")
    play.run("0.3")
    return play


def paused() -> Play:
    """Two steps wait for a word."""
    play = Play(STEPS, per_step=True)
    play.through()
    return play


def deep() -> Play:
    """A step is suspended in the second iteration."""
    play = Play(DEEP)
    play.through()
    play.resume("1.0.1.1")
    play.through()
    return play


# --- resume ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [Target(), Target(index=1), Target("item", index=0), Target(label="L 1.1")])
@pytest.mark.parametrize("per_step", [False, True])
def test_a_resume(target: Target, per_step: bool) -> None:
    """Of all items, or of one, by its index or label."""
    play = items()
    theirs, _ = caught(play, lambda engine: operations.resume(engine, play.header, "x", target, {}, per_step))
    meant = callers.meant(target, play.header, play.store.load(RUN))
    alike(acts.resume_all(play.header, meant, play.fresh, per_step=per_step), theirs)


def test_a_resume_inside_a_nested_workflow() -> None:
    """Whoever has a handle to it speaks of what is inside."""
    play, target = deep(), Target("c", scope=(1, 0))
    theirs, _ = caught(play, lambda engine: operations.resume(engine, play.header, "x", target, {}))
    (meant,) = callers.meant(target, play.header, play.store.load(RUN))
    assert meant.path == "1.0.1.1"
    alike(acts.resume_change(play.header, meant, play.fresh), theirs)


@pytest.mark.parametrize("per_step, paths", [(True, ["1.0"]), (False, ["1.0", "1.1"])])
def test_a_word_to_a_paused_run(per_step: bool, paths: list[str]) -> None:
    """It has no data, and lets one step go on or all that was held back."""
    play, nothing = paused(), operations.ABSENT
    theirs, _ = caught(play, lambda engine: operations.resume(engine, play.header, nothing, Target(), {}, per_step))
    meant = callers.meant(Target(), play.header, play.store.load(RUN), per_step=per_step)
    assert [record.path for record in meant] == paths
    alike(acts.resume_all(play.header, meant, play.fresh, per_step=per_step), theirs)


def test_a_resume_that_is_taken_back() -> None:
    """The broker is away."""
    play = items()
    header, meant = play.header, callers.meant(Target(), play.header, play.store.load(RUN))
    theirs, (answer,) = caught(play, lambda engine: operations.resume(engine, header, "x", Target(), {}), lets=1)
    alike(callers.suspend_again(answer, meant, meant, header, play.fresh)[0], theirs)


# --- start, cancel --------------------------------------------------------------------------------------------


def test_a_start_that_is_taken_back() -> None:
    """The start is as the explorer begins, and so is its undoing."""
    play = Play(STEPS, started=False)
    header, begin = play.header, operations.Beginning("x")
    ours = acts.start_change(play.graph, header, play.fresh)
    start, _ = caught(play, lambda engine: operations.start(engine, workflow_of(play), header, begin))
    alike(ours, start, "input")
    undo, (answer,) = caught(play, lambda engine: operations.start(engine, workflow_of(play), header, begin), lets=1)
    alike(callers.start_undone(answer, ours, play.fresh), undo)


@pytest.mark.parametrize("started", [False, True])
def test_a_cancel(started: bool) -> None:
    """Of a run that has begun or not."""
    play = Play(STEPS, started=started)
    theirs, _ = caught(play, lambda engine: operations.cancel(engine, play.header))
    alike(acts.cancel_change(play.header, play.fresh, begun=started), theirs)


# --- again ----------------------------------------------------------------------------------------------------


def test_a_restart() -> None:
    """Of everything that is unfinished in its own way."""
    play = busy()
    theirs, _ = caught(play, lambda engine: again.restart(engine, play.header))
    records = play.store.load(RUN)
    assert {record.status for record in records if record.path} > LIVE - {"queued"}
    alike(callers.restart_change(play.header, records, play.store.now(), play.fresh), theirs)


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("make, target", [(items, "a"), (items, "item"), (deep, "n"), (deep, "n.b"), (paused, "a")])
def test_a_time_travel(make: Callable[[], Play], target: str, per_step: bool) -> None:
    """Along a flow, to items, and into a loop."""
    play = make()
    wish = again.Itinerary(target.split("."), per_step=per_step)
    theirs, _ = caught(play, lambda engine: again.time_travel(engine, play.header, wish))
    ours = callers.travel_change(play.graph, play.store, target, play.fresh, per_step=per_step)
    alike(ours, theirs)
    assert ours.values.keys() == theirs.values.keys()
