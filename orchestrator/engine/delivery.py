"""One delivery: claim, run, commit, and tell whoever comes next; again for as long as the commit claims a successor."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from orchestrator.core import flow
from orchestrator.core.apply import MAIL
from orchestrator.core.changes import Ask, Change, Claimed, Committed, Dispatch, Holder, Refused, Set
from orchestrator.core.graph import Graph
from orchestrator.core.plan import Failed, Plan
from orchestrator.core.records import Header, Phase, Status
from orchestrator.core.timers import on_deadline
from orchestrator.definitions import Workflow
from orchestrator.definitions.context import AbortSignal
from orchestrator.engine.activity import Activity, CallTask, Ending
from orchestrator.engine.contexts import Contexts
from orchestrator.engine.controls import CONTROLS
from orchestrator.engine.keeper import Keeper
from orchestrator.engine.logs import about
from orchestrator.engine.reading import stored_error
from orchestrator.engine.rest import rest
from orchestrator.engine.settings import Settings
from orchestrator.engine.steps import Followed, Written, failed, raised, run_step
from orchestrator.errors import BrokerUnavailable, RunFailed, StoreUnavailable
from orchestrator.host import monotonic, new_token
from orchestrator.ports import Clock, Runtime, Store

log = logging.getLogger("orchestrator")
_T = TypeVar("_T")

MOST_LOST = 3  # claims in a row that ended without a commit: then the step has failed
_PARKED_TICKS = 5
_PARKED_LAST = 300_000


class Registry:
    """The workflows that this process knows, by id."""

    def __init__(self) -> None:
        self._workflows: dict[str, Workflow] = {}

    def add(self, workflow: Workflow) -> None:
        """Register a committed workflow; the same again takes its place. Raises ValueError where another has its id."""
        workflow.require_committed()
        before = self._workflows.get(workflow.id)
        if before is not None and before.fingerprint != workflow.fingerprint:
            text = f"two different workflows have the id {workflow.id!r}: give one of them another id"
            raise ValueError(text)
        self._workflows[workflow.id] = workflow

    def get(self, workflow_id: str) -> Workflow | None:
        """The workflow, or None."""
        return self._workflows.get(workflow_id)

    def all(self) -> list[Workflow]:
        """All of them."""
        return list(self._workflows.values())


@dataclass(slots=True)
class Inline:
    """How far one delivery may go on by itself. `stopping` says that the process is about to end.

    `ending` is what the activation that its message spoke of has come to.
    """

    steps: int
    until: float
    stopping: Callable[[], bool] = field(default=lambda: False)
    ending: Ending | None = None

    def more(self) -> bool:
        """Whether one more step may be taken along."""
        return self.steps > 0 and monotonic() < self.until and not self.stopping()


class Engine:
    """Runs activations of one store. `owner` is what user code sees as `ctx.orchestrator`."""

    def __init__(self, store: Store, registry: Registry, settings: Settings, clock: Clock, owner: Any) -> None:
        self.store = store
        self.registry = registry
        self.settings = settings
        self.clock = clock
        self.owner = owner
        self.keeper = Keeper(store, settings, self._overdue)
        self.contexts = Contexts(settings)
        self.runtime: Runtime
        self.stopping: Callable[[], bool] = lambda: False

    def deliver(self, run_id: str, path: str, seq: int, call_task: CallTask | None = None) -> Ending | None:
        """Run the activation that a message spoke of, if it is still to be run; else do nothing, and return None.

        `call_task` runs an existing task's code, where the message was that task's own.
        """
        claimed = self.claim(run_id, path, seq)
        inline = Inline(self.settings.inline_steps, monotonic() + self.settings.inline_seconds, self.stopping)
        while claimed is not None:
            claimed = self.carry_on(claimed, inline, call_task)
            call_task = None
        return inline.ending

    def claim(self, run_id: str, path: str, seq: int) -> Claimed | None:
        """Claim an activation, waiting for the store if it is away: that is the back-pressure a broken store needs."""
        ask = Ask(run_id, path, seq, new_token(), self.settings.lease)
        answer = self.insist(lambda: self.store.claim(ask), self.settings.lease_seconds * 10)
        if isinstance(answer, Refused):
            known = about(answer.header) if answer.header is not None else {"run_id": run_id}
            log.debug("message for %s of run %s left alone: %s", path or "the rest", run_id, answer.reason, extra=known)
            return None
        self.runtime.seen(answer.header)
        return answer

    def carry_on(self, claimed: Claimed, inline: Inline, call_task: CallTask | None = None) -> Claimed | None:
        """Run a claimed activation and commit what came of it. Returns what that commit claimed in turn."""
        with self.keeper.holding(claimed) as signal:
            graph = self.known_graph(claimed.header)
            if graph is None:
                self._park(claimed)
                return None
            activity = Activity(self, claimed, graph, signal, call_task)
            if claimed.record.lost >= MOST_LOST:
                return self._lost(activity, inline)
            try:
                return self.run(activity, inline)
            finally:
                activity.chunks.stop()

    def run(self, activity: Activity, inline: Inline) -> Claimed | None:
        """Do what the activation's phase asks for, and commit it."""
        plan, written = activity.watch.run(lambda: self._outcome(activity, inline))
        inline.ending = inline.ending or Ending(_status_in(plan, activity.record.path), activity.error)
        return self._finish(activity, plan, written)

    def _outcome(self, activity: Activity, inline: Inline) -> Followed:
        phase = Phase(activity.record.phase)
        if phase is Phase.REST:
            return rest(activity), Written()
        try:
            if phase is not Phase.RUN:
                return CONTROLS[phase](activity)
            inline.steps -= 1
            return run_step(activity, inline.more())
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  (whatever it is, a failed step beats a caller who waits for leases)
            return failed(activity, error)

    def _finish(self, activity: Activity, plan: Plan, written: Written) -> Claimed | None:
        """Commit the outcome. It is fixed by now: whatever interrupts the commit leads to the same commit again."""
        record, header = activity.record, activity.header
        written_last = self.insist(activity.chunks.close, self.settings.lease_seconds)
        change = Change(
            Holder(record.path, record.token),
            tuple(activity.watch.planned(plan.ops)),
            values={**plan.values, **written.values},
            state=written.state,
            context=written.context,
            events=(*written_last, *plan.events),
            mail=written.mail,
            rest=new_token() if activity.claims else "",
            rest_now=plan.rest_now,
            lease=self.settings.lease,
            grace=self.settings.grace,
            keep=self.settings.events_max_per_run,
            keep_for=self.settings.events_max_age,
        )
        answer = self.insist(lambda: self.store.commit(header.run_id, change), self.settings.lease_seconds)
        if isinstance(answer, Refused) and answer.reason == MAIL:
            plan, written = CONTROLS[Phase(record.phase)](activity)  # an event came meanwhile: look again
            return self._finish(activity, plan, written)
        if isinstance(answer, Refused):
            log.log(
                logging.DEBUG if record.phase == Phase.REST else logging.WARNING,  # a resume may take the rest away
                "step %s of run %s belongs to somebody else by now (%s): its outcome is not recorded",
                record.step,
                header.run_id,
                answer.reason,
                extra=activity.about,
            )
            return None
        activity.watch.committed(answer)
        self.tell(answer.header, answer.dispatches)
        if record.phase == Phase.REST:
            self.runtime.seen(answer.header)
        return answer.claimed

    def settle(self, run_id: str, path: str, seq: int, error: Exception) -> None:
        """A claim of a process that is gone ends with this error, at once. Its successors go through the queue."""
        header = self.store.header(run_id)
        records = self.store.load(run_id, [path])
        if header is None or not records or records[0].status != Status.RUNNING or records[0].seq != seq:
            return
        claimed = Claimed(header, records[0], {}, self.store.state(run_id), self.store.context(run_id))
        graph = self.known_graph(claimed.header)
        if graph is not None:
            activity = Activity(self, claimed, graph, AbortSignal(), claims=False)
            self._finish(activity, *raised(activity, error))

    def _overdue(self, claimed: Claimed) -> None:
        record = claimed.record
        error = TimeoutError(f"step {record.step!r} ran into its time limit of {record.where.time_limit} s")
        self.settle(claimed.header.run_id, record.path, record.seq, error)

    def release(self, run_id: str, path: str, seq: int) -> None:
        """The process that held this claim is known to be gone: the activation goes back to the queue at once."""
        header = self.store.header(run_id)
        records = self.store.load(run_id, [path])
        if header is None or not records or records[0].status != Status.RUNNING or records[0].seq != seq:
            return
        todo = on_deadline(header, records[0], self.settings.grace)
        answer = self.store.commit(run_id, todo.change) if todo is not None else None
        if isinstance(answer, Committed):
            self.tell(answer.header, answer.dispatches)

    def tell(self, header: Header, dispatches: tuple[Dispatch, ...]) -> None:
        """Publish what a commit has put in the queue. If the broker is away, the due entries will."""
        if not dispatches:
            return
        try:
            self.runtime.publish(header, dispatches)
        except BrokerUnavailable as error:
            text = "run %s: %s; the ticker will publish %d message(s)"
            log.warning(text, header.run_id, error, len(dispatches), extra=about(header))

    def log_lost(self, run_id: str, error: BaseException) -> None:
        """A thread of this process ended in the middle of a run."""
        log.error("run %s was left as a lost worker would leave it: %r", run_id, error, extra={"run_id": run_id})

    def known_graph(self, header: Header) -> Graph | None:
        """The graph of a stored run, None where it is not known here, or has changed since the run was started."""
        workflow = self.registry.get(header.workflow_id)
        if workflow is None or workflow.compiled.fingerprint != header.fingerprint:
            return None
        return workflow.compiled

    def _park(self, claimed: Claimed) -> None:
        """This process cannot run it (an older or newer release can): give it back uncounted, later and later."""
        record, header = claimed.record, claimed.header
        known = self.registry.get(header.workflow_id) is not None
        reason = "the graph has changed" if known else "the workflow is not registered"
        if header.namespace != self.settings.namespace:
            reason += f" (it is {header.namespace!r}'s, and this is {self.settings.namespace!r}: is a queue shared?)"
        since = max(record.started_at, record.resumed_at) or header.updated_at
        waited = max(0, header.updated_at - since)
        first = round(_PARKED_TICKS * self.settings.tick_seconds * 1000)
        delay = min(_PARKED_LAST, max(first, 2 * waited))
        fields = {"status": Status.RETRYING.value, "parked": f"{reason} in this worker"}
        change = Change(Holder(record.path, record.token), (Set(record.path, fields, delay=delay),))
        text = "run %s of %s is parked for %d s: %s"
        log.warning(text, header.run_id, header.workflow_id, delay // 1000, reason, extra=about(header, record))
        answer = self.insist(lambda: self.store.commit(header.run_id, change), self.settings.lease_seconds)
        if isinstance(answer, Committed):
            self.tell(answer.header, answer.dispatches)

    def _lost(self, activity: Activity, inline: Inline) -> Claimed | None:
        """The third worker in a row was lost with this step: it has failed, apart from its retries."""
        record = activity.record
        if record.phase == Phase.REST:
            return self.run(activity, Inline(0, 0.0))
        text = f"{record.lost} workers in a row were lost while running step {record.step!r}"
        failure = RunFailed(text, run_id=activity.header.run_id)
        log.error("run %s (%s): %s", activity.header.run_id, activity.header.workflow_id, text, extra=activity.about)
        activity.watch.failed(failure)
        error = stored_error(failure, self.settings.max_payload_bytes)
        inline.ending = Ending(Status.FAILED.value, failure)
        key = f"{record.token}!"
        plan = flow.finish(activity.spot(), Failed(key))
        return self._finish(activity, plan, Written(values={key: error}))

    def insist(self, call: Callable[[], _T], seconds: float) -> _T:
        """Repeat a claim or commit (which a repeat does not change) while the store is away, or when something
        strikes.
        """
        end, pause, struck = monotonic() + seconds, 0.05, 0
        while True:
            try:
                return call()
            except StoreUnavailable:
                if monotonic() >= end:
                    raise
                self.clock.sleep(pause)
                pause = min(2.0, pause * 2)
            except Exception:  # a time limit, say, that struck in the middle
                struck += 1
                if struck > 2:
                    raise


def _status_in(plan: Plan, path: str) -> str:
    """What the plan makes of the record at `path`."""
    made = (op.fields for op in plan.ops if isinstance(op, Set) and op.path == path)
    return next((str(fields["status"]) for fields in made if "status" in fields), "")
