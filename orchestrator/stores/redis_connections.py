"""The connections of the Redis store to its server. The only file that imports the Redis client."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import DataError, NoScriptError, RedisError, ResponseError
from redis.retry import Retry

from orchestrator.errors import StoreRefused, StoreUnavailable
from orchestrator.rules.transitions import IllegalTransition
from orchestrator.safe_text import masked_url
from orchestrator.stores import redis_wire as wire
from orchestrator.stores.redis_keys import Layout
from orchestrator.stores.redis_urls import client_url

FORMAT = 2  # of keys and documents; another one is not read, neither an older nor a newer
BLOCK = 10.0  # seconds that one blocking read lasts at most: a dead connection is noticed after it
_MAX_CONNECTIONS = 10_000  # of one process, one for each reader that waits: the server has a limit of its own

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
Call = tuple[Any, ...]  # a command and its arguments; `("name.lua", keys, arguments)` is a script


class RedisConnections:
    """Connections of this process to one server, checked at first use.

    After a fork the child opens its own and leaves the parent's alone. A request that got no answer is sent again a few
    times, because every script answers a repeat as it answered first.
    """

    def __init__(self, url: str, keys: Layout, *, strict: bool, timeout: float, retries: int) -> None:
        self._url = client_url(url)
        self._shown = masked_url(url)
        self._keys = keys
        self._strict = strict
        self._timeout = timeout
        self._retries = retries
        # Replaced as a whole and never locked: a lock held by another thread at a fork would stay locked in the child.
        self._connected: tuple[int, Client, Client] | None = None

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
        if made and made[0] == os.getpid():
            made[1].close()
            made[2].close()

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
        try:
            _, client, patient = self._clients()
            return ask(patient if blocking else client)
        except ResponseError as error:
            if found := _ILLEGAL.match(str(error)):
                raise IllegalTransition(found[1]) from None  # a bug, which no repetition mends
            # The client has classes for what is the server's matter, and some words of the server have none.
            if type(error) is ResponseError and not str(error).startswith(_AWAY):
                raise self._refused(error) from error
            raise self._unavailable(str(error)) from error
        except (DataError, UnicodeEncodeError, OverflowError) as error:
            raise self._refused(error) from error
        except RedisError as error:
            raise self._unavailable(str(error)) from error

    def _refused(self, error: Exception) -> StoreRefused:
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        return StoreRefused(f"The store at {self._shown} does not take the request: {text}", url=self._shown)

    def _unavailable(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(f"The store at {self._shown} cannot be used: {why}", url=self._shown)

    def _clients(self) -> tuple[int, Client, Client]:
        made = self._connected
        if made is None or made[0] != os.getpid():
            made = os.getpid(), self._client(self._timeout), self._client(self._timeout + BLOCK)
            self._check(made[1])
            self._connected = made
        return made

    def _client(self, timeout: float) -> Client:
        return Redis.from_url(
            self._url,
            protocol=2,
            socket_timeout=timeout,
            socket_connect_timeout=self._timeout,
            max_connections=_MAX_CONNECTIONS,
            retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), self._retries),
            health_check_interval=0,
        )

    def _check(self, client: Client) -> None:
        """Compare format and shards with those of the first use, and look at how the server keeps its data."""
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
