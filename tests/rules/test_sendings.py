"""Tasks that are sent: which claim is of the present, and what keeps what is of the past out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.rules import sendings
from orchestrator.rules.apply import STALE, Applied, claim
from orchestrator.rules.attempt_commands import must_give_up, release
from orchestrator.rules.change import ClaimRequest, Refused, UpdateActivation
from orchestrator.rules.commands import restart
from orchestrator.rules.envelope import CommitLimits
from orchestrator.rules.graph import Graph, Route, Step
from orchestrator.rules.model import Activation, ActivationStatus, Phase, RunHeader, StoredStatus
from orchestrator.rules.plan import ClaimedNode
from orchestrator.rules.timers import LONG, SHORT, on_deadline

NOW = 100_000
HEADER = RunHeader(run_id="run", status=StoredStatus.RUNNING, runtime="celery", updated_at=NOW, commits=9)
LIMITS = CommitLimits(lease=300, redelivery_delay=200)
GRAPH = Graph("w", (Step("charge", "TASK", Route("w.charge", task="billing.charge")),), "f")


def task(status: str, **fields: object) -> Activation:
    """The activation of a task, in its second sending."""
    known = {"path": "0", "step": "charge", "sending": 2, "sender": "S", "seq": 5, "deadline": NOW, "started_at": 1}
    token = {"lease_token": "S"} if status == "running" else {}
    return Activation(status=status, **{**known, **token, **fields})  # type: ignore[arg-type]


def ask(sending: int = 2, sender: str = "S") -> ClaimRequest:
    """The claim of an execution."""
    return ClaimRequest("run", "0", 0, "R", 300, sending=sending, sender=sender)


LIVE_OF_TASK = [
    task("queued", phase=Phase.LOOK),
    task("queued"),  # its sender has died
    task("running"),  # its sender has not committed yet, or this is the retry of the execution that is at work
    task("running", phase=Phase.LOOK, lease_token="L"),
    task("sent"),
]


@pytest.mark.parametrize("found", LIVE_OF_TASK, ids=lambda found: f"{found.status}-{found.phase}")
def test_the_present_message_is_executed_whoever_has_the_step(found: Activation) -> None:
    """The claim takes it from its sender, from who looks after it, and from the execution before a retry."""
    answer = claim(ask(), HEADER, found, NOW)
    assert isinstance(answer, Applied)
    now = answer.activations["0"]
    assert (now.status, now.lease_token, now.sender, now.phase) == ("running", "R", "R", Phase.EXECUTE)
    assert now.deadline == NOW + 300
    assert answer.events == ()


@pytest.mark.parametrize("request_", [ask(sending=1), ask(sending=3), ask(sender="older"), ask(sender="")])
@pytest.mark.parametrize("found", LIVE_OF_TASK, ids=lambda found: f"{found.status}-{found.phase}")
def test_a_message_of_the_past_is_not_executed(found: Activation, request_: ClaimRequest) -> None:
    """Of another sending, or sent by a claim that is not the last one."""
    assert claim(request_, HEADER, found, NOW) == Refused(STALE, HEADER)


@pytest.mark.parametrize("status", ["success", "failed", "suspended"])
def test_nothing_is_executed_for_a_step_that_has_ended(status: str) -> None:
    """Whatever its message says."""
    assert claim(ask(), HEADER, task(status), NOW) == Refused(STALE, HEADER)


def test_a_claim_of_an_execution_that_is_repeated_gets_the_first_answer() -> None:
    """Its answer was lost."""
    first = claim(ask(), HEADER, task("sent"), NOW)
    assert isinstance(first, Applied)
    again = claim(ask(), first.header, first.activations["0"], NOW + 1)
    assert isinstance(again, Applied)
    assert again.repeated


@pytest.mark.parametrize("phase, sender", [(Phase.RUN, "S2"), (Phase.LOOK, "S"), (Phase.SEND_AGAIN, "S")])
def test_who_sends_is_known_and_who_looks_changes_nothing(phase: Phase, sender: str) -> None:
    """A message that is sent again unseen stays the present one."""
    answer = claim(ClaimRequest("run", "0", 5, "S2", 300), HEADER, task("queued", phase=phase), NOW)
    assert isinstance(answer, Applied)
    assert answer.activations["0"].sender == sender


def test_a_step_of_its_own_code_names_no_sender() -> None:
    """It is no task."""
    answer = claim(ClaimRequest("run", "0", 5, "S2", 300), HEADER, task("queued", sending=0, sender=""), NOW)
    assert isinstance(answer, Applied)
    assert answer.activations["0"].sender == ""


@pytest.mark.parametrize(
    "header, found, sending, counts",
    [
        (HEADER, task("sent"), 2, True),
        (HEADER, task("running"), 2, True),
        (HEADER, task("queued"), 2, True),
        (HEADER, task("sent"), 1, False),
        (HEADER, task("success"), 2, False),
        (replace(HEADER, closed=True), task("sent"), 2, False),
        (replace(HEADER, status=StoredStatus.CANCELED), task("sent"), 2, False),
    ],
)
def test_word_of_an_end_counts_for_the_present_sending(
    header: RunHeader, found: Activation, sending: int, counts: bool
) -> None:
    """Even before the commit that says that it was sent."""
    assert sendings.may_end(header, found, sending) is counts


def update(found: Activation, **options: object) -> dict[str, object]:
    """What follows from its deadline."""
    action = on_deadline(HEADER, found, 200, **options)  # type: ignore[arg-type]
    assert action is not None
    (op,) = action.change.ops
    assert isinstance(op, UpdateActivation)
    return dict(op.fields)


@pytest.mark.parametrize("queue, phase", [(SHORT, Phase.SEND_AGAIN), (LONG, Phase.LOOK)])
def test_a_task_of_which_nothing_is_heard_is_looked_for(queue: object, phase: Phase) -> None:
    """It is sent again only where its queue is short."""
    assert update(task("sent"), queue=queue) == {"status": ActivationStatus.QUEUED, "phase": phase}


def test_a_lost_execution_begins_another_sending() -> None:
    """Celery itself calls the lost one failed, under the old id. What a retry has chosen as arguments stays."""
    found = task("running", phase=Phase.EXECUTE, arguments="a", task_retries=1, sent_at=7)
    fields = update(found)
    assert fields == {
        "status": "queued",
        "abandoned_attempts": 1,
        "restarted": True,
        "sending": 3,
        "phase": Phase.RUN,
        "sender": "",
        "sent_at": 0,
    }


def test_a_lost_sender_sends_again_under_the_same_id() -> None:
    """Nobody knows whether it had sent."""
    assert "sending" not in update(task("running"))


@pytest.mark.parametrize("phase", [Phase.LOOK, Phase.SEND_AGAIN])
def test_who_looks_and_dies_counts_as_no_attempt(phase: Phase) -> None:
    """The task is where it was; looking is tried for ever."""
    found = task("running", phase=phase, abandoned_attempts=3)
    fields = update(found)
    assert (fields["abandoned_attempts"], fields["restarted"], "sending" in fields) == (3, False, False)
    assert not must_give_up(replace(found, status=ActivationStatus.QUEUED))


@pytest.mark.parametrize("is_abandoned", [True, False])
def test_an_execution_that_is_given_back_begins_another_sending(is_abandoned: bool) -> None:
    """Whether its worker was told to stop, or died."""
    change = release(HEADER, task("running", phase=Phase.EXECUTE), 5, LIMITS, is_abandoned=is_abandoned)
    assert change is not None
    (op,) = change.ops
    assert isinstance(op, UpdateActivation)
    assert (op.fields["sending"], op.fields["sender"]) == (3, "")


def test_a_restart_forgets_all_of_a_task() -> None:
    """Its messages, links and retries are of the past, and so are the arguments that it had chosen."""
    change = restart(HEADER, [task("sent", arguments="a", task_retries=2)], NOW, "q", LIMITS)
    (op,) = change.ops
    assert isinstance(op, UpdateActivation)
    assert {name: op.fields[name] for name in ("sending", "arguments", "task_retries")} == {  # type: ignore[literal-required]
        "sending": 3,
        "arguments": "",
        "task_retries": 0,
    }


@pytest.mark.parametrize(
    "waited, left, pause",
    [(0, None, 200), (1_000, None, 1_000), (10**9, None, 300_000), (1_000, 50, 50), (0, 90_000, 200)],
)
def test_looks_grow_rare_and_never_pass_the_timeout(waited: int, left: int | None, pause: int) -> None:
    """After as long as it has taken until now; every five minutes at least."""
    claimed = ClaimedNode(GRAPH, HEADER, task("running", phase=Phase.LOOK, sent_at=NOW - waited), "")
    (op,) = sendings.look_later(claimed, 200, left).ops
    assert isinstance(op, UpdateActivation)
    assert (op.fields, op.delay) == ({"status": ActivationStatus.SENT}, pause)
