"""Claims: which worker gets an activation, and the values that come with it."""

from __future__ import annotations

from orchestrator.host import new_run_id, new_token
from orchestrator.ports import Store
from orchestrator.rules.apply import BUSY, EARLY, ELSEWHERE, ENDED_RUN, LOST, STALE, UNKNOWN
from orchestrator.rules.change import (
    Change,
    Claimed,
    ClaimRequest,
    CreateActivation,
    Doc,
    LeaseGuard,
    Refused,
    RequestGuard,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.model import ActivationFields, ActivationStatus, Phase, StoredStatus
from orchestrator.testing.contract.kit import LEASE, LONG, Conditions, StartedRun, an_activation, claimed_of, each


class Claiming(Conditions):
    """Claims: which worker gets an activation, and the values that come with it."""

    def test_a_queued_activation_is_claimed_with_all_that_it_needs(self, store: Store) -> None:
        """The answer has the running activation under the worker's token, its values, and all state and context."""
        activation = an_activation("0", input="i", needs="n1 n2 absent", suspend="s", resume="r", resumed=True)
        run = StartedRun(store, activation, an_activation("1"))
        texts = {"i": "=1", "n1": "=2", "n2": '["n1"]', "s": "=3", "r": "=4", "other": "=5"}
        run.commit_request(values=texts, state={"k": "=6", "l": "=[]"}, context={"c": "=7"})
        queued = run.activation("0")
        before = store.now()
        got = claimed_of(store.claim(ClaimRequest(run.id, "0", queued.seq, "token", LONG)))
        assert (got.activation.status, got.activation.lease_token, got.activation.seq) == (
            ActivationStatus.RUNNING,
            "token",
            queued.seq,
        )
        assert before + LONG <= got.activation.deadline <= store.now() + LONG
        assert before <= got.activation.started_at <= store.now()
        assert got.values == {key: text for key, text in texts.items() if key != "other"}
        assert (got.state, got.context) == ({"k": "=6", "l": "=[]"}, {"c": "=7"})
        assert got.header == run.header
        assert got.activation == run.activation("0")

    def test_the_first_claim_tells_that_the_step_has_started(self, store: Store) -> None:
        """Once: a quiet activation, a retry and a takeover tell nothing."""
        retried = an_activation("2", attempt=1)
        run = StartedRun(store, an_activation("0", input="i", visit="3"), an_activation("1", quiet=True), retried)
        for path in ("0", "1", "2"):
            run.claim(path, lease=LEASE)
        told: Doc = {"type": "workflow-step-start", "path": "0", "visit": "3", "step": "s0", "input": "i"}
        assert run.event_docs() == [told]
        self.advance(store, LEASE)
        run.take_over("0")
        assert run.event_docs() == [told]

    def test_a_resumption_tells_what_it_goes_on_with(self, store: Store) -> None:
        """By its id; a step that is resumed without anything says so too."""
        fields: ActivationFields = {"status": ActivationStatus.QUEUED, "resumed": True}
        run = StartedRun(
            store,
            an_activation("0", status=ActivationStatus.SUSPENDED),
            an_activation("1", status=ActivationStatus.SUSPENDED),
        )
        run.commit_request(UpdateActivation("0", {**fields, "resume": "r"}), UpdateActivation("1", fields))
        run.claim("0")
        run.claim("1")
        assert [(event["path"], event["resume"]) for event in run.event_docs("workflow-step-start")] == [
            ("0", "r"),
            ("1", ""),
        ]

    def test_only_what_runs_a_users_code_tells_that_it_has_started(self, store: Store) -> None:
        """A step, the spread of a foreach and the entry of a nested workflow; nothing else that is claimed."""
        phases = list(Phase)
        run = StartedRun(store, *(an_activation(f"{n}", phase=phase.value) for n, phase in enumerate(phases)))
        for n in range(len(phases)):
            run.claim(f"{n}")
        told = {phases[int(event["path"])] for event in run.event_docs("workflow-step-start")}
        assert told == {Phase.RUN, Phase.FAN_OUT, Phase.VALIDATE_INPUT}

    def test_a_parked_activation_is_claimed_without_an_event(self, store: Store) -> None:
        """Its start event was written before it was parked. The claim takes the reason away."""
        run = StartedRun(store, an_activation("0", parked="no such workflow"))
        assert run.claim("0").activation.parked == run.activation("0").parked == ""
        assert run.event_docs() == []

    def test_a_claim_of_no_activation_is_refused(self, store: Store) -> None:
        """The run is there, the path is not."""
        run = StartedRun(store, an_activation("0"))
        assert run.refused_claim("7", 1) == UNKNOWN

    def test_a_stale_message_claims_nothing(self, store: Store) -> None:
        """Another number than the activation's is of a message that has been overtaken."""
        run = StartedRun(store, an_activation("0"))
        seq = run.activation("0").seq
        assert run.refused_claim("0", seq - 1) == STALE
        assert run.refused_claim("0", seq + 1) == STALE
        assert run.activation("0").status == ActivationStatus.QUEUED

    def test_a_claim_is_refused_while_another_is_alive(self, store: Store) -> None:
        """A second token does not get in before the lease is over."""
        run = StartedRun(store, an_activation("0"))
        first = run.claim("0", lease=LONG)
        assert run.refused_claim("0", first.activation.seq) == BUSY
        assert run.activation("0") == first.activation

    def test_what_is_not_claimable_is_stale(self, store: Store) -> None:
        """An activation that is open, awaiting or ended is claimed by no worker, even under its own number."""
        states = [
            ActivationStatus.OPEN,
            ActivationStatus.SUSPENDED,
            ActivationStatus.WAITING,
            ActivationStatus.PAUSED,
            ActivationStatus.SUCCESS,
            ActivationStatus.FAILED,
        ]
        run = StartedRun(
            store, an_activation("0"), *(an_activation(f"1.{n}", status=state) for n, state in enumerate(states))
        )
        for n in range(len(states)):
            assert run.refused_claim(f"1.{n}", run.activation(f"1.{n}").seq) == STALE

    def test_a_retry_or_a_sleep_is_refused_before_its_moment(self, store: Store) -> None:
        """An old message does not skip the backoff; from its moment on the activation is claimable as it stands."""
        asleep = (
            an_activation("0", status=ActivationStatus.SLEEPING),
            an_activation("1", status=ActivationStatus.RETRYING, attempt=1),
        )
        run = StartedRun(store)
        run.commit_request(*(CreateActivation(activation, delay=LEASE) for activation in asleep))
        seqs = [run.activation(path).seq for path in ("0", "1")]
        assert [run.refused_claim(path, seq) for path, seq in zip("01", seqs, strict=True)] == [EARLY, EARLY]
        self.advance(store, LEASE)
        for path, seq in zip("01", seqs, strict=True):
            got = run.claim(path)
            assert (got.activation.status, got.activation.seq, got.activation.abandoned_attempts) == (
                ActivationStatus.RUNNING,
                seq,
                0,
            )

    def test_an_activation_is_taken_over_when_its_lease_is_over(self, store: Store) -> None:
        """By a sweep, which knows whether the lease could be renewed, and by no message.

        The takeover has its own number and counts an abandoned attempt. The first worker is refused after it.
        """
        run = StartedRun(store, an_activation("0"))
        first = run.claim("0", token="first", lease=LEASE)
        self.advance(store, LEASE)
        assert run.refused_claim("0", first.activation.seq) == BUSY
        second = run.take_over("0", token="second")
        assert (second.activation.abandoned_attempts, second.activation.restarted, second.activation.lease_token) == (
            1,
            True,
            "second",
        )
        assert second.activation.seq > first.activation.seq
        assert (second.activation.first_seq, second.activation.started_at) == (
            first.activation.first_seq,
            first.activation.started_at,
        )
        assert run.refused_claim("0", first.activation.seq) == STALE
        assert run.refused_commit("0", "first", UpdateActivation("0", {"status": ActivationStatus.FAILED})) == LOST
        assert run.activation("0") == second.activation

    def test_nothing_is_taken_over_where_that_is_not_wanted(self, store: Store) -> None:
        """A run that is not restarted by itself leaves the activation with its first worker, lease or no lease."""
        run = StartedRun(store, an_activation("0"), auto_restart=False)
        first = run.claim("0", token="first", lease=LEASE)
        self.advance(store, LEASE)
        assert run.refused_claim("0", first.activation.seq) == BUSY
        run.commit("0", "first", UpdateActivation("0", {"status": ActivationStatus.SUCCESS}))
        assert run.activation("0").status == ActivationStatus.SUCCESS

    def test_a_claim_in_a_run_that_is_not_active_is_refused(self, store: Store) -> None:
        """Claims are refused in a run that has ended and in one that has settled."""
        for state in (StoredStatus.CANCELED, StoredStatus.SUCCESS, StoredStatus.SUSPENDED, StoredStatus.PENDING):
            run = StartedRun(store, an_activation("0"))
            run.commit_request(UpdateRun({"status": state}))
            assert run.refused_claim("0", run.activation("0").seq) == ENDED_RUN

    def test_a_run_in_its_callers_process_is_claimed_there_alone(self, store: Store) -> None:
        """Nobody would miss a worker that died with it. The other way round, and of a report, a claim is granted."""
        for runtime, claimer, path, granted in (
            ("local", "celery", "0", False),
            ("local", "local", "0", True),
            ("local", "", "0", True),
            ("local", "celery", "-1.0", True),
            ("celery", "local", "0", True),
            ("", "celery", "0", True),
        ):
            run = StartedRun(store, an_activation(path), runtime=runtime)
            ask = ClaimRequest(run.id, path, run.activation(path).seq, new_token(), LONG, claimer)
            before = run.snapshot()
            answer = store.claim(ask)
            assert isinstance(answer, Claimed) is granted, (runtime, claimer, path)
            if isinstance(answer, Refused):
                assert (answer.reason, answer.header) == (ELSEWHERE, run.header)
                assert run.snapshot() == before
            else:
                assert store.claim(ask) == answer

    def test_a_repeated_claim_gets_the_first_answer_and_changes_nothing(self, store: Store) -> None:
        """Clients resend: the same token is the same worker, even when its lease is over."""
        run = StartedRun(store, an_activation("0", input="i"))
        run.commit_request(values={"i": "=1"}, state={"s": "=2"})
        ask = ClaimRequest(run.id, "0", run.activation("0").seq, "token", LEASE)
        first = store.claim(ask)
        events = store.events(run.id)
        assert store.claim(ask) == first
        self.advance(store, LEASE)
        assert store.claim(ask) == first
        assert store.events(run.id) == events

    def test_a_refusal_tells_how_the_run_stands(self, store: Store) -> None:
        """A refused claim and a refused commit bring the header; for a run that is not there it is None."""
        run = StartedRun(store, an_activation("0"))
        for path, seq in (("0", -1), ("7", 1)):
            answer = store.claim(ClaimRequest(run.id, path, seq, new_token()))
            assert isinstance(answer, Refused)
            assert answer.header == run.header
        for guard in (LeaseGuard("0", "nobody"), RequestGuard(new_token(), frozenset({StoredStatus.FAILED}))):
            refused = store.commit(run.id, Change(guard))
            assert isinstance(refused, Refused)
            assert refused.header == run.header
        assert store.claim(ClaimRequest(new_run_id(), "0", 1, new_token())) == Refused(UNKNOWN)
        assert store.commit(new_run_id(), Change(LeaseGuard("0", "nobody"))) == Refused(UNKNOWN)

    def test_one_of_many_claims_at_once_wins(self, store: Store) -> None:
        """The others hear that it is busy."""
        run = StartedRun(store, an_activation("0"))
        seq = run.activation("0").seq
        answers = each(lambda n: store.claim(ClaimRequest(run.id, "0", seq, f"t{n}", LONG)), range(8))
        won = [answer for answer in answers if isinstance(answer, Claimed)]
        assert len(won) == 1
        assert {answer.reason for answer in answers if isinstance(answer, Refused)} == {BUSY}
        assert run.activation("0") == won[0].activation
