"""The URLs of the SQL stores, and the databases that they name."""

from __future__ import annotations

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from orchestrator.safe_text import masked_url
from orchestrator.stores.sql.link import Connections


def parse_url(url: str) -> URL:
    """Read a URL. Raises ValueError, which does not show it."""
    hint = "the store's URL cannot be read (it is not shown: it may hold a password)"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError(f"{hint}: write special characters of the password as %40 for @, for example") from None
    # What follows an `@` or a `/` of the password would be taken for the host or the database, and shown.
    if "@" in f"{parsed.host or ''}{parsed.database or ''}" and parsed.get_backend_name() != "sqlite":
        raise ValueError(f"{hint}: write special characters of the password as %40 for @, for example")
    # What hosts give as DATABASE_URL is libpq's older name of the same.
    return parsed.set(drivername="postgresql") if parsed.drivername == "postgres" else parsed


def hide_secrets(url: URL) -> str:
    """Return the URL as it may be shown."""
    return masked_url(url.render_as_string(hide_password=False))


def open_connections(url: URL, shown: str, schema: str | None) -> Connections:
    """Return the connections to the database that the URL names; none is opened yet."""
    match url.get_backend_name():
        case "sqlite":
            from orchestrator.stores.sql.sqlite import SqliteConnections

            if schema:
                raise ValueError("SQLite has no schemas: name another file")
            return SqliteConnections(url, shown)
        case "postgresql":
            from orchestrator.stores.sql.postgres import PostgresConnections

            return PostgresConnections(url, shown, schema)
        case other:
            raise ValueError(f"a store in {other} is not supported: use sqlite:///… or postgresql://…")
