"""The judgement of a round: what was expected, what was seen, and which fault explains a difference. Pure."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from tests.chaos import effects
from tests.chaos.calls import OPEN, WON, Call
from tests.chaos.effects import Effect
from tests.chaos.faults import Strike
from tests.chaos.programs import Execution, Fate, Way, steps_of
from tests.chaos.setup import PlannedRun

LOST = "lost"  # a start was acknowledged, and there is no run
STUCK = "stuck"  # it has neither ended nor come to where it has to wait
WRONG = "wrong"  # another status, result or set of executions than was worked out
RECORDED_TWICE = "recorded twice"
EXECUTED_TWICE = "executed twice"  # with nothing that explains it
RACE = "race"  # two winners of one race, or a winner that was told it had lost
ERROR = "error"  # a caller was told something that the documents do not know
LEFT_OVER = "left over"
LOG = "log"
KINDS = (LOST, STUCK, WRONG, RECORDED_TWICE, EXECUTED_TWICE, RACE, ERROR, LEFT_OVER, LOG)

COMMIT_SECONDS = 3.0  # between the end of a step's function and its commit, on a loaded machine
OUTAGE_SHARE = 0.6  # of a lease; an outage of the store that is shorter repeats no execution
LOST_ATTEMPTS = 3  # so many in a row end a step as failed

ERRORS = {
    "start": {"StartAlreadyClaimed"},
    "resume": {"ResumeAlreadyClaimed", "RunNotSuspended", "StepNotSuspended", "RunNotFound"},
    "send": {"RunNotFound", "RunNotActive"},
    "cancel": {"RunNotFound"},
    "restart": {"RunNotFound", "RunNotActive", "RestartAlreadyClaimed"},
    "travel": {"RunNotFound", "RunStillRunning"},
}
AWAY = {OPEN, "BrokerUnavailable", "StoreUnavailable"}


@dataclass(frozen=True)
class Seen:
    """A run as the store shows it at the end; `status` is None where there is none."""

    run: str
    status: str | None
    result: object = None
    error: str = ""
    # the keys of its state
    state: frozenset[str] = frozenset()
    # how many results were recorded of each activation, by the events
    recorded: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class History:
    """Everything that is known of a round."""

    planned: list[PlannedRun]
    seen: dict[str, Seen]
    effects: list[Effect]
    calls: list[Call]
    strikes: list[Strike]
    lease: float
    # (begin, end) of moments in which the whole machine stood still for a part of a lease
    stalls: list[tuple[float, float]] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Violation:
    """One thing that must not be."""

    kind: str
    run: str
    text: str


@dataclass
class Judgement:
    """What is wrong, and the numbers of what is right."""

    violations: list[Violation] = field(default_factory=list)
    # executions that a fault repeated, and runs that failed since three workers were killed with one step
    repeated: int = 0
    given_up: int = 0
    executions: int = 0
    races: int = 0


def judge(history: History) -> Judgement:
    """Return the judgement of a round."""
    judgement = Judgement()
    by_run: dict[str, list[Effect]] = defaultdict(list)
    calls: dict[str, list[Call]] = defaultdict(list)
    for effect in history.effects:
        by_run[effect.run].append(effect)
    for call in history.calls:
        calls[call.run].append(call)
    for planned in history.planned:
        case = _Case(planned, history, history.seen[planned.id], by_run[planned.id], calls[planned.id], judgement)
        judgement.violations += [Violation(kind, planned.id, text) for kind, text in case.judge()]
    judgement.violations += [Violation(LEFT_OVER, "", text) for text in history.left_over]
    judgement.violations += [Violation(LOG, "", text) for text in history.logs]
    return judgement


@dataclass
class _Case:
    """One run on trial."""

    planned: PlannedRun
    history: History
    seen: Seen
    effects: list[Effect]
    calls: list[Call]
    judgement: Judgement

    def judge(self) -> Iterator[tuple[str, str]]:
        """Yield the violations."""
        yield from self._errors()
        yield from self._races()
        if self.seen.status is None:
            if any(call.outcome == WON for call in self.calls if call.verb == "start"):
                yield LOST, "its start was acknowledged"
            return
        if self.seen.status == "pending" and not self.effects:
            return  # a caller was killed between making and starting it
        explained = list(self._executed_twice())
        yield from explained
        yield from self._outcome()
        # An activation is called the same in each generation.
        travels = sum(call.verb == "travel" and call.outcome in AWAY | {WON} for call in self.calls)
        for activation, times in self.seen.recorded.items():
            if times > 1 + travels:
                yield RECORDED_TWICE, f"{times} results of activation {activation}"

    # ------------------------------------------------------------------------------------------------- what was made

    def _outcome(self) -> Iterator[tuple[str, str]]:
        expected, seen = self.planned.expected, self.seen
        canceled = self.planned.program.fate is Fate.CANCEL and self._any("cancel")
        if canceled and seen.status == "canceled":
            yield from self._executions(at_most=True)
            yield from self._begun_after_cancel()
            return
        if seen.status == "failed" and "RunFailed" in seen.error and self._was_killed_often():
            self.judgement.given_up += 1
            return
        if seen.status != expected.status:
            is_over = seen.status in ("success", "failed", "canceled", "tripwire")
            yield (WRONG if is_over else STUCK), f"{seen.status}, expected {expected.status} {seen.error}"
            return
        if seen.status == "success" and seen.result != expected.result:
            yield WRONG, f"result {seen.result!r}, expected {expected.result!r}"
        if not expected.state <= seen.state <= expected.state | expected.open_state:
            yield WRONG, f"state of {sorted(seen.state)}, expected {sorted(expected.state)}"
        yield from self._executions(at_most=False)
        if seen.status in ("success", "failed") and not any(
            each.what == effects.HOOK and each.data == seen.status for each in self.effects
        ):
            yield WRONG, f"no hook was told that it is {seen.status}"

    def _executions(self, *, at_most: bool) -> Iterator[tuple[str, str]]:
        """Compare the activations that show each execution with what was worked out."""
        expected = self.planned.expected
        travels = [call for call in self.calls if call.verb == "travel" and call.outcome in AWAY | {WON}]
        sure = sum(call.outcome == WON for call in travels)
        seen = Counter(execution for execution, _ in self._begun())
        limited = {step.id for step in steps_of(self.planned.program.flow) if step.way in (Way.SOFT, Way.HARD)}
        for execution in sorted(seen.keys() | expected.executions.keys() | expected.travelled.keys()):
            if execution[0] in limited and execution[1] > 1:
                continue  # a frozen or starved process outran its limit once more
            once, travelled = expected.executions[execution], expected.travelled[execution]
            least, most = once + sure * travelled, once + len(travels) * travelled
            if not (0 if at_most else least) <= seen[execution] <= most:
                yield WRONG, f"{execution} in {seen[execution]} activations, expected {least} to {most}"

    def _begun_after_cancel(self) -> Iterator[tuple[str, str]]:
        """Find what began although the run had been canceled; what had been claimed before may take a moment."""
        over = min((call.end for call in self.calls if call.verb == "cancel" and call.end), default=math.inf)
        for each in self.effects:
            frozen = any(each.pid in strike.pids and strike.begin <= each.at for strike in self.history.strikes)
            if each.what == effects.BEGIN and each.at > over + self.history.lease and not frozen:
                yield WRONG, f"{_show(each)}: {each.step} began {each.at - over:.1f} s after the cancel"

    def _begun(self) -> dict[tuple[Execution, str], list[Effect]]:
        found: dict[tuple[Execution, str], list[Effect]] = defaultdict(list)
        for each in self.effects:
            if each.what == effects.BEGIN:
                found[(each.step, each.attempt, each.resumed), each.key].append(each)
        return found

    def _was_killed_often(self) -> bool:
        return any(len(begun) >= LOST_ATTEMPTS for begun in self._begun().values())

    # --------------------------------------------------------------------------------------------------- repetitions

    def _executed_twice(self) -> Iterator[tuple[str, str]]:
        for (execution, key), begun in self._begun().items():
            self.judgement.executions += len(begun)
            for earlier, later in pairwise(begun):
                if self._explains(earlier, later):
                    self.judgement.repeated += 1
                else:
                    yield EXECUTED_TWICE, f"{execution} of {key}: {_show(earlier)}, then {_show(later)}"

    def _explains(self, earlier: Effect, later: Effect) -> bool:
        """Tell whether something hit the earlier execution before the later one began."""
        ends = [
            each.at
            for each in self.effects
            if each.what == effects.END and (each.pid, each.key) == (earlier.pid, earlier.key) and each.at >= earlier.at
        ]
        begin, end = earlier.at, min([*ends, later.at]) + COMMIT_SECONDS
        outages = [each for each in self.history.strikes if each.kind.startswith("store:")]
        # A commit is tried for as long as the store is away, up to a lease.
        end += sum(each.end - each.begin for each in outages if each.begin <= end and each.end >= begin)
        struck = [each for each in self.history.strikes if earlier.pid in each.pids]
        long = [each for each in outages if each.end - each.begin >= OUTAGE_SHARE * self.history.lease]
        windows = [(each.begin, each.end) for each in (*struck, *long)] + self.history.stalls
        windows += [(call.begin, call.end or later.at) for call in self.calls if call.verb == "restart"]
        return any(start <= min(end, later.at) and stop >= begin for start, stop in windows)

    # --------------------------------------------------------------------------------------------------------- calls

    def _any(self, verb: str) -> bool:
        return any(call.verb == verb and call.outcome in AWAY | {WON} for call in self.calls)

    def _errors(self) -> Iterator[tuple[str, str]]:
        for call in self.calls:
            if call.outcome not in AWAY | {WON} | ERRORS[call.verb]:
                yield ERROR, f"{call.id} {call.verb} {call.label}: {call.outcome}: {call.text}"

    def _races(self) -> Iterator[tuple[str, str]]:
        raced: dict[tuple[str, str], list[Call]] = defaultdict(list)
        for call in self.calls:
            if call.verb in ("start", "resume"):
                raced[call.verb, call.label].append(call)
        for (verb, label), calls in raced.items():
            winners = [call.id for call in calls if call.outcome == WON]
            self.judgement.races += len(calls) > 1
            if len(winners) > 1:
                yield RACE, f"{verb} {label} was won by {', '.join(winners)}"
            unknown = {call.id for call in calls if call.outcome in AWAY}
            told = self._told(label) if verb == "resume" else set()
            if told - (set(winners) or unknown):
                yield RACE, f"the step was resumed by {', '.join(told)}; told so: {', '.join(winners) or 'nobody'}"

    def _told(self, label: str) -> set[str]:
        key = label.partition(":")[2]
        return {each.data or "" for each in self.effects if each.resumed and each.key == key}


def _show(effect: Effect) -> str:
    return f"pid {effect.pid} at {effect.at:.3f}"


# ---------------------------------------------------------------------------------------------------------------- logs

_HEAD = "Traceback (most recent call last):"
# What follows the traceback of a cause: the error that it led to comes next, and is judged in its place.
_LINKS = ("During handling of the above exception", "The above exception was the direct cause")
# (what the line before a traceback or its last line says, why it may be there)
ALLOWED = [
    (r"OnPurpose\b", "a step failed since its program says so"),
    (r"TimeoutError: (no soft limit has struck|the signal has come)", "a step that no limit ends from outside"),
    (r"TimeLimitExceeded", "a limit struck, as the program says"),
    (r"^KeyboardInterrupt$", "INT met a worker that was still starting"),
    (r"WorkerLostError", "a child was killed"),
    (r"ExceptionWithTraceback", "billiard's frame around an error, whose own traceback follows"),
    (r"StoreUnavailable|BrokerUnavailable", "a server was away"),
    (
        r"Couldn't ack|Connection to broker lost|Trying again in|Error cleaning up after event loop",
        "kombu, whose connection to the broker has gone",
    ),
    (r"does not implement kill_job", "a cold shutdown of Celery's threads pool"),
    (r"Unrecoverable error: .*'hostname'", "kombu closes a channel to a Redis that has gone; the worker ends by it"),
    (r"attempted relative import with no known parent", "Celery starts `python -m celery` again as a file, on HUP"),
]


def unexpected(log: str) -> list[str]:
    """Return the last lines of the tracebacks in a log that nothing in ALLOWED explains, with the lines before them."""
    found = []
    lines = log.splitlines()
    heads = [number for number, line in enumerate(lines) if line.endswith(_HEAD)]
    title = ""
    for head, following in pairwise([*heads, len(lines)]):
        said, rest = _last_line(lines[head + 1 : following])
        title = title or (lines[head - 1].strip() if head else "")
        if any(link in line for link in _LINKS for line in rest):
            continue
        if not any(re.search(pattern, text) for pattern, _ in ALLOWED for text in (title, said)):
            found.append(f"{said} (after: {title})")
        title = ""
    return found


def _last_line(lines: list[str]) -> tuple[str, list[str]]:
    for number, line in enumerate(lines):
        if line and line[0] not in ' |"':
            return line, lines[number + 1 :]
    return "", []
