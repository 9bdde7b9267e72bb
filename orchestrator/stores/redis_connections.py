"""The requests of the Redis store: each goes to the server of its keys, and again where that does no harm.

Beside `redis_servers`, which makes the clients, the only file that imports the Redis client.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis.exceptions import (
    AskError,
    ClusterDownError,
    DataError,
    MasterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from orchestrator.errors import StoreRefused, StoreUnavailable
from orchestrator.host import SystemClock
from orchestrator.rules.transitions import IllegalTransition
from orchestrator.safe_text import masked_url
from orchestrator.stores import redis_wire as wire
from orchestrator.stores.redis_keys import Layout
from orchestrator.stores.redis_servers import FIRST_PAUSE, LONGEST_PAUSE, Client, Server, ServerFinder, Servers, tag_of
from orchestrator.stores.redis_urls import Kind, parse_redis_url

FORMAT = 3  # of keys and documents; another one is not read, neither an older nor a newer
_OLDEST = (6, 2)  # XTRIM by MINID and exclusive ranges, which the scripts need
_CLUSTER = (
    "it is a node of a Redis Cluster, over which the keys of a store are spread: use redis+cluster:// (or "
    "rediss+cluster://) with the addresses of some of its nodes"
)
_NO_CLUSTER = "it is no Redis Cluster: use redis:// or rediss:// for a server of its own"

# Behind the message, some servers add where in the script it was raised.
_ILLEGAL = re.compile(r"ILLEGAL (.*?)( script: |$)", re.DOTALL)
# What a cluster's node says of a key that another has, or will have: `MOVED <slot> <host>:<port>`. Newer clients leave
# the first word out.
_NEW_PLACE = re.compile(r"(?:(?:MOVED|ASK) )?\d+ (?P<host>\S+):(?P<port>\d+)$")

# Words of a server that takes no request now, whatever it is: starting, full, read-only, behind, not for this user.
_AWAY = (
    *("LOADING", "BUSY", "OOM", "MISCONF", "READONLY", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN"),
    *("MOVED", "ASK", "CROSSSLOT", "NOAUTH", "WRONGPASS", "NOPERM", "NOGOODSLAVE", "EXECABORT"),
)

logger = logging.getLogger("orchestrator")
_warned: set[str] = set()

Call = tuple[Any, ...]  # a command and its arguments; `("name.lua", keys, arguments)` is a script


class RedisConnections:
    """Connections of this process to the servers of a store, each checked at first use.

    After a fork the child opens its own and leaves the parent's alone. A request that got no answer, or is refused
    by a server that is a primary no more or has its keys no more, is sent again a few times, because every script
    answers a repeat as it answered first. Threads share a bounded number of connections.
    """

    def __init__(self, url: str, keys: Layout, *, strict: bool, timeout: float, retries: int) -> None:
        self._finder = ServerFinder(parse_redis_url(url), keys.tags(), timeout=timeout, retries=retries)
        self._shown = masked_url(url)
        self._keys = keys
        self._strict = strict
        self._retries = retries
        # Replaced as a whole and never locked: a lock held by another thread at a fork would stay locked in the child.
        self._connected: Servers | None = None

    @property
    def is_cluster(self) -> bool:
        """True where shards may be on different servers."""
        return self._finder.kind is Kind.CLUSTER

    def call(self, *call: Any, key: str | None = None, blocking: bool = False) -> Any:
        """Run one command, in one round trip, where its key is: the first argument unless it is given."""

        def ask(server: Server) -> Any:
            return (server.patient if blocking else server.client).execute_command(*call)

        return self._ask(lambda servers: self._use(servers.of(key or call[1]), ask))

    def script(self, name: str, keys: Sequence[str], words: Sequence[Any]) -> Any:
        """Run one script, in one round trip unless the server has forgotten it."""

        def ask(server: Server) -> Any:
            return self._run(server.client, name, keys, words)

        return self._ask(lambda servers: self._use(servers.of(keys[0]), ask))

    def calls(self, calls: Sequence[Call]) -> list[Any]:
        """Run commands and scripts, not as one transaction. One round trip; on a cluster, one for each node with keys.

        Those of one run are done in their order.
        """
        return self._ask(lambda servers: self._pipes(servers, calls)) if calls else []

    def close(self) -> None:
        """Close the connections that this process made."""
        made, self._connected = self._connected, None
        if made and made.pid == os.getpid():
            made.close()

    def _run(self, client: Client, name: str, keys: Sequence[str], words: Sequence[Any]) -> Any:
        script = wire.script(name)
        call = ("EVALSHA", script.sha, len(keys), *keys, *words)
        try:
            return client.execute_command(*call)
        except NoScriptError:  # a server that was restarted, or another one
            client.execute_command("SCRIPT LOAD", script.text)
            return client.execute_command(*call)

    def _pipes(self, servers: Servers, calls: Sequence[Call]) -> list[Any]:
        """Ask each node, also where another does not answer: what concerns one must not wait for the other."""
        answers: list[Any] = [None] * len(calls)
        failures: list[RedisError] = []
        by_tag: dict[str, list[int]] = {}
        for place, call in enumerate(calls):
            by_tag.setdefault(tag_of(_key_of(call)), []).append(place)
        places: dict[Server, list[int]] = {}
        for tag, mine in by_tag.items():
            try:
                places.setdefault(servers.of(tag), []).extend(mine)
            except RedisError as error:
                failures.append(error)
        for server in sorted(places, key=lambda one: one.is_away):  # those that keep others waiting come last
            mine = sorted(places[server])
            asked = [calls[place] for place in mine]
            try:
                found = self._use(server, lambda one, asked=asked: self._pipe(one.client, asked))  # type: ignore[misc]
            except RedisError as error:
                failures.append(error)
                continue
            for place, answer in zip(mine, found, strict=True):
                answers[place] = answer
        if failures:  # an outage before what a node refuses: who asked has to come again
            raise min(failures, key=lambda error: type(error) is ResponseError)
        return answers

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

    def _ask(self, ask: Callable[[Servers], Any]) -> Any:
        tries = 0
        while True:
            made: Servers | None = None
            try:
                made = self._servers()
                return ask(made)
            except ResponseError as error:
                text = _words(error)
                if found := _ILLEGAL.match(text):
                    raise IllegalTransition(found[1]) from None  # a bug, which no repetition mends
                # The client has classes for what is the server's matter, and some words of the server have none.
                if type(error) is ResponseError and not text.startswith(_AWAY) and not _is_replicas(error):
                    raise self._refused(error) from error
                is_elsewhere = self.is_cluster and _is_elsewhere(error)
                is_down = isinstance(error, ClusterDownError) or text.startswith("CLUSTERDOWN ")
                if is_elsewhere or is_down or _is_replicas(error):
                    self._leave(made, text)
                # Once at least where a key has moved, which is no failure.
                if not (_is_replicas(error) or is_elsewhere) or tries >= max(self._retries, is_elsewhere):
                    raise self._unavailable(self._reason(error)) from error
            except (DataError, UnicodeEncodeError, OverflowError) as error:
                raise self._refused(error) from error
            except RedisError as error:
                if self._finder.kind is not Kind.SERVER:
                    self._leave(made)  # its place may be another server's by now
                raise self._unavailable(str(error)) from error
            # It was refused, so nothing of it was written. The address may lead to another server by now.
            SystemClock().sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2**tries))
            tries += 1

    def _reason(self, error: ResponseError) -> str:
        if not _is_elsewhere(error):
            return _words(error)
        return f"keys are on their way to another node: {_words(error)}" if self.is_cluster else _CLUSTER

    def _refused(self, error: Exception) -> StoreRefused:
        text = (_words(error).strip() or type(error).__name__).splitlines()[0]
        return StoreRefused(f"The store at {self._shown} does not take the request: {text}", url=self._shown)

    def _unavailable(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(f"The store at {self._shown} cannot be used: {why}", url=self._shown)

    def _leave(self, made: Servers | None, text: str = "") -> None:
        """Have the next call look where the servers are, and connect anew to one that is not a cluster's node.

        Nobody closes connections from outside while another thread is reading: they close when the last has let them
        go.
        """
        if made is None:
            return
        if found := _NEW_PLACE.match(text):
            made.new_place = found["host"], int(found["port"])
        made.is_left = True

    def _servers(self) -> Servers:
        made = self._connected
        if made is not None and made.pid != os.getpid():
            made = None
        if made is None or made.is_left:
            before = made if self.is_cluster else None
            try:
                made = self._finder.find(before)
            except ResponseError as error:
                raise self._unavailable(_NO_CLUSTER if "cluster support" in str(error) else _words(error)) from error
            if before is None:
                self._use(made.of(self._keys.format), self._check_format)
            self._connected = made
        return made

    def _use(self, server: Server, ask: Callable[[Server], Any]) -> Any:
        """Ask a server, which is checked when it is first used, and not all together: another may be away meanwhile."""
        try:
            if not server.is_checked:
                self._check_server(server)
                server.is_checked = True
            answer = ask(server)
        except (RedisConnectionError, RedisTimeoutError):
            server.is_away = True
            raise
        server.is_away = False
        return answer

    def _check_server(self, server: Server) -> None:
        """Refuse a server that cannot keep runs, and look at how it keeps its data."""
        info = _info(server.client)
        if info.get("cluster_enabled") and not self.is_cluster:
            raise self._unavailable(_CLUSTER)
        if version := too_old(info):
            raise self._unavailable(
                f"it is Redis {version}, and Redis {_OLDEST[0]}.{_OLDEST[1]} is the oldest that has what a store needs"
            )
        doubts = [f"{server.name}: {doubt}" if self.is_cluster else doubt for doubt in _doubts(server.client)]
        if doubts and self._strict:
            raise self._unavailable("; ".join(doubts))
        who = f"{self._shown} {server.name}"
        if doubts and who not in _warned:
            _warned.add(who)
            logger.warning("The store at %s may lose runs: %s", self._shown, "; ".join(doubts))

    def _check_format(self, server: Server) -> None:
        """Compare format and shards with those of the first use."""
        mine = json.dumps({"format": FORMAT, "shards": self._keys.shards})
        with server.client.pipeline(transaction=False) as pipe:
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


def _key_of(call: Call) -> str:
    key: str = call[1][0] if call[0].endswith(".lua") else call[1]
    return key


def _words(error: Exception) -> str:
    """Return what the server has said; the client puts the command before it, with what users have stored."""
    return str(error).rpartition(" of pipeline caused error: ")[2]


def _is_replicas(error: ResponseError) -> bool:
    """Tell whether a server answers so that was a primary and is one no more, or is about to be none.

    Older servers say it in the middle of what a script has come to.
    """
    return (
        isinstance(error, ReadOnlyError | MasterDownError)
        or re.search(r"^UNBLOCKED |-READONLY |-MASTERDOWN ", _words(error)) is not None
    )


def _is_elsewhere(error: ResponseError) -> bool:
    """Tell whether a key is on another node of a cluster, or on its way there: what was asked has not been done."""
    # Before redis-py 5 the client of one server has no classes for it.
    return isinstance(error, AskError | TryAgainError) or _words(error).startswith(("MOVED ", "ASK ", "TRYAGAIN "))


def _info(client: Client) -> Mapping[str, Any]:
    try:
        info: Mapping[str, Any] = client.info()
        return info
    except ResponseError:  # we may not ask: then the first command that it does not have says so
        return {}


def too_old(info: Mapping[str, Any]) -> str:
    """Return the version of a Redis that lacks what the store needs, else nothing.

    Others than Redis give a version of their own (`valkey_version`, for one), and have more or less than the Redis
    whose number they show.
    """
    is_another = any(name.endswith("_version") for name in info if name not in ("redis_version", "gcc_version"))
    version = str(info.get("redis_version", ""))
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return version if numbers and not is_another and (int(numbers[1]), int(numbers[2])) < _OLDEST else ""


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
