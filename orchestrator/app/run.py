"""A handle to one run. It holds nothing but the id: any process may have one for the same run.

The file is long because each verb stands twice, waiting and not, with all its keywords typed; none of them decides.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Any

from orchestrator.app.stream import AsyncRunStream, RunStream, Until, Watch, pages
from orchestrator.core.addressing import Target, id_path, step_ids
from orchestrator.core.records import FINAL, Header, RunState, undotted
from orchestrator.engine import client_ops, restart, time_travel
from orchestrator.engine.calling import refuse_inside_step
from orchestrator.engine.client_ops import ABSENT, Beginning
from orchestrator.engine.read.events import Event
from orchestrator.engine.read.results import RunResult, RunStatus
from orchestrator.engine.read.run_reader import Reader
from orchestrator.errors import RunNotFound, RunNotSuspended, StartAlreadyClaimed
from orchestrator.host import monotonic

if TYPE_CHECKING:
    from orchestrator.app.orchestrator import Orchestrator

_CELERY_STATES = {
    RunStatus.PENDING: "PENDING",
    RunStatus.RUNNING: "STARTED",
    RunStatus.WAITING: "STARTED",
    RunStatus.SUSPENDED: "SUSPENDED",
    RunStatus.PAUSED: "SUSPENDED",
    RunStatus.SUCCESS: "SUCCESS",
    RunStatus.FAILED: "FAILURE",
    RunStatus.TRIPWIRE: "FAILURE",
    RunStatus.CANCELED: "REVOKED",
}
_LOOK = 1.0  # seconds after which who waits for a run of this process sees whether anybody is still at work on it
_FOREVER = 3_600.0


@dataclass(frozen=True, slots=True)
class CancelReport:
    """What became of a cancel: the run's status now, and the ids of what could not be canceled."""

    run_id: str
    status: RunStatus
    failed: list[str] = field(default_factory=list)


class Run:
    """One run of a workflow. Blocking methods wait until the run rests: it has ended, is suspended or paused.

    A run id of the form `<run id>/<path>` speaks of a nested workflow: status and results are its own, and `resume`
    looks for what is suspended in it. Beyond that it is a part of its run: it cannot be started by itself, its events
    are those of the run, and waiting, restarting and canceling mean the run as a whole.
    """

    def __init__(self, orchestrator: Orchestrator, run_id: str, workflow_id: str) -> None:
        self.orchestrator = orchestrator
        self.run_id = run_id
        self.workflow_id = workflow_id
        self.root_id, _, path = run_id.partition("/")
        self._scope = undotted(path)

    def __repr__(self) -> str:
        return f"<Run {self.run_id} of {self.workflow_id}>"

    # --- what it is ------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The run id."""
        return self.run_id

    def header(self) -> Header:
        """What the store has of the run as a whole. Raises `RunNotFound`."""
        found = self.orchestrator.store.header(self.root_id)
        if found is None:
            raise RunNotFound(f"there is no run {self.run_id!r}", run_id=self.run_id, workflow_id=self.workflow_id)
        return found

    @property
    def status(self) -> RunStatus:
        """The run's status."""
        return self._reader(self.header()).status()

    def _reader(self, header: Header) -> Reader:
        return self.orchestrator.reader(header, self._scope)

    @property
    def resource_id(self) -> str | None:
        """Whom or what the run is for."""
        return self.header().resource_id or None

    @property
    def state(self) -> str:
        """The status in Celery's words: PENDING, STARTED, SUSPENDED, SUCCESS, FAILURE, REVOKED."""
        return _CELERY_STATES[self.status]

    def ready(self) -> bool:
        """Whether the run has ended."""
        return self.status in {RunStatus(state) for state in FINAL}

    def successful(self) -> bool:
        """Whether the run has ended well."""
        return self.status == RunStatus.SUCCESS

    def failed(self) -> bool:
        """Whether the run has failed."""
        return self.status == RunStatus.FAILED

    # --- starting --------------------------------------------------------------------------------------------------

    def start(
        self,
        input: Any = None,
        *,
        state: Mapping[str, Any] | None = None,
        request_context: Mapping[str, Any] | None = None,
        per_step: bool = False,
        timeout: float | None = None,
    ) -> RunResult:
        """Start the run and wait for what it comes to.

        Raises `InputInvalid` (nothing is stored as running), `StartAlreadyClaimed`, `NoConsumer` where no worker lives,
        `BrokerUnavailable`, and `TimeoutError` after `timeout` seconds, which leaves the run as it is.
        """
        refuse_inside_step("run.start()")
        self.orchestrator.require_consumer(self)
        begin = Beginning(input, state, request_context or {}, per_step)
        header = self._start(begin)
        return self._await(header.rests, timeout)

    def submit(
        self,
        input: Any = None,
        *,
        state: Mapping[str, Any] | None = None,
        request_context: Mapping[str, Any] | None = None,
        per_step: bool = False,
    ) -> Run:
        """Start the run and return at once. Raises as `start` does."""
        self._start(Beginning(input, state, request_context or {}, per_step))
        self.orchestrator.drive_in_background(self.root_id)
        return self

    def stream(
        self,
        input: Any = None,
        *,
        state: Mapping[str, Any] | None = None,
        request_context: Mapping[str, Any] | None = None,
        per_step: bool = False,
        close_on_suspend: bool = True,
    ) -> RunStream:
        """Start the run and follow its events. Raises as `start` does, at once.

        With `close_on_suspend=False` the stream stays open while the run is suspended or paused, until it ends.
        """
        refuse_inside_step("run.stream()")
        return self._stream(Beginning(input, state, request_context or {}, per_step), close_on_suspend)

    def astream(
        self,
        input: Any = None,
        *,
        state: Mapping[str, Any] | None = None,
        request_context: Mapping[str, Any] | None = None,
        per_step: bool = False,
        close_on_suspend: bool = True,
    ) -> AsyncRunStream:
        """The same for `async for`: the run starts, and what `start` raises is raised, when the first event is
        asked for, or `await stream.result()`.
        """
        refuse_inside_step("run.astream()")
        begin = Beginning(input, state, request_context or {}, per_step)
        return AsyncRunStream(lambda: self._stream(begin, close_on_suspend))

    def _stream(self, begin: Beginning, close_on_suspend: bool) -> RunStream:
        self.orchestrator.require_consumer(self)
        header = self._start(begin)
        self.orchestrator.drive_in_background(self.root_id)
        return RunStream(self, "", header.rests, close_on_suspend=close_on_suspend)

    def _start(self, begin: Beginning, delay: int = 0) -> Header:
        if self._scope:
            text = f"{self.run_id!r} is a nested workflow: it is started by the run that it is a part of"
            raise StartAlreadyClaimed(text, run_id=self.run_id, workflow_id=self.workflow_id)
        workflow = self.orchestrator.workflow(self.workflow_id)
        return client_ops.start(self.orchestrator.engine, workflow, self.header(), begin, delay)

    # --- waiting ---------------------------------------------------------------------------------------------------

    def result(self, timeout: float | None = None) -> RunResult:
        """Wait until the present attempt rests. Raises `TimeoutError`, which leaves the run as it is."""
        refuse_inside_step("run.result()")
        header = self.header()
        resting = header.status not in (RunState.RUNNING, RunState.PENDING)
        return self.wait_for_rest(header.rests - 1 if resting else header.rests, timeout)

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the run and return its result, or raise its error; what an `AsyncResult` would do."""
        return self.result(timeout).unwrap()

    def _await(self, rests: int, timeout: float | None) -> RunResult:
        since = monotonic()
        self.orchestrator.drive(self.root_id, timeout)
        return self.wait_for_rest(rests, timeout, since=since)

    def wait_for_rest(
        self, rests: int, timeout: float | None, *, final: bool = False, since: float | None = None
    ) -> RunResult:
        """Wait until the run has rested more often than `rests`; with `final`, until it has thereby ended.

        The timeout counts from `since`, or from now. Raises `TimeoutError`, and in the default runtime what this
        process died of while it worked on the run.
        """
        end = inf if timeout is None else (since or monotonic()) + timeout
        at_once = _FOREVER if self.orchestrator.local is None else _LOOK
        while True:
            left = min(at_once, max(0.0, end - monotonic()))
            header = self.orchestrator.store.wait(self.root_id, rests, left)
            if header is None:
                raise RunNotFound(f"run {self.run_id!r} has been deleted", run_id=self.run_id)
            resting = header.status != RunState.RUNNING  # else somebody has let it go on: the next rest tells
            if header.rests > rests and (header.status in FINAL or (resting and not final)):
                return self._reader(header).run_result()
            rests = max(rests, header.rests)
            if (error := self.orchestrator.lost(self.root_id)) is not None:
                raise error
            if monotonic() >= end:
                raise TimeoutError(f"run {self.run_id} is still {header.status} after {timeout} s")

    # --- resuming and ending -----------------------------------------------------------------------------------------

    def resume(
        self,
        data: Any = ABSENT,
        *,
        step: Any = None,
        label: str | None = None,
        index: int | None = None,
        request_context: Mapping[str, Any] | None = None,
        per_step: bool = False,
        timeout: float | None = None,
    ) -> RunResult:
        """Hand `data` to what is suspended and wait for what the run comes to next. A refusal leaves the run resumable.

        `step` (an id, a step, a list of either, a dotted path), `label` and `index` (of a foreach item) say which
        step is meant; without them it is the only one. A paused run goes on to its end, or with `per_step` by one step.
        Raises `RunNotSuspended`, `StepNotSuspended`, `ResumeAmbiguous`, `InputInvalid`, `ResumeAlreadyClaimed`,
        `GraphChanged`, `TypeError`, `TimeoutError`.
        """
        refuse_inside_step("run.resume()")
        self.orchestrator.require_consumer(self)
        header = self._resume(data, Target(step, label, index), request_context, per_step)
        return self._await(header.rests, timeout)

    def submit_resume(
        self,
        data: Any = ABSENT,
        *,
        step: Any = None,
        label: str | None = None,
        index: int | None = None,
        request_context: Mapping[str, Any] | None = None,
        per_step: bool = False,
    ) -> Run:
        """The same, without waiting."""
        self._resume(data, Target(step, label, index), request_context, per_step)
        self.orchestrator.drive_in_background(self.root_id)
        return self

    def resume_stream(
        self,
        data: Any = ABSENT,
        *,
        step: Any = None,
        label: str | None = None,
        index: int | None = None,
        request_context: Mapping[str, Any] | None = None,
        per_step: bool = False,
        close_on_suspend: bool = True,
    ) -> RunStream:
        """Resume and follow the events from there on. Raises as `resume` does, at once; ends as `stream` does."""
        refuse_inside_step("run.resume_stream()")
        self.orchestrator.require_consumer(self)
        after = self.last_event_id()
        header = self._resume(data, Target(step, label, index), request_context, per_step)
        self.orchestrator.drive_in_background(self.root_id)
        return RunStream(self, after, header.rests, close_on_suspend=close_on_suspend)

    def _resume(self, data: Any, target: Target, context: Mapping[str, Any] | None, per_step: bool) -> Header:
        header = self.header()
        if header.status == RunState.PENDING:
            text = f"run {self.run_id!r} has not been started: there is nothing to resume"
            raise RunNotSuspended(text, run_id=self.run_id, workflow_id=header.workflow_id, actual_status=header.status)
        target = replace(target, scope=self._scope)
        return client_ops.resume(self.orchestrator.engine, header, data, target, context or {}, per_step)

    def send_event(self, name: str, data: Any = None) -> None:
        """Send the event that a `wait_for_event` of this run waits for, or will wait for. Each event is heard once.

        Raises `InputInvalid`, `StepNotFound` where the workflow waits for no such event, `RunNotActive`.
        """
        client_ops.send_event(self.orchestrator.engine, self.header(), name, data)
        self.orchestrator.drive_in_background(self.root_id)

    def restart(self, *, timeout: float | None = None) -> RunResult:
        """Start again whatever the run was doing when its workers died, and wait for what it comes to.

        The caller vouches that they are dead. An ended run gives its stored result. Raises `RunNotActive`,
        `RestartAlreadyClaimed`, `TimeoutError`.
        """
        refuse_inside_step("run.restart()")
        self.orchestrator.require_consumer(self)
        header = self._restart()
        if header.status in FINAL:
            return self._reader(header).run_result()
        return self._await(header.rests, timeout)

    def submit_restart(self) -> Run:
        """The same, without waiting."""
        self._restart()
        self.orchestrator.drive_in_background(self.root_id)
        return self

    def _restart(self) -> Header:
        return restart.restart(self.orchestrator.engine, self.header())

    def time_travel(
        self,
        step: Any,
        *,
        input: Any = ABSENT,
        context: Mapping[str, Any] | None = None,
        nested_context: Mapping[str, Mapping[str, Any]] | None = None,
        resume_data: Any = ABSENT,
        state: Mapping[str, Any] | None = None,
        request_context: Mapping[str, Any] | None = None,
        per_step: bool = False,
        timeout: float | None = None,
    ) -> RunResult:
        """Let the run go on from `step` (an id, a step, a dotted path, or a list of those) and wait for what it
        comes to.

        What stands before is kept as recorded, or taken from `context` (records by step id; `nested_context`: by nested
        workflow and step id); `input` is the output of the step before, `state` takes the place of the run's;
        `resume_data` goes to the steps at or behind the target that had suspended, else to the target. A refusal writes
        nothing. Raises `StepNotFound`, `StepNotSuspended`, `RunStillRunning`, `InputInvalid`, `GraphChanged`,
        `TypeError`, `TimeoutError`.
        """
        refuse_inside_step("run.time_travel()")
        self.orchestrator.require_consumer(self)
        ids, recorded, nested = self._ids(step), context or {}, nested_context or {}
        wish = time_travel.Itinerary(ids, input, recorded, nested, resume_data, state, request_context or {}, per_step)
        header = time_travel.time_travel(self.orchestrator.engine, self.header(), wish)
        return self._await(header.rests, timeout)

    def submit_time_travel(
        self,
        step: Any,
        *,
        input: Any = ABSENT,
        context: Mapping[str, Any] | None = None,
        nested_context: Mapping[str, Mapping[str, Any]] | None = None,
        resume_data: Any = ABSENT,
        state: Mapping[str, Any] | None = None,
        request_context: Mapping[str, Any] | None = None,
        per_step: bool = False,
    ) -> Run:
        """The same, without waiting."""
        ids, recorded, nested = self._ids(step), context or {}, nested_context or {}
        wish = time_travel.Itinerary(ids, input, recorded, nested, resume_data, state, request_context or {}, per_step)
        time_travel.time_travel(self.orchestrator.engine, self.header(), wish)
        self.orchestrator.drive_in_background(self.root_id)
        return self

    def _ids(self, step: Any) -> list[str]:
        graph = client_ops.graph_of(self.orchestrator.engine, self.header()) if self._scope else None
        return [*(id_path(graph, self._scope) if graph else []), *step_ids(step)]

    def cancel(self) -> CancelReport:
        """End the run as canceled. Steps that run hear of it; a run that has ended stays as it is."""
        header = client_ops.cancel(self.orchestrator.engine, self.header())
        self.orchestrator.wake(self.root_id)
        return CancelReport(self.run_id, self._reader(header).status())

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        """Cancel, under the name that an `AsyncResult` has for it. Arguments are accepted and mean nothing."""
        self.cancel()

    # --- events ------------------------------------------------------------------------------------------------------

    def events(self, after: str | None = None) -> Iterator[Event]:
        """Replay the recorded events (after the cursor) and follow until the run rests.

        `after` is the `id` of the last event that was read: nothing is missed and nothing comes twice. Of a run that
        rests already, all that is recorded. Raises `RunNotFound`, and ValueError for what is no cursor.
        """
        base = self.header()
        resting = base.status not in (RunState.RUNNING, RunState.PENDING)
        if not resting:
            refuse_inside_step("run.events()")
        found = pages(self, after or "", Until(base.rests - 1 if resting else base.rests))
        return (event for page in found for event in page)

    def watch(self, callback: Callable[[Event], Any]) -> Callable[[], None]:
        """Call `callback` with each event of the run from now on, in a thread of its own; returns what stops that.

        A slow callback slows nothing but itself; what it raises is logged. It goes on over suspensions and ends with
        the run, or when the orchestrator is closed. Raises `RunNotFound`, and TypeError for a coroutine function:
        there is no loop to run it in (`astream` is for those).
        """
        if inspect.iscoroutinefunction(callback):
            raise TypeError(f"run.watch() calls plain functions, and {callback!r} is async: use run.astream()")
        watch = Watch(self, callback)
        self.orchestrator.keep_until_closed(watch)
        return watch.stop

    def last_event_id(self) -> str:
        """The cursor after the newest event."""
        return self.orchestrator.store.last_event(self.root_id)
