"""The Lua scripts read a change as `rules.apply` does: one random history, driven through both stores, looks the same.

What is compared, and what cannot be, is said in `pair`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.rules.graph import Graph
from orchestrator.stores.memory import MemoryStore
from orchestrator.stores.redis import RedisStore
from orchestrator.testing import VirtualClock
from tests.properties.histories import History
from tests.properties.small_graphs import graphs
from tests.properties.wild import Wild
from tests.servers import RedisServer


@pytest.fixture(scope="module")
def redis_store(redis_server: RedisServer) -> Iterator[RedisStore]:
    store = RedisStore(redis_server.url(), prefix="alike", shards=3)
    yield store
    store.close()


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(graph=graphs(), data=st.data())
def test_one_history_looks_the_same_in_both_stores(redis_store: RedisStore, graph: Graph, data: st.DataObject) -> None:
    """Answers, refusals, headers, activations, events, awaiting activations and timers are equal after every step."""
    history = History(MemoryStore(VirtualClock()), redis_store, data.draw, graph=graph)
    history.begin()
    history.go_on()


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_change_is_read_alike(redis_store: RedisStore, data: st.DataObject) -> None:
    """Also one that no engine would write: what the two make of it does not depend on who wrote it, or what for."""
    run = Wild(MemoryStore(VirtualClock()), redis_store, data.draw)
    run.begin()
    run.go_on()
