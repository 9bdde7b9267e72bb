"""The scheduler's pace beside the broker's: `python benchmarks/sweep.py`, or with `--entries 10000 --json FILE`.

Many timers fall due together, or many messages are lost together. Each round of the scheduler takes turns with
publishing alone: the messages of that very round, by the same function, in the same process. So other work of the
machine strikes both. What is left between the two is the price of finding the timers and of committing what follows.

Redis, as store and as broker, is a server of its own, or that of REDIS_URL. PostgreSQL and RabbitMQ are those
that POSTGRES_URL and AMQP_URL name; where one is missing, the pair is left out. No worker may listen there meanwhile.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout in place of this folder

from celery import Celery  # noqa: E402

from benchmarks.measure import redis_url  # noqa: E402
from orchestrator import Orchestrator, Workflow, step  # noqa: E402
from orchestrator.canvas.queues import Queues  # noqa: E402
from orchestrator.engine.scheduler import Scheduler  # noqa: E402
from orchestrator.errors import BrokerUnavailable  # noqa: E402
from orchestrator.host import new_run_id  # noqa: E402
from orchestrator.ports import Runtime, Store  # noqa: E402
from orchestrator.rules.change import Dispatch  # noqa: E402
from orchestrator.rules.model import RunHeader  # noqa: E402
from orchestrator.stores.redis import RedisStore  # noqa: E402
from orchestrator.stores.sql import SqlStore  # noqa: E402

KINDS = ("timers", "messages")
_NEAR = 2  # ticks below which a process keeps a timer of its own

Told = Sequence[tuple[RunHeader, Sequence[Dispatch]]]


@dataclass
class Pace:
    """Entries of one kind on one pair of store and broker, and the seconds of both sides."""

    pair: str
    kind: str
    entries: int
    swept: int = 0
    sweeping: float = 0.0
    sweeping_cpu: float = 0.0
    published: int = 0
    publishing: float = 0.0
    publishing_cpu: float = 0.0

    @property
    def ratio(self) -> float:
        """Pace of the scheduler, where that of publishing alone is 1."""
        return (self.swept / self.sweeping) / (self.published / self.publishing)

    @property
    def cpu_ratio(self) -> float:
        """The same by the processor time of this process, without that of the servers."""
        return (self.swept / self.sweeping_cpu) / (self.published / self.publishing_cpu)


class Recorder:
    """The runtime of a scheduler, which remembers what it was told."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.told: list[tuple[RunHeader, Sequence[Dispatch]]] = []

    def publish_many(self, told: Told) -> list[BrokerUnavailable | None]:
        self.told += told
        return self._runtime.publish_many(told)


@step
def nothing(number: int) -> int:
    return number


@contextmanager
def pairs() -> Iterator[list[tuple[str, Callable[[], Store], str]]]:
    """Give the name of each pair, a function that makes its store, and the URL of its broker."""
    with redis_url() as url:
        found: list[tuple[str, Callable[[], Store], str]] = [
            ("Redis, Redis", lambda: cast(Store, RedisStore(f"{url}/2")), f"{url}/0")
        ]
        postgres, amqp = os.environ.get("POSTGRES_URL"), os.environ.get("AMQP_URL")
        if postgres and amqp:
            schema = f"sweep_{new_run_id()[-12:]}"
            found.append(("PostgreSQL, RabbitMQ", lambda: cast(Store, SqlStore(postgres, schema=schema)), amqp))
        try:
            yield found
        finally:
            if postgres and amqp:
                _drop(postgres, schema)


def _drop(url: str, schema: str) -> None:
    import psycopg

    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())


def fall_due(orchestrator: Orchestrator, workflow: Workflow, kind: str, entries: int, purge: Callable[[], Any]) -> None:
    """Make the entries, and wait until the last of them is due."""
    settings = orchestrator.settings
    for number in range(entries):
        if kind == "timers":
            workflow.apply_async((number,), countdown=(_NEAR + 1) * settings.tick_seconds)
        else:
            orchestrator.create_run(workflow).submit(number)
    purge()
    delay = (_NEAR + 1) * settings.tick_seconds if kind == "timers" else settings.redelivery_delay / 1000
    time.sleep(delay + 0.5)  # the clock is the store's


def measure(pair: str, store: Store, broker: str, kind: str, entries: int, profile: cProfile.Profile | None) -> Pace:
    """Sweep all entries, round by round, and publish the messages of each round once more."""
    name = f"sweep-{new_run_id()[-12:]}"
    app = Celery(name, broker=broker, set_as_current=False)
    app.conf.update(task_default_queue=name)
    workflow = Workflow("nothing").then(nothing).commit()
    pace = Pace(pair, kind, entries)
    # Lost messages fall due a third time before all were sent a second time, where this is short.
    options: dict[str, Any] = {"republish_seconds": 3600 if kind == "timers" else max(5, entries / 60)}
    with Orchestrator(app, store=store, workflows=[workflow], **options) as orchestrator:
        runtime = orchestrator.client.runtime
        queues, recorder = Queues(app, orchestrator.settings), Recorder(runtime)
        scheduler = Scheduler(orchestrator.store, cast(Runtime, recorder), orchestrator.settings, name, queues)
        with app.connection_for_write() as connection:
            queue = connection.SimpleQueue(name)
            try:
                fall_due(orchestrator, workflow, kind, entries, queue.clear)
                is_full = True
                while is_full:
                    is_full = _round(scheduler, runtime, recorder, pace, profile)
                    queue.clear()  # what was published beside the scheduler would be a backlog that it minds
            finally:
                queue.queue.delete()
                queue.close()
                queues.close()
    app.close()
    if pace.swept < entries:
        raise SystemExit(f"benchmarks: {pace.swept} of {entries} were sent on {pair}")
    return pace


def _round(
    scheduler: Scheduler, runtime: Runtime, recorder: Recorder, pace: Pace, profile: cProfile.Profile | None
) -> bool:
    recorder.told = []
    if profile is not None:
        profile.enable()
    began, cpu = time.perf_counter(), time.process_time()
    report = scheduler.tick()
    pace.sweeping += time.perf_counter() - began
    pace.sweeping_cpu += time.process_time() - cpu
    if profile is not None:
        profile.disable()
    pace.swept += report.republished
    began, cpu = time.perf_counter(), time.process_time()
    runtime.publish_many(recorder.told)
    pace.publishing += time.perf_counter() - began
    pace.publishing_cpu += time.process_time() - cpu
    pace.published += sum(len(dispatches) for _, dispatches in recorder.told)
    return report.is_full


def main() -> int:
    """Print a line for each pair and kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=4_000)
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--pairs", default="", help="only those whose name has this in it")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the numbers there as well")
    parser.add_argument("--profile", action="store_true", help="say where the sweeps spend their time")
    given = parser.parse_args()
    paces: list[Pace] = []
    with pairs() as found:
        for pair, make_store, broker in found:
            for kind in given.kinds.split(",") if given.pairs.lower() in pair.lower() else ():
                profile = cProfile.Profile() if given.profile else None
                pace = measure(pair, make_store(), broker, kind, given.entries, profile)
                paces.append(pace)
                swept, alone = pace.swept / pace.sweeping, pace.published / pace.publishing
                line = f"{pair:<22}{kind:<10}{pace.entries:>8,} entries: {swept:>7,.0f}/s"
                print(
                    f"{line}, publishing alone {alone:>7,.0f}/s: {pace.ratio:.2f} (by CPU {pace.cpu_ratio:.2f})",
                    flush=True,
                )
                if profile is not None:
                    pstats.Stats(profile).sort_stats("cumulative").print_stats(60)
    if given.json:
        rows = [asdict(pace) | {"ratio": pace.ratio, "cpu_ratio": pace.cpu_ratio} for pace in paces]
        given.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
