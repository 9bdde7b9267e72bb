"""One schedule: a program, its processes, its callers and its faults, and the verdict on what came of them."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from random import Random
from typing import Any
from unittest.mock import patch

from orchestrator import host
from orchestrator.definitions.run_info import RunInfo
from orchestrator.engine.read.value_reader import Values, decode_all
from orchestrator.engine.settings import BROKER_AWAY
from orchestrator.rules.model import FINAL, Activation, ActivationStatus
from tests.simulation.schedules import callers
from tests.simulation.schedules.callers import RUN, Caller, Told
from tests.simulation.schedules.cluster import SETTINGS, Cluster
from tests.simulation.schedules.faults import Faults
from tests.simulation.schedules.hooks import Hook, is_telling, judge_reports
from tests.simulation.schedules.hub import Hub, HubHost, Killed
from tests.simulation.schedules.programs import Add, Maker, Program

PROGRAMS = 400  # different ones; a million schedules have 2,500 of each
# seconds that a step takes; more than a lease is among them
LENGTHS = (0.0,) * 8 + (0.2,) * 4 + (1.5,) * 3 + (9.0,)
PATIENCE = 240_000  # ms after which a run is stuck; the longest fault is 30 s


@dataclass
class Verdict:
    """What came of a schedule."""

    seed: int
    violations: list[str] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)  # that struck, with their numbers
    calls: int = 0  # of steps
    turns: int = 0
    status: str = ""
    story: list[str] = field(default_factory=list)


class Bench:
    """Built workflows, by the number of their program. Their steps write into the schedule that runs."""

    def __init__(self) -> None:
        self.schedule: Schedule | None = None

    @lru_cache(maxsize=PROGRAMS)  # noqa: B019  (there is one bench)
    def program(self, number: int) -> tuple[Program, Any]:
        """Return a program with its workflow."""
        program = Maker(number).make()
        return program, program.body.workflow(self._journal, self._on_finish if program.has_hook else None)

    def _journal(self, block: Add, ctx: Any) -> None:
        assert self.schedule is not None
        self.schedule.begins(block, ctx)

    def _on_finish(self, info: RunInfo) -> None:
        assert self.schedule is not None
        self.schedule.hook.call(info)


BENCH = Bench()


class Schedule:
    """A schedule of one seed. `without` suppresses faults by their numbers."""

    def __init__(self, seed: int, without: Collection[int] = ()) -> None:
        die = Random(seed)
        self.seed = seed
        self.given = die.randrange(20)
        self.program, workflow = BENCH.program(die.randrange(PROGRAMS))
        self.hub = Hub(seed)
        self.faults = Faults(seed, without)
        # Loops keep the values of all finished iterations, of the newest one, or of two.
        settings = replace(SETTINGS[die.choice(BROKER_AWAY)], iterations_max_kept=seed % 3)
        self.cluster = Cluster(self.hub, self.faults, workflow, settings)
        self.hook = Hook(self.cluster)
        self.told = Told()
        self.calls: Counter[str] = Counter()  # by the step's id
        self.keys: defaultdict[str, set[str]] = defaultdict(set)  # of a step's id, those that it was called with
        self.answers: dict[str, int] = {}
        self.early: list[str] = []  # violations that were seen before the end
        self._starters = die.choice((1, 1, 2))
        self._fixers = die.choice((1, 1, 2, 3))
        self._is_canceled = die.random() < 0.08
        self._is_restarted = die.random() < 0.06
        self._workers = die.choice((1, 2, 2, 3))
        self.status = ""

    def begins(self, block: Add, ctx: Any) -> None:
        """A step's function has been called."""
        process, id_, key = ctx.orchestrator, block.id, ctx.idempotency_key
        process.at()
        self.calls[id_] += 1
        self.keys[id_].add(key)
        self.cluster.begun[key] += 1
        self.cluster.losses[key] += process.is_doomed
        self.cluster.hits[key] += process.is_doomed
        if ctx.restarted and not self.cluster.hits[key] + self.told.restarts + self.cluster.limits:
            self.early.append(f"{key} of {id_} was told that it is called again, and no worker was lost")
        if ctx.resumed:
            self.answers.setdefault(id_, ctx.resume_data)
        self.cluster.note(f"{process.name} calls {id_} ({key}, attempt {ctx.retry_count})")
        self.hub.pause(self.hub.die.choice(LENGTHS))
        if block.has_spare and self.cluster.strike("limit"):
            process.outruns_limit()
        process.at()

    def run(self) -> Verdict:
        """Go through it, and judge."""
        with _on(self):
            self._set_up()
            try:
                is_over = self.hub.run(self._is_over, self.hub.now + PATIENCE)
                self.cluster.is_calm = True
                for _ in range(3):  # what is on its way may still do harm
                    self.hub.run(lambda: not self.cluster.messages, self.hub.now + 15_000)
                    self.hub.run(lambda: False, self.hub.now + 5_000)
                self.status = self._status()
                violations = [*self._judge()] if is_over else [f"stuck: {self._where()}"]
            except (Exception, Killed) as error:  # noqa: BLE001  (an actor has let it through: the engine must not)
                violations = [f"raised: {error!r}"]
            finally:
                self.hub.close()
        return Verdict(
            self.seed,
            violations,
            self.faults.struck,
            sum(self.calls.values()),
            self.hub.turns,
            self.status,
            self.cluster.story,
        )

    def _set_up(self) -> None:
        cluster, program, told = self.cluster, self.program, self.told
        for _ in range(self._workers):
            cluster.add_worker()
        for number in range(self._starters):
            Caller(cluster, f"starter {number}", callers.starts(self.given, told, f"starter {number}"))
        for number in range(self._fixers if program.suspends else 0):
            Caller(cluster, f"fixer {number}", callers.resumes(program, told, number))
        if program.hears:
            numbers = [(number + 1) * 1_000_000 for number in range(len(program.hears))]
            Caller(cluster, "sender", callers.sends(told, numbers))
        if self._is_canceled:
            Caller(cluster, "canceler", callers.cancels(told))
        if self._is_restarted:
            Caller(cluster, "restarter", callers.restarts(told))

    def _is_over(self) -> bool:
        return self._status() in FINAL and not is_telling(self.cluster)

    def _status(self) -> str:
        header = self.cluster.store.header(RUN)
        return header.status if header is not None else "missing"

    def _where(self) -> str:
        store = self.cluster.store
        header = store.header(RUN)
        if header is None:
            return "there is no run"
        live = [(one.path, one.step, one.status) for one in store.load(RUN) if one.live or one.status == "waiting"]
        return f"{header.status}, {live}"

    # --- the verdict -------------------------------------------------------------------------------------------------

    def _judge(self) -> Iterator[str]:
        header = self.cluster.store.header(RUN)
        assert header is not None
        yield from self.early
        yield from self._judge_callers()
        if self.told.canceled or header.status == "canceled":
            if not (self._is_canceled and header.status == "canceled"):
                yield f"canceled by {self.told.canceled}, and {header.status}"
        else:
            yield from self._judge_result(header)
        yield from self._judge_calls()
        yield from self._judge_events()
        if self.program.has_hook:
            yield from self.hook.judge(header, self.told)
        yield from judge_reports(self.cluster, header, self._read(header.output))
        yield from self._judge_rest()

    def _judge_callers(self) -> Iterator[str]:
        state = decode_all(self.cluster.store.state(RUN))
        if len(self.told.starts) > 1 or (self.told.starts and state.get("by") != self.told.starts[0]):
            yield f"{self.told.starts} were told that they have started the run, which was started with {state}"
        for id_, data in self.told.resumes:
            if id_ in self.answers and self.answers[id_] != data:
                yield f"a resume of {id_} with {data} was accepted, and it got {self.answers[id_]}"
        if state.get("by") not in self.told.unknown:
            yield f"{state} has started the run, and was told that it has not"
        for data in (*self.answers.values(), *self._heard().values()):
            if data not in self.told.unknown:
                yield f"{data} has arrived, and whoever has given it was told that it has not"

    def _judge_result(self, header: Any) -> Iterator[str]:
        answers = {**self.answers, **self._heard()}
        status, result, calls = self.program.expected(self.given, answers)
        if header.status != status:
            why = self._read(header.error or header.failure)
            yield f"the run is {header.status} instead of {status}: {why!r}"
        elif status == "success":
            found = self._read(header.output)
            if found != result:
                yield f"the result is {found} instead of {result}"
        heard = [value for value in self._heard().values() if value]
        if len(heard) != len(set(heard)):
            yield f"an event was heard twice: {heard}"
        for id_, count in calls.items():
            found = self.calls[id_]
            lost = sum(self.cluster.losses[key] + self.told.restarts for key in self.keys[id_])
            if not count <= found <= count + lost:
                yield f"{id_} was called {found} times instead of {count}, and lost {lost} workers"
        for id_ in self.calls.keys() - calls.keys():
            yield f"{id_} was called and should not have been"

    def _heard(self) -> dict[str, int]:
        store = self.cluster.store
        waits = {one.step: one for one in store.load(RUN) if one.step in self.program.hears}
        return {id_: self._read(one.output) for id_, one in waits.items() if one.output}

    def _read(self, key: str) -> Any:
        return Values(self.cluster.store.values, RUN).plain(key)

    def _judge_calls(self) -> Iterator[str]:
        """No call is made for one attempt twice without a loss: also in a run that was canceled."""
        for key, count in self.cluster.begun.items():
            (id_,) = [id_ for id_, keys in self.keys.items() if key in keys]
            most = 6 if id_ in self.program.suspends else 3
            if count > most + self.cluster.losses[key] + self.told.restarts:
                yield f"{key} of {id_} was called {count} times"

    def _judge_events(self) -> Iterator[str]:
        """Each end of a step, and of the run, is told once."""
        told = Counter(
            (event.doc["path"], event.doc.get("visit", ""))
            for event in self.cluster.store.events(RUN, limit=100_000)
            if event.doc["type"] == "workflow-step-result"
        )
        started = sum(event.doc["type"] == "workflow-start" for event in self.cluster.store.events(RUN, limit=100_000))
        if started != 1:
            yield f"the start is told {started} times"
        visits = self._most_ends()
        for (path, visit), count in told.items():
            if count > visits.get(path, 1):
                yield f"the end of {path} ({visit}) was recorded {count} times"

    def _most_ends(self) -> dict[str, int]:
        """How often a step at a path may end: once for each iteration of the loops around it."""
        found: Counter[str] = Counter()
        for one in self.cluster.store.load(RUN):
            found[one.path] = max([1, *(int(part) for part in one.visit.split(".") if part.isdigit())])
        return found

    def _judge_rest(self) -> Iterator[str]:
        store = self.cluster.store
        live: list[Activation] = [one for one in store.load(RUN) if one.status == ActivationStatus.RUNNING]
        if live and self._is_over() and not self._is_canceled:
            header = store.header(RUN)
            if header is not None and not header.closed:
                yield f"the run has ended, and {[one.path for one in live]} are running"
        if not store.delete(RUN) or store.header(RUN) is not None:
            yield "the run cannot be deleted"


@contextmanager
def _on(schedule: Schedule) -> Iterator[None]:
    """Have time, tokens and dice of the engine come from the schedule's hub; say nothing in the log."""
    machine = HubHost(schedule.hub)
    BENCH.schedule = schedule
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with patch.multiple(host, time=machine, secrets=machine, _dice=machine):
            yield
    finally:
        logging.disable(before)
        BENCH.schedule = None


def run_schedule(seed: int, without: Collection[int] = ()) -> Verdict:
    """Go through the schedule of a seed."""
    return Schedule(seed, without).run()


def shrink(verdict: Verdict) -> Verdict:
    """Leave away faults without which the schedule still ends in a violation."""
    without: set[int] = set()
    for number, _ in verdict.faults:
        tried = run_schedule(verdict.seed, without | {number})
        if tried.violations:
            without.add(number)
            verdict = tried
    return verdict
