"""Where the time of a run went: arithmetic over its records and its recorded events, which reads no store and no clock.

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
SUSPENDED = "suspended"  # held up until somebody resumes it, or the event comes
ASLEEP = "asleep"
RETRY = "retry"  # the pause before another attempt
KINDS = (QUEUE, RUN, SUSPENDED, ASLEEP, RETRY)

_BLOCKS = frozenset({"PARALLEL", "BRANCH", "LOOP", "FOREACH"})
_TOLD = frozenset({"workflow-step-start", "workflow-step-suspended", "workflow-step-waiting", "workflow-step-result"})
_HELD = frozenset({"workflow-step-suspended", "workflow-step-waiting"})

Took = Mapping[str, int]
Place = tuple[str, str]  # path and visit


@dataclass(frozen=True, slots=True)
class Activation:
    """One activation of a leaf: from when it was there until it ended, and how long (ms) it was what meanwhile.

    `estimated` says that the pauses between its attempts are not exact.
    """

    path: str
    visit: str
    step: str
    order: int
    begin: int
    end: int
    took: Took = field(default_factory=dict)
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class StepTime:
    """All activations at one path together, in milliseconds."""

    path: str
    step: str
    runs: int
    took: Took
    critical: bool
    estimated: bool

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.took.values())


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of a run went. `took` sums over steps that may have run side by side; `engine` is what of the
    run's own time (`end - begin`) belongs to no step; `critical` is the chain of activations that made it so long."""

    begin: int
    end: int
    engine: int
    took: Took
    steps: tuple[StepTime, ...]
    critical: tuple[Activation, ...]

    @property
    def total(self) -> int:
        """The run's own time."""
        return self.end - self.begin


def timing(
    header: Header, records: Iterable[Record], events: Iterable[StoredEvent], graph: Graph | None, now: int
) -> Timing:
    """Say where the time went, up to `now` for a run that has not ended.

    `records` are those of the present visits. Of a run that has travelled in time only its present life counts.
    """
    life, travelled = _present_life(events)
    begin = life[0].at if travelled else header.started_at
    end = max(begin, header.ended_at if header.status in FINAL and header.ended_at else now)
    found = _Run({record.path: record for record in records}, _by_place(life), graph, begin, end).activations()
    critical = _critical(found, end)
    places = {(act.path, act.visit) for act in critical}
    steps = tuple(_step(list(acts), places) for _, acts in groupby(found, key=lambda act: undotted(act.path)))
    took = _sum(step.took for step in steps)
    return Timing(begin, end, end - begin - _covered(found, begin, end), took, steps, critical)


def _present_life(events: Iterable[StoredEvent]) -> tuple[list[StoredEvent], bool]:
    """The events since the last time travel, and whether there was one."""
    found = list(events)
    starts = [index for index, event in enumerate(found) if event.doc["type"] == "workflow-start"]
    return found[starts[-1] if starts else 0 :], len(starts) > 1


def _by_place(events: Sequence[StoredEvent]) -> dict[Place, list[StoredEvent]]:
    found: dict[Place, list[StoredEvent]] = {}
    for event in events:
        if event.doc["type"] in _TOLD:
            place = (str(event.doc["path"]), str(event.doc.get("visit", "")))
            found.setdefault(place, []).append(event)
    return found


@dataclass(frozen=True, slots=True)
class _Run:
    records: Mapping[str, Record]
    told: Mapping[Place, Sequence[StoredEvent]]
    graph: Graph | None
    begin: int
    end: int

    def activations(self) -> list[Activation]:
        """All of them, in the order of their paths, and of their visits in turn."""
        inner = {dotted(at[:cut]) for at in map(undotted, self._paths()) for cut in range(1, len(at))}
        found = [self._recorded(record) for record in self.records.values() if self._is_leaf(record, inner)]
        present = {(record.path, record.visit) for record in self.records.values()}
        found += [self._earlier(place) for place in self.told if place not in present and place[0] not in inner]
        present_life = [act for act in found if act.begin >= self.begin or act.end > self.begin]
        return sorted(present_life, key=lambda act: (undotted(act.path), undotted(act.visit)))

    def _paths(self) -> set[str]:
        return {*self.records, *(path for path, _ in self.told)}

    def _is_leaf(self, record: Record, inner: set[str]) -> bool:
        if record.component == "WAIT":
            return True
        plain = record.role != Role.BLOCK and record.component not in _BLOCKS
        return bool(record.path) and plain and record.path not in inner and record.status != Status.PAUSED

    def _earlier(self, place: Place) -> Activation:
        """An earlier iteration's, of which only the events are left."""
        told = self.told[place]
        clock = _Clock(told[0].at)
        if told[0].doc["type"] == "workflow-step-waiting":
            clock.until(ASLEEP if isinstance(self._node(undotted(place[0])), Sleep) else SUSPENDED, told[-1].at)
        for event in told:
            clock.hear(event, 0)
        clock.until(RUN, told[-1].at)
        doc = told[-1].doc
        return Activation(*place, str(doc["step"]), 0, told[0].at, told[-1].at, clock.took)

    def _recorded(self, record: Record) -> Activation:
        end = min(record.ended_at or self.end, self.end)
        begin = self._born(record)
        clock = _Clock(begin)
        clock.until(QUEUE, record.started_at or end)
        if record.component == "SLEEP":
            clock.until(ASLEEP, record.queued_at if record.queued_at > record.started_at else end)
            clock.until(QUEUE, end)
        elif record.component == "WAIT":
            self._waited(record, clock, end)
        elif record.started_at:
            self._ran(record, clock, end)
        estimated = self._pause_of(record)[1]
        about = (record.path, record.visit, record.step, record.order)
        return Activation(*about, begin, max(begin, clock.now), clock.took, estimated)

    def _waited(self, record: Record, clock: _Clock, end: int) -> None:
        """It began to wait, and was queued again by the event or by its timeout, after which another may take over."""
        clock.until(RUN, record.suspended_at)
        if record.suspended_at:
            clock.until(SUSPENDED, record.resumed_at or end)
        if f"{record.path}.0" not in self.records:
            clock.until(QUEUE, end)

    def _ran(self, record: Record, clock: _Clock, end: int) -> None:
        told = self.told.get((record.path, record.visit), ())
        for event in told:
            clock.hear(event, record.resumed_at)
        if not told and record.suspended_at:
            clock.until(RUN, record.suspended_at)
            clock.held = True
        if clock.held:
            clock.until(SUSPENDED, record.resumed_at if record.resumed_at >= clock.now else end)
        if record.status == Status.QUEUED:
            self._attempts(record, clock, record.queued_at)
            clock.until(QUEUE, end)
        else:
            self._attempts(record, clock, end)

    def _attempts(self, record: Record, clock: _Clock, end: int) -> None:
        """From here on nothing but attempts and the pauses between them."""
        pauses = min(self._pause_of(record)[0], max(0, end - clock.now))
        clock.until(RETRY, clock.now + pauses)
        clock.until(RUN, end)

    def _pause_of(self, record: Record) -> tuple[int, bool]:
        """How long the pauses before its attempts were in all, and whether that is an estimate."""
        if not record.attempt:
            return 0, False
        node = self._node(record.at)
        if not isinstance(node, Step) or record.attempt > node.retry.attempts:
            return 0, True
        seconds = sum(node.retry.pause(attempt, 0.5) for attempt in range(1, record.attempt + 1))
        return round(seconds * 1000), node.retry.backoff and node.retry.jitter

    def _node(self, path: Path) -> Node | None:
        try:
            return self.graph.node(path) if self.graph is not None else None
        except LookupError:
            return None

    def _born(self, record: Record) -> int:
        """When it was put in the queue for the first time, or began where no queue was in between.

        Where it has been queued again, that is when what comes before it ended.
        """
        started = record.started_at or record.queued_at
        if record.queued_at <= started:
            return record.queued_at or started
        before = self._before(record)
        return before if self.begin <= before <= started else started

    def _before(self, record: Record) -> int:
        above, index = record.at[:-1], record.at[-1]
        around = self.records.get(dotted(above)) if above else None
        if around is None or around.component == "NESTED":
            previous = self.records.get(dotted((*above, index - 1))) if index else None
            return previous.ended_at if previous is not None else around.started_at if around else self.begin
        return around.started_at if around.component == "PARALLEL" else record.started_at


class _Clock:
    """Goes through one activation and notes what it was how long."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.held = False
        self.took: Counter[str] = Counter()

    def until(self, kind: str, moment: int) -> None:
        """It was this until then."""
        if moment > self.now:
            self.took[kind] += moment - self.now
            self.now = moment

    def hear(self, event: StoredEvent, resumed_at: int) -> None:
        """An event says that it was held up, or goes on."""
        if event.doc["type"] in _HELD:
            self.until(RUN, event.at)
            self.held = True
        elif self.held and event.doc["type"] == "workflow-step-start":
            self.until(SUSPENDED, resumed_at if self.now <= resumed_at <= event.at else event.at)
            self.until(QUEUE, event.at)
            self.held = False


def _step(acts: Sequence[Activation], critical: set[Place]) -> StepTime:
    on_path = any((act.path, act.visit) in critical for act in acts)
    estimated = any(act.estimated for act in acts)
    return StepTime(acts[0].path, acts[0].step, len(acts), _sum(act.took for act in acts), on_path, estimated)


def _sum(parts: Iterable[Took]) -> Took:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return {kind: total[kind] for kind in KINDS}


def _covered(acts: Sequence[Activation], begin: int, end: int) -> int:
    """How much of the time at least one of them was there."""
    covered, reached = 0, begin
    for act in sorted(acts, key=lambda act: act.begin):
        last = min(act.end, end)
        covered += max(0, last - max(act.begin, reached))
        reached = max(reached, last)
    return covered


def _critical(acts: Sequence[Activation], end: int) -> tuple[Activation, ...]:
    """Backwards from the end: what ended last, then what ended last before that had begun, and so on."""
    chain: list[Activation] = []
    moment = end
    for act in sorted(acts, key=_by_end, reverse=True):
        if act.end <= moment:
            chain.append(act)
            moment = act.begin
    return tuple(reversed(chain))


def _by_end(act: Activation) -> tuple[int, int, int]:
    return act.end, act.begin, act.order
