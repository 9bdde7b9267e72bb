"""One round: servers and processes are started, faults strike, all is healed, and what is left is judged."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator import Orchestrator
from tests.chaos import calls, effects, faults, verdict
from tests.chaos.fleet import Fleet
from tests.chaos.programs import Fate
from tests.chaos.report import Round
from tests.chaos.servers import Outlet, serve
from tests.chaos.setup import PlannedRun, Setup

ENDED = ("success", "failed", "canceled", "tripwire")
LOOK = 0.1  # seconds between two looks of who watches for stalls


@dataclass(frozen=True)
class Form:
    """The times of a round, in seconds: for how long faults strike, how long outages last, when a run is stuck."""

    seconds: float
    outage: float = 1.0
    # every so many outages one is long
    long_every: int = 0
    long_outage: float = 30.0
    pause: float = 1.0
    patience: float = 180.0
    lease: float = 8.0
    pace: float = 0.8
    # whether processes, store and broker are struck side by side
    together: bool = False


def play(combination: str, seed: int, form: Form, folder: Path, kinds: list[str] | None = None) -> Round:
    """Play a round and judge it. The folder keeps everything of it."""
    began = time.monotonic()
    folder.mkdir(parents=True)
    with serve(combination, folder) as (broker, store), _watch_for_stalls(form.lease) as stalls:
        setup = Setup(folder, broker.url, store.url, seed, lease=form.lease, pace=form.pace)
        setup.save()
        with Fleet(setup) as fleet:
            fleet.wait_ready(form.patience)
            strikes = _strike(
                form,
                kinds or faults.kinds_for(combination),
                lambda lane: faults.Site(setup, broker, store, fleet, random.Random(f"{seed}{lane}"), form.outage),
            )
            setup.stop.touch()
            healed = time.monotonic()
            _, orchestrator = setup.open()
            _wait_until_quiet(setup, orchestrator, form.patience)
            recovery = time.monotonic() - healed
        planned = _planned(setup)
        history = verdict.History(
            planned,
            {each.id: _look(orchestrator, each) for each in planned},
            effects.read(setup.effects),
            calls.read(setup.calls),
            strikes,
            form.lease,
            stalls,
            _left_over(orchestrator, store, setup),
            _unexpected(fleet),
        )
        orchestrator.close()
    judgement = verdict.judge(history)
    runs = Counter(str(seen.status) for seen in history.seen.values())
    guilty = {violation.run for violation in judgement.violations if violation.run}
    return Round(
        combination,
        seed,
        time.monotonic() - began,
        dict(runs),
        judgement,
        strikes,
        recovery,
        fleet.starts,
        folder if judgement.violations else None,
        {run: _tell(history, run) for run in sorted(guilty)},
    )


def _strike(form: Form, kinds: list[str], make_site: Callable[[str], faults.Site]) -> list[faults.Strike]:
    """Let all faults strike: in one lane, or in a lane for each thing that is struck."""
    lanes: dict[str, list[str]] = {}
    for kind in kinds:
        lanes.setdefault(kind.partition(":")[0] if form.together and ":" in kind else "", []).append(kind)
    with ThreadPoolExecutor(len(lanes)) as pool:
        struck = pool.map(lambda lane: _strike_in_lane(make_site(lane), form, lanes[lane]), lanes)
        return sorted((strike for strikes in struck for strike in strikes), key=lambda strike: strike.begin)


def _strike_in_lane(site: faults.Site, form: Form, kinds: list[str]) -> list[faults.Strike]:
    """Let the faults strike one after the other, each kind once, and all of them again until the time is over."""
    strikes: list[faults.Strike] = []
    end = time.monotonic() + form.seconds
    while not strikes or time.monotonic() < end:
        for kind in site.chance.sample(kinds, len(kinds)):
            time.sleep(form.pause * (0.5 + site.chance.random()))
            is_long = form.long_every and len(strikes) % form.long_every == form.long_every - 1
            site.seconds = form.long_outage if is_long else form.outage
            strikes.append(faults.strike(kind, site))
    return strikes


def _wait_until_quiet(setup: Setup, orchestrator: Orchestrator, patience: float) -> None:
    """Wait until every run is where it has to be, or until patience is over."""
    end = time.monotonic() + patience
    waiting = True
    while waiting and time.monotonic() < end:
        time.sleep(0.5)
        made = calls.read(setup.calls)
        # All of them each time: a starter that was killed comes back, and may start one more.
        waiting = any(not _is_quiet(planned, orchestrator, made) for planned in _planned(setup))
        known = {(call.caller, call.run) for call in made if call.is_definite}
        # A starter has yet to come back for the call that it was killed in.
        opened = [call.run for call in made if call.verb == "start" and (call.caller, call.run) not in known]
        waiting = waiting or bool(opened)


def _is_quiet(planned: PlannedRun, orchestrator: Orchestrator, made: list[calls.Call]) -> bool:
    found = orchestrator.runs.get(planned.id, fields=["resume_labels"])
    if found is None:
        return False
    if found.status == "suspended":
        return any(label.startswith("stay:") for label in found.resume_labels or {})
    if planned.program.fate is Fate.TRAVEL and not any(
        call.is_definite for call in made if (call.run, call.verb, call.outcome) == (planned.id, "travel", calls.WON)
    ):
        return False
    return found.status in ENDED


def _planned(setup: Setup) -> list[PlannedRun]:
    begun = {call.run for call in calls.read(setup.calls, "starter*")}
    return sorted((setup.run_of(run) for run in begun), key=lambda planned: planned.number)


def _look(orchestrator: Orchestrator, planned: PlannedRun) -> verdict.Seen:
    found = orchestrator.runs.get(planned.id, fields=["result", "error", "state"])
    if found is None:
        return verdict.Seen(planned.id, None)
    recorded: Counter[str] = Counter()
    if found.status in ENDED:
        for event in orchestrator.get_run(planned.id).events():
            if event.type == "workflow-step-result":
                recorded[f"{event.payload['id']} {event.payload['step_call_id']}"] += 1
    error = f"{type(found.error).__name__}: {found.error}" if found.error else ""
    return verdict.Seen(planned.id, str(found.status), found.result, error, frozenset(found.state or ()), recorded)


def _left_over(orchestrator: Orchestrator, store: Outlet, setup: Setup) -> list[str]:
    """Remove all runs by the public ways, and return what the store still has of them."""
    for listed in orchestrator.runs.list(status="running", limit=1000).runs:
        orchestrator.get_run(listed.run_id).cancel()
    for listed in orchestrator.runs.list(limit=20).runs:
        orchestrator.runs.delete(listed.run_id)
    for status in (None, "suspended", "paused", "pending"):
        orchestrator.runs.purge(older_than=0, status=status)
    return store.mentions(setup.prefix)


def _unexpected(fleet: Fleet) -> list[str]:
    found: Counter[str] = Counter()
    for log in [*fleet.logs, *(process.log for process in fleet.callers.values())]:
        found.update(verdict.unexpected(log.read_text(errors="replace")))
    return [f"{count} times {said}" for said, count in found.most_common()]


def _tell(history: verdict.History, run: str) -> list[str]:
    """Return what happened to a run, in order, with the faults that struck meanwhile."""
    told = [
        (each.at, f"{each.what} {each.step} attempt {each.attempt} resumed {each.resumed} pid {each.pid} {each.key}")
        for each in history.effects
        if each.run == run
    ]
    told += [
        (call.begin, f"{call.id}: {call.verb} {call.label}: {call.outcome or 'killed'} {call.text}")
        for call in history.calls
        if call.run == run
    ]
    if told:
        first, last = min(told)[0], max(told)[0]
        told += [
            (each.begin, f"FAULT {each.kind} at {each.target} for {each.end - each.begin:.1f} s, hit {each.hit}")
            for each in history.strikes
            if each.begin <= last and each.end >= first
        ]
    program = next(planned.program for planned in history.planned if planned.id == run)
    return [f"{program}", *(f"{at:.3f} {text}" for at, text in sorted(told))]


@contextmanager
def _watch_for_stalls(lease: float) -> Iterator[list[tuple[float, float]]]:
    """Note the moments in which this machine did not run us for a quarter of a lease."""
    stalls: list[tuple[float, float]] = []
    over = threading.Event()

    def watch() -> None:
        before = time.time()
        while not over.wait(LOOK):
            now = time.time()
            if now - before > lease / 4:
                stalls.append((before, now))
            before = now

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield stalls
    finally:
        over.set()
