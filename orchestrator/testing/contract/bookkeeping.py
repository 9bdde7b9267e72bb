"""Counting, numbering and stamping by a commit, and the effect of the operations on blocks and headers."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.changes import Change, Down, Holder, Next, Put, Run, Set, Shut, Tell
from orchestrator.core.records import ENDED, HELD, Phase, Role, RunState, Status
from orchestrator.core.transitions import TABLE
from orchestrator.ports import Store
from orchestrator.testing.contract.kit import LEASE, LONG, Begun, Conditions, a_record, born


class Bookkeeping(Conditions):
    """Counting, numbering and stamping by a commit, and the effect of the operations on blocks and headers."""

    def test_commits_number_the_run(self, store: Store) -> None:
        """Each one, and each claim, counts once; a repeat and a refusal do not."""
        run = Begun(store, a_record("0"))
        count = run.header.commits
        token = run.claim("0").record.token
        assert run.header.commits == count + 1
        run.refused_claim("0", run.record("0").seq)
        run.refused_commit("0", "other", Run({}))
        assert run.header.commits == count + 1
        ops = (Set("0", {"status": Status.SUCCESS}), Put(a_record("1")))
        change = Change(Holder("0", token), ops)
        store.commit(run.id, change)
        store.commit(run.id, change)
        assert run.header.commits == count + 2
        assert run.record("1").seq == count + 2

    def test_a_record_is_stamped_as_its_status_says(self, store: Store) -> None:
        """The stamps say who holds it, since when, until when, and under which number a message may ask for it."""
        statuses = [status for status in TABLE[Status.RUNNING].may_follow if status is not Status.RUNNING]
        run = Begun(store, *(a_record(f"{n}") for n in range(len(statuses))))
        for n in range(len(statuses)):
            run.claim(f"{n}", lease=LONG)
        run.caller(*(Set(f"{n}", {"lost": 2}) for n in range(len(statuses))))
        before = {record.path: record for record in store.load(run.id)}
        self.advance(store, 2)
        start = store.now()
        run.caller(*(Set(f"{n}", {"status": status}, delay=LONG) for n, status in enumerate(statuses)), grace=2 * LONG)
        number, updated = run.header.commits, run.header.updated_at
        held, later = {Status.SUSPENDED, Status.WAITING}, {Status.RETRYING, Status.SLEEPING, Status.WAITING}
        for n, status in enumerate(statuses):
            record, old = run.record(f"{n}"), before[f"{n}"]
            assert (record.status, record.token) == (status, "")
            assert (record.started_at, record.order) == (old.started_at, old.order)
            goes_on = status in {Status.QUEUED, Status.RETRYING, Status.SLEEPING, *HELD}
            assert record.seq == (number if goes_on else old.seq)
            assert record.queued_at == (updated if status is Status.QUEUED else old.queued_at)
            assert record.suspended_at == (updated if status in held else 0)
            assert record.ended_at == (updated if status in ENDED else 0)
            wait = 2 * LONG if status is Status.QUEUED else LONG if status in later else 0
            assert record.due == (updated + wait if wait else 0)
            assert record.lost == (2 if status is Status.QUEUED else 0)
        assert start <= updated <= store.now()

    def test_a_record_that_begins_held_back_or_ended_is_stamped(self, store: Store) -> None:
        """One that is held back has begun nothing; one that counts for nothing begins as it ends."""
        run = Begun(store, a_record("0", status=Status.PAUSED), a_record("1", status=Status.SKIPPED))
        number, updated = run.header.commits, run.header.updated_at
        paused, skipped = run.record("0"), run.record("1")
        assert (paused.seq, paused.due, paused.started_at, paused.suspended_at) == (number, 0, 0, 0)
        assert (skipped.seq, skipped.due, skipped.started_at, skipped.ended_at) == (0, 0, updated, updated)

    def test_a_record_that_goes_on_without_having_run_has_begun_nothing(self, store: Store) -> None:
        """Its first run is stamped once, and its number in the order of first runs too."""
        run = Begun(store, a_record("0"), a_record("1", status=Status.SUSPENDED))
        assert (run.record("0").started_at, run.record("0").order, run.record("0").resumed_at) == (0, 0, 0)
        run.caller(Set("1", {"status": Status.QUEUED}))
        assert (run.record("1").resumed_at, run.record("1").order) == (run.header.updated_at, 0)
        run.claim("1")
        assert run.record("1").order == run.header.commits
        assert run.record("1").started_at == run.header.updated_at
        assert run.record("0").order == 0

    def test_what_goes_on_later_is_dispatched_with_its_delay(self, store: Store) -> None:
        """Of one ms at least: whoever publishes it knows by that that it is not for now."""
        run = Begun(store)
        answer = run.caller(
            Put(a_record("0", status=Status.SLEEPING, route='{"name":"a"}'), delay=LONG),
            Put(a_record("1", status=Status.RETRYING)),
            *born(a_record("2", status=Status.WAITING), LONG),
            Put(a_record("3")),
        )
        number = answer.header.commits
        assert [(d.path, d.seq, d.route, d.delay) for d in answer.dispatches] == [
            ("0", number, '{"name":"a"}', LONG), ("1", number, "", 1), ("3", number, "", 0),
        ]  # fmt: skip

    def test_the_header_counts_what_its_records_are(self, store: Store) -> None:
        """Live, suspended, waiting and paused ones, through every way in and out; the run's own record never counts."""
        run = Begun(
            store, a_record("0"), a_record("1"), a_record("2"), a_record("3"), a_record("4", status=Status.OPEN)
        )
        assert run.counts() == (4, 0, 0, 0)
        run.commit("0", run.claim("0").record.token, Set("0", {"status": Status.SUSPENDED}))
        run.commit("1", run.claim("1").record.token, Set("1", {"status": Status.WAITING}))
        run.commit("2", run.claim("2").record.token, Set("2", {"status": Status.RETRYING}, delay=LONG))
        assert run.counts() == (2, 1, 1, 0)
        run.caller(Put(a_record("5", status=Status.PAUSED)), Set("3", {}, delay=LONG))
        assert run.counts() == (2, 1, 1, 1)
        run.caller(Set("0", {"status": Status.QUEUED}), Put(a_record("1", status=Status.SUCCESS)))
        assert run.counts() == (3, 0, 0, 1)
        run.caller(Set("5", {"status": Status.QUEUED}))
        assert run.counts() == (4, 0, 0, 0)
        run.commit("5", run.claim("5").record.token, Set("5", {"status": Status.FAILED}))
        assert run.counts() == (3, 0, 0, 0)
        run.caller(drop=("0", "2", "3"))
        assert run.counts() == (0, 0, 0, 0)
        assert [record.path for record in store.load(run.id)] == ["", "1", "4", "5"]

    def test_dropped_records_go_away_with_their_due_entries(self, store: Store) -> None:
        """A record that was dropped and put again in the same commit is a fresh one."""
        run = Begun(store, a_record("0", attempt=3, label="old"), a_record("1", status=Status.SUSPENDED))
        run.claim("0", lease=LONG)
        run.caller(Put(a_record("0")), drop=("0", "1", "7"))  # it is live, but on its way out
        assert run.counts() == (1, 0, 0, 0)
        assert (run.record("0").attempt, run.record("0").label) == (0, "")
        run.caller(drop=("0",))
        self.advance(store, LEASE)
        assert run.due() == []
        assert [record.path for record in store.load(run.id)] == [""]

    def test_the_last_child_brings_about_what_follows(self, store: Store) -> None:
        """A counter goes down with each child; the commit that takes it to zero claims the join, and no other does."""
        block = a_record("0", status=Status.OPEN, left=3, total=3, next=3)
        run = Begun(store, block, *(a_record(f"0.{n}") for n in range(3)))
        tokens = [run.claim(f"0.{n}").record.token for n in range(3)]
        join = {"status": Status.QUEUED, "phase": Phase.JOIN}
        for n in (2, 0):
            down = Down("0", Set("0", join, claim=f"join {n}"), {"type": "progress", "n": n})
            answer = run.commit(f"0.{n}", tokens[n], Set(f"0.{n}", {"status": Status.SUCCESS}), down)
            assert (answer.claimed, answer.dispatches) == (None, ())
        assert (run.record("0").left, run.record("0").status) == (1, Status.OPEN)
        down = Down("0", Set("0", join, claim="join 1"), {"type": "progress", "n": 1})
        answer = run.commit("0.1", tokens[1], Set("0.1", {"status": Status.SUCCESS}), down)
        assert answer.claimed is not None
        assert answer.claimed.record == run.record("0")
        assert (answer.claimed.record.token, answer.claimed.record.phase) == ("join 1", Phase.JOIN)
        assert answer.header.live == 1
        counted = [(event["n"], event["completed"], event["total"]) for event in run.told("progress")]
        assert counted == [(2, 1, 3), (0, 2, 3), (1, 3, 3)]

    def test_what_follows_the_last_child_is_queued_where_nobody_claims_it(self, store: Store) -> None:
        """Without a token the join is a dispatch like any other."""
        run = Begun(store, a_record("0", status=Status.OPEN, left=1, total=1), a_record("0.0"))
        token = run.claim("0.0").record.token
        down = Down("0", Set("0", {"status": Status.QUEUED, "phase": Phase.JOIN}))
        answer = run.commit("0.0", token, Set("0.0", {"status": Status.SUCCESS}), down)
        assert [d.path for d in answer.dispatches] == ["0"]
        assert run.claim("0").record.phase == Phase.JOIN

    def test_a_block_starts_its_items_one_by_one(self, store: Store) -> None:
        """Each `Next` puts the template at the counter's next value, below the total, with an input of its own."""
        block = a_record("0", status=Status.OPEN, left=3, total=3, width=2)
        run = Begun(store, block)
        following = Next(
            "0", replace(a_record("0.0", role=Role.ITEM.value, route='{"name":"each"}'), step="each"), "0@@0"
        )
        answer = run.caller(following, following)
        assert [d.path for d in answer.dispatches] == ["0.0", "0.1"]
        run.caller(following, following)
        items = store.load(run.id, [f"0.{n}" for n in range(5)])
        assert [(item.path, item.index, item.input) for item in items] == [
            (f"0.{n}", n, f"0@@0.{n}") for n in range(3)
        ]  # fmt: skip
        assert {(item.step, item.role, item.status) for item in items} == {("each", Role.ITEM.value, Status.QUEUED)}
        assert (run.record("0").next, run.header.live) == (3, 3)

    def test_a_shut_block_starts_no_further_items(self, store: Store) -> None:
        """Those never begun count as finished, so that the last of the others brings the join about."""
        run = Begun(store, a_record("0", status=Status.OPEN, left=5, total=5, next=2), a_record("0.0"), a_record("0.1"))
        join = Set("0", {"status": Status.QUEUED, "phase": Phase.JOIN})
        first, second = (run.claim(path).record.token for path in ("0.0", "0.1"))
        down = Down("0", join, {"type": "progress"})
        run.commit("0.0", first, Set("0.0", {"status": Status.FAILED}), Shut("0"), down)
        block = run.record("0")
        assert (block.left, block.next, block.skipped, block.status) == (1, 5, 3, Status.OPEN)
        answer = run.caller(Next("0", a_record("0.0"), "x"))
        assert answer.dispatches == ()
        run.commit("0.1", second, Set("0.1", {"status": Status.SUCCESS}), Shut("0"), down)
        assert run.record("0").status == Status.QUEUED
        assert [(e["completed"], e["total"]) for e in run.told("progress")] == [(1, 5), (2, 5)]

    def test_an_event_about_a_block_gets_its_counts_and_changes_none(self, store: Store) -> None:
        """Items that were never begun are not completed."""
        block = a_record("0", status=Status.OPEN, left=3, total=9, next=5, skipped=4)
        run = Begun(store, block)
        seen = run.record("0")
        run.caller(Tell("0", {"type": "progress", "text": "grün"}))
        assert run.told("progress") == [{"type": "progress", "text": "grün", "completed": 2, "total": 9}]
        assert run.record("0") == seen

    def test_the_header_is_patched_and_a_first_word_stands(self, store: Store) -> None:
        """Fields of the header are set; with `unless` only if that field is empty or 0 after the operations before."""
        run = Begun(store, a_record("0"))
        run.caller(Run({"failure": "first", "tripwire": True}, unless="failure"))
        run.caller(Run({"failure": "second", "tripwire": False}, unless="failure"))
        assert (run.header.failure, run.header.tripwire) == ("first", True)
        run.caller(Run({"failure": "third"}))
        assert run.header.failure == "third"
        run.caller(Run({"outcome": "early"}, unless="live"))
        assert run.header.outcome == ""
        run.caller(Set("0", {"status": Status.SUSPENDED}), Run({"outcome": "late"}, unless="live"))
        assert run.header.outcome == "late"

    def test_the_header_is_stamped_as_its_status_says(self, store: Store) -> None:
        """A run begins once, and ends when it has ended for good, until somebody lets it go on."""
        run = Begun(store, a_record("0", status=Status.OPEN))
        begun = run.header.started_at
        assert run.header.created_at <= begun <= run.header.updated_at
        self.advance(store, 2)
        run.caller(Run({"status": RunState.SUSPENDED}))
        assert (run.header.started_at, run.header.ended_at) == (begun, 0)
        run.caller(Run({"status": RunState.RUNNING}))
        run.caller(Run({"status": RunState.FAILED}))
        assert run.header.started_at == begun
        assert run.header.ended_at == run.header.updated_at > begun
        run.caller(Run({"status": RunState.RUNNING, "life": 1}))
        assert (run.header.started_at, run.header.ended_at, run.header.life) == (begun, 0, 1)
