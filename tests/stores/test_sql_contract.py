"""The SQL store keeps the contract of every store, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.ports import Store
from orchestrator.stores.sql import SqlStore
from orchestrator.testing.contract import StoreContract
from tests.servers import PostgresServer


class TestSqlite(StoreContract):
    """The contract, for runs in a file."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = SqlStore(f"sqlite:///{tmp_path / 'store.db'}")
        yield store
        store.close()


class TestPostgres(StoreContract):
    """The contract, for runs in one schema of a server, whose tables are made once."""

    @pytest.fixture
    def store(self, postgres_server: PostgresServer) -> Iterator[Store]:
        store = SqlStore(postgres_server.url(), schema="contract")
        yield store
        store.close()
