"""The callers of a schedule: each wants one thing, and tries again until it knows what has become of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from orchestrator.engine import client_ops, event_ops, restart
from orchestrator.engine.client_ops import StartOptions
from orchestrator.errors import (
    BrokerUnavailable,
    RestartAlreadyClaimed,
    ResumeAlreadyClaimed,
    ResumeAmbiguous,
    RunNotActive,
    RunNotSuspended,
    StartAlreadyClaimed,
    StepNotSuspended,
    StoreUnavailable,
)
from orchestrator.rules.addressing import Target
from orchestrator.rules.model import FINAL, RunHeader
from tests.simulation.schedules.cluster import Cluster, Process
from tests.simulation.schedules.programs import Program

RUN = "run"
AWAY = (StoreUnavailable, BrokerUnavailable)


class Told:
    """What callers were told."""

    def __init__(self) -> None:
        self.starts: list[str] = []  # of each caller whose start was accepted, its name
        self.resumes: list[tuple[str, int]] = []  # of each resume that was accepted, the step and its data
        self.sent: list[int] = []  # the data of events whose sending was accepted
        self.unknown: set[object] = set()  # what was tried and may have been accepted, although nobody was told so
        self.reopened = 0  # requests that have let the run go on, or may have
        self.canceled = False
        self.restarts = 0


class Caller(Process):
    """A process in which one caller is at work. Where it dies, somebody tries the same again."""

    def __init__(self, cluster: Cluster, name: str, wish: Callable[[Caller], None]) -> None:
        super().__init__(cluster, name)
        self._wish = wish
        self.spawn("caller", lambda: wish(self))

    def replace(self) -> Process:
        return Caller(self.cluster, f"{self.name}'", self._wish)

    def header(self) -> RunHeader | None:
        """Read the run's header, once the store is there."""
        while True:
            try:
                found: RunHeader | None = self.executor.store.header(RUN)
                return found
            except StoreUnavailable:
                self.cluster.hub.pause(0.4)

    def until_settled(self) -> RunHeader | None:
        """Wait until the run waits for somebody, or has ended; then return its header, and None while it has not."""
        self.cluster.hub.pause(0.7)
        return self.header()


def starts(given: int, told: Told, name: str) -> Callable[[Caller], None]:
    """Want the run to be there and started, with a state that names the caller."""

    def wish(caller: Caller) -> None:
        executor, workflow = caller.executor, caller.cluster.workflow
        fresh = RunHeader(
            run_id=RUN, workflow_id=workflow.id, fingerprint=workflow.compiled.fingerprint, runtime="celery"
        )
        is_first = name not in told.unknown
        while True:
            try:
                header = executor.store.create(fresh)
                told.unknown.add(name)  # at once: the caller may not live to know it
                client_ops.start(executor, workflow, header, StartOptions(given, {"by": name}))
                told.starts.append(name)
                return
            except StartAlreadyClaimed:
                if is_first:
                    told.unknown.remove(name)
                return
            except AWAY:
                is_first = False
                caller.cluster.hub.pause(0.5)

    return wish


def resumes(program: Program, told: Told, number: int) -> Callable[[Caller], None]:
    """Want every step that suspends to be given data: of several callers, one wins."""

    def wish(caller: Caller) -> None:
        while (header := caller.until_settled()) is None or header.status not in FINAL:
            if header is None or header.status == "pending":
                continue
            wanted = deque(program.suspends.items())
            wanted.rotate(number)  # so that two resume different steps at once
            for id_, ids in wanted:
                data = caller.cluster.number() * 1000 + number
                told.reopened += 1
                told.unknown.add(data)
                try:
                    client_ops.resume(caller.executor, header, data, Target(ids), {})
                    told.resumes.append((id_, data))
                except (RunNotSuspended, StepNotSuspended, ResumeAlreadyClaimed, ResumeAmbiguous):
                    told.reopened -= 1
                    told.unknown.remove(data)
                    caller.cluster.hub.pause(0.1)
                except AWAY:
                    caller.cluster.hub.pause(0.1)

    return wish


def sends(told: Told, numbers: list[int]) -> Callable[[Caller], None]:
    """Want these events to be heard. A caller that hears nothing sends the same once more."""

    def wish(caller: Caller) -> None:
        while numbers:
            header = caller.until_settled()
            if header is None or header.status == "pending":
                continue
            data = numbers[0]
            numbers[0] += 1  # whether it arrives may stay unknown: another number, so that nothing is the same twice
            told.reopened += 1
            told.unknown.add(data)
            try:
                event_ops.send_event(caller.executor, header, "news", data)
                told.sent.append(data)
                numbers.pop(0)
            except AWAY:
                pass
            except RunNotActive:
                return

    return wish


def cancels(told: Told) -> Callable[[Caller], None]:
    """Want the run to be canceled, some time after it has begun."""

    def wish(caller: Caller) -> None:
        caller.cluster.hub.pause(caller.cluster.hub.die.uniform(0.5, 6.0))
        while True:
            header = caller.until_settled()
            if header is None or header.status == "pending":
                continue
            try:
                told.canceled = client_ops.cancel(caller.executor, header).status == "canceled"
                return
            except AWAY:
                caller.cluster.hub.pause(0.3)

    return wish


def restarts(told: Told) -> Callable[[Caller], None]:
    """Believe that the run's workers are dead, some time after it has begun, whether they are or not."""

    def wish(caller: Caller) -> None:
        caller.cluster.hub.pause(caller.cluster.hub.die.uniform(0.5, 6.0))
        header = caller.until_settled()
        told.restarts += 1
        try:
            if header is not None and header.status == "running":
                restart.restart(caller.executor, header)
        except (RestartAlreadyClaimed, *AWAY):
            pass

    return wish
