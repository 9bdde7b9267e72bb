"""The Redis store keeps the contract of all stores, on a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.stores.redis import RedisStore
from orchestrator.testing import StoreContract
from tests.servers import RedisServer


class TestRedisStore(StoreContract):
    @pytest.fixture
    def store(self, redis_server: RedisServer) -> Iterator[RedisStore]:
        """A store of its own prefix; the contract's run ids and namespaces are unique besides."""
        store = RedisStore(redis_server.url(), prefix="contract")
        yield store
        store.close()
