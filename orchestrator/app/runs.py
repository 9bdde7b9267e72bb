"""The runs that a store keeps: listing, reading, removing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property

from orchestrator.app.client import Client
from orchestrator.engine.contexts import resource_text
from orchestrator.engine.logs import log_context
from orchestrator.engine.read.results import RunRecord, RunStatus
from orchestrator.engine.settlement import discard_result
from orchestrator.errors import RunNotFound, RunStillRunning, ValueNotReadable
from orchestrator.ports import UNREADABLE, RunQuery
from orchestrator.rules.bounds import to_delay
from orchestrator.rules.model import FINAL, RunHeader, StoredStatus

log = logging.getLogger("orchestrator")

_FIELDS = (
    "input",
    "result",
    "error",
    "state",
    "steps",
    "suspended",
    "resume_labels",
    "resume_tokens",
    "request_context",
)
_MAX_LISTED = 10**9  # that every store can count to
_NOT_RUNNING = frozenset({*(status.value for status in StoredStatus if status is not StoredStatus.RUNNING), UNREADABLE})


@dataclass(frozen=True)
class RunPage:
    """One page of runs. Listed runs have no steps and no values."""

    # newest first
    runs: list[RunRecord]
    _count: Callable[[], int] = field(repr=False, compare=False)

    @cached_property
    def total(self) -> int:
        """The number of runs that match, on all pages. The store counts them when this is first read."""
        return self._count()


class Runs:
    """`orchestrator.runs`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(
        self,
        *,
        workflow: object = None,
        status: str | None = None,
        resource_id: str | None = None,
        awaiting: bool = False,
        limit: int = 100,
        offset: int = 0,
    ) -> RunPage:
        """List stored runs, newest first. `workflow` is one or its id; a filter that is None matches everything.

        With `awaiting`, those in which something waits for a resume or an event, while other parts may still run.
        """
        if limit < 0 or offset < 0:
            raise ValueError(f"limit and offset must not be negative, not {limit} and {offset}")
        if limit > _MAX_LISTED or offset > _MAX_LISTED:
            raise ValueError(f"limit and offset must not exceed {_MAX_LISTED}, not {limit} and {offset}")
        workflow_id = None if workflow is None else str(getattr(workflow, "id", workflow))
        if status == RunStatus.WAITING:
            return RunPage([], lambda: 0)  # a status of nested workflows only; a run that sleeps is running
        wanted_status = None if status is None else str(RunStatus(status))
        resource = None if resource_id is None else resource_text(resource_id)
        query, store = RunQuery(workflow_id, wanted_status, resource, limit, offset, awaiting), self._client.store
        readers = (self._client.reader(header) for header in store.runs(query))
        return RunPage([reader.run_record({}, nested=False) for reader in readers], lambda: store.count_runs(query))

    def get(self, run_id: str, *, fields: Sequence[str] | None = None, nested: bool = True) -> RunRecord | None:
        """Read one stored run, or a nested workflow of one (`<run id>/<path>`); None where there is none.

        `fields` names those to read of `input result error state steps suspended resume_labels resume_tokens
        request_context` (None means all). `nested` includes the steps of nested workflows, under flat keys
        (`child.step`).
        """
        known = {*_FIELDS, "status", "run_id", "workflow_id", "resource_id", "created_at", "updated_at"}
        unknown = set(fields or ()) - known
        if unknown:
            raise ValueError(f"a run has no field {', '.join(sorted(unknown))}: choose from {', '.join(_FIELDS)}")
        reader = self._client.reader_of(run_id)
        wanted = {name: fields is None or name in fields for name in _FIELDS}
        return reader.run_record(wanted, nested) if reader is not None else None

    def delete(self, run_id: str) -> None:
        """Remove a run that is not running, or one that cannot be read, and all that belongs to it.

        Raises `RunNotFound`, `RunStillRunning` (cancel it first).
        """
        store = self._client.store
        try:
            header = store.header(run_id)
        except ValueNotReadable:
            if not store.delete(run_id, _NOT_RUNNING):
                store.header(run_id)  # raises, unless it is gone by now
            return
        if header is None:
            raise RunNotFound(f"there is no run {run_id!r}", run_id=run_id)
        # A store may be asked twice, its first answer having been lost: then it finds nothing to remove, or a run that
        # somebody has created under the same id since. Either way the run that was meant is gone.
        if store.delete(run_id, _NOT_RUNNING, created_at=header.created_at):
            _log_missed_hooks(header)
            # The id may be another run's next. (A purge does not ask for that: backends drop old results themselves.)
            if header.final:
                discard_result(self._client.runtime, header)
            return
        found = store.header(run_id)
        if found is None or found.created_at != header.created_at:
            return
        header = found
        raise RunStillRunning(
            f"run {run_id!r} is {header.status}: cancel it first", run_id=run_id, actual_status=header.status
        )

    def purge(self, *, older_than: timedelta | float, status: str | None = None) -> int:
        """Remove ended runs last written before `older_than` (a timedelta or seconds) ago; returns how many.

        `status` keeps it to runs of one status, which may also be `suspended`, `paused` or `pending`; never
        `running`. Of an app, only runs of its own namespace are removed.
        """
        age = older_than.total_seconds() if isinstance(older_than, timedelta) else float(older_than)
        if age < 0:
            raise ValueError(f"older_than must not be negative, not {older_than!r}")
        before = self._client.store.now() - to_delay(age, "older_than")
        return sum(self._purge(header, before) for header in self.purgeable(before, status))

    def purgeable(self, before: int, status: str | None = None) -> Iterator[RunHeader]:
        """The headers of the runs that `purge` removes, those last written before that moment (ms), page by page."""
        statuses = [StoredStatus(status)] if status is not None else sorted(FINAL)
        if StoredStatus.RUNNING in statuses:
            raise ValueError("running runs are not purged: cancel them first")
        for each in statuses:
            after: str | None = ""
            while after is not None:
                page = self._client.store.stale_runs(each.value, before, after)
                yield from (header for header in page.headers if self._client.may_purge(header))
                after = page.after or None

    def _purge(self, header: RunHeader, before: int) -> bool:
        """Remove a run unless it has gone on since it was listed (then it is listed no more). True if it is gone."""
        store, states = self._client.store, frozenset({header.status})
        if store.delete(header.run_id, states, created_at=header.created_at, before=before):
            _log_missed_hooks(header)
            return True
        found = store.header(header.run_id)
        return found is None or found.created_at != header.created_at


def _log_missed_hooks(header: RunHeader) -> None:
    if header.calling:
        text = "run %s was removed before its hooks could be called: they are not called any more"
        log.warning(text, header.run_id, extra=log_context(header))
