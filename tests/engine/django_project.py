"""A Django project in a process of its own: its steps say in which thread and transaction their queries run."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
import time
from typing import Any

import django
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection, connections, transaction

from orchestrator import Context, Orchestrator, Workflow, step
from orchestrator.stores import MemoryStore
from orchestrator.testing import VirtualClock
from tests.vendor import wait_until

settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}})
django.setup()


def count_rows() -> int:
    """Ask by the connection of this thread; one that has no table yet has a database of its own."""
    with connection.cursor() as cursor:
        cursor.execute("select count(*) from sqlite_master")
        return int(cursor.fetchone()[0])


@step
def plain(number: int) -> int:
    return count_rows()


@step
async def coroutine(number: int) -> int:
    return await sync_to_async(count_rows)()


@step
async def blocked(number: int) -> int:
    return await sync_to_async(coroutine.fn)(number)  # type: ignore[no-any-return]


@step
async def asks(number: int, ctx: Context) -> int:
    await asyncio.sleep(0)
    if not ctx.resumed:
        ctx.suspend("why")
    return await sync_to_async(count_rows)()


used: list[Any] = []


@step
def connects(number: int) -> int:
    connection.ensure_connection()
    used.append(connections["default"])
    return number


FLOW = (
    Workflow("queries", input=int)
    .parallel(plain, coroutine)
    .map(lambda arms: list(arms.values()))
    .foreach(step(plain.fn, id="item"), concurrency=3)
    .sleep(0.05)
    .map(lambda items: items[0])
    .then(step(coroutine.fn, id="late"))
    .commit()
)
ASKS = Workflow("asks", input=int).then(asks).commit()
POOLED = Workflow("pooled", input=int).parallel(connects, step(connects.fn, id="other")).commit()


def main() -> None:
    """Run everything inside of one transaction, and print what was seen."""
    found: dict[str, object] = {}
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("create table mine (id integer)")
        for name, store in (("virtual", MemoryStore(VirtualClock())), ("real", MemoryStore())):
            with Orchestrator(store=store, local_threads=0) as orchestrator:
                run = orchestrator.create_run(FLOW).submit(1)
                late = run.get(timeout=20)
                record = orchestrator.runs.get(run.run_id)
                assert record is not None
                found[name] = [late, record.steps["plain"].output, record.steps["coroutine"].output]
                asked = orchestrator.create_run(ASKS)
                found[name + " asks"] = [str(asked.start(1).status), asked.resume().result]
    with Orchestrator() as orchestrator:
        orchestrator.create_run(POOLED).submit(1).get(timeout=20)
        closed = wait_until(lambda: all(one.connection is None for one in used), 20)
        found["closed"] = [closed, len(used)]
    begun, interrupted = time.monotonic(), threading.Event()
    found["interrupted"] = interrupt(interrupted)
    found["cleaned up"] = interrupted.is_set() and time.monotonic() - begun < 10
    print(json.dumps(found))


def interrupt(cleaned_up: threading.Event) -> str:
    """Let a signal interrupt the main thread, as a soft time limit does, while it awaits a coroutine."""

    class SoftTimeLimitExceeded(Exception):
        """Celery's, by its name."""

    def strike(*_: object) -> None:
        raise SoftTimeLimitExceeded

    async def forever(number: int) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            cleaned_up.set()

    signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    with Orchestrator(local_threads=0) as orchestrator:
        result = orchestrator.create_run(Workflow("forever", input=int).then(step(forever)).commit()).start(1)
    return type(result.error).__name__


if __name__ == "__main__":
    main()
