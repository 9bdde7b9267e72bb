"""All statements of the store, by name, and how each is written for a database.

A statement stands here once, with words in braces where the databases differ:

* `{runs}`: a table's full name; `{now}`: the store's clock, in ms; `{lock}`: locks the row until the transaction ends;
* `{lock free}`: the same, without those rows that are locked;
* `{in paths}`: is one of the list in the parameter;
* `{find activations path paths}`: the rows `t` of this table and run whose `path` is one of the list in the parameter;
* `{below activations paths awaiting}`: those whose `awaiting` is 1, and whose path is, or is below, one of the list;
* `{pairs activations runs paths}`: the rows `t` with these runs and paths, which are two lists side by side;
* `{of activations a run_id=t.run_id path=t.path}`: the one row `a` that has these keys, for each row before it;
* `{rows text int}`: the rows that the statement is given, all in one message.

The planner of PostgreSQL knows one plan for a statement, whatever the parameters. Where most runs are narrow it takes
the rows of a run to be few, reads all of them and throws away those that were not asked for: in a run of ten thousand
items each claim would read ten thousand rows. So whatever is found by its key is looked up key by key. No list is
found by way of another status or another workflow either (`list_runs`).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping

from orchestrator.rules.model import FINAL, StoredStatus
from orchestrator.rules.timers import Lane
from orchestrator.stores.sql.tables import NAMES, OF_A_RUN, PREFIX

# -- changes ----------------------------------------------------------------------------------------------------------

LOCK = "SELECT doc, events, followed_until, settle_awaited_until FROM {runs} WHERE run_id = :run {lock}"
# Those that nobody else is busy with: a batch waits for no run.
LOCK_FREE = """SELECT run_id, doc, events, followed_until, settle_awaited_until FROM {runs} WHERE run_id {in runs}
    ORDER BY run_id {lock free}"""
LOCK_MANY = "SELECT run_id, doc FROM {runs} WHERE run_id {in runs} ORDER BY run_id {lock}"
# A statement of its own after the lock: only then does it see what the last holder wrote, and is its clock not behind.
READ = """SELECT 'clock', '', CAST({now} AS TEXT)
    UNION ALL SELECT 'activation', t.path, t.doc FROM {find activations path paths}"""
READ_PAIRS = """SELECT 'clock', '', '', CAST({now} AS TEXT)
    UNION ALL SELECT 'activation', t.run_id, t.path, t.doc FROM {pairs activations runs paths}"""
PACKAGE = """SELECT 'value', t.id, t.text FROM {find values id ids}
    UNION ALL SELECT 'state', key, text FROM {state} WHERE run_id = :run
    UNION ALL SELECT 'context', key, text FROM {context} WHERE run_id = :run"""

UPDATE_RUN = """UPDATE {runs} SET workflow_id = :workflow_id, resource_id = :resource_id, status = :status,
    awaiting = :awaiting, updated_at = :updated_at, settle_count = :settle_count, events = :events, doc = :doc
    WHERE run_id = :run"""
INSERT_RUN = """INSERT INTO {runs} (run_id, namespace, workflow_id, resource_id, status, awaiting, created_at,
    updated_at, settle_count, events, doc) VALUES (:run, :namespace, :workflow_id, :resource_id, :status, :awaiting,
    :updated_at, :updated_at, :settle_count, 0, :doc) ON CONFLICT (run_id) DO NOTHING"""
PUT_RUNS = """INSERT INTO {runs} (run_id, namespace, workflow_id, resource_id, status, awaiting, created_at, updated_at,
    settle_count, events, doc) {rows text text text text text int bigint bigint bigint bigint text}
    ON CONFLICT (run_id) DO UPDATE SET workflow_id = excluded.workflow_id, resource_id = excluded.resource_id,
    status = excluded.status, awaiting = excluded.awaiting, updated_at = excluded.updated_at,
    settle_count = excluded.settle_count, events = excluded.events, doc = excluded.doc"""
PUT_ACTIVATIONS = """INSERT INTO {activations} (run_id, path, status, awaiting, label, doc)
    {rows text text text int text text} ON CONFLICT (run_id, path)
    DO UPDATE SET status = excluded.status, awaiting = excluded.awaiting, label = excluded.label, doc = excluded.doc"""
DROP_ACTIVATIONS = "DELETE FROM {activations} WHERE run_id = :run AND path {in paths}"
PUT_TIMERS = """INSERT INTO {timers} (run_id, path, namespace, deadline) {rows text text text bigint}
    ON CONFLICT (run_id, path) DO UPDATE SET namespace = excluded.namespace, deadline = excluded.deadline"""
DROP_TIMERS = "DELETE FROM {timers} WHERE run_id = :run AND path {in paths}"
PUT_VALUES = "INSERT INTO {values} (run_id, id, text) {rows text text text} ON CONFLICT (run_id, id) DO NOTHING"
DROP_VALUES = "DELETE FROM {values} WHERE run_id = :run AND id {in ids}"
DROP_LOG = "DELETE FROM {events} WHERE run_id = :run"
PUT_EVENTS = "INSERT INTO {events} (run_id, number, at, doc) {rows text bigint bigint text}"
DROP_EVENTS = """DELETE FROM {events} WHERE run_id = :run AND number < :first
    AND (SELECT min(number) FROM {events} WHERE run_id = :run) < CAST(:first AS bigint) - CAST(:slack AS bigint)"""
DROP_OLD_EVENTS = """DELETE FROM {events} WHERE run_id = :run AND number <
    (SELECT number FROM {events} WHERE run_id = :run AND at >= :young ORDER BY number LIMIT 1) - 1"""
# Whatever was dropped: the first event that ever was has the number 1.
MARK_GAP = """UPDATE {events} SET doc = :doc WHERE run_id = :run AND number > 1 AND doc <> :doc
    AND number = (SELECT min(number) FROM {events} WHERE run_id = :run)"""
PUT_STATE = """INSERT INTO {state} (run_id, key, text) {rows text text text}
    ON CONFLICT (run_id, key) DO UPDATE SET text = excluded.text"""
DROP_STATE = "DELETE FROM {state} WHERE run_id = :run AND key {in keys}"
PUT_CONTEXT = PUT_STATE.replace("{state}", "{context}")
DROP_CONTEXT = DROP_STATE.replace("{state}", "{context}")
PUSH_TO_MAILBOX = """INSERT INTO {mailboxes} (run_id, name, entry) {rows text text text}
    ON CONFLICT (run_id, name, entry) DO NOTHING"""
POP_FROM_MAILBOX = "DELETE FROM {mailboxes} WHERE run_id = :run AND name = :name AND entry = :entry"
PUT_REPLY = """INSERT INTO {requests} (run_id, id, at, reply) {rows text text bigint text}
    ON CONFLICT (run_id, id) DO UPDATE SET at = excluded.at, reply = excluded.reply"""
DROP_REPLIES = "DELETE FROM {requests} WHERE run_id = :run AND at <= :old"
DELETE_RUN = tuple(f"DELETE FROM {{{table}}} WHERE run_id = :run" for table in OF_A_RUN)

# -- reads ------------------------------------------------------------------------------------------------------------

CLOCK = "SELECT {now}"
HEADER = "SELECT doc FROM {runs} WHERE run_id = :run"
SETTLE_COUNT = "SELECT settle_count FROM {runs} WHERE run_id = :run"
ACTIVATIONS = "SELECT doc FROM {activations} WHERE run_id = :run"
ACTIVATIONS_AT = "SELECT t.doc FROM {find activations path paths}"
AWAITING_ACTIVATIONS = "SELECT doc FROM {activations} WHERE run_id = :run AND awaiting = 1"
# Each is one step in the index: together in one SELECT, SQLite would read the whole mailbox.
MAILBOX = """SELECT (SELECT min(entry) FROM {mailboxes} WHERE run_id = :run AND name = :name),
    (SELECT max(entry) FROM {mailboxes} WHERE run_id = :run AND name = :name)"""
MAIL = "SELECT entry FROM {mailboxes} WHERE run_id = :run AND name = :name ORDER BY entry LIMIT :limit"
AWAITING_WITH_LABEL = """SELECT doc FROM {activations}
    WHERE run_id = :run AND label = :label AND label <> '' AND awaiting = 1"""
AWAITING_BELOW = "SELECT DISTINCT t.doc FROM {below activations paths awaiting}"
VALUES = "SELECT t.id, t.text FROM {find values id ids}"
REPLY = "SELECT reply FROM {requests} WHERE run_id = :run AND id = :id"
STATE = "SELECT key, text FROM {state} WHERE run_id = :run"
CONTEXT = "SELECT key, text FROM {context} WHERE run_id = :run"
EVENTS = """SELECT number, at, doc FROM {events} WHERE run_id = :run AND number > :after
    ORDER BY number LIMIT :limit"""
FOLLOW_EVENTS = "UPDATE {runs} SET followed_until = {now} + :ttl WHERE run_id = :run"
AWAIT_SETTLING = "UPDATE {runs} SET settle_awaited_until = {now} + :ttl WHERE run_id = :run"
NEWEST = "SELECT events FROM {runs} WHERE run_id = :run"
# Of one status, in the order of creation: each of the indexes of runs has the order for a status.
_NEWEST = """SELECT run_id, created_at FROM {runs} WHERE %s ORDER BY created_at DESC, run_id DESC LIMIT :last"""
_PAGE = """SELECT r.run_id, r.doc FROM
    (SELECT run_id, created_at FROM (%s) n ORDER BY created_at DESC, run_id DESC LIMIT :limit OFFSET :offset) p
    {of runs r run_id=p.run_id} ORDER BY p.created_at DESC, p.run_id DESC"""
_COUNT = "SELECT count(*) FROM {runs} WHERE %s"
# A run that was created later was also written later: what is newer is not even looked at.
STALE_RUNS = """SELECT run_id, created_at, updated_at, doc FROM {runs} WHERE status = :status
    AND created_at < :before AND (created_at, run_id) > (CAST(:moment AS bigint), CAST(:run AS text))
    ORDER BY created_at, run_id LIMIT :limit"""

# -- the scheduler's --------------------------------------------------------------------------------------------------

# The clock stands in a subquery so that it is asked once and the index can be used.
# `deadline` is the place of the timer: its lane's offset and its moment.
_DUE_TIMERS = """SELECT t.deadline, t.run_id, t.path, u.doc AS header, a.doc FROM {timers} t
    {of runs u run_id=t.run_id} {of activations a run_id=t.run_id path=t.path}
    WHERE t.namespace = :namespace AND t.deadline >= %d AND t.deadline <= %d + (SELECT {now})
    ORDER BY t.deadline LIMIT :limit"""
DUE_TIMERS = " UNION ALL ".join(f"SELECT * FROM ({_DUE_TIMERS % (lane.offset, lane.offset)}) {lane}" for lane in Lane)
DUE_TIMERS_NEWEST = DUE_TIMERS.replace("ORDER BY t.deadline", "ORDER BY t.deadline DESC")
LEASES_AHEAD = """SELECT (SELECT {now}), t.run_id, t.path, u.doc AS header, a.doc FROM {timers} t
    {of runs u run_id=t.run_id} {of activations a run_id=t.run_id path=t.path}
    WHERE t.namespace = :namespace AND t.deadline > CAST(:offset AS bigint) + (SELECT {now})
    AND t.deadline <= CAST(:offset AS bigint) + (SELECT {now}) + CAST(:ahead AS bigint)
    AND a.status = 'running' ORDER BY t.deadline DESC LIMIT :limit"""
DROP_TIMERS_DUE = """DELETE FROM {timers} WHERE run_id = :run AND path {in paths}
    AND deadline % :width <= (SELECT {now})"""
SET_ASIDE = """UPDATE {timers} SET deadline = deadline - deadline % :width + (SELECT {now}) + :delay
    WHERE run_id = :run AND path = :path AND deadline % :width <= (SELECT {now})"""
MAKE_SCHEDULER = """INSERT INTO {schedulers} (namespace, holder, until, last, steady_since, ahead)
    VALUES (:namespace, '', 0, 0, 0, 0)
    ON CONFLICT (namespace) DO NOTHING"""
LOCK_SCHEDULER = """SELECT holder, until, last, steady_since, ahead FROM {schedulers}
    WHERE namespace = :namespace {lock}"""
SCHEDULER = "SELECT {now}, holder, until, last, steady_since, ahead FROM {schedulers} WHERE namespace = :namespace"
TAKE_SWEEP = """UPDATE {schedulers} SET holder = :holder, until = :until, last = :last, steady_since = :steady_since,
    ahead = :ahead WHERE namespace = :namespace"""
HEARTBEAT = """INSERT INTO {workers} (namespace, worker, until) VALUES (:namespace, :worker, {now} + :ttl)
    ON CONFLICT (namespace, worker) DO UPDATE SET until = excluded.until"""
FORGET_WORKERS = """DELETE FROM {workers} WHERE namespace = :namespace AND worker <> :worker
    AND until < (SELECT {now}) - 3600000"""
WORKERS = """SELECT worker FROM {workers} WHERE namespace = :namespace AND until > (SELECT {now})
    ORDER BY worker"""

EXISTS = "SELECT to_regclass(CAST(:name AS TEXT)) IS NOT NULL"
FORMAT = "SELECT value FROM {meta} WHERE name = 'format'"

_PLACE = "\0"  # no statement has one, nor has a name
_BRACES = re.compile(r"\{(\w+)([^}]*)\}")
_PARAMETER = re.compile(r":(\w+)")
_STATUSES = tuple(status.value for status in StoredStatus)


def list_runs(filters: Collection[str], awaiting: bool = False) -> str:
    """Return the statement for a page of runs, newest first, whose columns `filters` have the given values.

    With `awaiting` only those in which something is awaited: each index is there once more, of those alone.

    Without a status, the newest of each status are merged: so every list is found by an index that has the status in
    it, and there need be none for every combination. What goes wrong otherwise: the planner takes any index in the
    order of creation, and walks along it in search of a status that no run has.
    """
    if "status" in filters:
        return _PAGE % (_NEWEST % _where(filters, awaiting))
    each = (
        f"SELECT * FROM ({_NEWEST % _where((*filters, 'status'), awaiting, quoted_text(status))}) {status}"
        for status in _STATUSES
        if not (awaiting and status in FINAL)
    )
    return _PAGE % " UNION ALL ".join(each)


def count_runs(filters: Collection[str], awaiting: bool = False) -> str:
    """Return the statement that counts the runs that `list_runs` finds."""
    return _COUNT % _where(filters, awaiting)


def _where(filters: Collection[str], awaiting: bool, status: str = ":status") -> str:
    given = (f"{name} = {status if name == 'status' else f':{name}'}" for name in filters)
    # A literal, since the planner does not take a partial index for a parameter.
    return " AND ".join([*given, *["awaiting = 1"] * awaiting]) or "true"


def quoted_text(text: str) -> str:
    """Return a text as SQL writes it."""
    return "'{}'".format(text.replace("'", "''"))


def quoted(name: str) -> str:
    """Return a name as SQL writes it."""
    return '"{}"'.format(name.replace('"', '""'))


class Dialect(ABC):
    """One database's way to write the words in braces."""

    now: str
    lock: str
    lock_free: str

    def __init__(self, schema: str | None = None) -> None:
        self.place = f"{quoted(schema)}." if schema else ""
        self._written: dict[str, str] = {}

    def write(self, query: str) -> str:
        """Return the statement for this database; written once."""
        written = self._written.get(query)
        if written is None:
            written = self._written[query] = self.with_places(self.with_words(query))
        return written

    def with_words(self, query: str) -> str:
        """Return the statement, with a mark where the name of the schema belongs.

        The name goes in last: whatever it has that looks like a parameter or a word in braces is a part of the name.
        """
        return _PARAMETER.sub(lambda found: self.parameter(found[1]), _BRACES.sub(self._word, query))

    def with_places(self, written: str) -> str:
        """Put the name of the schema in the place of its marks."""
        return written.replace(_PLACE, self.place)

    def full_name(self, table: str) -> str:
        """Return the name of a table with that of its schema."""
        return f"{self.place}{PREFIX}{table}"

    def _word(self, found: re.Match[str]) -> str:
        word, arguments = found[1], found[2].split()
        match word:
            case "now":
                return self.now
            case "lock":
                return self.lock_free if arguments else self.lock
            case "in":
                return self.one_of(arguments[0])
            case "find":
                return self.find(self.table(arguments[0]), *arguments[1:])
            case "below":
                return self.find_below(self.table(arguments[0]), *arguments[1:])
            case "pairs":
                return self.find_pairs(self.table(arguments[0]), *arguments[1:])
            case "of":
                table, name, *keys = arguments
                return self.row_of(self.table(table), name, dict(key.split("=") for key in keys))
            case "rows":
                return self.rows(arguments)
            case _:
                return self.table(word)

    def table(self, name: str) -> str:
        """Return a table's full name."""
        if name not in NAMES:
            raise ValueError(f"no such word: {name}")
        return f"{_PLACE}{PREFIX}{name}"

    @abstractmethod
    def parameter(self, name: str) -> str:
        """The place of a parameter."""

    @abstractmethod
    def one_of(self, name: str) -> str:
        """`… is one of` the parameter's list."""

    @abstractmethod
    def find(self, table: str, column: str, name: str) -> str:
        """The rows `t` of the table whose `run_id` is the parameter `run`, and `column` one of the parameter's list."""

    @abstractmethod
    def find_below(self, table: str, name: str, flag: str) -> str:
        """The rows `t` of the run in the parameter `run` with this flag, at or below one of the paths in the list."""

    @abstractmethod
    def find_pairs(self, table: str, runs: str, paths: str) -> str:
        """The rows `t` of the table with these pairs of run and path, from two lists of equal length."""

    @abstractmethod
    def row_of(self, table: str, name: str, keys: Mapping[str, str]) -> str:
        """A join with the one row of the table that has these keys, which columns before it give."""

    @abstractmethod
    def rows(self, types: list[str]) -> str:
        """The rows of an insert, as a source to insert from."""


class Sqlite(Dialect):
    """Lists travel as JSON; the clock is a function that the connection is given."""

    now = "orchestrator_now()"
    lock = ""
    lock_free = ""

    def parameter(self, name: str) -> str:
        return f":{name}"

    def one_of(self, name: str) -> str:
        return f"IN (SELECT value FROM json_each(:{name}))"

    def find(self, table: str, column: str, name: str) -> str:
        return f"{table} t WHERE t.run_id = :run AND t.{column} {self.one_of(name)}"

    def find_below(self, table: str, name: str, flag: str) -> str:
        return f"json_each(:{name}) w CROSS JOIN {table} t ON {_below('t', 'w.value', flag)}"

    def find_pairs(self, table: str, runs: str, paths: str) -> str:
        lists = f"json_each(:{runs}) x JOIN json_each(:{paths}) y ON y.key = x.key"
        return f"{lists} JOIN {table} t ON t.run_id = x.value AND t.path = y.value"

    def row_of(self, table: str, name: str, keys: Mapping[str, str]) -> str:
        # CROSS: the order of the tables is as it is written.
        return f"CROSS JOIN {table} {name} ON " + " AND ".join(f"{name}.{key} = {of}" for key, of in keys.items())

    def rows(self, types: list[str]) -> str:
        return f"VALUES ({', '.join('?' * len(types))})"


class Postgres(Dialect):
    """Lists travel as arrays; one for each column of an insert."""

    now = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"
    lock = "FOR UPDATE"
    lock_free = "FOR UPDATE SKIP LOCKED"

    def __init__(self, schema: str | None = None) -> None:
        super().__init__(schema)
        self._statements: dict[str | tuple[str, ...], bytes] = {}

    def statement(self, query: str) -> bytes:
        """Return the query with psycopg's placeholders; written once."""
        made = self._statements.get(query)
        if made is None:
            made = self._statements[query] = self._with_placeholders(query).encode()
        return made

    def merged(self, queries: tuple[str, ...]) -> bytes:
        """Return one statement that carries out all of these writes; the parameters are called `<place>_<name>`.

        PostgreSQL shows all of them the tables as they were before: no write sees another one, and a row that two
        of them wrote would be written by one of the two.
        """
        made = self._statements.get(queries)
        if made is None:
            *first, last = (self._with_placeholders(query, f"{place}_") for place, query in enumerate(queries))
            beside = ", ".join(f"w{place} AS ({text})" for place, text in enumerate(first))
            made = self._statements[queries] = (f"WITH {beside} {last}" if first else last).encode()
        return made

    def _with_placeholders(self, query: str, prefix: str = "") -> str:
        escaped = self.with_words(query).replace("%", "%%")
        marked = _PARAMETER.sub(lambda found: f"%({prefix}{found[1]})s", escaped)
        return marked.replace(_PLACE, self.place.replace("%", "%%"))

    def parameter(self, name: str) -> str:
        return f":{name}"

    def one_of(self, name: str) -> str:
        return f"= ANY(CAST(:{name} AS text[]))"

    def find(self, table: str, column: str, name: str) -> str:
        keys = f"unnest(CAST(:{name} AS text[])) AS w(key)"
        return f"{keys} {_one(table, 't', {'run_id': ':run', column: 'w.key'})}"

    def find_below(self, table: str, name: str, flag: str) -> str:
        rows = (
            f"SELECT * FROM {table} r WHERE {_below('r', 'w.key', flag)} OFFSET 0"  # else it would read them all once
        )
        return f"unnest(CAST(:{name} AS text[])) AS w(key) CROSS JOIN LATERAL ({rows}) t"

    def find_pairs(self, table: str, runs: str, paths: str) -> str:
        pairs = f"unnest(CAST(:{runs} AS text[]), CAST(:{paths} AS text[])) AS w(run, path)"
        return f"{pairs} {_one(table, 't', {'run_id': 'w.run', 'path': 'w.path'})}"

    def row_of(self, table: str, name: str, keys: Mapping[str, str]) -> str:
        return _one(table, name, keys)

    def rows(self, types: list[str]) -> str:
        return f"SELECT * FROM unnest({', '.join(f'CAST(:{place} AS {name}[])' for place, name in enumerate(types))})"


def _one(table: str, name: str, keys: Mapping[str, str]) -> str:
    """Look one row up for each row before it, by an index that has all the keys. A plain join would not: see above."""
    where = " AND ".join(f"{key} = {of}" for key, of in keys.items())
    return f"CROSS JOIN LATERAL (SELECT * FROM {table} WHERE {where} LIMIT 1) {name}"


def _below(row: str, path: str, flag: str) -> str:
    """The condition that a row is at this path or below it. Paths are digits and dots, and "/" comes after the dot."""
    return f"{row}.run_id = :run AND {row}.{flag} = 1 AND {row}.path >= {path} AND {row}.path < {path} || '/'"
