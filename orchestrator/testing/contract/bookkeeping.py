"""Counting, numbering and stamping by a commit, and the effect of the operations on blocks and headers."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.ports import Store
from orchestrator.rules.change import (
    CancelPendingItems,
    Change,
    CountDown,
    CreateActivation,
    EmitProgress,
    LeaseGuard,
    StartNextItem,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.model import AWAITING, ENDED, ActivationFields, ActivationStatus, Phase, Role, StoredStatus
from orchestrator.rules.transitions import TABLE
from orchestrator.testing.contract.kit import LEASE, LONG, Conditions, StartedRun, an_activation, ops_to_create


class Bookkeeping(Conditions):
    """Counting, numbering and stamping by a commit, and the effect of the operations on blocks and headers."""

    def test_commits_number_the_run(self, store: Store) -> None:
        """Each one, and each claim, counts once; a repeat and a refusal do not."""
        run = StartedRun(store, an_activation("0"))
        count = run.header.commits
        token = run.claim("0").activation.lease_token
        assert run.header.commits == count + 1
        run.refused_claim("0", run.activation("0").seq)
        run.refused_commit("0", "other", UpdateRun({}))
        assert run.header.commits == count + 1
        ops = (UpdateActivation("0", {"status": ActivationStatus.SUCCESS}), CreateActivation(an_activation("1")))
        change = Change(LeaseGuard("0", token), ops)
        store.commit(run.id, change)
        store.commit(run.id, change)
        assert run.header.commits == count + 2
        assert run.activation("1").seq == count + 2

    def test_an_activation_is_stamped_as_its_status_says(self, store: Store) -> None:
        """The stamps are its lease, its moments, its deadline, and the number under which a message may ask for it."""
        statuses = [
            status for status in TABLE[ActivationStatus.RUNNING].may_follow if status is not ActivationStatus.RUNNING
        ]
        run = StartedRun(store, *(an_activation(f"{n}") for n in range(len(statuses))))
        for n in range(len(statuses)):
            run.claim(f"{n}", lease=LONG)
        run.commit_request(*(UpdateActivation(f"{n}", {"abandoned_attempts": 2}) for n in range(len(statuses))))
        before = {activation.path: activation for activation in store.load(run.id)}
        self.advance(store, 2)
        start = store.now()
        run.commit_request(
            *(UpdateActivation(f"{n}", {"status": status}, delay=LONG) for n, status in enumerate(statuses)),
            redelivery_delay=2 * LONG,
        )
        number, updated = run.header.commits, run.header.updated_at
        awaited, later = (
            {ActivationStatus.SUSPENDED, ActivationStatus.WAITING},
            {ActivationStatus.RETRYING, ActivationStatus.SLEEPING, ActivationStatus.WAITING, ActivationStatus.SENT},
        )
        for n, status in enumerate(statuses):
            activation, old = run.activation(f"{n}"), before[f"{n}"]
            assert (activation.status, activation.lease_token) == (status, "")
            assert (activation.started_at, activation.first_seq) == (old.started_at, old.first_seq)
            goes_on = status in {
                ActivationStatus.QUEUED,
                ActivationStatus.RETRYING,
                ActivationStatus.SLEEPING,
                *AWAITING,
            }
            assert activation.seq == (number if goes_on else old.seq)
            assert activation.queued_at == (updated if status is ActivationStatus.QUEUED else old.queued_at)
            assert activation.suspended_at == (updated if status in awaited else 0)
            assert activation.ended_at == (updated if status in ENDED else 0)
            wait = 2 * LONG if status is ActivationStatus.QUEUED else LONG if status in later else 0
            assert activation.deadline == (updated + wait if wait else 0)
            assert activation.sent_at == (updated if status is ActivationStatus.SENT else 0)
            # A task that was sent may be lost again and again, each time after it was sent.
            assert activation.abandoned_attempts == (
                2 if status in (ActivationStatus.QUEUED, ActivationStatus.SENT) else 0
            )
        assert start <= updated <= store.now()

    def test_an_activation_that_begins_paused_or_ended_is_stamped(self, store: Store) -> None:
        """A paused one has not started; a skipped one starts as it ends."""
        run = StartedRun(
            store,
            an_activation("0", status=ActivationStatus.PAUSED),
            an_activation("1", status=ActivationStatus.SKIPPED),
        )
        number, updated = run.header.commits, run.header.updated_at
        paused, skipped = run.activation("0"), run.activation("1")
        assert (paused.seq, paused.deadline, paused.started_at, paused.suspended_at) == (number, 0, 0, 0)
        assert (skipped.seq, skipped.deadline, skipped.started_at, skipped.ended_at) == (0, 0, updated, updated)

    def test_an_activation_that_goes_on_without_having_run_has_no_start(self, store: Store) -> None:
        """Its first run is stamped once, and its number in the order of first runs too."""
        run = StartedRun(store, an_activation("0"), an_activation("1", status=ActivationStatus.SUSPENDED))
        assert (run.activation("0").started_at, run.activation("0").first_seq, run.activation("0").resumed_at) == (
            0,
            0,
            0,
        )
        run.commit_request(UpdateActivation("1", {"status": ActivationStatus.QUEUED}))
        assert (run.activation("1").resumed_at, run.activation("1").first_seq) == (run.header.updated_at, 0)
        run.claim("1")
        assert run.activation("1").first_seq == run.header.commits
        assert run.activation("1").started_at == run.header.updated_at
        assert run.activation("0").first_seq == 0

    def test_what_goes_on_later_is_dispatched_with_its_delay(self, store: Store) -> None:
        """A delay of at least one ms tells the runtime that the dispatch is not for now."""
        run = StartedRun(store)
        answer = run.commit_request(
            CreateActivation(an_activation("0", status=ActivationStatus.SLEEPING, route='{"name":"a"}'), delay=LONG),
            CreateActivation(an_activation("1", status=ActivationStatus.RETRYING)),
            *ops_to_create(an_activation("2", status=ActivationStatus.WAITING), LONG),
            CreateActivation(an_activation("3")),
        )
        number = answer.header.commits
        assert [(d.path, d.seq, d.route, d.delay) for d in answer.dispatches] == [
            ("0", number, '{"name":"a"}', LONG), ("1", number, "", 1), ("3", number, "", 0),
        ]  # fmt: skip

    def test_the_header_counts_activations_by_status(self, store: Store) -> None:
        """The counts hold through every way in and out. The run's own activation never counts."""
        run = StartedRun(
            store,
            an_activation("0"),
            an_activation("1"),
            an_activation("2"),
            an_activation("3"),
            an_activation("4", status=ActivationStatus.OPEN),
        )
        assert run.counts() == (4, 0, 0, 0)
        run.commit(
            "0", run.claim("0").activation.lease_token, UpdateActivation("0", {"status": ActivationStatus.SUSPENDED})
        )
        run.commit(
            "1", run.claim("1").activation.lease_token, UpdateActivation("1", {"status": ActivationStatus.WAITING})
        )
        run.commit(
            "2",
            run.claim("2").activation.lease_token,
            UpdateActivation("2", {"status": ActivationStatus.RETRYING}, delay=LONG),
        )
        assert run.counts() == (2, 1, 1, 0)
        run.commit_request(
            CreateActivation(an_activation("5", status=ActivationStatus.PAUSED)), UpdateActivation("3", {}, delay=LONG)
        )
        assert run.counts() == (2, 1, 1, 1)
        run.commit_request(
            UpdateActivation("0", {"status": ActivationStatus.QUEUED}),
            CreateActivation(an_activation("1", status=ActivationStatus.SUCCESS)),
        )
        assert run.counts() == (3, 0, 0, 1)
        run.commit_request(UpdateActivation("5", {"status": ActivationStatus.QUEUED}))
        assert run.counts() == (4, 0, 0, 0)
        run.commit(
            "5", run.claim("5").activation.lease_token, UpdateActivation("5", {"status": ActivationStatus.FAILED})
        )
        assert run.counts() == (3, 0, 0, 0)
        run.commit_request(drop=("0", "2", "3"))
        assert run.counts() == (0, 0, 0, 0)
        assert [activation.path for activation in store.load(run.id)] == ["", "1", "4", "5"]

    def test_dropped_activations_go_away_with_their_timers(self, store: Store) -> None:
        """An activation that was dropped and put again in the same commit is a fresh one."""
        run = StartedRun(
            store, an_activation("0", attempt=3, label="old"), an_activation("1", status=ActivationStatus.SUSPENDED)
        )
        run.claim("0", lease=LONG)
        run.commit_request(CreateActivation(an_activation("0")), drop=("0", "1", "7"))  # it is live, but on its way out
        assert run.counts() == (1, 0, 0, 0)
        assert (run.activation("0").attempt, run.activation("0").label) == (0, "")
        run.commit_request(drop=("0",))
        self.advance(store, LEASE)
        assert run.due_timers() == []
        assert [activation.path for activation in store.load(run.id)] == [""]

    def test_the_last_child_brings_about_what_follows(self, store: Store) -> None:
        """A counter goes down with each child. Only the commit that takes it to zero claims the join."""
        block = an_activation("0", status=ActivationStatus.OPEN, pending_children=3, total=3, next_item=3)
        run = StartedRun(store, block, *(an_activation(f"0.{n}") for n in range(3)))
        tokens = [run.claim(f"0.{n}").activation.lease_token for n in range(3)]
        join: ActivationFields = {"status": ActivationStatus.QUEUED, "phase": Phase.JOIN}
        for n in (2, 0):
            down = CountDown("0", UpdateActivation("0", join, claim=f"join {n}"), {"type": "progress", "n": n})
            answer = run.commit(
                f"0.{n}", tokens[n], UpdateActivation(f"0.{n}", {"status": ActivationStatus.SUCCESS}), down
            )
            assert (answer.claimed, answer.dispatches) == (None, ())
        assert (run.activation("0").pending_children, run.activation("0").status) == (1, ActivationStatus.OPEN)
        down = CountDown("0", UpdateActivation("0", join, claim="join 1"), {"type": "progress", "n": 1})
        answer = run.commit("0.1", tokens[1], UpdateActivation("0.1", {"status": ActivationStatus.SUCCESS}), down)
        assert answer.claimed is not None
        assert answer.claimed.activation == run.activation("0")
        assert (answer.claimed.activation.lease_token, answer.claimed.activation.phase) == ("join 1", Phase.JOIN)
        assert answer.header.live == 1
        counted = [(event["n"], event["completed"], event["total"]) for event in run.event_docs("progress")]
        assert counted == [(2, 1, 3), (0, 2, 3), (1, 3, 3)]

    def test_the_join_is_queued_where_the_last_child_does_not_claim_it(self, store: Store) -> None:
        """Without a token the join is a dispatch like any other."""
        run = StartedRun(
            store, an_activation("0", status=ActivationStatus.OPEN, pending_children=1, total=1), an_activation("0.0")
        )
        token = run.claim("0.0").activation.lease_token
        down = CountDown("0", UpdateActivation("0", {"status": ActivationStatus.QUEUED, "phase": Phase.JOIN}))
        answer = run.commit("0.0", token, UpdateActivation("0.0", {"status": ActivationStatus.SUCCESS}), down)
        assert [d.path for d in answer.dispatches] == ["0"]
        assert run.claim("0").activation.phase == Phase.JOIN

    def test_a_block_starts_its_items_one_by_one(self, store: Store) -> None:
        """Each `StartNextItem` creates the template at the counter's next value, below the total, and its own input."""
        block = an_activation("0", status=ActivationStatus.OPEN, pending_children=3, total=3, concurrency=2)
        run = StartedRun(store, block)
        following = StartNextItem(
            "0", replace(an_activation("0.0", role=Role.ITEM.value, route='{"name":"each"}'), step="each"), "0@@0"
        )
        answer = run.commit_request(following, following)
        assert [d.path for d in answer.dispatches] == ["0.0", "0.1"]
        run.commit_request(following, following)
        items = store.load(run.id, [f"0.{n}" for n in range(5)])
        assert [(item.path, item.index, item.input) for item in items] == [
            (f"0.{n}", n, f"0@@0.{n}") for n in range(3)
        ]  # fmt: skip
        assert {(item.step, item.role, item.status) for item in items} == {
            ("each", Role.ITEM.value, ActivationStatus.QUEUED)
        }
        assert (run.activation("0").next_item, run.header.live) == (3, 3)

    def test_a_shut_block_starts_no_further_items(self, store: Store) -> None:
        """Those never begun count as finished, so that the last of the others brings the join about."""
        run = StartedRun(
            store,
            an_activation("0", status=ActivationStatus.OPEN, pending_children=5, total=5, next_item=2),
            an_activation("0.0"),
            an_activation("0.1"),
        )
        join = UpdateActivation("0", {"status": ActivationStatus.QUEUED, "phase": Phase.JOIN})
        first, second = (run.claim(path).activation.lease_token for path in ("0.0", "0.1"))
        down = CountDown("0", join, {"type": "progress"})
        run.commit(
            "0.0", first, UpdateActivation("0.0", {"status": ActivationStatus.FAILED}), CancelPendingItems("0"), down
        )
        block = run.activation("0")
        assert (block.pending_children, block.next_item, block.never_started, block.status) == (
            1,
            5,
            3,
            ActivationStatus.OPEN,
        )
        answer = run.commit_request(StartNextItem("0", an_activation("0.0"), "x"))
        assert answer.dispatches == ()
        run.commit(
            "0.1", second, UpdateActivation("0.1", {"status": ActivationStatus.SUCCESS}), CancelPendingItems("0"), down
        )
        assert run.activation("0").status == ActivationStatus.QUEUED
        assert [(e["completed"], e["total"]) for e in run.event_docs("progress")] == [(1, 5), (2, 5)]

    def test_an_event_about_a_block_gets_its_counts_and_changes_none(self, store: Store) -> None:
        """Items that were never begun are not completed."""
        block = an_activation(
            "0", status=ActivationStatus.OPEN, pending_children=3, total=9, next_item=5, never_started=4
        )
        run = StartedRun(store, block)
        seen = run.activation("0")
        run.commit_request(EmitProgress("0", {"type": "progress", "text": "grün"}))
        assert run.event_docs("progress") == [{"type": "progress", "text": "grün", "completed": 2, "total": 9}]
        assert run.activation("0") == seen

    def test_the_header_is_patched_and_a_first_word_stands(self, store: Store) -> None:
        """Fields of the header are set; with `unless` only if that field is empty or 0 after the operations before."""
        run = StartedRun(store, an_activation("0"))
        run.commit_request(UpdateRun({"failure": "first", "tripwire": True}, unless="failure"))
        run.commit_request(UpdateRun({"failure": "second", "tripwire": False}, unless="failure"))
        assert (run.header.failure, run.header.tripwire) == ("first", True)
        run.commit_request(UpdateRun({"failure": "third"}))
        assert run.header.failure == "third"
        run.commit_request(UpdateRun({"outcome": "early"}, unless="live"))
        assert run.header.outcome == ""
        run.commit_request(
            UpdateActivation("0", {"status": ActivationStatus.SUSPENDED}), UpdateRun({"outcome": "late"}, unless="live")
        )
        assert run.header.outcome == "late"

    def test_the_header_is_stamped_as_its_status_says(self, store: Store) -> None:
        """A run starts once. It has an end while its status is final."""
        run = StartedRun(store, an_activation("0", status=ActivationStatus.OPEN))
        begun = run.header.started_at
        assert run.header.created_at <= begun <= run.header.updated_at
        self.advance(store, 2)
        run.commit_request(UpdateRun({"status": StoredStatus.SUSPENDED}))
        assert (run.header.started_at, run.header.ended_at) == (begun, 0)
        run.commit_request(UpdateRun({"status": StoredStatus.RUNNING}))
        run.commit_request(UpdateRun({"status": StoredStatus.FAILED}))
        assert run.header.started_at == begun
        assert run.header.ended_at == run.header.updated_at > begun
        run.commit_request(UpdateRun({"status": StoredStatus.RUNNING, "generation": 1}))
        assert (run.header.started_at, run.header.ended_at, run.header.generation) == (begun, 0, 1)
