"""The facts of one round that every process of it needs, and the runs that follow from them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from celery import Celery

from orchestrator import Orchestrator
from tests.chaos import flows
from tests.chaos.programs import MODULUS, Expected, Program, expect, make_programs

VARIABLE = "CHAOS_SETUP"  # the path of the file
TICK = 0.5
REPUBLISH = 3


@dataclass(frozen=True)
class PlannedRun:
    """One run as it is planned."""

    number: int
    id: str
    program: Program
    data: int

    @cached_property
    def expected(self) -> Expected:
        """What must come of it."""
        return expect(self.program, self.number, self.data)


@dataclass(frozen=True)
class Setup:
    """Where the servers are, and which seed the programs and runs come from. `lease` is in seconds."""

    folder: Path
    broker: str
    store: str
    seed: int
    programs: int = 24
    lease: float = 8.0
    # seconds between two starts of one starter
    pace: float = 0.8

    @property
    def effects(self) -> Path:
        """The folder of the effects of steps."""
        return self.folder / "effects"

    @property
    def calls(self) -> Path:
        """The folder of what callers noted."""
        return self.folder / "calls"

    @property
    def stop(self) -> Path:
        """The file that ends the starting of runs."""
        return self.folder / "stop"

    @property
    def prefix(self) -> str:
        """The beginning of all run ids."""
        return f"chaos{self.seed}r"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that takes part."""
        return {VARIABLE: str(self.folder / "setup.json")}

    def save(self) -> None:
        """Write the file that `load` reads."""
        (self.folder / "setup.json").write_text(json.dumps(asdict(self), default=str))

    def run(self, number: int) -> PlannedRun:
        """Return the run of this number."""
        return _run(self, number)

    def run_of(self, run_id: str) -> PlannedRun:
        """Return the run of this id."""
        return self.run(int(run_id.removeprefix(self.prefix)))

    def open(self) -> tuple[Celery, Orchestrator]:
        """Make the app and the orchestrator as every process has them."""
        app = Celery("chaos", broker=self.broker, set_as_current=False)
        app.conf.update(
            broker_connection_retry_on_startup=True,
            broker_connection_max_retries=None,
            worker_prefetch_multiplier=1,
        )
        if self.broker.startswith("amqp"):
            app.conf.broker_transport_options = {"confirm_publish": True}
        workflows = [flows.build(program, self.effects) for program in _programs(self.seed, self.programs)]
        settings: dict[str, Any] = {"lease_seconds": self.lease, "tick_seconds": TICK, "republish_seconds": REPUBLISH}
        return app, Orchestrator(app, store=self.store, workflows=workflows, **settings)


@cache
def _programs(seed: int, count: int) -> list[Program]:
    return make_programs(seed, count)


@cache
def _run(setup: Setup, number: int) -> PlannedRun:
    programs = _programs(setup.seed, setup.programs)
    data = (setup.seed * 7 + number * 131) % MODULUS
    return PlannedRun(number, f"{setup.prefix}{number}", programs[number % setup.programs], data)


def load() -> Setup:
    """Return the setup of the round that this process belongs to."""
    stored = json.loads(Path(os.environ[VARIABLE]).read_text())
    return Setup(**stored | {"folder": Path(stored["folder"])})
