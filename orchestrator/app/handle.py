"""The reading half of a handle to a run: its status, its result, and waiting for it."""

from __future__ import annotations

from math import inf
from typing import Any

from orchestrator.app.client import Client
from orchestrator.engine.calling import refuse_inside_step
from orchestrator.engine.read.results import RunResult, RunStatus
from orchestrator.engine.read.run_reader import Reader
from orchestrator.errors import RunNotFound
from orchestrator.host import monotonic
from orchestrator.rules.bounds import to_timeout
from orchestrator.rules.model import FINAL, RunHeader, StoredStatus, parse_path

_CELERY_STATES = {
    RunStatus.PENDING: "PENDING",
    RunStatus.RUNNING: "STARTED",
    RunStatus.WAITING: "STARTED",
    RunStatus.SUSPENDED: "SUSPENDED",
    RunStatus.PAUSED: "SUSPENDED",
    RunStatus.SUCCESS: "SUCCESS",
    RunStatus.FAILED: "FAILURE",
    RunStatus.TRIPWIRE: "FAILURE",
    RunStatus.UNREADABLE: "FAILURE",
    RunStatus.CANCELED: "REVOKED",
}
_LOOK = 1.0  # seconds after which a waiting caller looks if this process is still at work on the run
_FIRST_PAUSE, _MAX_PAUSE = 0.01, 0.5  # seconds between looks at a run whose hooks are being called
_DELIVERY = 1000  # ms after its end for which a caller waits until the result is in the result backend as well
_MAX_WAIT = 3_600.0  # seconds of one wait for a run of workers


class RunHandle:
    """Reads one run, and waits for it. It knows only the id: any process may have a handle of the same run."""

    def __init__(self, client: Client, run_id: str, workflow_id: str) -> None:
        self.client = client
        self.run_id = run_id
        self.workflow_id = workflow_id
        self.root_id, _, path = run_id.partition("/")
        self._scope = parse_path(path)

    def __repr__(self) -> str:
        return f"<Run {self.run_id} of {self.workflow_id}>"

    @property
    def orchestrator(self) -> Any:
        """The `Orchestrator` that the handle is from."""
        return self.client.owner

    @property
    def id(self) -> str:
        """The run id."""
        return self.run_id

    def header(self) -> RunHeader:
        """Return the stored header of the run as a whole. Raises `RunNotFound`."""
        found = self.client.store.header(self.root_id)
        if found is None:
            raise RunNotFound(f"there is no run {self.run_id!r}", run_id=self.run_id, workflow_id=self.workflow_id)
        return found

    def _reader(self, header: RunHeader) -> Reader:
        return self.client.reader(header, self._scope)

    @property
    def status(self) -> RunStatus:
        """The run's status."""
        return self._reader(self.header()).status()

    @property
    def resource_id(self) -> str | None:
        """The id of the user, customer or thing that the run is for."""
        return self.header().resource_id or None

    @property
    def state(self) -> str:
        """The status as Celery names it: PENDING, STARTED, SUSPENDED, SUCCESS, FAILURE, REVOKED."""
        return _CELERY_STATES[self.status]

    def ready(self) -> bool:
        """Return True once the run has ended."""
        return self.status in {RunStatus(status) for status in FINAL}

    def successful(self) -> bool:
        """Return True if the run has ended well."""
        return self.status == RunStatus.SUCCESS

    def failed(self) -> bool:
        """Return True if the run has failed."""
        return self.status == RunStatus.FAILED

    def result(self, timeout: float | None = None) -> RunResult:
        """Wait until the run has settled. Raises `TimeoutError`, which leaves the run as it is."""
        refuse_inside_step("run.result()")
        timeout = to_timeout(timeout)
        header = self.header()
        # A run that has settled already has its result: then its last settling counts.
        has_settled = header.status not in (StoredStatus.RUNNING, StoredStatus.PENDING)
        return self.wait_until_settled(header.settle_count - 1 if has_settled else header.settle_count, timeout)

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the run and return its result, or raise its error, as an `AsyncResult` does."""
        return self.result(timeout).unwrap()

    def wait_until_settled(
        self, settle_count: int, timeout: float | None, *, final: bool = False, since: float | None = None
    ) -> RunResult:
        """Wait until the run has settled more than `settle_count` times; with `final`, until it has ended.

        The timeout counts from `since`, or from now. Raises `TimeoutError`, and in the default runtime an exception
        that has abandoned an attempt in this process.
        """
        end = inf if timeout is None else (since or monotonic()) + timeout
        longest = _MAX_WAIT if self.client.runtime.is_shared else _LOOK
        while True:
            left = min(longest, max(0.0, end - monotonic()))
            self.client.runtime.lend_thread(self.root_id, None if timeout is None else left)
            left = min(left, max(0.0, end - monotonic()))
            header = self.client.store.wait_until_settled(self.root_id, settle_count, left)
            if header is None:
                raise RunNotFound(f"run {self.run_id!r} has been deleted", run_id=self.run_id)
            # A run that has settled and is running again was resumed by another caller: then the next settling counts.
            has_settled = header.status != StoredStatus.RUNNING
            if header.settle_count > settle_count and (header.status in FINAL or (has_settled and not final)):
                self._wait_for_hooks(header, end)
                return self._reader(header).run_result()
            settle_count = max(settle_count, header.settle_count)
            if (error := self.client.runtime.failure_of(self.root_id)) is not None:
                raise error
            if monotonic() >= end:
                raise TimeoutError(f"run {self.run_id} is still {header.status} after {timeout} s")

    def _wait_for_hooks(self, header: RunHeader, end: float) -> None:
        """Wait until the hooks of a settling have been called, for the length of a lease after it at most.

        Who waits for a run has had its hooks called when it goes on. But it waits neither for attempts that follow a
        failed one, nor for a worker that is not there; and for a delivery of the result for a moment only.
        """
        store, settle_count = self.client.store, header.settle_count
        patience = round(self.client.settings.lease_seconds * 1000)
        since, pause = header.ended_at or header.updated_at, _FIRST_PAUSE
        while header.settle_count == settle_count and (header.calling or header.delivering):
            patience_left = (since + (patience if header.calling else min(patience, _DELIVERY)) - store.now()) / 1000
            left = min(patience_left, end - monotonic())
            if left <= 0:
                return
            found = store.wait_until_settled(self.root_id, settle_count, min(pause, left))
            if found is None:
                return
            header, pause = found, min(_MAX_PAUSE, 2 * pause)

    def last_event_id(self) -> str:
        """Return the cursor behind the newest event."""
        return self.client.store.last_event(self.root_id)
