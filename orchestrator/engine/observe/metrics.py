"""Numbers of runs and steps, through the OpenTelemetry API alone. Imported only where an SDK is configured, see
`telemetry`.

Attributes are what a workflow's author has written (ids of workflows and steps) and statuses: never a run's id.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from orchestrator.core.changes import Committed, Op, Set
from orchestrator.core.records import FINAL, Header, Phase, RunState
from orchestrator.engine.observe.observer import Watch
from orchestrator.errors import StoreUnavailable
from orchestrator.host import monotonic
from orchestrator.ports import RunQuery, Store

if TYPE_CHECKING:
    from orchestrator.engine.activity import Activity
    from orchestrator.engine.steps import Followed

log = logging.getLogger("orchestrator")

_FRESH = 60.0  # seconds for which a sweep lets this process speak for the store: one ticker at a time does


class Metrics:
    """The instruments, all of one meter. Durations are seconds."""

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter("orchestrator")
        self._started = meter.create_counter("orchestrator.runs.started", "{run}", "Runs that were started")
        self._ended = meter.create_counter("orchestrator.runs.ended", "{run}", "Runs that have ended, by status")
        self._took = meter.create_histogram("orchestrator.run.duration", "s", "From a run's start to its end")
        self._steps = meter.create_counter("orchestrator.steps", "{attempt}", "Attempts of steps, by status")
        self._worked = meter.create_histogram("orchestrator.step.duration", "s", "What one attempt of a step took")
        self._queued = meter.create_histogram("orchestrator.queue.wait", "s", "From the queue to a worker")
        self._late = meter.create_histogram("orchestrator.due.lag", "s", "How late the ticker came to what was due")
        self._sweeps: WeakKeyDictionary[Store, float] = WeakKeyDictionary()
        meter.create_observable_gauge(
            "orchestrator.runs.suspended", [self._suspended], "{run}", "Runs that wait for somebody outside"
        )

    def watch(self, activity: Activity, inner: Watch) -> Watch:
        """Count a claim, and let `inner` watch it."""
        return MetricsWatch(self, activity, inner)

    def started(self, header: Header) -> None:
        """A run was started."""
        self._started.add(1, _of(header))

    def ended(self, header: Header) -> None:
        """A run has ended, if this is an end."""
        if header.status not in FINAL:
            return
        about = {**_of(header), "orchestrator.status": header.status}
        self._ended.add(1, about)
        self._took.record(max(0, header.ended_at - (header.started_at or header.ended_at)) / 1000, about)

    def waited(self, milliseconds: int, about: dict[str, str]) -> None:
        """A worker has taken an activation from the queue."""
        self._queued.record(max(0, milliseconds) / 1000, about)

    def worked(self, seconds: float, status: str, about: dict[str, str]) -> None:
        """An attempt of a step is over."""
        found = {**about, "orchestrator.status": status}
        self._steps.add(1, found)
        self._worked.record(seconds, found)

    def swept(self, store: Store, moments: Sequence[int]) -> None:
        """This process sweeps the store, and these entries were due."""
        self._sweeps[store] = monotonic()
        now = store.now() if moments else 0
        for moment in moments:
            self._late.record(max(0, now - moment) / 1000)

    def _suspended(self, _options: CallbackOptions) -> Iterable[Observation]:
        """Counted when the SDK asks, by the process whose ticker does the work."""
        for store, moment in list(self._sweeps.items()):
            if monotonic() - moment > _FRESH:
                continue
            try:
                yield Observation(store.runs(RunQuery(status=RunState.SUSPENDED.value, limit=1)).total)
            except StoreUnavailable as error:
                log.debug("suspended runs were not counted: %s", error)


def _of(header: Header) -> dict[str, str]:
    return {"orchestrator.workflow.id": header.workflow_id}


class MetricsWatch:
    """Counts one claim."""

    def __init__(self, metrics: Metrics, activity: Activity, inner: Watch) -> None:
        self._metrics = metrics
        self._record = activity.record
        self._claimed_at = activity.header.updated_at  # by the store's clock, as all moments of a record
        self._inner = inner
        self._about = {"orchestrator.workflow.id": activity.workflow.id, "orchestrator.step.id": activity.record.step}
        self._seconds = 0.0
        self._status = ""

    def run(self, work: Callable[[], Followed]) -> Followed:
        """Measure it, and how long it was in the queue."""
        record = self._record
        if record.queued_at and not record.attempt and record.phase == Phase.RUN:
            self._metrics.waited(self._claimed_at - record.queued_at, self._about)
        begun = monotonic()
        try:
            return self._inner.run(work)
        finally:
            self._seconds = monotonic() - begun

    def condition(self, call: Callable[[], Any], index: int | None = None) -> Any:
        """Evaluate it."""
        return self._inner.condition(call, index)

    def failed(self, error: BaseException) -> None:
        """The status says so."""
        self._inner.failed(error)

    def planned(self, ops: Sequence[Op]) -> Sequence[Op]:
        """Note what the attempt has come to."""
        for op in ops:
            if isinstance(op, Set) and op.path == self._record.path:
                self._status = str(op.fields.get("status", self._status))
        return self._inner.planned(ops)

    def committed(self, answer: Committed) -> None:
        """Count it."""
        if self._record.phase == Phase.RUN and self._status:
            self._metrics.worked(self._seconds, self._status, self._about)
        if self._record.phase == Phase.REST:
            self._metrics.ended(answer.header)
        self._inner.committed(answer)
