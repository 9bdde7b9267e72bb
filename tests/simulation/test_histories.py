"""Histories that a simpler protocol loses, each told once: who does what in which order, and what must come of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.ports import LeaseRef
from orchestrator.rules.apply import BUSY, EARLY, ENDED_RUN, LOST, MOVED, STALE
from orchestrator.rules.change import Claimed, Committed, Refused
from orchestrator.rules.mailbox import MAILBOX_CHANGED
from orchestrator.rules.model import ActivationStatus, StoredStatus
from orchestrator.rules.timers import LONG, on_deadline
from tests.simulation import acts
from tests.simulation.acts import EVENT, RUN, foreach, graph, loop, nested, parallel, sleep, step, wait
from tests.simulation.play import Play

JOIN = graph(parallel("q", parallel("n", step("a", suspends=1), step("b")), step("c")), step("f"))
A, B, C, F, N, Q = "0.0.0", "0.0.1", "0.1", "1", "0.0", "0"


def reason(answer: Committed | Refused) -> str:
    assert isinstance(answer, Refused), answer
    return answer.reason


# --- joins ----------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_after_its_last_childs_commit_leaves_no_join_undone() -> None:
    """All are done and the worker is killed at once: the join is claimed by then, and its lease brings it back."""
    play = Play(graph(parallel("q", parallel("n", step("a"), step("b")), step("c")), step("f")))
    play.run(A)
    play.run(C)
    claimed = play.run(B)
    assert claimed is not None  # and then the worker is killed
    assert (claimed.activation.path, claimed.activation.phase, play.header.live) == (N, "join", 1)
    play.lease_ends(claimed)
    assert play.status(N) == [ActivationStatus.QUEUED]
    assert play.through().status == StoredStatus.SUCCESS


def test_a_worker_that_dies_between_two_levels_of_joins_leaves_none_undone() -> None:
    """The crash comes one level up: N has been joined, Q has not."""
    play = Play(graph(parallel("q", parallel("n", step("a"), step("b")), step("c")), step("f")))
    for path in (C, A):
        play.run(path)
    inner = play.run(B)
    assert inner is not None
    outer = play.end(inner)
    assert outer is not None
    assert (outer.activation.path, play.activation(Q).pending_children) == (Q, 0)
    play.lease_ends(outer)
    assert play.through().status == StoredStatus.SUCCESS


def test_a_resume_and_the_end_of_a_sibling_cannot_miss_each_other() -> None:
    """C ends while a user resumes A: whichever comes first, the run is not suspended in name only."""
    for first in ("resume", "end"):
        play = Play(JOIN)
        play.run(A)
        play.run(B)
        ending = play.outcome(play.claim(C))
        settling = None
        if first == "resume":
            play.resume(A)
            play.send(ending)
        else:
            answer = play.send(ending)
            assert isinstance(answer, Committed)
            settling = answer.claimed
            assert settling is not None
            play.resume(A)
            assert reason(play.send(play.outcome(settling))) == LOST  # the settling has been taken away
        assert (play.header.status, play.header.live, play.header.suspended) == (StoredStatus.RUNNING, 1, 0)
        assert play.through().status == StoredStatus.SUCCESS


def test_suspension_is_not_reported_upward() -> None:
    """A suspended child is an unfinished one: the blocks around it stay open, whatever their siblings do."""
    play = Play(JOIN)
    for path in (A, B, C):
        play.run(path)
    assert play.status(N, Q) == [ActivationStatus.OPEN, ActivationStatus.OPEN]
    assert [play.activation(path).pending_children for path in (N, Q)] == [1, 1]


# --- windows --------------------------------------------------------------------------------------------------


def test_two_items_that_end_together_start_two_others() -> None:
    """Neither starts the item that the other has started, although both were decided before either was committed."""
    play = Play(graph(foreach("each", 4, 2, step("item"))))
    play.run("0")
    outcomes = [play.outcome(play.claim(path)) for path in ("0.0", "0.1")]
    for change in outcomes:
        play.send(change)
    assert play.status("0.0", "0.1", "0.2", "0.3") == [
        ActivationStatus.SUCCESS,
        ActivationStatus.SUCCESS,
        ActivationStatus.QUEUED,
        ActivationStatus.QUEUED,
    ]
    assert play.activation("0").pending_children == 2
    assert play.through().status == StoredStatus.SUCCESS
    assert play.store.values(RUN, [play.header.output])[play.header.output].count("t") == 4


def test_a_worker_that_dies_after_an_items_commit_has_started_the_next() -> None:
    """The next item is in the same commit: killed before it publishes, the timer tells of it."""
    play = Play(graph(foreach("each", 3, 1, step("item"))))
    play.run("0")
    play.run("0.0")  # and then the worker is killed: nobody hears of 0.1
    assert play.status("0.1") == [ActivationStatus.QUEUED]
    play.pass_time()
    assert play.tick() == ["0.1"]
    assert play.through().status == StoredStatus.SUCCESS


def test_an_item_that_fails_closes_the_window_in_its_own_commit() -> None:
    """No item starts after it, and the join waits for those that run."""
    play = Play(graph(foreach("each", 5, 2, step("item", bad=frozenset({0})))))
    play.run("0")
    other = play.claim("0.1")
    play.run("0.0")
    assert (
        play.activation("0").next_item,
        play.activation("0").pending_children,
        play.activation("0").never_started,
    ) == (5, 1, 3)
    claimed = play.end(other)
    assert claimed is not None
    assert (claimed.activation.path, claimed.activation.phase) == ("0", "join")
    play.go_on(claimed)
    assert play.header.status == StoredStatus.FAILED
    assert [activation.path for activation in play.store.load(RUN)] == ["", "0", "0.0", "0.1"]


# --- zombies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 1])
def test_a_zombie_that_fails_late_takes_nothing_from_the_owner(retries: int) -> None:
    """Its lease was over and another holds the step: neither the failure nor the retry of its attempt is written."""
    play = Play(graph(step("a", fails=1, retries=retries)))
    zombie = play.claim("0")
    play.lease_ends(zombie)
    owner = play.claim("0")
    assert reason(play.send(play.outcome(zombie))) == LOST
    assert play.activation("0") == owner.activation
    play.go_on(owner)
    assert play.activation("0").attempt == retries
    assert play.through().status == (StoredStatus.SUCCESS if retries else StoredStatus.FAILED)


def test_a_takeover_has_a_number_of_its_own() -> None:
    """The first message is stale afterwards, so that it cannot bring a third worker in."""
    play = Play(graph(step("a")))
    first = play.claim("0")
    assert play.refused("0", first.activation.seq) == BUSY
    play.lease_ends(first)
    assert play.refused("0", first.activation.seq) == STALE
    assert play.claim("0").activation.seq > first.activation.seq


def test_a_zombie_of_an_earlier_iteration_does_not_write_into_the_present_one() -> None:
    """The loop has created its body afresh; what was claimed in the first iteration fits nothing any more."""
    play = Play(graph(loop("again", 3, nested("in", step("a"), step("b")))))
    zombie = play.claim("0.0.0")
    late = play.outcome(zombie)
    play.lease_ends(zombie)
    play.run("0.0.0")
    play.go_on(play.claim("0.0.1"))
    assert (play.activation("0.0.0").visit, play.activation("0.0.0").status) == ("2", ActivationStatus.QUEUED)
    assert reason(play.send(late)) == LOST
    owner = play.claim("0.0.0")
    assert reason(play.send(late)) == LOST
    assert play.activation("0.0.0") == owner.activation
    assert play.refused("0.0.0", zombie.activation.seq) == STALE


def test_a_message_of_an_earlier_iteration_is_stale() -> None:
    """The body's activation stands at the same path with another number."""
    play = Play(graph(loop("again", 2, step("a"))))
    seq = play.activation("0.0").seq
    play.go_on(play.claim("0.0"))
    assert play.activation("0.0").visit == "2"
    assert play.refused("0.0", seq) == STALE


# --- repeats --------------------------------------------------------------------------------------------------


def test_a_commit_that_is_sent_again_is_not_taken_for_another_workers() -> None:
    """The client resends because the answer came late: the rightful owner gets the first answer and goes on with it."""
    play = Play(graph(parallel("q", step("a"), step("b")), step("f")))
    play.run("0.0")
    change = play.outcome(play.claim("0.1"))
    first = play.store.commit(RUN, change)
    commits = play.header.commits
    assert play.store.commit(RUN, change) == first
    assert isinstance(first, Committed)
    assert first.claimed is not None
    assert play.header.commits == commits
    play.go_on(first.claimed)
    assert play.through().status == StoredStatus.SUCCESS


def test_a_claim_that_is_sent_again_does_not_meet_itself() -> None:
    """The live lease that it finds is its own."""
    play = Play(graph(step("a")))
    ask = play.ask("0")
    assert play.store.claim(ask) == play.store.claim(ask)
    assert play.refused("0") == BUSY


def test_a_resume_that_is_sent_again_is_not_refused() -> None:
    """Not even when a scheduler has moved a timer on in between."""
    play = Play(graph(parallel("q", step("a", suspends=1), step("b"))))
    play.run("0.0")
    change = acts.resume_change(play.header, play.activation("0.0"), play.fresh)
    first = play.store.commit(RUN, change)
    play.clock.advance(acts.REDELIVERY_DELAY / 1000)
    assert sorted(play.tick()) == ["0.0", "0.1"]
    again = play.store.commit(RUN, change)
    assert isinstance(first, Committed)
    assert isinstance(again, Committed)
    assert again.dispatches == first.dispatches


def test_a_late_repeat_is_not_handed_a_claim_that_another_holds() -> None:
    """The worker stalls, its successor's lease ends: the repeat must not lead to two workers on one token."""
    play = Play(graph(parallel("q", step("a")), step("f")))
    change = play.outcome(play.claim("0.0"))
    first = play.store.commit(RUN, change)
    assert isinstance(first, Committed)
    assert first.claimed is not None
    play.lease_ends(first.claimed)
    owner = play.claim("0")
    again = play.store.commit(RUN, change)
    assert isinstance(again, Committed)
    assert again.claimed is None
    play.go_on(owner)
    assert play.through().status == StoredStatus.SUCCESS


# --- poison ---------------------------------------------------------------------------------------------------


def test_a_step_that_loses_its_worker_three_times_fails_once() -> None:
    """Apart from its retries: they are not touched."""
    play = Play(graph(step("a", retries=5)))
    for lost in (1, 2, 3):
        play.lease_ends(play.claim("0"))
        assert (play.activation("0").abandoned_attempts, play.activation("0").restarted) == (lost, True)
    play.go_on(play.claim("0"))
    assert (play.header.status, play.activation("0").status, play.activation("0").attempt) == (
        StoredStatus.FAILED,
        ActivationStatus.FAILED,
        0,
    )


def test_a_commit_clears_the_count_of_losses() -> None:
    """Two losses, a retry, two more losses: the step still runs."""
    play = Play(graph(step("a", fails=1, retries=1)))
    for _ in range(2):
        play.lease_ends(play.claim("0"))
    play.run("0")
    assert (play.activation("0").status, play.activation("0").abandoned_attempts) == (ActivationStatus.RETRYING, 0)
    play.pass_time()
    play.tick()
    for _ in range(2):
        play.lease_ends(play.claim("0"))
    assert play.through().status == StoredStatus.SUCCESS


# --- the scheduler -----------------------------------------------------------------------------------------------


def test_a_scheduler_that_dies_after_its_commit_has_lost_nothing() -> None:
    """The timer was moved on, not taken: the next sweep finds it."""
    play = Play(graph(step("a")))
    for _ in range(3):
        play.pass_time()
        assert play.tick() == ["0"]  # and then the scheduler is killed before it publishes
        assert play.tick() == []
    assert play.activation("0").seq == play.told[0].seq  # publishing again takes no new number
    assert play.through().status == StoredStatus.SUCCESS


def test_of_two_schedulers_one_moves_a_timer_on() -> None:
    """Both have read it; the second finds that it has moved."""
    play = Play(graph(step("a")))
    play.pass_time()
    (due,) = play.store.due_timers(acts.NAMESPACE)
    changes = [on_deadline(due.header, due.activation, acts.REDELIVERY_DELAY) for _ in range(2)]
    answers = [play.send(todo.change) for todo in changes if todo]
    assert isinstance(answers[0], Committed)
    assert reason(answers[1]) == MOVED


def test_a_heartbeat_saves_a_claim_from_a_scheduler_that_has_read_it() -> None:
    """The moment as it was read is part of the guard."""
    play = Play(graph(step("a")))
    claimed = play.claim("0")
    play.clock.advance(acts.LEASE / 1000)
    (due,) = play.store.due_timers(acts.NAMESPACE)
    todo = on_deadline(due.header, due.activation, acts.REDELIVERY_DELAY)
    assert play.store.renew([LeaseRef(RUN, "0", claimed.activation.lease_token)], acts.LEASE) == {}
    assert todo is not None
    assert reason(play.send(todo.change)) == MOVED
    assert play.end(claimed) is not None


def test_timers_of_steps_that_no_worker_claims_do_not_stand_at_the_head_for_ever() -> None:
    """Moved on each time, they let those behind them through; their pauses grow."""
    play = Play(graph(parallel("q", *(step(f"s{n}") for n in range(6)))))
    play.pass_time()
    seen = []
    for _ in range(6):
        (due,) = play.store.due_timers(acts.NAMESPACE, limit=1)
        todo = on_deadline(due.header, due.activation, acts.REDELIVERY_DELAY)
        assert todo is not None
        play.send(todo.change)
        seen.append(due.activation.path)
    assert sorted(seen) == [f"0.{n}" for n in range(6)]
    pauses = []
    for _ in range(4):
        play.pass_time()
        before = play.clock.now()
        play.tick()
        pauses.append(play.activation("0.0").deadline - before)
    assert pauses == sorted(pauses)
    assert pauses[0] < pauses[-1]


def test_a_queue_that_has_not_been_short_gets_no_second_message() -> None:
    """A backlog must not make more backlog: the timer moves on, and no message is sent."""
    play = Play(graph(step("a")))
    play.pass_time()
    (due,) = play.store.due_timers(acts.NAMESPACE)
    todo = on_deadline(due.header, due.activation, acts.REDELIVERY_DELAY, queue=LONG)
    assert todo is not None
    answer = play.send(todo.change)
    assert isinstance(answer, Committed)
    assert (answer.dispatches, todo.again, play.store.due_timers(acts.NAMESPACE)) == ((), (), [])


# --- messages -------------------------------------------------------------------------------------------------


def test_an_old_message_does_not_skip_the_backoff() -> None:
    """The first message is stale, and the timer's own message is early before the moment."""
    play = Play(graph(step("a", fails=1, retries=1)))
    seq = play.activation("0").seq
    play.run("0")
    assert play.refused("0", seq) == STALE
    assert play.refused("0", play.told[-1].seq) == EARLY
    play.pass_time()
    assert play.claim("0", play.told[-1].seq).activation.attempt == 1


def test_a_late_heartbeat_revives_no_timer() -> None:
    """The activation has been suspended since: the renewal is refused and leaves nothing behind."""
    play = Play(graph(step("a", suspends=1)))
    claimed = play.claim("0")
    play.end(claimed)
    lease = LeaseRef(RUN, "0", claimed.activation.lease_token)
    assert play.store.renew([lease], acts.LEASE) == {lease: LOST}
    assert play.activation("0").deadline == 0


def test_a_duplicate_finds_a_live_lease_and_goes() -> None:
    """Delivered twice, run once."""
    play = Play(graph(step("a")))
    claimed = play.claim("0")
    assert play.refused("0", claimed.activation.seq) == BUSY
    play.go_on(claimed)
    assert play.refused("0", claimed.activation.seq) == ENDED_RUN


# --- ends -----------------------------------------------------------------------------------------------------


def test_a_cancel_writes_the_header_and_nothing_that_slips_in_moves() -> None:
    """Commits, claims, resumes and the settling are refused; what is due is dropped."""
    play = Play(graph(parallel("q", step("a", suspends=1), step("b"), step("c"))))
    play.run("0.0")
    late = play.outcome(play.claim("0.1"))
    before = [replace(activation, last_lease_token="") for activation in play.store.load(RUN) if activation.path]
    assert isinstance(play.send(acts.cancel_change(play.header, play.fresh)), Committed)
    assert [
        replace(activation, last_lease_token="") for activation in play.store.load(RUN) if activation.path
    ] == before
    assert reason(play.send(late)) == ENDED_RUN
    assert play.refused("0.2") == ENDED_RUN
    assert reason(play.resume("0.0")) == ENDED_RUN
    play.clock.advance(10 * acts.LEASE / 1000)
    assert play.tick() == []
    assert play.header.status == StoredStatus.CANCELED


def test_a_cancel_beats_a_settling_that_is_on_its_way() -> None:
    """The worker that was about to end the run is refused."""
    play = Play(graph(step("a")))
    settling = play.run("0")
    assert settling is not None
    play.send(acts.cancel_change(play.header, play.fresh))
    assert reason(play.send(play.outcome(settling))) == ENDED_RUN
    assert (play.header.status, play.header.settle_count) == (StoredStatus.CANCELED, 1)


def test_a_bail_claims_the_settling_at_once_and_closes_the_run() -> None:
    """Siblings at work and a resume come too late; a settling whose worker dies is taken over."""
    play = Play(graph(parallel("q", step("a", suspends=1), step("b", closes="bail"), step("c"))))
    play.run("0.0")
    late = play.outcome(play.claim("0.2"))
    settling = play.run("0.1")
    assert settling is not None
    assert (settling.activation.path, play.header.closed, play.header.live) == ("", True, 1)
    assert reason(play.send(late)) == ENDED_RUN
    assert reason(play.resume("0.0")) == ENDED_RUN
    play.lease_ends(settling)
    play.go_on(play.claim(""))
    assert play.header.status == StoredStatus.SUCCESS


def test_a_failure_outranks_a_suspension() -> None:
    """Decided when the run settles, whichever came first; where failures are allowed the run stays suspended."""
    for allowed, status in ((False, StoredStatus.FAILED), (True, StoredStatus.SUSPENDED)):
        for order in (("0.0", "0.1"), ("0.1", "0.0")):
            play = Play(graph(parallel("q", step("a", suspends=1), step("b", fails=1), allow_failure=allowed)))
            play.run(order[0])
            play.go_on(play.claim(order[1]))
            assert play.header.status == status


def test_each_settling_is_counted() -> None:
    """A user who started or resumed the run waits for the next one."""
    play = Play(graph(step("a", suspends=1), step("b", suspends=1)))
    for settle_count, path in ((1, "0"), (2, "1")):
        assert (play.through().status, play.header.settle_count) == (StoredStatus.SUSPENDED, settle_count)
        answer = play.resume(path)
        assert isinstance(answer, Committed)
        assert answer.header.settle_count == settle_count
    assert (play.through().status, play.header.settle_count) == (StoredStatus.SUCCESS, 3)


def test_one_of_two_resumes_of_a_step_wins() -> None:
    """Both have read it as suspended."""
    play = Play(graph(step("a", suspends=1)))
    play.through()
    both = [acts.resume_change(play.header, play.activation("0"), play.fresh) for _ in range(2)]
    assert isinstance(play.send(both[0]), Committed)
    assert reason(play.send(both[1])) == MOVED


# --- events ------------------------------------------------------------------------------------------------------


def test_an_event_and_a_wait_of_the_same_moment_cannot_miss_each_other() -> None:
    """The worker has read an empty mailbox, the user that nobody waits: the second to commit has to look again."""
    for first in ("wait", "send"):
        play = Play(graph(wait("w")))
        claimed = play.claim("0")
        listening = acts.changes(play.graph, play.store, claimed, play.fresh, entries=())[-1]
        sending = acts.send_change((), None, "v", play.fresh)
        assert isinstance(play.send(listening if first == "wait" else sending), Committed)
        assert reason(play.send(sending if first == "wait" else listening)) == MAILBOX_CHANGED
        entries = play.store.mail(RUN, EVENT)
        again = acts.send_change(entries, play.activation("0"), "v", play.fresh)
        if first == "send":
            again = acts.changes(play.graph, play.store, claimed, play.fresh, entries=entries)[-1]
        assert isinstance(play.send(again), Committed)
        assert play.through().status == StoredStatus.SUCCESS
        assert (play.header.output, play.store.mail(RUN, EVENT)) == ("v", [])


def test_a_wait_is_not_live_but_has_its_moment() -> None:
    """The run settles; when the time is over, the scheduler wakes it, and an event that comes later is kept."""
    play = Play(graph(wait("w", 60.0, step("late"))))
    assert (play.through().status, play.header.waiting) == (StoredStatus.SUSPENDED, 1)
    play.pass_time()
    assert play.tick() == ["0"]
    assert isinstance(play.send(acts.send_change(play.store.mail(RUN, EVENT), None, "v", play.fresh)), Committed)
    play.go_on(play.claim("0"))
    assert play.status("0", "0.0") == [ActivationStatus.OPEN, ActivationStatus.QUEUED]
    assert play.through().status == StoredStatus.SUCCESS


# --- visits, sleeps -------------------------------------------------------------------------------------------


def test_a_join_does_not_see_an_earlier_iterations_children() -> None:
    """Activations of an older visit are left where they are, and are invisible."""
    play = Play(graph(loop("again", 2, foreach("each", 2, 2, step("item")))))
    play.go_on(play.claim("0.0"))
    for path in ("0.0.0", "0.0.1"):
        play.go_on(play.claim(path))
    assert play.activation("0.0").visit == "2"
    play.run("0.0.0")
    assert play.activation("0.0").pending_children == 1
    assert [play.activation(path).visit for path in ("0.0.0", "0.0.1")] == ["2", "2"]
    assert play.through().status == StoredStatus.SUCCESS


def test_a_sleep_is_ended_by_a_worker_that_the_scheduler_tells() -> None:
    """The scheduler only puts it in the queue: it has no graph."""
    play = Play(graph(sleep("nap", 60.0), step("a")))
    assert (play.header.live, play.tick()) == (1, [])
    play.pass_time()
    assert play.tick() == ["0"]
    assert play.status("0") == [ActivationStatus.QUEUED]
    claimed: Claimed = play.claim("0")
    assert claimed.activation.phase == "sleep_over"
    play.end(claimed)
    assert play.status("0", "1") == [ActivationStatus.SUCCESS, ActivationStatus.QUEUED]
