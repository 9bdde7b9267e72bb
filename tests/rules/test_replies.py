"""The answers to repeats, as they are kept: short, for each commit writes one."""

from __future__ import annotations

import pytest

from orchestrator.rules.change import Dispatch
from orchestrator.rules.replies import REMEMBERED, Reply, make_reply, parse_reply


@pytest.mark.parametrize(
    "reply, text",
    [
        (Reply(), ""),
        (Reply(claimed="0", token="t"), '[[],"0","t"]'),
        (Reply(settle_count=0), '[[],null,"",0,0]'),
        (Reply((Dispatch("0", 5, "r", 7),)), '[[["0",5,"r",7]],null,""]'),
        (Reply((Dispatch("0", 5, "r"),), settle_count=3, left_out=2), '[[["0",5,"r",0]],null,"",3,2]'),
        (Reply((Dispatch("0", 5, "r"),), left_out=2), '[[["0",5,"r",0]],null,"",null,2]'),
    ],
)
def test_a_reply_says_no_more_than_there_is_to_say(reply: Reply, text: str) -> None:
    """And reads back."""
    assert reply.text() == text
    assert parse_reply(text) == parse_reply(text.encode()) == reply


@pytest.mark.parametrize("more", [0, 1, 5_000])
def test_a_reply_is_bounded(more: int) -> None:
    """It counts what it leaves out."""
    dispatches = [Dispatch(str(number), 5, "r") for number in range(REMEMBERED + more)]
    assert make_reply(dispatches, "0", "t", 3) == Reply(tuple(dispatches[:REMEMBERED]), "0", "t", 3, more)
