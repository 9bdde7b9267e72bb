"""The moves of workers, time and the scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from orchestrator.rules import timers
from orchestrator.rules.apply import STATE
from orchestrator.rules.change import Change, Claimed, ClaimRequest, Committed, LeaseGuard, Refused
from orchestrator.rules.mailbox import MAILBOX_CHANGED
from orchestrator.rules.model import (
    FINAL,
    LIVE,
    Activation,
    ActivationStatus,
    Phase,
    RunHeader,
    StoredStatus,
    is_report,
)
from orchestrator.rules.timers import on_deadline
from tests.simulation import acts, checks
from tests.simulation.acts import RUN
from tests.simulation.state import SETTLED, Finds, Holds, Local, Parent, Read, Repeats, State, Tells, Violation
from tests.simulation.world import Move, World


class Workers(World):
    """The workers' moves, and what must hold of each."""

    owners = True  # a commit by a worker that does not hold the lease is a violation by itself

    # --- messages ---------------------------------------------------------------------------------------------

    def _worker(self, state: State, number: int, local: Local) -> tuple[Local, ...]:
        workers = list(state.workers)
        workers[number] = local
        return tuple(workers)

    def _deliveries(self, state: State, number: int) -> Iterator[Move]:
        if None in state.workers[:number]:
            return  # idle workers are alike
        for message in sorted(state.messages):
            path, seq = message
            self.load(state)
            answer = self.store.claim(ClaimRequest(RUN, path, seq, self.fresh(), acts.LEASE))
            local = None
            if isinstance(answer, Claimed):
                self._may_claim(state, path)
                local = Holds(answer)
            less = self.take(state, workers=self._worker(state, number, local), messages=state.messages - {message})
            deed = "claims" if local else f"leaves alone ({answer.reason if isinstance(answer, Refused) else ''})"
            yield f"W{number} {deed} {message}", True, less
            if state.may_have("repeat"):
                again = replace(less, messages=state.messages, budget=state.spend("repeat"))
                yield f"W{number} {deed} {message}, which comes again", False, again

    def _may_claim(self, state: State, path: str) -> None:
        activation = state.at(path)
        if state.header.status in SETTLED and not is_report(path):
            raise Violation(f"{path} is claimed in a run that is {state.header.status}")
        if activation is None or activation.status not in LIVE:
            raise Violation(f"{path} is claimed although it is {activation and activation.status}")
        if activation.status == ActivationStatus.RUNNING:
            raise Violation(f"{path} is claimed by a message, while it is running")
        if activation.status != ActivationStatus.QUEUED and activation.deadline > self.clock.now():
            raise Violation(f"{path} is claimed before its moment, while it is {activation.status}")

    # --- claims -----------------------------------------------------------------------------------------------

    def _works(self, state: State, number: int, local: Local) -> Iterator[Move]:
        if state.may_have("kill"):
            gone = replace(state, workers=self._worker(state, number, None), budget=state.spend("kill"))
            yield f"W{number} is killed in {_brief(local)}", False, gone
            for fault in ("release", "fail"):
                if state.may_have(fault) and isinstance(local, Holds):
                    known = Parent(f"{fault}s", local.claimed.activation)
                    told = replace(gone, users=(*gone.users, known), budget=gone.spend(fault))
                    yield f"W{number} is killed in {_brief(local)}, and its parent sees it", False, told
            if state.may_have("stop") and isinstance(local, Holds):
                known = Parent("gives back", local.claimed.activation)
                told = replace(gone, users=(*gone.users, known), budget=gone.spend("stop"))
                yield f"W{number} is stopped in {_brief(local)}, and its parent sees it", False, told
        if state.may_have("outrun") and isinstance(local, Holds):
            known = Parent("fails", local.claimed.activation)
            outrun = replace(state, users=(*state.users, known), budget=state.spend("outrun"))
            yield f"W{number} outruns its limit in {_brief(local)}", False, outrun
        if isinstance(local, Holds) and not local.at:
            yield from self._on_the_way(state, number, local)
        match local:
            case Holds(claimed=claimed, mail=None) if claimed.activation.phase == Phase.AWAIT_EVENT:
                read = self._worker(state, number, replace(local, mail=state.mail[:1]))
                yield f"W{number} reads the mailbox", True, replace(state, workers=read)
            case Holds(claimed=claimed, at=at, mail=mail):
                yield from self._commits(state, number, claimed, at, mail or ())
            case Tells(dispatches=dispatches, claimed=claimed):
                following = self._worker(state, number, Holds(claimed) if claimed else None)
                yield from self.publishes(state, f"W{number}", dispatches, workers=following)
            case Repeats(change=change):
                self.load(state)
                answer = self.store.commit(RUN, change)
                self._may_refuse(state, change, answer)
                following = self._after(answer)
                done = self.take(state, workers=self._worker(state, number, following))
                if (done.activations, done.mail) != (state.activations, state.mail):
                    raise Violation("a commit that is repeated is applied twice")
                yield f"W{number} repeats its commit", True, self.publish_all(done)
            case _:
                raise AssertionError(local)

    def _on_the_way(self, state: State, number: int, local: Holds) -> Iterator[Move]:
        """Let a step stream before its outcome, or a worker that cannot run it give it back."""
        claimed = local.claimed
        if local.unheard is not None:
            self.load(state)
            self.commit(state, local.unheard, claimed)
            if self.new_events():
                raise Violation("what a step has streamed is appended twice")
            heard = self._worker(state, number, replace(local, unheard=None))
            yield f"W{number} repeats its flush", True, replace(state, workers=heard)
            return
        if state.may_have("flush") and claimed.activation.phase == Phase.RUN:
            yield from self._flushes(replace(state, budget=state.spend("flush")), number, local)
        if state.may_have("defer"):
            self.load(state)
            answer = self.commit(state, acts.defer_change(claimed), claimed)
            done = self.take(state, workers=self._worker(state, number, None), budget=state.spend("defer"))
            if isinstance(answer, Committed):
                checks.is_deferred(done, claimed, self.clock.now())
            yield f"W{number} cannot run {claimed.activation.path or 'the settling'}", False, done

    def _flushes(self, state: State, number: int, local: Holds) -> Iterator[Move]:
        self.load(state)
        change = acts.flush_change(local.claimed, local.flushed + 1)
        answer = self.commit(state, change, local.claimed)
        if isinstance(answer, Refused):
            yield f"W{number} flushes: refused ({answer.reason})", False, state
            return
        if not self.new_events():
            raise Violation("what a step has streamed is not in the log")
        flushed = replace(local, flushed=local.flushed + 1)
        done = self.take(state, workers=self._worker(state, number, flushed))
        yield f"W{number} flushes", False, done
        if state.may_have("resend"):
            unheard = self._worker(state, number, replace(flushed, unheard=change))
            yield (
                f"W{number} flushes, but hears nothing",
                False,
                replace(done, workers=unheard, budget=state.spend("resend")),
            )

    def _may_refuse(self, state: State, change: Change, answer: Committed | Refused) -> None:
        assert isinstance(change.guard, LeaseGuard)
        activation = state.at(change.guard.path)
        if isinstance(answer, Refused) and activation is not None and activation.last_lease_token == change.guard.token:
            raise Violation("a worker that repeats a commit is told that it is somebody else's")

    def _after(self, answer: Committed | Refused) -> Local:
        if isinstance(answer, Refused):
            return None
        told = self.at_once(answer.dispatches)
        if told:
            return Tells(told, answer.claimed)
        return Holds(answer.claimed) if answer.claimed else None

    def commits(self, claimed: Claimed, entries: tuple[str, ...]) -> list[Change]:
        """The commits of this claim, which has read these entries. A mutant gets them wrong."""
        return acts.changes(
            self.graph,
            self.store,
            claimed,
            self.fresh,
            inline=self.inline,
            entries=entries,
            tells=self.tells,
            keep=self.keep,
        )

    def _commits(
        self, state: State, number: int, claimed: Claimed, at: int, entries: tuple[str, ...]
    ) -> Iterator[Move]:
        self.load(state)
        try:
            todo = self.commits(claimed, entries)
        except ValueError as error:  # no rule says what this run has come to
            raise Violation(str(error)) from error
        change, last = todo[at], at + 1 == len(todo)
        answer = self.commit(state, change, claimed)
        name = f"W{number} commits {claimed.activation.path or 'the settling'} ({claimed.activation.phase})"
        if isinstance(answer, Refused):
            again = self._read_again(state, claimed) if answer.reason in (MAILBOX_CHANGED, STATE) else None
            left = self.take(state, workers=self._worker(state, number, again))
            yield f"{name}: refused ({answer.reason})", True, left
            return
        ended = self._ended(state)
        following = self._after(answer) if last else Holds(claimed, at + 1)
        done = self.take(state, workers=self._worker(state, number, following), ended=ended)
        checks.holds_back(state, done, claimed)
        checks.gives_up(done, claimed)
        checks.has_left_the_mailbox(done, claimed)
        checks.keeps_notes(self.graph, done)
        checks.keeps_values_in_use(done, change.drop_values, self.store)
        if last:
            checks.has_items(done, claimed, todo)
        yield name, True, self.publish_all(done)
        if state.may_have("resend"):
            again = self._worker(state, number, Repeats(change))
            yield f"{name}, but hears nothing", False, replace(done, workers=again, budget=state.spend("resend"))

    def _read_again(self, state: State, claimed: Claimed) -> Holds:
        """The claim of a worker that looks again at what has changed since it was read."""
        header = replace(claimed.header, state_version=state.header.state_version)
        return Holds(replace(claimed, header=header, state=acts.state_of(state.notes)))

    def commit(self, state: State, change: Change, claimed: Claimed) -> Committed | Refused:
        """Commit a worker's outcome, and see that it was the worker's to commit."""
        answer = self.store.commit(RUN, change)
        mine = claimed.activation
        activation = state.at(mine.path)
        is_owner = (
            activation is not None
            and activation.status == ActivationStatus.RUNNING
            and activation.lease_token == mine.lease_token
        )
        if isinstance(answer, Refused):
            goes_on = state.header.status == StoredStatus.RUNNING and not (state.header.closed and mine.path)
            goes_on = goes_on or is_report(mine.path)
            if self.judges and is_owner and goes_on and answer.reason not in (MAILBOX_CHANGED, STATE):
                raise Violation(
                    f"a commit of {mine.path!r} is refused to the worker that holds its lease ({answer.reason})"
                )
            return answer
        if state.header.status in SETTLED and not is_report(mine.path):
            raise Violation(f"a commit is accepted in a run that is {state.header.status}")
        if state.header.generation != claimed.header.generation:
            older, newer = claimed.header.generation, state.header.generation
            raise Violation(f"a commit of generation {older} is accepted in generation {newer}")
        if self.owners and not is_owner:
            raise Violation(f"a commit of {mine.path!r} is accepted from a worker that does not hold its lease")
        if self.owners and state.header.closed and mine.path and not is_report(mine.path):
            raise Violation("a commit is accepted in a run that is closed")
        return answer

    # --- time and the scheduler ----------------------------------------------------------------------------------

    def _moments(self, state: State) -> Iterator[Move]:
        """The moment of an activation comes: time passes."""
        now = self.clock.now()
        for activation in state.activations:
            over = activation.status == ActivationStatus.RUNNING and 0 < activation.deadline <= now
            if over and state.may_have("renew") and state.owner(activation) is not None:
                renewed = state.with_activation(replace(activation, deadline=now + acts.LEASE))
                yield f"{activation.path} is renewed", False, replace(renewed, budget=state.spend("renew"))
            if not activation.deadline or activation.deadline <= now:
                continue
            come = state.with_activation(replace(activation, deadline=now))
            match activation.status:
                case ActivationStatus.RUNNING if state.owner(activation) is not None:
                    if state.may_have("expire") and activation.abandoned_attempts < acts.MAX_ABANDONED - 1:
                        ended = replace(come, budget=state.spend("expire"))
                        yield f"the lease of {activation.path} ends under its worker", False, ended
                case ActivationStatus.QUEUED if self._on_its_way(state, activation):
                    if state.may_have("early"):
                        ended = replace(come, budget=state.spend("early"))
                        yield f"the redelivery delay of {activation.path} ends early", False, ended
                case _:
                    yield f"the moment of {activation.path or 'the settling'} comes ({activation.status})", True, come

    def _on_its_way(self, state: State, activation: Activation) -> bool:
        message = (activation.path, activation.seq)
        locals_ = (*state.workers, state.scheduler, state.aside)
        told = (dispatch for local in locals_ if isinstance(local, Tells) for dispatch in local.dispatches)
        return message in state.messages or any((d.path, d.seq) == message for d in told)

    def _scheduler(self, state: State) -> Iterator[Move]:
        yield from self._ticks(state, "scheduler")
        if "second" in self.budget:
            yield from self._ticks(state, "aside")

    def _ticks(self, state: State, which: str) -> Iterator[Move]:
        """The moves of one scheduler; `which` is its place in the state."""
        who = "the scheduler" if which == "scheduler" else "the second scheduler"
        match getattr(state, which):
            case None:
                self.load(state)
                for due in self.store.due_timers(state.header.namespace):
                    yield from self._sweeps(state, due.header, due.activation, which, who)
                    if state.may_have("glance"):
                        late = _at(which, Finds(due.activation.path), budget=state.spend("glance"))
                        name = f"{who} finds the timer of {due.activation.path} and pauses"
                        yield name, False, replace(state, **late)
                    if state.may_have("pause"):
                        paused = _at(which, Read(due.header, due.activation), budget=state.spend("pause"))
                        yield f"{who} reads {due.activation.path} and pauses", False, replace(state, **paused)
            case Finds(path=path):
                found = state.at(path)
                if found is not None and timers.is_due(found, self.clock.now()):
                    yield from self._sweeps(state, state.header, found, which, who)
                else:
                    yield f"{path} is not due any more", True, replace(state, **_at(which, None))
            case Read(header=header, activation=activation):
                yield from self._sweeps(state, header, activation, which, who)
            case Tells(dispatches=dispatches):
                yield from self.publishes(state, who, dispatches, **_at(which, None))
                if state.may_have("kill"):
                    dead = replace(state, **_at(which, None, budget=state.spend("kill")))
                    yield f"{who} dies before it publishes", False, dead
            case other:
                raise AssertionError(other)

    def _sweeps(self, state: State, header: RunHeader, activation: Activation, which: str, who: str) -> Iterator[Move]:
        todo = on_deadline(header, activation, acts.REDELIVERY_DELAY)
        name = f"{who} sweeps {activation.path or 'the settling'} ({activation.status})"
        if todo is None:
            yield f"{name}: nothing to do", True, replace(state, **_at(which, None))
            return
        self.load(state)
        answer = self.store.commit(RUN, todo.change)
        if isinstance(answer, Refused):
            yield f"{name}: refused ({answer.reason})", True, replace(state, **_at(which, None))
            return
        settled = SETTLED if activation.status != ActivationStatus.WAITING else FINAL
        if state.header.status in settled and not is_report(activation.path):
            raise Violation(f"the scheduler moves {activation.path} in a run that is {state.header.status}")
        if activation.status == ActivationStatus.RUNNING and activation.deadline > self.clock.now():
            raise Violation(f"the scheduler takes the claim of {activation.path}, whose lease has just begun")
        now = state.at(activation.path)
        if header.generation != state.header.generation and (now is None or now.seq != activation.seq):
            raise Violation(
                f"the scheduler, which has read generation {header.generation}, moves {activation.path} in another"
            )
        told = (*answer.dispatches, *todo.again)
        yield name, True, self.publish_all(self.take(state, **_at(which, Tells(told) if told else None)))


def _at(which: str, local: Local, **more: Any) -> dict[str, Any]:
    """What is different in a state in which this scheduler is in the middle of that."""
    return {which: local, **more}


def _brief(local: Local) -> str:
    match local:
        case Holds(claimed=claimed):
            return f"the claim of {claimed.activation.path or 'the settling'} ({claimed.activation.phase})"
        case Tells(dispatches=dispatches):
            return f"publishing {[dispatch.path for dispatch in dispatches]}"
        case _:
            return type(local).__name__
