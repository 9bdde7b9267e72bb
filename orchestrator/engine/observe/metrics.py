"""Numbers of runs and steps, through the OpenTelemetry API alone. Imported only where an SDK is configured, see
`observer`.

Attributes are what a workflow's author has written (ids of workflows and steps) and statuses: never a run's id.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from orchestrator.engine.observe.protocols import AttemptObserver, ObservedAttempt
from orchestrator.engine.outcome import StepOutcome
from orchestrator.errors import StoreUnavailable
from orchestrator.host import monotonic
from orchestrator.ports import RunQuery, Store
from orchestrator.rules.change import Committed, Op, UpdateActivation
from orchestrator.rules.model import FINAL, Phase, RunHeader, StoredStatus

log = logging.getLogger("orchestrator")

_FRESH = 60.0  # seconds for which a sweep lets this process speak for the store: one scheduler at a time does


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
        # Weak: the SDK keeps its instruments for ever, and a closed store is not to live as long.
        self._sweeps: WeakKeyDictionary[Store, float] = WeakKeyDictionary()
        meter.create_observable_gauge(
            "orchestrator.runs.suspended", [self._count_suspended], "{run}", "Runs that wait for somebody outside"
        )

    def observe(self, attempt: ObservedAttempt, inner: AttemptObserver) -> AttemptObserver:
        """Count a claim, and let `inner` observe it."""
        return AttemptMetrics(self, attempt, inner)

    def on_started(self, header: RunHeader) -> None:
        """Count a start."""
        self._started.add(1, _of(header))

    def on_ended(self, header: RunHeader) -> None:
        """Count an end, if this is one."""
        if header.status not in FINAL:
            return
        about = {**_of(header), "orchestrator.status": header.status}
        self._ended.add(1, about)
        self._took.record(max(0, header.ended_at - (header.started_at or header.ended_at)) / 1000, about)

    def on_taken(self, milliseconds: int, about: dict[str, str]) -> None:
        """Note how long an activation was queued that a worker has taken."""
        self._queued.record(max(0, milliseconds) / 1000, about)

    def on_attempt(self, seconds: float, status: str, about: dict[str, str]) -> None:
        """Count an attempt of a step that is over."""
        found = {**about, "orchestrator.status": status}
        self._steps.add(1, found)
        self._worked.record(seconds, found)

    def on_swept(self, store: Store, moments: Sequence[int]) -> None:
        """Note that this process sweeps the store, and that these entries were due."""
        self._sweeps[store] = monotonic()
        # The moments are of the store's clock, and this process's may differ.
        now = store.now() if moments else 0
        for moment in moments:
            self._late.record(max(0, now - moment) / 1000)

    def _count_suspended(self, _options: CallbackOptions) -> Iterable[Observation]:
        """Count when the SDK asks, in the process whose scheduler does the work."""
        # All workers together would report the same runs many times over: whoever sweeps reports them.
        for store, moment in list(self._sweeps.items()):
            if monotonic() - moment > _FRESH:
                continue
            try:
                yield Observation(store.runs(RunQuery(status=StoredStatus.SUSPENDED.value, limit=1)).total)
            except StoreUnavailable as error:
                log.debug("suspended runs were not counted: %s", error)


def _of(header: RunHeader) -> dict[str, str]:
    return {"orchestrator.workflow.id": header.workflow_id}


class AttemptMetrics:
    """Counts one claim."""

    def __init__(self, metrics: Metrics, attempt: ObservedAttempt, inner: AttemptObserver) -> None:
        self._metrics = metrics
        self._activation = attempt.activation
        self._claimed_at = attempt.header.updated_at  # by the store's clock, as all moments of an activation
        self._inner = inner
        self._about = {"orchestrator.workflow.id": attempt.workflow_id, "orchestrator.step.id": attempt.activation.step}
        self._seconds = 0.0
        self._status = ""

    def run(self, work: Callable[[], StepOutcome]) -> StepOutcome:
        """Measure the work, and how long it was in the queue."""
        activation = self._activation
        # A retry was not queued but paused, and other phases are claimed without a queue in between.
        if activation.queued_at and not activation.attempt and activation.phase == Phase.RUN:
            self._metrics.on_taken(self._claimed_at - activation.queued_at, self._about)
        begun = monotonic()
        try:
            return self._inner.run(work)
        finally:
            self._seconds = monotonic() - begun

    def condition(self, call: Callable[[], Any], index: int | None = None) -> Any:
        """Evaluate the condition; numbers have no place for it."""
        return self._inner.condition(call, index)

    def on_failure(self, error: BaseException) -> None:
        """Leave it to the status, which tells the same."""
        self._inner.on_failure(error)

    def add_traces(self, ops: Sequence[Op]) -> Sequence[Op]:
        """Note the status that the attempt has led to."""
        for op in ops:
            if isinstance(op, UpdateActivation) and op.path == self._activation.path:
                self._status = str(op.fields.get("status", self._status))
        return self._inner.add_traces(ops)

    def on_committed(self, answer: Committed) -> None:
        """Count the attempt, or the end of the run."""
        if self._activation.phase == Phase.RUN and self._status:
            self._metrics.on_attempt(self._seconds, self._status, self._about)
        # Counted by the commit that ends the run: a repeated settling is refused, so no run ends twice here.
        if self._activation.phase == Phase.SETTLE:
            self._metrics.on_ended(answer.header)
        self._inner.on_committed(answer)
