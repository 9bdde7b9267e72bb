"""The connections of the Redis store to its server. The only file that imports the Redis client."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import redis
from redis import BlockingConnectionPool, Redis
from redis.backoff import ExponentialBackoff
from redis.connection import Connection, parse_url
from redis.exceptions import (
    AskError,
    DataError,
    MasterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from orchestrator.errors import StoreRefused, StoreUnavailable
from orchestrator.host import SystemClock, monotonic
from orchestrator.rules.transitions import IllegalTransition
from orchestrator.safe_text import masked_url
from orchestrator.stores import redis_wire as wire
from orchestrator.stores.redis_keys import Layout
from orchestrator.stores.redis_urls import client_url

FORMAT = 3  # of keys and documents; another one is not read, neither an older nor a newer
BLOCK = 10.0  # seconds that one blocking read lasts at most: a dead connection is noticed after it
_MAX_CONNECTIONS = (
    32  # of one process, besides that of its blocking read; `?max_connections=` in the URL says otherwise
)
_ROLE_INTERVAL = 5.0  # seconds after which a connection asks again whether its server is still a primary
# The scripts' answers are read as the second version of the protocol writes them. redis-py 4 knows no other.
_PROTOCOL = {"protocol": 2} if int(redis.__version__.partition(".")[0]) >= 5 else {}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0  # seconds between two tries
_CLUSTER = (
    "it is a Redis Cluster, over whose nodes the keys of a store would be spread: use a single primary (with replicas, "
    "if you like), or PostgreSQL"
)

# Behind the message, some servers add where in the script it was raised.
_ILLEGAL = re.compile(r"ILLEGAL (.*?)( script: |$)", re.DOTALL)

# Words of a server that takes no request now, whatever it is: starting, full, read-only, behind, not for this user.
_AWAY = (
    *("LOADING", "BUSY", "OOM", "MISCONF", "READONLY", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN"),
    *("MOVED", "ASK", "CROSSSLOT", "NOAUTH", "WRONGPASS", "NOPERM", "NOGOODSLAVE", "EXECABORT"),
)

logger = logging.getLogger("orchestrator")
_warned: set[str] = set()

Client = Any  # redis.Redis, whose commands have no types of their own


@dataclass(frozen=True, slots=True)
class _Clients:
    pid: int  # of the process that made them
    client: Client
    patient: Client  # for the one blocking read of the process


Call = tuple[Any, ...]  # a command and its arguments; `("name.lua", keys, arguments)` is a script


class RedisConnections:
    """Connections of this process to one server, checked at first use.

    After a fork the child opens its own and leaves the parent's alone. A request that got no answer, or is refused
    by a server that is a primary no more, is sent again a few times, because every script answers a repeat as it
    answered first. Threads share a bounded number of connections.
    """

    def __init__(self, url: str, keys: Layout, *, strict: bool, timeout: float, retries: int) -> None:
        self._url = client_url(url)
        self._shown = masked_url(url)
        self._keys = keys
        self._strict = strict
        self._timeout = timeout
        self._retries = retries
        # Replaced as a whole and never locked: a lock held by another thread at a fork would stay locked in the child.
        self._connected: _Clients | None = None

    def call(self, *call: Any, blocking: bool = False) -> Any:
        """Run one command, in one round trip."""
        return self._ask(lambda client: client.execute_command(*call), blocking=blocking)

    def script(self, name: str, keys: Sequence[str], words: Sequence[Any]) -> Any:
        """Run one script, in one round trip unless the server has forgotten it."""
        return self._ask(lambda client: self._run(client, name, keys, words))

    def calls(self, calls: Sequence[Call]) -> list[Any]:
        """Run commands and scripts in one round trip, not as one transaction."""
        return self._ask(lambda client: self._pipe(client, calls)) if calls else []

    def close(self) -> None:
        """Close the connections that this process made."""
        made, self._connected = self._connected, None
        if made and made.pid == os.getpid():
            for client in (made.client, made.patient):
                client.connection_pool.disconnect()

    def _run(self, client: Client, name: str, keys: Sequence[str], words: Sequence[Any]) -> Any:
        script = wire.script(name)
        call = ("EVALSHA", script.sha, len(keys), *keys, *words)
        try:
            return client.execute_command(*call)
        except NoScriptError:  # a server that was restarted, or another one
            client.execute_command("SCRIPT LOAD", script.text)
            return client.execute_command(*call)

    def _pipe(self, client: Client, calls: Sequence[Call]) -> list[Any]:
        names = {call[0].removesuffix(".lua") for call in calls if call[0].endswith(".lua")}
        for last in (False, True):
            with client.pipeline(transaction=False) as pipe:
                for name, *rest in calls:
                    if name.endswith(".lua"):
                        keys, words = rest
                        pipe.execute_command("EVALSHA", wire.script(name[:-4]).sha, len(keys), *keys, *words)
                    else:
                        pipe.execute_command(name, *rest)
                try:
                    answers: list[Any] = pipe.execute()
                    return answers
                except NoScriptError:
                    if last:
                        raise
            for name in sorted(names):
                client.execute_command("SCRIPT LOAD", wire.script(name).text)
        raise AssertionError("unreachable")

    def _ask(self, ask: Callable[[Client], Any], *, blocking: bool = False) -> Any:
        tries = 0
        while True:
            made: _Clients | None = None
            try:
                made = self._clients()
                return ask(made.patient if blocking else made.client)
            except ResponseError as error:
                if found := _ILLEGAL.match(str(error)):
                    raise IllegalTransition(found[1]) from None  # a bug, which no repetition mends
                # The client has classes for what is the server's matter, and some words of the server have none.
                if type(error) is ResponseError and not str(error).startswith(_AWAY) and not _is_replicas(error):
                    raise self._refused(error) from error
                if not _is_replicas(error) or tries >= self._retries:
                    raise self._unavailable(_reason(error)) from error
            except (DataError, UnicodeEncodeError, OverflowError) as error:
                raise self._refused(error) from error
            except RedisError as error:
                raise self._unavailable(str(error)) from error
            # It was refused, so nothing of it was written. The address may lead to another server by now.
            self._leave(made)
            SystemClock().sleep(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**tries))
            tries += 1

    def _refused(self, error: Exception) -> StoreRefused:
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        return StoreRefused(f"The store at {self._shown} does not take the request: {text}", url=self._shown)

    def _unavailable(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(f"The store at {self._shown} cannot be used: {why}", url=self._shown)

    def _leave(self, made: _Clients | None) -> None:
        """Use these connections no more, unless others have taken their place already.

        Nobody closes them from outside while another thread is reading: they close when the last has let them go.
        """
        if self._connected is made:
            self._connected = None

    def _clients(self) -> _Clients:
        made = self._connected
        if made is None or made.pid != os.getpid():
            client = self._client(self._timeout, _MAX_CONNECTIONS)
            made = _Clients(os.getpid(), client, self._client(self._timeout + BLOCK, 1))
            self._check(made.client)
            self._connected = made
        return made

    def _client(self, timeout: float, connections: int) -> Client:
        options: dict[str, Any] = {
            "connection_class": Connection,
            **_PROTOCOL,
            "socket_timeout": timeout,
            "socket_connect_timeout": self._timeout,
            "max_connections": connections,
            "retry": Retry(ExponentialBackoff(cap=_LONGEST_PAUSE, base=_FIRST_PAUSE), self._retries),
            "retry_on_error": [
                RedisConnectionError,
                RedisTimeoutError,
            ],  # before redis-py 6 nothing is tried again else
            "health_check_interval": 0,
            **parse_url(self._url),  # type: ignore[no-untyped-call]
        }
        options["connection_class"] = _to_primary(options["connection_class"])
        # Where all connections are at work, a caller waits for one of them, as long as it would for an answer.
        pool = BlockingConnectionPool(**{"timeout": self._timeout, **options})  # type: ignore[no-untyped-call]
        return _own(pool)

    def _check(self, client: Client) -> None:
        """Compare format and shards with those of the first use, and look at how the server keeps its data."""
        if _is_cluster(client):
            raise self._unavailable(_CLUSTER)
        mine = json.dumps({"format": FORMAT, "shards": self._keys.shards})
        with client.pipeline(transaction=False) as pipe:
            pipe.set(self._keys.format, mine, nx=True)
            pipe.get(self._keys.format)
            stored = json.loads(pipe.execute()[1])
        if stored["format"] != FORMAT:
            raise self._unavailable(
                f"its format is {stored['format']}, and this version reads format {FORMAT} alone; "
                "delete it, or use another database or prefix"
            )
        if stored["shards"] != self._keys.shards:
            raise self._unavailable(f"it has {stored['shards']} shards, this process is set to {self._keys.shards}")
        doubts = _doubts(client)
        if doubts and self._strict:
            raise self._unavailable("; ".join(doubts))
        if doubts and self._shown not in _warned:
            _warned.add(self._shown)
            logger.warning("The store at %s may lose runs: %s", self._shown, "; ".join(doubts))


def _own(pool: BlockingConnectionPool) -> Client:
    """Return a client that has this pool to itself; before redis-py 5 its connections close when it is collected."""
    return Redis.from_pool(pool) if hasattr(Redis, "from_pool") else Redis(connection_pool=pool)


def _is_replicas(error: ResponseError) -> bool:
    """Tell whether a server answers so that was a primary and is one no more, or is about to be none.

    Older servers say it in the middle of what a script has come to.
    """
    return (
        isinstance(error, ReadOnlyError | MasterDownError)
        or re.search(r"^UNBLOCKED |-READONLY |-MASTERDOWN ", str(error)) is not None
    )


def _reason(error: ResponseError) -> str:
    return _CLUSTER if isinstance(error, AskError) else str(error)


def _is_cluster(client: Client) -> bool:
    try:
        return bool(client.info("cluster").get("cluster_enabled"))
    except ResponseError:  # we may not ask: then the first key of another node says it
        return False


@cache
def _to_primary(kind: type[Any]) -> type[Any]:
    """Return a kind of connection that leaves a server which is no primary, before it reads anything there.

    After a failover behind one address, the old primary goes on as a replica, and old connections stay with it. A write
    is refused there. A read is not, and would find what the run was some time ago, for ever.
    """

    class ToPrimary(kind):  # type: ignore[misc]
        _look_at = 0.0

        def disconnect(self, *args: Any) -> None:
            self._look_at = 0.0  # the next server is another one, perhaps
            super().disconnect(*args)

        def pack_commands(self, commands: Any) -> list[bytes]:
            # As one piece. The client sends pieces of 6 kB, and after each of them it waits for the interpreter's lock:
            # a thread that is busy meanwhile, as the scheduler's that publishes, would have the server wait as well.
            return [b"".join(super().pack_commands(commands))]

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


def _doubts(client: Client) -> list[str]:
    """Return the reasons against keeping runs on this server; none where it does not let us ask."""
    try:
        settings = {name: client.config_get(name).get(name, "") for name in ("maxmemory-policy", "appendonly", "save")}
    except ResponseError:
        return []
    policy = settings["maxmemory-policy"]
    evicts = [f"maxmemory-policy is {policy}, not noeviction"] if policy not in ("", "noeviction") else []
    kept = settings["appendonly"] == "yes" or settings["save"]
    return evicts if kept else [*evicts, "neither AOF nor RDB is on, so a restart of the server loses everything"]
