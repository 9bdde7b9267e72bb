"""One attempt: the claim of an activation, with everything that its user code reads and writes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeVar

from orchestrator.codec import Shape, encode_packed, require_name, unpack, validate, with_text_keys
from orchestrator.definitions import bodies
from orchestrator.definitions.context import AbortSignal, Context
from orchestrator.definitions.definition import Definition
from orchestrator.definitions.state_writes import StateWrite, has_updates, merge_writes
from orchestrator.engine.calling import leaves
from orchestrator.engine.chunks import Chunks, Flush
from orchestrator.engine.declarations import shape_of, view_of_state, workflow_at
from orchestrator.engine.idempotency import idempotency_key
from orchestrator.engine.logs import RunLogger, log_context
from orchestrator.engine.observe.observer import observe_attempt
from orchestrator.engine.observe.protocols import ObservedAttempt
from orchestrator.engine.read.value_reader import Values, decode_all, encode_all, encode_value
from orchestrator.engine.services import Services
from orchestrator.errors import StateConflict, StoreUnavailable
from orchestrator.host import MARK, chance, new_token
from orchestrator.rules import attempt_commands
from orchestrator.rules.change import Claimed, Committed, Refused
from orchestrator.rules.events import make_written
from orchestrator.rules.graph import Graph, Path
from orchestrator.rules.model import Activation, ActivationStatus, format_path, visits
from orchestrator.rules.plan import ClaimedNode, Plan

log = logging.getLogger("orchestrator")
_T = TypeVar("_T")

MAX_STATE_CONFLICTS = 100  # more of them in one attempt are no bad luck: too many steps write at once


class Attempt:
    """The claim of one activation, with its workflow. Values beyond those of the claim are read on demand.

    `claims` is False where no successor could run. `is_holder` is False where another process ends the claim for who
    holds it.
    """

    # More public methods than most classes: one for each thing that a context or a control activation asks for.

    def __init__(
        self,
        services: Services,
        claimed: Claimed,
        graph: Graph,
        signal: AbortSignal,
        claims: bool = True,
        is_holder: bool = True,
    ) -> None:
        self.services = services
        self.store = services.store
        self.claimed = claimed
        self.graph = graph
        self.activation = claimed.activation
        self.header = claimed.header
        self.signal = signal
        self.claims = claims
        self.is_holder = is_holder
        # The claim has brought the step's own input, so most steps read nothing more.
        self.values = Values(self._read_values, claimed.header.run_id, claimed.values)
        self.scope: Path = self.activation.at[: self.activation.scope]
        self.workflow: Definition = workflow_at(graph, self.scope)
        # A step that writes waits for the store as long as its lease lasts. After that, no write would be accepted.
        self.chunks = Chunks(
            self._send, self._on_refused, services.clock, services.settings.lease_seconds, self.log_context
        )
        self.error: BaseException | None = None  # the error that this attempt has failed with
        # The store was away for longer than the lease. No outcome follows: the activation runs again elsewhere.
        self.cut_off: StoreUnavailable | None = None
        self.recorded: Plan | None = None  # what follows, once its outcome is in the store, and not that of another
        self.state_conflicts = 0  # how often the state had been written when this attempt was to commit
        # The store has refused the outcome: the failure that says so is the last word, whether it is taken or not.
        self.refusal: Exception | None = None
        self._results: dict[str, tuple[bool, Any]] = {}
        self.observer = observe_attempt(self._as_observed())

    def _as_observed(self) -> ObservedAttempt:
        # Observers read without retrying: no step waits for a store so that a span may be complete.
        run_id, store = self.header.run_id, self.store
        return ObservedAttempt(
            self.header,
            self.activation,
            self.workflow.id,
            self.graph,
            lambda paths: store.load(run_id, paths),
            self.values.plain,
        )

    def as_claimed_node(self, inline: bool = False) -> ClaimedNode:
        """Return the claimed activation with its node, as the rules take it."""
        # The lease token of a successor is drawn before the commit. A repeated commit brings the same token, and so
        # claims the successor once.
        return ClaimedNode(self.graph, self.header, self.activation, self.next_token(), inline)

    def next_token(self) -> str:
        """Return a token for what the commit may claim. It has this claim's mark, as both are one delivery's."""
        return new_token(self.activation.lease_token[:MARK]) if self.claims else ""

    def is_cut_off(self, error: BaseException) -> bool:
        """Tell whether a step has left because the store stayed away, alone or in a group of several errors."""
        return self.cut_off is not None and any(leaf is self.cut_off for leaf in leaves(error))

    @property
    def run_id(self) -> str:
        """The id of the innermost workflow's run."""
        return f"{self.header.run_id}/{format_path(self.scope)}" if self.scope else self.header.run_id

    @property
    def log_context(self) -> dict[str, str]:
        """The `extra` of every log message about this attempt."""
        return log_context(self.header, self.activation, self.workflow.id)

    def typed_input(self, shape: Shape) -> Any:
        """Return the input, with the types that are known of it."""
        return self.values.as_type(self.activation.input, shape)

    def context(self, given: Any, resume_type: Any = Any, suspend_type: Any = Any) -> Context[Any]:
        """Make the context that user code gets."""
        activation, header = self.activation, self.header
        resume_shape, suspend_shape = shape_of(resume_type), shape_of(suspend_type)
        # A step that is itself a loop's body has the number of its iteration; one further inside takes the loop's.
        around = visits(activation)
        return Context(
            input=given,
            state=MappingProxyType(self.state()),
            run_id=self.run_id,
            workflow_id=self.workflow.id,
            resource_id=header.resource_id or None,
            request_context=self.services.contexts.read(header.run_id, self.claimed.context),
            resumed=activation.resumed,
            resume_data=self.values.as_type(activation.resume, resume_shape) if activation.resumed else None,
            suspend_data=self.values.as_type(activation.suspend, suspend_shape) if activation.suspend else None,
            retry_count=activation.attempt,
            iteration=activation.iteration or (around[-1] if around else None),
            index=activation.index if activation.index >= 0 else None,
            restarted=activation.restarted,
            idempotency_key=idempotency_key(header, activation),
            abort_signal=self.signal,
            logger=RunLogger(self.log_context),
            orchestrator=self.services.owner,
            services=self,
        )

    # --- reads beyond the claim

    def load(self, paths: list[str]) -> list[Activation]:
        """Read the activations at these paths."""
        return self._retry(lambda: self.store.load(self.header.run_id, paths))

    def _read_values(self, run_id: str, keys: list[str]) -> Mapping[str, str]:
        return self._retry(lambda: self.store.values(run_id, keys))

    def _retry(self, call: Callable[[], _T]) -> _T:
        try:
            # While the lease lasts, the step waits for the store. After that, another worker has the activation.
            return self.services.retry_while_unavailable(call)
        except StoreUnavailable as error:
            self.cut_off = error
            raise

    # --- questions of a context

    def init_data(self) -> Any:
        """Read the input of the innermost workflow."""
        return self.init(self.scope)

    def init(self, scope: Path) -> Any:
        """Read the input of the workflow whose scope this is."""
        # The run's own input stands in its header; that of a nested workflow in the activation of its block.
        key = self.header.input
        if scope:
            found = self.load([format_path(scope)])
            key = found[0].input if found else ""
        return self.values.as_type(key, shape_of(workflow_at(self.graph, scope).input))

    def result(self, step_id: str) -> tuple[bool, Any]:
        """Return True and the output of a step of this scope that has succeeded; else False and None."""
        # Read once, so that user code that asks twice in one attempt gets the same answer twice.
        if step_id not in self._results:
            self._results[step_id] = self._result(step_id)
        return self._results[step_id]

    def _result(self, step_id: str) -> tuple[bool, Any]:
        path = self.graph.find(self.scope, step_id)
        if path is None:
            return False, None
        # Between the two readings a loop beside this step may have finished iterations, and dropped the values of the
        # one that was found. Then a newer one has taken its place.
        for _ in range(2):
            found = self.load([format_path(path)])
            if not found or found[0].status != ActivationStatus.SUCCESS or not self._sees(found[0]):
                return False, None
            if self.values.is_whole(found[0].output):
                return True, self.values.as_type(found[0].output, bodies.shape_made(self.graph.node(path)))
        return False, None

    def _sees(self, activation: Activation) -> bool:
        # The other activation may be of an earlier iteration of a loop around both: its result belongs to the past.
        depth = self.graph.loops(self.scope)
        return visits(activation)[:depth] == visits(self.activation)[:depth]

    def write(self, kind: str, payload: Any) -> None:
        """Put an event of the step's own on the run's stream; `Chunks` says when it gets there.

        Raises `ValueNotSerializable`, `PayloadTooLarge`, and `StoreUnavailable` where the buffer is full.
        """
        activation, packing = self.activation, self.services.settings.packing
        require_name(kind, f"type of an event of step {activation.step!r}")
        text = encode_packed(payload, f"event {kind!r} of step {activation.step!r}", packing)
        self.chunks.add(make_written(kind, activation, text, self.source, activation.seq), len(text))

    def _send(self, flush: Flush) -> Committed | Refused:
        number, events = flush
        # Guarded by the lease like the outcome, and numbered: a flush is not written twice when it is sent again
        # because its answer did not arrive.
        change = attempt_commands.flush_events(self.activation, number, events, self.services.settings.limits)
        return self.store.commit(self.header.run_id, change)

    def _on_refused(self, reason: str) -> None:
        text = "step %s of run %s writes to its stream no more: %s"
        log.info(text, self.activation.step, self.header.run_id, reason, extra=self.log_context)
        # A flush is refused where the lease is gone or the run has ended. The outcome would be refused as well.
        self.signal.set()

    @cached_property
    def source(self) -> str:
        """The ids from the outermost workflow down to this step."""
        # Ids, as users write them: a path of numbers would change with every edit of the workflow.
        scopes = (self.activation.at[:cut] for cut in range(1, self.activation.scope + 1))
        ids = [self.graph.node(path).id for path in scopes if path == self.graph.scope((*path, 0))]
        return ".".join([*ids, self.activation.step])

    # --- state and request context

    def state(self) -> dict[str, Any]:
        """Return the state as the workflow's model declares it, defaults filled in."""
        return view_of_state(self.workflow, decode_all(self.claimed.state))

    def reread_state(self) -> None:
        """Read the state anew, as it was written meanwhile. Raises `StateConflict` if that goes on for too long."""
        self.state_conflicts += 1
        if self.state_conflicts > MAX_STATE_CONFLICTS:
            raise StateConflict(
                f"step {self.activation.step!r} could not update the run's state: other steps wrote it "
                f"{self.state_conflicts} times between the reading and the commit; let fewer steps write it side by "
                "side, or return the values and put them together in the step behind",
                run_id=self.header.run_id,
                workflow_id=self.workflow.id,
            )
        # Of many that write at once each round lets one through. The pauses spread the others.
        self.services.clock.sleep(chance() * min(1.0, 0.001 * 2.0 ** min(self.state_conflicts, 10)))
        # The header first: a write in between makes the version too old, which the commit finds out.
        header = self._retry(lambda: self.store.header(self.header.run_id)) or self.header
        state = self._retry(lambda: self.store.state(self.header.run_id))
        self.header = replace(self.header, state_version=header.state_version)
        self.claimed = replace(self.claimed, state=state)

    def state_patch(self, writes: Sequence[StateWrite]) -> dict[str, str | None]:
        """Return the keys of the state that the step has changed, as stored texts.

        Raises `ValueNotSerializable` for a value that cannot be stored, `InputInvalid` for one that the model does not
        allow, and whatever a function of `ctx.update_state` raises.
        """
        written = merge_writes(self.state() if has_updates(writes) else {}, writes)
        if not written:
            return {}
        named = with_text_keys(written, f"state of step {self.activation.step!r}")
        texts = encode_all(named, self.services.settings.packing)
        if self.workflow.state is not None:
            # The model describes the whole state, and the step has written a part of it. So both are checked together.
            merged = {**decode_all(self.claimed.state), **decode_all(texts)}
            validate(self.workflow.state, merged, header="State does not fit: ")
        # Only changed keys are written, so that two steps that run side by side keep each other's keys.
        # Unpacked, because another process may compress in another way.
        before = self.claimed.state
        return {key: text for key, text in texts.items() if unpack(before.get(key, "")) != unpack(text)}

    def context_patch(self, after: Mapping[Any, Any]) -> dict[str, str | None]:
        """Return the keys of the request context that the step has changed, as stored texts."""
        if not self.claimed.context and not after:
            return {}
        return self.services.contexts.patch(self.header.run_id, self.claimed.context, after, self.activation.step)

    def store_value(self, value: Any, what: str) -> str:
        """Encode a value as stored text. An error names the step."""
        where = f"{what} of step {self.activation.step!r}"
        return encode_value(value, where, self.services.settings.packing)
