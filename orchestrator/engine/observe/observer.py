"""The door to OpenTelemetry: what the engine and its callers say of a run, which nobody hears without an SDK.

Nothing here imports OpenTelemetry. Who has configured an SDK has imported its API, so a look into `sys.modules` and at
the provider tells whether anybody listens; without one every word goes to `UNSEEN`, which does nothing. A "no" is
believed for a second, and not for ever: an SDK may be configured late, as the children of a prefork pool do. What is
said to OpenTelemetry stands in `tracing` and `metrics`, which are imported with the first word that somebody hears.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.core.changes import Committed, Op
from orchestrator.core.records import Header
from orchestrator.host import monotonic

if TYPE_CHECKING:
    from orchestrator.engine.activity import Activity
    from orchestrator.engine.observe.metrics import Metrics
    from orchestrator.engine.observe.tracing import Tracing
    from orchestrator.engine.steps import Followed
    from orchestrator.ports import Store

SILENCE = 1.0  # seconds between two looks at the providers while nobody listens: a look costs more than a word
_STAND_INS = ("opentelemetry.trace", "opentelemetry.metrics")  # the API's modules; an SDK's are elsewhere


class Watch(Protocol):
    """Watches one claim from the moment it is held. Nothing that it does may become a fault of the run."""

    def run(self, work: Callable[[], Followed]) -> Followed:
        """Do the activation's work, with what watches it as the current span."""
        ...

    def condition(self, call: Callable[[], Any], index: int | None = None) -> Any:
        """Evaluate one condition, of a branch its arm's `index`."""
        ...

    def failed(self, error: BaseException) -> None:
        """The attempt has failed with this error; another may follow."""
        ...

    def planned(self, ops: Sequence[Op]) -> Sequence[Op]:
        """What is about to be committed, and with it whatever has to be stored for those who go on."""
        ...

    def committed(self, answer: Committed) -> None:
        """It has been."""
        ...


class Word(Protocol):
    """What a caller does to a run."""

    def planned(self, ops: Sequence[Op]) -> Sequence[Op]:
        """What is about to be committed, and with it whatever has to be stored for those who go on."""
        ...


class Unseen:
    """Nobody listens."""

    __slots__ = ()

    def run(self, work: Callable[[], Followed]) -> Followed:
        """Do it."""
        return work()

    def condition(self, call: Callable[[], Any], index: int | None = None) -> Any:
        """Evaluate it."""
        return call()

    def failed(self, error: BaseException) -> None:
        """Nothing."""

    def planned(self, ops: Sequence[Op]) -> Sequence[Op]:
        """As it is."""
        return ops

    def committed(self, answer: Committed) -> None:
        """Nothing."""


UNSEEN = Unseen()
_SILENT: AbstractContextManager[Unseen] = nullcontext(UNSEEN)


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Who listens in this process: to spans, to numbers, or to both."""

    tracing: Tracing | None
    metrics: Metrics | None


@dataclass(frozen=True, slots=True)
class _Seen:
    """The providers as they were last seen, and what that means."""

    tracers: object
    meters: object
    telemetry: Telemetry | None


_seen = _Seen(None, None, None)
_silent_until = 0.0


def telemetry() -> Telemetry | None:
    """Who listens, None where nobody does: no API is imported, or no provider is set but the API's own."""
    global _seen, _silent_until  # noqa: PLW0603  (each is replaced as a whole, and losing a race costs a look)
    trace, metrics = sys.modules.get("opentelemetry.trace"), sys.modules.get("opentelemetry.metrics")
    if trace is None and metrics is None:
        return None
    if _silent_until and monotonic() < _silent_until:
        return None
    tracers, meters = _provider(trace, "get_tracer_provider"), _provider(metrics, "get_meter_provider")
    seen = _seen
    if seen.tracers is not tracers or seen.meters is not meters:
        seen = _seen = _Seen(tracers, meters, _listeners(tracers, meters))
    _silent_until = monotonic() + SILENCE if seen.telemetry is None else 0.0
    return seen.telemetry


def _provider(api: ModuleType | None, name: str) -> object:
    getter = getattr(api, name, None)  # absent while another thread is still importing the API
    return getter() if getter is not None else None


def _is_real(provider: object) -> bool:
    """Whether it is more than a stand-in of the API, which does nothing."""
    return provider is not None and not type(provider).__module__.startswith(_STAND_INS)


def _listeners(tracers: Any, meters: Any) -> Telemetry | None:
    tracing = counting = None
    if _is_real(tracers):
        from orchestrator.engine.observe.tracing import Tracing

        tracing = Tracing.of(tracers)
    if _is_real(meters):
        from orchestrator.engine.observe.metrics import Metrics

        counting = Metrics(meters)
    return Telemetry(tracing, counting) if tracing or counting else None


# --- what the engine says --------------------------------------------------------------------------------------------


def watching(activity: Activity) -> Watch:
    """Who watches this claim."""
    found = telemetry()
    if found is None:
        return UNSEEN
    watch: Watch = UNSEEN if found.tracing is None else found.tracing.watch(activity)
    return watch if found.metrics is None else found.metrics.watch(activity, watch)


def within(header: Header) -> AbstractContextManager[Any]:
    """The run's own span is the current one inside: what is sent there belongs to the run's trace."""
    found = telemetry()
    if found is None or found.tracing is None or not header.trace:
        return _SILENT
    return found.tracing.within(header)


# --- what callers say ------------------------------------------------------------------------------------------------


def starting(header: Header) -> AbstractContextManager[Word]:
    """A caller starts the run inside. What is raised there ends the run's span as an error."""
    found = telemetry()
    return _SILENT if found is None else _starting(found, header)


@contextmanager
def _starting(found: Telemetry, header: Header) -> Iterator[Word]:
    with _SILENT if found.tracing is None else found.tracing.starting(header) as word:
        yield word
    if found.metrics is not None:
        found.metrics.started(header)


def going_on(verb: str, header: Header) -> AbstractContextManager[Word]:
    """A caller lets the run go on inside: resumes or restarts it, or lets it travel."""
    found = telemetry()
    if found is None or found.tracing is None:
        return _SILENT
    return found.tracing.going_on(verb, header)


def canceled(header: Header) -> None:
    """A caller has ended the run."""
    found = telemetry()
    if found is None:
        return
    if found.tracing is not None:
        found.tracing.canceled(header)
    if found.metrics is not None:
        found.metrics.ended(header)


# --- what the ticker says --------------------------------------------------------------------------------------------


def swept(store: Store, moments: Sequence[int]) -> None:
    """These entries were due, each since its moment."""
    found = telemetry()
    if found is not None and found.metrics is not None:
        found.metrics.swept(store, moments)
