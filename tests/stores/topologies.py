"""Several Redis servers on loopback, as processes: a cluster, and a primary with a replica watched by sentinels."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.vendor import LocalProcess, LocalRedis, child_environment, free_port, redis_command

PATIENCE = 40.0
SLOTS = 16384
NODE_TIMEOUT = "1500"  # ms after which the others take a node of a cluster, or its primary, for dead


def wait_for(holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait until it is so. A server that does not answer yet says no."""
    end = time.monotonic() + seconds
    while True:
        with suppress(redis.RedisError):
            if holds():
                return
        assert time.monotonic() < end
        time.sleep(0.02)


def client_of(server: LocalRedis) -> redis.Redis:
    """Return a client of one server, whatever its role."""
    return redis.Redis.from_url(server.url, socket_timeout=5)


@dataclass
class LocalCluster:
    """Nodes of a cluster: primaries with a third of the slots each, and perhaps a replica of the first."""

    folder: Path
    replicas: int = 0  # of the first primary
    nodes: list[LocalRedis] = field(default_factory=list)

    def start(self) -> LocalCluster:
        """Start all nodes, and wait until each takes requests."""
        for number in range(3 + self.replicas):
            self.nodes.append(self.node(f"node-{number}"))
        for number, node in enumerate(self.nodes[:3]):
            with client_of(node) as client:
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                client.execute_command("CLUSTER", "ADDSLOTS", *range(number * SLOTS // 3, (number + 1) * SLOTS // 3))
        for node in self.nodes[1:]:
            self.meet(node)
        for node in self.nodes[3:]:
            wait_for(lambda node=node: self._follows(node))  # type: ignore[misc]
        self.wait_until_ready()
        return self

    def node(self, name: str) -> LocalRedis:
        """Start a node that knows of no others."""
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", NODE_TIMEOUT)
        # Else no node takes requests while a slot is served by none.
        options += ("--cluster-require-full-coverage", "no")
        options += ("--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0")
        server = LocalRedis(self.folder / name, *options)
        while not _is_free(server.port + 10_000):  # where the nodes talk to each other
            server = LocalRedis(self.folder / name, *options)
        return server.start()

    def meet(self, node: LocalRedis) -> None:
        """Make a node known to the others."""
        with client_of(self.nodes[0]) as client:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)

    def _follows(self, node: LocalRedis) -> bool:
        with client_of(node) as client:
            state = client.info("replication")
            if state["role"] == "master":  # it may not have heard of the other yet
                client.execute_command("CLUSTER", "REPLICATE", id_of(self.nodes[0]))
            return state.get("master_link_status") == "up"

    def wait_until_ready(self) -> None:
        """Wait until all nodes agree."""
        for node in self.nodes:
            wait_for(lambda node=node: self._is_ready(node))  # type: ignore[misc]

    def _is_ready(self, node: LocalRedis) -> bool:
        with client_of(node) as client:
            found = client.execute_command("CLUSTER", "INFO")
            text = found if isinstance(found, dict) else dict(_pairs(found))
            return text["cluster_state"] == "ok" and int(text["cluster_known_nodes"]) == len(self.nodes)

    def url(self, count: int = 2) -> str:
        """Return the store's URL, which names some of the nodes."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:count])

    def flush(self) -> None:
        """Empty all primaries."""
        for node in self.nodes:
            with client_of(node) as client, suppress(redis.ReadOnlyError):
                client.flushall()

    def keys(self) -> dict[int, list[str]]:
        """Return the keys that each node has, by its number."""
        found = {}
        for number, node in enumerate(self.nodes):
            with client_of(node) as client:
                found[number] = [key.decode() for key in client.scan_iter()]
        return found

    def owner(self, slot: int) -> LocalRedis:
        """Return the node that has a slot, as the first that answers knows it."""
        for node in self.nodes:
            with client_of(node) as client, suppress(redis.RedisError):
                for first, last, (_, port, *_), *_ in client.execute_command("CLUSTER", "SLOTS"):
                    if int(first) <= slot <= int(last):
                        return next(one for one in self.nodes if one.port == int(port))
        raise LookupError(slot)

    def move(self, slot: int, to: LocalRedis) -> None:
        """Hand a slot over with all of its keys, as a resharding does."""
        source = self.owner(slot)
        with client_of(source) as old, client_of(to) as new:
            new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", id_of(source))
            old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", id_of(to))
            while keys := old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                old.execute_command("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
            new.execute_command("CLUSTER", "SETSLOT", slot, "NODE", id_of(to))
            old.execute_command("CLUSTER", "SETSLOT", slot, "NODE", id_of(to))

    def teardown(self) -> None:
        """Stop all nodes at once."""
        for node in self.nodes:
            node.teardown()


def id_of(node: LocalRedis) -> str:
    """Return the name of a node in its cluster."""
    with client_of(node) as client:
        return _text(client.execute_command("CLUSTER", "MYID"))


def _text(found: object) -> str:
    return found.decode() if isinstance(found, bytes) else str(found)


def _pairs(found: object) -> list[tuple[str, str]]:
    lines = (line.partition(":") for line in _text(found).splitlines() if ":" in line)
    return [(name, text.strip()) for name, _, text in lines]


def _is_free(port: int) -> bool:
    if port > 65535:
        return False
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass
class Watched:
    """A primary with a replica, and sentinels that know them by a name."""

    folder: Path
    sentinels: int = 1
    password: str = ""  # of the servers
    sentinel_password: str = ""
    name: str = "mymaster"
    servers: list[LocalRedis] = field(default_factory=list)
    processes: list[LocalProcess] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)

    def start(self) -> Watched:
        """Start all of them, and wait until the sentinels know the replica."""
        login = ("--requirepass", self.password, "--masterauth", self.password) if self.password else ()
        self.servers = [
            LocalRedis(self.folder / name, "--repl-diskless-sync-delay", "0", *login).start()
            for name in ("first", "second")
        ]
        with self.client(self.servers[1]) as client:
            client.execute_command("REPLICAOF", "127.0.0.1", self.servers[0].port)
            wait_for(lambda: client.info("replication")["master_link_status"] == "up")
        for number in range(self.sentinels):
            self._sentinel(number)
        for port in self.ports:
            with self.sentinel(port) as client:
                wait_for(lambda client=client: self._knows_all(client))  # type: ignore[misc]
        return self

    def _knows_all(self, client: redis.Redis) -> bool:
        state = client.sentinel_master(self.name)
        return int(state["num-slaves"]) == 1 and int(state["num-other-sentinels"]) == self.sentinels - 1

    def _sentinel(self, number: int) -> None:
        port, folder = free_port(), self.folder / f"sentinel-{number}"
        folder.mkdir(parents=True)
        quorum = self.sentinels // 2 + 1
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"sentinel monitor {self.name} 127.0.0.1 {self.servers[0].port} {quorum}",
            f"sentinel down-after-milliseconds {self.name} 1000",
            f"sentinel failover-timeout {self.name} 6000",
        ]
        if self.password:
            lines.append(f"sentinel auth-pass {self.name} {self.password}")
        if self.sentinel_password:
            lines.append(f"requirepass {self.sentinel_password}")
        (folder / "sentinel.conf").write_text("\n".join(lines) + "\n")
        command = [redis_command(), str(folder / "sentinel.conf"), "--sentinel"]
        process = LocalProcess("sentinel", command, cwd=folder, env=child_environment({}), log=folder / "log")
        process.start()
        self.processes.append(process)
        self.ports.append(port)

    def client(self, server: LocalRedis) -> redis.Redis:
        """Return a client of one of the servers, whatever its role."""
        return redis.Redis.from_url(server.url, password=self.password or None, socket_timeout=5)

    def sentinel(self, port: int) -> redis.Redis:
        """Return a client of a sentinel."""
        return redis.Redis("127.0.0.1", port, password=self.sentinel_password or None, socket_timeout=5)

    def url(self, scheme: str = "redis+sentinel", db: int = 0) -> str:
        """Return the store's URL, as this scheme is written."""
        login = f":{self.password}@" if self.password else ""
        between = f";{scheme}://{login}" if scheme == "sentinel" else ","
        hosts = between.join(f"127.0.0.1:{port}" for port in self.ports)
        more = f"&sentinel_password={self.sentinel_password}" if self.sentinel_password else ""
        return f"{scheme}://{login}{hosts}/{db}?master_name={self.name}{more}"

    def primary(self) -> LocalRedis:
        """Return the server that the first sentinel names."""
        with self.sentinel(self.ports[0]) as client:
            port = int(client.sentinel_master(self.name)["port"])
        return next(server for server in self.servers if server.port == port)

    def teardown(self) -> None:
        """Stop all at once."""
        for process in self.processes:
            process.remove()
        for server in self.servers:
            server.teardown()
