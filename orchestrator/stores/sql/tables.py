"""The tables as they are now. What made them so is in `migrations`; a test compares the two.

Documents are text that the database never looks into. The few columns beside them are there to be searched. Nothing
that changes with each step has an index, except the deadlines of timers, which have a narrow table of their own. How
PostgreSQL stores the tables that are written most is said by the migrations alone: SQLAlchemy 2.0 has no words for it.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text, text
from sqlalchemy.types import TypeEngine

FORMAT = 4  # of the newest script in `migrations`; stored, and compared at first use
FIRST_FORMAT = 4  # of the first script: 1 to 3 were those of development versions, whose documents nobody can read
PREFIX = "orchestrator_"
OF_A_RUN = ("activations", "values", "state", "context", "events", "mailboxes", "requests", "timers", "runs")
NAMES = (*OF_A_RUN, "schedulers", "workers", "meta")
VERSION_TABLE = PREFIX + "version"
# Where PostgreSQL has counted many runs of few rows each, it takes the rows of any run to be few, and reads all of them
# to find one by its path. With as many runs as it assumes of a new table, it goes by the whole key.
ASSUMED_RUNS = 200
OF_MANY_ROWS = tuple(name for name in OF_A_RUN if name != "runs")

metadata = MetaData()

# Names are compared byte by byte, as Python does, and not by a language's rules.
NAME: TypeEngine[str] = Text().with_variant(Text(collation="C"), "postgresql")


def _key(name: str, type_: TypeEngine[str] = NAME) -> Column[str]:
    return Column(name, type_, primary_key=True, nullable=False)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _name(name: str) -> Column[str]:
    return Column(name, NAME, nullable=False)


def _number(name: str, *, key: bool = False) -> Column[int]:
    return Column(name, BigInteger, primary_key=key, nullable=False, autoincrement=False)


def _moment(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


def _index_runs(name: str, *columns: str) -> tuple[Index, Index]:
    """Return an index of all runs, and the same of those in which something is awaited."""
    order = (*columns, "status", "created_at", "run_id")
    where = text("awaiting = 1")
    few = Index(f"{PREFIX}runs_{name}_awaiting", *order, postgresql_where=where, sqlite_where=where)
    return Index(f"{PREFIX}runs_{name}", *order), few


runs = Table(
    PREFIX + "runs",
    metadata,
    _key("run_id"),
    _name("namespace"),
    _name("workflow_id"),
    _name("resource_id"),
    _name("status"),
    Column("awaiting", Integer, nullable=False),  # 1 where something in the run is awaited, whatever its status is
    _number("created_at"),
    _number("updated_at"),
    _number("settle_count"),
    _number("events"),  # how many there are: the next one's number is taken under the lock of this row
    _text("doc"),
    _moment("followed_until"),  # readers follow the events until then, so that commits notify them
    _moment("settle_awaited_until"),  # the same for callers that wait for the run to settle
    # Every list is found status by status (`queries.list_runs`).
    *_index_runs("status"),
    *_index_runs("workflow", "workflow_id"),
    *_index_runs("resource", "resource_id"),
)

activations = Table(
    PREFIX + "activations",
    metadata,
    _key("run_id"),
    _key("path"),
    _name("status"),
    # 1 for an awaiting status. A column of its own: every step would write to an index that named the status.
    Column("awaiting", Integer, nullable=False),
    _name("label"),
    _text("doc"),
    Index(
        PREFIX + "activations_awaiting",
        "run_id",
        "path",
        postgresql_where=text("awaiting = 1"),
        sqlite_where=text("awaiting = 1"),
    ),
    Index(
        PREFIX + "activations_label",
        "run_id",
        "label",
        postgresql_where=text("awaiting = 1 AND label <> ''"),
        sqlite_where=text("awaiting = 1 AND label <> ''"),
    ),
)

values = Table(PREFIX + "values", metadata, _key("run_id"), _key("id"), _text("text"))
state = Table(PREFIX + "state", metadata, _key("run_id"), _key("key"), _text("text"))
context = Table(PREFIX + "context", metadata, _key("run_id"), _key("key"), _text("text"))
events = Table(PREFIX + "events", metadata, _key("run_id"), _number("number", key=True), _number("at"), _text("doc"))
mailboxes = Table(PREFIX + "mailboxes", metadata, _key("run_id"), _key("name"), _key("entry"))
# Replies to the requests of callers, but for the very last, whose reply is in the header.
requests = Table(
    PREFIX + "requests",
    metadata,
    _key("run_id"),
    _key("id"),
    _number("at"),
    _text("reply"),
    Index(PREFIX + "requests_moment", "run_id", "at"),
)

timers = Table(
    PREFIX + "timers",
    metadata,
    _key("run_id"),
    _key("path"),
    _name("namespace"),
    _number("deadline"),
    Index(PREFIX + "timers_deadline", "namespace", "deadline"),
    sqlite_with_rowid=False,
)

schedulers = Table(
    PREFIX + "schedulers",
    metadata,
    _key("namespace"),
    _name("holder"),
    _number("until"),
    _number("last"),
    _number("steady_since"),  # since when schedulers have asked without a pause
    _number("ahead"),  # the moment that the clock had shown when it went back
)
workers = Table(PREFIX + "workers", metadata, _key("namespace"), _key("worker"), _number("until"))
meta = Table(PREFIX + "meta", metadata, _key("name"), _number("value"))
