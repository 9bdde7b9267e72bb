"""All statements of the store, by name, and how each is written for a database.

A statement stands here once, with words in braces where the databases differ:

* `{runs}`: a table's full name; `{now}`: the store's clock, in ms; `{lock}`: locks the row until the transaction ends;
* `{in paths}`: is one of the list in the parameter; `{zip a b}`: two lists side by side, as rows `w(a, b)`;
* `{rows text int}`: the rows that the statement is given, all in one message.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

from orchestrator.rules.timers import Lane
from orchestrator.stores.sql.tables import NAMES, OF_A_RUN, PREFIX

# -- changes ----------------------------------------------------------------------------------------------------------

LOCK = "SELECT doc, events, followed_until, settle_awaited_until FROM {runs} WHERE run_id = :run {lock}"
LOCK_MANY = "SELECT run_id, doc FROM {runs} WHERE run_id {in runs} ORDER BY run_id {lock}"
# A statement of its own after the lock: only then does it see what the last holder wrote, and is its clock not behind.
READ = """SELECT 'clock', '', CAST({now} AS TEXT)
    UNION ALL SELECT 'activation', path, doc FROM {activations} WHERE run_id = :run AND path {in paths}"""
READ_PAIRS = """SELECT 'clock', '', '', CAST({now} AS TEXT)
    UNION ALL SELECT 'activation', a.run_id, a.path, a.doc FROM {zip runs paths}
    JOIN {activations} a ON a.run_id = w.a AND a.path = w.b"""
PACKAGE = """SELECT 'value', id, text FROM {values} WHERE run_id = :run AND id {in ids}
    UNION ALL SELECT 'state', key, text FROM {state} WHERE run_id = :run
    UNION ALL SELECT 'context', key, text FROM {context} WHERE run_id = :run"""

UPDATE_RUN = """UPDATE {runs} SET workflow_id = :workflow_id, resource_id = :resource_id, status = :status,
    updated_at = :updated_at, settle_count = :settle_count, events = :events, doc = :doc WHERE run_id = :run"""
INSERT_RUN = """INSERT INTO {runs} (run_id, namespace, workflow_id, resource_id, status, created_at, updated_at,
    settle_count, events, doc) VALUES (:run, :namespace, :workflow_id, :resource_id, :status, :updated_at, :updated_at,
    :settle_count, 0, :doc) ON CONFLICT (run_id) DO NOTHING"""
PUT_ACTIVATIONS = """INSERT INTO {activations} (run_id, path, status, awaiting, doc) {rows text text text int text}
    ON CONFLICT (run_id, path)
    DO UPDATE SET status = excluded.status, awaiting = excluded.awaiting, doc = excluded.doc"""
DROP_ACTIVATIONS = "DELETE FROM {activations} WHERE run_id = :run AND path {in paths}"
PUT_TIMERS = """INSERT INTO {timers} (run_id, path, namespace, deadline) {rows text text text bigint}
    ON CONFLICT (run_id, path) DO UPDATE SET namespace = excluded.namespace, deadline = excluded.deadline"""
DROP_TIMERS = "DELETE FROM {timers} WHERE run_id = :run AND path {in paths}"
PUT_VALUES = "INSERT INTO {values} (run_id, id, text) {rows text text text} ON CONFLICT (run_id, id) DO NOTHING"
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
PUSH_TO_MAILBOX = """INSERT INTO {mailboxes} (run_id, name, number, value)
    SELECT CAST(:run AS TEXT), CAST(:name AS TEXT), coalesce(max(number), 0) + 1, CAST(:value AS TEXT)
    FROM {mailboxes} WHERE run_id = :run AND name = :name"""
POP_FROM_MAILBOX = """DELETE FROM {mailboxes} WHERE run_id = :run AND name = :name AND number =
    (SELECT min(number) FROM {mailboxes} WHERE run_id = :run AND name = :name AND value = :value)"""
PUT_REPLY = """INSERT INTO {requests} (run_id, id, at, reply) {rows text text bigint text}
    ON CONFLICT (run_id, id) DO NOTHING"""
DROP_REPLIES = "DELETE FROM {requests} WHERE run_id = :run AND at <= :old"
DELETE_RUN = tuple(f"DELETE FROM {{{table}}} WHERE run_id = :run" for table in OF_A_RUN)

# -- reads ------------------------------------------------------------------------------------------------------------

CLOCK = "SELECT {now}"
HEADER = "SELECT doc FROM {runs} WHERE run_id = :run"
SETTLE_COUNT = "SELECT settle_count FROM {runs} WHERE run_id = :run"
ACTIVATIONS = "SELECT doc FROM {activations} WHERE run_id = :run"
ACTIVATIONS_AT = "SELECT doc FROM {activations} WHERE run_id = :run AND path {in paths}"
AWAITING_ACTIVATIONS = "SELECT doc FROM {activations} WHERE run_id = :run AND awaiting = 1"
VALUES = "SELECT id, text FROM {values} WHERE run_id = :run AND id {in ids}"
MAILBOX = "SELECT value FROM {mailboxes} WHERE run_id = :run AND name = :name ORDER BY number"
REPLY = "SELECT reply FROM {requests} WHERE run_id = :run AND id = :id"
STATE = "SELECT key, text FROM {state} WHERE run_id = :run"
CONTEXT = "SELECT key, text FROM {context} WHERE run_id = :run"
EVENTS = """SELECT number, at, doc FROM {events} WHERE run_id = :run AND number > :after
    ORDER BY number LIMIT :limit"""
FOLLOW_EVENTS = "UPDATE {runs} SET followed_until = {now} + :ttl WHERE run_id = :run"
AWAIT_SETTLING = "UPDATE {runs} SET settle_awaited_until = {now} + :ttl WHERE run_id = :run"
NEWEST = "SELECT events FROM {runs} WHERE run_id = :run"
RUNS = "SELECT run_id, doc FROM {runs} WHERE %s ORDER BY created_at DESC, run_id DESC LIMIT :limit OFFSET :offset"
COUNT = "SELECT count(*) FROM {runs} WHERE %s"

# -- the scheduler's --------------------------------------------------------------------------------------------------

# The clock stands in a subquery so that it is asked once and the index can be used.
# `deadline` is the place of the timer: its lane's offset and its moment.
_DUE_TIMERS = """SELECT t.deadline, t.run_id, t.path, u.doc AS header, a.doc FROM {timers} t
    JOIN {runs} u ON u.run_id = t.run_id JOIN {activations} a ON a.run_id = t.run_id AND a.path = t.path
    WHERE t.namespace = :namespace AND t.deadline >= %d AND t.deadline <= %d + (SELECT {now})
    ORDER BY t.deadline LIMIT :limit"""
DUE_TIMERS = " UNION ALL ".join(f"SELECT * FROM ({_DUE_TIMERS % (lane.offset, lane.offset)}) {lane}" for lane in Lane)
DUE_TIMERS_NEWEST = DUE_TIMERS.replace("ORDER BY t.deadline", "ORDER BY t.deadline DESC")
LEASES_AHEAD = """SELECT (SELECT {now}), t.run_id, t.path, u.doc AS header, a.doc FROM {timers} t
    JOIN {runs} u ON u.run_id = t.run_id JOIN {activations} a ON a.run_id = t.run_id AND a.path = t.path
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
TAKE_SWEEP = """UPDATE {schedulers} SET holder = :holder, until = :until, last = :last, steady_since = :steady_since,
    ahead = :ahead WHERE namespace = :namespace"""
HEARTBEAT = """INSERT INTO {workers} (namespace, worker, until) VALUES (:namespace, :worker, {now} + :ttl)
    ON CONFLICT (namespace, worker) DO UPDATE SET until = excluded.until"""
FORGET_WORKERS = "DELETE FROM {workers} WHERE namespace = :namespace AND until < (SELECT {now}) - 3600000"
WORKERS = """SELECT worker FROM {workers} WHERE namespace = :namespace AND until > (SELECT {now})
    ORDER BY worker"""

EXISTS = "SELECT to_regclass(CAST(:name AS TEXT)) IS NOT NULL"
FORMAT = "SELECT value FROM {meta} WHERE name = 'format'"

_PLACE = "\0"  # no statement has one, nor has a name
_BRACES = re.compile(r"\{(\w+)([^}]*)\}")
_PARAMETER = re.compile(r":(\w+)")


def quoted(name: str) -> str:
    """Return a name as SQL writes it."""
    return '"{}"'.format(name.replace('"', '""'))


class Dialect(ABC):
    """One database's way to write the words in braces."""

    now: str
    lock: str

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
                return self.lock
            case "in":
                return self.one_of(arguments[0])
            case "zip":
                return self.side_by_side(*arguments)
            case "rows":
                return self.rows(arguments)
            case _ if word in NAMES:
                return f"{_PLACE}{PREFIX}{word}"
            case _:
                raise ValueError(f"no such word: {word}")

    @abstractmethod
    def parameter(self, name: str) -> str:
        """The place of a parameter."""

    @abstractmethod
    def one_of(self, name: str) -> str:
        """`… is one of` the parameter's list."""

    @abstractmethod
    def side_by_side(self, first: str, second: str) -> str:
        """A table `w(a, b)` of two lists of equal length."""

    @abstractmethod
    def rows(self, types: list[str]) -> str:
        """The rows of an insert, as a source to insert from."""


class Sqlite(Dialect):
    """Lists travel as JSON; the clock is a function that the connection is given."""

    now = "orchestrator_now()"
    lock = ""

    def parameter(self, name: str) -> str:
        return f":{name}"

    def one_of(self, name: str) -> str:
        return f"IN (SELECT value FROM json_each(:{name}))"

    def side_by_side(self, first: str, second: str) -> str:
        lists = f"json_each(:{first}) x JOIN json_each(:{second}) y ON y.key = x.key"
        return f"(SELECT x.value AS a, y.value AS b FROM {lists}) w"

    def rows(self, types: list[str]) -> str:
        return f"VALUES ({', '.join('?' * len(types))})"


class Postgres(Dialect):
    """Lists travel as arrays; one for each column of an insert."""

    now = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"
    lock = "FOR UPDATE"

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

    def side_by_side(self, first: str, second: str) -> str:
        return f"unnest(CAST(:{first} AS text[]), CAST(:{second} AS text[])) AS w(a, b)"

    def rows(self, types: list[str]) -> str:
        return f"SELECT * FROM unnest({', '.join(f'CAST(:{place} AS {name}[])' for place, name in enumerate(types))})"
