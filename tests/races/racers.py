"""Two processes that live as long as a test and do one thing each, again and again, from the same barrier.

Each is a process of the default runtime over a store that they share: it has a connection of its own, and its own idea
of what the run was when it last looked.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Self

from orchestrator import Orchestrator
from tests.parity import calls
from tests.races import flows

PATIENCE = 30.0


@dataclass(frozen=True)
class Act:
    """One thing that a racer does: a verb of `VERBS` on a run, `late` seconds behind the barrier."""

    verb: str
    run_id: str
    data: Any = None
    step: str | None = None
    late: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """The outcome of one act: a status, or the name of the error's class."""

    status: str = ""
    error: str = ""
    text: str = ""

    @property
    def won(self) -> bool:
        """Return True if the act was not refused."""
        return not self.error


def _start(orchestrator: Orchestrator, act: Act) -> str:
    run = orchestrator.create_run("race-plain", run_id=act.run_id)
    return run.start(act.data, timeout=PATIENCE).status


def _resume(orchestrator: Orchestrator, act: Act) -> str:
    return orchestrator.get_run(act.run_id).resume(act.data, step=act.step, timeout=PATIENCE).status


def _cancel(orchestrator: Orchestrator, act: Act) -> str:
    return orchestrator.get_run(act.run_id).cancel().status


VERBS: dict[str, Callable[[Orchestrator, Act], str]] = {"start": _start, "resume": _resume, "cancel": _cancel}


def racer(store: str, folder: str, pipe: Connection, barrier: Any) -> None:
    """The main function of a racer: acts from the pipe, until it is None."""
    os.environ[calls.FOLDER] = folder
    with Orchestrator(store=store, workflows=flows.ALL) as orchestrator:
        pipe.send("ready")
        while (act := pipe.recv()) is not None:
            barrier.wait(PATIENCE)
            if act.late:
                time.sleep(act.late)
            pipe.send(_done(orchestrator, act))


def _done(orchestrator: Orchestrator, act: Act) -> Outcome:
    try:
        return Outcome(str(VERBS[act.verb](orchestrator, act)))
    except Exception as error:  # noqa: BLE001 - the test counts it
        return Outcome(error=type(error).__name__, text=str(error))


class Race:
    """Two racers on one store."""

    def __init__(self, store: str, folder: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._barrier = barrier = context.Barrier(2)  # kept: without it the children find none
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(2):
            ours, theirs = context.Pipe()
            process = context.Process(target=racer, args=(store, folder, theirs, barrier), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Self:
        for pipe in self._pipes:
            assert _heard(pipe) == "ready"
        return self

    def run(self, *acts: Act) -> tuple[Outcome, Outcome]:
        """Let each racer do its act; returns what came of them, in the same order."""
        for pipe, act in zip(self._pipes, acts, strict=True):
            pipe.send(act)
        first, second = [_heard(pipe) for pipe in self._pipes]
        return first, second

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join(10)
            process.kill()


def _heard(pipe: Connection) -> Any:
    assert pipe.poll(PATIENCE * 2), "a racer does not answer"
    return pipe.recv()
