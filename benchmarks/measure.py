"""Runs the benchmarks: servers and a worker of their own, both sides by turns, medians, a table and a JSON file.

It fails only where a run gives a wrong result. What is measured is the time from the call to the result in the caller's
hands, on one worker that serves both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from socket import create_connection, socket
from statistics import median
from typing import Any

import psutil
import redis
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 120.0  # seconds


@dataclass(frozen=True)
class Plan:
    """The extent of a measurement."""

    lengths: Sequence[int]
    widths: Sequence[int]
    rounds: int
    concurrency: int
    pool: str = "prefork"


@dataclass
class Case:
    """One thing that is run by turns with the others of its group; the group's first is what they are compared with."""

    group: str
    name: str
    steps: int
    call: Callable[[], Any]
    expected: Any
    seconds: list[float] = field(default_factory=list)
    redis_cpu: list[float] = field(default_factory=list)
    python_cpu: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Steps per second, of the median."""
        return self.steps / median(self.seconds)

    @property
    def cpu(self) -> float:
        """Processor seconds of one step, Redis included."""
        return (median(self.python_cpu) + median(self.redis_cpu)) / self.steps

    def run(self, server: redis.Redis, *, count: bool = True) -> None:
        """Run it once."""
        redis_before, python_before, begun = _redis_cpu(server), _python_cpu(), time.perf_counter()
        result = self.call()
        took = time.perf_counter() - begun
        if result != self.expected:
            self.wrong.append(f"{self.group}, {self.name}: {result!r:.200}, where {self.expected!r} is right")
        if count:
            self.seconds.append(took)
            self.redis_cpu.append(_redis_cpu(server) - redis_before)
            self.python_cpu.append(_python_cpu() - python_before)


def _redis_cpu(server: redis.Redis) -> float:
    info = server.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def _python_cpu() -> float:
    """Seconds that this process, the worker and its children have used so far."""
    me = psutil.Process()
    used = [process.cpu_times() for process in (me, *me.children(recursive=True)) if process.name() != "redis-server"]
    return sum(times.user + times.system for times in used)


def ratios(case: Case, base: Case) -> list[float]:
    """Return how much faster than the base each round was: above 1 is faster."""
    return [theirs / mine for theirs, mine in zip(base.seconds, case.seconds, strict=True)]


# --- servers ---------------------------------------------------------------------------------------------------------


@contextmanager
def redis_url() -> Iterator[str]:
    """Give the URL of REDIS_URL's server without a database, or of an own one on a free port."""
    given = os.environ.get("REDIS_URL")
    if given:
        yield given.rstrip("/").rsplit("/", 1)[0] if given.count("/") > 2 else given
        return
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("benchmarks: redis-server is not on the path; install it or set REDIS_URL")
    with closing(socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        words = [
            program,
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            folder,
            "--save",
            "",
            "--appendonly",
            "yes",
        ]
        with _process(words, Path(folder) / "redis.log", os.environ.copy()):
            _until(lambda: _answers(port), "redis-server does not answer")
            yield f"redis://127.0.0.1:{port}"


@contextmanager
def worker(plan: Plan, env: dict[str, str]) -> Iterator[None]:
    """Run one worker for both sides."""
    words = [sys.executable, "-m", "celery", "-A", "benchmarks.work:app", "worker", "--loglevel=WARNING"]
    words += ["--pool", plan.pool, "--concurrency", str(plan.concurrency), "--without-mingle", "--without-gossip"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(os.environ.get("BENCH_LOG", Path(folder) / "worker.log"))
        with _process(words, log, env) as process:
            from benchmarks import work

            def ready() -> bool:
                if process.poll() is not None:
                    raise SystemExit(f"benchmarks: the worker has ended:\n{log.read_text()[-2000:]}")
                return bool(work.app.control.ping(timeout=0.5))

            _until(ready, "the worker does not answer")
            yield


@contextmanager
def _process(words: list[str], log: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as sink, subprocess.Popen(words, stdout=sink, stderr=sink, env=env, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _answers(port: int) -> bool:
    try:
        create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _until(condition: Callable[[], bool], otherwise: str, seconds: float = 40.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"benchmarks: {otherwise}")
        time.sleep(0.05)  # a process outside: there is nothing to wait on but the look


# --- measuring -------------------------------------------------------------------------------------------------------


def cases(plan: Plan) -> list[list[Case]]:
    """Return the groups that are compared."""
    from celery import chain, chord

    from benchmarks import work

    def ours(workflow: Any, given: Any) -> Callable[[], Any]:
        return lambda: work.orchestrator.create_run(workflow).start(given, timeout=PATIENCE).unwrap()

    def a_chain(length: int) -> Callable[[], Any]:
        def call() -> Any:
            first, *rest = [work.task_add_one.s(0), *(work.task_add_one.s() for _ in range(length - 1))]
            return chain(first, *rest).apply_async().get(timeout=PATIENCE)

        return call

    def a_chord(width: int) -> Callable[[], Any]:
        def call() -> Any:
            header = [work.task_add_one.s(number) for number in range(width)]
            return chord(header)(work.task_add_up.s()).get(timeout=PATIENCE)

        return call

    groups = []
    for length in plan.lengths:
        group = f"sequence of {length}"
        groups.append(
            [
                Case(group, "Celery chain", length, a_chain(length), length),
                Case(group, "workflow", length, ours(work.SEQUENCES[length], 0), length),
                Case(group, "workflow, inline", length, ours(work.INLINE[length], 0), length),
            ]
        )
    for width in plan.widths:
        group, total = f"fan-out of {width}", width * (width + 1) // 2
        groups.append(
            [
                Case(group, "Celery chord", width + 1, a_chord(width), total),
                Case(group, "workflow, foreach", width + 1, ours(work.FAN_OUTS[width], list(range(width))), total),
            ]
        )
    return groups


def measure(plan: Plan, url: str, console: Console) -> list[list[Case]]:
    """Run every case once unmeasured, then by turns; every second round in the opposite order."""
    groups = cases(plan)
    with redis.Redis.from_url(f"{url}/0") as server, Progress(console=console, transient=True) as progress:
        bar = progress.add_task("measuring", total=(plan.rounds + 1) * sum(map(len, groups)))
        for round_ in range(plan.rounds + 1):
            for group in groups:
                for case in group if round_ % 2 else reversed(group):
                    progress.update(bar, description=f"{case.group}: {case.name}")
                    case.run(server, count=round_ > 0)
                    progress.advance(bar)
    return groups


def environment(plan: Plan) -> dict[str, Any]:
    """Return what the numbers depend on."""
    names = ("celery", "kombu", "redis")
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
        "pool": plan.pool,
        "concurrency": plan.concurrency,
        "rounds": plan.rounds,
    }


def table(groups: list[list[Case]], about: dict[str, Any]) -> Table:
    """Return the result as people read it."""
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    caption = (
        f"{about['cores']} cores, Python {about['python']}, {versions}; {about['pool']}, {about['concurrency']} slots; "
    )
    shown = Table(title="Steps per second", caption=caption + f"median of {about['rounds']} rounds (least to most)")
    for column in ("what", "side", "steps/s", "ms/step", "CPU ms/step", "of it Redis", "times Celery", "by CPU"):
        shown.add_column(column, justify="left" if column in ("what", "side") else "right")
    for group in groups:
        base = group[0]
        for case in group:
            times = ratios(case, base)
            spread = f"{case.steps / max(case.seconds):,.0f} to {case.steps / min(case.seconds):,.0f}"
            shown.add_row(
                case.group if case is base else "",
                case.name,
                f"{case.rate:,.0f} ({spread})",
                f"{1000 / case.rate:.2f}",
                f"{1000 * case.cpu:.2f}",
                f"{1000 * median(case.redis_cpu) / case.steps:.2f}",
                "" if case is base else f"{median(times):.2f} ({min(times):.2f} to {max(times):.2f})",
                "" if case is base else f"{base.cpu / case.cpu:.2f}",
                end_section=case is group[-1],
            )
    return shown


def document(groups: list[list[Case]], about: dict[str, Any]) -> dict[str, Any]:
    """Return the result as programs read it."""
    results = []
    for group in groups:
        for case in group:
            facts = {name: value for name, value in asdict(case).items() if name not in ("call", "expected")}
            ratio = None if case is group[0] else median(ratios(case, group[0]))
            cpu_ratio = None if case is group[0] else group[0].cpu / case.cpu
            results.append({**facts, "steps_per_second": case.rate, "ratio_to_celery": ratio, "cpu_ratio": cpu_ratio})
    return {**about, "results": results}


def main(plan: Plan, description: str) -> int:
    """Measure as the command line says; the exit code is 1 where a run gave a wrong result."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results there too")
    parser.add_argument("--rounds", type=int, default=plan.rounds)
    parser.add_argument("--concurrency", type=int, default=plan.concurrency, help="processes of the worker")
    parser.add_argument("--pool", choices=("prefork", "threads", "solo"), default=plan.pool)
    parser.add_argument("--lengths", type=_numbers, default=plan.lengths, help="of the sequences: 50,200")
    parser.add_argument("--widths", type=_numbers, default=plan.widths, help="of the fan-outs: 100,500")
    given = parser.parse_args()
    plan = Plan(given.lengths, given.widths, given.rounds, given.concurrency, given.pool)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers and worker end with it
    console = Console(width=max(Console().width, 120))
    with redis_url() as url:
        env = {"BENCH_BROKER": f"{url}/0", "BENCH_BACKEND": f"{url}/1", "BENCH_STORE": f"{url}/2"}
        env["BENCH_LENGTHS"] = ",".join(map(str, plan.lengths))
        env["BENCH_WIDTHS"] = ",".join(map(str, plan.widths))
        os.environ.update(env)
        with worker(plan, {**os.environ, "PYTHONPATH": str(ROOT)}):
            groups = measure(plan, url, console)
    about = environment(plan)
    console.print(table(groups, about))
    if given.json:
        given.json.write_text(json.dumps(document(groups, about), indent=2) + "\n")
    wrong = [text for group in groups for case in group for text in case.wrong]
    for text in wrong:
        console.print(f"wrong result: {text}", style="red")
    return 1 if wrong else 0


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word]
