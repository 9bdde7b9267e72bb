"""The `Orchestrator`: registers workflows, and makes runs of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Self

from orchestrator.app.client import Client
from orchestrator.app.composition import compose
from orchestrator.app.configuration import CeleryApp, check_workflows, read_settings, require_app
from orchestrator.app.run import Run
from orchestrator.app.runs import Runs
from orchestrator.definitions import Workflow
from orchestrator.engine import restart
from orchestrator.engine.client_ops import StartOptions
from orchestrator.engine.contexts import resource_text
from orchestrator.engine.executor import Executor
from orchestrator.engine.logs import log_context
from orchestrator.engine.registry import Registry
from orchestrator.engine.settings import Settings
from orchestrator.errors import (
    OrchestratorError,
    RestartAlreadyClaimed,
    RunNotActive,
    RunNotFound,
    SecretUnavailable,
    StoreUnavailable,
)
from orchestrator.host import new_run_id
from orchestrator.ports import RunQuery, Store
from orchestrator.rules.bounds import to_delay
from orchestrator.rules.model import RunHeader, StoredStatus

_MAX_RESTARTED = 10_000
log = logging.getLogger("orchestrator")

_RUN_ID = re.compile(r"[^\s/]{1,200}")


class Orchestrator:
    """Runs workflows: in this process, or, given a Celery app, on its workers.

    Settings are keywords, or else are read from the app's configuration (`orchestrator_store`, …). One per Celery app.
    """

    def __init__(
        self,
        app: CeleryApp | None = None,
        *,
        store: str | Store | None = None,
        workflows: Iterable[Workflow] = (),
        **settings: Any,
    ) -> None:
        require_app(app)
        known = check_workflows(workflows)
        url, chosen = read_settings(app, store, settings)
        self.app = app
        self.client: Client = compose(app, url, chosen, self)
        self.runs = Runs(self.client)
        for workflow in known:
            self.register(workflow)

    @property
    def store(self) -> Store:
        """The store of the runs, as everything here uses it."""
        return self.client.store

    @property
    def executor(self) -> Executor:
        """The executor of activations."""
        return self.client.executor

    @property
    def registry(self) -> Registry:
        """The registered workflows, by id."""
        return self.client.registry

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.client.settings

    def register(self, workflow: Workflow) -> Workflow:
        """Make a committed workflow known here, and `workflow.delay` start it here."""
        self.registry.add(workflow)
        self.client.runtime.register_workflow(workflow)
        workflow.bind(self)
        return workflow

    def workflow(self, workflow_id: str) -> Workflow:
        """Return a registered workflow. Raises `WorkflowNotRegistered`."""
        return self.client.workflow(workflow_id)

    # --- runs ------------------------------------------------------------------------------------------------------

    def create_run(self, workflow: Workflow | str, *, run_id: str | None = None, resource_id: str | None = None) -> Run:
        """Create a pending run; the stored one is returned where the id exists already.

        Raises `FlowNotDefined`, `FlowNotCommitted`, `WorkflowNotRegistered`, ValueError for an id that is none,
        `OrchestratorError` where the id is another workflow's, and RuntimeError where the app has come to be eager.
        """
        self._refuse_late_eagerness()
        if isinstance(workflow, Workflow):
            workflow.require_committed()
            if self.registry.get(workflow.id) is not workflow:
                self.register(workflow)
        flow = self.workflow(workflow.id if isinstance(workflow, Workflow) else workflow)
        _check_run_id(run_id)
        header = RunHeader(
            run_id=run_id or new_run_id(),
            workflow_id=flow.id,
            resource_id=resource_text(resource_id),
            fingerprint=flow.compiled.fingerprint,
            namespace=self.settings.namespace,
            runtime=self.client.runtime.name,
            quiet=not flow.emit_step_events,
            auto_restart=flow.auto_restart,
        )
        stored = self.store.create(header)
        if stored.workflow_id != flow.id:
            text = f"run {stored.run_id!r} is a run of workflow {stored.workflow_id!r}, not of {flow.id!r}"
            raise OrchestratorError(text, run_id=stored.run_id, workflow_id=flow.id)
        return Run(self.client, stored.run_id, flow.id)

    def _refuse_late_eagerness(self) -> None:
        """Raise RuntimeError where the app has become eager since the orchestrator was made."""
        # Eager mode promises that no messages are sent, and this orchestrator would send them.
        if self.client.runtime.is_shared and self.app is not None and self.app.conf.task_always_eager:
            raise RuntimeError(
                "task_always_eager was switched on after the Orchestrator was made, which sends its messages to the "
                "broker all the same: set task_always_eager before the Orchestrator is made"
            )

    def get_run(self, run_id: str) -> Run:
        """Return a stored run, or, as `<run id>/<path>`, a nested workflow of one. Raises `RunNotFound`."""
        reader = self.client.reader_of(run_id)
        if reader is None:
            raise RunNotFound(f"there is no run {run_id!r}", run_id=run_id)
        return Run(self.client, reader.run_id, reader.workflow_id)

    def launch(
        self,
        workflow: Workflow,
        input: Any,
        *,
        run_id: str | None = None,
        countdown: float | None = None,
        eta: datetime | None = None,
        resource_id: str | None = None,
        request_context: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Run:
        """Create a run and start it, now, in `countdown` seconds or at `eta`. A start that is refused leaves nothing.

        `workflow.delay` and `apply_async` call it.
        """
        delay = to_delay(countdown or 0.0, "countdown")
        if eta is not None:
            moment = eta if eta.tzinfo else eta.astimezone()
            delay = to_delay(moment.timestamp() - self.store.now() / 1000, "eta")
        _check_run_id(run_id)
        is_new = run_id is None or self.store.header(run_id) is None
        run = self.create_run(workflow, run_id=run_id, resource_id=resource_id)
        try:
            run._start(StartOptions(input, state, request_context or {}), delay)
        except Exception:  # whatever it is, it is raised again
            if is_new:
                with suppress(StoreUnavailable):
                    self.store.delete(run.run_id, frozenset({StoredStatus.PENDING.value}))
            raise
        self.client.runtime.drive_in_background(run.run_id)
        return run

    def restart_active(self) -> list[str]:
        """Restart every active run of the registered workflows that this runtime owns. Returns the ids of the runs.

        A process calls it at its start, where its predecessor may have died. Workflows with `auto_restart=False` are
        left alone. In the default runtime this process also ends the waits for events whose timeouts come from now on.
        """
        restarted: list[str] = []
        for workflow in self.registry.all():
            if workflow.auto_restart:
                restarted += self._restart_all(workflow.id)
            self._arm_timeouts(workflow.id)
        return restarted

    def _arm_timeouts(self, workflow_id: str) -> None:
        if self.client.runtime.is_shared:
            return  # the schedulers of the workers sweep them
        query = RunQuery(workflow_id=workflow_id, status=StoredStatus.SUSPENDED.value, limit=_MAX_RESTARTED)
        for header in self.store.runs(query).headers:
            if self.client.is_own(header) and header.waiting:
                self.client.runtime.arm_timeouts(header.run_id)

    def _restart_all(self, workflow_id: str) -> list[str]:
        query = RunQuery(workflow_id=workflow_id, status=StoredStatus.RUNNING.value, limit=_MAX_RESTARTED)
        restarted = []
        for header in self.store.runs(query).headers:
            if not self.client.is_own(header):
                continue
            try:
                restart.restart(self.executor, header)
            except (RestartAlreadyClaimed, RunNotActive):
                continue
            except SecretUnavailable as error:
                log.warning("run %s is not restarted: %s", header.run_id, error, extra=log_context(header))
                continue
            self.client.runtime.drive_in_background(header.run_id)
            restarted.append(header.run_id)
        return restarted

    # --- closing -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give back connections and threads. Closing twice is harmless."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _check_run_id(run_id: str | None) -> None:
    """Raise ValueError for an id that is none: before a store is asked, which may not be able to say so."""
    if run_id is not None and not (_RUN_ID.fullmatch(run_id) and run_id.isprintable()):
        raise ValueError(f"run id {run_id!r}: 1 to 200 printable characters, no blanks and no '/'")
