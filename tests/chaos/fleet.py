"""The processes of a round: workers and callers, each started again by a supervisor when it has ended."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.chaos import callers
from tests.chaos.effects import count_at_work
from tests.chaos.setup import Setup
from tests.vendor import REPOSITORY, LocalProcess, WorkerNode, child_environment, local_worker, wait_until

EVERY = 0.3  # seconds between two looks of the supervisor


@dataclass(frozen=True)
class Kind:
    """A kind of worker."""

    pool: str
    concurrency: int


WORKERS = (Kind("prefork", 3), Kind("prefork", 2), Kind("threads", 4))


@dataclass
class Worker:
    """One worker process with its log."""

    kind: Kind
    node: WorkerNode

    @property
    def process(self) -> LocalProcess:
        """The main process."""
        return self.node.process

    @property
    def is_prefork(self) -> bool:
        """True if it has children that run the steps."""
        return self.kind.pool == "prefork"

    def is_ready(self) -> bool:
        """Tell whether its last start has come to taking messages."""
        return "ready." in self.process.logs_since_start()

    def children(self) -> list[int]:
        """Return the process ids of the pool's children."""
        with suppress(psutil.Error):
            return self.node.child_pids() if self.is_prefork else []
        return []

    def pids(self) -> set[int]:
        """Return the process ids of the main process and its children."""
        return {self.process.pid, *self.children()}


class Fleet:
    """All processes of a round; as a context manager it starts them, supervises them and kills them at the end."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.logs: list[Path] = []
        self.starts = 0
        self._ending = threading.Event()
        self._lock = threading.RLock()
        self.workers = [self._worker(kind) for kind in WORKERS]
        self.callers = {name: self._caller(name) for name in callers.NAMES}
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)

    def __enter__(self) -> Fleet:
        self._supervisor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._supervisor.join(30)
        for process in [worker.process for worker in self.workers] + list(self.callers.values()):
            process.remove()

    def wait_ready(self, seconds: float) -> bool:
        """Wait until every worker has said once that it is ready."""
        return all(wait_until(worker.is_ready, seconds) for worker in self.workers)

    def count_at_work(self, worker: Worker) -> int:
        """Return how many executions are at work in a worker."""
        return count_at_work(self.setup.effects, worker.pids())

    def retire(self, worker: Worker) -> None:
        """Leave a worker to itself: the supervisor does not start it again."""
        with self._lock:
            self.workers.remove(worker)

    def hire(self, kind: Kind) -> Worker:
        """Start one more worker."""
        with self._lock:
            worker = self._worker(kind)
            self.workers.append(worker)
            return worker

    def _worker(self, kind: Kind) -> Worker:
        log = self.setup.folder / "logs" / f"worker{len(self.logs)}-{kind.pool}.log"
        self.logs.append(log)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        env = self.setup.environment
        node = local_worker(
            "tests.chaos.app:app",
            env=env,
            cwd=REPOSITORY,
            pool=kind.pool,
            concurrency=kind.concurrency,
            log=log,
            ready=False,
        )
        return Worker(kind, node)

    def _caller(self, name: str) -> LocalProcess:
        command = [sys.executable, "-m", "tests.chaos.callers", name]
        log = self.setup.folder / "logs" / f"{name}.log"
        process = LocalProcess(name, command, cwd=REPOSITORY, env=child_environment(self.setup.environment), log=log)
        process.start()
        return process

    def _supervise(self) -> None:
        while not self._ending.wait(EVERY):
            with self._lock:
                for process in [worker.process for worker in self.workers] + self._waited_for():
                    if process.status == "exited":
                        process.remove()  # what is left of its group
                        process.start()
                        self.starts += 1

    def _waited_for(self) -> list[LocalProcess]:
        """Return the callers that have to come back: a starter ends by itself once starting is over."""
        return [process for process in self.callers.values() if process.returncode != 0]
