"""The faults of a schedule: which, how many, and the moments at which they strike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from random import Random

# How many of each a schedule may have at most.
KINDS: Mapping[str, int] = {
    "kill": 2,  # a process ends, with all that it is in the middle of
    "kill child": 2,  # the same, and the process around it gives back what it had claimed
    "stall": 1,  # a process stands still for longer than a lease, and goes on
    "delay": 2,  # one line of a process stands still for a while
    "store away": 2,  # nobody reaches the store for some seconds
    "store gone": 1,  # nobody reaches it for almost as long as a lease
    "lost answer": 3,  # a call is carried out, and who made it hears nothing
    "resent": 3,  # a call is carried out, and made again when others have had their turns
    "broker away": 2,  # nobody reaches the broker for some seconds
    "unsure": 2,  # a message is sent or a result is written, and who did it hears that nobody is there
    "backend away": 2,  # nobody reaches the result backend for some seconds
    "unwritten": 3,  # the result backend refuses one result
    "hook fails": 2,  # a hook raises an error
    "refused": 2,  # the broker refuses one message, and takes the others
    "lost": 2,  # a message vanishes
    "repeated": 3,  # a message comes twice
    "clock back": 1,  # the store's clock goes back
    "clock on": 1,  # it goes on by more than a lease
    "limit": 1,  # the process around a worker ends the step that it is at, while the worker goes on
}
LOSES = frozenset({"kill", "kill child", "stall", "limit", "clock on"})
CHANCES = (0.0, 0.01, 0.03, 0.08, 0.2)  # that one strikes, where it may: a schedule has one of these
FORGIVES = 2  # workers that a step may lose; it fails with the third

# A worker renews its leases each third of a lease (2 s of 6). These may all meet in one renewal, and its lease must
# still hold, so that whatever runs twice without a loss is a fault of the engine.
DELAY = (0.1, 0.9)
STORE_AWAY = (0.2, 2.5)
# Leases may end meanwhile, and yet nobody must take a claim from its holder: who lives renews it soon. A store call
# waits for a lease at most, so that no other outage may come close to this one.
STORE_GONE = (4.2, 4.9)
APART = 8_000  # ms
BROKER_AWAY = (0.2, 9.0)
BACKEND_AWAY = (0.2, 9.0)
LAST_MOMENTS = (0.0, 0.3)
STALL = (6.5, 14.0)
BACK = (0.5, 30.0)
ON = (5.0, 20.0)


class Faults:
    """Decides at each point of a schedule whether a fault strikes there. `without` suppresses some, by their numbers.

    The die is one of its own, so that a suppressed fault leaves what comes before it as it was.
    """

    def __init__(self, seed: int, without: Collection[int] = ()) -> None:
        self._die = Random(seed ^ 0x5EED)
        self._without = frozenset(without)
        self._left = Counter({kind: self._die.randint(0, most) for kind, most in KINDS.items()})
        self._chance = self._die.choice(CHANCES)
        self._losses = FORGIVES
        self._drawn = 0
        self.struck: list[tuple[int, str]] = []

    def strike(self, *kinds: str) -> str:
        """Return the one of these kinds that strikes here and now; the empty text where none does."""
        if self._die.random() >= self._chance:
            return ""
        known = [kind for kind in kinds if kind in KINDS]  # a test may take some away
        if not known:
            return ""
        kind = self._die.choice(known)
        if self._left[kind] <= 0 or (kind in LOSES and self._losses <= 0):
            return ""
        self._left[kind] -= 1
        self._losses -= kind in LOSES
        number, self._drawn = self._drawn, self._drawn + 1
        if number in self._without:
            return ""
        self.struck.append((number, kind))
        return kind

    def seconds(self, span: tuple[float, float]) -> float:
        """Return how long a fault lasts."""
        return self._die.uniform(*span)
