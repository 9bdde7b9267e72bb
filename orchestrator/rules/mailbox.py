"""Mailboxes: for each event name of a run, the events that no wait has received, or the waits that have received none.

A mailbox is a set of short texts, its entries, in the order of their bytes: events in the order in which they came,
waits in the order of their paths. A store keeps them sorted and tells no more than the first and the last. From these
two everything follows: whether a change of the mailbox is accepted, and the entry that it adds. So an event costs the
same however many came before it. This module must not know what a wait does with its event: that is `flow`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from orchestrator.rules.graph import Path
from orchestrator.rules.model import format_path

MAILBOX_CHANGED = "mail"  # what was read of the mailbox is no longer so: read again
MAILBOX_FULL = "full"  # no room for another event

WAITER = "?"  # the first character of the entry of a wait; it sorts behind the digits with which an event's begins
_INDEX = re.compile(r"[a-z]([0-9]+)")


@dataclass(frozen=True, slots=True)
class MailboxUpdate:
    """A change of the mailbox of one event name.

    What it relies on is in its kind, and `find_refusal` compares it: nobody has to name a version.
    """

    name: str
    push: str = ""  # what comes in: the id of an event's value, or the entry of a wait
    pop: str = ""  # the entry to take away, which has to be the first
    anywhere: bool = False  # a wait that is over leaves, wherever it stands; and it may have left already
    size: int = 0  # bytes of the event that comes in
    max_events: int = 0  # an event is refused where the mailbox has so many; 0: no limit
    max_bytes: int = 0  # an event is refused where all of them together would have more bytes; 0: no limit


@dataclass(frozen=True, slots=True)
class Mailbox:
    """All that a change needs to know of a mailbox: its first and its last entry; empty texts where it has none."""

    first: str = ""
    last: str = ""


# --- entries ---------------------------------------------------------------------------------------------------------


def make_waiter(path: Path, lease_token: str) -> str:
    """Name a wait, with the token of the claim that begins to wait: a later wait at the same path has another entry."""
    # Each index has its length before it, as a letter, so that texts sort as paths do: item 2 comes before item 10.
    key = "".join(f"{chr(ord('a') + len(str(index)) - 1)}{index}" for index in path)
    return f"{WAITER}{key}#{lease_token}"


def waiter_path(entry: str) -> str:
    """Return the path of the wait that this entry names."""
    key = entry[len(WAITER) :].partition("#")[0]
    return format_path(tuple(map(int, _INDEX.findall(key))))


def is_waiter(entry: str) -> bool:
    """Tell whether this is the entry of a wait."""
    return entry.startswith(WAITER)


def event_of(entry: str) -> str:
    """Return the id of the value of an event's entry."""
    return entry.split(":", 3)[3]


def _numbers(entry: str) -> tuple[int, int, int]:
    """Return the number of an event's entry, the bytes of the events up to it, and its own; zeros for no event."""
    if not entry or is_waiter(entry):
        return 0, 0, 0
    number, total, size, _ = entry.split(":", 3)
    return int(number), int(total), int(size)


# --- changes ---------------------------------------------------------------------------------------------------------


def find_refusal(update: MailboxUpdate, mailbox: Mailbox) -> str:
    """Return why the update is refused: `MAILBOX_CHANGED` or `MAILBOX_FULL`; empty where it is accepted.

    The sender of an event and the step that begins to wait each look first, and then write. So an event comes in only
    while nobody waits, and a wait only while there is no event: whoever is second finds what the other has written, and
    neither misses the other. An event is taken only as the first, and given only to the first that waits. Two
    senders whose events are kept never get into each other's way, nor do two waits that begin.
    """
    waits = is_waiter(mailbox.first)
    if update.push and mailbox.first and waits is not is_waiter(update.push):
        return MAILBOX_CHANGED
    if update.pop and mailbox.first != update.pop and not (update.anywhere and is_waiter(update.pop)):
        return MAILBOX_CHANGED
    if update.push and not is_waiter(update.push):
        count, size = _measure(mailbox)
        if update.max_events and count >= update.max_events:
            return MAILBOX_FULL
        if update.max_bytes and size + update.size > update.max_bytes:
            return MAILBOX_FULL
    return ""


def _measure(mailbox: Mailbox) -> tuple[int, int]:
    """Count the events of a mailbox without waits, and their bytes.

    They are numbered as they come and leave from the front. So the difference of the last to the first says it all.
    """
    if not mailbox.first:
        return 0, 0
    first, before, size = _numbers(mailbox.first)
    last, total, _ = _numbers(mailbox.last)
    return last - first + 1, total - before + size


def make_entry(update: MailboxUpdate, mailbox: Mailbox) -> str:
    """Return the entry that an accepted update adds; empty where it adds none."""
    if not update.push or is_waiter(update.push):
        return update.push
    number, total, _ = _numbers(mailbox.last)
    return f"{number + 1:012d}:{total + update.size}:{update.size}:{update.push}"
