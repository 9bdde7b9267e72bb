"""Keeps what Django's tests start out of the project's real database.

For its tests Django makes another database and points its own connections there. A store that has the real one's URL
would stay where it is, and keep what the tests do beside the runs of production.

Nothing here imports Django: a project that uses it has done so.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.engine.django_threads import has_django

_LOCAL = frozenset({"", "localhost", "127.0.0.1", "::1"})
_MADE_FOR_TESTS = re.compile(r"test_(?P<name>.+?)(?P<worker>_(gw)?\d+)?")  # with the number of a parallel process


class _Place(NamedTuple):
    vendor: str
    host: str
    port: int
    name: str


# By alias, as the settings had them first. Django writes the names of the tests' databases over them.
_first: dict[str, _Place] = {}


def remember_databases() -> None:
    """Note the databases of the project, once its settings are known. Called early and again: the first time counts."""
    if not _first and has_django():
        _first.update((alias, place) for alias, place, _ in _configured())


def refuse_real_database(url: object, setting: str) -> None:
    """Raise ValueError where Django's tests run and the URL names a database that they leave alone.

    `setting` is where the URL comes from.
    """
    if not isinstance(url, str) or not has_django() or not _is_tested():
        return
    mine = _place_of_url(url)
    for alias, place, chosen in _configured():
        if mine is None or mine.name == chosen:
            continue
        first = _first.get(alias, place)
        if mine in (_guesses(place) if first == place else [first]) or (mine != place and _is_migrated(mine)):
            raise ValueError(
                f"{setting} names the real database of Django's {alias!r}, and Django's tests are running, which have "
                f"another one: in the settings for tests, set {setting} to 'memory://' with eager mode, or to a "
                "database of its own"
            )


def _is_tested() -> bool:
    # Django's runner and pytest-django make it at their start, and remove it at their end.
    return hasattr(sys.modules.get("django.core.mail"), "outbox")


def _configured() -> Iterator[tuple[str, _Place, str | None]]:
    """Yield the alias and the place of each database in the settings, and the name that they choose for tests."""
    databases: dict[str, Any] = sys.modules["django.conf"].settings.DATABASES
    for alias, given in databases.items():
        engine, name = str(given.get("ENGINE", "")), str(given.get("NAME") or "")
        chosen = (given.get("TEST") or {}).get("NAME")
        if engine.endswith((".sqlite3", ".spatialite")):
            yield alias, _sqlite(name), chosen and _sqlite(str(chosen)).name
        elif engine.endswith((".postgresql", ".postgis")):
            yield alias, _postgres(given.get("HOST"), given.get("PORT"), name), chosen


def _is_migrated(place: _Place) -> bool:
    """Return True for an SQLite file that Django has migrated; what its name was cannot be seen from that of a test."""
    if place.vendor != "sqlite" or not Path(place.name).is_file():
        return False
    from orchestrator.stores.sql.sqlite import has_table

    return has_table(Path(place.name), "django_migrations")


def _guesses(place: _Place) -> list[_Place]:
    """Return what the real database may be of a test's, where it was never seen: Django only adds to the name."""
    found = _MADE_FOR_TESTS.fullmatch(place.name)
    if found is None:
        return [place]
    return [place._replace(name=name) for name in (found["name"], found["name"] + (found["worker"] or ""))]


def _place_of_url(url: str) -> _Place | None:
    if not url.startswith(("sqlite", "postgres")):
        return None
    from orchestrator.stores.sql.urls import parse_url

    read = parse_url(url)
    if read.get_backend_name() == "sqlite":
        return _sqlite(read.database or "")
    return _postgres(read.host or read.query.get("host"), read.port or read.query.get("port"), read.database)


def _postgres(host: Any, port: Any, name: Any) -> _Place:
    text = str(host or "")
    where = "localhost" if text in _LOCAL or text.startswith("/") else text.lower()
    return _Place("postgresql", where, int(port or 5432), str(name or ""))


def _sqlite(name: str) -> _Place:
    is_file = name and not name.startswith((":", "file:"))
    return _Place("sqlite", "", 0, str(Path(name).resolve()) if is_file else name)
