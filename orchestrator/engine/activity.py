"""One claimed activation: what its run looks like from where it stands, and what it has written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from orchestrator.codec import ANY, Shape, Typed, encode, is_any_annotation, keyed, restore, sound, validate
from orchestrator.core import attempt_commands
from orchestrator.core.changes import Claimed, Committed, Refused
from orchestrator.core.graph import Graph, Path
from orchestrator.core.plan import Spot
from orchestrator.core.records import Record, Status, dotted, visits
from orchestrator.definitions import Workflow
from orchestrator.definitions.bodies import shape_made
from orchestrator.definitions.context import AbortSignal, Context
from orchestrator.definitions.foreign import TaskEntry
from orchestrator.engine.chunks import Chunks, Part
from orchestrator.engine.logs import RunLogger, about
from orchestrator.engine.reading import Values, decoded, stored
from orchestrator.engine.telemetry import watching
from orchestrator.errors import StoreUnavailable
from orchestrator.host import new_token

if TYPE_CHECKING:
    from orchestrator.engine.delivery import Engine

log = logging.getLogger("orchestrator")
_T = TypeVar("_T")


CallTask = Callable[[TaskEntry, Any, Context[Any]], Any]


@dataclass(frozen=True, slots=True)
class Ending:
    """What an activation came to: what its record is now, and what a failed attempt has failed with."""

    status: str
    error: BaseException | None = None


class Activity:
    """The claim of one activation, with its workflow. Everything it reads beyond the claim is read when asked for."""

    def __init__(
        self,
        engine: Engine,
        claimed: Claimed,
        graph: Graph,
        signal: AbortSignal,
        call_task: CallTask | None = None,
        claims: bool = True,
    ) -> None:
        self.engine = engine
        self.store = engine.store
        self.claimed = claimed
        self.graph = graph
        self.record = claimed.record
        self.header = claimed.header
        self.signal = signal
        self.call_task = call_task
        self.claims = claims  # whether this process may go on with what follows
        self.values = Values(self._read_values, claimed.header.run_id, claimed.values)
        self.scope: Path = self.record.at[: self.record.scope]
        self.workflow: Workflow = workflow_at(graph, self.scope)
        self.chunks = Chunks(self._send, self._refused, engine.clock, engine.settings.lease_seconds, self.about)
        self.error: BaseException | None = None  # what this attempt has failed with
        self.cut_off: StoreUnavailable | None = None  # no outcome follows from it: the activation runs again elsewhere
        self._results: dict[str, tuple[bool, Any]] = {}
        self.watch = watching(self)

    def spot(self, inline: bool = False) -> Spot:
        """The activation as the core sees it."""
        return Spot(self.graph, self.header, self.record, new_token() if self.claims else "", inline)

    @property
    def run_id(self) -> str:
        """The id of the innermost workflow's run."""
        return f"{self.header.run_id}/{dotted(self.scope)}" if self.scope else self.header.run_id

    @property
    def about(self) -> dict[str, str]:
        """What every log record of it carries."""
        return about(self.header, self.record, self.workflow.id)

    def given(self, shape: Shape) -> Any:
        """The input, as the types that are known of it."""
        return self.values.typed(self.record.input, shape)

    def context(self, given: Any, resume_type: Any = Any, suspend_type: Any = Any) -> Context[Any]:
        """The context that user code gets."""
        record, header = self.record, self.header
        resume_shape, suspend_shape = declared(resume_type), declared(suspend_type)
        around = visits(record)
        return Context(
            input=given,
            state=MappingProxyType(self.state()),
            run_id=self.run_id,
            workflow_id=self.workflow.id,
            resource_id=header.resource_id or None,
            request_context=self.engine.contexts.read(self.claimed.context),
            resumed=record.resumed,
            resume_data=self.values.typed(record.resume, resume_shape) if record.resumed else None,
            suspend_data=self.values.typed(record.suspend, suspend_shape) if record.suspend else None,
            retry_count=record.attempt,
            iteration=record.iteration or (around[-1] if around else None),
            index=record.index if record.index >= 0 else None,
            restarted=record.restarted,
            idempotency_key=idempotency_key(header.run_id, header.life, record),
            abort_signal=self.signal,
            logger=RunLogger(self.about),
            orchestrator=self.engine.owner,
            services=self,
        )

    # What is read beyond the claim: while the lease lasts, a store that is away is waited for

    def load(self, paths: list[str]) -> list[Record]:
        """Records of the run."""
        return self._insist(lambda: self.store.load(self.header.run_id, paths))

    def _read_values(self, run_id: str, keys: list[str]) -> Mapping[str, str]:
        return self._insist(lambda: self.store.values(run_id, keys))

    def _insist(self, call: Callable[[], _T]) -> _T:
        try:
            return self.engine.insist(call, self.engine.settings.lease_seconds)
        except StoreUnavailable as error:
            self.cut_off = error
            raise

    # What a context asks for

    def init_data(self) -> Any:
        """The input of the innermost workflow."""
        return self.init(self.scope)

    def init(self, scope: Path) -> Any:
        """The input of the workflow whose scope this is."""
        key = self.header.input
        if scope:
            found = self.load([dotted(scope)])
            key = found[0].input if found else ""
        return self.values.typed(key, declared(workflow_at(self.graph, scope).input))

    def result(self, step_id: str) -> tuple[bool, Any]:
        """Whether a step of this scope has succeeded, and with what."""
        if step_id not in self._results:
            self._results[step_id] = self._result(step_id)
        return self._results[step_id]

    def _result(self, step_id: str) -> tuple[bool, Any]:
        path = self.graph.find(self.scope, step_id)
        if path is None:
            return False, None
        found = self.load([dotted(path)])
        if not found or found[0].status != Status.SUCCESS or not self._sees(found[0]):
            return False, None
        return True, self.values.typed(found[0].output, shape_made(self.graph.node(path)))

    def _sees(self, record: Record) -> bool:
        depth = self.graph.loops(self.scope)
        return visits(record)[:depth] == visits(self.record)[:depth]

    def write(self, kind: str, payload: Any) -> None:
        """Put an event of the step's own on the run's stream; see `Chunks` for when it gets there.

        Raises `ValueNotSerializable`, `PayloadTooLarge`, and `StoreUnavailable` where the buffer is full.
        """
        record, limit = self.record, self.engine.settings.max_payload_bytes
        sound(kind, f"type of an event of step {record.step!r}")
        text = encode(payload, where=f"event {kind!r} of step {record.step!r}", limit=limit)
        event = {"type": kind, "path": record.path, "visit": record.visit, "step": record.step, "text": text}
        self.chunks.add({**event, "source": self.source}, len(text))

    def _send(self, part: Part) -> Committed | Refused:
        number, events = part
        change = attempt_commands.flush_events(self.record, number, events, self.engine.settings.limits)
        return self.store.commit(self.header.run_id, change)

    def _refused(self, reason: str) -> None:
        text = "step %s of run %s writes to its stream no more: %s"
        log.info(text, self.record.step, self.header.run_id, reason, extra=self.about)
        self.signal.set()

    @cached_property
    def source(self) -> str:
        """The ids from the outermost workflow down to this step."""
        scopes = (self.record.at[:cut] for cut in range(1, self.record.scope + 1))
        ids = [self.graph.node(path).id for path in scopes if path == self.graph.scope((*path, 0))]
        return ".".join([*ids, self.record.step])

    # State and request context

    def state(self) -> dict[str, Any]:
        """The state as the workflow's model sees it, defaults filled in."""
        return view_of_state(self.workflow, decoded(self.claimed.state))

    def state_patch(self, written: Mapping[Any, Any]) -> dict[str, str | None]:
        """What the step has written into the state.

        Raises `ValueNotSerializable` for what cannot be stored, `InputInvalid` where the model does not allow it.
        """
        if not written:
            return {}
        limit = self.engine.settings.max_payload_bytes
        named = keyed(written, f"state of step {self.record.step!r}")
        texts = {key: encode(value, where=f"state[{key!r}]", limit=limit) for key, value in named.items()}
        if self.workflow.state is not None:
            merged = {**decoded(self.claimed.state), **decoded(texts)}
            validate(self.workflow.state, merged, header="State does not fit: ")
        return {key: text for key, text in texts.items() if self.claimed.state.get(key) != text}

    def context_patch(self, after: Mapping[Any, Any]) -> dict[str, str | None]:
        """What the step has changed in the request context."""
        if not self.claimed.context and not after:
            return {}
        return self.engine.contexts.patch(self.claimed.context, after, self.record.step)

    def store_value(self, value: Any, what: str) -> str:
        """A value as stored text, with the step named where it is refused."""
        where = f"{what} of step {self.record.step!r}"
        return stored(value, where, self.engine.settings.max_payload_bytes)


def view_of_state(workflow: Workflow, plain: Mapping[str, Any]) -> dict[str, Any]:
    """State as a workflow's model declares it.

    Typed, defaults filled in, other keys left out. Plain where none is declared.
    """
    if workflow.state is None:
        return dict(plain)
    seen = validate(workflow.state, dict(plain), header="State does not fit: ")
    if isinstance(seen, BaseModel):
        return {name: getattr(seen, name) for name in type(seen).model_fields}
    return dict(seen)


def workflow_at(graph: Graph, scope: Path) -> Workflow:
    """The workflow whose scope this is."""
    body: Any = graph.node(scope).body if scope else graph.body  # type: ignore[union-attr]
    workflow: Workflow = body.workflow if scope else body
    return workflow


def shape_given(graph: Graph, path: Path) -> Shape:
    """The shape of what the record at `path` has as its input."""
    return getattr(getattr(graph.node(path), "body", None), "given", ANY)


def declared(annotation: Any) -> Shape:
    """An annotation as a shape."""
    return ANY if annotation is None or is_any_annotation(annotation) else Typed(annotation)


def restored(annotation: Any, plain: Any) -> Any:
    """A plain value as its declared type, if it fits."""
    return restore(declared(annotation), plain)


def idempotency_key(run_id: str, life: int, record: Record) -> str:
    """The same for every run of one activation: made of run, life, path and visit alone."""
    key = f"{run_id}/{record.path}" if not life else f"{run_id}.life.{life}/{record.path}"
    again = any(number > 1 for number in visits(record))
    return f"{key}.iter.{record.visit}" if again else key
