"""The moves of users: resume, cancel, restart, travel in time, send events.

A user reads the run and makes a change from what was read: at once, or, if the budget has a `race`, later, so that
others may come in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from orchestrator.errors import GraphChanged, ResumeAmbiguous, RunNotSuspended, StepNotSuspended
from orchestrator.rules import attempt_commands, commands, ownership, travel, undoing
from orchestrator.rules.addressing import Target
from orchestrator.rules.apply import ENDED_RUN
from orchestrator.rules.change import Change, Claimed, Committed, Refused, RequestGuard
from orchestrator.rules.mailbox import is_waiter, waiter_path
from orchestrator.rules.model import ENDED, FINAL, Activation, ActivationStatus, StoredStatus
from orchestrator.rules.timers import on_unsent
from tests.simulation import acts, callers, checks
from tests.simulation.acts import RUN
from tests.simulation.state import (
    Confirms,
    Insists,
    Looks,
    Means,
    Parent,
    Place,
    PutsBack,
    Sends,
    State,
    Undoes,
    User,
    Violation,
)
from tests.simulation.undoers import Undoers
from tests.simulation.world import Move


class Users(Undoers):
    """The users' moves, and which of them must win. Their changes come from the commands; a mutant gets those wrong."""

    def _users(self, state: State) -> Iterator[Move]:
        for means, cost in self._wishes_everywhere(state):
            paid = replace(state, budget=state.spend(cost))
            if means.is_elsewhere:
                paid = replace(paid, budget=paid.spend("elsewhere"))
            yield from self._changes(paid, means)
            if state.may_have("race"):
                late = replace(paid, budget=paid.spend("race"), users=(*paid.users, means))
                yield f"a user reads, to {means.wish}", False, late
        for number, user in enumerate(state.users):
            others = replace(state, users=(*state.users[:number], *state.users[number + 1 :]))
            yield from self._goes_on(others, user)
        yield from self._reads_mail(state)
        yield from self._finds_nothing(state)

    def _goes_on(self, state: State, user: User) -> Iterator[Move]:
        """Let a user who is in the middle of something do the next of it."""
        match user:
            case Means():
                yield from self._changes(state, user)
            case Undoes():
                yield self._takes_back(state, user)
            case Looks():
                yield self._looks(state, user)
            case Confirms():
                yield self._confirms(state, user)
            case Insists():
                yield from self._insists(state, user)
            case Sends():
                yield from self._sends(state, user)
            case Parent():
                yield from self._ends_claim(state, user)
            case PutsBack():
                yield self._puts_back(state, user)

    def _puts_back(self, state: State, user: PutsBack) -> Move:
        """What could not be published is looked at again soon, unless it was taken or taken away meanwhile."""
        paths = sorted(dispatch.path for dispatch in user.dispatches)
        self.load(state)
        answer = self.store.commit(RUN, on_unsent(user.dispatches, 1_000))
        done = self.take(state)
        if isinstance(answer, Committed) and answer.dispatches:
            raise Violation(f"who puts {paths} back tells of them")
        before = [state.at(path) for path in paths]
        if isinstance(answer, Committed) and any(
            one is None or one.status != ActivationStatus.QUEUED for one in before
        ):
            raise Violation(f"{paths} are put back although somebody has them")
        if any(one != state.at(one.path) and one.path not in paths for one in done.activations):
            raise Violation(f"who puts {paths} back moves another")
        name = f"{paths} are put back"
        return (name if isinstance(answer, Committed) else f"{name}: refused ({answer.reason})"), True, done

    # --- what users want --------------------------------------------------------------------------------------

    def _wishes_everywhere(self, state: State) -> Iterator[tuple[Means, str]]:
        """Give what users may want, here or by the other runtime: there the run goes on from then on."""
        for means, cost in self._wishes(state):
            yield means, cost
            if state.may_have("elsewhere") and means.act != "cancel":
                there = "local" if self.runtime == "celery" else "celery", "elsewhere"
                change = ownership.adopt(
                    means.change, state.header, state.activations, *there, takes_all=means.act == "restart"
                )
                yield replace(means, change=change, is_elsewhere=True), cost

    def _wishes(self, state: State) -> Iterator[tuple[Means, str]]:
        """Give what users may want of the run as it is now, and the budget it costs."""
        header = state.header
        yield from self._resumes(state)
        if state.may_have("cancel") and header.status not in FINAL:
            yield Means("cancel", header, (), self._cancel(state)), "cancel"
        meant = tuple(commands.select_unfinished(header, state.activations))
        is_restartable = header.status == StoredStatus.RUNNING or (header.final and bool(meant))
        if is_restartable and (state.may_have("restart") or not self.auto_restart):
            change = commands.restart(header, state.activations, self.clock.now(), self.fresh(), acts.LIMITS)
            yield Means("restart", header, meant, change), "restart" * self.auto_restart
        if header.status != StoredStatus.RUNNING and state.may_have("travel"):
            for target in self.targets:
                self.load(state)
                try:
                    change = callers.travel_change(self.graph, self.store, target, self.fresh, per_step=self.per_step)
                except GraphChanged:  # the run has not come so far
                    continue
                yield Means(f"travel to {target}", header, state.activations, change), "travel"

    def _resumes(self, state: State) -> Iterator[tuple[Means, str]]:
        for activations in self._meant(state):
            yield self._resume(state, activations, "", "data", self.per_step), ""
            if state.may_have("again") and activations[0].status == ActivationStatus.SUSPENDED:
                yield self._resume(state, activations, ", in vain", acts.AGAIN, self.per_step), "again"
        if state.may_have("through") and (awaiting := self._named(state, Target(), per_step=False)):
            yield self._resume(state, awaiting, ", and all that follows", "data", False), "through"

    def _resume(self, state: State, activations: tuple[Activation, ...], how: str, data: str, per_step: bool) -> Means:
        wish = f"resume {', '.join(activation.path for activation in activations)}{how}"
        context = {"resumed": "=1"} if "away" in self.budget else {}
        change = acts.resume_all(state.header, activations, self.fresh, data=data, per_step=per_step, context=context)
        return Means(wish, state.header, activations, change)

    def _meant(self, state: State) -> Iterator[tuple[Activation, ...]]:
        """Give each set of activations that users may mean by a resume, once."""
        if not self.wishes:  # all that is suspended, also in a run that has ended: that must be refused
            yield from (
                (activation,) for activation in state.activations if activation.status == ActivationStatus.SUSPENDED
            )
            if state.header.paused and not state.header.suspended:
                yield self._named(state, Target(), per_step=True)
            return
        wishes = self.wishes if state.header.status in commands.RESUMABLE else ()
        found = (self._named(state, target, per_step=self.per_step) for target in wishes)
        yield from {
            tuple(activation.path for activation in activations): activations for activations in found if activations
        }.values()

    def _named(self, state: State, target: Target, *, per_step: bool) -> tuple[Activation, ...]:
        try:
            return tuple(callers.select_meant(target, state.header, state.activations, per_step=per_step))
        except (ResumeAmbiguous, RunNotSuspended, StepNotSuspended):
            return ()

    def _cancel(self, state: State) -> Change:
        return acts.cancel_change(state.header, self.fresh, begun=bool(state.activations), told=self.tells.told)

    # --- what comes of it -------------------------------------------------------------------------------------

    def _changes(self, state: State, means: Means) -> Iterator[Move]:
        """Send the change to the store, where the run has perhaps moved on since it was read."""
        self.load(state)
        try:
            answer = self.store.commit(RUN, means.change)
        except KeyError as error:
            raise Violation(f"{means.wish} trips over an activation that is not there: {error}") from error
        why = _why_not(state, means)
        if isinstance(answer, Refused):
            again = means.act == "cancel" and state.header.status not in FINAL
            if self.judges and not why and not (again and state.header != means.header) and not _is_late(state, means):
                raise Violation(f"a user may not {means.wish}, although all is as it was read ({answer.reason})")
            if again:  # a user who cancels does not give up
                means = replace(means, header=state.header, change=self._cancel(state))
                state = replace(state, users=(*state.users, means))
            elif self.may_look(state, means):
                state = replace(state, users=(*state.users, Looks(means)))
            yield f"a user may not {means.wish} ({answer.reason})", False, state
            return
        if self.judges and why:
            raise Violation(f"a user may {means.wish}, although {why}")
        yield from self._tells(state, self._done(state, means, answer), means, answer)

    def _done(self, state: State, means: Means, answer: Committed) -> State:
        waits = means.act in ("resume", "restart", "travel") and not answer.header.final
        awaited = max(state.awaited, answer.header.settle_count) if waits else state.awaited
        done = self.take(state, awaited=awaited)
        if means.is_elsewhere:
            checks.has_gone_over(done, means.change, "local" if self.runtime == "celery" else "celery")
        if means.act == "resume":
            checks.has_resumed(done, means.activations)
        if means.act == "restart":
            checks.has_taken_claims(done, means.activations)
            checks.has_restarted(done, means.activations)
        if means.act == "travel":
            target = travel.find_target(self.graph, means.wish.removeprefix("travel to ").split("."))
            checks.has_arrived(self.graph, target, state, done)
            done = replace(done, ended=_ended_before(state, done))
        return done

    def _tells(self, before: State, done: State, means: Means, answer: Committed) -> Iterator[Move]:
        name = f"a user may {means.wish}"
        natural = means.act == "restart" and not self.auto_restart
        told = self.at_once(answer.dispatches)
        if not told:
            yield name, natural, done
        else:
            for how, good, end in self.publishes(done, "U", told):
                yield f"{name}; {how}", good and natural, end
            if done.may_have("kill"):
                yield f"{name} and dies", False, replace(done, budget=done.spend("kill"))
        if done.may_have("away") and means.act == "resume":
            undo = undoing.undo_resume(
                means.header, means.activations, dict(before.context), means.change, answer, self.fresh()
            )
            spent = done.spend("away")
            if undo is not None:
                users = (*done.users, Undoes(means, undo, answer.header.settle_count, before.context))
                away = replace(done, awaited=before.awaited, budget=spent, users=users)
                yield f"{name}, but the broker is away", False, away
            else:
                yield f"{name}, and it stands although the broker is away", False, replace(done, budget=spent)
        if done.may_have("insist"):
            yield f"{name}, but hears nothing", False, _will_insist(done, means, answer)

    def _insists(self, state: State, user: Insists) -> Iterator[Move]:
        self.load(state)
        answer = self.store.commit(RUN, user.means.change)
        done = self.take(state)
        if done.header.commits != state.header.commits:
            raise Violation(f"a user who repeats the wish to {user.means.wish} is obeyed twice")
        if isinstance(answer, Refused):
            raise Violation(f"a user who repeats the wish to {user.means.wish} is refused ({answer.reason})")
        if answer.header.settle_count != user.settle_count:
            raise Violation(f"a user who repeats the wish to {user.means.wish} is told of another rest to wait for")
        for how, _, end in self.publishes(done, "U", self.at_once(answer.dispatches)):
            yield f"a user repeats the wish to {user.means.wish}; {how}", False, end

    # --- events -----------------------------------------------------------------------------------------------

    def _reads_mail(self, state: State) -> Iterator[Move]:
        if any(isinstance(user, Sends) for user in state.users):
            return
        if state.may_have("send") and state.header.status not in FINAL:
            read = state.mail[:1]
            waiting = state.at(waiter_path(read[0])) if any(map(is_waiter, read)) else None
            sends = Sends(read, waiting, f"v{dict(state.budget)['send']}")
            late = replace(state, users=(*state.users, sends), budget=state.spend("send"))
            yield "a user reads the mailbox", False, late

    def _sends(self, state: State, sends: Sends) -> Iterator[Move]:
        self.load(state)
        change = acts.send_change(sends.entries, sends.waiting, sends.value, self.fresh)
        answer = self.store.commit(RUN, change)
        again = replace(state, budget=state.spend("send", -1))
        if isinstance(answer, Refused):
            what = "the event comes too late" if answer.reason == ENDED_RUN else "the mailbox has moved"
            yield what, False, state if answer.reason == ENDED_RUN else again
            return
        if not change.values:
            cleared = self.take(again)
            checks.has_cleared(cleared, sends.entries)
            yield "a user clears a waiter away", False, cleared
            return
        done = self.take(state)
        checks.has_sent(state, done, sends)
        for how, _, end in self.publishes(done, f"U sends {sends.value};", answer.dispatches):
            yield how, False, end
        if done.may_have("insist"):
            means = Means(f"send {sends.value}", state.header, (), change)
            yield f"U sends {sends.value}, but hears nothing", False, _will_insist(done, means, answer)

    # --- the process around a worker --------------------------------------------------------------------------

    def _ends_claim(self, state: State, parent: Parent) -> Iterator[Move]:
        """Let it read the activation, and end the claim that its child had, if that is still there."""
        path, seq = parent.activation.path, parent.activation.seq
        name = f"the parent of the worker that had {path or 'the settling'}"
        if parent.change is None:
            now, change = state.at(path), None
            if now is not None and parent.way in ("releases", "gives back"):
                is_abandoned = parent.way == "releases"
                change = attempt_commands.release(state.header, now, seq, acts.LIMITS, is_abandoned=is_abandoned)
            elif now is not None and attempt_commands.may_fail_claim(now, seq):
                change = acts.fail_claim_change(self.graph, Claimed(state.header, now, {}, {}, {}), self.fresh())
            is_open = state.header.status == StoredStatus.RUNNING and not state.header.closed
            if (
                change is None
                and is_open
                and path
                and now is not None
                and now.lease_token == parent.activation.lease_token
            ):
                raise Violation(f"a parent knows that {path} is left, and does not end its claim")
            following = () if change is None else (replace(parent, change=change),)
            yield f"{name} reads it", False, replace(state, users=(*state.users, *following))
            return
        self.load(state)
        answer = self.store.commit(RUN, parent.change)
        if isinstance(answer, Refused):
            yield f"{name} is refused ({answer.reason})", False, state
            return
        checks.is_of_the_dead(state, parent.activation)
        done = self.take(state, ended=self._ended(state))
        if parent.way in ("releases", "gives back"):
            checks.has_released(done, parent.activation, is_abandoned=parent.way == "releases")
        yield from self.publishes(done, f"{name} {parent.way} it;", self.at_once(answer.dispatches))


def _will_insist(done: State, means: Means, answer: Committed) -> State:
    """The state in which the user who has had no answer will ask once more."""
    insists = Insists(means, answer.header.settle_count)
    return replace(done, budget=done.spend("insist"), users=(*done.users, insists))


# --- the one that must win ------------------------------------------------------------------------------------


def _why_not(state: State, means: Means) -> str:
    """Return why this user must be refused, by what the documents promise; empty where nothing stands in the way."""
    now, read = state.header, means.header
    if now.status in FINAL and means.act != "travel" and not (means.act == "restart" and read.final):
        return f"the run is {now.status}"
    if means.act == "start":
        return "" if now.status == StoredStatus.PENDING else f"the run is {now.status}"
    if means.act == "cancel":
        return "" if now.settle_count == read.settle_count else "it has settled since"
    if now.generation != read.generation:
        return "it was read in another generation"
    if means.act == "resume":
        why = "the run is closed" if now.closed else ""
        return why or ("" if _unmoved(state, means) else "somebody else was first")
    if now.settle_count != read.settle_count:
        return "it has settled since"
    if means.act == "restart":
        why = "" if now.status == read.status else f"the run is {now.status}"
        return why or ("" if _unmoved(state, means) else "what it restarts has moved")
    if now.status == StoredStatus.RUNNING:
        return "the run is running"
    return "" if _outcomes(state.activations) == _outcomes(means.activations) else "the run has moved"


def _is_late(state: State, means: Means) -> bool:
    """Tell whether the run has moved since it was read by whoever wants all of its timers."""
    guard = means.change.guard
    return isinstance(guard, RequestGuard) and guard.commits not in (None, state.header.commits)


def _unmoved(state: State, means: Means) -> bool:
    """Tell whether what is meant is still in the very claim, queue or suspension in which it was read."""
    return all(_present(state.at(activation.path)) == _present(activation) for activation in means.activations)


def _present(activation: Activation | None) -> tuple[str, int, str, str] | None:
    return activation and (activation.status, activation.seq, activation.lease_token, activation.suspend)


def _outcomes(activations: Sequence[Activation]) -> list[tuple[str, str, str, str]]:
    return [(activation.path, activation.visit, activation.status, activation.output) for activation in activations]


def _ended_before(before: State, after: State) -> frozenset[Place]:
    """The activations that have ended in a new generation: those that were kept or created as ended."""
    kept = {activation.path for activation in after.activations if activation is before.at(activation.path)}
    put = {(activation.path, activation.visit) for activation in after.activations if activation.status in ENDED}
    return frozenset({place for place in before.ended if place[0] in kept} | put)
