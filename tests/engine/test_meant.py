"""Answers, events and cancels go to what they name, or are refused: never to something else that happens to wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orchestrator import (
    BrokerUnavailable,
    Context,
    Orchestrator,
    ResumeAlreadyClaimed,
    Run,
    RunIsNested,
    RunNotSuspended,
    StepNotFound,
    StepNotSuspended,
    SuspensionOver,
    Workflow,
    step,
)
from orchestrator.rules.model import Activation
from orchestrator.stores import MemoryStore


class Interrupted(MemoryStore):
    """Lets something happen between the reading of what waits and the commit that follows."""

    meanwhile: Callable[[], object] | None = None

    def load_awaiting(self, run_id: str, **which: Any) -> list[Activation]:
        found = super().load_awaiting(run_id, **which)
        self._happen()
        return found

    def header(self, run_id: str) -> Any:
        found = super().header(run_id)
        if self.before_awaiting:
            self._happen()
        return found

    before_awaiting = False

    def _happen(self) -> None:
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            happens()


@pytest.fixture
def store() -> Interrupted:
    return Interrupted()


@pytest.fixture
def orchestrator(store: Interrupted) -> Iterator[Orchestrator]:
    with Orchestrator(store=store) as found:
        yield found


@step
def ask(given: Any, ctx: Context) -> Any:
    """Suspend, and return the answer."""
    return ctx.resume_data if ctx.resumed else ctx.suspend({"about": given})


asking = Workflow("asking").then(ask).commit()
twice = Workflow("twice").do_until(ask, lambda answer: answer == "enough").commit()
many = Workflow("many", input=list[int]).foreach(ask, concurrency=9).commit()


def token_of(run: Run) -> str:
    (token,) = run.result().resume_tokens
    return token


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_an_answer_that_comes_twice_is_not_taken_for_the_next_question(orchestrator: Orchestrator) -> None:
    """A double click, or a webhook that is sent again: nothing is written."""
    run = orchestrator.create_run(twice).submit(1)
    first = token_of(run)
    assert run.resume("more", token=first).status == "suspended"
    before = orchestrator.store.header(run.run_id)

    for named in (None, "ask"):
        with pytest.raises(SuspensionOver, match=f"no step of run .* is suspended with the token '{first}'"):
            run.resume("enough", token=first, step=named)

    assert orchestrator.store.header(run.run_id) == before
    assert token_of(run) != first
    assert run.resume("enough", token=token_of(run)).result == "enough"
    with pytest.raises(RunNotSuspended):
        run.resume("enough", token=first)


def test_without_a_token_the_question_that_waits_is_answered(orchestrator: Orchestrator) -> None:
    """As before there were tokens."""
    run = orchestrator.create_run(twice)
    assert run.start(1).status == "suspended"
    assert run.resume("more").status == "suspended"
    assert run.resume("enough").result == "enough"


def test_a_token_names_one_item(orchestrator: Orchestrator) -> None:
    """Readers are told which, in results, records and events."""
    run = orchestrator.create_run(many)
    tokens = run.start([7, 8]).resume_tokens
    assert sorted(tokens.values(), key=str) == [{"step_id": "ask", "foreach_index": n} for n in (0, 1)]
    second = next(token for token, where in tokens.items() if where["foreach_index"] == 1)
    record = orchestrator.runs.get(run.run_id, fields=["resume_tokens"])
    assert record is not None
    assert record.resume_tokens == tokens
    told = [e.payload["resume_token"] for e in run.events() if e.type == "workflow-step-suspended"]
    assert set(told) == set(tokens)

    assert run.resume("eight", token=second).resume_tokens.keys() == tokens.keys() - {second}
    assert run.resume("seven").result == ["seven", "eight"]


def test_a_token_of_another_run_of_the_same_id_is_over(orchestrator: Orchestrator) -> None:
    """Also where the same step waits at the same place."""
    run = orchestrator.create_run(asking, run_id="order-7").submit(1)
    token = token_of(run)
    run.cancel()
    orchestrator.runs.delete("order-7")
    again = orchestrator.create_run(asking, run_id="order-7").submit(1)
    assert again.result().status == "suspended"
    with pytest.raises(SuspensionOver):
        again.resume("yes", token=token)


def test_a_token_survives_an_answer_that_was_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker was away: whoever tries again means the same question."""

    def away(*_: Any) -> None:
        raise BrokerUnavailable("away")

    with Orchestrator(broker_away="refuse") as orchestrator:
        run = orchestrator.create_run(asking).submit(1)
        token = token_of(run)
        with monkeypatch.context() as patch:
            patch.setattr(orchestrator.client.runtime, "publish", away)
            with pytest.raises(BrokerUnavailable):
                run.resume("yes", token=token)
        assert run.resume("yes", token=token).result == "yes"


@pytest.mark.parametrize("wrong", [5, b"token", ["token"]])
def test_a_token_is_a_text(orchestrator: Orchestrator, wrong: Any) -> None:
    """Anything else is refused by name."""
    run = orchestrator.create_run(asking).submit(1)
    run.result()
    with pytest.raises(TypeError, match="`token` is a text"):
        run.submit_resume("yes", token=wrong)


# --- an id that is used again ---------------------------------------------------------------------------------------


def test_what_is_under_way_of_a_deleted_run_does_not_touch_the_next_of_its_id() -> None:
    """A message names a number that the second run never comes to; other systems see other keys."""
    keys: list[str] = []
    note = step(lambda _, ctx: keys.append(ctx.idempotency_key), id="note")
    flow = Workflow("noting").then(note).then(ask).commit()
    with Orchestrator(workflows=[flow]) as orchestrator:
        sent: list[tuple[str, int]] = []
        for _ in range(2):
            run = orchestrator.create_run(flow, run_id="order-7")
            assert run.start(1).status == "suspended"
            # The messages of the run before, those that it has sent and some that it might have.
            for path, seq in sent:
                assert all(orchestrator.executor.execute("order-7", path, seq + more) is None for more in range(-3, 9))
            assert run.status == "suspended"
            sent = [(found.path, found.seq) for found in orchestrator.store.load("order-7")]
            run.cancel()
            orchestrator.runs.delete("order-7")
    assert len(set(keys)) == len(keys) == 2
    assert all(key.startswith("order-7.") and key.endswith("/0") for key in keys)


# --- what happened meanwhile -----------------------------------------------------------------------------------------


def test_a_run_that_was_canceled_is_not_said_to_be_resumed(orchestrator: Orchestrator, store: Interrupted) -> None:
    """Nobody has resumed it."""
    run = orchestrator.create_run(asking).submit(1)
    run.result()
    store.meanwhile = run.cancel
    with pytest.raises(RunNotSuspended, match="is canceled by now") as caught:
        run.resume("yes")
    assert caught.value.details["actual_status"] == "canceled"


def test_whoever_was_second_is_told_so(orchestrator: Orchestrator, store: Interrupted) -> None:
    """Here another caller has resumed the step, whose question then comes again."""
    run = orchestrator.create_run(twice).submit(1)
    run.result()
    store.meanwhile = lambda: run.resume("more")
    with pytest.raises(ResumeAlreadyClaimed, match="another caller has resumed it"):
        run.resume("yes")


def test_a_run_that_has_just_gone_on_is_not_said_to_be_suspended(
    orchestrator: Orchestrator, store: Interrupted
) -> None:
    """It was when its header was read."""
    run = orchestrator.create_run(asking).submit(1)
    run.result()
    store.before_awaiting, store.meanwhile = True, lambda: run.resume("no")
    with pytest.raises(RunNotSuspended, match="is success by now: nothing in it is suspended"):
        run.resume("yes")


def test_a_run_that_waits_for_an_event_says_so(orchestrator: Orchestrator) -> None:
    """It is suspended, but no step in it is."""
    flow = Workflow("listening").wait_for_event("paid").commit()
    run = orchestrator.create_run(flow).submit(1)
    run.result()
    with pytest.raises(
        RunNotSuspended, match="no step of run .* is suspended: paid wait for an event, see `send_event`"
    ):
        run.resume("yes")


# --- nested workflows ------------------------------------------------------------------------------------------------

child = Workflow("child").wait_for_event("reply").commit()
other = Workflow("other").wait_for_event("reply").commit()
family = Workflow("family").parallel(other, child).commit()
slow = Workflow("slow").then(ask).wait_for_event("reply").commit()
shy = Workflow("shy").parallel(slow, other).commit()


def test_an_event_for_a_nested_workflow_goes_to_a_wait_in_it(orchestrator: Orchestrator) -> None:
    """And not to the first wait of the run."""
    run = orchestrator.create_run(family).submit(1)
    run.result()
    orchestrator.get_run(f"{run.run_id}/0.1").send_event("reply", "for the child")
    assert run.result().suspended == [["other", "reply"]]
    run.send_event("reply", "for whoever waits")
    assert run.result().result == {"other": "for whoever waits", "child": "for the child"}


def test_an_event_for_a_nested_workflow_that_does_not_wait_is_refused(orchestrator: Orchestrator) -> None:
    """The mailbox is the run's: whoever waits next would take it."""
    run = orchestrator.create_run(shy).submit(1)
    run.result()
    nested = orchestrator.get_run(f"{run.run_id}/0.0")
    with pytest.raises(StepNotSuspended, match="nothing in 0.0 of run .* waits for the event 'reply' at present"):
        nested.send_event("reply", 1)
    with pytest.raises(StepNotFound, match="the nested workflow at 0.0 of 'shy' waits for no event 'paid'"):
        nested.send_event("paid", 1)
    assert run.result().suspended == [["slow", "ask"], ["other", "reply"]]
    nested.resume("go on")
    nested.send_event("reply", "now")
    assert run.result().suspended == [["other", "reply"]]


@pytest.mark.parametrize("verb", ["cancel", "revoke", "restart", "submit_restart"])
def test_a_nested_workflow_is_not_ended_by_itself(orchestrator: Orchestrator, verb: str) -> None:
    """It is a part of its run: whoever wants that ended says so."""
    run = orchestrator.create_run(family).submit(1)
    run.result()
    nested = orchestrator.get_run(f"{run.run_id}/0.1")
    with pytest.raises(RunIsNested, match=f"that is done to the run '{run.run_id}' as a whole"):
        getattr(nested, verb)()
    assert run.status == "suspended"
