"""The retention of events: from the settings to the store, and to a reader who comes too late."""

from __future__ import annotations

import math
from collections.abc import Generator

import pytest

from orchestrator import Orchestrator, Workflow, step
from orchestrator.engine.settings import Settings
from orchestrator.rules.change import Change, Committed, LeaseGuard, Refused
from orchestrator.rules.events import EventType
from orchestrator.stores.common import SLACK
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing import VirtualClock

clock = VirtualClock()


@step
def talk(count: int) -> Generator[int, None, int]:
    """Count aloud."""
    yield from range(count)
    return count


@step
def take_an_hour(count: int) -> int:
    """Let time pass."""
    clock.advance(3_600)
    return count


talking = Workflow("talking", input=int).then(talk).then(take_an_hour).commit()


class _Noting(MemoryStore):
    """A store that notes how many events the commits of steps want kept, and for how long."""

    def __init__(self) -> None:
        super().__init__(clock)
        self.noted: list[tuple[bool, int, int]] = []

    def commit(self, run_id: str, change: Change) -> Committed | Refused:
        if isinstance(change.guard, LeaseGuard):
            self.noted.append((change.guard.flush_seq > 0, change.max_events, change.max_event_age))
        return super().commit(run_id, change)


def test_the_settings_are_in_all_that_steps_commit() -> None:
    """Both limits travel with the parts that a step writes while it works, and with its outcome."""
    store = _Noting()
    with Orchestrator(store=store, workflows=[talking], events_max_per_run=70, events_max_age_seconds=0.0015) as here:
        here.create_run(talking).start(600)  # more than one part holds
    assert {*store.noted} == {(True, 70, 2), (False, 70, 2)}


def test_a_late_reader_is_told_that_events_were_too_old() -> None:
    """The events of the last steps are there, and so are those that are young enough."""
    counts = {}
    for age in (0, 3_599, 3_601):
        store = MemoryStore(clock)
        with Orchestrator(store=store, workflows=[talking], events_max_age_seconds=age) as here:
            run = here.create_run(talking)
            run.start(2 * SLACK)
            events = [*run.events()]
        counts[age] = len(events)
        assert (events[0].type == EventType.EVENTS_TRIMMED) == (age == 3_599)
        assert events[-1].type == "workflow-finish"
    assert counts[3_599] < SLACK < counts[0] == counts[3_601]


@pytest.mark.parametrize("age", [-1, -0.001, math.inf, math.nan])
def test_an_age_that_cannot_be_is_refused(age: float) -> None:
    """The settings refuse it, and not the first step that commits."""
    with pytest.raises(ValueError, match="orchestrator_events_max_age_seconds"):
        Settings(events_max_age_seconds=age)


def test_the_shortest_age_is_not_taken_for_none() -> None:
    """0 keeps all, and nothing else does."""
    assert Settings(events_max_age_seconds=1e-9).events_max_age == 1
    assert Settings().events_max_age == 0
