"""The URLs of the SQL stores, and the databases that they name."""

from __future__ import annotations

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from orchestrator.stores.sql.link import Connections

_SECRETS = frozenset({"password", "sslpassword"})


def parse_url(url: str) -> URL:
    """Read a URL. Raises ValueError, which does not show it."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError("the store's URL cannot be read (it is not shown: it may hold a password)") from None
    if "@" in (parsed.host or ""):  # the end of the password would be shown as the server's name
        raise ValueError("the store's URL has two '@' before its server: write one that is in a password as %40")
    return parsed


def hide_secrets(url: URL) -> str:
    """Return the URL as it may be shown."""
    query = {key: "***" if key in _SECRETS else value for key, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True)


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
