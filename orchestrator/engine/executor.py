"""One delivery: claim, run, commit, and tell whoever comes next; again for as long as the commit claims a successor."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from orchestrator.definitions.context import AbortSignal
from orchestrator.engine.attempt import Attempt, CallTask
from orchestrator.engine.controls import CONTROLS
from orchestrator.engine.lease import LeaseKeeper
from orchestrator.engine.logs import log_context
from orchestrator.engine.outcome import Ending, StepOutcome, Writes
from orchestrator.engine.read.value_reader import encode_error
from orchestrator.engine.registry import Registry
from orchestrator.engine.services import Services
from orchestrator.engine.settlement import settle
from orchestrator.engine.step_calls import retry_or_fail, run_step
from orchestrator.errors import RunFailed, StoreUnavailable
from orchestrator.host import delivery_mark, monotonic, new_token
from orchestrator.ports import Runtime
from orchestrator.rules import attempt_commands
from orchestrator.rules.apply import MAILBOX
from orchestrator.rules.change import Claimed, ClaimRequest, Committed, Dispatch, Refused, UpdateActivation
from orchestrator.rules.envelope import StoredTexts
from orchestrator.rules.graph import Graph
from orchestrator.rules.model import Activation, ActivationStatus, Phase, RunHeader
from orchestrator.rules.plan import Plan

log = logging.getLogger("orchestrator")

_FIRST_DELAY_TICKS = 5


@dataclass(slots=True)
class InlineBudget:
    """The work that one delivery may do by itself, and what became of its message's own activation."""

    # steps that may still be taken along
    steps: int
    # the moment, by this process's clock, from which on none is
    until: float
    # says that the process is about to end
    stopping: Callable[[], bool] = field(default=lambda: False)
    # of the activation that the message spoke of
    ending: Ending | None = None

    def has_room(self) -> bool:
        """Return whether one more step may be taken along."""
        return self.steps > 0 and monotonic() < self.until and not self.stopping()


class Executor:
    """Runs activations of one store: claims them, runs them, commits their outcomes.

    `stopping` says that the process is about to end. Nothing of an engine is set from outside after it is made.
    """

    def __init__(
        self,
        services: Services,
        registry: Registry,
        runtime: Runtime,
        *,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.services = services
        self.registry = registry
        self.runtime = runtime
        # For the operations of callers, who are given an engine. What runs below is given the services alone.
        self.store = services.store
        self.settings = services.settings
        self.contexts = services.contexts
        self.owner = services.owner
        self.keeper = LeaseKeeper(services.store, services.settings, self._on_overdue)
        self._stopping = stopping

    def execute(
        self, run_id: str, path: str, seq: int, call_task: CallTask | None = None, *, delivery: str = ""
    ) -> Ending | None:
        """Run the activation that a message spoke of, if it is still to be run; else do nothing, and return None.

        `call_task` runs an existing task's code, where the message was that task's own. `delivery` is the message's id,
        by which the process around this one finds what is left, should this one end.
        """
        # The message is acknowledged already, so a refusal needs no answer: whatever is to be run has a timer in the
        # store.
        claimed = self.claim(run_id, path, seq, delivery_mark(delivery))
        inline = InlineBudget(self.settings.inline_steps, monotonic() + self.settings.inline_seconds, self._stopping)
        while claimed is not None:
            claimed = self.run_claim(claimed, inline, call_task)
            call_task = None
        return inline.ending

    def claim(self, run_id: str, path: str, seq: int, mark: str = "") -> Claimed | None:
        """Claim an activation, waiting for the store if it is away: that is the back-pressure a broken store needs."""
        # Nothing is held yet, so there is no lease to lose by waiting; a worker that waits takes no further messages.
        patience = self.settings.lease_seconds * 10
        ask = ClaimRequest(run_id, path, seq, new_token(mark), self.settings.lease)
        answer = self.services.retry_while_unavailable(lambda: self.store.claim(ask), patience)
        if isinstance(answer, Refused):
            known = log_context(answer.header) if answer.header is not None else {"run_id": run_id}
            log.debug("message for %s of run %s left alone: %s", path or "the rest", run_id, answer.reason, extra=known)
            return None
        self.runtime.on_progress(answer.header)
        return answer

    def run_claim(self, claimed: Claimed, inline: InlineBudget, call_task: CallTask | None = None) -> Claimed | None:
        """Run a claimed activation and commit what came of it. Returns what that commit claimed in turn."""
        # Renewed from the first moment on: loading a large input may take long, too.
        with self.keeper.keep_alive(claimed) as signal:
            graph = self.graph_if_same(claimed.header)
            if graph is None:
                self._defer_unrunnable(claimed)
                return None
            attempt = Attempt(self.services, claimed, graph, signal, call_task)
            if attempt_commands.must_give_up(claimed.activation):
                return self._give_up(attempt, inline)
            try:
                return self.run(attempt, inline)
            finally:
                # Whatever has happened, the thread that sends chunks must not outlive its claim.
                attempt.chunks.stop()

    def run(self, attempt: Attempt, inline: InlineBudget) -> Claimed | None:
        """Do what the activation's phase asks for, and commit it."""
        outcome = attempt.observer.run(lambda: self._outcome(attempt, inline))
        claimed = self._finish(attempt, outcome)
        if attempt.is_recorded:  # else it is somebody else's by now, who tells how that ended
            inline.ending = inline.ending or Ending(_status_in(outcome.plan, attempt.activation.path), attempt.error)
        return claimed

    def _outcome(self, attempt: Attempt, inline: InlineBudget) -> StepOutcome:
        phase = Phase(attempt.activation.phase)
        if phase is Phase.SETTLE:
            # Outside the `try`: a run whose end cannot be delivered is left to the next lease, and never fails by that.
            return StepOutcome(settle(attempt, self.runtime))
        try:
            if phase is not Phase.RUN:
                return CONTROLS[phase](attempt)
            # Control activations are free: they are this process's own work and call conditions at most.
            inline.steps -= 1
            return run_step(attempt, inline.has_room())
        except StoreUnavailable:
            raise
        # Types, validators and serializers are user code too, and a time limit strikes anywhere. Whatever it is, an
        # attempt that has failed beats a caller who waits for leases; what ends this process is none.
        except BaseException as error:  # noqa: BLE001
            self.services.signs.raise_if_dying(error)
            return retry_or_fail(attempt, error)

    def _finish(self, attempt: Attempt, outcome: StepOutcome) -> Claimed | None:
        """Commit the outcome. It is fixed by now: whatever interrupts the commit leads to the same commit again."""
        activation, header = attempt.activation, attempt.header
        # One commit per outcome: result, events, counters, successors and their timers become true together, or not at
        # all. There is no moment at which a crash could leave half of it.
        plan, written = outcome.plan, outcome.writes
        written_last = self.services.retry_while_unavailable(attempt.chunks.close)
        change = attempt_commands.commit_outcome(
            activation,
            plan,
            StoredTexts(written.values, written.state, written.context),
            self.settings.limits,
            mail=written.mailbox,
            # The commit that takes the count of the living to zero claims the run's settling with this token.
            settle_token=attempt.next_token(),
            chunks=written_last,
            # Who ends a claim of somebody else does it under a token of its own: then the other's outcome is refused.
            ender="" if attempt.claims else new_token(),
        )
        change = replace(change, ops=tuple(attempt.observer.add_traces(change.ops)))
        answer = self.services.retry_while_unavailable(lambda: self.store.commit(header.run_id, change))
        # An event came between the look into the mailbox and the commit. The claim still holds, so look again.
        if isinstance(answer, Refused) and answer.reason == MAILBOX:
            return self._finish(attempt, CONTROLS[Phase(activation.phase)](attempt))
        if isinstance(answer, Refused):
            log.log(
                logging.DEBUG
                if activation.phase == Phase.SETTLE
                else logging.WARNING,  # a resume may take the rest away
                "step %s of run %s belongs to somebody else by now (%s): its outcome is not recorded",
                activation.step,
                header.run_id,
                answer.reason,
                extra=attempt.log_context,
            )
            return None
        attempt.is_recorded = True
        attempt.observer.on_committed(answer)
        self.publish(answer.header, answer.dispatches)
        if activation.phase == Phase.SETTLE:
            self.runtime.on_progress(answer.header)
        return answer.claimed

    def fail_abandoned_attempt(self, run_id: str, path: str, seq: int, error: Exception) -> None:
        """End the claim of a process that is gone with this error, at once. Its successors go through the queue."""
        found = self._find(run_id, path)
        if found is not None and attempt_commands.may_fail_claim(found[1], seq):
            self.fail_claim(*found, error)

    def fail_claim(self, header: RunHeader, activation: Activation, error: Exception) -> None:
        """End a claim of somebody else as a failed attempt. Should its holder live after all, the second is refused."""
        graph = self.graph_if_same(header)
        if graph is not None:
            state, context = self.store.state(header.run_id), self.store.context(header.run_id)
            claimed = Claimed(header, activation, {}, state, context)
            attempt = Attempt(self.services, claimed, graph, AbortSignal(), claims=False)
            self._finish(attempt, retry_or_fail(attempt, error))

    def _on_overdue(self, claimed: Claimed, error: Exception) -> None:
        activation = claimed.activation
        self.fail_abandoned_attempt(claimed.header.run_id, activation.path, activation.seq, error)

    def _find(self, run_id: str, path: str) -> tuple[RunHeader, Activation] | None:
        header, activations = self.store.header(run_id), self.store.load(run_id, [path])
        return (header, activations[0]) if header is not None and activations else None

    def publish(self, header: RunHeader, dispatches: tuple[Dispatch, ...]) -> None:
        """Publish what a commit has put in the queue. If the broker is away, the due entries will."""
        if not dispatches:
            return
        try:
            self.runtime.publish(header, dispatches)
        except Exception as error:  # noqa: BLE001  (the broker is away, or a soft limit strikes in here)
            # Nothing is lost: the commit has written a timer for each of them, which the scheduler sweeps.
            text = "run %s: %s; the ticker will publish %d message(s)"
            log.warning(text, header.run_id, error, len(dispatches), extra=log_context(header))

    def graph_if_same(self, header: RunHeader) -> Graph | None:
        """The graph of a stored run, None where it is not known here, or has changed since the run was started."""
        return self.registry.graph_if_same(header)

    def _defer_unrunnable(self, claimed: Claimed) -> None:
        """Release the claim without counting an attempt, with exponential delay: another release can run it."""
        activation, header = claimed.activation, claimed.header
        known = self.registry.get(header.workflow_id) is not None
        reason = "the graph has changed" if known else "the workflow is not registered"
        if header.namespace != self.settings.namespace:
            reason += f" (it is {header.namespace!r}'s, and this is {self.settings.namespace!r}: is a queue shared?)"
        first = round(_FIRST_DELAY_TICKS * self.settings.tick_seconds * 1000)
        delay = attempt_commands.find_deferral(header, activation, first)
        change = attempt_commands.defer_unrunnable(activation, f"{reason} in this worker", delay)
        text = "run %s of %s is parked for %d s: %s"
        log.warning(
            text, header.run_id, header.workflow_id, delay // 1000, reason, extra=log_context(header, activation)
        )
        answer = self.services.retry_while_unavailable(lambda: self.store.commit(header.run_id, change))
        if isinstance(answer, Committed):
            self.publish(answer.header, answer.dispatches)

    def _give_up(self, attempt: Attempt, inline: InlineBudget) -> Claimed | None:
        """Fail a step with which the third worker in a row was lost, whatever retries it has left."""
        activation = attempt.activation
        text = f"{activation.abandoned_attempts} workers in a row were lost while running step {activation.step!r}"
        failure = RunFailed(text, run_id=attempt.header.run_id)
        log.error("run %s (%s): %s", attempt.header.run_id, attempt.header.workflow_id, text, extra=attempt.log_context)
        attempt.observer.on_failure(failure)
        error = encode_error(failure, self.settings.max_payload_bytes)
        inline.ending = Ending(ActivationStatus.FAILED.value, failure)
        key = f"{activation.lease_token}!"
        plan = attempt_commands.give_up(attempt.spot(), key)
        return self._finish(attempt, StepOutcome(plan, Writes({key: error})))


def _status_in(plan: Plan, path: str) -> str:
    """The status that the plan gives the activation at `path`; the empty text where it gives none."""
    made = (op.fields for op in plan.ops if isinstance(op, UpdateActivation) and op.path == path)
    return next((str(fields["status"]) for fields in made if "status" in fields), "")
