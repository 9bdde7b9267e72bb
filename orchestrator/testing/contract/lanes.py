"""The lanes of timers, and what is set aside."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.host import new_run_id, new_token
from orchestrator.ports import Store
from orchestrator.rules.apply import MOVED, UNKNOWN
from orchestrator.rules.change import (
    Change,
    Committed,
    CreateActivation,
    Precondition,
    Refused,
    RequestGuard,
    UpdateActivation,
)
from orchestrator.rules.model import Activation, ActivationStatus
from orchestrator.rules.timers import SWEPT, Lane, lane_of, on_deadline
from orchestrator.testing.contract.kit import (
    LEASE,
    LONG,
    Conditions,
    StartedRun,
    an_activation,
    committed_of,
    ops_to_create,
    reason_of,
)


class Lanes(Conditions):
    """The lanes of timers, and what is set aside."""

    def test_no_kind_of_timer_hides_another(self, store: Store) -> None:
        """At most so many of each lane, whichever is most overdue; newest first where that is asked for."""
        queued = [an_activation(str(place)) for place in range(3)]
        run = StartedRun(store, *queued, redelivery_delay=LEASE)
        run.commit_request(
            CreateActivation(an_activation("3", status=ActivationStatus.RUNNING), new_token()), lease=LEASE + 20
        )
        for place, delay in ((4, LEASE + 40), (5, LEASE + 60), (6, LEASE + 80)):
            run.commit_request(
                CreateActivation(an_activation(str(place), status=ActivationStatus.SLEEPING), delay=delay)
            )
        self.advance(store, LEASE + 100)
        assert run.due_timers() == ["0", "1", "2", "3", "4", "5", "6"]
        found = {lane: self._paths(store, run, lane) for lane in Lane}
        assert {lane: len(paths) for lane, paths in found.items()} == {Lane.MOMENTS: 2, Lane.LEASES: 1, Lane.OUTBOX: 2}
        assert found[Lane.MOMENTS] == ["4", "5"]
        assert self._paths(store, run, Lane.MOMENTS, newest=True) == ["6", "5"]
        assert self._paths(store, run, Lane.LEASES, newest=True) == ["3"]

    @staticmethod
    def _paths(store: Store, run: StartedRun, lane: Lane, *, newest: bool = False) -> list[str]:
        due = store.due_timers(run.namespace, 2, newest=newest)
        return [one.activation.path for one in due if lane_of(one.activation) is lane]

    def test_a_timer_changes_its_lane_with_its_activation(self, store: Store) -> None:
        """One timer, wherever it stands."""
        run = StartedRun(store)
        run.commit_request(CreateActivation(an_activation("0", status=ActivationStatus.SLEEPING), delay=LEASE))
        self.advance(store, LEASE)
        assert run.due_timers() == ["0"]
        run.commit_request(UpdateActivation("0", {"status": "queued"}), redelivery_delay=LEASE)
        assert run.due_timers() == []
        self.advance(store, LEASE)
        assert run.due_timers() == ["0"]
        claimed = run.claim("0", lease=LEASE)
        assert run.due_timers() == []
        self.advance(store, LEASE)
        assert run.due_timers() == ["0"]
        run.commit("0", claimed.activation.lease_token, UpdateActivation("0", {"status": "success"}))
        assert run.due_timers() == []

    def test_what_is_set_aside_comes_again_later(self, store: Store) -> None:
        """In its lane; what is not due any more is left where it is."""
        run = StartedRun(store, an_activation("0"), redelivery_delay=LEASE)
        run.commit_request(*ops_to_create(an_activation("1", status=ActivationStatus.SLEEPING), LEASE))
        self.advance(store, LEASE)
        assert sorted(run.due_timers()) == ["0", "1"]
        for path in ("0", "1"):
            store.set_aside(run.id, path, run.namespace, LEASE)
        assert run.due_timers() == []
        store.set_aside(run.id, "0", run.namespace, LONG)
        store.set_aside(run.id, "none", run.namespace, LONG)
        store.set_aside(new_run_id(), "0", run.namespace, LONG)
        self.advance(store, LEASE)
        assert sorted(run.due_timers()) == ["0", "1"]
        assert store.delete(run.id)
        assert store.due_timers(run.namespace) == []

    def test_changes_of_many_runs_are_committed_each_by_itself(self, store: Store) -> None:
        """Each gets the answer that a commit of its own would get."""
        runs = [StartedRun(store, an_activation("0")) for _ in range(3)]
        changes = [(run.id, self._change(run)) for run in runs]
        assert store.commit_many([]) == []
        first = store.commit_many([changes[0], (new_run_id(), changes[0][1]), *changes[1:]])
        assert [isinstance(answer, Committed) for answer in first] == [True, False, True, True]
        assert reason_of(first[1]) == UNKNOWN
        assert [answer.header.run_id for answer in first if isinstance(answer, Committed)] == [run.id for run in runs]
        assert [run.activation("0").looks for run in runs] == [1, 1, 1]
        again = store.commit_many(changes)
        assert [answer.reason for answer in again if isinstance(answer, Refused)] == [MOVED] * 3

    def test_changes_of_one_run_are_committed_one_after_the_other(self, store: Store) -> None:
        """Many at once leave what each by itself would leave: numbers, counts, timers and all."""
        together, singly = self._run_with_timers(store), self._run_with_timers(store)
        self.advance(store, LEASE)
        answers = store.commit_many(self._upkeep(together))
        alone = [store.commit(run_id, change) for run_id, change in self._upkeep(singly)]
        assert len(answers) == len(alone) == 4
        for one, other in zip(map(committed_of, answers), map(committed_of, alone), strict=True):
            assert one.dispatches == other.dispatches
            assert (one.header.commits, one.header.live) == (other.header.commits, other.header.live)
        for of in (together, singly):
            assert of.due_timers() == []
        left = [[self._without_moments(one) for one in store.load(run.id)] for run in (together, singly)]
        assert left[0] == left[1]
        assert together.counts() == singly.counts() == (4, 0, 0, 0)

    def _run_with_timers(self, store: Store) -> StartedRun:
        """A run with a timer of each kind."""
        run = StartedRun(
            store, an_activation("0"), an_activation("1"), root=ActivationStatus.OPEN, redelivery_delay=LEASE
        )
        run.claim("1", lease=LEASE)
        run.commit_request(*ops_to_create(an_activation("2", status=ActivationStatus.SLEEPING), LEASE))
        run.commit_request(*ops_to_create(an_activation("3", status=ActivationStatus.WAITING)))
        run.commit_request(UpdateActivation("3", {}, delay=LEASE))
        return run

    @staticmethod
    def _without_moments(one: Activation) -> Activation:
        one = replace(one, queued_at=0, started_at=0, suspended_at=0, resumed_at=0, deadline=0, lease_token="")
        return replace(one, last_lease_token="", last_reply="", waiter="")

    @staticmethod
    def _upkeep(run: StartedRun) -> list[tuple[str, Change]]:
        found = [on_deadline(run.header, activation, LONG) for activation in run.store.load(run.id) if activation.path]
        return [(run.id, action.change) for action in found if action is not None]

    @staticmethod
    def _change(run: StartedRun) -> Change:
        """One that is refused the second time, by what it expects."""
        found = run.activation("0")
        expect = Precondition("0", found.status, found.seq, found.deadline)
        op = UpdateActivation("0", {"looks": 1}, delay=2 * LONG)
        return Change(RequestGuard("", SWEPT), (op,), expect=(expect,))
