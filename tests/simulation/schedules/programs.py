"""Random workflows whose results and calls are known beforehand.

Each step takes whatever arrives, adds up all numbers in it, and returns the sum plus a number of its own. So programs
can be put together at will, and a step that ran with the wrong input, twice or not at all shows in the result or in the
calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from orchestrator.definitions import Workflow, step
from orchestrator.definitions.run_info import RunInfo

Answers = Mapping[str, Any]  # what each suspended step was given, and each wait has heard, by their ids


def total(value: Any) -> int:
    """Add up all numbers in a value."""
    if isinstance(value, Mapping):
        return sum(map(total, value.values()))
    if isinstance(value, list):
        return sum(map(total, value))
    return value or 0


class Bailed(Exception):
    """The program has ended the run by itself."""


class Failed(Exception):
    """A step has failed for good."""


@dataclass
class Expected:
    """What a program does: filled while it is worked out."""

    answers: Answers
    calls: Counter[str] = field(default_factory=Counter)  # of each step's function, by its id


class Block:
    """A part of a program: it can be built with the public API, and worked out without it."""

    def add_to(self, flow: Workflow, journal: Journal) -> None:
        """Add this block to a workflow."""
        raise NotImplementedError

    def result(self, given: Any, expected: Expected) -> Any:
        """Work out the block's output."""
        raise NotImplementedError


# called by each step's function as it begins, with the step and its context; returns when the step may go on
Journal = Callable[["Add", Any], None]


@dataclass
class Add(Block):
    """A step that adds a number. It may fail some times first, suspend, bail or fail for good.

    With an attempt to spare, it may run into a time limit once.
    """

    id: str
    number: int
    fails: int = 0
    suspends: bool = False
    bails: bool = False
    hopeless: bool = False
    inline: bool = False
    has_spare: bool = False

    def step(self, journal: Journal) -> Any:
        """Make the step, as the library's users do."""

        def run(given: Any, ctx: Any) -> int:
            journal(self, ctx)
            if self.hopeless or ctx.retry_count < self.fails:
                raise ValueError(f"{self.id} fails on purpose")
            if self.suspends and not ctx.resumed:
                ctx.suspend({"of": self.id})
            if self.bails:
                ctx.bail(total(given) + self.number)
            return total(given) + self.number + (ctx.resume_data if self.suspends else 0)

        return step(run, id=self.id, retries=self.fails + self.has_spare, retry_delay=0.5, inline=self.inline)

    def add_to(self, flow: Workflow, journal: Journal) -> None:
        flow.then(self.step(journal))

    def result(self, given: Any, expected: Expected) -> Any:
        expected.calls[self.id] += 1 + self.fails + self.suspends
        if self.hopeless:
            raise Failed
        made = total(given) + self.number + (expected.answers.get(self.id, 0) if self.suspends else 0)
        if self.bails:
            raise Bailed(made)
        return made


@dataclass
class Flow(Block):
    """A nested workflow."""

    id: str
    blocks: Sequence[Block]

    def workflow(self, journal: Journal, on_finish: Callable[[RunInfo], None] | None = None) -> Workflow:
        """Build it."""
        flow = Workflow(self.id, on_finish=on_finish)
        for block in self.blocks:
            block.add_to(flow, journal)
        return flow.commit()

    def step(self, journal: Journal) -> Workflow:
        """Make the step, as the library's users do."""
        return self.workflow(journal)

    def add_to(self, flow: Workflow, journal: Journal) -> None:
        flow.then(self.step(journal))

    def result(self, given: Any, expected: Expected) -> Any:
        for block in self.blocks:
            given = block.result(given, expected)
        return given


@dataclass
class Side(Block):
    """Arms side by side, some of which may not run."""

    arms: Sequence[Add | Flow]
    parities: Sequence[int] | None = None  # for a branch: the remainder modulo 3 with which an arm runs

    def add_to(self, flow: Workflow, journal: Journal) -> None:
        entries = [arm.step(journal) for arm in self.arms]
        if self.parities is None:
            flow.parallel(*entries)
            return

        def fits(parity: int) -> Callable[[Any], bool]:
            return lambda data: total(data) % 3 != parity

        flow.branch(*((fits(parity), entry) for parity, entry in zip(self.parities, entries, strict=True)))

    def result(self, given: Any, expected: Expected) -> Any:
        chosen = [
            arm
            for number, arm in enumerate(self.arms)
            if self.parities is None or total(given) % 3 != self.parities[number]
        ]
        return {arm.id: arm.result(given, expected) for arm in chosen}


@dataclass
class Again(Block):
    """A loop: its body runs until a sum is reached, at least once."""

    body: Add | Flow
    most: int

    def add_to(self, flow: Workflow, journal: Journal) -> None:
        flow.do_until(self.body.step(journal), lambda data: total(data) >= self.most)

    def result(self, given: Any, expected: Expected) -> Any:
        while True:
            given = self.body.result(given, expected)
            if total(given) >= self.most:
                return given


@dataclass
class Each(Block):
    """A foreach over the first numbers, some at a time."""

    body: Add | Flow
    items: int
    concurrency: int

    def add_to(self, flow: Workflow, journal: Journal) -> None:
        flow.map(lambda data: [total(data) + number for number in range(self.items)])
        flow.foreach(self.body.step(journal), concurrency=self.concurrency)

    def result(self, given: Any, expected: Expected) -> Any:
        return [self.body.result(total(given) + number, expected) for number in range(self.items)]


@dataclass
class Nap(Block):
    """A sleep."""

    id: str
    seconds: float

    def add_to(self, flow: Workflow, journal: Journal) -> None:
        flow.sleep(self.seconds, id=self.id)

    def result(self, given: Any, expected: Expected) -> Any:
        return given


@dataclass
class Hear(Block):
    """A wait for an event, whose data is the output."""

    id: str

    def add_to(self, flow: Workflow, journal: Journal) -> None:
        flow.wait_for_event("news", id=self.id)

    def result(self, given: Any, expected: Expected) -> Any:
        return expected.answers.get(self.id, 0)


@dataclass(frozen=True)
class Program:
    """A workflow with the steps that wait for somebody."""

    body: Flow
    suspends: Mapping[str, list[str]]  # steps that suspend: their ids from the outside in
    hears: Sequence[str]  # the waits for an event
    has_hook: bool = False  # `on_finish`

    def expected(self, given: int, answers: Answers) -> tuple[str, Any, Counter[str]]:
        """Work out how the run ends, its result, and how often each function is called."""
        expected = Expected(answers)
        try:
            return "success", self.body.result(given, expected), expected.calls
        except Bailed as bailed:
            return "success", bailed.args[0], expected.calls
        except Failed:
            return "failed", None, expected.calls


class Maker:
    """Makes a program of a seed."""

    def __init__(self, seed: int) -> None:
        self._die = Random(seed)
        self._steps = 0
        self._suspends: dict[str, list[str]] = {}
        self._hears: list[str] = []

    def make(self) -> Program:
        """Make the program."""
        body = Flow("program", [*self._blocks(depth=2, least=1, inside=[], alone=True), Add(self._id(), 1)])
        return Program(body, self._suspends, self._hears, has_hook=self._die.random() < 0.4)

    def _id(self) -> str:
        self._steps += 1
        return f"s{self._steps}"

    def _blocks(self, depth: int, least: int, inside: list[str], alone: bool) -> list[Block]:
        """Some blocks. `alone` says that nothing runs beside them, `inside` around which workflows they are."""
        return [self._block(depth, inside, alone) for _ in range(self._die.randint(least, 3))]

    def _block(self, depth: int, inside: list[str], alone: bool) -> Block:
        kinds = (
            ["add"] * 4 + ["nap", "hear"] + ["flow", "side", "side", "branch", "again", "each", "each"] * (depth > 0)
        )
        match self._die.choice(kinds):
            case "nap":
                return Nap(self._id(), self._die.choice((0.0, 0.3, 2.0)))
            case "hear" if alone and len(self._hears) < 2:
                self._hears.append(self._id())
                return Hear(self._hears[-1])
            case "flow":
                return self._flow(depth, inside, alone)
            case "side":
                return Side([self._arm(depth, inside) for _ in range(self._die.randint(2, 3))])
            case "branch":
                arms = [self._arm(depth, inside) for _ in range(2)]
                return Side(arms, [self._die.randrange(3) for _ in arms])
            case "again":
                return Again(self._plain(depth), self._die.randint(5, 40))
            case "each":
                return Each(self._plain(depth), self._die.randint(0, 4), self._die.randint(1, 4))
            case _:
                return self._add(inside, alone)

    def _arm(self, depth: int, inside: list[str]) -> Add | Flow:
        return self._flow(depth, inside, False) if self._die.random() < 0.3 else self._add(inside, False)

    def _flow(self, depth: int, inside: list[str], alone: bool) -> Flow:
        id_ = self._id()
        return Flow(id_, [*self._blocks(depth - 1, 1, [*inside, id_], alone), self._add([*inside, id_], alone)])

    def _plain(self, depth: int) -> Add | Flow:
        """The body of a loop or a foreach: nobody is asked in it, for it would have to be named by its iteration."""
        one = Add(self._id(), self._die.randint(3, 9), fails=self._die.choice((0, 0, 0, 1)))
        if self._die.random() < 0.7 or not depth:
            return one
        return Flow(self._id(), [one, Add(self._id(), self._die.randint(1, 9), inline=self._die.random() < 0.5)])

    def _add(self, inside: list[str], alone: bool) -> Add:
        is_inline, has_spare = self._die.random() < 0.4, self._die.random() < 0.3
        made = Add(self._id(), self._die.randint(1, 9), inline=is_inline, has_spare=has_spare)
        chance = self._die.random()
        if chance < 0.15:
            made.fails = self._die.randint(1, 2)
        elif chance < 0.35 and len(self._suspends) < 4:
            made.suspends = True
            self._suspends[made.id] = [*inside, made.id]
        elif chance < 0.38 and alone:
            made.bails = True
        elif chance < 0.41 and alone:
            made.hopeless, made.has_spare = True, False
        return made
