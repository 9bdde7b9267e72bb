"""What a step sees of its run: the `Context`, and the words by which it ends otherwise than by returning.

`suspend`, `bail` and `raise_if_aborted` end the step at once by raising a control-flow exception. These derive from
`BaseException`, so that a step's own `except Exception` cannot swallow them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, overload

from typing_extensions import TypeVar

from orchestrator.codec import require_unicode

if TYPE_CHECKING:
    from orchestrator.definitions.foreign import TaskEntry
    from orchestrator.definitions.step import Step
    from orchestrator.definitions.workflow import Workflow

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
        self._event = threading.Event()
        self._listeners: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def is_set(self) -> bool:
        """Whether the run has been aborted or canceled."""
        return self._event.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the signal is set, at most so many seconds; returns whether it is."""
        return self._event.wait(seconds)

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Call `listener` once when the signal is set, from the thread that sets it; at once if it is set already."""
        with self._lock:
            if not self._event.is_set():
                self._listeners.append(listener)
                return
        listener()

    def set(self) -> None:
        """Set the signal. Setting it again does nothing."""
        with self._lock:
            if self._event.is_set():
                return
            self._event.set()
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()


class Services(Protocol):
    """What a context asks of the engine while its step runs."""

    def init_data(self) -> Any: ...

    def result(self, step_id: str) -> tuple[bool, Any]: ...

    def write(self, kind: str, payload: Any) -> None: ...


class _Nothing:
    """Services of a context outside a run: nothing ran before, nothing is streamed."""

    def init_data(self) -> Any:
        return None

    def result(self, step_id: str) -> tuple[bool, Any]:
        return False, None

    def write(self, kind: str, payload: Any) -> None:
        return None


@dataclass(slots=True)
class Context(Generic[R]):
    """What a step, mapping or condition sees of its run. `Context[R]`: the resume data is an `R`.

    * `input`: the step's input. `state`: the run's state as this activation found it, read-only.
    * `run_id`, `workflow_id`: of the innermost workflow; inside a nested workflow the run id is `<run id>/<path>`.
    * `request_context`: a mapping that travels with the run; what a step changes in it, later steps see.
    * `resumed`, `resume_data`, `suspend_data`: whether this activation was resumed, with what, and what it had
      suspended with.
    * `retry_count`: 0 on the first attempt. `iteration`: of the loop around, 1 in the first. `index`: of the foreach
      item.
    * `restarted`: an earlier run of this activation was lost with its worker; it may have had effects.
    * `idempotency_key`: the same for every run of this activation (redelivery, retries, restarts, resumes), unlike
      any other.
    """

    input: Any = None
    state: Mapping[str, Any] = field(default_factory=dict)
    run_id: str = ""
    workflow_id: str = ""
    resource_id: str | None = None
    request_context: MutableMapping[str, Any] = field(default_factory=dict)
    resumed: bool = False
    resume_data: R = None  # type: ignore[assignment]  # None unless resumed: declared types promise it where `resumed` holds
    suspend_data: Any = None
    retry_count: int = 0
    iteration: int | None = None
    index: int | None = None
    restarted: bool = False
    idempotency_key: str = ""
    abort_signal: AbortSignal = field(default_factory=AbortSignal)
    logger: logging.Logger | logging.LoggerAdapter[Any] = field(
        default_factory=lambda: logging.getLogger("orchestrator")
    )
    orchestrator: Any = None
    services: Services = field(default_factory=_Nothing, repr=False)
    written_state: dict[str, Any] = field(default_factory=dict, repr=False)
    aborted: bool = field(default=False, repr=False)

    @property
    def init_data(self) -> Any:
        """The input of the innermost workflow. Read from the store when asked for."""
        return self.services.init_data()

    @overload
    def result(self, step: Step[Any, Any, Out]) -> Out | None: ...

    @overload
    def result(self, step: str | Workflow | TaskEntry) -> Any: ...

    def result(self, step: Any) -> Any:
        """The output of a step of the same workflow (the step, or its id) that succeeded in this run, else None.

        Read from the store when asked for. Steps inside nested workflows and those of an outer one are not seen.
        """
        return self.services.result(id_of(step))[1]

    def set_state(self, values: Mapping[str, Any]) -> None:
        """Merge top-level keys into the run's state. Later steps see them; this one's `state` stays as it is.

        They are kept if the step succeeds or suspends, and dropped if the attempt fails.
        """
        self.written_state.update(values)

    def suspend(self, payload: Any = None, *, label: str | None = None) -> NoReturn:
        """Hold the run up until somebody resumes it; nothing waits meanwhile. Never returns: the step runs again
        from the top.

        `payload` tells the one who resumes what is asked of them; `label` is a name by which they can.
        """
        raise Suspending(payload, require_unicode(label or "", "label of a suspension"))

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
        self.services.write("workflow-step-output", {"output": chunk})

    def write_event(self, type: str, payload: Any = None) -> None:
        """Put an event of the step's own type on the run's stream, as `write` does with a chunk.

        Types that begin with `workflow-` are the engine's own: raises ValueError.
        """
        if type.startswith("workflow-"):
            raise ValueError(f"{type!r} is no type for a step's own events: those of the engine begin so")
        self.services.write(type, payload)

    @property
    def span(self) -> Any:
        """The current OpenTelemetry span; one that records nothing where OpenTelemetry is not installed."""
        from orchestrator.definitions.telemetry import current_span

        return current_span()


def id_of(step: Any) -> str:
    """The id of a step, given as such, as its id, or as an existing Celery task."""
    if isinstance(step, str):
        return step
    return str(getattr(step, "id", None) or step.name.rsplit(".", 1)[-1])


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What `on_start`, `on_finish` and `on_error` are told of a run."""

    status: str
    result: Any
    error: BaseException | None
    steps: Mapping[str, Any]
    tripwire: Any
    state: Mapping[str, Any]
    run_id: str
    workflow_id: str
    resource_id: str | None
    init_data: Any
    request_context: Mapping[str, Any]
    logger: logging.Logger | logging.LoggerAdapter[Any]
    orchestrator: Any
    execution_path: list[str]
