"""The Redis store on a cluster of three nodes: the contract of all stores, and what only a cluster has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.stores import open_store
from orchestrator.stores.redis import RedisStore
from orchestrator.testing import StoreContract
from tests.stores.topologies import LocalCluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes for the tests of this module that kill none of them."""
    cluster = LocalCluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield cluster.start()
    finally:
        cluster.teardown()


class TestRedisStoreOnACluster(StoreContract):
    @pytest.fixture
    def store(self, cluster: LocalCluster) -> Iterator[RedisStore]:
        """A store of its own prefix; the contract's run ids and namespaces are unique besides."""
        store = open_store(cluster.url())
        assert isinstance(store, RedisStore)
        yield store
        store.close()
