"""Timers and leases, the right to sweep, and the workers that live."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.host import new_run_id, new_token
from orchestrator.ports import LeaseRef, Store
from orchestrator.rules.apply import BUSY, ENDED_RUN, LOST, MOVED, UNKNOWN
from orchestrator.rules.change import Change, CreateActivation, Precondition, RequestGuard, UpdateActivation, UpdateRun
from orchestrator.rules.model import ActivationStatus, StoredStatus
from orchestrator.rules.timers import SweepGrant
from orchestrator.testing.contract.kit import (
    ACTIVE,
    LEASE,
    LONG,
    Conditions,
    StartedRun,
    a_header,
    an_activation,
    committed_of,
    each,
    ops_to_create,
)


def granted(answer: SweepGrant | None) -> int:
    """For how long there has been no pause, as it is told to who holds the right."""
    assert answer is not None
    return answer.steady


class Timing(Conditions):
    """Timers and leases, the right to sweep, and the workers that live."""

    def test_a_queued_activation_is_due_after_its_redelivery_delay(self, store: Store) -> None:
        """Not before, and with its header as it is."""
        run = StartedRun(store, an_activation("0"), redelivery_delay=LEASE)
        run.commit_request(CreateActivation(an_activation("1")), redelivery_delay=LONG)
        assert run.due_timers() == []
        self.advance(store, LEASE)
        found = store.due_timers(run.namespace)
        assert [(due.header, due.activation) for due in found] == [(run.header, run.activation("0"))]

    def test_a_timer_moves_with_its_activation(self, store: Store) -> None:
        """A claim, a renewal and upkeep push it on; the end of the activation takes it away."""
        run = StartedRun(store, an_activation("0"), redelivery_delay=LEASE)
        self.advance(store, LEASE)
        assert run.due_timers() == ["0"]
        run.commit_request(UpdateActivation("0", {}, delay=LEASE))
        assert run.due_timers() == []
        self.advance(store, LEASE)
        assert run.due_timers() == ["0"]
        token = run.claim("0", lease=LEASE).activation.lease_token
        assert run.due_timers() == []
        self.advance(store, LEASE)
        assert run.due_timers() == ["0"]
        assert store.renew([LeaseRef(run.id, "0", token)], LONG) == {}
        assert run.due_timers() == []
        run.commit(
            "0",
            token,
            UpdateActivation("0", {"status": ActivationStatus.SUCCESS}),
            CreateActivation(an_activation("1", status=ActivationStatus.OPEN)),
            lease=LONG,
        )
        self.advance(store, LEASE)
        assert run.due_timers() == []

    def test_sleeping_retrying_and_waiting_activations_are_due_at_their_deadline(self, store: Store) -> None:
        """Most overdue first. A wait without a deadline has no timer, nor has anything suspended or open."""
        run = StartedRun(store)
        run.commit_request(
            CreateActivation(an_activation("0", status=ActivationStatus.SLEEPING), delay=LEASE),
            CreateActivation(an_activation("1", status=ActivationStatus.RETRYING), delay=LEASE - 40),
            *ops_to_create(an_activation("2", status=ActivationStatus.WAITING), LEASE - 20),
            *ops_to_create(an_activation("3", status=ActivationStatus.WAITING)),
            *ops_to_create(an_activation("4", status=ActivationStatus.SUSPENDED), 1),
            CreateActivation(an_activation("5", status=ActivationStatus.OPEN), delay=1),
            CreateActivation(an_activation("6", status=ActivationStatus.PAUSED), delay=1),
            CreateActivation(an_activation("7", status=ActivationStatus.SLEEPING), delay=LONG),
        )
        self.advance(store, LEASE)
        assert run.due_timers() == ["1", "2", "0"]
        assert [due.activation.path for due in store.due_timers(run.namespace, limit=2)] == ["1", "2"]

    def test_a_wait_is_due_in_a_suspended_run(self, store: Store) -> None:
        """A wait is not live, but its deadline comes all the same."""
        run = StartedRun(store)
        run.commit_request(*ops_to_create(an_activation("0", status=ActivationStatus.WAITING), LEASE))
        run.commit_request(UpdateRun({"status": StoredStatus.SUSPENDED}))
        self.advance(store, LEASE)
        assert run.due_timers() == ["0"]
        run.commit_request(CreateActivation(an_activation("0", status=ActivationStatus.SUCCESS)))
        assert run.due_timers() == []

    def test_timers_of_ended_runs_are_dropped(self, store: Store) -> None:
        """They do not stand in the way of others, whatever their activations are."""
        namespace = new_run_id()
        ended = StartedRun(store, an_activation("0"), namespace=namespace, redelivery_delay=LEASE)
        ended.commit_request(*ops_to_create(an_activation("1", status=ActivationStatus.WAITING), LEASE))
        ended.commit_request(UpdateRun({"status": StoredStatus.CANCELED}))
        self.advance(store, 2)
        active = StartedRun(store, an_activation("0"), namespace=namespace, redelivery_delay=LEASE)
        self.advance(store, LEASE)
        assert [due.header.run_id for due in store.due_timers(namespace, limit=1)] == [active.id]
        assert [due.header.run_id for due in store.due_timers(namespace)] == [active.id]

    def test_timers_are_of_one_namespace(self, store: Store) -> None:
        """A scheduler sees its own runs only, also when others are more overdue than it asks for."""
        others = [StartedRun(store, an_activation("0"), redelivery_delay=LEASE) for _ in range(3)]
        self.advance(store, 2)
        mine = StartedRun(store, an_activation("0"), redelivery_delay=LEASE)
        self.advance(store, LEASE)
        assert [due.header.run_id for due in store.due_timers(mine.namespace, limit=1)] == [mine.id]
        assert [due.header.run_id for due in store.due_timers(others[0].namespace)] == [others[0].id]

    def test_a_run_is_due_in_the_namespace_that_it_begins_in(self, store: Store) -> None:
        """Its start may name another one than its creation."""
        header, namespace = a_header(), new_run_id()
        store.create(header)
        ops = (
            CreateActivation(an_activation("0")),
            UpdateRun({"status": StoredStatus.RUNNING, "namespace": namespace}),
        )
        start = Change(RequestGuard(new_token(), frozenset({StoredStatus.PENDING})), ops, redelivery_delay=LEASE)
        committed_of(store.commit(header.run_id, start))
        self.advance(store, LEASE)
        assert store.due_timers(header.namespace) == []
        assert [due.header.run_id for due in store.due_timers(namespace)] == [header.run_id]
        assert store.delete(header.run_id)
        assert store.due_timers(namespace) == []

    def test_timers_of_closed_runs_are_dropped(self, store: Store) -> None:
        """All but that of the settling, which is still to be claimed."""
        run = StartedRun(
            store,
            an_activation("0"),
            an_activation("1"),
            an_activation("2"),
            root=ActivationStatus.OPEN,
            redelivery_delay=LEASE,
        )
        run.commit_request(*ops_to_create(an_activation("3", status=ActivationStatus.WAITING), LEASE))
        run.commit_request(UpdateRun({"outcome": "canceled", "closed": True}), settle_now=True, redelivery_delay=LEASE)
        self.advance(store, LEASE)
        assert run.due_timers() == [""]
        assert [due.activation.path for due in store.due_timers(run.namespace, limit=1)] == [""]

    def test_local_runs_have_no_timers(self, store: Store) -> None:
        """No worker is to take over what the caller's own process runs. Their leases hold all the same."""
        run = StartedRun(store, an_activation("0"), an_activation("1"), runtime="local", redelivery_delay=LEASE)
        token = run.claim("0", lease=LEASE).activation.lease_token
        self.advance(store, LEASE)
        assert run.due_timers() == []
        assert store.renew([LeaseRef(run.id, "0", token)], LEASE) == {}
        self.advance(store, LEASE)
        assert run.due_timers() == []
        assert run.refused_claim("0", run.activation("0").seq) == BUSY

    def test_a_lease_is_renewed_by_its_holder_alone(self, store: Store) -> None:
        """Others get the reason, and no timer comes into being."""
        run = StartedRun(
            store, an_activation("0"), an_activation("1"), an_activation("2", status=ActivationStatus.SUSPENDED)
        )
        ended = StartedRun(store, an_activation("0"))
        token = run.claim("0", lease=LEASE).activation.lease_token
        other = ended.claim("0", lease=LEASE).activation.lease_token
        ended.commit_request(UpdateRun({"status": StoredStatus.CANCELED}))
        mine, wrong = LeaseRef(run.id, "0", token), LeaseRef(run.id, "0", "other")
        queued, suspended, none = (LeaseRef(run.id, path, token) for path in ("1", "2", "7"))
        over = LeaseRef(ended.id, "0", other)
        gone = LeaseRef(new_run_id(), "0", token)
        before = store.now()
        lost = store.renew([mine, wrong, queued, suspended, none, over, gone], LONG)
        reasons = {wrong: LOST, queued: LOST, suspended: LOST, none: LOST, over: ENDED_RUN, gone: UNKNOWN}
        assert lost == reasons
        assert run.activation("0").deadline >= before + LONG
        assert run.activation("2").deadline == 0
        assert store.renew([], LONG) == {}

    def test_a_lease_that_is_over_but_not_taken_is_renewed(self, store: Store) -> None:
        """After the store was away, a heartbeat saves a lease that was not taken; one that was taken is lost."""
        run = StartedRun(store, an_activation("0"))
        lease = LeaseRef(run.id, "0", run.claim("0", lease=LEASE).activation.lease_token)
        self.advance(store, LEASE)
        assert store.renew([lease], LEASE) == {}
        assert run.refused_claim("0", run.activation("0").seq) == BUSY
        self.advance(store, LEASE)
        run.take_over("0")
        assert store.renew([lease], LEASE) == {lease: LOST}

    def test_a_lease_that_is_named_twice_is_renewed_once(self, store: Store) -> None:
        """One that is held, and one that is lost."""
        run = StartedRun(store, an_activation("0"))
        held = LeaseRef(run.id, "0", run.claim("0", lease=LEASE).activation.lease_token)
        lost = LeaseRef(run.id, "0", "other")
        assert store.renew([held, lost, held, lost], LONG) == {lost: LOST}
        self.advance(store, LEASE)
        assert run.refused_claim("0", run.activation("0").seq) == BUSY

    def test_claims_of_many_runs_are_renewed_together(self, store: Store) -> None:
        """Several of one run, too. A renewal counts as no commit and changes nothing but the deadline."""
        runs = [StartedRun(store, an_activation("0"), an_activation("1")) for _ in range(5)]
        claims = [(run, run.claim(path, lease=LEASE).activation) for run in runs for path in ("0", "1")]
        headers = [run.header for run in runs]
        wrong = LeaseRef(runs[2].id, "1", "other")
        before = store.now()
        holdings = [LeaseRef(run.id, activation.path, activation.lease_token) for run, activation in claims]
        assert store.renew([*holdings[:4], wrong, *holdings[4:]], LONG) == {wrong: LOST}
        for run, activation in claims:
            now = run.activation(activation.path)
            assert before + LONG <= now.deadline <= store.now() + LONG
            assert replace(now, deadline=activation.deadline, lease=activation.lease) == activation
        assert [run.header for run in runs] == headers

    def test_a_renewal_refuses_upkeep_that_read_before_it(self, store: Store) -> None:
        """The scheduler's guard expects the deadline as read: a heartbeat in between keeps the claim."""
        run = StartedRun(store, an_activation("0"))
        claimed = run.claim("0", lease=LEASE).activation
        self.advance(store, LEASE)
        (due,) = store.due_timers(run.namespace)
        store.renew([LeaseRef(run.id, "0", claimed.lease_token)], LONG)
        look = (Precondition("0", ActivationStatus.RUNNING, due.activation.seq, due.activation.deadline),)
        taken = Change(
            RequestGuard("", ACTIVE),
            (UpdateActivation("0", {"status": ActivationStatus.QUEUED, "lease_token": ""}),),
            look,
        )
        assert run.refused(taken) == MOVED
        assert run.activation("0").lease_token == claimed.lease_token

    def test_the_clock_tells_ms_since_1970(self, store: Store) -> None:
        """The clock goes on, and all moments that are stored are its own."""
        before = store.now()
        assert before > 1_600_000_000_000
        self.advance(store, 5)
        run = StartedRun(store, an_activation("0"))
        assert (
            before + 5 <= run.header.created_at <= run.activation("0").queued_at <= run.header.updated_at <= store.now()
        )

    def test_one_scheduler_sweeps_at_a_time(self, store: Store) -> None:
        """The right ends with its lease, and may be kept. The answer says for how long there has been no pause."""
        namespace = new_run_id()
        assert store.acquire_sweep(namespace, "a", LEASE, LONG) == SweepGrant()
        assert store.acquire_sweep(namespace, "b", LEASE, LONG) is None
        assert store.acquire_sweep(new_run_id(), "b", LEASE, LONG) == SweepGrant()
        self.advance(store, LEASE // 2)
        assert LEASE // 2 <= granted(store.acquire_sweep(namespace, "a", LEASE, LONG)) < LONG
        assert granted(store.acquire_sweep(namespace, "a", LONG, LONG)) >= LEASE // 2
        self.advance(store, LEASE)
        assert store.acquire_sweep(namespace, "b", LEASE, LONG) is None
        other = new_run_id()
        store.acquire_sweep(other, "a", LEASE, LONG)
        self.advance(store, LEASE)
        assert LEASE <= granted(store.acquire_sweep(other, "b", LEASE, LONG)) < LONG
        assert store.acquire_sweep(other, "a", LEASE, LONG) is None

    def test_a_pause_in_the_sweeps_is_noted_by_whoever_asks_first(self, store: Store) -> None:
        """Then it is known to all, also to the next holder, and to one who asks again because no answer came."""
        namespace = new_run_id()
        store.acquire_sweep(namespace, "a", LONG, LEASE)
        self.advance(store, 2 * LEASE)
        assert store.acquire_sweep(namespace, "b", LONG, LEASE) is None
        assert granted(store.acquire_sweep(namespace, "a", LEASE, LONG)) < 2 * LEASE
        self.advance(store, 2 * LEASE)
        assert store.acquire_sweep(namespace, "b", LONG, LEASE) == SweepGrant()
        assert granted(store.acquire_sweep(namespace, "b", LONG, LONG)) < 2 * LEASE

    def test_leases_that_the_clock_cannot_have_written_are_found(self, store: Store) -> None:
        """Those that end farther off than they are long, the farthest first; no sleep, and no lease like any other."""
        run = StartedRun(store, *(an_activation(str(number)) for number in range(4)))
        run.commit_request(CreateActivation(an_activation("4", status=ActivationStatus.SLEEPING), delay=3 * LONG))
        for number in range(4):
            run.claim(str(number), lease=LONG)
        run.commit_request(UpdateActivation("0", {}, delay=3 * LONG), UpdateActivation("1", {}, delay=4 * LONG))
        run.commit_request(UpdateActivation("2", {}, delay=9 * LONG))
        found = [due.activation.path for due in store.find_stranded(run.namespace, 5 * LONG)]
        assert found == ["1", "0"]
        assert len(store.find_stranded(run.namespace, 5 * LONG, 1)) == 1
        assert store.find_stranded(run.namespace, 2 * LONG) == []
        assert store.find_stranded(new_run_id(), 5 * LONG) == []

    def test_one_of_many_schedulers_at_once_wins(self, store: Store) -> None:
        """The others hear that another has it."""
        namespace = new_run_id()
        answers = each(lambda n: store.acquire_sweep(namespace, f"t{n}", LONG, LONG), range(6))
        assert sum(answer is not None for answer in answers) == 1

    def test_a_worker_is_there_until_its_time_is_over(self, store: Store) -> None:
        """After another heartbeat a worker stays; other namespaces have their own."""
        namespace = new_run_id()
        assert store.workers(namespace) == []
        store.heartbeat(namespace, "w2", LONG)
        store.heartbeat(namespace, "w1", LEASE)
        store.heartbeat(namespace, "w2", LONG)
        assert sorted(store.workers(namespace)) == ["w1", "w2"]
        assert store.workers(new_run_id()) == []
        self.advance(store, LEASE)
        assert store.workers(namespace) == ["w2"]
