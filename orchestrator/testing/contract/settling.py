"""A run settles, is closed, and goes on; and others wait for it."""

from __future__ import annotations

import threading
from functools import partial

from orchestrator.host import new_token
from orchestrator.ports import LeaseRef, Store
from orchestrator.rules.apply import BUSY, ENDED_RUN, LOST, MOVED
from orchestrator.rules.change import (
    Change,
    Committed,
    Precondition,
    Refused,
    RequestGuard,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.model import ActivationFields, ActivationStatus, Phase, StoredStatus
from orchestrator.testing.contract.kit import (
    ACTIVE,
    LEASE,
    LONG,
    Conditions,
    StartedRun,
    an_activation,
    committed_of,
    each,
    together,
)


class Settling(Conditions):
    """A run settles, is closed, and goes on; and others wait for it."""

    def test_the_commit_that_ends_the_last_live_activation_claims_the_settling(self, store: Store) -> None:
        """Only the commit that takes the live count to zero claims the run's own activation."""
        run = StartedRun(store, an_activation("0"), an_activation("1"), root=ActivationStatus.OPEN)
        first, second = (run.claim(path).activation.lease_token for path in ("0", "1"))
        answer = run.commit(
            "0", first, UpdateActivation("0", {"status": ActivationStatus.SUSPENDED}), settle_token="settle 0"
        )
        assert answer.claimed is None
        answer = run.commit(
            "1",
            second,
            UpdateActivation("1", {"status": ActivationStatus.SUCCESS}),
            settle_token="settle 1",
            lease=LONG,
        )
        assert answer.claimed is not None
        root = answer.claimed.activation
        assert (root.path, root.phase, root.status, root.lease_token) == (
            "",
            Phase.SETTLE,
            ActivationStatus.RUNNING,
            "settle 1",
        )
        assert root.deadline >= answer.header.updated_at + LONG
        assert answer.header.live == 0
        assert run.refused_claim("", root.seq) == BUSY
        over = (
            UpdateActivation("", {"status": ActivationStatus.OPEN}),
            UpdateRun({"status": StoredStatus.SUSPENDED, "settle_count": 1}),
        )
        done = run.commit("", "settle 1", *over)
        assert done.claimed is None
        assert (run.header.status, run.header.settle_count, run.activation("").status) == (
            StoredStatus.SUSPENDED,
            1,
            ActivationStatus.OPEN,
        )

    def test_the_settling_is_queued_where_no_commit_claims_it(self, store: Store) -> None:
        """Without a token it is dispatched, and has a timer like any queued activation."""
        run = StartedRun(store, an_activation("0"), redelivery_delay=LEASE, root=ActivationStatus.OPEN)
        token = run.claim("0").activation.lease_token
        answer = run.commit(
            "0", token, UpdateActivation("0", {"status": ActivationStatus.SUCCESS}), redelivery_delay=LEASE
        )
        assert [(d.path, d.seq) for d in answer.dispatches] == [("", run.activation("").seq)]
        self.advance(store, LEASE)
        assert run.due_timers() == [""]
        assert run.claim("").activation.status == ActivationStatus.RUNNING

    def test_a_settling_whose_worker_is_lost_is_taken_over(self, store: Store) -> None:
        """The run's own activation has a lease like any other. The first worker is refused after it."""
        run = StartedRun(store, an_activation("0"), root=ActivationStatus.OPEN)
        token = run.claim("0").activation.lease_token
        run.commit(
            "0", token, UpdateActivation("0", {"status": ActivationStatus.SUCCESS}), settle_token="first", lease=LEASE
        )
        self.advance(store, LEASE)
        assert run.due_timers() == [""]
        assert run.take_over("", token="second").activation.abandoned_attempts == 1
        assert run.refused_commit("", "first", UpdateRun({"status": StoredStatus.SUCCESS})) == LOST
        run.commit(
            "",
            "second",
            UpdateActivation("", {"status": ActivationStatus.OPEN}),
            UpdateRun({"status": StoredStatus.SUCCESS}),
        )
        assert run.header.status == StoredStatus.SUCCESS

    def test_a_resume_takes_the_settling_away(self, store: Store) -> None:
        """The worker that was about to settle the run is refused; the end of the resumed activation claims it anew."""
        run = StartedRun(store, an_activation("0"), root=ActivationStatus.OPEN)
        token = run.claim("0").activation.lease_token
        run.commit(
            "0",
            token,
            UpdateActivation("0", {"status": ActivationStatus.SUSPENDED}),
            settle_token="settle 1",
            lease=LONG,
        )
        expect = (Precondition("0", ActivationStatus.SUSPENDED, run.activation("0").seq),)
        ops = (
            UpdateActivation("", {"status": ActivationStatus.OPEN}),
            UpdateActivation("0", {"status": ActivationStatus.QUEUED, "resume": "r", "resumed": True}),
        )
        answer = committed_of(store.commit(run.id, Change(RequestGuard(new_token(), ACTIVE), ops, expect)))
        assert ([d.path for d in answer.dispatches], answer.claimed) == (["0"], None)
        assert run.refused_commit("", "settle 1", UpdateRun({"status": StoredStatus.SUSPENDED})) == LOST
        assert run.activation("0").resumed_at > 0
        token = run.claim("0").activation.lease_token
        again = run.commit(
            "0", token, UpdateActivation("0", {"status": ActivationStatus.SUCCESS}), settle_token="settle 2"
        )
        assert again.claimed is not None
        assert again.claimed.activation.lease_token == "settle 2"

    def test_one_of_two_resumes_wins(self, store: Store) -> None:
        """The other finds that the activation has moved."""
        run = StartedRun(store, an_activation("0", status=ActivationStatus.SUSPENDED), an_activation("1"))
        expect = (Precondition("0", ActivationStatus.SUSPENDED, run.activation("0").seq),)
        ops = (UpdateActivation("0", {"status": ActivationStatus.QUEUED}),)
        changes = [Change(RequestGuard(new_token(), ACTIVE), ops, expect) for _ in range(4)]
        answers = each(lambda c: store.commit(run.id, c), changes)
        assert sum(isinstance(answer, Committed) for answer in answers) == 1
        assert {answer.reason for answer in answers if isinstance(answer, Refused)} == {MOVED}

    def test_a_word_that_ends_the_run_closes_it_for_all_others(self, store: Store) -> None:
        """The settling is claimed although others are live, and nothing else is accepted any more."""
        run = StartedRun(
            store,
            an_activation("0"),
            an_activation("1"),
            an_activation("2"),
            an_activation("3", status=ActivationStatus.SUSPENDED),
            root=ActivationStatus.OPEN,
        )
        tokens = [run.claim(path, lease=LONG).activation.lease_token for path in ("0", "1")]
        ops = (
            UpdateActivation("0", {"status": ActivationStatus.SUCCESS}),
            UpdateRun({"outcome": "success", "closed": True}),
        )
        answer = run.commit("0", tokens[0], *ops, settle_token="settle", settle_now=True, lease=LONG)
        assert answer.claimed is not None
        assert (answer.claimed.activation.path, answer.claimed.activation.lease_token) == ("", "settle")
        assert (
            run.refused_commit("1", tokens[1], UpdateActivation("1", {"status": ActivationStatus.SUCCESS})) == ENDED_RUN
        )
        assert run.refused_claim("2", run.activation("2").seq) == ENDED_RUN
        lost = LeaseRef(run.id, "1", tokens[1])
        mine = LeaseRef(run.id, "", "settle")
        assert store.renew([lost, mine], LONG) == {lost: ENDED_RUN}
        resume = (
            UpdateActivation("", {"status": ActivationStatus.OPEN}),
            UpdateActivation("3", {"status": ActivationStatus.QUEUED}),
        )
        expect = (Precondition("3", ActivationStatus.SUSPENDED, run.activation("3").seq),)
        assert run.refused(Change(RequestGuard(new_token(), ACTIVE), resume, expect)) == ENDED_RUN
        run.commit(
            "",
            "settle",
            UpdateActivation("", {"status": ActivationStatus.OPEN}),
            UpdateRun({"status": StoredStatus.SUCCESS, "settle_count": 1}),
        )
        assert run.header.status == StoredStatus.SUCCESS
        assert (
            run.refused_commit("1", tokens[1], UpdateActivation("1", {"status": ActivationStatus.SUCCESS})) == ENDED_RUN
        )

    def test_upkeep_is_let_into_a_closed_run(self, store: Store) -> None:
        """The scheduler may move timers on there, above all that of a settling whose worker is gone."""
        run = StartedRun(store, an_activation("0"), an_activation("1"), root=ActivationStatus.OPEN)
        token = run.claim("0").activation.lease_token
        closing = UpdateRun({"outcome": "canceled", "closed": True})
        run.commit(
            "0",
            token,
            UpdateActivation("0", {"status": ActivationStatus.CANCELED}),
            closing,
            settle_token="r",
            settle_now=True,
            lease=LEASE,
        )
        self.advance(store, LEASE)
        root = run.activation("")
        look = (Precondition("", ActivationStatus.RUNNING, root.seq, root.deadline),)
        fields: ActivationFields = {
            "status": ActivationStatus.QUEUED,
            "abandoned_attempts": 1,
            "restarted": True,
            "lease_token": "",
        }
        answer = committed_of(
            store.commit(run.id, Change(RequestGuard("", ACTIVE), (UpdateActivation("", fields),), look))
        )
        assert [d.path for d in answer.dispatches] == [""]
        assert run.claim("").activation.abandoned_attempts == 1

    def test_a_closed_run_lets_its_own_activation_be_expected(self, store: Store) -> None:
        """A change that expects nothing of other activations takes no settling away by mistake."""
        run = StartedRun(store, an_activation("0"), root=ActivationStatus.OPEN)
        token = run.claim("0").activation.lease_token
        closing = UpdateRun({"outcome": "canceled", "closed": True})
        run.commit(
            "0",
            token,
            UpdateActivation("0", {"status": ActivationStatus.CANCELED}),
            closing,
            settle_token="r",
            settle_now=True,
            lease=LONG,
        )
        root = run.activation("")
        look = (Precondition("", ActivationStatus.RUNNING, root.seq),)
        committed_of(
            store.commit(run.id, Change(RequestGuard(new_token(), ACTIVE), (UpdateRun({"error": "e"}),), look))
        )
        assert (run.header.error, run.activation("").lease_token) == ("e", "r")

    def test_a_run_settles_only_while_it_goes_on(self, store: Store) -> None:
        """Nothing is claimed in a run that has settled, nor where its own activation is not open."""
        run = StartedRun(store, root=ActivationStatus.OPEN)
        assert run.activation("").status == ActivationStatus.QUEUED  # nothing is live from the beginning
        run.commit(
            "",
            run.claim("").activation.lease_token,
            UpdateActivation("", {"status": ActivationStatus.OPEN}),
            UpdateRun({"status": "suspended"}),
        )
        assert run.commit_request(settle_token="late").claimed is None
        assert run.commit_request(settle_token="late", settle_now=True).claimed is None
        run.commit_request(
            UpdateRun({"status": StoredStatus.RUNNING}), UpdateActivation("", {"status": ActivationStatus.SUCCESS})
        )
        assert run.commit_request(settle_token="late").claimed is None
        assert run.activation("").status == ActivationStatus.SUCCESS

    def test_a_change_by_a_caller_may_end_the_run_at_once(self, store: Store) -> None:
        """A cancel takes the settling, also from a worker that has claimed it."""
        run = StartedRun(
            store, an_activation("0", status=ActivationStatus.SUSPENDED), an_activation("1"), root=ActivationStatus.OPEN
        )
        token = run.claim("1").activation.lease_token
        run.commit(
            "1", token, UpdateActivation("1", {"status": ActivationStatus.SUCCESS}), settle_token="worker", lease=LONG
        )
        words = UpdateRun({"outcome": "canceled", "closed": True})
        answer = run.commit_request(words, settle_token="caller", settle_now=True)
        assert answer.claimed is not None
        assert answer.claimed.activation.lease_token == "caller"
        assert run.refused_commit("", "worker", UpdateRun({"status": StoredStatus.SUSPENDED})) == LOST
        run.commit_request(
            UpdateActivation("", {"status": ActivationStatus.OPEN}), UpdateRun({"status": StoredStatus.CANCELED})
        )  # once more, without ceremony
        assert run.refused_commit("", "caller", UpdateRun({"status": StoredStatus.SUCCESS})) == ENDED_RUN

    def test_waiting_ends_when_the_run_has_settled(self, store: Store) -> None:
        """The commit that counts the settling wakes a waiting reader, in whatever thread it is made."""
        run = StartedRun(store, an_activation("0"))

        def settle() -> None:
            threading.Event().wait(0.05)
            run.commit_request(UpdateRun({"status": StoredStatus.SUSPENDED, "settle_count": 1}))

        header, _ = together(lambda: store.wait_until_settled(run.id, 0, 30.0), settle)
        assert header is not None
        assert (header.status, header.settle_count) == (StoredStatus.SUSPENDED, 1)
        again = store.wait_until_settled(run.id, 0, 30.0)
        assert again == header

    def test_waiting_for_a_settling_ends_with_its_time(self, store: Store) -> None:
        """The header comes back as it is."""
        run = StartedRun(store, an_activation("0"))
        run.commit_request(UpdateRun({"settle_count": 1}))
        assert store.wait_until_settled(run.id, 1, 0.05) == run.header
        assert store.wait_until_settled(run.id, 1, 0.0) == run.header
        assert store.wait_until_settled(run.id, 7, 0.05) == run.header

    def test_any_number_may_wait_for_a_settling(self, store: Store) -> None:
        """Each for its own, and none is woken for good by anything else that happens."""
        run = StartedRun(store, an_activation("0", status=ActivationStatus.OPEN))

        def work() -> None:
            for number in (1, 2):
                threading.Event().wait(0.03)
                run.commit_request(events=({"type": "note"},))
                run.commit_request(UpdateRun({"settle_count": number}))

        waiting = [partial(store.wait_until_settled, run.id, settle_count, 30.0) for settle_count in (0, 0, 1, 1)]
        found = together(*waiting, work)[:-1]
        assert all(header.settle_count > settle_count for header, settle_count in zip(found, (0, 0, 1, 1), strict=True))

    def test_waiting_for_a_run_that_goes_away_ends(self, store: Store) -> None:
        """With its time at the latest, and there is no header then."""
        run = StartedRun(store, an_activation("0"))

        def remove() -> None:
            threading.Event().wait(0.05)
            store.delete(run.id)

        assert together(lambda: store.wait_until_settled(run.id, 0, 0.3), remove)[0] is None
