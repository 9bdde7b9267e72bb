"""The time of a run by its uses: arithmetic over its activations and stored events, without store and clock.

It measures the activations that do something themselves: steps, mappings, tasks, sleeps and waits. The other time of
the run (conditions, joins, commits, settling) is the engine's.

Two times are not stored, and are estimated. The pauses between attempts are taken from the step's retry policy, and in
the middle of their range where they are spread by chance. The time that an earlier iteration of a loop was queued
counts as the engine's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from orchestrator.ports import StoredEvent
from orchestrator.rules.events import EventType
from orchestrator.rules.graph import Graph, Node, Path, Sleep, Step
from orchestrator.rules.model import FINAL, Activation, ActivationStatus, Role, RunHeader, format_path, parse_path

QUEUE = "queue"  # from the queue to a claim
RUN = "run"  # a worker runs it
SUSPENDED = "suspended"  # until a resume or an event
ASLEEP = "asleep"  # a sleep of the workflow
RETRY = "retry"  # the pause before another attempt
KINDS = (QUEUE, RUN, SUSPENDED, ASLEEP, RETRY)

_BLOCKS = frozenset({"PARALLEL", "BRANCH", "LOOP", "FOREACH"})
_EVENTS = frozenset({EventType.STEP_START, EventType.STEP_SUSPENDED, EventType.STEP_WAITING, EventType.STEP_RESULT})
_SUSPENDS = frozenset({EventType.STEP_SUSPENDED, EventType.STEP_WAITING})

Took = Mapping[str, int]
Place = tuple[str, str]  # path and visit


@dataclass(frozen=True, slots=True)
class TimedActivation:
    """One activation that does something itself, from its begin to its end, with the time of each kind in between."""

    # the path of the activation
    path: str
    # its visit
    visit: str
    # the id of its step
    step: str
    # the number of its first attempt in the run; 0 where only events are left
    order: int
    # the moment at which it was queued, or claimed without a queue
    begin: int
    # the moment at which it ended, or now
    end: int
    # ms by kind
    took: Took = field(default_factory=dict)
    # True if the pauses between its attempts are estimated
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class StepTime:
    """All timed activations at one path together, in milliseconds."""

    # the path of the step
    path: str
    # the id of the step
    step: str
    # the number of timed activations
    runs: int
    # ms by kind
    took: Took
    # True if one of them is on the critical chain
    critical: bool
    # True if the pauses between attempts are estimated
    estimated: bool

    @property
    def total(self) -> int:
        """The sum over all kinds of time."""
        return sum(self.took.values())


@dataclass(frozen=True, slots=True)
class Timing:
    """The time of a run by its uses."""

    # the begin of the run, or of its present generation; ms by the store's clock, as all moments here
    begin: int
    # the end of the run, or now
    end: int
    # ms of the run's own time in which no step was there
    engine: int
    # ms by kind, summed over steps that may have run side by side
    took: Took
    # one entry for each path
    steps: tuple[StepTime, ...]
    # the chain of timed activations that made the run so long
    critical: tuple[TimedActivation, ...]

    @property
    def total(self) -> int:
        """The run's own time."""
        return self.end - self.begin


def compute_timing(
    header: RunHeader, activations: Iterable[Activation], events: Iterable[StoredEvent], graph: Graph | None, now: int
) -> Timing:
    """Return the time of a run by its uses, up to `now` for a run that has not ended.

    `activations` are those of the present visits. Of a run that has travelled in time only the present generation
    counts.
    """
    present_events, has_travelled = _events_of_generation(events)
    begin = present_events[0].at if has_travelled else header.started_at
    end = max(begin, header.ended_at if header.status in FINAL and header.ended_at else now)
    found = _TimedRun(
        {activation.path: activation for activation in activations}, _by_place(present_events), graph, begin, end
    ).time_all()
    critical = _critical(found, end)
    places = {(act.path, act.visit) for act in critical}
    steps = tuple(_step(list(acts), places) for _, acts in groupby(found, key=lambda act: parse_path(act.path)))
    took = _sum(step.took for step in steps)
    return Timing(begin, end, end - begin - _cover(found, begin, end), took, steps, critical)


def _events_of_generation(events: Iterable[StoredEvent]) -> tuple[list[StoredEvent], bool]:
    """Return the events since the last time travel, and True if there was one."""
    found = list(events)
    starts = [index for index, event in enumerate(found) if event.doc["type"] == EventType.WORKFLOW_START]
    # Each time travel begins with a start event of its own. The steps of older events are undone, and not timed.
    return found[starts[-1] if starts else 0 :], len(starts) > 1


def _by_place(events: Sequence[StoredEvent]) -> dict[Place, list[StoredEvent]]:
    found: dict[Place, list[StoredEvent]] = {}
    for event in events:
        if event.doc["type"] in _EVENTS:
            place = (str(event.doc["path"]), str(event.doc.get("visit", "")))
            found.setdefault(place, []).append(event)
    return found


@dataclass(frozen=True, slots=True)
class _TimedRun:
    # the activations of the present visits, by path
    activations: Mapping[str, Activation]
    # the events of steps, by path and visit
    events: Mapping[Place, Sequence[StoredEvent]]
    # None where the workflow is not known here
    graph: Graph | None
    # the begin of the time that is measured
    begin: int
    # the end of the time that is measured
    end: int

    def time_all(self) -> list[TimedActivation]:
        """Time all activations, in the order of their paths and then of their visits."""
        inner = {format_path(at[:cut]) for at in map(parse_path, self._paths()) for cut in range(1, len(at))}
        found = [
            self._time_recorded(activation)
            for activation in self.activations.values()
            if self._is_leaf(activation, inner)
        ]
        present = {(activation.path, activation.visit) for activation in self.activations.values()}
        # An iteration that is over has no activation any more, because the next one has its path. Its events are left.
        found += [self._time_earlier(place) for place in self.events if place not in present and place[0] not in inner]
        of_generation = [act for act in found if act.begin >= self.begin or act.end > self.begin]
        return sorted(of_generation, key=lambda act: (parse_path(act.path), parse_path(act.visit)))

    def _paths(self) -> set[str]:
        return {*self.activations, *(path for path, _ in self.events)}

    def _is_leaf(self, activation: Activation, inner: set[str]) -> bool:
        if activation.component == "WAIT":
            return True
        plain = activation.role != Role.BLOCK and activation.component not in _BLOCKS
        return (
            bool(activation.path)
            and plain
            and activation.path not in inner
            and activation.status != ActivationStatus.PAUSED
        )

    def _time_earlier(self, place: Place) -> TimedActivation:
        """Time an activation of an earlier iteration, of which only the events are left."""
        events = self.events[place]
        clock = _Clock(events[0].at)
        if events[0].doc["type"] == EventType.STEP_WAITING:
            clock.spend(ASLEEP if isinstance(self._node(parse_path(place[0])), Sleep) else SUSPENDED, events[-1].at)
        for event in events:
            # The moment of a resume is not in the events: the time until the next start counts as suspended.
            clock.note(event, 0)
        clock.spend(RUN, events[-1].at)
        doc = events[-1].doc
        return TimedActivation(*place, str(doc["step"]), 0, events[0].at, events[-1].at, clock.took)

    def _time_recorded(self, activation: Activation) -> TimedActivation:
        end = min(activation.ended_at or self.end, self.end)
        begin = self._begin_of(activation)
        clock = _Clock(begin)
        clock.spend(QUEUE, activation.started_at or end)
        if activation.component == "SLEEP":
            clock.spend(ASLEEP, activation.queued_at if activation.queued_at > activation.started_at else end)
            clock.spend(QUEUE, end)
        elif activation.component == "WAIT":
            self._time_wait(activation, clock, end)
        elif activation.started_at:
            self._time_work(activation, clock, end)
        estimated = self._pause_of(activation)[1]
        about = (activation.path, activation.visit, activation.step, activation.first_seq)
        return TimedActivation(*about, begin, max(begin, clock.now), clock.took, estimated)

    def _time_wait(self, activation: Activation, clock: _Clock, end: int) -> None:
        """Time a wait for an event."""
        clock.spend(RUN, activation.suspended_at)
        if activation.suspended_at:
            clock.spend(SUSPENDED, activation.resumed_at or end)
        # The event or the timeout queues the wait again. After a timeout, the flow inside it takes over.
        if f"{activation.path}.0" not in self.activations:
            clock.spend(QUEUE, end)

    def _time_work(self, activation: Activation, clock: _Clock, end: int) -> None:
        events = self.events.get((activation.path, activation.visit), ())
        for event in events:
            clock.note(event, activation.resumed_at)
        # Where the events have been trimmed, the activation still has the times of its last suspension.
        if not events and activation.suspended_at:
            clock.spend(RUN, activation.suspended_at)
            clock.is_suspended = True
        if clock.is_suspended:
            clock.spend(SUSPENDED, activation.resumed_at if activation.resumed_at >= clock.now else end)
        if activation.status == ActivationStatus.QUEUED:
            self._time_attempts(activation, clock, activation.queued_at)
            clock.spend(QUEUE, end)
        else:
            self._time_attempts(activation, clock, end)

    def _time_attempts(self, activation: Activation, clock: _Clock, end: int) -> None:
        """Time the remaining time, which is attempts and the pauses between them."""
        pauses = min(self._pause_of(activation)[0], max(0, end - clock.now))
        clock.spend(RETRY, clock.now + pauses)
        clock.spend(RUN, end)

    def _pause_of(self, activation: Activation) -> tuple[int, bool]:
        """Return the length of all pauses between its attempts, and True if that is an estimate."""
        if not activation.attempt:
            return 0, False
        node = self._node(activation.at)
        if not isinstance(node, Step) or activation.attempt > node.retry.attempts:
            return 0, True
        # Chance spreads the pause over a range, and 0.5 is its middle.
        seconds = sum(node.retry.pause(attempt, 0.5) for attempt in range(1, activation.attempt + 1))
        return round(seconds * 1000), node.retry.backoff and node.retry.jitter

    def _node(self, path: Path) -> Node | None:
        try:
            return self.graph.node(path) if self.graph is not None else None
        except LookupError:
            return None

    def _begin_of(self, activation: Activation) -> int:
        """Return the moment at which the activation was first queued, or claimed without a queue."""
        # An activation that was queued again (after a resume, say) stores the later moment only. Then it was first
        # queued when the activation before it ended.
        started = activation.started_at or activation.queued_at
        if activation.queued_at <= started:
            return activation.queued_at or started
        before = self._end_of_previous(activation)
        return before if self.begin <= before <= started else started

    def _end_of_previous(self, activation: Activation) -> int:
        above, index = activation.at[:-1], activation.at[-1]
        around = self.activations.get(format_path(above)) if above else None
        if around is None or around.component == "NESTED":
            # Entries of one workflow follow each other, so the end of the one before has queued this one.
            previous = self.activations.get(format_path((*above, index - 1))) if index else None
            return previous.ended_at if previous is not None else around.started_at if around else self.begin
        return around.started_at if around.component == "PARALLEL" else activation.started_at


class _Clock:
    """Goes through the time of one activation, and sums it up by kind."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.is_suspended = False
        self.took: Counter[str] = Counter()

    def spend(self, kind: str, moment: int) -> None:
        """Attribute the time from `self.now` to `moment` to `kind`."""
        # Never backwards: a step that was suspended twice stores the moments of the second suspension only.
        if moment > self.now:
            self.took[kind] += moment - self.now
            self.now = moment

    def note(self, event: StoredEvent, resumed_at: int) -> None:
        """Note an event by which the activation was suspended, or went on."""
        if event.doc["type"] in _SUSPENDS:
            self.spend(RUN, event.at)
            self.is_suspended = True
        elif self.is_suspended and event.doc["type"] == EventType.STEP_START:
            self.spend(SUSPENDED, resumed_at if self.now <= resumed_at <= event.at else event.at)
            self.spend(QUEUE, event.at)
            self.is_suspended = False


def _step(acts: Sequence[TimedActivation], critical: set[Place]) -> StepTime:
    on_path = any((act.path, act.visit) in critical for act in acts)
    estimated = any(act.estimated for act in acts)
    return StepTime(acts[0].path, acts[0].step, len(acts), _sum(act.took for act in acts), on_path, estimated)


def _sum(parts: Iterable[Took]) -> Took:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return {kind: total[kind] for kind in KINDS}


def _cover(acts: Sequence[TimedActivation], begin: int, end: int) -> int:
    """Return the time in which at least one of the activations was there."""
    # Steps that run side by side cover the same time, which counts once.
    covered, reached = 0, begin
    for act in sorted(acts, key=lambda act: act.begin):
        last = min(act.end, end)
        covered += max(0, last - max(act.begin, reached))
        reached = max(reached, last)
    return covered


def _critical(acts: Sequence[TimedActivation], end: int) -> tuple[TimedActivation, ...]:
    """Return the chain of activations that made the run so long."""
    # Backwards from the end: the one that ended last, then the one that ended last before that had begun, and so on.
    chain: list[TimedActivation] = []
    moment = end
    for act in sorted(acts, key=_by_end, reverse=True):
        if act.end <= moment:
            chain.append(act)
            moment = act.begin
    return tuple(reversed(chain))


def _by_end(act: TimedActivation) -> tuple[int, int, int]:
    return act.end, act.begin, act.order
