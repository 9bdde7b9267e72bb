"""Random programs as data, and what must come of them: a model that knows nothing of the library.

Every value is a number. `Program` is a tree of entries that a seed makes; `expect` walks the tree and says, before
anything has run, how the run ends, with which result, and how often each step is executed.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

MODULUS = 9973
MAX_ITEMS = 5
FLAKY_ATTEMPTS = 2  # how many attempts of a flaky step fail before one succeeds


class Way(StrEnum):
    """The way a step behaves, apart from its value."""

    PLAIN = "plain"
    FLAKY = "flaky"  # fails FLAKY_ATTEMPTS times
    SOFT = "soft"  # its first attempt outruns a soft time limit
    HARD = "hard"  # its first attempt outruns a hard time limit
    ASK = "ask"  # suspends, and goes on when it is resumed
    STAY = "stay"  # suspends, and nobody resumes it
    BAIL = "bail"
    ABORT = "abort"
    FAIL = "fail"  # fails in every attempt, of which there are two


class Fate(StrEnum):
    """What is done to the runs of a program from outside, beside answering what they ask for."""

    NOTHING = "nothing"
    CANCEL = "cancel"
    TRAVEL = "travel"
    RESTART = "restart"


@dataclass(frozen=True)
class Step:
    """One step; `counts` makes it the body of a loop, which adds 1."""

    id: str
    salt: int
    way: Way = Way.PLAIN
    seconds: float = 0.02
    counts: bool = False

    def value(self, data: int) -> int:
        """Return what the step makes of its input."""
        return data + 1 if self.counts else (data * 31 + self.salt) % MODULUS


@dataclass(frozen=True)
class Nested:
    """A workflow as an entry."""

    id: str
    flow: tuple[Node, ...]
    inline: bool = False


@dataclass(frozen=True)
class Parallel:
    """All arms with the same input; the sum of what they make. With `allow_failure` one that fails makes nothing."""

    arms: tuple[Entry, ...]
    allow_failure: bool = False


@dataclass(frozen=True)
class Branch:
    """The arms of which the condition holds (`data` has a bit of the mask); the sum of what they make."""

    arms: tuple[tuple[int, Entry], ...]


@dataclass(frozen=True)
class Loop:
    """The body adds 1 until the number can be divided by `turns`; it begins with one that can."""

    body: Entry
    turns: int
    until: bool


@dataclass(frozen=True)
class Foreach:
    """The body runs for each of `items` numbers from the input on; the sum of what it makes."""

    body: Entry
    items: int
    concurrency: int


@dataclass(frozen=True)
class Sleep:
    """The input passes through."""

    seconds: float


@dataclass(frozen=True)
class Wait:
    """A wait for an event, whose data is the output; one with a timeout is never sent its event."""

    event: str
    on_timeout: Step | None = None


Entry = Step | Nested
Node = Entry | Parallel | Branch | Loop | Foreach | Sleep | Wait
Execution = tuple[str, int, bool]  # step, attempt (from 0), resumed


@dataclass(frozen=True)
class Program:
    """A workflow, and what is done to its runs."""

    id: str
    flow: tuple[Node, ...]
    fate: Fate = Fate.NOTHING
    inline: bool = False
    # of a time travel: the position in the flow that it goes back to
    target: int | None = None

    @property
    def target_step(self) -> str:
        """The id of the step that a time travel goes back to."""
        node = self.flow[self.target or 0]
        assert isinstance(node, Step)
        return node.id


@dataclass(frozen=True)
class Expected:
    """What must come of a run."""

    status: str
    result: int | None
    # how many different activations show each execution
    executions: Counter[Execution]
    # the same of what a time travel adds
    travelled: Counter[Execution] = field(default_factory=Counter)
    # data of the events that have to be sent, by name
    events: dict[str, int] = field(default_factory=dict)
    # the steps that must have written into the run's state, and those that may have
    state: frozenset[str] = frozenset()
    open_state: frozenset[str] = frozenset()


class _Ended(Exception):
    """The run is over, or rests, before its flow is."""

    def __init__(self, status: str, result: int | None = None) -> None:
        self.status, self.result = status, result


def event_data(run_number: int, event: str) -> int:
    """Return the data that the event of this run carries."""
    return (run_number * 97 + zlib.crc32(event.encode())) % MODULUS


def expect(program: Program, run_number: int, data: int) -> Expected:
    """Work out what must come of one run of the program."""
    walk = _Walk(run_number)
    before_target = data
    status, result = "success", None
    travelled: Counter[Execution] = Counter()
    try:
        for position, node in enumerate(program.flow):
            if position == program.target:
                before_target = data
            data = walk.through(node, data)
        result = data
    except _Ended as end:
        status, result = end.status, end.result
    if program.target is not None:
        again = _Walk(run_number)
        again.along(program.flow[program.target :], before_target)
        travelled = again.executions
    return Expected(
        status, result, walk.executions, travelled, walk.events, frozenset(walk.state), frozenset(walk.open_state)
    )


class _Walk:
    """One walk through a flow, and the tally of it."""

    def __init__(self, run_number: int) -> None:
        self.run_number = run_number
        self.executions: Counter[Execution] = Counter()
        self.events: dict[str, int] = {}
        self.state: set[str] = set()
        self.open_state: set[str] = set()

    def along(self, flow: tuple[Node, ...], data: int) -> int:
        for node in flow:
            data = self.through(node, data)
        return data

    def through(self, node: Node, data: int) -> int:
        match node:
            case Step():
                return self._step(node, data)
            case Nested():
                return self.along(node.flow, data)
            case Parallel():
                return sum([self._arm(arm, data, node.allow_failure) for arm in node.arms]) % MODULUS
            case Branch():
                return sum([self.through(arm, data) for mask, arm in node.arms if data & mask]) % MODULUS
            case Loop():
                data -= data % node.turns
                for _ in range(node.turns):
                    data = self.through(node.body, data)
                return data
            case Foreach():
                return sum([self.through(node.body, data + index) for index in range(node.items)]) % MODULUS
            case Sleep():
                return data
            case Wait(event, on_timeout):
                if on_timeout is not None:
                    return self._step(on_timeout, data)
                self.events[event] = event_data(self.run_number, event)
                return self.events[event]

    def _arm(self, arm: Entry, data: int, allow_failure: bool) -> int:
        try:
            return self.through(arm, data)
        except _Ended as end:
            if allow_failure and end.status == "failed":
                return 0
            raise

    def _step(self, step: Step, data: int) -> int:
        attempts = {Way.FLAKY: FLAKY_ATTEMPTS + 1, Way.SOFT: 2, Way.HARD: 2, Way.FAIL: 2}.get(step.way, 1)
        for attempt in range(attempts):
            self.executions[step.id, attempt, False] += 1
        if step.way in (Way.BAIL, Way.ABORT):
            self.open_state.add(step.id)
        elif step.way is not Way.FAIL:
            self.state.add(step.id)
        match step.way:
            case Way.ASK:
                self.executions[step.id, 0, True] += 1
            case Way.STAY:
                raise _Ended("suspended")
            case Way.BAIL:
                raise _Ended("success", step.value(data))
            case Way.ABORT:
                raise _Ended("canceled")
            case Way.FAIL:
                raise _Ended("failed")
            case _:
                pass
        return step.value(data)


# ------------------------------------------------------------------------------------------------------ making them


@dataclass
class _Maker:
    """Makes one program from a chance of its own."""

    chance: random.Random
    prefix: str
    # a wait's event is sent once to a run, so it may stand only where it is reached once
    waits: bool
    made: int = 0

    def step(self, *, counts: bool = False, ways: tuple[Way, ...] = ()) -> Step:
        usual = (Way.PLAIN,) * 5 + (Way.FLAKY, Way.FLAKY, Way.ASK)
        way = self.chance.choice(ways or usual)
        seconds = self.chance.choice([0.0, 0.01, 0.05, 0.2, 0.8])
        return Step(self._id("s"), self.chance.randrange(MODULUS), way, seconds, counts)

    def _id(self, kind: str) -> str:
        self.made += 1
        return f"{self.prefix}{kind}{self.made}"

    def entry(self, depth: int, *, once: bool) -> Entry:
        if depth and self.chance.random() < 0.35:
            length = self.chance.randint(1, 3)
            return Nested(self._id("n"), self.flow(length, depth - 1, once=once), inline=self.chance.random() < 0.3)
        return self.step()

    def flow(self, length: int, depth: int, *, once: bool) -> tuple[Node, ...]:
        return tuple(self.node(depth, once=once) for _ in range(length))

    def node(self, depth: int, *, once: bool) -> Node:
        kinds = ["step"] * 3 + ["sleep"] + ["limit"] * once + ["wait", "timeout"] * (once and self.waits)
        kinds += ["parallel", "branch", "loop", "foreach", "nested"] if depth else []
        return self.of_kind(self.chance.choice(kinds), depth, once=once)

    def of_kind(self, kind: str, depth: int, *, once: bool) -> Node:
        chance = self.chance
        match kind:
            case "sleep":
                return Sleep(chance.choice([0.1, 0.5, 1.5]))
            case "limit":
                return self.step(ways=(Way.SOFT, Way.HARD))
            case "wait":
                return Wait(self._id("e"))
            case "timeout":
                return Wait(self._id("e"), self.step(ways=(Way.PLAIN,)))
            case "nested":
                return Nested(self._id("n"), self.flow(2, max(depth - 1, 0), once=once))
            case "parallel":
                arms = tuple(self.entry(depth - 1, once=once) for _ in range(chance.randint(2, 4)))
                fails = chance.random() < 0.3
                return Parallel(arms + (self.step(ways=(Way.FAIL,)),) * fails, allow_failure=fails)
            case "branch":
                masks = chance.sample([1, 2, 4, 8], chance.randint(2, 3))
                return Branch(tuple((mask, self.entry(depth - 1, once=once)) for mask in masks))
            case "loop":
                return Loop(self._counting(), chance.randint(2, 4), chance.random() < 0.5)
            case "foreach":
                items = chance.randint(0, MAX_ITEMS)
                return Foreach(self.entry(depth - 1, once=False), items, chance.randint(1, 3))
            case _:
                return self.step()

    def _counting(self) -> Entry:
        body = self.step(counts=True, ways=(Way.PLAIN, Way.PLAIN, Way.FLAKY, Way.ASK))
        if self.chance.random() < 0.5:
            return body
        return Nested(self._id("n"), (Sleep(0.1), body) if self.chance.random() < 0.5 else (body,))


BLOCKS = ("parallel", "branch", "loop", "foreach", "nested", "wait", "timeout", "sleep", "limit")
_LAST_WAYS = (Way.PLAIN,) * 6 + (Way.BAIL, Way.ABORT, Way.FAIL, Way.STAY)
_FATES = (Fate.NOTHING, Fate.NOTHING, Fate.NOTHING, Fate.TRAVEL, Fate.NOTHING, Fate.CANCEL, Fate.NOTHING, Fate.RESTART)


def make_programs(seed: int, count: int) -> list[Program]:
    """Return so many programs; nine of them have every kind of block, eight every fate."""
    return [_make(seed, number) for number in range(count)]


def _make(seed: int, number: int) -> Program:
    chance = random.Random(f"{seed}:{number}")
    fate = _FATES[number % len(_FATES)]
    maker = _Maker(chance, f"p{number}", waits=fate is not Fate.TRAVEL)
    block = BLOCKS[number % len(BLOCKS)]
    if fate is Fate.TRAVEL and block in ("wait", "timeout"):
        block = "parallel"
    flow: list[Node] = [maker.step(), maker.of_kind(block, 2, once=True)]
    flow += maker.flow(chance.randint(1, 3), 2, once=True)
    target = None
    if fate is Fate.TRAVEL:
        target = len(flow) if chance.random() < 0.5 else 0
        flow += [maker.step(ways=(Way.PLAIN, Way.FLAKY, Way.ASK)), maker.node(1, once=True)]
    else:
        way = _LAST_WAYS[number % len(_LAST_WAYS)]
        flow.insert(chance.randint(2, len(flow)), maker.step(ways=(way,)))
    return Program(f"chaos-{number}", tuple(flow), fate, inline=chance.random() < 0.3, target=target)


def steps_of(flow: tuple[Node, ...]) -> Iterator[Step]:
    """Yield every step of a flow, at any depth."""
    for node in flow:
        match node:
            case Step():
                yield node
            case Nested():
                yield from steps_of(node.flow)
            case Parallel():
                yield from steps_of(node.arms)
            case Branch():
                yield from steps_of(tuple(arm for _, arm in node.arms))
            case Loop() | Foreach():
                yield from steps_of((node.body,))
            case Wait(_, on_timeout):
                yield from steps_of((on_timeout,) if on_timeout else ())
            case Sleep():
                pass
