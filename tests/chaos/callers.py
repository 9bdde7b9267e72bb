"""The callers of a round, each in a process of its own that may be killed at any moment: `-m tests.chaos.callers ROLE`.

Whoever comes back goes on from its journal: what it does not know the outcome of, it does again.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache

from orchestrator import Orchestrator
from tests.chaos import calls
from tests.chaos.programs import Fate
from tests.chaos.setup import PlannedRun, Setup, load

STARTERS = 2
SLOT = 0.4  # seconds; fixers act at the same moments, so that they meet
MAX_RUNNING = 20  # unfinished runs, so that a slow machine is not buried
RACED = 4  # every so many runs are started by all starters


class _Role:
    """One caller with its connection and its journal."""

    def __init__(self, name: str, setup: Setup, orchestrator: Orchestrator) -> None:
        self.setup = setup
        self.orchestrator = orchestrator
        self.caller = calls.Caller(setup.calls, name)
        self._size = 0
        self._started: list[tuple[PlannedRun, float]] = []
        # (verb, run, label) of which the outcome is known
        self.done = {(c.verb, c.run, c.label) for c in calls.read(setup.calls, name) if c.is_definite}

    def call(self, verb: str, run: str, action: Callable[[str], object], label: str = "") -> calls.Call | None:
        """Do it unless it has been done; remember it if the outcome is known."""
        if (verb, run, label) in self.done:
            return None
        made = self.caller.call(verb, run, action, label)
        if made.is_definite and made.outcome not in ("RunNotFound", "RunStillRunning"):
            self.done.add((verb, run, label))
        return made

    def started(self) -> list[tuple[PlannedRun, float]]:
        """Return the runs of which a start has begun, with its moment."""
        size = sum(path.stat().st_size for path in self.setup.calls.glob("starter*"))
        if size != self._size:
            begun = {call.run: call.begin for call in reversed(calls.read(self.setup.calls, "starter*"))}
            self._started = [(self.setup.run_of(run), at) for run, at in begun.items()]
            self._size = size
        return self._started


def start(role: _Role, index: int) -> None:
    """Start run after run; every RACED-th together with the other starters. First what a killed one left open."""
    for run in {call.run: None for call in calls.read(role.setup.calls, role.caller.name)}:
        while not _start(role, role.setup.run_of(run)):
            time.sleep(0.5)
    number = 0
    while not role.setup.stop.exists():
        number += 1
        if number % RACED and number % STARTERS != index:
            continue
        planned = role.setup.run(number)
        if ("start", planned.id, "") in role.done:
            continue
        _sleep_to(role.setup.pace)
        while role.orchestrator.runs.list(status="running", limit=1).total >= MAX_RUNNING:
            time.sleep(0.5)
        while not _start(role, planned):
            time.sleep(0.5)


def _start(role: _Role, planned: PlannedRun) -> bool:
    """Start one run, as often as it takes, also if the starting of others has ended meanwhile."""

    def action(_: str) -> object:
        return role.orchestrator.create_run(planned.program.id, run_id=planned.id).submit(planned.data)

    made = role.call("start", planned.id, action)
    return made is None or made.is_definite


def fix(role: _Role, index: int) -> None:
    """Resume whatever asks."""
    staying: set[str] = set()
    for _ in _slots():
        for listed in role.orchestrator.runs.list(status="suspended", limit=1000).runs:
            if listed.run_id in staying:
                continue
            found = role.orchestrator.runs.get(listed.run_id, fields=["resume_labels"])
            for label in (found and found.resume_labels) or {}:
                if label.startswith("stay:"):
                    staying.add(listed.run_id)
                else:
                    run = role.orchestrator.get_run(listed.run_id)
                    role.call("resume", run.run_id, lambda own: run.submit_resume(own, label=label), label)  # noqa: B023


def send(role: _Role, index: int) -> None:
    """Send each run the events that it waits for, before or after it waits."""
    for _ in _slots():
        for planned, at in role.started():
            for event, data in planned.expected.events.items():
                if time.time() > at + _delay(planned.id + event):
                    run_id = planned.id
                    role.call(
                        "send",
                        run_id,
                        lambda _: role.orchestrator.get_run(run_id).send_event(event, data),  # noqa: B023
                        event,
                    )


def meddle(role: _Role, index: int) -> None:
    """Cancel, restart and send back in time the runs whose programs say so."""
    for _ in _slots():
        for planned, at in role.started():
            fate = planned.program.fate
            if (
                fate is Fate.NOTHING
                or time.time() < at + _delay(planned.id)
                or (fate.value, planned.id, "") in role.done
            ):
                continue
            run = role.orchestrator.get_run(planned.id)
            if fate is Fate.CANCEL:
                role.call(fate.value, planned.id, lambda _: run.cancel())  # noqa: B023
            elif fate is Fate.RESTART:
                role.call(fate.value, planned.id, lambda _: run.submit_restart())  # noqa: B023
            elif run.status == "success":
                step = planned.program.target_step
                role.call(fate.value, planned.id, lambda _: run.submit_time_travel(step))  # noqa: B023


@cache
def _delay(name: str) -> float:
    """Return for how many seconds after a start something is left alone."""
    return random.Random(name).random() * 4


def _slots() -> Iterator[None]:
    while True:
        _sleep_to(SLOT)
        yield


def _sleep_to(slot: float) -> None:
    """Sleep until the machine's clock is a multiple of the slot, in all processes at once."""
    time.sleep(slot - time.time() % slot)


ROLES: dict[str, Callable[[_Role, int], None]] = {"starter": start, "fixer": fix, "sender": send, "meddler": meddle}
NAMES = ("starter0", "starter1", "fixer0", "fixer1", "sender0", "meddler0")


def main(name: str) -> None:
    """Be this caller until killed; what the servers do to it outside a call, it tries again."""
    setup = load()
    _, orchestrator = setup.open()
    act, role = ROLES[name[:-1]], _Role(name, setup, orchestrator)
    while True:
        try:
            act(role, int(name[-1]))
            return
        except Exception as error:  # noqa: BLE001 - looking at runs fails where the store is away
            print(f"{type(error).__name__}: {error}", flush=True)
            time.sleep(SLOT)


if __name__ == "__main__":
    main(sys.argv[1])
