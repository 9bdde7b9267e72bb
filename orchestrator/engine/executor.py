"""The executor: it claims an activation, runs it, commits the outcome and publishes what follows.

It goes on like that for as long as a commit claims a successor for this process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from orchestrator.codec import require_readable
from orchestrator.definitions.context import AbortSignal
from orchestrator.engine.attempt import Attempt
from orchestrator.engine.controls import CONTROLS
from orchestrator.engine.declarations import unknown_graph, workflow_at
from orchestrator.engine.lease import LeaseKeeper
from orchestrator.engine.logs import log_context
from orchestrator.engine.outcome import AttemptOutcome, StepOutcome, Writes
from orchestrator.engine.pending import resume_beginning
from orchestrator.engine.read.value_reader import encode_error
from orchestrator.engine.registry import Registry
from orchestrator.engine.services import Services
from orchestrator.engine.settlement import (
    declared_hooks,
    fail_report,
    give_up,
    report,
    restore_result,
    settle,
    show_end,
)
from orchestrator.engine.step_calls import fail, retry_or_fail, run_step
from orchestrator.engine.task_steps import CannotSend, look, send
from orchestrator.engine.unsent import note_unsent
from orchestrator.errors import (
    BrokerUnavailable,
    CompressionUnavailable,
    PayloadTooLarge,
    RunFailed,
    SecretUnavailable,
    StoreRefused,
    StoreUnavailable,
    ValueNotReadable,
)
from orchestrator.host import delivery_mark, monotonic, new_token
from orchestrator.ports import Runtime
from orchestrator.rules import attempt_commands
from orchestrator.rules.apply import STATE
from orchestrator.rules.change import Claimed, ClaimRequest, Committed, Dispatch, Doc, Refused, UpdateActivation
from orchestrator.rules.envelope import StoredTexts
from orchestrator.rules.graph import Graph
from orchestrator.rules.mailbox import MAILBOX_CHANGED
from orchestrator.rules.model import Activation, ActivationStatus, Phase, Report, RunHeader, is_report
from orchestrator.rules.plan import Plan
from orchestrator.rules.timers import find_left_out
from orchestrator.rules.value_ids import make_error_id
from orchestrator.rules.values import OWN

log = logging.getLogger("orchestrator")

_FIRST_DELAY_TICKS = 5


@dataclass(slots=True)
class InlineBudget:
    """The steps that one message may still run inline, and the outcome of the message's own activation."""

    # steps that may still run inline
    steps: int
    # the moment, by this process's clock, after which no step runs inline
    until: float
    # returns True if the process is about to end
    stopping: Callable[[], bool] = field(default=lambda: False)
    # of the activation that the message named
    outcome: AttemptOutcome | None = None

    def has_room(self) -> bool:
        """Return True if one more step may run inline."""
        return self.steps > 0 and monotonic() < self.until and not self.stopping()

    def has_room_for_hook(self, *, is_settling: bool = False) -> bool:
        """Return True if a hook may be called: what is over this message is for a step, and not for a hook as well.

        A settling has a message of its own there (see `Executor._settle_token`).
        """
        return not self.stopping() or (is_settling and self.outcome is None)


class Executor:
    """Claims activations of one store, runs them and commits their outcomes.

    `stopping` returns True if the process is about to end. Nothing of an executor is set from outside after it is made.
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
        # For requests of callers, which get the executor. An attempt gets the services alone.
        self.store = services.store
        self.settings = services.settings
        self.contexts = services.contexts
        self.owner = services.owner
        self.keeper = LeaseKeeper(services.store, services.settings, self._on_overdue)
        self._stopping = stopping

    def execute(self, run_id: str, path: str, seq: int, *, delivery: str = "") -> AttemptOutcome | None:
        """Run the activation that a message names. Returns None where the claim is refused.

        `delivery` is the message's id, by which the process around this one finds what is left, should this one end.
        """
        # The message is acknowledged already (decision 2), so a refused one is just dropped: an activation that still
        # has to run has a timer in the store.
        claimed = self.claim(run_id, path, seq, delivery_mark(delivery))
        inline = InlineBudget(self.settings.inline_steps, monotonic() + self.settings.inline_seconds, self._stopping)
        while claimed is not None:
            claimed = self.run_claim(claimed, inline)
        return inline.outcome

    def claim(self, run_id: str, path: str, seq: int, mark: str = "") -> Claimed | None:
        """Claim an activation, and wait for the store if it is away. Returns None where the claim is refused."""
        lease, runtime = self.settings.lease, self.runtime.name
        return self.take(ClaimRequest(run_id, path, seq, new_token(mark), lease, runtime))

    def take(self, claim_request: ClaimRequest) -> Claimed | None:
        """Do the same for a request that names more than a message does."""
        run_id, path = claim_request.run_id, claim_request.path
        # A worker that waits here takes no further messages, which is the back-pressure that a broken store needs. It
        # has no lease yet that could end meanwhile.
        patience = self.settings.claim_patience
        # The token is drawn once for all tries, so that a store which has granted the claim grants it again.
        try:
            answer = self.services.retry_while_unavailable(lambda: self.store.claim(claim_request), patience)
        except (StoreRefused, ValueNotReadable) as error:
            # Nothing can be done with the run until somebody looks at it; the scheduler goes on telling of it.
            text = "message for %s of run %s dropped, because the run cannot be read: %s"
            log.error(text, path or "the settling", run_id, error, extra={"run_id": run_id})
            return None
        if isinstance(answer, Refused):
            known = log_context(answer.header) if answer.header is not None else {"run_id": run_id}
            text = "message for %s of run %s dropped: %s"
            log.debug(text, path or "the settling", run_id, answer.reason, extra=known)
            return None
        self.runtime.on_progress(answer.header)
        return answer

    def run_claim(self, claimed: Claimed, inline: InlineBudget) -> Claimed | None:
        """Run a claimed activation and commit its outcome. Returns the successor that the commit has claimed."""
        # The lease is renewed from the first moment on: reading a large input may take long, too.
        with self.keeper.keep_alive(claimed) as signal:
            graph = self._graph_for(claimed)
            if graph is None:
                self._park(claimed, self.why_unknown(claimed.header))
                return None
            # Some other worker has the key, or the package: an end of the run would be for good, and for nothing.
            try:
                self._require_readable(claimed)
            except (SecretUnavailable, CompressionUnavailable) as error:
                self._leave_to_others(claimed, error)
                return None
            attempt = Attempt(self.services, claimed, graph, signal)
            if attempt_commands.must_give_up(claimed.activation):
                return self._give_up(attempt, inline)
            try:
                return self.run(attempt, inline)
            except CannotSend as error:
                self._park(claimed, str(error))
                return None
            except CompressionUnavailable as error:  # of a value that is read on demand
                self._leave_to_others(claimed, error)
                return None
            finally:
                # Whatever has happened, the thread that sends chunks must not outlive its attempt.
                attempt.chunks.stop()

    def run(self, attempt: Attempt, inline: InlineBudget) -> Claimed | None:
        """Do the work of the activation's phase, and commit the outcome."""
        outcome = attempt.observer.run(lambda: self._outcome(attempt, inline))
        claimed = self.finish(attempt, outcome, self._settle_token(attempt, inline))
        # The first attempt is that of the message's own activation. Celery shows its outcome as the task's, where it is
        # recorded: else the activation is another worker's by now, which shows its own.
        if inline.outcome is None and attempt.recorded is not None:
            status = _status_in(attempt.recorded, attempt.activation.path)
            inline.outcome = AttemptOutcome(
                ActivationStatus.FAILED.value if attempt.refusal is not None else status, attempt.error
            )
        return claimed

    def _outcome(self, attempt: Attempt, inline: InlineBudget) -> StepOutcome:
        phase = Phase(attempt.activation.phase)
        if phase is Phase.SETTLE:
            return settle(attempt, self.runtime, hooks_here=inline.has_room_for_hook(is_settling=True))
        if phase is Phase.REPORT:
            same = self.graph_if_same(attempt.header)
            return report(attempt, self.runtime, same, here=inline.has_room_for_hook())
        tasks = self.runtime.tasks
        if tasks is not None and attempt.activation.sending:
            hand_on = send if phase is Phase.RUN else look
            return self.make_outcome(attempt, lambda: hand_on(attempt, tasks))
        if phase is not Phase.RUN:
            return self.make_outcome(attempt, lambda: CONTROLS[phase](attempt))
        # Conditions, joins and the like do not count: they are short, and call one function of the user at most.
        inline.steps -= 1
        return self.make_outcome(attempt, lambda: run_step(attempt, inline.has_room()))

    def make_outcome(self, attempt: Attempt, make: Callable[[], StepOutcome]) -> StepOutcome:
        try:
            return make()
        except (StoreUnavailable, CompressionUnavailable, CannotSend):
            raise
        except BaseException as error:  # noqa: BLE001
            # The end of the process is no outcome. Anything else is one: types, validators and serializers are user
            # code too, a soft time limit strikes anywhere, and a bug of the library shows at once by a failed step;
            # abandoned, the step would cost three leases first.
            self.services.signs.raise_if_dying(error)
            return retry_or_fail(attempt, error)

    def _settle_token(self, attempt: Attempt, inline: InlineBudget) -> str:
        """Return the lease token that claims the run's settling, should the outcome of this attempt lead to it."""
        # Under a time limit of all tasks a settling that may call a hook goes into the queue: the message that the hook
        # is called in is for nothing else then.
        if inline.stopping() and declared_hooks(workflow_at(attempt.graph, ())):
            return ""
        return attempt.next_token()

    def finish(self, attempt: Attempt, outcome: StepOutcome, settle_token: str) -> Claimed | None:
        """Commit the outcome, and publish what follows. Returns the successor that the commit has claimed."""
        try:
            return self._record(attempt, outcome, settle_token)
        except (StoreRefused, PayloadTooLarge) as error:
            # The store would refuse the same outcome again, from whichever worker. So the attempt fails, and says why.
            if attempt.refusal is not None or not attempt.activation.path or is_report(attempt.activation.path):
                raise
            attempt.refusal = error
            attempt.chunks.drop()
            return self.finish(attempt, fail(attempt, error), settle_token)

    def _record(self, attempt: Attempt, outcome: StepOutcome, settle_token: str) -> Claimed | None:
        activation, header = attempt.activation, attempt.header
        chunks = self.services.retry_while_unavailable(attempt.chunks.close)
        answer = self._commit(attempt, outcome, chunks, settle_token)
        # Something that the outcome was made from has changed between the reading and the commit. The lease still
        # holds, so it is read again, and the outcome made anew.
        while isinstance(answer, Refused) and answer.reason in (MAILBOX_CHANGED, STATE):
            phase = Phase(activation.phase)
            outcome = self.make_outcome(attempt, outcome.remake or partial(CONTROLS[phase], attempt))
            answer = self._commit(attempt, outcome, chunks, settle_token)
        if isinstance(answer, Refused):
            # A resume may take the settling away, which is nothing to warn of.
            level = logging.DEBUG if activation.phase == Phase.SETTLE else logging.WARNING
            text = "step %s of run %s belongs to another worker by now (%s): its outcome is discarded"
            log.log(level, text, activation.step, header.run_id, answer.reason, extra=attempt.log_context)
            self._on_refused(attempt, answer)
            return None
        attempt.recorded = outcome.plan
        attempt.observer.on_committed(answer)
        answer = self.services.retry_while_unavailable(partial(self.with_all_dispatches, answer))
        self.publish(answer.header, answer.dispatches, goes_on=answer.claimed is not None)
        if activation.phase == Phase.SETTLE:
            # At INFO: the one line of a run that goes well. Celery's own lines have the ids of messages alone.
            settled = answer.header
            log.info(
                "run %s of %s is %s", settled.run_id, settled.workflow_id, settled.status, extra=log_context(settled)
            )
            self.runtime.on_progress(answer.header)
            if answer.header.final:
                show_end(self.services, self.runtime, answer.header, attempt.graph)
        return answer.claimed

    def _commit(
        self, attempt: Attempt, outcome: StepOutcome, chunks: Sequence[Doc], settle_token: str
    ) -> Committed | Refused:
        # One commit per outcome: result, events, counters, successors and their timers become true together, or not at
        # all. There is no moment at which a crash could leave half of it (decision 1).
        activation, written = attempt.activation, outcome.writes
        resume_beginning(attempt, outcome.plan)
        change = attempt_commands.commit_outcome(
            activation,
            outcome.plan,
            StoredTexts(written.values, written.state, written.context, written.expect_state),
            self.settings.limits,
            mail=written.mailbox,
            # The commit that takes the count of live activations to zero claims the run's settling with this token.
            settle_token=settle_token,
            chunks=chunks,
            # A process that ends a claim for its holder does it under a token of its own: the holder's own outcome is
            # refused then.
            ender="" if attempt.is_holder else new_token(),
        )
        change = replace(change, ops=tuple(attempt.observer.add_traces(change.ops)))
        # The change is complete by now. An interruption leads to the same commit again, and the store answers a repeat
        # as it did the first.
        return self.services.retry_while_unavailable(lambda: self.store.commit(attempt.header.run_id, change))

    def _on_refused(self, attempt: Attempt, answer: Refused) -> None:
        activation, header = attempt.activation, attempt.header
        if is_report(activation.path) and activation.step == Report.RESULT:
            restore_result(self.services, self.runtime, header, self.graph_if_same(header))
        # The run has been ended from outside, perhaps by a process that does not know its hooks. Where the work is not
        # shared nobody else is going to call them.
        elif answer.header is not None and answer.header.calling and not self.runtime.is_shared:
            found = self.store.load(header.run_id)
            queued = (one for one in found if is_report(one.path) and one.status == ActivationStatus.QUEUED)
            self.publish(answer.header, tuple(Dispatch(one.path, one.seq, one.route) for one in queued))

    def run_claims(self, claimed: Claimed | None) -> None:
        """Run what a request of this process has claimed for it, and what follows as long as it is claimed, too."""
        inline = InlineBudget(0, monotonic(), self._stopping)
        while claimed is not None:
            claimed = self.run_claim(claimed, inline)

    def fail_abandoned_attempt(self, run_id: str, path: str, seq: int, error: Exception) -> None:
        """End an attempt as failed at once: its process is dead or its time over. Successors go through the queue."""
        found = self.find(run_id, path)
        if found is not None and attempt_commands.may_fail_claim(found[1], seq):
            self.fail_claim(*found, error)

    def fail_claim(self, header: RunHeader, activation: Activation, error: Exception) -> None:
        """End a claim for its holder as a failed attempt. If the function returns after all, its commit is refused."""
        graph = self._graph_for(Claimed(header, activation, {}, {}, {}))
        if graph is not None:
            state, context = self.store.state(header.run_id), self.store.context(header.run_id)
            claimed = Claimed(header, activation, {}, state, context)
            attempt = Attempt(self.services, claimed, graph, AbortSignal(), claims=False, is_holder=False)
            is_report_ = is_report(activation.path)
            outcome = fail_report(attempt, error, here=False) if is_report_ else retry_or_fail(attempt, error)
            self.finish(attempt, outcome, "")

    def _on_overdue(self, claimed: Claimed, error: Exception) -> None:
        activation = claimed.activation
        self.fail_abandoned_attempt(claimed.header.run_id, activation.path, activation.seq, error)

    def find(self, run_id: str, path: str) -> tuple[RunHeader, Activation] | None:
        """Return a run's header and one of its activations; None where one of the two is not there."""
        header, activations = self.store.header(run_id), self.store.load(run_id, [path])
        return (header, activations[0]) if header is not None and activations else None

    def with_all_dispatches(self, answer: Committed) -> Committed:
        """The answer with the dispatches that the store has left out, if it is the answer to a repeat."""
        if not answer.left_out:
            return answer
        found = find_left_out(answer, self.store.load(answer.header.run_id), self.store.now())
        return replace(answer, dispatches=(*answer.dispatches, *found), left_out=0)

    def publish(self, header: RunHeader, dispatches: tuple[Dispatch, ...], *, goes_on: bool = False) -> None:
        """Publish the dispatches of a commit. If the broker is away, the scheduler will do it."""
        if not dispatches:
            return
        try:
            self.runtime.publish(header, dispatches, goes_on=goes_on)
        except Exception as error:  # noqa: BLE001  (the broker is away, or a soft limit strikes in here)
            # The commit has written a timer for each dispatch, and the scheduler publishes those that fall due.
            text = "run %s: %s; the scheduler will publish %d message(s)"
            log.warning(text, header.run_id, error, len(dispatches), extra=log_context(header))
            if isinstance(error, BrokerUnavailable):
                note_unsent(self.store, header, dispatches, self.settings.retry_delay_of(error))

    def graph_if_same(self, header: RunHeader) -> Graph | None:
        """Return the run's graph; None where this process does not know it, or knows another one under its id."""
        return self.registry.graph_if_same(header)

    def _graph_for(self, claimed: Claimed) -> Graph | None:
        """Return a graph that this claim can be worked on with; None where there is none in this process."""
        header, activation = claimed.header, claimed.activation
        graph = self.graph_if_same(header)
        if graph is not None or not is_report(activation.path):
            return graph
        # A hook wants the workflow, and what it is told of are stored values: whoever cancels runs because their graph
        # is gone for good wants their hooks called. A result wants not even that.
        workflow = self.registry.get(header.workflow_id)
        if workflow is not None:
            return workflow.compiled
        return unknown_graph(header) if activation.step == Report.RESULT else None

    def why_unknown(self, header: RunHeader) -> str:
        known = self.registry.get(header.workflow_id) is not None
        reason = "the graph has changed" if known else "the workflow is not registered"
        if header.namespace != self.settings.namespace:
            reason += f" (it is {header.namespace!r}'s, and this is {self.settings.namespace!r}: is a queue shared?)"
        return reason

    def _require_readable(self, claimed: Claimed) -> None:
        """Raise `SecretUnavailable` or `CompressionUnavailable` where a text of this claim cannot be read here."""
        self.contexts.require_readable(claimed.header.run_id, claimed.context)
        require_readable(claimed.state.values())
        require_readable(text.removeprefix(OWN) for text in claimed.values.values())

    def _leave_to_others(self, claimed: Claimed, error: SecretUnavailable | CompressionUnavailable) -> None:
        """Park what cannot be read here.

        Where there are no others the attempt is abandoned: whoever waits for the run gets the error, and a process with
        the package can restart it. (Who lacks a key is refused before it can come to that.)
        """
        if isinstance(error, CompressionUnavailable) and not self.runtime.is_shared:
            raise error
        self._park(claimed, str(error))

    def _park(self, claimed: Claimed, reason: str) -> None:
        """Park the activation: give the claim back for a delay that grows, without counting an attempt."""
        # A worker of another release may have the graph. The delay grows, so that parked runs of a release that never
        # comes back cost little.
        activation, header = claimed.activation, claimed.header
        # Some ticks, for a deployment: its workers do not change all at once.
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
        """Fail a step after its third abandoned attempt in a row, whatever retries it has left."""
        # Such a step probably kills its workers, and would take down one after the other.
        activation = attempt.activation
        count, name = activation.abandoned_attempts, activation.step
        text = f"{count} attempts of step {name!r} in a row were abandoned: their workers died or went silent"
        failure = RunFailed(text, run_id=attempt.header.run_id)
        log.error("run %s (%s): %s", attempt.header.run_id, attempt.header.workflow_id, text, extra=attempt.log_context)
        attempt.observer.on_failure(failure)
        error = encode_error(failure, self.settings.packing)
        inline.outcome = AttemptOutcome(ActivationStatus.FAILED.value, failure)
        if is_report(activation.path):
            return self.finish(attempt, give_up(attempt, failure, here=inline.has_room_for_hook()), "")
        key = make_error_id(activation.lease_token)
        plan = attempt_commands.give_up(attempt.as_claimed_node(), key)
        return self.finish(attempt, StepOutcome(plan, Writes({key: error})), self._settle_token(attempt, inline))


def _status_in(plan: Plan, path: str) -> str:
    """Return the status that the plan gives the activation at `path`; the empty text where it gives none."""
    updates = (op.fields for op in plan.ops if isinstance(op, UpdateActivation) and op.path == path)
    return next((str(fields["status"]) for fields in updates if "status" in fields), "")
