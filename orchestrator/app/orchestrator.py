"""The `Orchestrator`: registers workflows, and makes runs of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from typing import Any, Self

from orchestrator.app.client import Client
from orchestrator.app.composition import compose, join_app
from orchestrator.app.configuration import (
    CeleryApp,
    check_keywords,
    check_store,
    check_workflows,
    read_settings,
    refuse_real_database,
    require_app,
)
from orchestrator.app.django_database import remember_databases
from orchestrator.app.run import Run
from orchestrator.app.runs import Runs
from orchestrator.background import ForkSafeLock
from orchestrator.definitions import Workflow
from orchestrator.definitions.foreign import zoned
from orchestrator.engine import client_ops, restart
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
from orchestrator.host import new_first_commit, new_run_id, new_token
from orchestrator.ports import RunQuery, Store
from orchestrator.rules.bounds import to_delay
from orchestrator.rules.model import RunHeader, StoredStatus

_PAGE = 1_000  # runs that are listed at a time
log = logging.getLogger("orchestrator")

_RUN_ID = re.compile(r"[^\s/]{1,200}")


class Orchestrator:
    """Runs workflows: in this process, or, given a Celery app, on its workers.

    Settings are keywords, or else are read from the app's configuration (`orchestrator_lease_seconds`, …). One per
    Celery app.

    The app's configuration is read at the first use (a run, `store`, `settings`) and by a worker at its start, and
    counts as it is then. That raises ValueError for a setting that is wrong or missing, and for one of Celery's by
    which runs would hang.
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
        check_store(store)
        known = check_workflows(workflows)
        check_keywords(settings)
        remember_databases()
        self.app = app
        self._store, self._keywords = store, settings
        self._registry = Registry()
        self._client: Client | None = None
        self._composing = ForkSafeLock()
        self._parts = None if app is None else join_app(app, self)
        if app is None:
            self._compose()  # there is nothing to wait for
        for workflow in known:
            self.register(workflow)

    @property
    def client(self) -> Client:
        """The store, the engine and the runtime. They are composed when this is first read; see the class."""
        # At each use: a test may begin after the first.
        refuse_real_database(self.app, self._store)
        return self._client or self._compose()

    def _compose(self) -> Client:
        with self._composing:
            if self._client is None:
                store, settings = read_settings(self.app, self._store, self._keywords)
                self._client = compose(self.app, store, settings, self, self._registry, self._parts)
            return self._client

    @cached_property
    def runs(self) -> Runs:
        """The stored runs: to list, read and remove them."""
        return Runs(self.client)

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
        return self._registry

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.client.settings

    def register(self, workflow: Workflow) -> Workflow:
        """Make a committed workflow known here, and `workflow.delay` start it here."""
        remember_databases()
        with self._composing:
            self._registry.add(workflow)
            if self._parts is not None:
                self._parts.register(workflow)
            if self._client is not None:
                self._client.runtime.register_workflow(workflow)
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
        stored, _ = self._create(self._flow_of(workflow), run_id, resource_id)
        return Run(self.client, stored.run_id, stored.workflow_id)

    def _flow_of(self, workflow: Workflow | str) -> Workflow:
        if isinstance(workflow, Workflow):
            workflow.require_committed()
            if self.registry.get(workflow.id) is not workflow:
                self.register(workflow)
        return self.workflow(workflow.id if isinstance(workflow, Workflow) else workflow)

    def _create(
        self, flow: Workflow, run_id: str | None, resource_id: str | None, patience: float = 0.0
    ) -> tuple[RunHeader, bool]:
        """Create a pending run; returns its header, and False where another call has created it before."""
        _check_run_id(run_id)
        header = RunHeader(
            run_id=run_id or new_run_id(),
            workflow_id=flow.id,
            # Messages of a run that was deleted may still be on their way. They name a `seq`, which is the number of a
            # commit: a later run of the same id must not come to it.
            commits=0 if run_id is None else new_first_commit(),
            resource_id=resource_text(resource_id),
            fingerprint=flow.compiled.fingerprint,
            namespace=self.settings.namespace,
            runtime=self.client.runtime.name,
            quiet=not flow.emit_step_events,
            auto_restart=flow.auto_restart,
            last_request_id=new_token(),
        )
        # A repeat meets its own run, which it knows by the id of the request.
        stored = self.executor.services.retry_while_unavailable(
            lambda: self.store.create(header), patience, interruptions=0
        )
        if stored.workflow_id != flow.id:
            text = f"run {stored.run_id!r} is a run of workflow {stored.workflow_id!r}, not of {flow.id!r}"
            raise OrchestratorError(text, run_id=stored.run_id, workflow_id=flow.id)
        return stored, stored.last_request_id == header.last_request_id

    def _refuse_late_eagerness(self) -> None:
        """Raise RuntimeError where the app has become eager since the orchestrator was made."""
        # Eager mode promises that no messages are sent, and this orchestrator would send them.
        if self.client.runtime.is_shared and self.app is not None and self.app.conf.task_always_eager:
            raise RuntimeError(
                "task_always_eager was switched on after the first use of the Orchestrator, which sends its messages "
                "to the broker all the same: set task_always_eager before the Orchestrator is used"
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
        patience: float = 0.0,
    ) -> Run:
        """Create a run and start it, now, in `countdown` seconds or at `eta`. A start that is refused leaves nothing.

        `workflow.delay` and `apply_async` call it. An `eta` without a zone is UTC, as Celery takes it. With `patience`
        it waits so many seconds for a store that is away, and a broker that is away is left to the scheduler, whatever
        the settings say.
        """
        if countdown is not None and eta is not None:
            raise ValueError(f"a run starts at one moment: give countdown={countdown!r} or eta={eta!r}, not both")
        delay = to_delay(countdown or 0.0, "countdown")
        if eta is not None:
            delay = to_delay(zoned(eta, self.app).timestamp() - self.store.now() / 1000, "eta")
        self._refuse_late_eagerness()
        flow, begin = self._flow_of(workflow), StartOptions(input, state, request_context or {})
        header = self._launch(flow, run_id, resource_id, begin, delay, patience)
        self.client.runtime.drive_in_background(header.run_id)
        return Run(self.client, header.run_id, flow.id)

    def _launch(
        self,
        flow: Workflow,
        run_id: str | None,
        resource_id: str | None,
        begin: StartOptions,
        delay: int,
        patience: float,
        looks: int = 3,
    ) -> RunHeader:
        header, is_ours = self._create(flow, run_id, resource_id, patience)
        try:
            return client_ops.start(self.executor, flow, header, begin, delay, patience=patience, is_repeat=not is_ours)
        except RunNotFound:
            if looks == 0:
                raise
        except Exception:  # whatever it is, it is raised again
            if is_ours:
                self._remove_unstarted(header)
            raise
        # Who had created the run was refused, and has removed it meanwhile.
        return self._launch(flow, run_id, resource_id, begin, delay, patience, looks - 1)

    def _remove_unstarted(self, header: RunHeader) -> None:
        # Only what this call has created: a run that another process has made of the same id is that one's to start.
        with suppress(StoreUnavailable):
            pending = frozenset({StoredStatus.PENDING.value})
            self.store.delete(header.run_id, pending, created_at=header.created_at)

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
        for header in self._list_own(workflow_id, StoredStatus.SUSPENDED):
            if header.waiting:
                self.client.runtime.arm_timeouts(header.run_id)

    def _restart_all(self, workflow_id: str) -> list[str]:
        restarted = []
        for header in self._list_own(workflow_id, StoredStatus.RUNNING):
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

    def _list_own(self, workflow_id: str, status: StoredStatus) -> list[RunHeader]:
        """List all runs of this application with this status, however many there are."""
        found: dict[str, RunHeader] = {}
        known = -1
        # Runs that end meanwhile move the others to earlier pages. So it is listed until nothing new is found.
        while len(found) > known:
            known, offset = len(found), 0
            while page := self.store.runs(RunQuery(workflow_id, status.value, limit=_PAGE, offset=offset)):
                found.update((header.run_id, header) for header in page if header.run_id not in found)
                offset += len(page)
            if known < 0 and offset <= _PAGE:
                break  # all of them were read at one moment
        return [header for header in found.values() if self.client.is_own(header)]

    # --- closing -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give back connections and threads. Closing twice is harmless."""
        if self._client is not None:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _check_run_id(run_id: str | None) -> None:
    """Raise ValueError for an id that is none: before a store is asked, which may not be able to say so."""
    if run_id is not None and not (_RUN_ID.fullmatch(run_id) and run_id.isprintable()):
        raise ValueError(f"run id {run_id!r}: 1 to 200 printable characters, no blanks and no '/'")
