"""Metrics of runs and steps, through the OpenTelemetry API alone.

This module is imported only where an SDK is configured (see `observer`). Attributes are ids of workflows and steps, and
statuses. A run's id is none of them: a backend keeps a series for each value of an attribute, for ever.
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
from orchestrator.rules.model import FINAL, ActivationStatus, Phase, RunHeader, StoredStatus

log = logging.getLogger("orchestrator")

_FRESH = 60.0  # seconds after a sweep in which this process reports for the store


class Metrics:
    """The instruments, all of one meter. Durations are seconds."""

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter("orchestrator")
        self._started = meter.create_counter("orchestrator.runs.started", "{run}", "Runs that were started")
        self._ended = meter.create_counter("orchestrator.runs.ended", "{run}", "Runs that have ended, by status")
        self._duration = meter.create_histogram("orchestrator.run.duration", "s", "From a run's start to its end")
        self._steps = meter.create_counter("orchestrator.steps", "{attempt}", "Attempts of steps, by status")
        self._worked = meter.create_histogram("orchestrator.step.duration", "s", "What one attempt of a step took")
        self._queued = meter.create_histogram("orchestrator.queue.wait", "s", "From the queue to a worker")
        self._late = meter.create_histogram("orchestrator.due.lag", "s", "How late the scheduler swept a timer")
        # Weak: the SDK keeps its instruments for ever, and a closed store must not live as long.
        self._sweeps: WeakKeyDictionary[Store, float] = WeakKeyDictionary()
        meter.create_observable_gauge(
            "orchestrator.runs.suspended", [self._count_suspended], "{run}", "Runs that are suspended"
        )

    def observe(self, attempt: ObservedAttempt, inner: AttemptObserver) -> AttemptObserver:
        """Count a claim, and let `inner` observe it."""
        return AttemptMetrics(self, attempt, inner)

    def on_started(self, header: RunHeader) -> None:
        """Count a start."""
        self._started.add(1, _attributes(header))

    def on_ended(self, header: RunHeader) -> None:
        """Count a run that has settled, if it has ended by that."""
        if header.status not in FINAL:
            return
        attributes = {**_attributes(header), "orchestrator.status": header.status}
        self._ended.add(1, attributes)
        # A run that was canceled before its start has no duration.
        self._duration.record(max(0, header.ended_at - (header.started_at or header.ended_at)) / 1000, attributes)

    def on_claimed(self, milliseconds: int, attributes: dict[str, str]) -> None:
        """Measure the time that a claimed activation was queued."""
        self._queued.record(max(0, milliseconds) / 1000, attributes)

    def on_attempt(self, seconds: float, status: str, attributes: dict[str, str]) -> None:
        """Count an attempt of a step that is over."""
        attributes = {**attributes, "orchestrator.status": status}
        self._steps.add(1, attributes)
        self._worked.record(seconds, attributes)

    def on_swept(self, store: Store, deadlines: Sequence[int]) -> None:
        """Note that this process sweeps the store, and measure how late it came to these timers."""
        self._sweeps[store] = monotonic()
        # Deadlines are by the store's clock, and this process's clock may differ.
        now = store.now() if deadlines else 0
        for deadline in deadlines:
            self._late.record(max(0, now - deadline) / 1000)

    def _count_suspended(self, _options: CallbackOptions) -> Iterable[Observation]:
        """Count suspended runs when the SDK asks for them."""
        # Only the process that sweeps reports: the sum over all workers would count each run many times.
        for store, swept_at in list(self._sweeps.items()):
            if monotonic() - swept_at > _FRESH:
                continue
            try:
                yield Observation(store.count_runs(RunQuery(status=StoredStatus.SUSPENDED.value)))
            except StoreUnavailable as error:
                log.debug("suspended runs were not counted: %s", error)


def _attributes(header: RunHeader) -> dict[str, str]:
    return {"orchestrator.workflow.id": header.workflow_id}


class AttemptMetrics:
    """Counts and measures one attempt."""

    def __init__(self, metrics: Metrics, attempt: ObservedAttempt, inner: AttemptObserver) -> None:
        self._metrics = metrics
        self._activation = attempt.activation
        self._claimed_at = attempt.header.updated_at  # by the store's clock, as all moments of an activation
        self._inner = inner
        names = {"orchestrator.workflow.id": attempt.workflow_id, "orchestrator.step.id": attempt.activation.step}
        self._attributes = names
        self._seconds = 0.0
        self._status = ""

    def run(self, work: Callable[[], StepOutcome]) -> StepOutcome:
        """Do the work, and measure it and the time in the queue before it."""
        activation = self._activation
        # A retry was not queued but waited for its moment, and other phases are claimed without a queue in between.
        if activation.queued_at and not activation.attempt and activation.phase == Phase.RUN:
            self._metrics.on_claimed(self._claimed_at - activation.queued_at, self._attributes)
        started = monotonic()
        try:
            return self._inner.run(work)
        finally:
            self._seconds = monotonic() - started

    def condition(self, call: Callable[[], Any], index: int | None = None) -> Any:
        """Evaluate the condition; no metric counts conditions."""
        return self._inner.condition(call, index)

    def on_failure(self, error: BaseException) -> None:
        """Pass the failure on; the attempt is counted by its status."""
        self._inner.on_failure(error)

    def add_traces(self, ops: Sequence[Op]) -> Sequence[Op]:
        """Note the status that the attempt gives its activation."""
        for op in ops:
            if isinstance(op, UpdateActivation) and op.path == self._activation.path:
                self._status = str(op.fields.get("status", self._status))
        return self._inner.add_traces(ops)

    def on_committed(self, answer: Committed) -> None:
        """Count the attempt, or the end of the run."""
        # Only now: an attempt whose commit is refused is made again by another worker, which counts it.
        # A task that was sent is counted when it has been executed.
        is_work = self._activation.phase in (Phase.RUN, Phase.EXECUTE) and self._status != ActivationStatus.SENT
        if is_work and self._status:
            self._metrics.on_attempt(self._seconds, self._status, self._attributes)
        if self._activation.phase == Phase.SETTLE:
            self._metrics.on_ended(answer.header)
        self._inner.on_committed(answer)
