"""The door to OpenTelemetry: it finds an SDK if the process has one, and observers that do nothing if it has none.

Nothing here imports OpenTelemetry. A process that configures an SDK imports its API first, so `sys.modules` and the
provider tell if there is one. That there is none is believed for a second, and not for ever: an SDK may be configured
late, as it is in the children of a prefork pool. Spans are made in `tracing`, metrics in `metrics`. Both are imported
once there is an SDK.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from orchestrator.engine.observe.protocols import (
    NULL_OBSERVER,
    AttemptObserver,
    CallObserver,
    NullObserver,
    ObservedAttempt,
)
from orchestrator.host import monotonic
from orchestrator.ports import Store
from orchestrator.rules.model import RunHeader

if TYPE_CHECKING:  # they import an optional library, which a process without an SDK never loads
    from orchestrator.engine.observe.metrics import Metrics
    from orchestrator.engine.observe.tracing import Tracing

SILENCE = 1.0  # seconds between two looks at the providers while there is no SDK: a look costs more than a step
_STAND_INS = ("opentelemetry.trace", "opentelemetry.metrics")  # the API's modules; an SDK's are elsewhere
_NOTHING: AbstractContextManager[NullObserver] = nullcontext(NULL_OBSERVER)


@dataclass(frozen=True, slots=True)
class Listeners:
    """The listeners of this process: to spans, to metrics, or to both."""

    # None where no tracer provider is set, or its SDK is switched off
    tracing: Tracing | None
    # None where no meter provider is set
    metrics: Metrics | None


@dataclass(frozen=True, slots=True)
class _Look:
    """The providers at the last look, and the listeners that were made for them."""

    # the API's tracer provider
    tracers: object
    # the API's meter provider
    meters: object
    # None where both providers are stand-ins
    listeners: Listeners | None


_last_look = _Look(None, None, None)
_silent_until = 0.0


def find_listeners() -> Listeners | None:
    """Find the listeners. Returns None where no API is imported, or where no provider is set but the API's own."""
    # No lock: each of the two globals is replaced as a whole, and a lost race costs another look.
    global _last_look, _silent_until  # noqa: PLW0603
    trace, metrics = sys.modules.get("opentelemetry.trace"), sys.modules.get("opentelemetry.metrics")
    if trace is None and metrics is None:
        return None
    if _silent_until and monotonic() < _silent_until:
        return None
    tracers, meters = _provider(trace, "get_tracer_provider"), _provider(metrics, "get_meter_provider")
    look = _last_look
    if look.tracers is not tracers or look.meters is not meters:
        look = _last_look = _Look(tracers, meters, _make_listeners(tracers, meters))
    _silent_until = monotonic() + SILENCE if look.listeners is None else 0.0
    return look.listeners


def _provider(api: ModuleType | None, name: str) -> object:
    getter = getattr(api, name, None)  # absent while another thread is still importing the API
    return getter() if getter is not None else None


def _is_real(provider: object) -> bool:
    """Return False for a stand-in of the API, which does nothing."""
    # By its module and not by `isinstance`: the classes of the stand-ins are private to the API.
    return provider is not None and not type(provider).__module__.startswith(_STAND_INS)


def _make_listeners(tracers: Any, meters: Any) -> Listeners | None:
    # Imported here, because the library is optional: by now the process has loaded it itself.
    tracing = counting = None
    if _is_real(tracers):
        from orchestrator.engine.observe.tracing import Tracing

        tracing = Tracing.from_provider(tracers)
    if _is_real(meters):
        from orchestrator.engine.observe.metrics import Metrics

        counting = Metrics(meters)
    return Listeners(tracing, counting) if tracing or counting else None


# --- called by the engine --------------------------------------------------------------------------------------------


def observe_attempt(attempt: ObservedAttempt) -> AttemptObserver:
    """Return the observer of this attempt."""
    found = find_listeners()
    if found is None:
        return NULL_OBSERVER
    observer: AttemptObserver = NULL_OBSERVER if found.tracing is None else found.tracing.observe(attempt)
    return observer if found.metrics is None else found.metrics.observe(attempt, observer)


def use_run_span(header: RunHeader) -> AbstractContextManager[Any]:
    """Make the run's span the current one inside, so that messages which are sent there belong to the run's trace."""
    found = find_listeners()
    if found is None or found.tracing is None or not header.trace:
        return _NOTHING
    return found.tracing.use_run_span(header)


# --- called by requests of callers -----------------------------------------------------------------------------------


def observe_start(header: RunHeader) -> AbstractContextManager[CallObserver]:
    """Observe the start of a run inside. An exception there ends the run's span as an error."""
    found = find_listeners()
    return _NOTHING if found is None else _observe_start(found, header)


@contextmanager
def _observe_start(found: Listeners, header: RunHeader) -> Iterator[CallObserver]:
    with _NOTHING if found.tracing is None else found.tracing.observe_start(header) as observer:
        yield observer
    if found.metrics is not None:  # not reached where the start was refused: it counts no run
        found.metrics.on_started(header)


def observe_call(verb: str, header: RunHeader) -> AbstractContextManager[CallObserver]:
    """Observe a request inside that lets the run go on: a resume, a restart, a time travel."""
    found = find_listeners()
    if found is None or found.tracing is None:
        return _NOTHING
    return found.tracing.observe_call(verb, header)


def on_canceled(header: RunHeader) -> None:
    """Observe the end of a run that a caller has canceled."""
    found = find_listeners()
    if found is None:
        return
    if found.tracing is not None:
        found.tracing.on_canceled(header)
    if found.metrics is not None:
        found.metrics.on_ended(header)


# --- called by the scheduler -----------------------------------------------------------------------------------------


def on_swept(store: Store, deadlines: Sequence[int]) -> None:
    """Observe a sweep that has found timers with these deadlines."""
    found = find_listeners()
    if found is not None and found.metrics is not None:
        found.metrics.on_swept(store, deadlines)
