"""Runs the order pipeline on a real Celery worker, in two processes, and shows what it does.

    python examples/orders/demo.py                                     # no server: broker in this process, SQLite
    BROKER_URL=redis://localhost:6379/0 python examples/orders/demo.py # worker processes; the store is that Redis too

The first process starts a run. Its large orders are suspended for a person, and the process ends, workers and all. The
second one, which has nothing but the store, lists what waits, resumes each order with its decision from
`decisions.json`, and follows the run to its end.

`ORCHESTRATOR_STORE` names another store. Ends with 0 only if the run came to what the files say it should.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from display import (
    Waiting,
    console,
    follow,
    graph_tree,
    rejected_table,
    say,
    states_of,
    steps_table,
    totals_table,
    waiting_in,
    waiting_table,
)

from orchestrator import NoConsumer, OrchestratorError

HERE = Path(__file__).resolve().parent
WORKERS = 2  # processes, where the broker is a server
SLOTS = 8  # steps at a time, in all
START_LIMIT = 20.0  # seconds until a worker has to be there
RUN_LIMIT = 60.0  # seconds until the run has to settle
EXPECTED_REJECTED = ["A-1004", "A-1008", "?", "A-1013"]
INTERRUPTED = 130


class Unexpected(Exception):
    """The demo did not come to what it should."""


# --- workers -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def embedded_worker(app: Any) -> Iterator[Callable[[], str]]:
    """A Celery worker in a thread of this process. Gives a function that says what is wrong with it."""
    app.set_default()  # the pool's threads look for their app there; `celery worker` does this too
    worker = app.WorkController(
        app=app, pool="threads", concurrency=SLOTS, without_heartbeat=True, without_mingle=True, without_gossip=True
    )
    thread = threading.Thread(target=worker.start, name="worker", daemon=True)
    thread.start()
    try:
        yield lambda: "" if thread.is_alive() else "the worker's thread has ended"
    finally:
        worker.stop()
        thread.join(timeout=10)


@contextlib.contextmanager
def worker_processes() -> Iterator[Callable[[], str]]:
    """Celery workers as processes, as in production. Gives a function that says what is wrong with them."""
    command = [sys.executable, "-m", "celery", "-A", "app", "worker", f"--concurrency={SLOTS // WORKERS}"]
    command += ["--loglevel=WARNING", "--without-mingle", "--without-gossip"]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="orders-workers-", ignore_cleanup_errors=True))
        logs = [Path(folder) / f"worker{number}.log" for number in range(1, WORKERS + 1)]
        processes = []
        for number, log in enumerate(logs, 1):
            output: IO[bytes] = stack.enter_context(log.open("wb"))
            process = subprocess.Popen(
                [*command, f"--hostname=orders{number}-{os.getpid()}@%h"],
                cwd=HERE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops them
            )
            stack.callback(gone, process)
            processes.append(process)
        for process in processes:
            stack.callback(process.terminate)  # SIGTERM, as an operator does: it finishes what it has begun

        def wrong() -> str:
            for process, log in zip(processes, logs, strict=True):
                if process.poll() is not None:
                    return f"a worker ended with {process.returncode}:\n{tail(log)}"
            return ""

        yield wrong


def gone(process: subprocess.Popen[bytes]) -> None:
    """Wait until a worker has ended."""
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


# --- what it should come to ------------------------------------------------------------------------------------------


def decisions() -> dict[str, Any]:
    """Return the answers of the people who are asked, by order number."""
    found: dict[str, Any] = json.loads((HERE / "decisions.json").read_text(encoding="utf-8"))
    return found


def verify_waiting(result: Any) -> None:
    """Compare what the run waits for with the orders for which there are decisions."""
    if result.status != "suspended":
        raise Unexpected(f"the run is {result.status}, not suspended: {result.error}")
    if sorted(result.resume_labels) != sorted(decisions()):
        raise Unexpected(f"{sorted(result.resume_labels)} wait, and there are decisions for {sorted(decisions())}")


def verify(result: Any) -> None:
    """Compare what the run came to with what the files say, added up here in a plain loop."""
    from workflows import CATALOGUE, read_order

    if result.status != "success":
        raise Unexpected(f"the run is {result.status}: {result.error}")
    wanted: dict[str, Decimal] = {}
    for text in (HERE / "orders.jsonl").read_text(encoding="utf-8").splitlines():
        order, reason = read_order(text)
        if order is not None and not reason:
            total = sum((CATALOGUE[line.sku][0] * line.quantity for line in order.lines), Decimal(0))
            wanted[order.number] = after_decision(total, decisions().get(order.number))
    amounts = {receipt.number: receipt.amount for receipt in result.result.receipts}
    if list(amounts.items()) != list(wanted.items()):
        raise Unexpected(f"the amounts are {amounts}, not {wanted}")
    if [rejected.number for rejected in result.result.rejected] != EXPECTED_REJECTED:
        raise Unexpected(f"other orders were set aside than {EXPECTED_REJECTED}: {result.result.rejected}")


def after_decision(total: Decimal, decision: dict[str, Any] | None) -> Decimal:
    """Return the total of an order after the decision on it; nothing for a refused one."""
    if decision is None:
        return total
    discount = (total * Decimal(decision.get("discount", "0"))).quantize(Decimal("0.01"))
    return total - discount if decision["agreed"] else Decimal(0)


# --- the two parts -------------------------------------------------------------------------------------------------


def begin(orchestrator: Any, wrong: Callable[[], str], batch: str) -> None:
    """Start the run and follow it until nothing is left but what waits for a person."""
    from workflows import orders

    run = orchestrator.create_run(orders, run_id=f"orders-{batch}", resource_id=batch)
    say(f"run {run.run_id} of workflow {run.workflow_id}")
    with ending(run, wrong):
        stream = when_ready(lambda: run.stream({"file": "orders.jsonl"}), wrong)
        follow(orchestrator, run, stream, keep=True)
        result = stream.result(timeout=RUN_LIMIT)
        verify_waiting(result)
    say(f"The run is {result.status}: {len(result.resume_labels)} orders wait for a person, the others are done.")


def decide(orchestrator: Any, wrong: Callable[[], str], batch: str) -> None:
    """Find what waits, resume it with its decisions, and follow the run to its end."""
    page = orchestrator.runs.list(workflow="orders", status="suspended", resource_id=batch)
    if not page.runs:
        raise Unexpected(f"nothing waits in {orchestrator.store.url}")
    (stored,) = page.runs
    waiting = waiting_in(orchestrator.runs.get(stored.run_id))
    console.print(waiting_table(waiting))
    run = orchestrator.get_run(stored.run_id)
    with ending(run, wrong):
        stream = resume_all(run, waiting, wrong)
        follow(orchestrator, run, stream)
        result = stream.result(timeout=RUN_LIMIT)
        report(orchestrator, run, result)
        verify(result)
    receipts, refused = result.result.receipts, sum(not decision["agreed"] for decision in decisions().values())
    say(f"{len(receipts) - refused} orders fulfilled, {refused} refused, {len(result.result.rejected)} set aside")


def resume_all(run: Any, waiting: list[Waiting], wrong: Callable[[], str]) -> Any:
    """Resume each order by its label; the stream goes on until the run has ended."""
    answers = [(one.label, decisions()[one.label]) for one in waiting]
    for label, answer in answers:
        say(f"order {label}: {'agreed' if answer['agreed'] else 'refused'} by {answer['by']}")
    (first, answer), *others = answers
    stream = when_ready(lambda: run.resume_stream(answer, label=first, close_on_suspend=False), wrong)
    for label, other in others:
        run.submit_resume(other, label=label)
    return stream


def when_ready(start: Callable[[], Any], wrong: Callable[[], str]) -> Any:
    """Start or resume as soon as a worker has said that it lives."""
    end = time.monotonic() + START_LIMIT
    while True:
        try:
            return start()
        except NoConsumer as error:
            if reason := wrong():
                raise Unexpected(reason) from error
            if time.monotonic() > end:
                raise Unexpected(f"no worker was there after {START_LIMIT:.0f} s") from error
            time.sleep(0.05)  # the worker announces itself in the store, which wakes nobody


@contextlib.contextmanager
def ending(run: Any, wrong: Callable[[], str]) -> Iterator[None]:
    """See to it that the demo ends: a run that hangs, or that nobody follows any more, is canceled."""
    limit = threading.Timer(RUN_LIMIT, run.cancel)
    limit.daemon = True
    limit.start()
    try:
        yield
    except BaseException as error:
        run.cancel()
        if isinstance(error, Unexpected) and (reason := wrong()):
            raise Unexpected(f"{error}; {reason}") from error
        raise
    finally:
        limit.cancel()


def report(orchestrator: Any, run: Any, result: Any) -> None:
    """Show what the run came to, read back from the store."""
    from workflows import orders

    steps = orchestrator.runs.get(run.run_id, fields=["steps"]).steps
    states, graph = states_of(steps), orders.graph()
    console.print(steps_table(graph, steps, states))
    console.print(graph_tree(graph, states))
    say("\nThe same as Mermaid text, for any viewer:\n")
    say(orders.mermaid(states))
    if result.status == "success":
        console.print(totals_table(result.result))
        console.print(rejected_table(result.result))


# --- the processes -------------------------------------------------------------------------------------------------

PARTS = {"begin": begin, "decide": decide}


def broker_of(app: Any) -> str:
    """The broker's URL, without user and password."""
    parts = urlsplit(app.conf.broker_url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def part(name: str, batch: str) -> None:
    """One part of the demo, with workers of its own: what this process does."""
    from app import EMBEDDED, app, orchestrator

    embedded = app.conf.broker_url == EMBEDDED
    where = "a worker and its broker in this process" if embedded else f"{WORKERS} worker processes on {broker_of(app)}"
    say(f"Celery: {where}; runs in {orchestrator.store.url}")
    workers = embedded_worker(app) if embedded else worker_processes()
    with orchestrator, workers as wrong:
        PARTS[name](orchestrator, wrong, batch)


def process(name: str, batch: str) -> int:
    """One part of the demo in a fresh Python process; returns its exit code."""
    say(f"--- process {list(PARTS).index(name) + 1} of {len(PARTS)}: {PARTS[name].__doc__}")
    child = subprocess.Popen([sys.executable, str(Path(__file__).resolve()), name, batch])
    while True:
        try:
            code = child.wait()
        except KeyboardInterrupt:
            continue  # the terminal has told the child too, which stops its workers first
        say(f"--- process {child.pid} has ended\n")
        return code


def demo(folder: Path) -> int:
    """Both parts, one after the other; they share nothing but the store."""
    if not os.environ.get("BROKER_URL"):
        os.environ.setdefault("ORCHESTRATOR_STORE", f"sqlite:///{folder / 'runs.db'}")
    batch, begun = uuid.uuid4().hex[:8], time.monotonic()
    for name in PARTS:
        if code := process(name, batch):
            return code
    say(f"All as expected, in {time.monotonic() - begun:.1f} s.")
    return 0


def main(arguments: list[str]) -> int:
    # What the workers have to say goes to their logs; of this process only what is wrong is shown.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        if arguments:
            part(*arguments)
            return 0
        with tempfile.TemporaryDirectory(prefix="orders-", ignore_cleanup_errors=True) as folder:
            return demo(Path(folder))
    except (Unexpected, OrchestratorError, OSError, TimeoutError) as error:
        say(f"The demo failed: {error}", style="red")
        return 1
    except KeyboardInterrupt:
        say("Stopped.")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
