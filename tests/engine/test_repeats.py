"""A caller's change whose answer is lost, and which the store's client sends again: whoever came in between.

The repeat is that of the clients themselves (`redis-py` sends again, the SQL stores do), so the caller sees one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Context, Orchestrator, RunNotFound, Workflow, step
from orchestrator.ports import Store
from orchestrator.stores import MemoryStore
from orchestrator.stores.redis import RedisStore
from orchestrator.stores.sql import SqlStore
from tests.servers import PostgresServer, RedisServer
from tests.vendor import wait_until

Between = Callable[[], Any]


class Resending:
    """A store of which one call of `verb` is made twice, with `between` in between: its first answer was lost."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.between: Between | None = None
        self.verb = "commit"

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.store, name)
        return self._twice(call) if name == self.verb and self.between is not None else call

    def _twice(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def twice(*args: Any, **kwargs: Any) -> Any:
            call(*args, **kwargs)
            between, self.between = self.between, None
            assert between is not None
            between()
            return call(*args, **kwargs)

        return twice


@pytest.fixture(params=["memory", "sqlite", "postgresql", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Resending]:
    """Each of the stores."""
    made: Store
    match request.param:
        case "memory":
            made = MemoryStore()
        case "sqlite":
            made = SqlStore(f"sqlite:///{tmp_path / 'store.db'}")
        case "postgresql":
            server: PostgresServer = request.getfixturevalue("postgres_server")
            made = SqlStore(server.url(), schema="repeats")
        case _:
            redis_server: RedisServer = request.getfixturevalue("redis_server")
            made = RedisStore(redis_server.url(), prefix="repeats")
    yield Resending(made)
    made.close()


def nothing() -> str:
    return "nothing"


def ask(number: int, ctx: Context[Any]) -> object:
    if not ctx.resumed:
        ctx.suspend({"number": number}, label=str(number))
    return ctx.resume_data


@step
def heard(_: object, ctx: Context[Any]) -> list[object]:
    return [ctx.result(f"w{number}") for number in range(WAITS)]


WAITS = 6
OTHERS = (1, 2, WAITS - 1)
listening = Workflow("listening")
for number in range(WAITS):
    listening = listening.wait_for_event("go", id=f"w{number}")
listening = listening.then(heard).commit()
asking = Workflow("asking").foreach(step(ask, id="ask"), concurrency=100).commit()
plain = Workflow("plain", input=int).then(step(lambda number: number + 1, id="one")).commit()
impatient = Workflow("impatient").wait_for_event("go", timeout=0.2, on_timeout=step(nothing, id="late")).commit()
FLOWS = [listening, asking, plain, impatient]


@pytest.mark.parametrize("others", OTHERS)
def test_an_event_is_heard_once(store: Resending, others: int) -> None:
    """However many others were sent before the repeat came."""
    with Orchestrator(store=store, workflows=FLOWS) as orchestrator:
        run = orchestrator.create_run(listening)
        store.between = lambda: [run.send_event("go", f"other {number}") for number in range(others)]
        run.send_event("go", "mine")
        for number in range(others, WAITS - 1):
            run.send_event("go", f"other {number}")
        assert run.start(None, timeout=30).result == ["mine", *(f"other {number}" for number in range(WAITS - 1))]


@pytest.mark.parametrize("others", OTHERS)
def test_an_event_that_somebody_waits_for_is_heard_once(store: Resending, others: int) -> None:
    """The wait is woken by the change whose answer was lost: its step runs all the same."""
    with Orchestrator(store=store, workflows=FLOWS) as orchestrator:
        run = orchestrator.create_run(listening)
        run.start(None, timeout=30)
        store.between = lambda: [run.send_event("go", f"other {number}") for number in range(others)]
        run.send_event("go", "mine")
        for number in range(others, WAITS - 1):
            run.send_event("go", f"other {number}")
        assert wait_until(lambda: run.status == "success", 30)
        assert run.result(5).result == ["mine", *(f"other {number}" for number in range(WAITS - 1))]


@pytest.mark.parametrize("others", OTHERS)
def test_who_wins_a_resume_is_told_so_and_the_step_runs(store: Resending, others: int) -> None:
    """The others win theirs. In this process no sweep would run what nobody was told of."""
    with Orchestrator(store=store, workflows=FLOWS) as orchestrator:
        run = orchestrator.create_run(asking)
        run.start(list(range(others + 1)), timeout=30)
        store.between = lambda: [run.submit_resume(number, label=str(number)) for number in range(1, others + 1)]
        assert run.resume(0, label="0", timeout=30).result == list(range(others + 1))


def test_who_wins_a_start_is_told_so(store: Resending) -> None:
    """Somebody sends an event meanwhile."""
    with Orchestrator(store=store, workflows=FLOWS) as orchestrator:
        run = orchestrator.create_run(listening)
        store.between = lambda: run.send_event("go", 1)
        assert run.start(None, timeout=30).status == "suspended"


def test_who_starts_what_is_canceled_meanwhile_is_not_kept_waiting(store: Resending) -> None:
    """The rest that it waits for has come in between."""
    with Orchestrator(store=store, workflows=FLOWS) as orchestrator:
        run = orchestrator.create_run(plain)
        store.between = run.cancel
        assert run.start(1, timeout=20).status == "canceled"


def test_all_of_many_items_run_although_their_resume_was_repeated(store: Resending) -> None:
    """A repeat tells of fifty, and says that there are more."""
    with Orchestrator(store=store, workflows=FLOWS) as orchestrator:
        run = orchestrator.create_run(asking)
        run.start(list(range(70)), timeout=30)
        store.between = nothing
        assert run.resume("all", timeout=30).result == ["all"] * 70


def test_a_wait_that_is_over_goes_on_although_that_was_repeated(store: Resending) -> None:
    """In this process nobody sweeps what the answer would have told of."""
    with Orchestrator(store=store, workflows=FLOWS) as orchestrator:
        run = orchestrator.create_run(impatient)
        run.start(None, timeout=30)
        store.between = nothing
        assert wait_until(lambda: run.status == "success", 20)


def test_who_deletes_a_run_is_not_told_that_there_was_none(store: Resending) -> None:
    """Nothing is left that could remember it, but the run had been seen. A second deletion is told the truth."""
    with Orchestrator(store=store, workflows=FLOWS) as orchestrator:
        run = orchestrator.create_run(plain)
        run.start(1, timeout=30)
        store.verb, store.between = "delete", nothing
        orchestrator.runs.delete(run.run_id)
        with pytest.raises(RunNotFound):
            orchestrator.runs.delete(run.run_id)


def test_a_repeated_deletion_leaves_the_next_run_of_that_id_alone(store: Resending) -> None:
    """Somebody creates it while the answer is lost."""
    with Orchestrator(store=store, workflows=FLOWS) as orchestrator:
        orchestrator.create_run(plain, run_id="again").start(1, timeout=30)
        store.verb, store.between = "delete", lambda: orchestrator.create_run(plain, run_id="again")
        orchestrator.runs.delete("again")
        assert orchestrator.get_run("again").start(2, timeout=30).result == 3
        orchestrator.runs.delete("again")


def test_a_purge_counts_what_it_removed_and_passes_nothing_over(store: Resending) -> None:
    """Also what it removed without hearing of it."""
    with Orchestrator(store=store, workflows=FLOWS) as orchestrator:
        orchestrator.runs.purge(older_than=timedelta(0), status="success")  # of other tests
        for number in range(3):
            orchestrator.create_run(plain).start(number, timeout=30)
        written = store.store.now()
        assert wait_until(lambda: store.store.now() > written, 5)
        store.verb, store.between = "delete", nothing
        assert orchestrator.runs.purge(older_than=timedelta(0), status="success") == 3
        assert orchestrator.runs.list(status="success").total == 0


def test_a_purge_leaves_what_has_gone_on_since_it_was_listed(store: Resending) -> None:
    """A run that is suspended anew is not the one that was old."""
    with Orchestrator(store=store, workflows=FLOWS) as orchestrator:
        run = orchestrator.create_run(asking)
        run.start([1, 2], timeout=30)
        (header,) = [store.store.header(run.run_id)]
        assert header is not None
        states = frozenset({"suspended"})
        assert not store.delete(run.run_id, states, created_at=header.created_at, before=header.updated_at)
        assert not store.delete(run.run_id, states, created_at=header.created_at - 1)
        assert store.delete(run.run_id, states, created_at=header.created_at, before=header.updated_at + 1)
