"""The client: store, engine and runtime of one application, as its handles of runs use them.

Handles get a client and not the `Orchestrator` that makes them: that stands above them in the layers.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

from orchestrator.definitions import Workflow
from orchestrator.engine.executor import Executor
from orchestrator.engine.read.run_reader import Reader
from orchestrator.engine.registry import Registry
from orchestrator.engine.settings import Settings
from orchestrator.errors import NoConsumer, WorkflowNotRegistered
from orchestrator.ports import Runtime, Store
from orchestrator.rules.graph import Path
from orchestrator.rules.model import RunHeader, parse_path

_PATH = re.compile(r"\d{1,9}(\.\d{1,9})*", re.ASCII)


class Stoppable(Protocol):
    """A thread that ends by itself, or when `stop` is called."""

    @property
    def is_over(self) -> bool:
        """True once it has ended."""
        ...

    def stop(self) -> None:
        """End it soon."""
        ...

    def join(self) -> None:
        """Wait until it has ended."""
        ...


class Client:
    """Holds one application's store, settings, workflows, engine and runtime, and makes readers of runs.

    `owner` is the `Orchestrator` that user code sees. With `owns_store` the store is closed with the client.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        registry: Registry,
        executor: Executor,
        runtime: Runtime,
        *,
        owner: Any,
        owns_store: bool,
    ) -> None:
        self.store = store
        self.settings = settings
        self.registry = registry
        self.executor = executor
        self.runtime = runtime
        self.owner = owner
        self._owns_store = owns_store
        self._watchers: list[Stoppable] = []

    def workflow(self, workflow_id: str) -> Workflow:
        """Return a registered workflow. Raises `WorkflowNotRegistered`."""
        found = self.registry.get(workflow_id)
        if found is None:
            known = ", ".join(sorted(workflow.id for workflow in self.registry.all())) or "none"
            text = f"workflow {workflow_id!r} is not registered here (known: {known}): pass it in `workflows`"
            raise WorkflowNotRegistered(text, workflow_id=workflow_id)
        return found

    def reader(self, header: RunHeader, scope: Path = ()) -> Reader:
        """Make a reader of a stored run, or of a nested workflow in it, with types where its workflow is known here."""
        return Reader(self.store, header, self.executor.graph_if_same(header), scope)

    def reader_of(self, run_id: str) -> Reader | None:
        """Make a reader of the run or nested workflow (`<run id>/<path>`) with this id; None where there is none."""
        root, _, path = run_id.partition("/")
        header = self.store.header(root) if not path or _PATH.fullmatch(path) else None
        if header is None or not path:
            return None if header is None or run_id != root else self.reader(header)
        reader = self.reader(header, parse_path(path))
        return reader if reader.is_there() else None

    def is_own(self, header: RunHeader) -> bool:
        """Return True if the run is this application's."""
        # Several applications may share a store, each with a namespace of its own.
        return header.runtime == self.runtime.name and header.namespace == self.settings.namespace

    def may_purge(self, header: RunHeader) -> bool:
        """Return False if the run belongs to another app that shares the store."""
        return not self.runtime.is_shared or header.namespace == self.settings.namespace

    def require_consumer(self, run_id: str, workflow_id: str) -> None:
        """Raise `NoConsumer` where a blocking call would wait for ever."""
        if self.runtime.is_shared and not self.store.workers(self.settings.namespace):
            text = (
                "no event consumer is running: start a worker of this app (celery -A … worker) that has the "
                "orchestrator registered, or use `.submit()`, which does not wait"
            )
            raise NoConsumer(text, run_id=run_id, workflow_id=workflow_id)

    def keep_until_closed(self, watcher: Stoppable) -> None:
        """Stop this watcher when the client is closed."""
        self._watchers = [*(known for known in self._watchers if not known.is_over), watcher]

    def close(self) -> None:
        """Give back connections and threads. Closing twice is harmless."""
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher.stop()
        for watcher in watchers:
            watcher.join()
        # Running attempts may still renew their leases and commit, so the store is closed last.
        self.executor.keeper.close()
        self.runtime.close()
        if self._owns_store:
            self.store.close()
