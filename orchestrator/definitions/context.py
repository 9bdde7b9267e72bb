"""The `Context`, which is a step's view of its run, and the ways of ending a step otherwise than by returning.

`suspend`, `bail` and `raise_if_aborted` end the step at once by raising a control-flow exception. These derive from
`BaseException`, so that a step's own `except Exception` cannot swallow them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Generic, NoReturn, Protocol, overload

from typing_extensions import TypeVar

from orchestrator.codec import require_name
from orchestrator.definitions.entry import TypedEntry, WorkflowEntry
from orchestrator.definitions.foreign import TaskEntry
from orchestrator.definitions.state_writes import StateUpdate, StateWrite, check_update, merge_writes
from orchestrator.definitions.telemetry import current_span
from orchestrator.rules.events import EventType, is_reserved

log = logging.getLogger("orchestrator")

R = TypeVar("R", default=Any)
Out = TypeVar("Out")


class Suspending(BaseException):
    """A step suspends its run. Raised by `Context.suspend`."""

    def __init__(self, payload: Any, label: str) -> None:
        super().__init__(payload, label)
        self.payload = payload
        self.label = label


class Bailing(BaseException):
    """A step ends its run well. Raised by `Context.bail`."""

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.value = value


class Aborted(BaseException):
    """A step stops because its run has been aborted or canceled. Raised by `Context.raise_if_aborted`."""


class AbortSignal:
    """Tells a step that its run has been aborted or canceled. It is a wish: the step decides when to heed it."""

    def __init__(self) -> None:
        # what the step has done to have the signal set, where its run has neither been aborted nor canceled
        self.reason: BaseException | None = None
        self._event = threading.Event()
        self._listeners: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def is_set(self) -> bool:
        """True once the run has been aborted or canceled."""
        return self._event.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the signal is set, at most so many seconds. Return True if it is."""
        # Python refuses to wait for longer than some centuries; nobody sees the difference.
        return self._event.wait(None if seconds is None else min(seconds, threading.TIMEOUT_MAX))

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Call `listener` once when the signal is set, in a thread of its own; at once if it is set already."""
        with self._lock:
            if not self._event.is_set():
                self._listeners.append(listener)
                return
        listener()

    def set(self, reason: BaseException | None = None) -> None:
        """Set the signal. Setting it again does nothing."""
        with self._lock:
            if self._event.is_set():
                return
            self.reason = reason
            self._event.set()
            listeners, self._listeners = self._listeners, []
        # The signal is mostly set by the thread that renews the leases of this process. What listeners do is their
        # own, and may take long: the leases of other steps would end meanwhile. Each has a thread of its own, so that
        # they do not wait for each other either.
        for listener in listeners:
            threading.Thread(target=_notify, args=(listener,), name="orchestrator-abort", daemon=True).start()


def _notify(listener: Callable[[], None]) -> None:
    try:
        listener()
    except BaseException:  # a user's function, at the end of its thread
        log.exception("a listener of an abort signal raised")


class ContextServices(Protocol):
    """The services that a context asks of the engine while its step runs."""

    def init_data(self) -> Any:
        """The input of the innermost workflow."""
        ...

    def result(self, step_id: str) -> tuple[bool, Any]:
        """Return True and its output for a step of this workflow that has succeeded, else False and None."""
        ...

    def write(self, kind: str, payload: Any) -> None:
        """Put an event of this type on the run's stream."""
        ...


class _NoServices:
    """The services of a context outside a run: nothing ran before, nothing is streamed."""

    def init_data(self) -> Any:
        return None

    def result(self, step_id: str) -> tuple[bool, Any]:
        return False, None

    def write(self, kind: str, payload: Any) -> None:
        return None


@dataclass(slots=True)
class Context(Generic[R]):
    """The view that a step, mapping or condition has of its run. `Context[R]`: the resume data is an `R`."""

    # The step's input.
    input: Any = None
    # The run's state as this activation found it, read-only.
    state: Mapping[str, Any] = field(default_factory=dict)
    # Of the innermost workflow: inside a nested one it is `<run id>/<path>`.
    run_id: str = ""
    # Of the innermost workflow.
    workflow_id: str = ""
    # The resource that the run belongs to, as its caller said.
    resource_id: str | None = None
    # Travels with the run: later steps see the changes that a step makes in it.
    # Not shown: it may hold secrets, and contexts end up in logs.
    request_context: MutableMapping[str, Any] = field(default_factory=dict, repr=False)
    # This activation suspended before and goes on with `resume_data`.
    resumed: bool = False
    # The data of the resume; None unless `resumed`.
    resume_data: R = None  # type: ignore[assignment]  # None unless resumed: declared types promise it where `resumed` holds
    # The payload that this activation suspended with.
    suspend_data: Any = None
    # 0 on the first attempt.
    retry_count: int = 0
    # Of the loop around, 1 in the first; None outside a loop.
    iteration: int | None = None
    # Of the foreach item; None outside a foreach.
    index: int | None = None
    # An earlier attempt of this activation was abandoned; it may have had effects.
    restarted: bool = False
    # The same for every attempt of this activation (redelivery, retries, restarts, resumes), unlike any other.
    idempotency_key: str = ""
    # Tells a step that works for long that its run has been aborted or canceled.
    abort_signal: AbortSignal = field(default_factory=AbortSignal)
    # Its records carry the ids of run and step.
    logger: logging.Logger | logging.LoggerAdapter[Any] = field(
        default_factory=lambda: logging.getLogger("orchestrator")
    )
    # The `Orchestrator` that runs the step.
    orchestrator: Any = None
    # The engine, or nothing outside a run.
    services: ContextServices = field(default_factory=_NoServices, repr=False)
    # What the step has written into the state, in order; the engine takes it when the attempt has ended.
    state_writes: list[StateWrite] = field(default_factory=list, repr=False)
    # The step has asked for the end of the run.
    aborted: bool = field(default=False, repr=False)

    @property
    def init_data(self) -> Any:
        """The input of the innermost workflow. Read from the store when asked for."""
        return self.services.init_data()

    @overload
    def result(self, step: TypedEntry[Out]) -> Out | None: ...

    @overload
    def result(self, step: str | WorkflowEntry[Any] | TaskEntry) -> Any: ...

    def result(self, step: Any) -> Any:
        """The output of a step of the same workflow (the step, or its id) that succeeded in this run, else None.

        Read from the store when asked for. Steps inside nested workflows and those of an outer one are not seen.
        """
        return self.services.result(id_of(step))[1]

    def set_state(self, values: Mapping[str, Any]) -> None:
        """Merge top-level keys into the run's state. Later steps see them; this one's `state` stays as it is.

        They are kept if the step succeeds or suspends, and dropped if the attempt fails.
        """
        self.state_writes.append(dict(values))

    def update_state(self, update: StateUpdate) -> None:
        """Write what `update` computes from the run's state, so that no other step's write gets lost.

        `update` is given the state as it is when this step ends, with what the step itself has written before, and
        returns the top-level keys to write: `ctx.update_state(lambda state: {"total": state.get("total", 0) + 1})`.
        It has to be a plain function without effects. It is called when the step has ended, and again on the newer
        state whenever another step has written there meanwhile; after 100 times the attempt fails with
        `StateConflict`. What it writes is kept or dropped as with `set_state`. Raises TypeError for what is no such
        function.
        """
        self.state_writes.append(check_update(update))

    @property
    def written_state(self) -> dict[str, Any]:
        """The keys that the step has written so far, computed from the state as it found it."""
        return merge_writes(self.state, self.state_writes)

    def suspend(self, payload: Any = None, *, label: str | None = None) -> NoReturn:
        """Suspend the run until a caller resumes it; nothing waits meanwhile. Never returns: the step runs again
        from the top.

        `payload` tells the caller who resumes what the step asks for; `label` is a name by which to resume it.
        """
        if label is not None and not isinstance(label, str):
            raise TypeError(f"the label of a suspension is a text, not {label!r}")
        raise Suspending(payload, require_name(label or "", "label of a suspension"))

    def bail(self, value: Any = None) -> NoReturn:
        """End the whole run well, with `value` as its result. Never returns."""
        raise Bailing(value)

    def abort(self) -> None:
        """End the whole run as canceled once this step returns, whatever it returns."""
        self.aborted = True
        self.abort_signal.set()

    def raise_if_aborted(self) -> None:
        """Leave the step if the run has been aborted or canceled."""
        if self.abort_signal.is_set():
            raise Aborted

    def write(self, chunk: Any) -> None:
        """Put a chunk on the run's stream, as a `workflow-step-output` event. What a generator step yields is one too.

        Chunks are gathered and sent together, at most every 50 ms and before the step's own end or suspension is told
        of. The buffer is bounded (500 chunks or 256 Ki characters): a step that fills it faster than the store takes it
        sends it in this call and waits for the answer, in an `async def` step too. Chunks of an attempt that failed
        stay on the stream. Once the run has ended or another worker has the step, they are dropped.
        """
        self.services.write(EventType.STEP_OUTPUT.value, {"output": chunk})

    def write_event(self, type: str, payload: Any = None) -> None:
        """Put an event of the step's own type on the run's stream, as `write` does with a chunk.

        Types that begin with `workflow-` are the engine's own: raises ValueError.
        """
        if not isinstance(type, str):
            raise TypeError(f"the type of an event is a text, not {type!r}")
        if is_reserved(type):
            raise ValueError(f"{type!r} is no type for a step's own events: those of the engine begin so")
        self.services.write(type, payload)

    @property
    def span(self) -> Any:
        """The current OpenTelemetry span; one that records nothing where OpenTelemetry is not installed."""
        return current_span()


def id_of(step: Any) -> str:
    """The id of a step, given as such, as its id, or as an existing Celery task."""
    if isinstance(step, str):
        return step
    return str(getattr(step, "id", None) or step.name.rsplit(".", 1)[-1])
