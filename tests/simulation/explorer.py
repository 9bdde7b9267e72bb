"""An explicit-state search: every order of events of one run, with faults, breadth first.

A state is what the store holds of the run, the messages on their way, and what each worker, the scheduler and the users
are in the middle of. It is compared by a canonical form in which numbers and tokens are renamed, so that histories
which differ in nothing that matters meet again. Time is not counted: "its moment comes" is an event that may happen
whenever an activation has a moment, which covers every clock and every delay.

Budgets per kind of fault keep the search finite. The checks are of three kinds: of a state (the counts are right,
nothing is suspended in name only), of a move (nothing is accepted from a worker without the lease, nothing after the
end, nothing ends twice, of two users who want the same one wins) and of the whole (from every state the run still
settles and is reported, by itself and without further faults).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from orchestrator.rules.model import LIVE, StoredStatus, is_report
from orchestrator.rules.transitions import IllegalTransition
from tests.simulation import canonical, checks
from tests.simulation.state import SETTLED, State, Violation
from tests.simulation.users import Users
from tests.simulation.workers import Workers
from tests.simulation.world import Move


@dataclass
class Found:
    """The result of a search. `violation` is the first, with the way to it."""

    states: int = 0
    moves: int = 0
    violation: str = ""
    way: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)


class Explorer(Workers, Users):
    """The search for one graph. Its budget says how often each of these may happen.

    * `kill`    a worker, the scheduler or a user dies, wherever it is
    * `expire`  a lease ends under a worker that is alive
    * `lose`    a message is lost
    * `repeat`  a message is delivered and comes again
    * `resend`  the answer to a worker's commit is lost, and the commit is sent again
    * `early`   a queued activation is looked at although its message is on its way
    * `unsent`  a publish fails, as far as who publishes knows, and what was told of is put back
    * `second`  not spent: there is a second scheduler, whose clock is another
    * `pause`   the scheduler stops between reading and committing
    * `glance`  the scheduler stops between finding a timer and reading its activation
    * `renew`   a heartbeat comes through after the lease was over
    * `cancel`  a user cancels
    * `restart` a user restarts the run, whether its workers are alive or dead
    * `travel`  a user lets a settled run go on from one of the targets
    * `again`   a user resumes with data on which the step suspends once more
    * `through` a user lets a run step by step go on with all that it held back, and no longer step by step
    * `send`    a user sends an event
    * `race`    a user stops between reading and committing
    * `insist`  the answer to a user's change is lost, and the change is sent again, whoever has come in between
    * `away`    the broker is away when a user resumes, and the resume is taken back
    * `look`    a user comes to resume what another has resumed of whom nobody could be told
    * `elsewhere` a user lets the run go on by the other runtime, to which it belongs from then on
    * `unstart` the broker was away when the run was started, and the start is taken back
    * `start`   two users have read the pending run, and both start it
    * `defer`   a worker has another graph, and gives the claim back
    * `flush`   a step streams something while it is at work
    * `release` the process around a killed worker sees it, and puts its claim back in the queue
    * `fail`    the same, for a step that ran into a time limit: its claim ends as failed
    * `stop`    a worker is told to end, and its parent gives its claim back: that is no abandoned attempt
    * `outrun`  a step's claim is ended for its time limit, while its worker is still at work and commits later
    * `timer`   not spent: the process that writes a deadline also keeps a timer for it, which may fire or not
    * `late`    not spent: stale messages stay on their way; else they vanish, for they are refused whatever happens

    A user who resumes what is suspended, or lets a paused run do its next step, may always come.
    """

    def explore(self, most: int = 400_000) -> Found:
        """Go everywhere; stop at the first violation."""
        found = Found()
        try:
            first = self.first()
        except Violation as violation:
            return Found(violation=str(violation), way=["start"])
        keys = {self.key(first): 0}
        came: list[tuple[int, str]] = [(-1, "start")]
        back: list[list[int]] = [[]]
        good: list[int] = []
        todo = deque([(0, first)])
        while todo:
            number, state = todo.popleft()
            try:
                checks.in_order(state)
                is_over = not any(is_report(one.path) and one.status in LIVE for one in state.activations)
                if is_over:
                    checks.has_reported(state, self.tells)
                if is_over and state.header.status in (*SETTLED, StoredStatus.PENDING):
                    good.append(number)
                    found.outcomes[str(state.header.status)] += 1
                for name, natural, following in self.moves(state):
                    found.moves += 1
                    following = self.prune(following)
                    key = self.key(following)
                    other = keys.get(key)
                    if other is None:
                        other = keys[key] = len(keys)
                        came.append((number, name))
                        back.append([])
                        todo.append((other, following))
                    if natural:
                        back[other].append(number)
            except (Violation, IllegalTransition) as violation:
                found.states = len(keys)
                found.violation, found.way = str(violation), _way(came, number)
                return found
            if len(keys) > most:
                raise AssertionError(f"more than {most} states")
        found.states = len(keys)
        self._check_that_all_settle(found, good, back, came)
        return found

    def moves(self, state: State) -> Iterator[Move]:
        """All that may happen now: its name, whether it is natural (no fault, and nobody outside), what comes of it."""
        for number, local in enumerate(state.workers):
            if local is None:
                yield from self._deliveries(state, number)
            else:
                yield from self._works(state, number, local)
        yield from self._moments(state)
        yield from self._scheduler(state)
        yield from self._users(state)

    def key(self, state: State) -> Any:
        """Return the part of the state that matters for all that can follow."""
        return canonical.key(state, self.clock.now())

    def _check_that_all_settle(
        self, found: Found, good: list[int], back: list[list[int]], came: list[tuple[int, str]]
    ) -> None:
        """Check that from every state the run settles by natural moves alone."""
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


def _way(came: list[tuple[int, str]], number: int) -> list[str]:
    way: list[str] = []
    while number >= 0:
        number, name = came[number]
        way.append(name)
    return way[::-1]
