"""The time of a run, by what it went into: arithmetic over its records and recorded events, without store and clock.

Measured are the activations that do something themselves: steps, mappings, tasks, sleeps and waits. What is left of the
run's own time (conditions, joins, commits, the rest) is the engine's. Two things are not recorded and are told apart by
what is known of the step: the pauses between attempts, which are those of its retry policy, half of the longest one
where it is spread by chance; and how long an earlier iteration of a loop was queued, which counts as the engine's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from orchestrator.core.graph import Graph, Node, Path, Sleep, Step
from orchestrator.core.records import FINAL, Header, Record, Role, Status, dotted, undotted
from orchestrator.ports import StoredEvent

QUEUE = "queue"  # put in the queue, and no worker has taken it
RUN = "run"
SUSPENDED = "suspended"  # suspended until somebody resumes it, or the event comes
ASLEEP = "asleep"
RETRY = "retry"  # the pause before another attempt
KINDS = (QUEUE, RUN, SUSPENDED, ASLEEP, RETRY)

_BLOCKS = frozenset({"PARALLEL", "BRANCH", "LOOP", "FOREACH"})
_EVENTS = frozenset({"workflow-step-start", "workflow-step-suspended", "workflow-step-waiting", "workflow-step-result"})
_SUSPENDS = frozenset({"workflow-step-suspended", "workflow-step-waiting"})

Took = Mapping[str, int]
Place = tuple[str, str]  # path and visit


@dataclass(frozen=True, slots=True)
class TimedActivation:
    """One activation of a leaf, from its begin to its end, with the time (ms) of each kind in between."""

    # with `visit`: whose activation it is
    path: str
    visit: str
    # its id
    step: str
    # of its first attempt in the run; 0 where only events are left
    order: int
    # when it was there
    begin: int
    # when it ended, or now
    end: int
    # ms by kind
    took: Took = field(default_factory=dict)
    # whether the pauses between its attempts are not exact
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class StepTime:
    """All activations at one path together, in milliseconds."""

    # of the step
    path: str
    # its id
    step: str
    # how many activations these are
    runs: int
    # ms by kind
    took: Took
    # whether one of them is on the critical chain
    critical: bool
    # whether the pauses between attempts are not exact
    estimated: bool

    @property
    def total(self) -> int:
        """The sum over all kinds of time."""
        return sum(self.took.values())


@dataclass(frozen=True, slots=True)
class Timing:
    """The time of a run, by what it went into."""

    # of the run, or of its present life; ms by the store's clock, as all moments here
    begin: int
    # of the run, or now
    end: int
    # ms of the run's own time that belong to no step
    engine: int
    # ms by kind, summed over steps that may have run side by side
    took: Took
    # one entry for each path
    steps: tuple[StepTime, ...]
    # the chain of activations that made the run so long
    critical: tuple[TimedActivation, ...]

    @property
    def total(self) -> int:
        """The run's own time."""
        return self.end - self.begin


def compute_timing(
    header: Header, records: Iterable[Record], events: Iterable[StoredEvent], graph: Graph | None, now: int
) -> Timing:
    """Say where the time went, up to `now` for a run that has not ended.

    `records` are those of the present visits. Of a run that has travelled in time only its present life counts.
    """
    life, travelled = _events_of_present_life(events)
    begin = life[0].at if travelled else header.started_at
    end = max(begin, header.ended_at if header.status in FINAL and header.ended_at else now)
    found = _Run({record.path: record for record in records}, _by_place(life), graph, begin, end).activations()
    critical = _critical(found, end)
    places = {(act.path, act.visit) for act in critical}
    steps = tuple(_step(list(acts), places) for _, acts in groupby(found, key=lambda act: undotted(act.path)))
    took = _sum(step.took for step in steps)
    return Timing(begin, end, end - begin - _cover(found, begin, end), took, steps, critical)


def _events_of_present_life(events: Iterable[StoredEvent]) -> tuple[list[StoredEvent], bool]:
    """The events since the last time travel, and whether there was one."""
    found = list(events)
    starts = [index for index, event in enumerate(found) if event.doc["type"] == "workflow-start"]
    # Each time travel begins with a start of its own. Counting older events would time steps that are undone.
    return found[starts[-1] if starts else 0 :], len(starts) > 1


def _by_place(events: Sequence[StoredEvent]) -> dict[Place, list[StoredEvent]]:
    found: dict[Place, list[StoredEvent]] = {}
    for event in events:
        if event.doc["type"] in _EVENTS:
            place = (str(event.doc["path"]), str(event.doc.get("visit", "")))
            found.setdefault(place, []).append(event)
    return found


@dataclass(frozen=True, slots=True)
class _Run:
    # of the present visits, by path
    records: Mapping[str, Record]
    # that tell of a step, by its place
    events: Mapping[Place, Sequence[StoredEvent]]
    # None where the workflow is not known here
    graph: Graph | None
    # of what is timed
    begin: int
    # of what is timed
    end: int

    def activations(self) -> list[TimedActivation]:
        """All of them, in the order of their paths, and of their visits in turn."""
        inner = {dotted(at[:cut]) for at in map(undotted, self._paths()) for cut in range(1, len(at))}
        found = [self._time_recorded(record) for record in self.records.values() if self._is_leaf(record, inner)]
        present = {(record.path, record.visit) for record in self.records.values()}
        # An iteration that is over has no record any more, because the next one took its place. Its events are left.
        found += [self._time_earlier(place) for place in self.events if place not in present and place[0] not in inner]
        present_life = [act for act in found if act.begin >= self.begin or act.end > self.begin]
        return sorted(present_life, key=lambda act: (undotted(act.path), undotted(act.visit)))

    def _paths(self) -> set[str]:
        return {*self.records, *(path for path, _ in self.events)}

    def _is_leaf(self, record: Record, inner: set[str]) -> bool:
        if record.component == "WAIT":
            return True
        plain = record.role != Role.BLOCK and record.component not in _BLOCKS
        return bool(record.path) and plain and record.path not in inner and record.status != Status.PAUSED

    def _time_earlier(self, place: Place) -> TimedActivation:
        """Time an activation of an earlier iteration, of which only the events are left."""
        events = self.events[place]
        clock = _Clock(events[0].at)
        if events[0].doc["type"] == "workflow-step-waiting":
            clock.spend(ASLEEP if isinstance(self._node(undotted(place[0])), Sleep) else SUSPENDED, events[-1].at)
        for event in events:
            # When it was resumed is not in the events: the time until its next start counts as suspended.
            clock.note(event, 0)
        clock.spend(RUN, events[-1].at)
        doc = events[-1].doc
        return TimedActivation(*place, str(doc["step"]), 0, events[0].at, events[-1].at, clock.took)

    def _time_recorded(self, record: Record) -> TimedActivation:
        end = min(record.ended_at or self.end, self.end)
        begin = self._begin_of(record)
        clock = _Clock(begin)
        clock.spend(QUEUE, record.started_at or end)
        if record.component == "SLEEP":
            clock.spend(ASLEEP, record.queued_at if record.queued_at > record.started_at else end)
            clock.spend(QUEUE, end)
        elif record.component == "WAIT":
            self._time_wait(record, clock, end)
        elif record.started_at:
            self._time_work(record, clock, end)
        estimated = self._pause_of(record)[1]
        about = (record.path, record.visit, record.step, record.order)
        return TimedActivation(*about, begin, max(begin, clock.now), clock.took, estimated)

    def _time_wait(self, record: Record, clock: _Clock, end: int) -> None:
        """Time a wait: it was queued again by the event or by its timeout, after which another may take over."""
        clock.spend(RUN, record.suspended_at)
        if record.suspended_at:
            clock.spend(SUSPENDED, record.resumed_at or end)
        if f"{record.path}.0" not in self.records:
            clock.spend(QUEUE, end)

    def _time_work(self, record: Record, clock: _Clock, end: int) -> None:
        events = self.events.get((record.path, record.visit), ())
        for event in events:
            clock.note(event, record.resumed_at)
        # Older events may have been trimmed: the record's own times are exact for the last suspension alone.
        if not events and record.suspended_at:
            clock.spend(RUN, record.suspended_at)
            clock.is_suspended = True
        if clock.is_suspended:
            clock.spend(SUSPENDED, record.resumed_at if record.resumed_at >= clock.now else end)
        if record.status == Status.QUEUED:
            self._time_attempts(record, clock, record.queued_at)
            clock.spend(QUEUE, end)
        else:
            self._time_attempts(record, clock, end)

    def _time_attempts(self, record: Record, clock: _Clock, end: int) -> None:
        """Time what is left: nothing but attempts and the pauses between them."""
        pauses = min(self._pause_of(record)[0], max(0, end - clock.now))
        clock.spend(RETRY, clock.now + pauses)
        clock.spend(RUN, end)

    def _pause_of(self, record: Record) -> tuple[int, bool]:
        """The length of the pauses before its attempts in all, and whether that is an estimate."""
        if not record.attempt:
            return 0, False
        node = self._node(record.at)
        if not isinstance(node, Step) or record.attempt > node.retry.attempts:
            return 0, True
        # 0.5 is the middle of what chance may make of the pause.
        seconds = sum(node.retry.pause(attempt, 0.5) for attempt in range(1, record.attempt + 1))
        return round(seconds * 1000), node.retry.backoff and node.retry.jitter

    def _node(self, path: Path) -> Node | None:
        try:
            return self.graph.node(path) if self.graph is not None else None
        except LookupError:
            return None

    def _begin_of(self, record: Record) -> int:
        """The moment at which it was first queued, or began where no queue was in between.

        Where it has been queued again, that is when what comes before it ended.
        """
        started = record.started_at or record.queued_at
        if record.queued_at <= started:
            return record.queued_at or started
        before = self._end_of_previous(record)
        return before if self.begin <= before <= started else started

    def _end_of_previous(self, record: Record) -> int:
        above, index = record.at[:-1], record.at[-1]
        around = self.records.get(dotted(above)) if above else None
        if around is None or around.component == "NESTED":
            # Steps of one workflow follow each other, so it was queued by whatever ended before it.
            previous = self.records.get(dotted((*above, index - 1))) if index else None
            return previous.ended_at if previous is not None else around.started_at if around else self.begin
        return around.started_at if around.component == "PARALLEL" else record.started_at


class _Clock:
    """Goes through one activation and notes how long it was what."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.is_suspended = False
        self.took: Counter[str] = Counter()

    def spend(self, kind: str, moment: int) -> None:
        """Attribute the time from `self.now` to `moment` to `kind`."""
        # Never backwards: a step that is resumed twice has two suspensions, and the record has the second alone.
        if moment > self.now:
            self.took[kind] += moment - self.now
            self.now = moment

    def note(self, event: StoredEvent, resumed_at: int) -> None:
        """Note an event that says that it was suspended, or goes on."""
        if event.doc["type"] in _SUSPENDS:
            self.spend(RUN, event.at)
            self.is_suspended = True
        elif self.is_suspended and event.doc["type"] == "workflow-step-start":
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
    """The part of the time in which at least one of them was there."""
    # Steps that run side by side cover the same time, which counts once.
    covered, reached = 0, begin
    for act in sorted(acts, key=lambda act: act.begin):
        last = min(act.end, end)
        covered += max(0, last - max(act.begin, reached))
        reached = max(reached, last)
    return covered


def _critical(acts: Sequence[TimedActivation], end: int) -> tuple[TimedActivation, ...]:
    """Go backwards from the end: what ended last, then what ended last before that had begun, and so on."""
    chain: list[TimedActivation] = []
    moment = end
    for act in sorted(acts, key=_by_end, reverse=True):
        if act.end <= moment:
            chain.append(act)
            moment = act.begin
    return tuple(reversed(chain))


def _by_end(act: TimedActivation) -> tuple[int, int, int]:
    return act.end, act.begin, act.order
