"""The mailboxes: who may come in, in which order entries stand, and how many find room."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.host import new_token
from orchestrator.ports import Store
from orchestrator.rules.change import Change, CreateActivation, RequestGuard
from orchestrator.rules.mailbox import MAILBOX_CHANGED, MAILBOX_FULL, MailboxUpdate, make_waiter
from orchestrator.testing.contract.kit import ACTIVE, EXTRAS, Conditions, StartedRun, an_activation, together


def _refused(run: StartedRun, update: MailboxUpdate) -> str:
    """Return the reason why this update is refused, with all that it comes with."""
    change = Change(RequestGuard(new_token(), ACTIVE), (CreateActivation(an_activation("1")),), **EXTRAS)
    seen = run.snapshot(), run.mail(update.name)
    reason = run.refused(replace(change, mailbox=update))
    assert (run.snapshot(), run.mail(update.name)) == seen
    return reason


class Mailing(Conditions):
    """Changes of mailboxes."""

    def test_events_stand_in_the_order_in_which_they_came(self, store: Store) -> None:
        """Each is taken once, as the first; each name has a mailbox of its own."""
        run = StartedRun(store)
        for number in range(12):
            run.push("order", push=f"v{number}")
        run.push("orde", push="other")
        run.push("order:", push="another")
        assert run.mail("order") == [f"v{number}" for number in range(12)]
        assert (run.mail("orde"), run.mail("order:"), run.mail("r")) == (["other"], ["another"], [])
        for number in range(12):
            (first,) = store.mail(run.id, "order")
            run.push("order", pop=first)
            assert run.mail("order") == [f"v{left}" for left in range(number + 1, 12)]
        run.push("order", push="again")
        assert run.mail("order") == ["again"]

    def test_waits_stand_in_the_order_of_their_paths(self, store: Store) -> None:
        """As numbers: item 2 comes before item 10. An event goes to the first. Any of them may leave."""
        run = StartedRun(store)
        paths = [(0, 10), (0, 2), (10,), (0, 2, 0), (9, 5)]
        for path in paths:
            run.push("e", push=make_waiter(path, "token"))
        ordered = [make_waiter(path, "token") for path in sorted(paths)]
        assert run.mail("e") == ordered
        assert store.mail(run.id, "e") == ordered[:1]
        assert _refused(run, MailboxUpdate("e", pop=ordered[2])) == MAILBOX_CHANGED
        run.push("e", pop=ordered[2], anywhere=True)
        run.push("e", pop=ordered[2], anywhere=True)
        assert run.mail("e") == [*ordered[:2], *ordered[3:]]

    def test_an_event_and_a_wait_do_not_stand_side_by_side(self, store: Store) -> None:
        """The second is refused as a whole, finds the other and goes on from there."""
        run, wait = StartedRun(store, an_activation("0")), make_waiter((0,), "token")
        run.push("e", push="v1")
        assert _refused(run, MailboxUpdate("e", push=wait)) == MAILBOX_CHANGED
        run.push("e", push="v2")
        first, second = store.mail(run.id, "e", 2)
        assert _refused(run, MailboxUpdate("e", pop=second)) == MAILBOX_CHANGED
        run.push("e", pop=first)
        assert _refused(run, MailboxUpdate("e", pop=first)) == MAILBOX_CHANGED
        run.push("e", pop=second)
        run.push("e", push=wait)
        assert _refused(run, MailboxUpdate("e", push="v3")) == MAILBOX_CHANGED
        run.push("other", push="v3")
        run.push("e", pop=wait)
        run.push("e", push="v4")
        assert (run.mail("e"), run.mail("other")) == (["v4"], ["v3"])

    def test_senders_are_not_in_each_others_way(self, store: Store) -> None:
        """Nobody of those that send at once is refused, and nothing is lost."""
        run = StartedRun(store)
        together(*(lambda number=number: run.push("e", push=f"v{number}") for number in range(12)))
        assert sorted(run.mail("e")) == sorted(f"v{number}" for number in range(12))

    @pytest.mark.parametrize("bound", [{"max_events": 3}, {"max_bytes": 30}])
    def test_a_mailbox_that_is_full_refuses_the_whole_commit(self, store: Store, bound: dict[str, Any]) -> None:
        """There is room again for as much as has been taken. Waits are not counted."""
        run = StartedRun(store, an_activation("0"))
        for number in range(3):
            run.push("e", push=f"v{number}", size=10, **bound)
        for _ in range(3):
            assert _refused(run, MailboxUpdate("e", push="more", size=10, **bound)) == MAILBOX_FULL
            run.push("e", pop=store.mail(run.id, "e")[0])
            run.push("e", push="next", size=10, **bound)
        assert run.mail("e") == ["next"] * 3
        run.push("other", push="v", size=10, **bound)
        for number in range(5):
            run.push("waits", push=make_waiter((number,), "token"), **bound)
