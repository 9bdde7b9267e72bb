"""The tables as they are now. What made them so is in `migrations`; a test compares the two.

Documents are text that the database never looks into. The few columns beside them are there to be searched. Nothing
that changes with each step has an index, except the moments of the due entries, which have a narrow table of their own.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text, text
from sqlalchemy.types import TypeEngine

FORMAT = 3  # of the newest script in `migrations`; stored, and compared at first use
PREFIX = "orchestrator_"
NAMES = ("runs", "records", "values", "state", "context", "events", "mail", "requests", "due", "tickers", "workers", "meta")
OF_A_RUN = ("records", "values", "state", "context", "events", "mail", "requests", "due", "runs")
VERSION_TABLE = PREFIX + "version"

metadata = MetaData()

# Names are compared byte by byte, as Python does, and not by a language's rules.
NAME: TypeEngine[str] = Text().with_variant(Text(collation="C"), "postgresql")

_BUSY = {"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.02, "autovacuum_vacuum_threshold": 500}
# An entry comes and goes with every step; the sweep reads over the dead ones until they are cleared away.
_FLEETING = {
    "fillfactor": 70,
    "autovacuum_vacuum_scale_factor": 0.01,
    "autovacuum_vacuum_threshold": 200,
    "autovacuum_vacuum_cost_delay": 0,
}


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


runs = Table(
    PREFIX + "runs",
    metadata,
    _key("run_id"),
    _name("namespace"),
    _name("workflow_id"),
    _name("resource_id"),
    _name("status"),
    _number("created_at"),
    _number("updated_at"),
    _number("rests"),
    _number("events"),  # how many there are: the next one's number is taken under the lock of this row
    _text("doc"),
    _moment("followed"),  # until when somebody reads the events as they come: then a commit rings
    _moment("awaited"),  # until when somebody waits for the run to rest
    Index(PREFIX + "runs_created", "created_at"),
    Index(PREFIX + "runs_workflow", "workflow_id", "created_at"),
    Index(PREFIX + "runs_status", "status", "created_at"),
    Index(PREFIX + "runs_resource", "resource_id", "created_at"),
    postgresql_with=_BUSY,
)

records = Table(
    PREFIX + "records",
    metadata,
    _key("run_id"),
    _key("path"),
    _name("status"),
    # 1 where it waits for somebody outside. A column of its own: each step would touch an index that named the status.
    Column("held", Integer, nullable=False),
    _text("doc"),
    Index(
        PREFIX + "records_held",
        "run_id",
        postgresql_where=text("held = 1"),
        sqlite_where=text("held = 1"),
    ),
    postgresql_with=_BUSY,
)

values = Table(PREFIX + "values", metadata, _key("run_id"), _key("id"), _text("text"))
state = Table(PREFIX + "state", metadata, _key("run_id"), _key("key"), _text("text"))
context = Table(PREFIX + "context", metadata, _key("run_id"), _key("key"), _text("text"))
events = Table(PREFIX + "events", metadata, _key("run_id"), _number("number", key=True), _number("at"), _text("doc"))
mail = Table(PREFIX + "mail", metadata, _key("run_id"), _key("name"), _number("number", key=True), _name("value"))
# What the last callers were answered, but for the very last, whose answer is in the header.
requests = Table(PREFIX + "requests", metadata, _key("run_id"), _key("id"), _number("at"), _text("reply"))

due = Table(
    PREFIX + "due",
    metadata,
    _key("run_id"),
    _key("path"),
    _name("namespace"),
    _number("due"),
    Index(PREFIX + "due_moment", "namespace", "due"),
    sqlite_with_rowid=False,
    postgresql_with=_FLEETING,
)

tickers = Table(
    PREFIX + "tickers",
    metadata,
    _key("namespace"),
    _name("holder"),
    _number("until"),
    _number("last"),
    _moment("steady_since"),  # since when somebody has looked without a pause
    _moment("ahead"),  # what the clock showed before it stepped back
)
workers = Table(PREFIX + "workers", metadata, _key("namespace"), _key("worker"), _number("until"))
meta = Table(PREFIX + "meta", metadata, _key("name"), _number("value"))
