"""Flushes: changes that let their claim go on. They are numbered, so that none is written twice."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.ports import LeaseRef, Store
from orchestrator.rules.apply import ENDED_RUN, LOST
from orchestrator.rules.change import (
    Change,
    Committed,
    CreateActivation,
    LeaseGuard,
    Precondition,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.model import ActivationStatus, RunHeaderFields, StoredStatus
from orchestrator.testing.contract.kit import (
    EXTRAS,
    LEASE,
    LONG,
    Conditions,
    StartedRun,
    an_activation,
    committed_of,
    each,
)


def a_flush(path: str, token: str, number: int, *ops: CreateActivation | UpdateRun | UpdateActivation) -> Change:
    """Return a flush that writes its number as an event."""
    return Change(LeaseGuard(path, token, number), ops, events=({"type": "flush", "n": number},))


class Flushes(Conditions):
    """The conditions of `LeaseGuard.flush_seq`."""

    def test_a_flush_lets_its_claim_go_on(self, store: Store) -> None:
        """Everything in it is written; of the activation, nothing but the number changes."""
        run = StartedRun(store, an_activation("0"))
        claimed = run.claim("0", lease=LONG).activation
        change = Change(LeaseGuard("0", claimed.lease_token, 1), (CreateActivation(an_activation("1")),), **EXTRAS)
        answer = committed_of(store.commit(run.id, change))
        assert ([d.path for d in answer.dispatches], answer.claimed) == (["1"], None)
        assert answer.header == run.header
        assert run.activation("0") == replace(claimed, flush_seq=1)
        assert (store.values(run.id, ["extra"]), store.state(run.id)) == (EXTRAS["values"], EXTRAS["state"])
        assert (store.context(run.id), run.mail("box")) == (EXTRAS["context"], ["extra"])
        run.commit("0", claimed.lease_token, UpdateActivation("0", {"status": ActivationStatus.SUCCESS}))
        assert run.activation("0").status == ActivationStatus.SUCCESS

    def test_a_repeated_flush_is_not_written_twice(self, store: Store) -> None:
        """A worker that lost the answer sends it again and gets the header as it is now."""
        run = StartedRun(store, an_activation("0"), an_activation("1", status=ActivationStatus.SUSPENDED))
        token = run.claim("0").activation.lease_token
        expect = (Precondition("1", ActivationStatus.SUSPENDED, run.activation("1").seq),)
        change = Change(
            LeaseGuard("0", token, 1), (UpdateActivation("1", {"status": ActivationStatus.QUEUED}),), expect, **EXTRAS
        )
        committed_of(store.commit(run.id, change))
        self.advance(store, 2)
        store.renew([LeaseRef(run.id, "0", token)], LONG)  # a heartbeat comes in between
        seen = run.snapshot()
        for _ in range(2):
            again = committed_of(store.commit(run.id, change))
            assert (again.header, again.claimed) == (run.header, None)
        assert run.snapshot() == seen

    def test_an_older_flush_is_taken_for_a_repeat(self, store: Store) -> None:
        """A flush with a lower number than the last one written is never written."""
        run = StartedRun(store, an_activation("0"))
        token = run.claim("0").activation.lease_token
        for number in (1, 2, 1, 4, 3, 2, 4, 5):
            committed_of(store.commit(run.id, a_flush("0", token, number)))
        assert [event["n"] for event in run.event_docs("flush")] == [1, 2, 4, 5]
        assert run.activation("0").flush_seq == 5
        assert run.header.commits == 2 + 4

    def test_a_change_without_a_number_is_written_each_time(self, store: Store) -> None:
        """Such a change neither counts among the flushes nor is held up by them."""
        run = StartedRun(store, an_activation("0"))
        token = run.claim("0").activation.lease_token
        for number in (0, 1, 0, 0, 2):
            committed_of(store.commit(run.id, a_flush("0", token, number)))
        assert [event["n"] for event in run.event_docs("flush")] == [0, 1, 0, 0, 2]
        assert run.activation("0").flush_seq == 2

    def test_a_flush_of_a_lost_claim_is_refused(self, store: Store) -> None:
        """Also a repeat is refused: the claim that took over counts its own flushes, from the beginning."""
        run = StartedRun(store, an_activation("0"))
        run.claim("0", token="zombie", lease=LEASE)
        for number in (1, 2):
            committed_of(store.commit(run.id, a_flush("0", "zombie", number)))
        self.advance(store, LEASE)
        run.take_over("0", token="owner")
        seen = run.snapshot()
        for number in (0, 1, 2, 3):
            assert run.refused(Change(LeaseGuard("0", "zombie", number), **EXTRAS)) == LOST
        assert run.snapshot() == seen
        committed_of(store.commit(run.id, a_flush("0", "owner", 1)))
        assert [event["n"] for event in run.event_docs("flush")] == [1, 2, 1]

    def test_a_flush_that_comes_after_its_claims_end_is_not_written(self, store: Store) -> None:
        """A flush may have been overtaken by the outcome. It gets the outcome's answer."""
        run = StartedRun(store, an_activation("0"))
        token = run.claim("0").activation.lease_token
        committed_of(store.commit(run.id, a_flush("0", token, 1)))
        ended = run.commit(
            "0",
            token,
            UpdateActivation("0", {"status": ActivationStatus.SUCCESS}),
            CreateActivation(an_activation("1")),
        )
        seen = run.snapshot()
        for number in (1, 2):
            answer = committed_of(store.commit(run.id, Change(LeaseGuard("0", token, number), **EXTRAS)))
            assert answer.dispatches == ended.dispatches
        assert run.snapshot() == seen

    def test_each_claim_counts_its_own_flushes(self, store: Store) -> None:
        """After a retry, a suspension or a claim that another commit made."""
        run = StartedRun(store, an_activation("0"))
        for status in (ActivationStatus.RETRYING, ActivationStatus.SUSPENDED):
            token = run.claim("0").activation.lease_token
            for number in (1, 2):
                committed_of(store.commit(run.id, a_flush("0", token, number)))
            run.commit("0", token, UpdateActivation("0", {"status": status}))
            if status is ActivationStatus.SUSPENDED:
                run.commit_request(UpdateActivation("0", {"status": ActivationStatus.QUEUED}))
        run.commit_request(UpdateActivation("0", {"status": ActivationStatus.QUEUED}, claim="inline"))
        assert run.activation("0").flush_seq == 0
        committed_of(store.commit(run.id, a_flush("0", "inline", 1)))
        assert [event["n"] for event in run.event_docs("flush")] == [1, 2, 1, 2, 1]

    def test_no_flush_is_written_once_the_run_has_ended(self, store: Store) -> None:
        """Nor once it has been closed; a repeat is refused as well, so that the writer stops."""
        endings: tuple[RunHeaderFields, ...] = ({"closed": True}, {"status": StoredStatus.CANCELED})
        for fields in endings:
            run = StartedRun(store, an_activation("0"))
            token = run.claim("0").activation.lease_token
            committed_of(store.commit(run.id, a_flush("0", token, 1)))
            run.commit_request(UpdateRun(fields))
            for number in (1, 2):
                assert run.refused(a_flush("0", token, number)) == ENDED_RUN
            assert len(run.event_docs("flush")) == 1

    def test_one_flush_that_is_sent_several_times_at_once_is_written_once(self, store: Store) -> None:
        """All hear that it has been taken."""
        run = StartedRun(store, an_activation("0"))
        token = run.claim("0").activation.lease_token
        for number in (1, 2, 3):
            flush = a_flush("0", token, number)
            answers = each(lambda flush: store.commit(run.id, flush), [flush] * 4)
            assert all(isinstance(answer, Committed) for answer in answers)
        assert [event["n"] for event in run.event_docs("flush")] == [1, 2, 3]
