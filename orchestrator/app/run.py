"""A handle to one run. Each verb stands twice, one that waits and one that does not."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Unpack, overload

from orchestrator.app.handle import RunHandle
from orchestrator.app.keywords import ResumeKeywords, StartKeywords, TravelKeywords, require_known
from orchestrator.app.streams import AsyncRunStream, EventWatcher, Following, RunStream, Until, in_thread
from orchestrator.engine import client_ops, event_ops, restart, time_travel
from orchestrator.engine.calling import refuse_inside_step
from orchestrator.engine.client_ops import UNSET, StartOptions
from orchestrator.engine.read.events import Event
from orchestrator.engine.read.results import RunResult, RunStatus
from orchestrator.engine.requests import graph_of
from orchestrator.errors import RunIsNested, RunNotSuspended, StartAlreadyClaimed
from orchestrator.host import monotonic
from orchestrator.rules.addressing import Target, id_path, step_ids
from orchestrator.rules.bounds import to_timeout
from orchestrator.rules.model import FINAL, RunHeader, StoredStatus


@dataclass(frozen=True, slots=True)
class CancelReport:
    """The outcome of a cancel."""

    run_id: str
    # The run's status now.
    status: RunStatus
    # The ids of the runs that could not be canceled.
    failed: list[str] = field(default_factory=list)


class Run(RunHandle):
    """One run of a workflow. Blocking methods wait until the run has settled: it has ended, is suspended or paused.

    A run id of the form `<run id>/<path>` names a nested workflow: status and results are its own, `resume` means the
    suspended steps inside, and `send_event` the waits inside. Beyond that it is a part of its run: it cannot be
    started, restarted or canceled by itself, its events are those of the run, and waiting means the run as a whole.
    """

    # More public methods than most classes: each verb of the public API in its ways to wait.

    # --- starting --------------------------------------------------------------------------------------------------

    def start(self, input: Any = None, *, timeout: float | None = None, **options: Unpack[StartKeywords]) -> RunResult:
        """Start the run, wait until it has settled, and return its result.

        `state` is the run's first state, `request_context` what steps see as `ctx.request_context`; with `per_step`
        the run pauses after each step.

        Raises `InputInvalid` (nothing is stored as running), `StartAlreadyClaimed`, `NoConsumer` where no worker lives,
        `BrokerUnavailable`, and `TimeoutError` after `timeout` seconds, which leaves the run as it is.
        """
        refuse_inside_step("run.start()")
        timeout = to_timeout(timeout)
        require_known("start", options, StartKeywords)
        self._require_consumer()
        return self._await(self._start(_begin_with(input, options)).settle_count, timeout)

    def submit(self, input: Any = None, **options: Unpack[StartKeywords]) -> Run:
        """Start the run and return at once. Takes the keywords of `start`, and raises as it does."""
        require_known("submit", options, StartKeywords)
        self._start(_begin_with(input, options))
        self._drive_in_background()
        return self

    def stream(
        self, input: Any = None, *, close_on_suspend: bool = True, **options: Unpack[StartKeywords]
    ) -> RunStream:
        """Start the run and follow its events. Takes the keywords of `start`, and raises as it does, at once.

        With `close_on_suspend=False` the stream stays open while the run is suspended or paused, until it ends.
        """
        refuse_inside_step("run.stream()")
        require_known("stream", options, StartKeywords)
        return self._stream(_begin_with(input, options), close_on_suspend)

    def astream(
        self, input: Any = None, *, close_on_suspend: bool = True, **options: Unpack[StartKeywords]
    ) -> AsyncRunStream:
        """Start the run and follow its events with `async for`.

        The run starts, and what `start` raises is raised, when the first event is asked for, or
        `await stream.result()`.
        """
        refuse_inside_step("run.astream()")
        require_known("astream", options, StartKeywords)
        begin = _begin_with(input, options)
        return AsyncRunStream(lambda: self._stream(begin, close_on_suspend))

    def _start(self, begin: StartOptions, delay: int = 0) -> RunHeader:
        """Commit the start of the run, `delay` ms from now. The caller has to drive it afterwards."""
        if self._scope:
            text = f"{self.run_id!r} is a nested workflow: it is started by the run that it is a part of"
            raise StartAlreadyClaimed(text, run_id=self.run_id, workflow_id=self.workflow_id)
        workflow = self.client.workflow(self.workflow_id)
        return client_ops.start(self.client.executor, workflow, self.header(), begin, delay)

    def _stream(self, begin: StartOptions, close_on_suspend: bool) -> RunStream:
        self._require_consumer()
        header = self._start(begin)
        self._drive_in_background()
        return RunStream(self, "", header.settle_count, close_on_suspend=close_on_suspend)

    def _require_consumer(self) -> None:
        self.client.require_consumer(self.run_id, self.workflow_id)

    def _drive_in_background(self) -> None:
        self.client.runtime.drive_in_background(self.root_id)

    def _await(self, settle_count: int, timeout: float | None) -> RunResult:
        since = monotonic()
        self.client.runtime.drive(self.root_id, timeout)
        return self.wait_until_settled(settle_count, timeout, since=since)

    # --- resuming --------------------------------------------------------------------------------------------------

    def resume(
        self, data: Any = UNSET, *, timeout: float | None = None, **options: Unpack[ResumeKeywords]
    ) -> RunResult:
        """Give `data` to a suspended step and wait until the run settles again. A refused run stays resumable.

        `step` (an id, a step, a list of either, a dotted path), `label` and `index` (of a foreach item) name the step.
        Without them the run has one suspended step, and it is that. A `token` names one suspension of a step, as
        `RunResult.resume_tokens` shows it: an answer to it goes to no later one. `request_context` is merged into the
        run's. A paused run goes on to its end, or with `per_step` by one step.

        Raises `RunNotSuspended`, `StepNotSuspended`, `SuspensionOver`, `ResumeAmbiguous`, `InputInvalid`,
        `ResumeAlreadyClaimed`, `GraphChanged`, `TypeError`, `TimeoutError`.
        """
        refuse_inside_step("run.resume()")
        timeout = to_timeout(timeout)
        require_known("resume", options, ResumeKeywords)
        self._require_consumer()
        return self._await(self._resume(data, options).settle_count, timeout)

    def submit_resume(self, data: Any = UNSET, **options: Unpack[ResumeKeywords]) -> Run:
        """Resume without waiting. Takes the keywords of `resume`, and raises as it does."""
        require_known("submit_resume", options, ResumeKeywords)
        self._resume(data, options)
        self._drive_in_background()
        return self

    def resume_stream(
        self, data: Any = UNSET, *, close_on_suspend: bool = True, **options: Unpack[ResumeKeywords]
    ) -> RunStream:
        """Resume and follow the events from there on. Raises as `resume` does, at once; ends as `stream` does."""
        refuse_inside_step("run.resume_stream()")
        require_known("resume_stream", options, ResumeKeywords)
        self._require_consumer()
        after = self.last_event_id()
        header = self._resume(data, options)
        self._drive_in_background()
        return RunStream(self, after, header.settle_count, close_on_suspend=close_on_suspend)

    def _resume(self, data: Any, options: ResumeKeywords) -> RunHeader:
        header = self.header()
        if header.status == StoredStatus.PENDING:
            text = f"run {self.run_id!r} has not been started: there is nothing to resume"
            raise RunNotSuspended(text, run_id=self.run_id, workflow_id=header.workflow_id, actual_status=header.status)
        named = options.get("step"), options.get("label"), options.get("index")
        target = Target(*named, self._scope, options.get("token"))
        context, per_step = options.get("request_context") or {}, options.get("per_step", False)
        return client_ops.resume(self.client.executor, header, data, target, context, per_step)

    def send_event(self, name: str, data: Any = None) -> None:
        """Send the event that a `wait_for_event` of this run waits for, or will wait for. One wait receives it.

        A nested workflow has no mailbox of its own, so an event that is sent to it goes to a wait that has begun.
        Raises `InputInvalid`, `StepNotFound` where the workflow waits for no such event, `RunNotActive`, and
        `StepNotSuspended` where no wait of a nested workflow has begun.
        """
        event_ops.send_event(self.client.executor, self.header(), name, data, self._scope)
        self._drive_in_background()

    # --- restarting and traveling ----------------------------------------------------------------------------------

    def restart(self, *, timeout: float | None = None) -> RunResult:
        """Run the steps again that the run's dead workers have left unfinished, and wait until the run has settled.

        The caller vouches that the workers are dead. Of an ended run the stored result is returned. Raises
        `RunNotActive`, `RestartAlreadyClaimed`, `RunIsNested`, `TimeoutError`.
        """
        refuse_inside_step("run.restart()")
        timeout = to_timeout(timeout)
        self._require_consumer()
        header = self._restart()
        # Of an ended run the hooks that had not been called are called, and its result is there already.
        return self._await(header.settle_count - (header.status in FINAL), timeout)

    def submit_restart(self) -> Run:
        """Restart without waiting. Raises as `restart` does."""
        self._restart()
        self._drive_in_background()
        return self

    def _restart(self) -> RunHeader:
        self._require_whole("restarted")
        return restart.restart(self.client.executor, self.header())

    def time_travel(self, step: Any, *, timeout: float | None = None, **options: Unpack[TravelKeywords]) -> RunResult:
        """Let the run go on from `step` (an id, a step, a dotted path, a list of those) and wait until it has settled.

        Steps before it keep their stored results, or get those in `context` (step results by step id) and
        `nested_context` (by nested workflow and step id). `input` is the output of the step before, `state` replaces
        the run's state. `resume_data` goes to the steps at or behind the target that had suspended, else to the
        target. With `per_step` the run pauses after each step.

        A refusal writes nothing. Raises `StepNotFound`, `StepNotSuspended`, `RunStillRunning`, `InputInvalid`,
        `GraphChanged`, `TypeError`, `TimeoutError`.
        """
        refuse_inside_step("run.time_travel()")
        timeout = to_timeout(timeout)
        require_known("time_travel", options, TravelKeywords)
        self._require_consumer()
        return self._await(self._travel(step, options).settle_count, timeout)

    def submit_time_travel(self, step: Any, **options: Unpack[TravelKeywords]) -> Run:
        """Travel without waiting. Takes the keywords of `time_travel`, and raises as it does."""
        require_known("submit_time_travel", options, TravelKeywords)
        self._travel(step, options)
        self._drive_in_background()
        return self

    def _travel(self, step: Any, options: TravelKeywords) -> RunHeader:
        graph = graph_of(self.client.executor, self.header()) if self._scope else None
        ids = [*(id_path(graph, self._scope) if graph else []), *step_ids(step)]
        # For these None means nothing given. For the other options it is a value.
        mappings = {name: options.get(name) or {} for name in ("context", "nested_context", "request_context")}
        travel = time_travel.TravelOptions(ids, **{**options, **mappings})  # type: ignore[arg-type]
        return time_travel.time_travel(self.client.executor, self.header(), travel)

    # --- ending ----------------------------------------------------------------------------------------------------

    def cancel(self) -> CancelReport:
        """End the run as canceled. Running steps get their abort signal; a run that has ended stays as it is.

        Raises `RunIsNested` for a nested workflow.
        """
        self._require_whole("canceled")
        header = client_ops.cancel(self.client.executor, self.header())
        self.client.runtime.wake(self.root_id)
        return CancelReport(self.run_id, self._reader(header).status())

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        """Cancel, under the name that an `AsyncResult` has for it. Arguments are accepted and mean nothing."""
        self.cancel()

    def _require_whole(self, what: str) -> None:
        """Raise `RunIsNested` for a nested workflow: it has no end of its own, beside that of its run."""
        if self._scope:
            text = f"{self.run_id!r} is a nested workflow and cannot be {what} by itself: that is done to the run"
            raise RunIsNested(f"{text} {self.root_id!r} as a whole", run_id=self.run_id, workflow_id=self.workflow_id)

    # --- events ----------------------------------------------------------------------------------------------------

    @overload
    def events(self, after: str | None = None, *, heartbeat: None = None) -> Iterator[Event]: ...

    @overload
    def events(self, after: str | None = None, *, heartbeat: float) -> Iterator[Event | None]: ...

    def events(self, after: str | None = None, *, heartbeat: float | None = None) -> Iterator[Event | None]:
        """Replay the stored events (after the cursor) and follow until the run has settled.

        `after` is the `id` of the last event that was read: none is missed and none comes twice. Of a run that has
        settled already, all stored events come. With `heartbeat`, None comes whenever so many seconds have passed
        without an event, so that a web server has something to write and notices a reader who has gone. Raises
        `RunNotFound`, and ValueError for a text that is no cursor and a heartbeat that is no positive number.
        """
        return self._follow(after, heartbeat, "run.events()").each()

    async def aevents(self, after: str | None = None, *, heartbeat: float | None = None) -> AsyncIterator[Event | None]:
        """Do what `events` does, with `async for`. A reader that leaves gives its thread back within a second."""
        reading = await in_thread(partial(self._follow, after, heartbeat, "run.aevents()"))
        try:
            while page := await in_thread(reading.page):
                for event in page:
                    yield event
        finally:
            reading.stop()

    def _follow(self, after: str | None, heartbeat: float | None, what: str) -> Following:
        base = self.header()
        has_settled = base.status not in (StoredStatus.RUNNING, StoredStatus.PENDING)
        if not has_settled:
            refuse_inside_step(what)
        if after:
            self.client.store.events(self.root_id, after, 1)  # raises at once for a text that is no cursor
        until = Until(base.settle_count - has_settled, is_replay=has_settled)
        return Following(self, after or "", until, heartbeat)

    def watch(self, callback: Callable[[Event], Any]) -> Callable[[], None]:
        """Call `callback` with each event of the run from now on, in a thread; returns a function that ends that.

        A slow callback slows nothing but itself; its exceptions are logged. The calls go on over suspensions and end
        with the run, or when the orchestrator is closed. Raises `RunNotFound`, and TypeError for a coroutine function,
        which has no loop to run in here (use `astream`).
        """
        if inspect.iscoroutinefunction(callback):
            raise TypeError(f"run.watch() calls plain functions, and {callback!r} is async: use run.astream()")
        watcher = EventWatcher(self, callback)
        self.client.keep_until_closed(watcher)
        return watcher.stop


def _begin_with(input: Any, options: StartKeywords) -> StartOptions:
    context = options.get("request_context") or {}
    return StartOptions(input, options.get("state"), context, options.get("per_step", False))
