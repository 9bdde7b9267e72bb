"""The SQL store's own: its schema, its locks, its connections, and the cost of a step."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from orchestrator.errors import StoreUnavailable
from orchestrator.host import new_run_id, new_token
from orchestrator.ports import RunQuery
from orchestrator.rules.change import (
    Change,
    Claimed,
    ClaimRequest,
    Committed,
    CreateActivation,
    LeaseGuard,
    RequestGuard,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.events import EventType
from orchestrator.rules.model import Activation, ActivationStatus, Phase, Role, RunHeader, StoredStatus
from orchestrator.rules.timers import on_deadline
from orchestrator.stores import open_store
from orchestrator.stores.common import SLACK
from orchestrator.stores.sql import SqlStore, link, postgres, queries, rows, sqlite, tables
from tests.servers import PostgresServer
from tests.stores.wire import Wire
from tests.vendor import free_port

FORK = multiprocessing.get_context("fork")
ACTIVE = frozenset({StoredStatus.RUNNING})


# -- places -----------------------------------------------------------------------------------------------------------


class Place:
    """An empty database, in which `open` opens a store."""

    def __init__(self, url: str, schema: str | None = None) -> None:
        self.url, self.schema = url, schema
        self._stores: list[SqlStore] = []

    def open(self) -> SqlStore:
        """Open a store, which is closed at the end of the test."""
        store = SqlStore(self.url, schema=self.schema)
        self._stores.append(store)
        return store

    def execute(self, statement: str) -> list[Any]:
        """Return the rows of a statement, carried out on a connection of its own."""
        with closing(self.connect()) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def connect(self) -> Any:
        """Open a connection that the store knows nothing of."""
        if self.schema is None:
            return sqlite3.connect(self.url.removeprefix("sqlite:///"), isolation_level=None)
        url = self.url.replace("postgresql+psycopg", "postgresql")
        return psycopg.connect(url, autocommit=True, options=f"-csearch_path={self.schema}")

    def close(self) -> None:
        """Close the stores."""
        for store in self._stores:
            store.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    given = request.getfixturevalue("on_" + request.param)
    assert isinstance(given, Place)
    yield given
    given.close()


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Place:
    return Place(f"sqlite:///{tmp_path / 'store.db'}")


@pytest.fixture
def on_postgresql(postgres_server: PostgresServer) -> Iterator[Place]:
    place = Place(postgres_server.url(), f"s_{new_token().lower().replace('-', '_')}")
    yield place
    place.close()


def begin(store: SqlStore, *paths: str) -> str:
    """Make a run with a queued activation at each path; returns its id."""
    header = store.create(RunHeader(run_id=new_run_id(), workflow_id="w", namespace="n", runtime="celery"))
    root = Activation(path="", role=Role.BLOCK, phase=Phase.SETTLE, status=ActivationStatus.SUCCESS)
    ops = (
        CreateActivation(root),
        UpdateRun({"status": StoredStatus.RUNNING}),
        *(CreateActivation(queued(path)) for path in paths),
    )
    committed(store.commit(header.run_id, Change(RequestGuard(new_token(), frozenset({StoredStatus.PENDING})), ops)))
    return header.run_id


def queued(path: str) -> Activation:
    return Activation(path=path, step=f"s{path}", component="STEP", input="v")


def committed(answer: object) -> Committed:
    assert isinstance(answer, Committed), answer
    return answer


def note(store: SqlStore, run_id: str, event: str = "note") -> Committed:
    """Commit nothing but an event."""
    return committed(store.commit(run_id, Change(RequestGuard(new_token(), ACTIVE), events=({"type": event},))))


def step(store: SqlStore, run_id: str, number: int) -> None:
    """Claim the activation at `number`, end it and queue the next: a plain step."""
    (activation,) = store.load(run_id, [str(number)])
    token = claim(store, run_id, activation)
    finish(store, run_id, number, token)


def claim(store: SqlStore, run_id: str, activation: Activation) -> str:
    token = new_token()
    assert isinstance(store.claim(ClaimRequest(run_id, activation.path, activation.seq, token)), Claimed)
    return token


def finish(store: SqlStore, run_id: str, number: int, token: str) -> None:
    ended = UpdateActivation(str(number), {"status": ActivationStatus.SUCCESS, "output": f"o{number:06}"})
    value = {f"o{number:06}": "=" + "x" * 100}
    change = Change(LeaseGuard(str(number), token), (ended, CreateActivation(queued(str(number + 1)))), values=value)
    committed(store.commit(run_id, change))


# -- the schema -------------------------------------------------------------------------------------------------------


def _open_at_once(url: str, schema: str | None, barrier: Any, answers: Any) -> None:
    store = SqlStore(url, schema=schema)
    barrier.wait(60)
    try:
        answers.put(begin(store, "0"))
    except Exception as error:  # noqa: BLE001 - a process's border
        answers.put(error)
    finally:
        store.close()


def test_many_processes_may_open_an_empty_database_at_once(place: Place) -> None:
    """One of them makes the tables, the others wait for it."""
    count = 6
    barrier, answers = FORK.Barrier(count), FORK.Queue()
    processes = [
        FORK.Process(target=_open_at_once, args=(place.url, place.schema, barrier, answers)) for _ in range(count)
    ]
    for process in processes:
        process.start()
    ids = [answers.get(timeout=90) for _ in processes]
    for process in processes:
        process.join(30)
    assert not [found for found in ids if not isinstance(found, str)]
    assert place.open().count_runs(RunQuery()) == count


def test_many_threads_may_open_an_empty_database_at_once(place: Place) -> None:
    """Alembic works for one of them at a time."""
    assert len(at_once([lambda: begin(place.open(), "0")] * 4)) == 4


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """Make the calls in threads of their own; returns the answers, or raises what one of them raised."""
    answers: list[Any] = []
    errors: list[BaseException] = []

    def run(call: Callable[[], Any]) -> None:
        try:
            answers.append(call())
        except BaseException as error:  # noqa: BLE001 - a thread's border: it is raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return answers


def test_the_scripts_make_the_tables_that_the_code_speaks_of(place: Place) -> None:
    """Tables, columns and indexes of the migrated database are those of the metadata."""
    place.open().now()
    executor = sa.create_engine("sqlite://" if place.schema is None else "postgresql+psycopg://", creator=place.connect)
    try:
        with executor.connect() as connection:
            options = {"version_table": tables.VERSION_TABLE, "compare_type": True}
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, tables.metadata) == []
    finally:
        executor.dispose()


@pytest.mark.parametrize("stored", [1, tables.FIRST_FORMAT - 1])
def test_a_store_of_a_development_version_is_refused(place: Place, stored: int) -> None:
    """Its documents have other field names; it is left as it is."""
    place.open().now()
    place.execute(f"UPDATE orchestrator_meta SET value = {stored} WHERE name = 'format'")
    with pytest.raises(StoreUnavailable, match=rf"has format {stored}, .*Delete it, or use another database"):
        place.open().header("r")
    assert place.execute("SELECT value FROM orchestrator_meta") == [(stored,)]


def test_a_store_of_a_newer_release_is_refused(place: Place) -> None:
    """Nobody writes into a schema that it does not know; the error says why."""
    place.open().now()
    place.execute(f"UPDATE orchestrator_meta SET value = {tables.FORMAT + 1} WHERE name = 'format'")
    with pytest.raises(StoreUnavailable, match="newer release"):
        place.open().header("r")


def test_an_upgrade_that_was_cut_short_is_made_up_for(place: Place) -> None:
    """Making the tables is one transaction: there is nothing in between."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.stores.sql.schema.FORMAT", None)  # fails after the tables, before the format
        with pytest.raises((StoreUnavailable, sa.exc.SQLAlchemyError, TypeError)):
            place.open().now()
    assert begin(place.open(), "0")


# -- locks and repetition ---------------------------------------------------------------------------------------------


def test_stores_that_commit_on_one_run_exclude_each_other(place: Place) -> None:
    """No commit and no event number is lost, whichever process or thread they come from."""
    stores = [place.open() for _ in range(2)]
    run_id = begin(stores[0], "0")
    at_once([lambda store=store: [note(store, run_id) for _ in range(25)] for store in stores * 2])  # type: ignore[misc]
    header = stores[0].header(run_id)
    assert header is not None
    assert header.commits == 101
    assert [event.id for event in stores[1].events(run_id)] == [str(number) for number in range(1, 101)]


def test_a_commit_waits_for_a_lock_and_is_tried_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database gives up waiting, and the store asks again."""
    impatient(monkeypatch)
    store = place.open()
    run_id = begin(store, "0")
    with blocked(place, run_id) as release:
        threading.Timer(0.4, release).start()
        assert note(store, run_id).header.commits == 2


def test_a_lock_that_is_never_given_up_is_an_error_in_bounded_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing hangs, and what was not committed is not there."""
    impatient(monkeypatch)
    monkeypatch.setattr(link, "PATIENCE", 0.3)
    store = place.open()
    run_id = begin(store, "0")
    with blocked(place, run_id):
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="too busy"):
            note(store, run_id)
        assert time.monotonic() - started < 5
    assert store.events(run_id) == []
    assert note(store, run_id).header.commits == 2


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the databases give up waiting for a lock at once."""
    monkeypatch.setattr(sqlite, "BUSY", 0.02)
    monkeypatch.setattr(postgres, "_SETTINGS", "SELECT set_config('lock_timeout', '20ms', false)")


@contextmanager
def blocked(place: Place, run_id: str) -> Iterator[Callable[[], None]]:
    """Hold the run's lock; yields a function that releases it early."""
    holder = (
        sqlite3.connect(place.url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
        if (place.schema is None)
        else place.connect()
    )
    holder.execute("BEGIN IMMEDIATE" if place.schema is None else "BEGIN")
    holder.execute(f"UPDATE orchestrator_runs SET doc = doc WHERE run_id = '{run_id}'")
    ended = threading.Lock()

    def release() -> None:
        with ended, suppress(sqlite3.Error, psycopg.Error):
            holder.execute("ROLLBACK")
            holder.close()

    try:
        yield release
    finally:
        release()


def test_an_exception_in_the_middle_of_a_transaction_leaves_nothing_behind(place: Place) -> None:
    """A time limit may strike anywhere: the next transaction begins on clean ground."""
    store = place.open()
    run_id = begin(store, "0")

    def struck(tx: link.Tx) -> Callable[[], None]:
        tx.send(queries.LOCK, run=run_id).fetchall()
        tx.send(queries.DELETE_RUN[-1], run=run_id)
        raise TimeoutError("time is over")

    with pytest.raises(TimeoutError):
        store._connections.change(struck)
    assert note(store, run_id).header.commits == 2


def test_a_time_limit_that_strikes_a_waiting_commit_ends_it_at_once(
    on_postgresql: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for the lock any longer, nothing is committed, and nothing is logged of what the pipeline held."""
    store = on_postgresql.open()
    run_id = begin(store, "0")
    with blocked(on_postgresql, run_id), time_limit(0.2):
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            note(store, run_id)
        assert time.monotonic() - started < 5
    assert note(store, run_id).header.commits == 2
    assert not caplog.records


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the main thread once the time is over, as Celery's soft time limits do."""

    def strike(*_: object) -> None:
        raise TimeoutError("time is over")

    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# -- processes --------------------------------------------------------------------------------------------------------


def test_a_forked_child_uses_connections_of_its_own(place: Place) -> None:
    """Parent and children commit on one run at the same time, and nobody disturbs anybody."""
    store = place.open()
    run_id = begin(store, "0")
    children = [forked(lambda: [note(store, run_id) for _ in range(10)]) for _ in range(3)]
    for _ in range(10):
        note(store, run_id)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    assert len(store.events(run_id)) == 40
    if place.schema is None:
        assert place.execute("PRAGMA integrity_check") == [("ok",)]


def test_a_fork_in_the_middle_of_other_threads_transactions_is_harmless(place: Place) -> None:
    """Prefork replaces children while threads of the parent run."""
    store = place.open()
    run_id = begin(store, "0")
    done = threading.Event()

    def work() -> int:
        count = 0
        while not done.is_set():
            note(store, run_id)
            count += 1
        return count

    def fork() -> int:
        try:
            for _ in range(10):
                child = forked(lambda: note(store, run_id, "child"))
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        finally:
            done.set()
        return 0

    notes = sum(at_once([work, work, fork]))
    events = [event.doc["type"] for event in store.events(run_id, limit=100_000)]
    assert (events.count("note"), events.count("child")) == (notes, 10)


def forked(call: Callable[[], Any]) -> int:
    """Make the call in a forked child, which ends with 0 if the call returned; returns the child's id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        call()
        status = 0
    except BaseException as error:  # noqa: BLE001 - a process's border
        os.write(2, repr(error).encode())
    finally:
        os._exit(status)


# -- what is shown ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:s3cret@127.0.0.1:1/db",
        "postgresql+psycopg://user@127.0.0.1:1/db?password=s3cret",
    ],
)
def test_a_password_is_never_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the store nor by its errors, which name the store all the same."""
    monkeypatch.setattr(link, "LOSSES", 2)
    store = SqlStore(url)
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1/db") as caught:
        store.header("r")
    shown = [repr(store), store.url, str(vars(store)["url"]), str(caught.value), repr(caught.value.details)]
    cause: BaseException | None = caught.value
    while cause is not None:
        shown.append(repr(cause))
        cause = cause.__cause__ or cause.__context__
    assert not [text for text in shown if "s3cret" in text]


@pytest.mark.parametrize("url", ["not a url s3cret", "postgresql://user:s3cret@host:port/db", "mysql://u:s3cret@h/db"])
def test_a_url_that_cannot_be_used_is_refused_without_showing_it(url: str) -> None:
    """A mistyped URL may hold a password too."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is looked at below
        SqlStore(url)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_older_name_of_postgresql_is_taken_and_connections_have_a_name(postgres_server: PostgresServer) -> None:
    """`postgres://` is what hosts give as DATABASE_URL; by its name a DBA knows whose a connection is."""
    url = "postgres" + postgres_server.url()[postgres_server.url().index("://") :]
    names = []
    for query in ("", "application_name=mine"):
        store = open_store(f"{url}{'&' if '?' in url else '?'}{query}" if query else url)
        try:
            store.header("none")
            with psycopg.connect(url, autocommit=True) as connection:
                found = connection.execute(
                    "select application_name from pg_stat_activity where datname = current_database()"
                )
                names.append({name for (name,) in found.fetchall()})
        finally:
            store.close()
    assert "orchestrator" in names[0]
    assert "mine" in names[1]


def test_the_migrations_are_no_lines_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are nobody's business at a worker's first start."""
    with caplog.at_level(logging.INFO):
        store = SqlStore(f"sqlite:///{tmp_path}/new.db")
        store.header("none")
        store.close()
    assert [record for record in caplog.records if record.name.startswith("alembic")] == []
    assert logging.getLogger("alembic").level == logging.NOTSET


def test_sqlite_needs_a_file() -> None:
    """In memory each connection would have a database of its own."""
    for url in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(ValueError, match="needs a file"):
            SqlStore(url)


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    """The error names the store and the reason."""
    (tmp_path / "text").write_text("text " * 1000)
    with pytest.raises(StoreUnavailable, match="not a database"):
        SqlStore(f"sqlite:///{tmp_path / 'text'}").header("r")
    with pytest.raises(StoreUnavailable, match="unable to open"):
        SqlStore(f"sqlite:///{tmp_path / 'nowhere' / 'x.db'}").header("r")


def test_any_text_may_be_looked_up(place: Place) -> None:
    """Ids come from outside: what a database would refuse is simply not there."""
    store = place.open()
    for id_ in ("a\0b", "\ud83d", "é'\"\\", "", "%s :run $1 {runs}"):
        assert store.header(id_) is None
        assert store.count_runs(RunQuery(resource_id=id_)) == 0
    run_id = begin(store, "0")
    patch = {"a\0b": "=1", "\ud83d": "=2", "é\\": "=3"}
    committed(store.commit(run_id, Change(RequestGuard(new_token(), ACTIVE), state=patch)))
    assert store.state(run_id) == patch


# -- the event log ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [0, 1])
def test_a_log_is_cut_also_where_claims_make_it_too_long(place: Place, before: int) -> None:
    """Claims write events too, but know no limits: the next commit makes up for them."""
    store = place.open()
    run_id = begin(store, "0")
    for _ in range(before):
        note(store, run_id)
    for _ in range(60):  # one event by the claim, one by the commit
        (activation,) = store.load(run_id, ["0"])
        token = claim(store, run_id, activation)
        again = UpdateActivation("0", {"status": ActivationStatus.QUEUED})
        committed(
            store.commit(run_id, Change(LeaseGuard("0", token), (again,), events=({"type": "n"},), max_events=10))
        )
    assert 10 < len(store.events(run_id)) <= 10 + 1 + SLACK + 1


@pytest.mark.parametrize("number", [49, 50, 51])
def test_a_log_is_cut_by_age_now_and_then(place: Place, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chance decides, once in so many events, whichever numbers the events have."""
    store = place.open()
    run_id = begin(store, "0")
    for _ in range(number):
        note(store, run_id)
    threading.Event().wait(0.005)
    change = Change(RequestGuard("", ACTIVE), events=({"type": "new"},), max_event_age=1)
    monkeypatch.setattr(rows, "chance", lambda: 1 / SLACK)
    committed(store.commit(run_id, change))
    assert len(store.events(run_id)) == number + 1
    monkeypatch.setattr(rows, "chance", lambda: 0.9 / SLACK)
    threading.Event().wait(0.005)
    committed(store.commit(run_id, change))
    assert [event.doc["type"] for event in store.events(run_id)] == [EventType.EVENTS_TRIMMED, "new"]
    assert [event.id for event in store.events(run_id)] == [str(number + 1), str(number + 2)]


def test_a_log_may_be_kept_for_longer_than_there_has_been_a_clock(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is further back than any database counts, and means that nothing is too old."""
    monkeypatch.setattr(rows, "chance", lambda: 0.0)
    store = place.open()
    run_id = begin(store, "0")
    for _ in range(3):
        change = Change(RequestGuard("", ACTIVE), events=({"type": "new"},), max_event_age=10**40)
        committed(store.commit(run_id, change))
    assert len(store.events(run_id)) == 3


@pytest.mark.parametrize("statement", [queries.DROP_OLD_EVENTS, queries.MARK_GAP])
def test_cutting_a_log_looks_at_its_beginning_only(on_sqlite: Place, statement: str) -> None:
    """The database goes by the key, from the oldest event on, and sorts nothing."""
    begin(on_sqlite.open(), "0")
    written = queries.Sqlite().write(statement)
    for name, value in {":run": "'r'", ":young": "5", ":doc": "''"}.items():
        written = written.replace(name, value)
    plan = str(on_sqlite.execute(f"EXPLAIN QUERY PLAN {written}"))
    assert "run_id=? AND number" in plan
    assert "SCAN" not in plan.replace("SCALAR", "")
    assert "B-TREE" not in plan


def test_a_number_that_no_event_can_have_is_no_cursor(place: Place) -> None:
    """A database would refuse it in words of its own."""
    store = place.open()
    run_id = begin(store, "0")
    for read in (store.events, lambda run_id, after: store.wait_for_events(run_id, after, 0.0)):
        assert read(run_id, "9" * 18) == []
        with pytest.raises(ValueError, match="no cursor"):
            read(run_id, "9" * 40)


# -- what it costs ----------------------------------------------------------------------------------------------------


@pytest.fixture
def wire(on_postgresql: Place) -> Iterator[Wire]:
    """A wire to the server; `on_postgresql` leads over it from now on."""
    parts = urlsplit(on_postgresql.url)
    with Wire(parts.port or 5432, parts.hostname or "127.0.0.1") as wire:
        user, at, _ = parts.netloc.rpartition("@")
        on_postgresql.url = on_postgresql.url.replace(parts.netloc, f"{user}{at}127.0.0.1:{wire.port}")
        yield wire
        on_postgresql.close()


def test_a_plain_step_takes_four_round_trips(wire: Wire, on_postgresql: Place) -> None:
    """Two for the claim, two for the commit; a start takes four too, and a read takes one."""
    store = on_postgresql.open()
    run_id = begin(store, "0")
    (activation,) = store.load(run_id)[1:]
    before = wire.turns
    token = claim(store, run_id, activation)
    assert wire.turns - before == 2
    finish(store, run_id, 0, token)
    assert wire.turns - before == 4
    for read in (
        lambda: store.header(run_id),
        lambda: store.load(run_id),
        lambda: store.values(run_id, ["o"]),
        lambda: store.events(run_id),
        lambda: store.runs(RunQuery()),
        lambda: store.due_timers("n"),
        lambda: store.workers("n"),
        store.now,
    ):
        before = wire.turns
        read()
        assert wire.turns - before == 1
    before = wire.turns
    begin(store, "0")
    assert wire.turns - before == 4


def test_a_plain_step_takes_six_statements(on_postgresql: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lock, read, write, for the claim and for the commit: everything that is written goes out as one statement."""
    store = on_postgresql.open()
    run_id = begin(store, "0")
    (activation,) = store.load(run_id)[1:]
    sent: list[bytes] = []
    execute = psycopg.Connection.execute

    def count(connection: Any, query: bytes, *args: Any, **options: Any) -> Any:
        sent.append(query)
        return execute(connection, query, *args, **options)

    monkeypatch.setattr(psycopg.Connection, "execute", count)
    token = claim(store, run_id, activation)
    assert len(sent) == 3
    finish(store, run_id, 0, token)
    assert len(sent) == 6


def test_cutting_a_log_costs_no_round_trip(wire: Wire, on_postgresql: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number or by age: nobody waits for the answer."""
    monkeypatch.setattr(rows, "chance", lambda: 0.0)
    store = on_postgresql.open()
    run_id = begin(store, "0")
    events = ({"type": "n"},) * 2 * SLACK
    for _ in range(3):
        before = wire.turns
        committed(store.commit(run_id, Change(RequestGuard("", ACTIVE), events=events, max_events=10, max_event_age=1)))
        assert wire.turns - before == 2
    assert store.events(run_id)[0].doc["type"] == EventType.EVENTS_TRIMMED


def test_a_big_commit_takes_two_round_trips(wire: Wire, on_postgresql: Place) -> None:
    """Five hundred values and activations go in as many statements as one."""
    store = on_postgresql.open()
    run_id = begin(store)
    note(store, run_id)
    values = {f"v{number}": "=1" for number in range(500)}
    change = Change(
        RequestGuard("big", ACTIVE),
        tuple(CreateActivation(queued(f"0.{number}")) for number in range(500)),
        values=values,
    )
    before = wire.turns
    committed(store.commit(run_id, change))
    assert wire.turns - before <= 3  # the answers to so much may come in two pieces
    assert len(store.load(run_id)) == 501
    assert len(store.values(run_id, values)) == 500


def test_a_step_sends_as_many_bytes_at_position_1000_as_at_10(
    postgres_server: PostgresServer, wire: Wire, on_postgresql: Place
) -> None:
    """The cost of a step does not grow with the run."""
    beside = SqlStore(postgres_server.url(), schema=on_postgresql.schema)  # not slowed down by the wire
    store = on_postgresql.open()
    run_id = begin(store, "10")
    costs = {}
    for number in (*range(10, 20), 1000):
        if number == 1000:
            until(beside, run_id, 20, 1000)
            beside.close()
        before = wire.sent
        step(store, run_id, number)
        costs[number] = wire.sent - before
    assert costs[1000] == pytest.approx(costs[19], rel=0.05)


def test_a_step_writes_as_much_at_position_1000_as_at_10(on_sqlite: Place) -> None:
    """Counted in the write-ahead log of SQLite, which has whole pages."""
    store = on_sqlite.open()
    run_id = begin(store, "10")
    early = logged(on_sqlite, lambda: until(store, run_id, 10, 30))
    until(store, run_id, 30, 1000)
    late = logged(on_sqlite, lambda: until(store, run_id, 1000, 1020))
    on_sqlite.close()
    assert late <= 2 * early  # a tree of two levels has become one of three


def until(store: SqlStore, run_id: str, first: int, end: int) -> None:
    for number in range(first, end):
        step(store, run_id, number)


def logged(place: Place, call: Callable[[], None]) -> int:
    """Return by how many bytes the call makes the write-ahead log grow."""
    place.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    call()
    return Path(place.url.removeprefix("sqlite:///") + "-wal").stat().st_size


def test_awaiting_activations_are_found_without_reading_the_others(place: Place) -> None:
    """The database goes by the partial index."""
    store = place.open()
    begin(store, "0")
    if place.schema is None:
        written = queries.Sqlite().write(queries.AWAITING_ACTIVATIONS).replace(":run", "'r'")
        plan = place.execute(f"EXPLAIN QUERY PLAN {written}")
    else:
        written = queries.Postgres(place.schema).write(queries.AWAITING_ACTIVATIONS).replace(":run", "'r'")
        with closing(place.connect()) as connection:
            connection.execute("SET enable_seqscan = off")  # the table is nearly empty
            plan = connection.execute(f"EXPLAIN {written}").fetchall()
    assert "orchestrator_activations_awaiting" in str(plan)


# -- connections ------------------------------------------------------------------------------------------------------


def test_a_commit_whose_answer_is_lost_is_taken_once(wire: Wire, on_postgresql: Place) -> None:
    """The connection breaks while the server commits: the same change is sent again and gets its first answer."""
    store = on_postgresql.open()
    run_id = begin(store, "0")
    (activation,) = store.load(run_id)[1:]
    token = claim(store, run_id, activation)
    wire.lose_answer(b"INSERT INTO")
    finish(store, run_id, 0, token)
    assert wire.lost == 1
    header = store.header(run_id)
    assert header is not None
    assert (header.commits, header.live) == (3, 1)


def test_connections_that_the_server_has_closed_are_replaced(on_postgresql: Place) -> None:
    """A restart of the server costs nobody an error."""
    store = on_postgresql.open()
    run_id = begin(store, "0")
    at_once([lambda: [note(store, run_id) for _ in range(5)]] * 4)
    for _ in range(2):
        on_postgresql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        note(store, run_id)
    assert len(store.events(run_id)) == 22


def test_a_server_that_does_not_answer_is_an_error_in_bounded_time(
    wire: Wire, on_postgresql: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen server keeps its connections open and says nothing."""
    monkeypatch.setattr(postgres, "ANSWER", 0.2)
    monkeypatch.setattr(postgres, "CONNECT", 2)
    monkeypatch.setattr(link, "LOSSES", 2)
    store = on_postgresql.open()
    run_id = begin(store, "0")
    wire.frozen = True
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        store.header(run_id)
    assert time.monotonic() - started < 10
    wire.frozen = False
    assert store.header(run_id) is not None


@pytest.mark.parametrize("word", [{"status": StoredStatus.CANCELED}, {"closed": True}], ids=["ended", "closed"])
def test_sweeps_clear_dead_timers_away(place: Place, word: dict[str, Any]) -> None:
    """Timers of a run that is over do not keep others from being found, however many they are."""
    store = place.open()
    ended = begin(store, *(str(number) for number in range(12)))
    committed(store.commit(ended, Change(RequestGuard("c", ACTIVE), (UpdateRun(word),))))
    active = begin(store, "0")
    place.execute("UPDATE orchestrator_timers SET deadline = 1")
    place.execute(f"UPDATE orchestrator_timers SET deadline = 2 WHERE run_id = '{active}'")
    assert [due.header.run_id for due in store.due_timers("n", limit=5)] == [active]
    assert place.execute("SELECT count(*) FROM orchestrator_timers") == [(1,)]


def test_a_run_that_stood_in_the_way_and_is_gone_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the insert that was in vain and the next look another process deletes it."""
    insert, columns = queries.INSERT_RUN, rows.columns

    def columns_and_insert(header: RunHeader) -> dict[str, Any]:
        monkeypatch.setattr(queries, "INSERT_RUN", insert)
        return columns(header)

    monkeypatch.setattr(rows, "columns", columns_and_insert)
    monkeypatch.setattr(queries, "INSERT_RUN", "DELETE FROM {runs} WHERE run_id = :run")
    store = SqlStore(f"sqlite:///{tmp_path / 'store.db'}")
    assert store.create(RunHeader(run_id="r", workflow_id="w")).run_id == "r"
    assert store.header("r") is not None
    store.close()


def test_an_at_sign_in_a_password_is_refused_without_showing_it() -> None:
    """The rest of the password would be taken, and shown, for the server's name."""
    with pytest.raises(ValueError, match="as %40 for @") as caught:
        SqlStore("postgresql+psycopg://user:sec@ret@host/db")
    assert "ret" not in str(caught.value).replace("secret", "")


# -- poolers of transactions ------------------------------------------------------------------------------------------


def left_in_session(store: SqlStore) -> tuple[int, str, str]:
    """What a server keeps of the store for whoever is next: prepared statements, and two settings."""
    connections: Any = store._connections
    with closing(connections._pool.connect()) as pooled:
        found = pooled.driver_connection.execute(
            "SELECT (SELECT count(*) FROM pg_prepared_statements), current_setting('lock_timeout'), "
            "current_setting('statement_timeout')",
            prepare=False,
        ).fetchone()
    assert found is not None
    return found


@pytest.mark.parametrize("pooling", ["transaction", "session"])
def test_a_pooler_of_transactions_gets_nothing_that_outlasts_one(on_postgresql: Place, pooling: str) -> None:
    """No named statement and no setting of the session: the next transaction has another server."""
    sign = "&" if "?" in on_postgresql.url else "?"
    on_postgresql.url += f"{sign}pooling={pooling}"
    store = on_postgresql.open()
    run_id = begin(store, "0")
    for number in range(8):
        step(store, run_id, number)
        store.header(run_id)
        store.due_timers("n")
    prepared, lock, statement = left_in_session(store)
    if pooling == "transaction":
        assert (prepared, lock, statement) == (0, "0", "0")
    else:
        assert prepared > 3
        assert (lock, statement) == ("10s", "30s")


def test_waits_have_an_end_behind_a_pooler_too(on_postgresql: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each transaction brings its own bounds."""
    monkeypatch.setattr(link, "PATIENCE", 0.2)
    monkeypatch.setattr(postgres, "_LOCAL_SETTINGS", b"SELECT set_config('lock_timeout', '20ms', true)")
    sign = "&" if "?" in on_postgresql.url else "?"
    beside = on_postgresql.connect()
    on_postgresql.url += f"{sign}pooling=transaction"
    store = on_postgresql.open()
    run_id = begin(store, "0")
    with closing(beside):
        beside.execute("BEGIN")
        beside.execute("SELECT 1 FROM orchestrator_runs FOR UPDATE")
        with pytest.raises(StoreUnavailable, match="too busy"):
            note(store, run_id)


def test_a_database_that_isolates_otherwise_is_refused_behind_a_pooler(postgres_server: PostgresServer) -> None:
    """No session can be told to do it as the store wants it."""
    url = postgres_server.new_schema()
    sign = "&" if "?" in url else "?"
    other = url.replace("options=-c", "options=-cdefault_transaction_isolation%3Dserializable%20-c")
    store = SqlStore(f"{other}{sign}pooling=transaction")
    with closing(store), pytest.raises(StoreUnavailable, match="default_transaction_isolation"):
        store.now()
    with pytest.raises(ValueError, match="`pooling` in the store's URL is session"):
        SqlStore("postgresql://h/db?pooling=statement")


# -- crashes ----------------------------------------------------------------------------------------------------------


def test_after_a_crash_of_the_machine_sqlite_has_what_it_had_written_to_the_disk(tmp_path: Path) -> None:
    """Whole commits, the last of which may be missing: its log is written to the disk now and then."""
    store = SqlStore(f"sqlite:///{tmp_path / 'store.db'}")
    run_id = begin(store, "0")
    step(store, run_id, 0)
    known = {number: (tmp_path / name).read_bytes() for number, name in enumerate(("store.db", "store.db-wal"))}
    step(store, run_id, 1)
    step(store, run_id, 2)
    with closing(sqlite.connect(str(tmp_path / "store.db"))) as own:
        assert own.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert own.execute("PRAGMA synchronous").fetchone() == (1,)  # NORMAL
    grown = (tmp_path / "store.db-wal").read_bytes()
    for name, log, steps in (
        ("flushed", known[1], 1),
        ("torn", grown[: len(grown) - 1_000], 2),
        ("whole", grown, 3),
    ):
        (tmp_path / f"{name}.db").write_bytes(known[0])
        (tmp_path / f"{name}.db-wal").write_bytes(log)
        with closing(sqlite3.connect(tmp_path / f"{name}.db")) as checked:
            assert checked.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found = SqlStore(f"sqlite:///{tmp_path / name}.db")
        with closing(found):
            ended = [one for one in found.load(run_id) if one.status == ActivationStatus.SUCCESS and one.path]
            assert len(ended) == steps, name
            (begun,) = found.load(run_id, [str(steps)])
            if begun.status == ActivationStatus.RUNNING:  # its claim is on the disk, its end is not: it runs again
                header = found.header(run_id)
                assert header is not None
                swept = on_deadline(header, begun, 0)
                assert swept is not None
                committed(found.commit(run_id, swept.change))
            step(found, run_id, steps)
    store.close()


PG_TOOLS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


@pytest.mark.skipif(PG_TOOLS is None, reason="no server programs of PostgreSQL")
def test_what_postgresql_has_acknowledged_outlives_its_crash(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The store leaves `synchronous_commit` as it is, which is on."""
    assert PG_TOOLS is not None
    as_user: dict[str, Any] = {"user": "postgres"} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory() as folder:
        place, port = Path(folder) / "data", free_port()
        if as_user:
            shutil.chown(folder, "postgres")

        def run(*words: str) -> None:
            subprocess.run([str(PG_TOOLS / words[0]), *words[1:]], check=True, stdout=subprocess.DEVNULL, **as_user)

        def start() -> None:
            options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
            run("pg_ctl", "-w", "-D", str(place), "-l", f"{folder}/log", "-o", options, "start")

        run("initdb", "-D", str(place), "-U", "postgres", "-A", "trust", "--no-sync")
        start()
        try:
            store = SqlStore(f"postgresql://postgres@127.0.0.1:{port}/postgres")
            run_id = begin(store, "0")
            for number in range(5):
                step(store, run_id, number)
            with store._connections._checkout()[0] as pooled:  # type: ignore[attr-defined]
                found = pooled.driver_connection.execute("SHOW synchronous_commit").fetchone()
            assert found == ("on",)
            os.kill(int((place / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
            until_gone = time.monotonic() + 20
            while True:
                try:
                    start()
                    break
                except subprocess.CalledProcessError:  # its children take a moment to notice
                    assert time.monotonic() < until_gone
            assert len([one for one in store.load(run_id) if one.status == ActivationStatus.SUCCESS and one.path]) == 5
            step(store, run_id, 5)
            store.close()
        finally:
            run("pg_ctl", "-D", str(place), "-m", "immediate", "stop")
