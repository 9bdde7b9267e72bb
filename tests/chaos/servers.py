"""The broker and the store of a round, each behind a wire: an own Redis, or a place on the machine's server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kombu
import redis

from tests.servers import PostgresServer, RabbitMQServer
from tests.stores.wire import Wire
from tests.vendor import LocalRedis

COMBINATIONS = ("redis+redis", "rabbitmq+postgresql", "redis+postgresql")
_CELERY_QUEUE = "celery"


@dataclass
class Outlet:
    """A server as a round sees it: the wire that all traffic of the round goes over, and the server behind it."""

    kind: str
    wire: Wire
    # through the wire, and past it
    url: str
    direct: str
    redis: LocalRedis | None = None
    postgres: PostgresServer | None = None

    def drop_messages(self) -> int:
        """Empty the broker; returns how many messages were lost."""
        if self.redis:
            with redis.Redis.from_url(self.direct) as client:
                queued = int(client.llen(_CELERY_QUEUE) or 0) + int(client.hlen("unacked") or 0)
                client.flushdb()
                return queued
        with kombu.Connection(self.direct) as connection, suppress(connection.channel_errors):
            return int(connection.default_channel.queue_purge(_CELERY_QUEUE) or 0)
        return 0

    def set_memory(self, limit: int) -> int:
        """Set Redis's memory limit in bytes (0: none); returns how many writes it has refused for it so far."""
        with redis.Redis.from_url(self.direct) as client:
            client.config_set("maxmemory", limit)
            refused: Any = client.info("errorstats").get("errorstat_OOM", {})
            return int(refused.get("count", 0)) if refused else 0

    def mentions(self, text: str) -> list[str]:
        """Return what is stored with this text in its name or content, read past the library."""
        return self._mentions_in_redis(text) if self.redis else self._mentions_in_tables(text)

    def _mentions_in_redis(self, text: str) -> list[str]:
        wanted = text.encode()
        reads = {
            b"string": "get",
            b"hash": "hgetall",
            b"set": "smembers",
            b"list": "lrange",
            b"zset": "zrange",
            b"stream": "xrange",
        }
        ranges: dict[str, tuple[Any, ...]] = {"lrange": (0, -1), "zrange": (0, -1)}
        found = []
        with redis.Redis.from_url(self.direct) as client:
            for key in client.scan_iter("*"):
                read = reads[client.type(key)]
                content = getattr(client, read)(key, *ranges.get(read, ()))
                if wanted in key or wanted in repr(content).encode():
                    found.append(key.decode(errors="replace"))
        return found

    def _mentions_in_tables(self, text: str) -> list[str]:
        assert self.postgres is not None
        tables = "select tablename from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"
        rows: list[str] = []
        for (table,) in self.postgres.execute(tables, database=self.postgres.name):
            content = self.postgres.execute(f'select t::text from "{table}" t', database=self.postgres.name)
            rows += [f"{table}: {row}" for (row,) in content if text in row]
        return rows


@contextmanager
def serve(combination: str, folder: Path) -> Iterator[tuple[Outlet, Outlet]]:
    """Give broker and store of a combination; all that they keep is gone afterwards. Raises `Unavailable`."""
    broker, store = combination.split("+")
    with ExitStack() as stack:
        yield (
            stack.enter_context(_OPENERS[broker](folder / "broker")),
            stack.enter_context(_OPENERS[store](folder / "store")),
        )


@contextmanager
def _redis(folder: Path) -> Iterator[Outlet]:
    server = LocalRedis(folder).start()
    try:
        with Wire(server.port) as wire:
            yield Outlet("redis", wire, f"redis://127.0.0.1:{wire.port}/0", server.url, redis=server)
    finally:
        server.teardown()


@contextmanager
def _rabbitmq(folder: Path) -> Iterator[Outlet]:
    server = RabbitMQServer.acquire()
    try:
        with _wired(server.url(), 5672) as (wire, url):
            yield Outlet("rabbitmq", wire, url, server.url())
    finally:
        server.close()


@contextmanager
def _postgresql(folder: Path) -> Iterator[Outlet]:
    server = PostgresServer.acquire()
    try:
        with _wired(server.url(), 5432) as (wire, url):
            yield Outlet("postgresql", wire, url, server.url(), postgres=server)
    finally:
        server.close()


@contextmanager
def _wired(url: str, port: int) -> Iterator[tuple[Wire, str]]:
    parts = urlsplit(url)
    with Wire(parts.port or port, parts.hostname or "127.0.0.1") as wire:
        login, at, _ = parts.netloc.rpartition("@")
        yield wire, url.replace(parts.netloc, f"{login}{at}127.0.0.1:{wire.port}", 1)


_OPENERS = {"redis": _redis, "rabbitmq": _rabbitmq, "postgresql": _postgresql}
