"""The servers of a Redis store: one, the primary that sentinels name, or the nodes of a cluster.

Each server has a plain client, of whatever kind the store is, so what is said of one server (bounded connections,
repeats, forks) is true of all. Which server a key belongs to is a table by hash tag, read again when a server says that
a key has moved, or does not answer. (docs/decisions/0012-a-cluster-is-several-servers.md)
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import redis
from redis import BlockingConnectionPool, Redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.connection import Connection, parse_url
from redis.crc import key_slot
from redis.exceptions import ClusterDownError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import Sentinel

from orchestrator.host import monotonic
from orchestrator.stores.redis_urls import Address, Kind, RedisUrl

BLOCK = 10.0  # seconds that one blocking read lasts at most: a dead connection is noticed after it
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between two tries
_MAX_CONNECTIONS = (
    32  # of one process to one server, besides its blocking reads; `?max_connections=` in the URL says otherwise
)
_ROLE_INTERVAL = 5.0  # seconds after which a connection asks again whether its server is still a primary
# The scripts' answers are read as the second version of the protocol writes them. redis-py 4 knows no other.
_PROTOCOL = {"protocol": 2} if int(redis.__version__.partition(".")[0]) >= 5 else {}

Client = Any  # redis.Redis, whose commands have no types of their own


@dataclass(eq=False, slots=True)
class Server:
    """One server, as this process uses it."""

    client: Client
    patient: Client  # for blocking reads
    name: str = ""  # host and port, where a store has several servers
    is_checked: bool = False
    is_away: bool = False  # it did not answer when it was last asked


@dataclass(eq=False, slots=True)
class Servers:
    """All servers of a store, as they were when somebody looked."""

    pid: int  # of the process that made the clients
    by_address: Mapping[Address | None, Server]
    by_tag: Mapping[str, Server] | None = None  # a cluster's, by the beginning of a key up to its closing brace
    is_left: bool = False  # a key has moved, or a server does not answer: whoever comes next looks again
    new_place: Address | None = None  # which knows where a key has moved to

    def of(self, key: str) -> Server:
        """Return the server that a key is on. Raises `ClusterDownError` where no node has its slot."""
        if self.by_tag is None:
            return next(iter(self.by_address.values()))
        server = self.by_tag.get(tag_of(key))
        if server is None:
            raise ClusterDownError(f"no node of the cluster serves the keys of {tag_of(key)}}}")
        return server

    def close(self) -> None:
        """Close the connections to all of them."""
        for server in self.by_address.values():
            for client in (server.client, server.patient):
                client.connection_pool.disconnect()


def tag_of(key: str) -> str:
    """Return the beginning of a key by which its slot is chosen."""
    return key.partition("}")[0]


class ServerFinder:
    """Finds the servers of a URL and makes their clients: the one place that knows what kinds of URLs there are."""

    def __init__(self, url: RedisUrl, tags: Iterable[str], *, timeout: float, retries: int) -> None:
        self.kind = url.kind
        self._url = url
        self._tags = [tag_of(tag) for tag in tags]
        self._timeout = timeout
        self._retries = retries
        self._asked = 0  # looks so far: they take turns at who is asked first, so a node that is dead is not for ever

    def find(self, before: Servers | None) -> Servers:
        """Return the servers as they are now. Of a cluster, nodes that are there still keep their clients.

        Raises `RedisError` where nobody says.
        """
        match self.kind:
            case Kind.SERVER:
                return Servers(os.getpid(), {None: self._server(None)})
            case Kind.SENTINEL:
                place = self._primary()
                return Servers(os.getpid(), {place: self._server(place)})
            case Kind.CLUSTER:
                return self._nodes(before)

    def _server(self, place: Address | None) -> Server:
        kind = _url_options(self._url)["connection_class"]
        # A replica in a cluster refuses by itself what is not there.
        connection = _in_one_piece(kind) if self.kind is Kind.CLUSTER else _to_primary(kind)
        blocking = len(self._tags) if self.kind is Kind.CLUSTER else 1  # a command reads streams of one slot only
        return Server(
            self._client(place, connection_class=connection),
            self._client(
                place, connection_class=connection, socket_timeout=self._timeout + BLOCK, max_connections=blocking
            ),
            "" if place is None else "{}:{}".format(*place),
        )

    def _client(self, place: Address | None, **more: Any) -> Client:
        options = {
            **_PROTOCOL,
            **self._patience(self._retries),
            "max_connections": _MAX_CONNECTIONS,
            # Where all connections are at work, a caller waits for one of them, as long as it would for an answer.
            "timeout": self._timeout,
            **_url_options(self._url),
            **({} if place is None else {"host": place[0], "port": place[1]}),
            **more,
        }
        return _own(BlockingConnectionPool(**options))  # type: ignore[no-untyped-call]

    def _patience(self, retries: int) -> dict[str, Any]:
        pauses = ExponentialBackoff(cap=LONGEST_PAUSE, base=FIRST_PAUSE) if retries else NoBackoff()
        return {
            "socket_timeout": self._timeout,
            "socket_connect_timeout": self._timeout,
            "retry": Retry(pauses, retries),
            # Before redis-py 6 nothing is tried again else.
            "retry_on_error": [RedisConnectionError, RedisTimeoutError] if retries else [],
            "health_check_interval": 0,
        }

    def _primary(self) -> Address:
        username, password = self._url.sentinel_login
        options = {
            **_PROTOCOL,
            **self._patience(0),
            **{name: text for name, text in _url_options(self._url).items() if name.startswith(("ssl_", "socket_"))},
            "ssl": self._url.server.startswith("rediss:"),
            "username": username or None,
            "password": password or None,
        }
        sentinels = Sentinel(self._turned(self._url.addresses), sentinel_kwargs=options)  # type: ignore[no-untyped-call]
        try:
            host, port = sentinels.discover_master(self._url.master_name)  # type: ignore[no-untyped-call]
        finally:
            for sentinel in sentinels.sentinels:
                sentinel.connection_pool.disconnect()
        return str(host), int(port)

    def _nodes(self, before: Servers | None) -> Servers:
        known = {} if before is None else before.by_address
        # Whom a moved key belongs to now, knows of the move before the others do.
        first = [] if before is None or before.new_place is None else [before.new_place]
        rest = self._turned([*dict.fromkeys([*(place for place in known if place), *self._url.addresses])])
        rest.sort(key=lambda place: place in known and known[place].is_away)
        places = _ask_one([*first, *rest], self._slots)
        of = {tag: place for tag in self._tags if (place := _place_of(f"{tag}}}", places))}
        servers: dict[Address | None, Server] = {
            place: known.get(place) or self._server(place) for place in of.values()
        }
        return Servers(os.getpid(), servers, {tag: servers[place] for tag, place in of.items()})

    def _slots(self, place: Address) -> list[tuple[int, int, Address]]:
        """Return which slots are on which node, first and last, as this one knows it."""
        client = self._client(place, **self._patience(0), max_connections=1)
        try:
            ranges = client.execute_command("CLUSTER", "SLOTS")
        finally:
            client.connection_pool.disconnect()
        return [(first, last, _address(primary, place)) for first, last, primary, *_ in ranges]

    def _turned(self, places: Sequence[Address]) -> list[Address]:
        self._asked += 1
        start = self._asked % len(places)
        return [*places[start:], *places[:start]]


def _url_options(url: RedisUrl) -> dict[str, Any]:
    return {"connection_class": Connection, **parse_url(url.server)}  # type: ignore[no-untyped-call]


def _ask_one(
    places: Iterable[Address], ask: Callable[[Address], list[tuple[int, int, Address]]]
) -> list[tuple[int, int, Address]]:
    """Return the first answer. Raises what says more than that a node does not answer."""
    failures: list[str] = []
    for place in dict.fromkeys(places):
        try:
            return ask(place)
        except (RedisConnectionError, RedisTimeoutError) as error:
            failures.append(f"{place[0]}:{place[1]}: {error}")
    raise RedisConnectionError("no node of the cluster answers: " + "; ".join(failures))


def _address(node: Sequence[Any], asked: Address) -> Address:
    host = (node[0] or b"").decode()
    return (asked[0] if host in ("", "?") else host), int(node[1])  # a node may not know its own name


def _place_of(key: str, places: Sequence[tuple[int, int, Address]]) -> Address | None:
    slot = key_slot(key.encode())
    return next((place for first, last, place in places if first <= slot <= last), None)


def _own(pool: BlockingConnectionPool) -> Client:
    """Return a client that has this pool to itself; before redis-py 5 its connections close when it is collected.

    Raises ValueError for options of the URL that no connection takes.
    """
    try:
        pool.connection_class(**pool.connection_kwargs)  # only made: it is not open
    except TypeError as error:
        raise ValueError(f"the store's URL has an option that the Redis client does not take: {error}") from None
    return Redis.from_pool(pool) if hasattr(Redis, "from_pool") else Redis(connection_pool=pool)


@cache
def _in_one_piece(kind: type[Any]) -> type[Any]:
    """Return a kind of connection that sends a request as a whole.

    The client sends pieces of 6 kB, and after each of them it waits for the interpreter's lock: a thread that is busy
    meanwhile, as the scheduler's that publishes, would have the server wait as well.
    """

    class InOnePiece(kind):  # type: ignore[misc]
        def pack_commands(self, commands: Any) -> list[bytes]:
            return [b"".join(super().pack_commands(commands))]

    return InOnePiece


@cache
def _to_primary(kind: type[Any]) -> type[Any]:
    """Return a kind of connection that leaves a server which is no primary, before it reads anything there.

    After a failover behind one address, the old primary goes on as a replica, and old connections stay with it. A write
    is refused there. A read is not, and would find what the run was some time ago, for ever.
    """

    class ToPrimary(_in_one_piece(kind)):  # type: ignore[misc]
        _look_at = 0.0

        def disconnect(self, *args: Any) -> None:
            self._look_at = 0.0  # the next server is another one, perhaps
            super().disconnect(*args)

        def check_health(self) -> None:
            super().check_health()
            if monotonic() < self._look_at:
                return
            self._look_at = monotonic() + _ROLE_INTERVAL
            try:
                self.send_command("ROLE", check_health=False)
                role = self.read_response()
            except ResponseError:  # we may not ask
                self._look_at = math.inf
                return
            if role[0] == b"slave":
                self.disconnect()
                raise RedisConnectionError("the server is a replica: is a failover under way?")

    return ToPrimary
