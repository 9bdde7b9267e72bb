"""Each workflow as a task named by its id, for callers that have nothing but Celery.

`app.send_task("checkout", [order])` and a beat entry start a run under the message's id, so that `AsyncResult(id)`
gives the run's result. The task itself stores nothing: it would say SUCCESS long before the run has ended. For the same
reason nothing can be linked to it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from celery import Celery, Task
from celery.exceptions import Ignore, Reject

from orchestrator.definitions import Workflow
from orchestrator.engine.settings import Settings
from orchestrator.errors import StartAlreadyClaimed, StoreUnavailable

log = logging.getLogger("orchestrator")

_LINKS = ("chain", "callbacks", "errbacks", "chord")  # of a task's request, which Celery would call at its end


class Launcher(Protocol):
    """Starts runs."""

    def workflow(self, workflow_id: str) -> Workflow:
        """Return the workflow that is registered under this id."""
        ...

    def launch(self, workflow: Workflow, input: Any, *, run_id: str | None = None, patience: float = 0.0) -> Any:
        """Create a run and start it. It waits so many seconds for a store that is away."""
        ...

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        ...


def register_workflow_task(app: Celery, launcher: Launcher, workflow: Workflow) -> None:
    """Register the task. Raises ValueError where another task has the workflow's id as its name.

    Calling it again replaces the launcher, as it does for `delay`. In eager mode an app may have several.
    """
    launchers: dict[str, Launcher] = vars(app).setdefault("_orchestrator_launchers", {})
    if workflow.id in launchers:
        launchers[workflow.id] = launcher
        return
    if app.finalized and workflow.id in app.tasks:
        text = f"the Celery app has a task named {workflow.id!r} already: give the workflow another id"
        raise ValueError(text)
    launchers[workflow.id] = launcher
    workflow_id = workflow.id

    def start(self: Task, input: Any = None, *more: Any, **fields: Any) -> Any:
        if more or fields:
            raise TypeError(f"workflow {workflow_id!r} takes one input, which may be a dict: args=[input], no kwargs")
        return _start(self.request, launchers[workflow_id], workflow_id, input)

    def check() -> None:
        if not getattr(app.tasks.get(workflow_id), "starts_workflow", False):
            text = "the Celery app has a task named %r of its own: the workflow of this id has no task, give it another"
            log.error(text, workflow_id, extra={"workflow_id": workflow_id})

    start.__doc__ = workflow.description or f"Start a run of the workflow {workflow.id}."
    # Unlike a step, which has a timer in the store, a run that is not there yet is in its message alone. So the message
    # is acknowledged when the run has been started. That makes it come twice at times, and its id is the run's.
    late = {"acks_late": True, "reject_on_worker_lost": True}
    # STARTED would be written under the run's id. A message that comes again, after the run has failed, would write it
    # over the failure, and whoever waits for the result would wait for ever.
    options = {**late, "track_started": False, "shared": False}
    app.task(name=workflow.id, bind=True, starts_workflow=True, **options)(start)
    on_finalized(app, check)


def _start(request: Any, launcher: Launcher, workflow_id: str, input: Any) -> Any:
    """Start the run that a message asks for, under the message's id."""
    if linked := [name for name in _LINKS if getattr(request, name, None)]:
        text = f"workflow {workflow_id!r} cannot be followed by others ({', '.join(linked)}): its task ends when "
        raise ValueError(text + "the run has begun. Make what follows a step, or send it from the last step")
    extra = {"run_id": request.id, "workflow_id": workflow_id}
    # As long as a claim waits: a worker that waits takes no further messages.
    patience = 0.0 if request.is_eager else launcher.settings.claim_patience
    try:
        run = launcher.launch(launcher.workflow(workflow_id), input, run_id=request.id, patience=patience)
    except StartAlreadyClaimed:
        log.info("run %s has been started before: this message is a repetition", request.id, extra=extra)
    except StoreUnavailable as error:
        if request.is_eager:
            raise
        log.warning("run %s cannot be started yet: %s; its message goes back", request.id, error, extra=extra)
        raise Reject(error, requeue=True) from error
    else:
        if request.is_eager and run.ready():  # as any other eager task has its result at once
            return run.wait_until_settled(0, 0, final=True).unwrap()
        if request.called_directly:  # as a function, or by Celery's own `starmap`: no message's result is due
            return run.run_id
    raise Ignore


def on_finalized(app: Celery, act: Callable[[], None]) -> None:
    """Call `act` once the app's tasks are known: now, or when Celery finalizes the app."""
    if app.finalized:
        act()
    else:
        app.on_after_finalize.connect(lambda sender, **_: act(), weak=False)
