"""An explicit-state search: every order of events of one run, with faults, breadth first.

A state is what the store holds of the run, the messages on their way, and what each worker and the ticker are in the
middle of. It is compared by a canonical form in which numbers and tokens are renamed, so that histories which differ in
nothing that matters meet again. Time is not counted: "its moment comes" is an event that may happen whenever a
record has a moment, which covers every clock and every delay.

Budgets per kind of fault keep the search finite. The checks are of three kinds: of a state (the counts are right,
nothing is suspended in name only), of a move (nothing is accepted from whom it does not belong to, nothing after the
end, nothing ends twice) and of the whole (from every state the run still comes to rest, by itself and without further
faults).
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.core import flow
from orchestrator.core.apply import ENDED_RUN, MAIL
from orchestrator.core.changes import Ask, Change, Claimed, Committed, Dispatch, Holder, Refused
from orchestrator.core.graph import Graph
from orchestrator.core.records import ENDED, FINAL, HELD, LIVE, Header, Phase, Record, RunState, Status
from orchestrator.core.recovery import sweep
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing import VirtualClock
from tests.simulation import acts
from tests.simulation.acts import RUN

Message = tuple[str, int]
Place = tuple[str, str]  # path and visit of an activation
RESTING = FINAL | {RunState.SUSPENDED, RunState.PAUSED}


class Violation(Exception):
    """Something happened that must never happen."""


@dataclass(frozen=True)
class Holds:
    """A worker has a claim and has not committed its outcome yet; `at` of its commits are done."""

    claimed: Claimed
    at: int = 0
    mail: tuple[str, ...] | None = None  # what it has read in the mailbox


@dataclass(frozen=True)
class Tells:
    """A commit is done: these are to be published, then the claim that it made is gone on with."""

    dispatches: tuple[Dispatch, ...]
    claimed: Claimed | None = None


@dataclass(frozen=True)
class Repeats:
    """A commit is done, but its answer got lost: the same commit will be sent again."""

    change: Change


@dataclass(frozen=True)
class Read:
    """The ticker has read a due record and has not committed anything yet."""

    header: Header
    record: Record


@dataclass(frozen=True)
class Sends:
    """A user has read the mailbox, and who waits there, and is about to send this value."""

    entries: tuple[str, ...]
    waiting: Record | None
    value: str


Local = Holds | Tells | Repeats | Read | None


@dataclass(frozen=True)
class State:
    """Everything there is at one moment."""

    header: Header
    records: tuple[Record, ...]
    messages: frozenset[Message]
    workers: tuple[Local, ...]
    ticker: Local
    budget: tuple[tuple[str, int], ...]
    ended: frozenset[Place]
    mail: tuple[str, ...] = ()
    user: Sends | None = None

    def at(self, path: str) -> Record | None:
        return next((record for record in self.records if record.path == path), None)

    def left(self, fault: str) -> bool:
        return dict(self.budget).get(fault, 0) > 0


@dataclass
class Found:
    """What a search has seen. `violation` is the first, with the way to it."""

    states: int = 0
    moves: int = 0
    violation: str = ""
    way: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)


class Explorer:
    """The search for one graph. `budget` says how often each fault may strike.

    * `kill`    a worker, the ticker or a user dies, wherever it is
    * `expire`  a lease ends under a worker that is alive
    * `lose`    a message is lost
    * `repeat`  a message is delivered and comes again
    * `resend`  the answer to a commit is lost, and the commit is sent again
    * `early`   a queued record is looked at although its message is on its way
    * `pause`   the ticker stops between reading and committing
    * `renew`   a heartbeat comes through after the lease was over
    * `cancel`  a user cancels
    * `send`    a user sends an event
    * `timer`   not spent: whoever writes a moment keeps a timer for it, of which nobody knows how well it runs
    * `late`    not spent: stale messages stay on their way; else they vanish, for they are refused whatever happens
    """

    owners = True  # whether a commit by who does not hold the record is a violation by itself

    def __init__(self, graph: Graph, *, workers: int = 2, inline: bool = False, **budget: int) -> None:
        self.graph, self.inline, self.budget = graph, inline, budget
        self.workers = workers
        self.clock = VirtualClock()
        self.store = MemoryStore(self.clock)
        self.tokens = 0

    # --- the search -------------------------------------------------------------------------------------------

    def explore(self, most: int = 400_000) -> Found:
        """Go everywhere; stop at the first violation."""
        found = Found()
        first = self.first()
        keys = {self.key(first): 0}
        came: list[tuple[int, str]] = [(-1, "start")]
        back: list[list[int]] = [[]]
        good: list[int] = []
        todo = deque([(0, first)])
        while todo:
            number, state = todo.popleft()
            try:
                self.check(state)
                if state.header.status in RESTING:
                    good.append(number)
                    found.outcomes[state.header.status] += 1
                for name, natural, following in self.moves(state):
                    found.moves += 1
                    following = self.pruned(following)
                    key = self.key(following)
                    other = keys.get(key)
                    if other is None:
                        other = keys[key] = len(keys)
                        came.append((number, name))
                        back.append([])
                        todo.append((other, following))
                    if natural:
                        back[other].append(number)
            except Violation as violation:
                found.states = len(keys)
                found.violation, found.way = str(violation), _way(came, number)
                return found
            if len(keys) > most:
                raise AssertionError(f"more than {most} states")
        found.states = len(keys)
        self._all_rest(found, good, back, came)
        return found

    def _all_rest(self, found: Found, good: list[int], back: list[list[int]], came: list[tuple[int, str]]) -> None:
        """From every state the run comes to rest by natural moves alone."""
        reached = set(good)
        todo = list(good)
        while todo:
            for number in back[todo.pop()]:
                if number not in reached:
                    reached.add(number)
                    todo.append(number)
        for number in range(len(back)):
            if number not in reached:
                found.violation, found.way = "the run hangs for ever", _way(came, number)
                return

    def first(self) -> State:
        """The run has been started, and the start was published."""
        self.tokens = 0
        self.store._runs.clear()
        self.store._due.clear()
        header = self.store.create(acts.new_header())
        self.run = self.store._runs[RUN]
        answer = self.store.commit(RUN, acts.start_change(self.graph, header, self.fresh))
        assert isinstance(answer, Committed)
        messages = frozenset((d.path, d.seq) for d in answer.dispatches if not d.delay)
        budget = tuple(sorted(self.budget.items()))
        return self.take(State(header, (), messages, (None,) * self.workers, None, budget, frozenset()))

    def fresh(self) -> str:
        self.tokens += 1
        return f"t{self.tokens}"

    # --- between states and the store -------------------------------------------------------------------------

    def load(self, state: State) -> None:
        """Make the store hold what the state says."""
        records = {record.path: record for record in state.records}
        held = {record.path for record in state.records if record.status in HELD}
        fresh: dict[str, Any] = {"values": {}, "state": {}, "context": {}, "events": []}
        mail = {acts.EVENT: list(state.mail)}
        run = replace(self.run, header=state.header, records=records, held=held, mail=mail, **fresh)
        self.store._runs = {RUN: run}
        self.store._due = {(RUN, record.path): record.due for record in state.records if record.due}

    def take(self, state: State, **changes: Any) -> State:
        """The state with what the store holds now."""
        run = self.store._runs[RUN]
        records = tuple(run.records[path] for path in sorted(run.records))
        mail = tuple(run.mail.get(acts.EVENT, ()))
        return replace(state, **{"header": run.header, "records": records, "mail": mail, **changes})

    def settled(self, state: State) -> State:
        """The state with everything published that is to be published, if nothing can go wrong with it any more."""
        if state.left("kill") or state.left("lose"):
            return state
        messages = set(state.messages)
        locals_: list[Local] = []
        for local in (*state.workers, state.ticker):
            if isinstance(local, Tells):
                messages |= {(dispatch.path, dispatch.seq) for dispatch in local.dispatches}
                local = Holds(local.claimed) if local.claimed else None
            locals_.append(local)
        return replace(state, messages=frozenset(messages), workers=tuple(locals_[:-1]), ticker=locals_[-1])

    def pruned(self, state: State) -> State:
        """The state without the messages that have become stale for ever, where they are taken to be harmless."""
        if "late" in self.budget:
            return state
        seqs = {record.path: record.seq for record in state.records}
        fresh = frozenset(message for message in state.messages if seqs.get(message[0]) == message[1])
        return state if fresh == state.messages else replace(state, messages=fresh)

    # --- moves ------------------------------------------------------------------------------------------------

    def moves(self, state: State) -> Iterator[tuple[str, bool, State]]:
        """All that may happen now: its name, whether it is natural (no fault, and nobody outside), what comes of it."""
        for number, local in enumerate(state.workers):
            if local is None:
                yield from self._deliveries(state, number)
            else:
                yield from self._works(state, number, local)
        yield from self._moments(state)
        yield from self._ticker(state)
        yield from self._users(state)

    def _worker(self, state: State, number: int, local: Local) -> tuple[Local, ...]:
        workers = list(state.workers)
        workers[number] = local
        return tuple(workers)

    def _deliveries(self, state: State, number: int) -> Iterator[tuple[str, bool, State]]:
        if None in state.workers[:number]:
            return  # idle workers are alike
        for message in sorted(state.messages):
            path, seq = message
            self.load(state)
            answer = self.store.claim(Ask(RUN, path, seq, self.fresh(), acts.LEASE))
            local = None
            if isinstance(answer, Claimed):
                self._may_claim(state, path)
                local = Holds(answer)
            less = self.take(state, workers=self._worker(state, number, local), messages=state.messages - {message})
            word = "claims" if local else f"leaves alone ({answer.reason if isinstance(answer, Refused) else ''})"
            yield f"W{number} {word} {message}", True, less
            if state.left("repeat"):
                again = replace(less, messages=state.messages, budget=_spend(state, "repeat"))
                yield f"W{number} {word} {message}, which comes again", False, again

    def _may_claim(self, state: State, path: str) -> None:
        record = state.at(path)
        if state.header.status in RESTING:
            raise Violation(f"{path} is claimed in a run that is {state.header.status}")
        if record is None or record.status not in LIVE:
            raise Violation(f"{path} is claimed although it is {record and record.status}")
        if record.status != Status.QUEUED and record.due > self.clock.now():
            raise Violation(f"{path} is claimed before its moment, while it is {record.status}")

    def _works(self, state: State, number: int, local: Local) -> Iterator[tuple[str, bool, State]]:
        if state.left("kill"):
            gone = replace(state, workers=self._worker(state, number, None), budget=_spend(state, "kill"))
            yield f"W{number} is killed in {_brief(local)}", False, gone
        match local:
            case Holds(claimed=claimed, mail=None) if claimed.record.phase == Phase.LISTEN:
                read = self._worker(state, number, replace(local, mail=state.mail))
                yield f"W{number} reads the mailbox", True, replace(state, workers=read)
            case Holds(claimed=claimed, at=at, mail=mail):
                yield from self._commits(state, number, claimed, at, mail or ())
            case Tells(dispatches=dispatches, claimed=claimed):
                following = self._worker(state, number, Holds(claimed) if claimed else None)
                yield from self._publishes(state, f"W{number}", dispatches, workers=following)
            case Repeats(change=change):
                self.load(state)
                answer = self.store.commit(RUN, change)
                self._may_refuse(state, change, answer)
                following = self._after(answer)
                done = self.take(state, workers=self._worker(state, number, following))
                yield f"W{number} repeats its commit", True, self.settled(done)
            case _:
                raise AssertionError(local)

    def _may_refuse(self, state: State, change: Change, answer: Committed | Refused) -> None:
        assert isinstance(change.guard, Holder)
        record = state.at(change.guard.path)
        if isinstance(answer, Refused) and record is not None and record.was == change.guard.token:
            raise Violation("who repeats a commit is told that it is somebody else's")

    def _after(self, answer: Committed | Refused) -> Local:
        if isinstance(answer, Refused):
            return None
        told = tuple(dispatch for dispatch in answer.dispatches if not dispatch.delay or "timer" in self.budget)
        if told:
            return Tells(told, answer.claimed)
        return Holds(answer.claimed) if answer.claimed else None

    def commits(self, claimed: Claimed, entries: tuple[str, ...]) -> list[Change]:
        """The commits of this claim, which has read these entries. A mutant gets them wrong."""
        return acts.changes(self.graph, self.store, claimed, self.fresh, inline=self.inline, entries=entries)

    def _commits(
        self, state: State, number: int, claimed: Claimed, at: int, entries: tuple[str, ...]
    ) -> Iterator[tuple[str, bool, State]]:
        self.load(state)
        try:
            todo = self.commits(claimed, entries)
        except ValueError as error:  # the core does not know what this run has come to
            raise Violation(str(error)) from error
        change, last = todo[at], at + 1 == len(todo)
        answer = self.commit(state, change)
        name = f"W{number} commits {claimed.record.path or 'the rest'} ({claimed.record.phase})"
        if isinstance(answer, Refused):
            again = Holds(claimed) if answer.reason == MAIL else None  # then it looks again
            left = self.take(state, workers=self._worker(state, number, again))
            yield f"{name}: refused ({answer.reason})", True, left
            return
        ended = self._ended(state)
        following = self._after(answer) if last else Holds(claimed, at + 1)
        done = self.take(state, workers=self._worker(state, number, following), ended=ended)
        yield name, True, self.settled(done)
        if state.left("resend"):
            again = self._worker(state, number, Repeats(change))
            yield f"{name}, but hears nothing", False, replace(done, workers=again, budget=_spend(state, "resend"))

    def commit(self, state: State, change: Change) -> Committed | Refused:
        """Commit a worker's outcome, and see that it was the worker's to commit."""
        answer = self.store.commit(RUN, change)
        if isinstance(answer, Refused):
            return answer
        if state.header.status in RESTING:
            raise Violation(f"a commit is accepted in a run that is {state.header.status}")
        if isinstance(change.guard, Holder):
            record = state.at(change.guard.path)
            held = record is not None and record.status == Status.RUNNING and record.token == change.guard.token
            if self.owners and not held:
                raise Violation(f"a commit of {change.guard.path!r} is accepted from who does not hold it")
            if state.header.closed and change.guard.path:
                raise Violation("a commit is accepted after a word that ends the run")
        return answer

    def _ended(self, state: State) -> frozenset[Place]:
        """The places that have ended, this commit's included; none of them twice."""
        before = {record.path: record for record in state.records}
        now = set(state.ended)
        for record in self.store._runs[RUN].records.values():
            old = before.get(record.path)
            if record.status not in ENDED or old is record:
                continue
            if old is not None and old.status in ENDED and old.visit == record.visit:
                if (old.status, old.output, old.error) != (record.status, record.output, record.error):
                    raise Violation(f"{record.path} ends again")
                continue
            if (record.path, record.visit) in now:
                raise Violation(f"{record.path} of visit {record.visit!r} ends twice")
            now.add((record.path, record.visit))
        return frozenset(now)

    def _publishes(
        self, state: State, who: str, dispatches: tuple[Dispatch, ...], **done: Any
    ) -> Iterator[tuple[str, bool, State]]:
        told = frozenset((dispatch.path, dispatch.seq) for dispatch in dispatches)
        yield f"{who} publishes {sorted(told)}", True, replace(state, messages=state.messages | told, **done)
        if state.left("lose"):
            lost = replace(state, **done, budget=_spend(state, "lose"))
            yield f"{who} publishes {sorted(told)}, all lost", False, lost

    def _moments(self, state: State) -> Iterator[tuple[str, bool, State]]:
        """The moment of a record comes: time passes."""
        now = self.clock.now()
        for record in state.records:
            over = record.status == Status.RUNNING and 0 < record.due <= now
            if over and state.left("renew") and _owner(state, record) is not None:
                renewed = _with(state, replace(record, due=now + acts.LEASE))
                yield f"{record.path} is renewed", False, replace(renewed, budget=_spend(state, "renew"))
            if not record.due or record.due <= now:
                continue
            come = _with(state, replace(record, due=now))
            match record.status:
                case Status.RUNNING if _owner(state, record) is not None:
                    if state.left("expire") and record.lost < acts.MOST_LOST - 1:
                        yield (
                            f"the lease of {record.path} ends under its worker",
                            False,
                            replace(come, budget=_spend(state, "expire")),
                        )
                case Status.QUEUED if self._on_its_way(state, record):
                    if state.left("early"):
                        yield (
                            f"the grace of {record.path} ends early",
                            False,
                            replace(come, budget=_spend(state, "early")),
                        )
                case _:
                    yield f"the moment of {record.path or 'the rest'} comes ({record.status})", True, come

    def _on_its_way(self, state: State, record: Record) -> bool:
        message = (record.path, record.seq)
        locals_ = (*state.workers, state.ticker)
        told = (dispatch for local in locals_ if isinstance(local, Tells) for dispatch in local.dispatches)
        return message in state.messages or any((d.path, d.seq) == message for d in told)

    def _ticker(self, state: State) -> Iterator[tuple[str, bool, State]]:
        match state.ticker:
            case None:
                self.load(state)
                for due in self.store.due(acts.NAMESPACE):
                    yield from self._sweeps(state, due.header, due.record)
                    if state.left("pause"):
                        paused = replace(state, ticker=Read(due.header, due.record), budget=_spend(state, "pause"))
                        yield f"the ticker reads {due.record.path} and pauses", False, paused
            case Read(header=header, record=record):
                yield from self._sweeps(state, header, record)
            case Tells(dispatches=dispatches):
                yield from self._publishes(state, "the ticker", dispatches, ticker=None)
                if state.left("kill"):
                    dead = replace(state, ticker=None, budget=_spend(state, "kill"))
                    yield "the ticker dies before it publishes", False, dead
            case _:
                raise AssertionError(state.ticker)

    def _sweeps(self, state: State, header: Header, record: Record) -> Iterator[tuple[str, bool, State]]:
        todo = sweep(header, record, acts.GRACE)
        name = f"the ticker sweeps {record.path or 'the rest'} ({record.status})"
        if todo is None:
            yield f"{name}: nothing to do", True, replace(state, ticker=None)
            return
        self.load(state)
        answer = self.store.commit(RUN, todo.change)
        if isinstance(answer, Refused):
            yield f"{name}: refused ({answer.reason})", True, replace(state, ticker=None)
            return
        if state.header.status in (RESTING if record.status != Status.WAITING else FINAL):
            raise Violation(f"the ticker moves {record.path} in a run that is {state.header.status}")
        told = (*answer.dispatches, *todo.again)
        yield name, True, self.settled(self.take(state, ticker=Tells(told) if told else None))

    def _users(self, state: State) -> Iterator[tuple[str, bool, State]]:
        for record in state.records:
            if record.status != Status.SUSPENDED:
                continue
            self.load(state)
            answer = self.store.commit(RUN, self.resume(state.header, record))
            if isinstance(answer, Refused):
                continue
            if state.header.status in FINAL:
                raise Violation(f"a resume is accepted in a run that is {state.header.status}")
            resumed = self.take(state)
            name = f"a user resumes {record.path}"
            yield from (
                (f"{name}; {how}", False, end) for how, _, end in self._publishes(resumed, "U", answer.dispatches)
            )
            if state.left("kill"):
                yield f"{name} and dies", False, replace(resumed, budget=_spend(resumed, "kill"))
        yield from self._sends(state)
        if state.left("cancel") and state.header.status not in FINAL:
            self.load(state)
            answer = self.store.commit(RUN, acts.cancel_change(state.header, self.fresh))
            if isinstance(answer, Committed):
                yield "a user cancels", False, self.take(state, budget=_spend(state, "cancel"))

    def _sends(self, state: State) -> Iterator[tuple[str, bool, State]]:
        if state.user is None:
            if state.left("send") and state.header.status not in FINAL:
                first = acts.first_waiter(state.mail)
                waiting = state.at(flow.waiter_path(first)) if first else None
                sends = Sends(state.mail, waiting, f"v{dict(state.budget)['send']}")
                yield "a user reads the mailbox", False, replace(state, user=sends, budget=_spend(state, "send"))
            return
        sends = state.user
        self.load(state)
        change = acts.send_change(sends.entries, sends.waiting, sends.value, self.fresh)
        answer = self.store.commit(RUN, change)
        again = replace(state, user=None, budget=_spend(state, "send", -1))
        if isinstance(answer, Refused):
            word = "the event comes too late" if answer.reason == ENDED_RUN else "the mailbox has moved"
            yield word, True, replace(state, user=None) if answer.reason == ENDED_RUN else again
            return
        if not change.values:
            yield "a user clears a waiter away", True, self.take(again)
            return
        sent = self.take(state, user=None)
        yield from self._publishes(sent, f"U sends {sends.value};", answer.dispatches)

    def resume(self, header: Header, record: Record) -> Change:
        """The change by which a user resumes. A subclass may get it wrong."""
        return acts.resume_change(header, record, self.fresh)

    # --- what must hold ---------------------------------------------------------------------------------------

    def check(self, state: State) -> None:
        """The state itself is in order."""
        header = state.header
        counts = self._counters(state)
        if (header.live, header.suspended, header.waiting, header.paused) != counts:
            raise Violation(f"the header counts {header.live} live, {header.suspended} suspended; there are {counts}")
        if header.status == RunState.SUSPENDED and (header.live or not (header.suspended or header.waiting)):
            raise Violation("the run is suspended while something is live, or with nothing suspended")
        ended = all(record.status in ENDED for record in state.records if record.path)
        if header.status == RunState.SUCCESS and not header.closed and not ended:
            raise Violation("the run is a success with something unfinished")
        if header.status == RunState.FAILED and header.live:
            raise Violation("the run has failed while something is live")
        heard = [record.output for record in state.records if record.output.startswith("v")]
        if len(heard) != len(set(heard)):
            raise Violation(f"two have heard the same event: {heard}")
        kept = [entry for entry in state.mail if not entry.startswith(flow.WAITER)]
        waiting = [record for record in state.records if record.status == Status.WAITING]
        if kept and waiting:
            raise Violation(f"{waiting[0].path} waits although {kept} has been sent")

    def _counters(self, state: State) -> tuple[int, int, int, int]:
        found = Counter(record.status for record in state.records if record.path)
        live = sum(found[status] for status in LIVE)
        return live, found[Status.SUSPENDED], found[Status.WAITING], found[Status.PAUSED]

    # --- the canonical form -----------------------------------------------------------------------------------

    def key(self, state: State) -> Any:
        """What of the state matters for all that can follow, with numbers and tokens renamed."""
        name = _Names(state)
        now = self.clock.now()
        asked = {local.change.guard for local in state.workers if isinstance(local, Repeats)}
        records = tuple(_record_key(record, now, name, asked) for record in state.records)
        header = state.header
        return (
            (header.status, header.outcome, bool(header.failure), header.closed, header.rests > 0),
            records,
            tuple(sorted((path, name.number(seq)) for path, seq in state.messages)),
            tuple(sorted((_local_key(local, name, now) for local in state.workers), key=repr)),
            _local_key(state.ticker, name, now),
            state.budget,
            state.ended,
            tuple(map(name.entry, state.mail)),
            _user_key(state.user, name),
        )


class _Names:
    """Numbers by their order, tokens by their first appearance among the records."""

    def __init__(self, state: State) -> None:
        numbers = {record.seq for record in state.records} | {seq for _, seq in state.messages}
        for local in (*state.workers, state.ticker):
            match local:
                case Holds(claimed=claimed):
                    numbers.add(claimed.record.seq)
                case Tells(dispatches=dispatches, claimed=claimed):
                    numbers |= {dispatch.seq for dispatch in dispatches}
                    numbers |= {claimed.record.seq} if claimed else set()
                case Read(record=record):
                    numbers.add(record.seq)
                case _:
                    pass
        if state.user is not None and state.user.waiting is not None:
            numbers.add(state.user.waiting.seq)
        self.ranks = {number: rank for rank, number in enumerate(sorted(numbers))}
        self.labels = {record.label for record in state.records if record.label}
        self.tokens = {record.token: record.path for record in state.records if record.token}

    def number(self, seq: int) -> int:
        return self.ranks.get(seq, -1)

    def entry(self, entry: str) -> str:
        """An entry of the mailbox: a value, or whether this waiter still waits."""
        if not entry.startswith(flow.WAITER):
            return entry
        return f"{flow.waiter_path(entry)} {'waits' if entry in self.labels else 'has gone'}"

    def token(self, token: str) -> str:
        """Whose token it is; all that hold nothing are alike."""
        return self.tokens.get(token, "-") if token else ""


def _record_key(record: Record, now: int, name: _Names, asked: set[Any]) -> tuple[Any, ...]:
    was: Any = ""
    if record.was and Holder(record.path, record.was) in asked:
        told, claimed, token = json.loads(record.answer) if record.answer else ([], None, "")
        was = ("asked", tuple((path, name.number(seq)) for path, seq, _, _ in told), claimed, name.token(token))
    return (
        record.path,
        record.status,
        record.phase,
        record.visit,
        name.number(record.seq),
        bool(record.token),
        was,
        bool(record.due) and record.due <= now,
        (record.attempt, record.lost, record.iteration, record.left, record.next, record.total, record.skipped),
        (record.resumed, record.tripwire, bool(record.label)),
        tuple(id_ for id_ in (record.resume, record.output) if id_.startswith("v")),
    )


def _user_key(user: Sends | None, name: _Names) -> Any:
    if user is None:
        return ()
    waiting = user.waiting
    about = (waiting.path, waiting.status, name.number(waiting.seq)) if waiting else ()
    return tuple(map(name.entry, user.entries)), about, user.value


def _local_key(local: Local, name: _Names, now: int) -> Any:
    match local:
        case None:
            return ()
        case Holds(claimed=claimed, at=at, mail=mail):
            read = None if mail is None else tuple(map(name.entry, mail))
            return ("holds", *_claim_key(claimed, name), at, read)
        case Tells(dispatches=dispatches, claimed=claimed):
            told = tuple(sorted((dispatch.path, name.number(dispatch.seq)) for dispatch in dispatches))
            return ("tells", told, _claim_key(claimed, name) if claimed else ())
        case Repeats(change=change):
            guard = change.guard
            assert isinstance(guard, Holder)
            return ("repeats", guard.path, name.token(guard.token))
        case Read(record=record):
            return ("read", record.path, record.status, name.number(record.seq), record.due <= now)


def _claim_key(claimed: Claimed, name: _Names) -> tuple[Any, ...]:
    record = claimed.record
    mine = name.token(record.token)
    counts = (record.attempt, record.lost, record.iteration, record.resumed)
    return (record.path, record.phase, record.visit, mine, counts, claimed.header.outcome, bool(claimed.header.failure))


def _brief(local: Local) -> str:
    match local:
        case Holds(claimed=claimed):
            return f"the claim of {claimed.record.path or 'the rest'} ({claimed.record.phase})"
        case Tells(dispatches=dispatches):
            return f"publishing {[dispatch.path for dispatch in dispatches]}"
        case _:
            return type(local).__name__


def _owner(state: State, record: Record) -> int | None:
    for number, local in enumerate(state.workers):
        match local:
            case Holds(claimed=Claimed(record=held)) | Tells(claimed=Claimed(record=held)) if (
                held.token == record.token
            ):
                return number
            case Repeats(change=change) if _claims(change, record):
                return number
            case _:
                pass
    return None


def _claims(change: Change, record: Record) -> bool:
    """Whether the record is held by what this commit claimed: whoever sends it again goes on with it."""
    return bool(record.token) and record.token in repr((change.ops, change.rest))


def _with(state: State, record: Record) -> State:
    return replace(state, records=tuple(record if old.path == record.path else old for old in state.records))


def _spend(state: State, fault: str, count: int = 1) -> tuple[tuple[str, int], ...]:
    return tuple((name, left - count * (name == fault)) for name, left in state.budget)


def _way(came: list[tuple[int, str]], number: int) -> list[str]:
    way: list[str] = []
    while number >= 0:
        number, name = came[number]
        way.append(name)
    return way[::-1]
