"""A pytest-celery vendor of local processes: its workers and servers without Docker.

pytest-celery's nodes drive any object that behaves like a container. `LocalProcess` does so for a plain process, so
tests use pytest-celery's own API (kill, restart, ready, assert_log_exists, CeleryTestSetup) on processes of this
machine. What this cannot give: another host, another Celery version, a cut network. It must not know what the workers
run.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NoReturn, cast

import celery
import psutil
import pytest
from pytest_celery import (
    CeleryBackendCluster,
    CeleryBrokerCluster,
    CeleryTestWorker,
    CeleryWorkerContainer,
    RedisContainer,
    RedisTestBackend,
    RedisTestBroker,
)
from pytest_celery.vendors.worker.content import utils as worker_utils

REPOSITORY = Path(__file__).resolve().parent.parent
START_SECONDS = 40.0
STOP_SECONDS = 20.0


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return cast(int, probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], seconds: float, *, every: float = 0.02) -> bool:
    """Return True as soon as the condition holds, False when it has not within the seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(every)
    return True


class LocalProcess:
    """A process in a session of its own, with the members of a container that pytest-celery asks for.

    `kill("SIGKILL")` strikes the whole group and returns once its leader is gone; other signals reach the leader alone,
    as `kill <pid>` does. The log goes on over restarts; `logs_since_start` is the part of the last start.
    """

    def __init__(self, name: str, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.id = uuid.uuid4().hex
        self.command = list(command)
        self.cwd = cwd
        self.env = dict(env)
        self.log = log
        # What wrappers.Container.ready() looks at: no networks and no published ports to wait for.
        self.attrs: dict[str, Any] = {
            "Config": {"Hostname": "127.0.0.1", "Env": []},
            "HostConfig": {"PortBindings": {}},
            "NetworkSettings": {"Networks": {}, "Ports": {}},
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def start(self) -> None:
        """Start the process; it must not run yet."""
        if self.status == "running":
            raise RuntimeError(f"{self.name} runs already")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as sink:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.cwd,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id of the leader, also after its end."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        return None if self._process is None else self._process.poll()

    @property
    def status(self) -> str:
        """A container's status: created, running or exited."""
        if self._process is None:
            return "created"
        return "running" if self._process.poll() is None else "exited"

    def reload(self) -> None:
        """Do nothing: `status` is always fresh."""

    def logs(self) -> bytes:
        """Return the whole log, over all starts."""
        return self.log.read_bytes() if self.log.exists() else b""

    def logs_since_start(self) -> str:
        """Return what was logged since the last start."""
        return self.logs()[self._log_start :].decode(errors="replace")

    def kill(self, signal: str | int | None = None) -> None:
        """Send a signal, SIGKILL without a name."""
        number = _signal_number(signal)
        if number == _signal_number("SIGKILL"):
            self._kill_group()
        elif self._process is not None and self._process.poll() is None:
            os.kill(self.pid, number)

    def _kill_group(self) -> None:
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(STOP_SECONDS)

    def wait_exit(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for the end and return the exit code; raise TimeoutError when it takes longer."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} still runs after {seconds} s\n{self.tail()}") from None

    def restart(self, timeout: float = STOP_SECONDS) -> None:
        """Stop warmly if it runs (SIGKILL after the timeout), then start again with the same command."""
        self.stop(timeout)
        self.start()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Stop warmly, hard after the timeout, and leave no member of the group behind."""
        if self.status == "running":
            self.kill("SIGTERM")
            with suppress(TimeoutError):
                self.wait_exit(timeout)
        self._kill_group()

    def remove(self) -> None:
        """Stop at once."""
        self._kill_group()

    def exec_run(self, cmd: str | Sequence[str], **_: Any) -> tuple[int, bytes]:
        """Run a command beside the process, in its folder and environment; return exit code and output."""
        words = shlex.split(cmd) if isinstance(cmd, str) else list(cmd)
        helpers = str(Path(worker_utils.__file__).parent)
        env = {**self.env, "PYTHONPATH": os.pathsep.join(filter(None, [helpers, self.env.get("PYTHONPATH")]))}
        done = subprocess.run(words, cwd=self.cwd, env=env, capture_output=True, check=False, timeout=START_SECONDS)
        return done.returncode, done.stdout or done.stderr

    def tail(self, lines: int = 40) -> str:
        """Return the end of the log, for messages."""
        return "\n".join(self.logs_since_start().splitlines()[-lines:])


def _signal_number(name: str | int | None) -> int:
    if name is None:
        return signal.SIGKILL
    return name if isinstance(name, int) else signal.Signals[name if name.startswith("SIG") else f"SIG{name}"].value


def _ready(process: LocalProcess, prompt: str, seconds: float = START_SECONDS) -> bool:
    """Wait until the last start's log shows the prompt; raise with the log's end when it exits or takes too long."""
    wait_until(lambda: prompt in process.logs_since_start() or process.status == "exited", seconds)
    if process.status == "exited" or prompt not in process.logs_since_start():
        raise RuntimeError(f"{process.name} is {process.status} without having logged {prompt!r}\n{process.tail()}")
    return True


class LocalRedis(RedisContainer):  # type: ignore[misc]
    """An own redis-server on a free port, kept over restarts: it writes an append-only file into its folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        command = [redis_command(), "--bind", "127.0.0.1", "--port", str(self._port), "--dir", str(folder)]
        command += ["--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction", *options]
        self.process = LocalProcess(
            "redis-server", command, cwd=folder, env=child_environment({}), log=folder / "redis-server.log"
        )
        super().__init__(self.process)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return f"redis://127.0.0.1:{self._port}/{self.vhost}"

    @property
    def host_url(self) -> str:
        """The same URL: a local process has one name."""
        return self.url

    def database(self, db: int) -> str:
        """Return the URL of a database, 0 to 15."""
        return f"redis://127.0.0.1:{self._port}/{db}"

    def start(self) -> LocalRedis:
        """Start and wait until it answers."""
        self.process.start()
        self.ready()
        return self

    def _wait_ready(self, timeout: int = 30) -> bool:
        return _ready(self.process, "Ready to accept connections", timeout)

    def teardown(self) -> None:
        """Stop at once: nobody needs the data of a test that is over."""
        self.process.remove()


def redis_command() -> str:
    """Return where redis-server is; without it the test is skipped, or fails in CI."""
    found = shutil.which("redis-server")
    if found is None:
        missing("Redis: redis-server is not on the path, and this test needs one of its own")
    return str(found)


def in_ci() -> bool:
    """Tell whether a missing server is a failure."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def missing(what: str) -> NoReturn:
    """Skip what asks for it, with the reason; in CI it is a failure."""
    if in_ci():
        pytest.fail(f"required in CI: {what}", pytrace=False)
    pytest.skip(what)


class LocalWorker(CeleryWorkerContainer):  # type: ignore[misc]
    """A worker process in a container's clothes."""

    def __init__(self, process: LocalProcess) -> None:
        self.process = process
        super().__init__(process)

    @classmethod
    def version(cls) -> str:
        """Return the Celery version of this environment."""
        return str(celery.__version__)

    @classmethod
    def worker_name(cls) -> str:
        """Return the part of the node name before the @."""
        return "local"

    def _wait_ready(self, timeout: int = 30) -> bool:
        return _ready(self.process, self.ready_prompt)

    def teardown(self) -> None:
        """Kill what still runs."""
        self.process.remove()


class WorkerNode(CeleryTestWorker):  # type: ignore[misc]
    """pytest-celery's worker node, with the few things a process has and a container has not."""

    container: LocalWorker

    @property
    def process(self) -> LocalProcess:
        """The worker's main process."""
        return self.container.process

    @property
    def pid(self) -> int:
        """The process id of the worker's main process."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """True while the main process runs."""
        return self.process.status == "running"

    def child_pids(self) -> list[int]:
        """Return the process ids of the pool's children (none on threads and solo)."""
        return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]

    def terminate(self, *, wait: bool = True, seconds: float = STOP_SECONDS) -> None:
        """Shut down warmly (SIGTERM), and wait for the end unless told otherwise."""
        self.kill("SIGTERM")
        if wait:
            self.process.wait_exit(seconds)

    def start(self) -> None:
        """Start again after a kill or a warm shutdown, and wait until the worker is ready."""
        self.process.start()
        self.ready()


def local_worker(
    app_spec: str,
    *,
    env: Mapping[str, str],
    cwd: Path,
    pool: str = "prefork",
    concurrency: int = 4,
    queues: Sequence[str] | None = None,
    extra_args: Sequence[str] = (),
    app: celery.Celery | None = None,
    log: Path | None = None,
    ready: bool = True,
) -> WorkerNode:
    """Start `celery -A <app_spec> worker` as a process of its own and wait until it is ready.

    `env` is laid over this process's environment; `cwd` is the folder the app is imported from (it also gets the log,
    unless `log` names a file); the repository itself is importable as well, behind `cwd`. With `ready=False` the start
    is not waited for. The caller ends the worker (`teardown()`); `worker_factory` does so by itself.
    """
    process = LocalProcess("worker", [], cwd=cwd, env=child_environment(env), log=log or cwd / "worker.log")
    node = f"{LocalWorker.worker_name()}@{process.id[:12]}"
    process.command = [sys.executable, "-m", "celery", "-A", app_spec, "worker", "-n", node, "--loglevel=INFO"]
    process.command += ["--pool", pool, "--concurrency", str(concurrency), "--without-mingle", "--without-gossip"]
    process.command += ["-Q", ",".join(queues)] if queues else []
    process.command += extra_args
    worker = WorkerNode(LocalWorker(process), cast(celery.Celery, app))
    process.start()
    if ready:
        try:
            worker.ready()
        except BaseException:
            worker.teardown()
            raise
    return worker


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a child: this one's, this Python first on the path, this repository importable."""
    env = {**os.environ, "PYTHONUNBUFFERED": "1", **extra}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [extra.get("PYTHONPATH"), str(REPOSITORY)]))
    return env


# ------------------------------------------------------------------------------------------------------------ fixtures


@pytest.fixture
def worker_factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., WorkerNode]]:
    """Give a function like `local_worker`; all workers it started are killed at the end of the test."""
    with _Workers(tmp_path_factory.mktemp("workers")) as start:
        yield start


@pytest.fixture(scope="session")
def session_worker_factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., WorkerNode]]:
    """Give the same for workers that live as long as the session."""
    with _Workers(tmp_path_factory.mktemp("session-workers")) as start:
        yield start


class _Workers:
    """The workers of one factory, each with a log file of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[WorkerNode] = []

    def __enter__(self) -> Callable[..., WorkerNode]:
        return self.start

    def start(self, app_spec: str, **options: Any) -> WorkerNode:
        """Start one worker; the arguments are those of `local_worker`."""
        options.setdefault("log", self.folder / f"worker-{len(self.started)}.log")
        worker = local_worker(app_spec, **options)
        self.started.append(worker)
        return worker

    def __exit__(self, *_: object) -> None:
        for worker in self.started:
            worker.teardown()


@pytest.fixture
def redis_factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], LocalRedis]]:
    """Give a function that starts a redis-server for this test alone, which the test may kill and restart."""
    started: list[LocalRedis] = []

    def start() -> LocalRedis:
        started.append(LocalRedis(tmp_path_factory.mktemp("redis")).start())
        return started[-1]

    yield start
    for server in started:
        server.teardown()


# pytest-celery's own fixtures on local processes, so that `celery_setup` works as its documentation says. The clusters
# are overridden too: otherwise every test would also run for the vendors that need Docker.


@pytest.fixture
def default_redis_broker(redis_factory: Callable[[], LocalRedis]) -> LocalRedis:
    """Replace pytest-celery's Redis container."""
    return redis_factory()


@pytest.fixture
def default_redis_backend(default_redis_broker: LocalRedis) -> LocalRedis:
    """Use the broker's server for results too."""
    return default_redis_broker


@pytest.fixture
def celery_broker_cluster(default_redis_broker: LocalRedis) -> CeleryBrokerCluster:
    """Run each test on one broker."""
    return CeleryBrokerCluster(RedisTestBroker(default_redis_broker))


@pytest.fixture
def celery_backend_cluster(default_redis_backend: LocalRedis) -> CeleryBackendCluster:
    """Run each test on one result backend."""
    return CeleryBackendCluster(RedisTestBackend(default_redis_backend))


@pytest.fixture
def default_worker_cls() -> type[WorkerNode]:
    """Replace pytest-celery's node class."""
    return WorkerNode


@pytest.fixture
def default_worker_container_cls() -> type[LocalWorker]:
    """Replace pytest-celery's container class."""
    return LocalWorker


@pytest.fixture
def default_worker_container(
    tmp_path: Path, default_worker_initial_content: dict[str, bytes], default_worker_env: dict[str, str]
) -> Iterator[LocalWorker]:
    """Write the app that pytest-celery generates into a folder and run a worker on it."""
    folder = tmp_path / "celery_setup"
    for name, content in default_worker_initial_content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    worker = local_worker("app", env=default_worker_env, cwd=folder, concurrency=2, queues=[LocalWorker.worker_queue()])
    yield worker.container
    worker.teardown()
