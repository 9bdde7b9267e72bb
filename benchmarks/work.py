"""The work of the benchmark's worker: the same two functions as Celery tasks and as steps of workflows.

The worker imports this module with `celery -A benchmarks.work:app`, the caller too. Servers and sizes come from the
environment.
"""

from __future__ import annotations

import os

from celery import Celery

from orchestrator import Orchestrator, Workflow, step
from orchestrator.definitions.clone import clone_step

LENGTHS = [int(length) for length in os.environ["BENCH_LENGTHS"].split(",")]
WIDTHS = [int(width) for width in os.environ["BENCH_WIDTHS"].split(",")]

app = Celery("benchmark", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_BACKEND"])
app.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True, result_expires=3600)


@app.task(name="benchmark.add_one")
def task_add_one(number: int) -> int:
    return number + 1


@app.task(name="benchmark.add_up")
def task_add_up(numbers: list[int]) -> int:
    return sum(numbers)


@step
def add_one(number: int) -> int:
    return number + 1


@step
def add_up(numbers: list[int]) -> int:
    return sum(numbers)


def _sequence(length: int, *, inline: bool) -> Workflow:
    workflow = Workflow(f"sequence-{length}" + ("-inline" if inline else ""), inline=inline)
    for place in range(length):
        workflow = workflow.then(clone_step(add_one, id=f"add-{place}"))
    return workflow.commit()


SEQUENCES = {length: _sequence(length, inline=False) for length in LENGTHS}
INLINE = {length: _sequence(length, inline=True) for length in LENGTHS}
FAN_OUTS = {
    width: Workflow(f"fan-out-{width}").foreach(add_one, concurrency=width).then(add_up).commit() for width in WIDTHS
}

orchestrator = Orchestrator(
    app,
    store=os.environ["BENCH_STORE"],
    workflows=[*SEQUENCES.values(), *INLINE.values(), *FAN_OUTS.values()],
)
