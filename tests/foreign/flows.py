"""The same tasks as steps."""

from __future__ import annotations

from typing import Any

from celery import Celery

from orchestrator import Orchestrator, Workflow
from tests.foreign import tasks

TIMES: dict[str, float] = {"lease_seconds": 3, "tick_seconds": 0.2}

# Each task as anybody calls it: the label comes as the input of the run.
CALLS: dict[str, Any] = {
    "add": tasks.add.s(),
    "add with more": tasks.add.s(5, y=6),
    "headers": tasks.add.s().set(headers={"x-trace": "abc"}),
    "links": tasks.add.s().set(link=tasks.noted.s(label="links"), link_error=tasks.noted_error.s(label="links")),
    "countdown": tasks.add.s().set(countdown=1),
    "expires": tasks.add.s().set(expires=600),
    "queue and limits": tasks.add.s().set(soft_time_limit=20, time_limit=30, priority=3),
    "errbacks": tasks.fails.s().set(link_error=tasks.noted_error.s(label="errbacks")),
    **{
        task.name.rsplit(".", 1)[-1]: task.s()
        for task in (
            *(tasks.called, tasks.refused, tasks.fails, tasks.flaky, tasks.exhausted, tasks.other_arguments),
            *(tasks.goes_on, tasks.automatic, tasks.not_automatic, tasks.by_task, tasks.by_chain, tasks.by_group),
            *(tasks.by_chord, tasks.by_failing_chain, tasks.ignored, tasks.ignored_with_state, tasks.rejected),
            *(tasks.comes_again, tasks.slow, tasks.over),
        )
    },
}


def name_of(call: str) -> str:
    """The id of the workflow of a call."""
    return "flow-" + call.replace(" ", "-")


def make(app: Celery, store: str) -> Orchestrator:
    """The orchestrator of the project, with a workflow of one step for each call."""
    flows = [Workflow(name_of(call)).then(signature).commit() for call, signature in CALLS.items()]
    return Orchestrator(app, store=store, workflows=flows, **TIMES)
