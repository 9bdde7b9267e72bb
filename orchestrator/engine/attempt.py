"""One attempt: the claim of an activation as user code sees it, with what it reads and what it writes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeVar

from orchestrator.codec import Shape, encode, require_unicode, validate, with_text_keys
from orchestrator.definitions import bodies
from orchestrator.definitions.context import AbortSignal, Context
from orchestrator.definitions.definition import Definition
from orchestrator.definitions.foreign import TaskEntry
from orchestrator.engine.calling import leaves
from orchestrator.engine.chunks import Chunks, Part
from orchestrator.engine.declarations import shape_of, view_of_state, workflow_at
from orchestrator.engine.idempotency import idempotency_key
from orchestrator.engine.logs import RunLogger, log_context
from orchestrator.engine.observe.observer import observe_attempt
from orchestrator.engine.observe.protocols import ObservedAttempt
from orchestrator.engine.read.value_reader import Values, decode_all, encode_value
from orchestrator.engine.services import Services
from orchestrator.errors import StoreUnavailable
from orchestrator.host import MARK, new_token
from orchestrator.rules import attempt_commands
from orchestrator.rules.change import Claimed, Committed, Refused
from orchestrator.rules.graph import Graph, Path
from orchestrator.rules.model import Activation, ActivationStatus, format_path, visits
from orchestrator.rules.plan import ClaimedNode

log = logging.getLogger("orchestrator")
_T = TypeVar("_T")


CallTask = Callable[[TaskEntry, Any, Context[Any]], Any]


class Attempt:
    """The claim of one activation, with its workflow. Everything it reads beyond the claim is read when asked for."""

    def __init__(
        self,
        services: Services,
        claimed: Claimed,
        graph: Graph,
        signal: AbortSignal,
        call_task: CallTask | None = None,
        claims: bool = True,
    ) -> None:
        self.services = services
        self.store = services.store
        self.claimed = claimed
        self.graph = graph
        self.activation = claimed.activation
        self.header = claimed.header
        self.signal = signal
        self.call_task = call_task
        # False where another process settles the attempt: it could not run a successor that it claimed.
        self.claims = claims  # whether this process may go on with what follows
        # The claim has brought the step's own input, so most steps read nothing more.
        self.values = Values(self._read_values, claimed.header.run_id, claimed.values)
        self.scope: Path = self.activation.at[: self.activation.scope]
        self.workflow: Definition = workflow_at(graph, self.scope)
        # A writer waits for the store as long as its lease lasts; after it, nothing of it would be accepted.
        self.chunks = Chunks(
            self._send, self._on_refused, services.clock, services.settings.lease_seconds, self.log_context
        )
        self.error: BaseException | None = None  # what this attempt has failed with
        self.cut_off: StoreUnavailable | None = None  # no outcome follows from it: the activation runs again elsewhere
        self.is_recorded = False  # its outcome is in the store, and not somebody else's
        self._results: dict[str, tuple[bool, Any]] = {}
        self.observer = observe_attempt(self._as_observed())

    def _as_observed(self) -> ObservedAttempt:
        # Observers read without patience: nobody waits for a store so that a span may be complete.
        run_id, store = self.header.run_id, self.store
        return ObservedAttempt(
            self.header,
            self.activation,
            self.workflow.id,
            self.graph,
            lambda paths: store.load(run_id, paths),
            self.values.plain,
        )

    def spot(self, inline: bool = False) -> ClaimedNode:
        """The activation as the core sees it."""
        # The token of a successor that the commit may claim is fixed here, so that a commit that is repeated claims it
        # once.
        return ClaimedNode(self.graph, self.header, self.activation, self.next_token(), inline)

    def next_token(self) -> str:
        """A token for what the commit may claim; it has the mark of this claim, since one delivery makes them both."""
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
        """The `extra` of every log record about it."""
        return log_context(self.header, self.activation, self.workflow.id)

    def typed_input(self, shape: Shape) -> Any:
        """The input, as the types that are known of it."""
        return self.values.as_type(self.activation.input, shape)

    def context(self, given: Any, resume_type: Any = Any, suspend_type: Any = Any) -> Context[Any]:
        """The context that user code gets."""
        activation, header = self.activation, self.header
        resume_shape, suspend_shape = shape_of(resume_type), shape_of(suspend_type)
        # A step inside a loop sees the number of its iteration, one that is the loop's body its own.
        around = visits(activation)
        return Context(
            input=given,
            state=MappingProxyType(self.state()),
            run_id=self.run_id,
            workflow_id=self.workflow.id,
            resource_id=header.resource_id or None,
            request_context=self.services.contexts.read(self.claimed.context),
            resumed=activation.resumed,
            resume_data=self.values.as_type(activation.resume, resume_shape) if activation.resumed else None,
            suspend_data=self.values.as_type(activation.suspend, suspend_shape) if activation.suspend else None,
            retry_count=activation.attempt,
            iteration=activation.iteration or (around[-1] if around else None),
            index=activation.index if activation.index >= 0 else None,
            restarted=activation.restarted,
            idempotency_key=idempotency_key(header.run_id, header.generation, activation),
            abort_signal=self.signal,
            logger=RunLogger(self.log_context),
            orchestrator=self.services.owner,
            services=self,
        )

    # --- reads beyond the claim

    def load(self, paths: list[str]) -> list[Activation]:
        """Records of the run."""
        return self._retry(lambda: self.store.load(self.header.run_id, paths))

    def _read_values(self, run_id: str, keys: list[str]) -> Mapping[str, str]:
        return self._retry(lambda: self.store.values(run_id, keys))

    def _retry(self, call: Callable[[], _T]) -> _T:
        try:
            # While the lease lasts, the step waits for the store. After it, somebody else has the activation.
            return self.services.retry_while_unavailable(call)
        except StoreUnavailable as error:
            self.cut_off = error
            raise

    # --- what a context asks for

    def init_data(self) -> Any:
        """The input of the innermost workflow."""
        return self.init(self.scope)

    def init(self, scope: Path) -> Any:
        """The input of the workflow whose scope this is."""
        # The run's input stands in its header: its first step needs no activation for it.
        key = self.header.input
        if scope:
            found = self.load([format_path(scope)])
            key = found[0].input if found else ""
        return self.values.as_type(key, shape_of(workflow_at(self.graph, scope).input))

    def result(self, step_id: str) -> tuple[bool, Any]:
        """Return whether a step of this scope has succeeded, and its output."""
        # Read once: the output of a step that has succeeded does not change while this one runs.
        if step_id not in self._results:
            self._results[step_id] = self._result(step_id)
        return self._results[step_id]

    def _result(self, step_id: str) -> tuple[bool, Any]:
        path = self.graph.find(self.scope, step_id)
        if path is None:
            return False, None
        found = self.load([format_path(path)])
        if not found or found[0].status != ActivationStatus.SUCCESS or not self._sees(found[0]):
            return False, None
        return True, self.values.as_type(found[0].output, bodies.shape_made(self.graph.node(path)))

    def _sees(self, activation: Activation) -> bool:
        # The activation may be of an earlier iteration of a loop around both: that result belongs to the past.
        depth = self.graph.loops(self.scope)
        return visits(activation)[:depth] == visits(self.activation)[:depth]

    def write(self, kind: str, payload: Any) -> None:
        """Put an event of the step's own on the run's stream; see `Chunks` for when it gets there.

        Raises `ValueNotSerializable`, `PayloadTooLarge`, and `StoreUnavailable` where the buffer is full.
        """
        activation, limit = self.activation, self.services.settings.max_payload_bytes
        require_unicode(kind, f"type of an event of step {activation.step!r}")
        text = encode(payload, where=f"event {kind!r} of step {activation.step!r}", limit=limit)
        event = {
            "type": kind,
            "path": activation.path,
            "visit": activation.visit,
            "step": activation.step,
            "text": text,
        }
        self.chunks.add({**event, "source": self.source}, len(text))

    def _send(self, part: Part) -> Committed | Refused:
        number, events = part
        # Guarded by the lease like the outcome, and numbered: a part whose answer was lost is not written twice.
        change = attempt_commands.flush_events(self.activation, number, events, self.services.settings.limits)
        return self.store.commit(self.header.run_id, change)

    def _on_refused(self, reason: str) -> None:
        text = "step %s of run %s writes to its stream no more: %s"
        log.info(text, self.activation.step, self.header.run_id, reason, extra=self.log_context)
        # A part is refused where the claim is lost or the run has ended: nobody wants what the step does from here on.
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
        """The state as the workflow's model sees it, defaults filled in."""
        return view_of_state(self.workflow, decode_all(self.claimed.state))

    def state_patch(self, written: Mapping[Any, Any]) -> dict[str, str | None]:
        """The part of the state that the step has changed.

        Raises `ValueNotSerializable` for what cannot be stored, `InputInvalid` where the model does not allow it.
        """
        if not written:
            return {}
        limit = self.services.settings.max_payload_bytes
        named = with_text_keys(written, f"state of step {self.activation.step!r}")
        texts = {key: encode(value, where=f"state[{key!r}]", limit=limit) for key, value in named.items()}
        if self.workflow.state is not None:
            # The model speaks of the state as a whole, the patch only of what the step has written.
            merged = {**decode_all(self.claimed.state), **decode_all(texts)}
            validate(self.workflow.state, merged, header="State does not fit: ")
        # Only what has changed: two steps that run side by side may each write a key of their own.
        return {key: text for key, text in texts.items() if self.claimed.state.get(key) != text}

    def context_patch(self, after: Mapping[Any, Any]) -> dict[str, str | None]:
        """The part of the request context that the step has changed."""
        if not self.claimed.context and not after:
            return {}
        return self.services.contexts.patch(self.claimed.context, after, self.activation.step)

    def store_value(self, value: Any, what: str) -> str:
        """Encode a value as stored text, with the step named where it is refused."""
        where = f"{what} of step {self.activation.step!r}"
        return encode_value(value, where, self.services.settings.max_payload_bytes)
