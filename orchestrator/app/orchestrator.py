"""The `Orchestrator`: chooses the runtime and the store, and wires them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Self

from orchestrator.app.configuration import CeleryApp, configured, listed, require_app
from orchestrator.app.run import Run
from orchestrator.app.runs import Runs
from orchestrator.app.stream import Watch
from orchestrator.core.graph import Path
from orchestrator.core.records import Header, RunState, undotted
from orchestrator.definitions import Workflow
from orchestrator.engine import restart
from orchestrator.engine.client_ops import Beginning
from orchestrator.engine.contexts import Contexts, resource_text
from orchestrator.engine.delivery import Engine
from orchestrator.engine.read.run_reader import Reader
from orchestrator.engine.registry import Registry
from orchestrator.engine.services import Services
from orchestrator.errors import (
    NoConsumer,
    OrchestratorError,
    RestartAlreadyClaimed,
    RunNotActive,
    RunNotFound,
    StoreUnavailable,
    WorkflowNotRegistered,
)
from orchestrator.host import SystemClock, new_run_id
from orchestrator.local import LocalRuntime
from orchestrator.ports import Clock, RunQuery, Store
from orchestrator.stores import open_store

_MOST_RESTARTED = 10_000
_RUN_ID = re.compile(r"[^\s/]{1,200}")
_PATH = re.compile(r"\d{1,9}(\.\d{1,9})*", re.ASCII)


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
        known = listed(workflows)
        self.app = app
        url, self.settings = configured(app, store, settings)
        self._owns_store = isinstance(url, str)
        self.store: Store = open_store(url) if isinstance(url, str) else url
        clock: Clock = getattr(self.store, "clock", None) or SystemClock()
        self.registry = Registry()
        contexts = Contexts(self.settings)
        self.local: LocalRuntime | None = None
        self.runs = Runs(self)
        self._watches: list[Watch] = []
        self.engine = self._engine(clock, contexts)
        for workflow in known:
            self.register(workflow)

    def _engine(self, clock: Clock, contexts: Contexts) -> Engine:
        if self.app is None or self.app.conf.task_always_eager:
            services = Services(self.store, self.settings, clock, contexts, self)
            self.local = LocalRuntime(clock, alone=self.app is not None)
            engine = Engine(services, self.registry, self.local)
            self.local.attach(engine)
            return engine
        from orchestrator.tasks import install

        parts = install(self.app, self)
        services = Services(parts.store, self.settings, clock, contexts, self)
        return Engine(services, self.registry, parts.runtime, stopping=parts.is_stopping)

    def register(self, workflow: Workflow) -> Workflow:
        """Make a committed workflow known here, and `workflow.delay` start it here."""
        self.registry.add(workflow)
        self.engine.runtime.adopt(workflow)
        if self.local is not None and self.app is not None:  # eager mode: a task by its id, as on workers
            from orchestrator.tasks.starting import open_door

            open_door(self.app, self, workflow)
        workflow.bind(self)
        return workflow

    def workflow(self, workflow_id: str) -> Workflow:
        """A registered workflow. Raises `WorkflowNotRegistered`."""
        found = self.registry.get(workflow_id)
        if found is None:
            known = ", ".join(sorted(workflow.id for workflow in self.registry.all())) or "none"
            text = f"workflow {workflow_id!r} is not registered here (known: {known}): pass it in `workflows`"
            raise WorkflowNotRegistered(text, workflow_id=workflow_id)
        return found

    # --- runs ------------------------------------------------------------------------------------------------------

    def create_run(self, workflow: Workflow | str, *, run_id: str | None = None, resource_id: str | None = None) -> Run:
        """A pending run; the stored one where the id exists already.

        Raises `FlowNotDefined`, `FlowNotCommitted`, `WorkflowNotRegistered`, ValueError for an id that is none,
        `OrchestratorError` where the id is another workflow's, and RuntimeError where the app has come to be eager.
        """
        self._refuse_late_eagerness()
        if isinstance(workflow, Workflow):
            workflow.require_committed()
            if self.registry.get(workflow.id) is not workflow:
                self.register(workflow)
        flow = self.workflow(workflow.id if isinstance(workflow, Workflow) else workflow)
        if run_id is not None and (not _RUN_ID.fullmatch(run_id) or not run_id.isprintable()):
            raise ValueError(f"run id {run_id!r}: 1 to 200 printable characters, no blanks and no '/'")
        header = Header(
            run_id=run_id or new_run_id(),
            workflow_id=flow.id,
            resource_id=resource_text(resource_id),
            fingerprint=flow.compiled.fingerprint,
            namespace=self.settings.namespace,
            runtime=self.engine.runtime.name,
            quiet=not flow.emit_step_events,
            auto_restart=flow.auto_restart,
        )
        stored = self.store.create(header)
        if stored.workflow_id != flow.id:
            text = f"run {stored.run_id!r} is a run of workflow {stored.workflow_id!r}, not of {flow.id!r}"
            raise OrchestratorError(text, run_id=stored.run_id, workflow_id=flow.id)
        return Run(self, stored.run_id, flow.id)

    def _refuse_late_eagerness(self) -> None:
        """Raise RuntimeError rather than send messages to the broker for somebody who wants none sent."""
        if self.local is None and self.app is not None and self.app.conf.task_always_eager:
            raise RuntimeError(
                "task_always_eager was switched on after the Orchestrator was made, which sends its messages to the "
                "broker all the same: set task_always_eager before the Orchestrator is made"
            )

    def get_run(self, run_id: str) -> Run:
        """A stored run, or, as `<run id>/<path>`, a nested workflow of one. Raises `RunNotFound`."""
        reader = self.reader_of(run_id)
        if reader is None:
            raise RunNotFound(f"there is no run {run_id!r}", run_id=run_id)
        return Run(self, reader.run_id, reader.workflow_id)

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
        """What `workflow.delay` and `apply_async` do.

        Create a run and start it, now, in `countdown` seconds or at `eta`. A start that is refused leaves nothing.
        """
        delay = round((countdown or 0.0) * 1000)
        if eta is not None:
            moment = eta if eta.tzinfo else eta.astimezone()
            delay = max(0, round(moment.timestamp() * 1000) - self.store.now())
        is_new = run_id is None or self.store.header(run_id) is None
        run = self.create_run(workflow, run_id=run_id, resource_id=resource_id)
        try:
            run._start(Beginning(input, state, request_context or {}), delay)
        except Exception:  # whatever it is, it is raised again
            if is_new:
                with suppress(StoreUnavailable):
                    self.store.delete(run.run_id, frozenset({RunState.PENDING.value}))
            raise
        self.drive_in_background(run.run_id)
        return run

    def restart_active(self) -> list[str]:
        """Restart every active run of the registered workflows that this runtime owns; for the boot of a process whose
        predecessor died. Workflows with `auto_restart=False` are left alone. Returns the ids of the runs.

        In the default runtime this process sees from now on to the timeouts of runs that wait for an event, too."""
        restarted: list[str] = []
        for workflow in self.registry.all():
            if workflow.auto_restart:
                restarted += self._restart_all(workflow.id)
            self._watch_all(workflow.id)
        return restarted

    def _watch_all(self, workflow_id: str) -> None:
        if self.local is None:
            return
        query = RunQuery(workflow_id=workflow_id, status=RunState.SUSPENDED.value, limit=_MOST_RESTARTED)
        for header in self.store.runs(query).headers:
            if self._owns(header) and header.waiting:
                self.local.watch(header.run_id)

    def _restart_all(self, workflow_id: str) -> list[str]:
        query = RunQuery(workflow_id=workflow_id, status=RunState.RUNNING.value, limit=_MOST_RESTARTED)
        restarted = []
        for header in self.store.runs(query).headers:
            if not self._owns(header):
                continue
            try:
                restart.restart(self.engine, header)
            except (RestartAlreadyClaimed, RunNotActive):
                continue
            self.drive_in_background(header.run_id)
            restarted.append(header.run_id)
        return restarted

    def may_purge(self, header: Header) -> bool:
        """Whether the run is not one of another app's that shares the store."""
        return self.local is not None or header.namespace == self.settings.namespace

    def _owns(self, header: Header) -> bool:
        """Whether the run is this application's: several may share a store, each with a namespace of its own."""
        return header.runtime == self.engine.runtime.name and header.namespace == self.settings.namespace

    # --- for `Run` ---------------------------------------------------------------------------------------------------

    def reader(self, header: Header, scope: Path = ()) -> Reader:
        """Reads one stored run, or a nested workflow of it, with types where its workflow is known here."""
        return Reader(self.store, header, self.engine.known_graph(header), scope)

    def reader_of(self, run_id: str) -> Reader | None:
        """Reads what this id means: a run, or a nested workflow (`<run id>/<path>`); None where there is none."""
        root, _, path = run_id.partition("/")
        header = self.store.header(root) if not path or _PATH.fullmatch(path) else None
        if header is None or not path:
            return None if header is None or run_id != root else self.reader(header)
        reader = self.reader(header, undotted(path))
        return reader if reader.is_there() else None

    def require_consumer(self, run: Run) -> None:
        """Raise `NoConsumer` where a blocking call would wait for ever."""
        if self.local is None and not self.store.workers(self.settings.namespace):
            text = (
                "no event consumer is running: start a worker of this app (celery -A … worker) that has the "
                "orchestrator registered, or use `.submit()`, which does not wait"
            )
            raise NoConsumer(text, run_id=run.run_id, workflow_id=run.workflow_id)

    def drive(self, run_id: str, timeout: float | None = None) -> None:
        """Do the run's work here, in the default runtime; what `timeout` (seconds) leaves undone, in the background."""
        if self.local is not None:
            self.local.drive(run_id, timeout)

    def drive_in_background(self, run_id: str) -> None:
        """The same, without waiting; in eager mode, without waiting for timers."""
        if self.local is not None:
            self.local.drive_in_background(run_id)

    def lost(self, run_id: str) -> BaseException | None:
        """Why nobody works on the run any more, where that was this process in the default runtime."""
        return self.local.lost(run_id) if self.local is not None else None

    def wake(self, run_id: str) -> None:
        """Tell the default runtime that a run was changed from outside."""
        if self.local is not None:
            self.local.wake(run_id)

    # --- closing -----------------------------------------------------------------------------------------------------

    def keep_until_closed(self, watch: Watch) -> None:
        """Stop this watcher when the orchestrator is closed."""
        self._watches = [*(kept for kept in self._watches if not kept.is_over), watch]

    def close(self) -> None:
        """Give back connections and threads. Closing twice is harmless."""
        watches, self._watches = self._watches, []
        for watch in watches:
            watch.stop()
        for watch in watches:
            watch.join()
        self.engine.keeper.close()
        if self.local is not None:
            self.local.close()
        if self._owns_store:
            self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
