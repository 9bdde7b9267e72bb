"""The SQL store writes the answer of `rules.apply` as the memory store does.

The two call the same function, so what is compared is what they read for it and how they keep its answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.stores.memory import MemoryStore
from orchestrator.stores.sql import SqlStore
from orchestrator.testing import VirtualClock
from tests.properties.wild import Wild
from tests.servers import PostgresServer


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def sql_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlStore]:
    """On PostgreSQL the writes of a change are one statement, in which none sees another."""
    if request.param == "sqlite":
        place: Path = tmp_path_factory.mktemp("alike") / "store.db"
        store = SqlStore(f"sqlite:///{place}")
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        store = SqlStore(server.url(), schema="alike")
    yield store
    store.close()


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_change_is_written_alike(sql_store: SqlStore, data: st.DataObject) -> None:
    """Activations, counts, texts, mailboxes, timers, listings and events, after any operations in any order."""
    run = Wild(MemoryStore(VirtualClock()), sql_store, data.draw)
    run.begin()
    run.go_on()
