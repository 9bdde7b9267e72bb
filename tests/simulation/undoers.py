"""Users whose request could not be told of, and those who are refused because of it.

Of the first it is undone, if nothing has happened since. The others look whether what has refused them stands, and make
it final: of two who want the same, one gets it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from orchestrator.rules import undoing
from orchestrator.rules.change import Change, Committed
from orchestrator.rules.model import FINAL, Activation, ActivationStatus, StoredStatus
from tests.simulation import acts, checks
from tests.simulation.acts import RUN
from tests.simulation.state import Confirms, Looks, Means, State, Undoes, Violation
from tests.simulation.world import Move, World


class Undoers(World):
    """Their moves. Where no request can be undone, nobody who is refused looks again: that would change nothing."""

    def may_look(self, state: State, means: Means) -> bool:
        """Tell whether a user who was refused looks again: what refused it may be undone. One at a time does so."""
        fault = {"start": "unstart", "resume": "away"}.get(means.act)
        is_looked_at = any(isinstance(user, Looks | Confirms) for user in state.users)
        return fault in self.budget and not is_looked_at and state.header.status not in FINAL

    def _takes_back(self, state: State, user: Undoes) -> Move:
        self.load(state)
        if isinstance(self.store.commit(RUN, user.change), Committed):
            of = state.activations if user.means.act == "start" else user.means.activations
            begun = next((activation.path for activation in of if _is_claimed(state, activation)), None)
            if begun is not None:
                raise Violation(f"the wish to {user.means.wish} is taken back, although {begun} has begun")
            if user.number in state.told:
                raise Violation(
                    f"the wish to {user.means.wish} is taken back, although another was told that it stands"
                )
            done = self.take(state, undone=True)
            checks.is_as_before(done, user.means.activations)
            if done.context != user.context:
                raise Violation(f"the context is {done.context}, and was {user.context}")
            return f"a user takes it back, to {user.means.wish}", False, done
        awaited = max(state.awaited, user.settle_count)  # as if the user had been told that the run goes on
        return f"a user cannot take it back, to {user.means.wish}", False, replace(state, awaited=awaited)

    def _looks(self, state: State, user: Looks) -> Move:
        """Look whether another was first indeed, or has just undone what it had done."""
        means = user.means
        if means.act == "start":
            if state.header.status == StoredStatus.PENDING:
                return "a user may start after all", False, _as(state, replace(means, header=state.header))
            return self._accepts(state, means, undoing.confirm_start(state.header))
        found = [one for activation in means.activations if (one := state.at(activation.path)) is not None]
        if len(found) == len(means.activations) and all(map(undoing.is_same_suspension, means.activations, found)):
            change = acts.resume_all(
                state.header, found, self.fresh, per_step=self.per_step, context=means.change.context
            )
            again = Means(means.wish, state.header, tuple(found), change)
            return f"a user may {means.wish} after all", False, _as(state, again)
        return self._accepts(state, means, undoing.confirm_resume(state.header, found))

    def _finds_nothing(self, state: State) -> Iterator[Move]:
        """A user comes who finds nothing to resume, because another has resumed it."""
        meant = [user.means for user in state.users if isinstance(user, Undoes) and user.means.act == "resume"]
        for means in meant if state.may_have("look") else []:
            paid = replace(state, budget=state.spend("look"))
            if not any(_awaits(state, activation) for activation in means.activations):
                change = undoing.confirm_all(state.header)
                yield self._accepts(paid, means, change)

    def _accepts(self, state: State, means: Means, change: Change | None) -> Move:
        """Take the refusal for an answer, once it cannot come to be wrong."""
        if change is None:
            return f"a user takes it that others {means.wish}", False, _tell(state, means)
        return f"a user confirms, to {means.wish}", False, _as(state, Confirms(means, change))

    def _confirms(self, state: State, user: Confirms) -> Move:
        self.load(state)
        answer = self.store.commit(RUN, user.change)
        if not isinstance(answer, Committed):
            return "a user looks again", False, _as(state, Looks(user.means))
        done = self.take(state)
        return f"a user takes it that others {user.means.wish}", False, _tell(done, user.means)


def _tell(state: State, means: Means) -> State:
    """A user is told that others have done it; from then on that must be true."""
    if means.act == "start" and state.header.status == StoredStatus.PENDING:
        raise Violation("a user is told that the run has been started, and it is pending")
    same = [one for one in means.activations if _awaits(state, one)]
    if means.act == "resume" and same and len(same) == len(means.activations):
        raise Violation(f"a user is told that {same[0].path} has been resumed, and it is {same[0].status}")
    paths = [activation.path for activation in means.activations]
    return replace(state, told=state.told | _numbers(state, means.act, paths))


def _numbers(state: State, act: str, paths: Collection[str]) -> frozenset[int]:
    found = (user.number for user in state.users if isinstance(user, Undoes) and user.is_of(act, paths))
    return frozenset(number for number in found if number is not None)


def _awaits(state: State, activation: Activation) -> bool:
    """Tell whether it awaits what it awaited when it was read."""
    now = state.at(activation.path)
    awaiting = (ActivationStatus.SUSPENDED, ActivationStatus.PAUSED)
    return (
        now is not None
        and now.status in awaiting
        and (now.suspend, now.visit) == (activation.suspend, activation.visit)
    )


def _is_claimed(state: State, activation: Activation) -> bool:
    now = state.at(activation.path)
    return now is not None and bool(now.lease_token)


def _as(state: State, user: Means | Looks | Confirms) -> State:
    return replace(state, users=(*state.users, user))
