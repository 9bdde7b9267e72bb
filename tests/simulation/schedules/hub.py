"""Turns: actors that run one at a time, and a seeded die that says who goes on, in a time of their own."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from random import Random
from typing import Any, NoReturn

from greenlet import GreenletExit, greenlet

EPOCH = 1_750_000_000_000  # ms since 1970; stores take 0 for "never"
NEVER = 1 << 62


class Killed(BaseException):
    """Raised in an actor whose process is dead, should anything of it still run."""


class Actor:
    """One line of execution: a consumer, a heartbeat, a scheduler or a caller."""

    def __init__(self, name: str, work: Callable[[], None], hub: Hub) -> None:
        self.name = name
        self.is_dead = False
        self.wakes_at = self.stands_until = hub.now
        self.line = greenlet(work, hub.line)


class Hub:
    """Runs actors until nobody is left who has anything to do. The same seed gives the same schedule."""

    def __init__(self, seed: int) -> None:
        self.die = Random(seed)
        self.now = EPOCH
        self.turns = 0
        self.line = greenlet.getcurrent()
        self.actors: list[Actor] = []
        self._buried: list[Actor] = []  # kept to the end: a line that is collected runs its `finally`
        self._current: Actor | None = None

    def spawn(self, name: str, work: Callable[[], None]) -> Actor:
        """Add an actor, which begins at one of the next turns."""
        actor = Actor(name, work, self)
        self.actors.append(actor)
        return actor

    @property
    def current(self) -> Actor:
        """The actor whose turn it is."""
        assert self._current is not None
        return self._current

    def bury(self, actors: Collection[Actor]) -> None:
        """End these actors. The current one, if it is among them, does not return from here."""
        for actor in actors:
            actor.is_dead = True
            if actor in self.actors:
                self.actors.remove(actor)
                self._buried.append(actor)
        if self._current is not None and self._current.is_dead:
            self._give_turn(self._current)

    def stall(self, actors: Collection[Actor], seconds: float) -> None:
        """Let these actors stand still for so long, as a process does that is stopped."""
        for actor in actors:
            actor.stands_until = self.now + round(seconds * 1000)
            actor.wakes_at = max(actor.wakes_at, actor.stands_until)
        self._give_turn(self.current)

    def wake(self, actor: Actor) -> None:
        """Let an actor go on before its time, unless it stands still."""
        actor.wakes_at = max(self.now, actor.stands_until)

    def pause(self, seconds: float = 0.0) -> None:
        """Let others go on, for so long at least."""
        actor = self._current
        if actor is None:  # the schedule is over, and its lines only unwind
            raise Killed
        actor.wakes_at = NEVER if seconds == float("inf") else self.now + round(seconds * 1000)
        self._give_turn(actor)

    def _give_turn(self, actor: Actor) -> None:
        self.line.switch()
        if actor.is_dead:
            raise Killed

    def run(self, is_over: Callable[[], bool], until: int) -> bool:
        """Give turns until it is over; returns False where it is not by the moment `until`.

        It is asked before time passes, when nobody has anything to do now.
        """
        self.line = greenlet.getcurrent()
        while True:
            ready = [actor for actor in self.actors if actor.wakes_at <= self.now]
            if not ready:
                if is_over():
                    return True
                soonest = min((actor.wakes_at for actor in self.actors), default=NEVER)
                if soonest > until:
                    return False
                self.now = soonest
                continue
            self._turn(ready[int(self.die.random() * len(ready))])

    def _turn(self, actor: Actor) -> None:
        self.turns += 1
        self._current = actor
        try:
            actor.line.switch()
        finally:
            self._current = None
        if actor.line.dead and actor in self.actors:
            self.actors.remove(actor)

    def close(self) -> None:
        """End all lines. What they do on their way out meets dead processes."""
        for actor in (*self.actors, *self._buried):
            actor.is_dead = True
        for actor in (*self.actors, *self._buried):
            if actor.line:
                with suppress(Killed, GreenletExit):
                    actor.line.throw(GreenletExit)
        self.actors.clear()
        self._buried.clear()


class HubClock:
    """The clock of a store and of all pauses in a schedule. `skew` is the ms by which it differs, and may change."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.skew = 0

    def now(self) -> int:
        """Return the ms since 1970."""
        return self._hub.now + self.skew

    def sleep(self, seconds: float) -> None:
        """Let others go on meanwhile."""
        self._hub.pause(max(seconds, 0.0))


class HubHost:
    """Stands in for what `orchestrator.host` asks the machine for, so that a seed decides over all of it."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._tokens = 0

    def time_ns(self) -> int:
        """Return the ns since 1970."""
        return self._hub.now * 1_000_000

    def monotonic(self) -> float:
        """Return seconds."""
        return self._hub.now / 1000

    def sleep(self, seconds: float) -> None:
        """Let others go on meanwhile."""
        self._hub.pause(seconds)

    def token_urlsafe(self, size: int) -> str:
        """Return a text that does not come back, of the length that so many bytes have."""
        self._tokens += 1
        return f"{self._tokens:0{(size * 4 + 2) // 3}d}"

    def token_hex(self, size: int) -> str:
        """Return a text of twice so many digits that does not come back."""
        self._tokens += 1
        return f"{self._tokens:0{size * 2}x}"

    def random(self) -> float:
        """Return a number in [0, 1)."""
        return self._hub.die.random()

    def seed(self, *_: Any) -> NoReturn:
        """Nobody seeds it again."""
        raise AssertionError("the die of a schedule is seeded once")
