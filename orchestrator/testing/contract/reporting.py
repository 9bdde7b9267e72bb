"""Reports go on whatever becomes of their run, and keep it from nothing."""

from __future__ import annotations

import pytest

from orchestrator.ports import LeaseRef, Store
from orchestrator.rules.apply import LOST
from orchestrator.rules.change import CreateActivation, Precondition, UpdateActivation, UpdateRun
from orchestrator.rules.model import Activation, ActivationStatus, Phase, Report, report_path
from orchestrator.rules.timers import on_deadline
from orchestrator.testing.contract.kit import LEASE, LONG, Conditions, StartedRun, an_activation, committed_of

HOOK, RESULT = report_path(1, Report.ON_FINISH), report_path(1, Report.RESULT)


def a_report(path: str, **fields: str) -> Activation:
    """Return a report that is to be created."""
    return an_activation(path, phase=Phase.REPORT, quiet=True, **fields)


class Reporting(Conditions):
    """Reports go on whatever becomes of their run, and keep it from nothing."""

    @pytest.mark.parametrize("status", ["success", "failed", "canceled", "suspended", "running"])
    def test_a_report_is_claimed_renewed_and_ended_in_any_run(self, store: Store, status: str) -> None:
        """The status of the run is no reason to refuse it, nor is that the run is closed."""
        run = StartedRun(store, root=ActivationStatus.OPEN)
        run.commit_request(CreateActivation(a_report(HOOK)), UpdateRun({"status": status, "closed": True}))
        token = run.claim(HOOK).activation.lease_token
        assert store.renew([LeaseRef(run.id, HOOK, token), LeaseRef(run.id, HOOK, "none")], LEASE) == {
            LeaseRef(run.id, HOOK, "none"): LOST
        }
        ended = UpdateActivation(HOOK, {"status": ActivationStatus.SUCCESS})
        assert run.commit(HOOK, token, ended).header.status == status
        assert run.refused_claim(HOOK, run.activation(HOOK).seq) != ""

    def test_the_end_of_a_run_claims_its_first_report(self, store: Store) -> None:
        """In one commit: there is no moment at which nobody is to tell of the end."""
        run = StartedRun(store, root=ActivationStatus.OPEN)
        answer = run.commit_request(
            UpdateRun({"status": "canceled"}), CreateActivation(a_report(HOOK), "mine"), lease=LONG
        )
        assert answer.claimed is not None
        assert (answer.claimed.activation.path, answer.claimed.activation.lease_token) == (HOOK, "mine")
        assert answer.header.status == "canceled"

    def test_reports_are_counted_while_they_are_queued_or_at_work(self, store: Store) -> None:
        """Each kind by itself, and neither among what is live: the run settles without them."""
        run = StartedRun(store, an_activation("0"), root=ActivationStatus.OPEN)
        run.commit_request(CreateActivation(a_report(HOOK)), CreateActivation(a_report(RESULT), "mine"), lease=LONG)
        assert (run.header.calling, run.header.delivering, run.header.live) == (1, 1, 1)
        done = UpdateActivation("0", {"status": ActivationStatus.SUCCESS})
        answer = run.commit("0", run.claim("0").activation.lease_token, done, settle_token="settle", lease=LONG)
        assert answer.claimed is not None
        assert answer.claimed.activation.phase == Phase.SETTLE
        retried = UpdateActivation(RESULT, {"status": ActivationStatus.RETRYING, "attempt": 1}, delay=LONG)
        run.commit(RESULT, "mine", retried)
        assert (run.header.calling, run.header.delivering, run.header.live) == (1, 0, 0)

    def test_timers_of_reports_outlast_their_run(self, store: Store) -> None:
        """A worker that is lost with one is found, and the report goes back into the queue."""
        run = StartedRun(store, an_activation("0"), redelivery_delay=LEASE)
        run.commit_request(
            UpdateRun({"status": "canceled"}),
            CreateActivation(a_report(HOOK), "mine"),
            CreateActivation(a_report(RESULT)),
            lease=LEASE,
            redelivery_delay=LEASE,
        )
        self.advance(store, LEASE)
        assert sorted(run.due_timers()) == sorted([HOOK, RESULT])
        for due in store.due_timers(run.namespace):
            action = on_deadline(due.header, due.activation, LONG)
            assert action is not None
            committed_of(store.commit(run.id, action.change))
        again = run.activation(HOOK)
        assert (again.status, again.abandoned_attempts, again.restarted) == (ActivationStatus.QUEUED, 1, True)
        assert run.header.calling == 1

    def test_upkeep_of_a_report_may_be_a_request(self, store: Store) -> None:
        """The run is closed and settles, and what gives the claim of a lost process back has an id."""
        run = StartedRun(store, root=ActivationStatus.OPEN)
        run.commit_request(CreateActivation(a_report(HOOK)), UpdateRun({"closed": True}))
        report = run.activation(HOOK)
        answer = run.commit_request(
            UpdateActivation(HOOK, {"status": ActivationStatus.QUEUED}),
            expect=(Precondition(HOOK, report.status, report.seq),),
        )
        assert [dispatch.path for dispatch in answer.dispatches] == [HOOK]
