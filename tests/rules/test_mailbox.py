"""Mailboxes: what is accepted, in which order entries stand, and how full a mailbox is."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.rules.mailbox import (
    MAILBOX_CHANGED,
    MAILBOX_FULL,
    Mailbox,
    MailboxUpdate,
    event_of,
    find_refusal,
    make_entry,
    make_waiter,
    waiter_path,
)
from orchestrator.rules.model import format_path, parse_path

WAIT, OTHER = make_waiter((0,), "t"), make_waiter((1,), "t")
EVENT, NEXT = "000000000007:70:10:v1", "000000000008:75:5:v2"


@given(st.lists(st.lists(st.integers(0, 10**6), min_size=1, max_size=4).map(tuple), unique=True))
def test_entries_of_waits_sort_as_paths_do(paths: list[tuple[int, ...]]) -> None:
    """As numbers, index by index; and each names its path."""
    entries = sorted(make_waiter(path, "token") for path in paths)
    assert [parse_path(waiter_path(entry)) for entry in entries] == sorted(paths)
    assert [waiter_path(make_waiter(path, "#a1#a2")) for path in paths] == [format_path(path) for path in paths]


def test_the_entry_of_a_wait_has_the_length_of_each_index_before_it() -> None:
    """It is stored, so it is the same in every release."""
    assert make_waiter((0, 12, 345), "t") == "?a0b12c345#t"


def test_the_first_event_is_number_one() -> None:
    """Numbers and bytes go on from the last entry."""
    assert make_entry(MailboxUpdate("e", push="v", size=3), Mailbox()) == "000000000001:3:3:v"
    assert make_entry(MailboxUpdate("e", push="v", size=3), Mailbox(EVENT, NEXT)) == "000000000009:78:3:v"


@pytest.mark.parametrize(
    "update, mailbox, refusal",
    [
        (MailboxUpdate("e", push="v"), Mailbox(), ""),
        (MailboxUpdate("e", push="v"), Mailbox(EVENT, NEXT), ""),
        (MailboxUpdate("e", push="v"), Mailbox(WAIT, WAIT), MAILBOX_CHANGED),
        (MailboxUpdate("e", push=WAIT), Mailbox(), ""),
        (MailboxUpdate("e", push=WAIT), Mailbox(OTHER, OTHER), ""),
        (MailboxUpdate("e", push=WAIT), Mailbox(EVENT, EVENT), MAILBOX_CHANGED),
        (MailboxUpdate("e", pop=EVENT), Mailbox(EVENT, NEXT), ""),
        (MailboxUpdate("e", pop=NEXT), Mailbox(EVENT, NEXT), MAILBOX_CHANGED),
        (MailboxUpdate("e", pop=EVENT), Mailbox(), MAILBOX_CHANGED),
        (MailboxUpdate("e", pop=WAIT), Mailbox(WAIT, OTHER), ""),
        (MailboxUpdate("e", pop=OTHER), Mailbox(WAIT, OTHER), MAILBOX_CHANGED),
        (MailboxUpdate("e", pop=OTHER, anywhere=True), Mailbox(WAIT, OTHER), ""),
        (MailboxUpdate("e", pop=WAIT, anywhere=True), Mailbox(EVENT, EVENT), ""),
        (MailboxUpdate("e", pop=NEXT, anywhere=True), Mailbox(EVENT, NEXT), MAILBOX_CHANGED),
        (MailboxUpdate("e", push="v", max_events=2), Mailbox(EVENT, NEXT), MAILBOX_FULL),
        (MailboxUpdate("e", push="v", max_events=3), Mailbox(EVENT, NEXT), ""),
        (MailboxUpdate("e", push="v", size=5, max_bytes=20), Mailbox(EVENT, NEXT), ""),
        (MailboxUpdate("e", push="v", size=6, max_bytes=20), Mailbox(EVENT, NEXT), MAILBOX_FULL),
        (MailboxUpdate("e", push="v", size=6, max_bytes=5), Mailbox(), MAILBOX_FULL),
        (MailboxUpdate("e", push=WAIT, size=6, max_events=1, max_bytes=5), Mailbox(OTHER, OTHER), ""),
    ],
)
def test_what_an_update_relies_on_follows_from_its_kind(update: MailboxUpdate, mailbox: Mailbox, refusal: str) -> None:
    assert find_refusal(update, mailbox) == refusal


@given(st.lists(st.one_of(st.none(), st.integers(0, 50)), max_size=40))
def test_the_first_and_the_last_say_how_full_it_is(steps: list[int | None]) -> None:
    """None takes the first event; a number is the size of one that comes."""
    entries: list[tuple[str, int]] = []
    for number, size in zip(itertools.count(), steps, strict=False):
        mailbox = Mailbox(entries[0][0], entries[-1][0]) if entries else Mailbox()
        if size is None:
            entries = entries[1:]
            continue
        count, total = len(entries), sum(each for _, each in entries)
        update = MailboxUpdate("e", push=f"v:{number}", size=size)
        entries.append((make_entry(update, mailbox), size))
        assert event_of(entries[-1][0]) == f"v:{number}"
        assert [entry for entry, _ in entries] == sorted(entry for entry, _ in entries)
        assert find_refusal(MailboxUpdate("e", push="v", max_events=count or 1), mailbox) == (
            MAILBOX_FULL if count else ""
        )
        assert find_refusal(MailboxUpdate("e", push="v", size=1, max_bytes=total + 1), mailbox) == ""
        assert find_refusal(MailboxUpdate("e", push="v", size=2, max_bytes=total + 1), mailbox) == MAILBOX_FULL
