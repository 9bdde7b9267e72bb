"""The servers that tests talk to: found or started once a session, a place of our own on each, cleaned up at the end.

A test asks for `redis_server`, `rabbitmq_server` or `postgres_server`. Where the server cannot be had the test is
skipped with the server's name, or fails when CI=true. The end of the run says which were used. It must not know what
the tests store.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import amqp
import kombu
import pytest
import redis

from tests.vendor import LocalRedis, missing

REDIS = "Redis"
RABBITMQ = "RabbitMQ"
POSTGRESQL = "PostgreSQL"
PREFIX = "orchestrator-tests"
_REPORT = pytest.StashKey[dict[str, str]]()


class Unavailable(Exception):
    """The server cannot be had; the message says why."""


class Server(Protocol):
    """The interface of all servers."""

    def describe(self) -> str:
        """Return the URL, without a password, and whose server it is."""

    def close(self) -> None:
        """Remove everything the tests left there."""


def without_password(url: str) -> str:
    """Return the URL as it may be shown."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, place = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.split(':')[0]}:***@{place}"))


def answers(url: str, default_port: int) -> bool:
    """Tell whether a server listens at the URL's host and port."""
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or default_port), timeout=2).close()
    except OSError:
        return False
    return True


def _unique() -> str:
    """Return a name of this run's own, which also says whose process it is."""
    return f"{PREFIX}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _is_stale(name: str) -> bool:
    """Tell whether a name was made by a run on this machine that has ended without cleaning up."""
    owner = name.removeprefix(f"{PREFIX}-").split("-")[0]
    return name.startswith(f"{PREFIX}-") and owner.isdigit() and not Path(f"/proc/{owner}").exists()


# --------------------------------------------------------------------------------------------------------------- Redis


@dataclass
class RedisServer:
    """A Redis of our own, or one database of a server that runs anyway."""

    base: str
    process: LocalRedis | None = None

    @classmethod
    def acquire(cls, folder: Path) -> RedisServer:
        """Use database 15 of the server that REDIS_URL names, else an own process, else the usual port."""
        given = os.environ.get("REDIS_URL")
        if given is None and shutil.which("redis-server"):
            process = LocalRedis(folder).start()
            return cls(process.url, process)
        url = given or "redis://127.0.0.1:6379"
        if not answers(url, 6379):
            hint = "" if given else " and redis-server is not on the path"
            raise Unavailable(f"nothing answers at {without_password(url)}{hint}")
        server = cls(urlunsplit(urlsplit(url)._replace(path="/15")))
        try:
            server.flush()
        except redis.RedisError as error:
            raise Unavailable(f"{without_password(url)}: {error}") from None
        return server

    @property
    def own(self) -> bool:
        """True if it was started for this session: then a test may kill and restart `process`."""
        return self.process is not None

    def url(self, db: int = 0) -> str:
        """Return the URL of a database, 0 to 15; on a server that runs anyway always that of database 15."""
        return self.process.database(db) if self.process else self.base

    def flush(self, db: int = 0) -> None:
        """Empty a database."""
        with redis.Redis.from_url(self.url(db)) as client:
            client.flushdb()

    def describe(self) -> str:
        """Say where it is."""
        return f"{without_password(self.base)} ({'own process' if self.own else 'found, database 15'})"

    def close(self) -> None:
        """Stop the own process, or empty the database."""
        if self.process:
            self.process.teardown()
        else:
            self.flush()


# ------------------------------------------------------------------------------------------------------------ RabbitMQ


@dataclass
class RabbitMQServer:
    """A virtual host of our own on a RabbitMQ; or the given one, where queue names must carry `prefix` and expire."""

    base: str
    prefix: str
    vhost: str | None = None
    control: Any = None

    @classmethod
    def acquire(cls) -> RabbitMQServer:
        """Make a virtual host through rabbitmqctl or the management API; without either use the given one."""
        url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
        if not answers(url, 5672):
            raise Unavailable(f"nothing answers at {without_password(url)}")
        name = _unique()
        controls: list[_Management | _Rabbitmqctl] = [_Management(url)]
        if urlsplit(url).hostname in (None, "127.0.0.1", "::1", "localhost"):
            controls.insert(0, _Rabbitmqctl())
        for control in controls:
            with suppress(OSError, subprocess.SubprocessError, ValueError):
                control.add(name, unquote(urlsplit(url).username or "guest"))
                server = cls(url, name, name, control)
                if server.accepts():
                    return server
                server.close()  # made on another broker of this machine than the URL's
        server = cls(url, name)
        if not server.accepts():
            raise Unavailable(f"{without_password(url)} lets nobody in")
        return server

    def accepts(self) -> bool:
        """Tell whether the user gets into the virtual host."""
        try:
            with kombu.Connection(self.url(), connect_timeout=5) as connection:
                connection.connect()
        except (OSError, amqp.AMQPError):
            return False
        return True

    def url(self, vhost: str | None = None) -> str:
        """Return the broker URL of our virtual host, or of another one."""
        wanted = vhost or self.vhost
        return self.base if wanted is None else urlunsplit(urlsplit(self.base)._replace(path="/" + quote(wanted, "")))

    def describe(self) -> str:
        """Say where it is."""
        return f"{without_password(self.url())} ({'own virtual host' if self.vhost else 'found, names with a prefix'})"

    def close(self) -> None:
        """Delete the virtual host with all that is in it."""
        if self.vhost:
            self.control.delete(self.vhost)


class _Rabbitmqctl:
    """Virtual hosts by the command on the server's own machine."""

    def _run(self, *arguments: str) -> str:
        command = shutil.which("rabbitmqctl", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
        if command is None:
            raise FileNotFoundError("rabbitmqctl")
        words = [command, "--quiet", *arguments]
        return subprocess.run(words, capture_output=True, check=True, timeout=60, text=True).stdout

    def add(self, vhost: str, user: str) -> None:
        for old in filter(_is_stale, self._run("list_vhosts", "name").splitlines()):
            self.delete(old)
        self._run("add_vhost", vhost)
        try:
            self._run("set_permissions", "--vhost", vhost, user, ".*", ".*", ".*")
        except subprocess.SubprocessError:
            self.delete(vhost)
            raise

    def delete(self, vhost: str) -> None:
        self._run("delete_vhost", vhost)


@dataclass
class _Management:
    """Virtual hosts by the management plug-in's HTTP interface, on its usual port."""

    url: str
    port: int = 15672

    def _call(self, method: str, path: str, body: str | None = None) -> None:
        import base64
        import http.client

        parts = urlsplit(self.url)
        login = f"{unquote(parts.username or 'guest')}:{unquote(parts.password or 'guest')}"
        headers = {
            "Authorization": "Basic " + base64.b64encode(login.encode()).decode(),
            "Content-Type": "application/json",
        }
        connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, f"/api/{path}", body, headers)
            status = connection.getresponse().status
        finally:
            connection.close()
        if status >= 300:
            raise ValueError(f"{method} {path}: {status}")

    def add(self, vhost: str, user: str) -> None:
        self._call("PUT", f"vhosts/{quote(vhost, '')}")
        rights = '{"configure": ".*", "write": ".*", "read": ".*"}'
        self._call("PUT", f"permissions/{quote(vhost, '')}/{quote(user, '')}", rights)

    def delete(self, vhost: str) -> None:
        self._call("DELETE", f"vhosts/{quote(vhost, '')}")


# ---------------------------------------------------------------------------------------------------------- PostgreSQL


@dataclass
class PostgresServer:
    """A database of our own on a PostgreSQL, or schemas of our own where we may not make databases."""

    base: str
    name: str
    own_database: bool = True
    schemas: list[str] = field(default_factory=list)

    @classmethod
    def acquire(cls) -> PostgresServer:
        """Make a database, or a schema where the role may not make databases."""
        url = os.environ.get("POSTGRES_URL", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")
        if not answers(url, 5432):
            raise Unavailable(f"nothing answers at {without_password(url)}")
        try:
            import psycopg
        except ImportError as error:
            raise Unavailable(f"psycopg is not installed: {error}") from None
        server = cls(url, _unique().replace("-", "_"))
        try:
            server._make()
        except psycopg.OperationalError as error:
            raise Unavailable(f"{without_password(url)}: {str(error).splitlines()[0]}") from None
        return server

    def _make(self) -> None:
        import psycopg

        for (old,) in self.execute("select datname from pg_database where datname like 'orchestrator\\_tests\\_%'"):
            if _is_stale(old.replace("_", "-")):
                with suppress(psycopg.Error):
                    self.execute(f'drop database if exists "{old}" with (force)')
        try:
            self.execute(f'create database "{self.name}"')
        except psycopg.errors.InsufficientPrivilege:
            self.own_database = False
            self.new_schema(self.name)

    def execute(self, statement: str, *, database: str | None = None) -> list[Any]:
        """Run one statement, by itself, in a database of the server; returns its rows."""
        import psycopg

        parts = urlsplit(self.base)
        url = urlunsplit(parts._replace(scheme="postgresql", path=f"/{database}" if database else parts.path))
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def url(self, schema: str | None = None) -> str:
        """Return SQLAlchemy's URL of our database, with a schema of it first on the search path if one is named."""
        parts = urlsplit(self.base)
        schema = schema or (None if self.own_database else self.name)
        query = "&".join(filter(None, [parts.query, f"options=-csearch_path%3D{schema}" if schema else ""]))
        path = f"/{self.name}" if self.own_database else parts.path
        # Put together by hand: urlunsplit leaves the slashes out for a scheme that it does not know.
        return f"{parts.scheme}://{parts.netloc}{path}" + (f"?{query}" if query else "")

    def new_schema(self, name: str | None = None) -> str:
        """Make an empty schema and return the URL that works in it."""
        name = name or f"s_{uuid.uuid4().hex[:12]}"
        self.execute(f'create schema "{name}"', database=self.name if self.own_database else None)
        self.schemas.append(name)
        return self.url(name)

    def describe(self) -> str:
        """Say where it is."""
        return f"{without_password(self.url())} ({'own database' if self.own_database else 'own schema'})"

    def close(self) -> None:
        """Drop the database, or the schemas."""
        if self.own_database:
            self.execute(f'drop database if exists "{self.name}" with (force)')
        else:
            for schema in self.schemas:
                self.execute(f'drop schema if exists "{schema}" cascade')


# ------------------------------------------------------------------------------------------------ fixtures and report


@pytest.fixture(scope="session")
def redis_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Give a Redis: `.url(db)`, `.flush(db)`, `.own`, `.process`."""
    folder = tmp_path_factory.mktemp("redis-server")
    yield from _session(request.config, REDIS, lambda: RedisServer.acquire(folder))


@pytest.fixture(scope="session")
def rabbitmq_server(request: pytest.FixtureRequest) -> Iterator[RabbitMQServer]:
    """Give a RabbitMQ: `.url()`, `.vhost`, `.prefix`."""
    yield from _session(request.config, RABBITMQ, RabbitMQServer.acquire)


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """Give a PostgreSQL: `.url(schema=None)`, `.new_schema()`."""
    yield from _session(request.config, POSTGRESQL, PostgresServer.acquire)


def _session(config: pytest.Config, name: str, acquire: Any) -> Iterator[Any]:
    """Give the server for the session; skip with its name, or fail in CI, where it cannot be had."""
    report = config.stash[_REPORT]
    server: Server | None = None
    reason = ""
    try:
        server = acquire()
    except Unavailable as error:
        reason = str(error)
    if server is None:
        report[name] = f"not found: {reason}"
        missing(f"{name}: {reason}")
    report[name] = f"used {server.describe()}"
    try:
        yield server
    finally:
        server.close()


def pytest_configure(config: pytest.Config) -> None:
    """Begin the report: until a test asks for a server, nobody has looked for it."""
    config.stash[_REPORT] = dict.fromkeys((REDIS, RABBITMQ, POSTGRESQL), "no test of this run asked for it")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say of each server whether it took part."""
    terminalreporter.section("servers")
    for name, line in config.stash[_REPORT].items():
        terminalreporter.write_line(f"{name + ':':12}{line}")
