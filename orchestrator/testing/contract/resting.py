"""A run comes to rest, is closed, and goes on; and others wait for it."""

from __future__ import annotations

import threading
from functools import partial

from orchestrator.core.apply import BUSY, ENDED_RUN, LOST, MOVED
from orchestrator.core.changes import Caller, Change, Committed, Expect, Refused, Run, Set
from orchestrator.core.records import Phase, RunState, Status
from orchestrator.host import new_token
from orchestrator.ports import Holding, Store
from orchestrator.testing.contract.kit import (
    ACTIVE,
    LEASE,
    LONG,
    Begun,
    Conditions,
    a_record,
    committed_of,
    each,
    together,
)


class Resting(Conditions):
    """A run comes to rest, is closed, and goes on; and others wait for it."""

    def test_whoever_ends_the_last_live_record_claims_the_rest(self, store: Store) -> None:
        """The commit that takes the live count to zero holds the run's own record, and only that commit."""
        run = Begun(store, a_record("0"), a_record("1"), root=Status.OPEN)
        first, second = (run.claim(path).record.token for path in ("0", "1"))
        answer = run.commit("0", first, Set("0", {"status": Status.SUSPENDED}), rest="rest 0")
        assert answer.claimed is None
        answer = run.commit("1", second, Set("1", {"status": Status.SUCCESS}), rest="rest 1", lease=LONG)
        assert answer.claimed is not None
        root = answer.claimed.record
        assert (root.path, root.phase, root.status, root.token) == ("", Phase.REST, Status.RUNNING, "rest 1")
        assert root.due >= answer.header.updated_at + LONG
        assert answer.header.live == 0
        assert run.refused_claim("", root.seq) == BUSY
        over = (Set("", {"status": Status.OPEN}), Run({"status": RunState.SUSPENDED, "rests": 1}))
        done = run.commit("", "rest 1", *over)
        assert done.claimed is None
        assert (run.header.status, run.header.rests, run.record("").status) == (RunState.SUSPENDED, 1, Status.OPEN)

    def test_the_rest_is_queued_where_nobody_claims_it(self, store: Store) -> None:
        """Without a token it is dispatched, and has a due entry like any queued record."""
        run = Begun(store, a_record("0"), grace=LEASE, root=Status.OPEN)
        token = run.claim("0").record.token
        answer = run.commit("0", token, Set("0", {"status": Status.SUCCESS}), grace=LEASE)
        assert [(d.path, d.seq) for d in answer.dispatches] == [("", run.record("").seq)]
        self.advance(store, LEASE)
        assert run.due() == [""]
        assert run.claim("").record.status == Status.RUNNING

    def test_a_rest_that_is_lost_is_taken_over(self, store: Store) -> None:
        """The rest activation has a lease; the first worker's last word is refused then."""
        run = Begun(store, a_record("0"), root=Status.OPEN)
        token = run.claim("0").record.token
        run.commit("0", token, Set("0", {"status": Status.SUCCESS}), rest="first", lease=LEASE)
        self.advance(store, LEASE)
        assert run.due() == [""]
        assert run.claim("", token="second", lease=LONG).record.lost == 1
        assert run.refused_commit("", "first", Run({"status": RunState.SUCCESS})) == LOST
        run.commit("", "second", Set("", {"status": Status.OPEN}), Run({"status": RunState.SUCCESS}))
        assert run.header.status == RunState.SUCCESS

    def test_a_resume_takes_the_rest_away(self, store: Store) -> None:
        """The one who was about to bring the run to rest is refused; the resumed record's end claims it anew."""
        run = Begun(store, a_record("0"), root=Status.OPEN)
        token = run.claim("0").record.token
        run.commit("0", token, Set("0", {"status": Status.SUSPENDED}), rest="rest 1", lease=LONG)
        expect = (Expect("0", Status.SUSPENDED, run.record("0").seq),)
        ops = (Set("", {"status": Status.OPEN}), Set("0", {"status": Status.QUEUED, "resume": "r", "resumed": True}))
        answer = committed_of(store.commit(run.id, Change(Caller(new_token(), ACTIVE), ops, expect)))
        assert ([d.path for d in answer.dispatches], answer.claimed) == (["0"], None)
        assert run.refused_commit("", "rest 1", Run({"status": RunState.SUSPENDED})) == LOST
        assert run.record("0").resumed_at > 0
        token = run.claim("0").record.token
        again = run.commit("0", token, Set("0", {"status": Status.SUCCESS}), rest="rest 2")
        assert again.claimed is not None
        assert again.claimed.record.token == "rest 2"

    def test_one_of_two_resumes_wins(self, store: Store) -> None:
        """The other finds that the record has moved."""
        run = Begun(store, a_record("0", status=Status.SUSPENDED), a_record("1"))
        expect = (Expect("0", Status.SUSPENDED, run.record("0").seq),)
        ops = (Set("0", {"status": Status.QUEUED}),)
        changes = [Change(Caller(new_token(), ACTIVE), ops, expect) for _ in range(4)]
        answers = each(lambda c: store.commit(run.id, c), changes)
        assert sum(isinstance(answer, Committed) for answer in answers) == 1
        assert {answer.reason for answer in answers if isinstance(answer, Refused)} == {MOVED}

    def test_a_word_that_ends_the_run_closes_it_for_all_others(self, store: Store) -> None:
        """The rest is claimed although others are live, and nothing but the rest is accepted any more."""
        run = Begun(
            store, a_record("0"), a_record("1"), a_record("2"), a_record("3", status=Status.SUSPENDED), root=Status.OPEN
        )
        tokens = [run.claim(path, lease=LONG).record.token for path in ("0", "1")]
        ops = (Set("0", {"status": Status.SUCCESS}), Run({"outcome": "success", "closed": True}))
        answer = run.commit("0", tokens[0], *ops, rest="rest", rest_now=True, lease=LONG)
        assert answer.claimed is not None
        assert (answer.claimed.record.path, answer.claimed.record.token) == ("", "rest")
        assert run.refused_commit("1", tokens[1], Set("1", {"status": Status.SUCCESS})) == ENDED_RUN
        assert run.refused_claim("2", run.record("2").seq) == ENDED_RUN
        held = Holding(run.id, "1", tokens[1])
        mine = Holding(run.id, "", "rest")
        assert store.renew([held, mine], LONG) == {held: ENDED_RUN}
        resume = (Set("", {"status": Status.OPEN}), Set("3", {"status": Status.QUEUED}))
        expect = (Expect("3", Status.SUSPENDED, run.record("3").seq),)
        assert run.refused(Change(Caller(new_token(), ACTIVE), resume, expect)) == ENDED_RUN
        run.commit("", "rest", Set("", {"status": Status.OPEN}), Run({"status": RunState.SUCCESS, "rests": 1}))
        assert run.header.status == RunState.SUCCESS
        assert run.refused_commit("1", tokens[1], Set("1", {"status": Status.SUCCESS})) == ENDED_RUN

    def test_upkeep_is_let_into_a_closed_run(self, store: Store) -> None:
        """The ticker may move entries on there: above all that of a rest whose worker is gone."""
        run = Begun(store, a_record("0"), a_record("1"), root=Status.OPEN)
        token = run.claim("0").record.token
        closing = Run({"outcome": "canceled", "closed": True})
        run.commit("0", token, Set("0", {"status": Status.CANCELED}), closing, rest="r", rest_now=True, lease=LEASE)
        self.advance(store, LEASE)
        root = run.record("")
        look = (Expect("", Status.RUNNING, root.seq, root.due),)
        fields = {"status": Status.QUEUED, "lost": 1, "restarted": True, "token": ""}
        answer = committed_of(store.commit(run.id, Change(Caller("", ACTIVE), (Set("", fields),), look)))
        assert [d.path for d in answer.dispatches] == [""]
        assert run.claim("").record.lost == 1

    def test_a_closed_run_lets_its_own_record_be_expected(self, store: Store) -> None:
        """A caller who looked at nothing else takes no rest away that he does not mean to take."""
        run = Begun(store, a_record("0"), root=Status.OPEN)
        token = run.claim("0").record.token
        closing = Run({"outcome": "canceled", "closed": True})
        run.commit("0", token, Set("0", {"status": Status.CANCELED}), closing, rest="r", rest_now=True, lease=LONG)
        root = run.record("")
        look = (Expect("", Status.RUNNING, root.seq),)
        committed_of(store.commit(run.id, Change(Caller(new_token(), ACTIVE), (Run({"error": "e"}),), look)))
        assert (run.header.error, run.record("").token) == ("e", "r")

    def test_a_run_rests_only_while_it_goes_on(self, store: Store) -> None:
        """Nothing is claimed in one that is at rest already, nor where its own record is not open."""
        run = Begun(store, root=Status.OPEN)
        assert run.record("").status == Status.QUEUED  # nothing is live from the beginning
        run.commit("", run.claim("").record.token, Set("", {"status": Status.OPEN}), Run({"status": "suspended"}))
        assert run.caller(rest="late").claimed is None
        assert run.caller(rest="late", rest_now=True).claimed is None
        run.caller(Run({"status": RunState.RUNNING}), Set("", {"status": Status.SUCCESS}))
        assert run.caller(rest="late").claimed is None
        assert run.record("").status == Status.SUCCESS

    def test_a_change_by_a_caller_may_end_the_run_at_once(self, store: Store) -> None:
        """A cancel takes the rest, also from one who holds it already."""
        run = Begun(store, a_record("0", status=Status.SUSPENDED), a_record("1"), root=Status.OPEN)
        token = run.claim("1").record.token
        run.commit("1", token, Set("1", {"status": Status.SUCCESS}), rest="worker", lease=LONG)
        words = Run({"outcome": "canceled", "closed": True})
        answer = run.caller(words, rest="caller", rest_now=True)
        assert answer.claimed is not None
        assert answer.claimed.record.token == "caller"
        assert run.refused_commit("", "worker", Run({"status": RunState.SUSPENDED})) == LOST
        run.caller(Set("", {"status": Status.OPEN}), Run({"status": RunState.CANCELED}))  # once more, without ceremony
        assert run.refused_commit("", "caller", Run({"status": RunState.SUCCESS})) == ENDED_RUN

    def test_waiting_for_a_rest_ends_when_the_run_rests(self, store: Store) -> None:
        """A waiting reader is woken by the commit that counts the rest, in whatever thread it is made."""
        run = Begun(store, a_record("0"))

        def rest() -> None:
            threading.Event().wait(0.05)
            run.caller(Run({"status": RunState.SUSPENDED, "rests": 1}))

        header, _ = together(lambda: store.wait(run.id, 0, 30.0), rest)
        assert header is not None
        assert (header.status, header.rests) == (RunState.SUSPENDED, 1)
        again = store.wait(run.id, 0, 30.0)
        assert again == header

    def test_waiting_for_a_rest_ends_with_its_time(self, store: Store) -> None:
        """The header comes back as it is."""
        run = Begun(store, a_record("0"))
        run.caller(Run({"rests": 1}))
        assert store.wait(run.id, 1, 0.05) == run.header
        assert store.wait(run.id, 1, 0.0) == run.header
        assert store.wait(run.id, 7, 0.05) == run.header

    def test_any_number_may_wait_for_a_rest(self, store: Store) -> None:
        """Each for its own, and none is woken for good by anything else that happens."""
        run = Begun(store, a_record("0", status=Status.OPEN))

        def work() -> None:
            for number in (1, 2):
                threading.Event().wait(0.03)
                run.caller(events=({"type": "note"},))
                run.caller(Run({"rests": number}))

        waiting = [partial(store.wait, run.id, rests, 30.0) for rests in (0, 0, 1, 1)]
        found = together(*waiting, work)[:-1]
        assert all(header.rests > rests for header, rests in zip(found, (0, 0, 1, 1), strict=True))

    def test_waiting_for_a_run_that_goes_away_ends(self, store: Store) -> None:
        """With its time at the latest, and there is no header then."""
        run = Begun(store, a_record("0"))

        def remove() -> None:
            threading.Event().wait(0.05)
            store.delete(run.id)

        assert together(lambda: store.wait(run.id, 0, 0.3), remove)[0] is None
