"""A run that is to start later: nothing of it begins before its moment, whatever it begins with."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import Orchestrator, Workflow, step
from orchestrator.stores import MemoryStore
from orchestrator.testing import VirtualClock

began: list[int] = []
clock = VirtualClock()


@step(id="notes-the-time")
def notes_the_time(number: int) -> int:
    began.append(clock.now())
    return number


def note(number: int) -> bool:
    """A condition or a map that notes when it is called."""
    began.append(clock.now())
    return bool(number)


INNER = Workflow("inner", input=int).then(notes_the_time).commit()
FLOWS: dict[str, tuple[Workflow, Any, float]] = {
    "step": (Workflow("step", input=int).then(notes_the_time), 1, 60),
    "map": (Workflow("map", input=int).map(note), 1, 60),
    "parallel": (Workflow("parallel", input=int).parallel(notes_the_time), 1, 60),
    "branch": (Workflow("branch", input=int).branch((note, notes_the_time)), 1, 60),
    "loop": (Workflow("loop", input=int).do_until(notes_the_time, note), 1, 60),
    "foreach": (Workflow("foreach", input=list[int]).foreach(notes_the_time), [1, 2], 60),
    "nested": (Workflow("nested", input=int).then(INNER), 1, 60),
    "sleep": (Workflow("sleep", input=int).sleep(5).then(notes_the_time), 1, 65),
    "computed sleep": (Workflow("computed-sleep", input=int).sleep(lambda _: 5).then(notes_the_time), 1, 65),
}


@pytest.mark.parametrize("name", FLOWS)
def test_nothing_begins_before_the_countdown_is_over(name: str) -> None:
    """And it begins then; a sleep at the beginning is counted from that moment."""
    flow, given, seconds = FLOWS[name]
    began.clear()
    with Orchestrator(store=MemoryStore(clock), workflows=[flow.commit()]) as orchestrator:
        now = clock.now()
        run = flow.apply_async((given,), countdown=60)
        assert orchestrator.runs.get(run.run_id) is not None
        assert run.result(30).status == "success"
    assert min(began) - now == seconds * 1000


def test_a_restart_leaves_a_countdown_as_it_is() -> None:
    """A timer fires when it is due: also that of a run which has not begun."""
    flow = Workflow("restarted", input=int).then(notes_the_time).commit()
    began.clear()
    store = MemoryStore(clock)
    with Orchestrator(store=store, workflows=[flow]):
        now = clock.now()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("orchestrator.local.LocalRuntime.drive_in_background", lambda self, run_id: None)
            run = flow.apply_async((1,), countdown=60)
    with Orchestrator(store=store, workflows=[flow]) as orchestrator:
        assert orchestrator.restart_active() == [run.run_id]
        assert orchestrator.get_run(run.run_id).result(30).status == "success"
    assert min(began) - now == 60_000
