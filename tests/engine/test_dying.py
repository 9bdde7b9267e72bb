"""A process that dies commits nothing; what is behind it in the same delivery is found by its mark."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from billiard import common

from orchestrator import Context, Orchestrator, Workflow, step
from orchestrator.canvas.processes import dying_of
from orchestrator.engine.abandoned import Delivery, fail_by_limit, give_back
from orchestrator.engine.calling import ProcessSigns
from orchestrator.host import delivery_mark, new_token
from orchestrator.rules.change import Claimed, ClaimRequest
from orchestrator.rules.model import Activation


@pytest.fixture
def _fired() -> Iterator[None]:
    """The pool's handler has run in this process."""
    common._should_have_exited[0] = True
    yield
    common._should_have_exited[0] = False


@pytest.mark.usefixtures("_fired")
@pytest.mark.parametrize("error", [None, ValueError("while cleaning up"), SystemExit(-241)])
def test_after_the_handler_nothing_is_an_outcome(error: BaseException | None) -> None:
    """Not a return, nor another error: the process dies of an exit, which no task catches."""
    with pytest.raises(SystemExit):
        ProcessSigns(dying_of).raise_if_dying(error)


@pytest.mark.parametrize("code", [None, 0, 3, -241])
def test_an_exit_by_itself_is_the_functions(code: int | None) -> None:
    """Whatever its code: the handler has not run."""
    ProcessSigns(dying_of).raise_if_dying(SystemExit(code))


@pytest.mark.usefixtures("_fired")
def test_a_task_that_runs_a_workflow_in_its_own_process_does_not_fail_it_either() -> None:
    """The default runtime is in a pool's child there, and dies with it."""

    @step
    def stopped(data: int) -> None:
        raise SystemExit(-241)

    with Orchestrator(workflows=[Workflow("stopped").then(stopped).commit()]) as orchestrator:
        run = orchestrator.create_run("stopped")
        with pytest.raises(SystemExit):
            run.start(1)
        assert run.status == "running"


class Left:
    """A run whose first step a process has claimed, and then left; and what that process had claimed after it."""

    def __init__(self, orchestrator: Orchestrator, flow: str) -> None:
        self.executor, self.store = orchestrator.executor, orchestrator.store
        self.run = orchestrator.create_run(flow)
        orchestrator.client.runtime.publish = lambda header, dispatches, **_: None  # type: ignore[method-assign]
        orchestrator.client.runtime.drive = lambda run_id, timeout=None: None  # type: ignore[method-assign]
        self.run.submit(1)
        self.delivery = Delivery(self.run.run_id, "0", "message@worker:1")

    def claim(self, path: str, mark: str) -> Claimed:
        """Claim an activation as a delivery with this mark does."""
        found = self.at(path)
        answer = self.store.claim(ClaimRequest(self.run.run_id, path, found.seq, new_token(mark)))
        assert isinstance(answer, Claimed)
        return answer

    def at(self, path: str) -> Activation:
        """The activation as it is."""
        return self.store.load(self.run.run_id, [path])[0]


@step(retries=1, retry_delay=60)
def one(data: int, ctx: Context) -> int:
    return data


@pytest.fixture
def left() -> Iterator[Left]:
    """Two steps side by side, of which a delivery has claimed the first."""
    flow = Workflow("two").parallel(one, step(lambda data: data, id="other")).commit()
    with Orchestrator(workflows=[flow]) as orchestrator:
        yield Left(orchestrator, "two")


def test_the_claims_of_a_delivery_are_given_back_wherever_they_are(left: Left) -> None:
    """And no others: the same message in another process is another delivery."""
    mine, path = delivery_mark(left.delivery.id), "0.1"
    left.claim("0.0", delivery_mark("message@worker:2"))
    left.claim(path, mine)
    give_back(left.executor, left.delivery)
    assert (left.at(path).status, left.at(path).abandoned_attempts, left.at(path).restarted) == ("queued", 1, True)
    assert left.at("0.0").status == "running"


def test_a_limit_ends_the_step_of_the_message_and_gives_the_others_back(left: Left) -> None:
    """An attempt that failed there, with its retry; no attempt at all here."""
    mine = delivery_mark(left.delivery.id)
    left.claim("0.0", mine)
    fail_by_limit(left.executor, Delivery(left.run.run_id, "0.0", left.delivery.id), TimeoutError("late"))
    assert (left.at("0.0").status, left.at("0.0").attempt) == ("retrying", 1)
    left.claim("0.1", mine)
    fail_by_limit(left.executor, Delivery(left.run.run_id, "0.0", left.delivery.id), TimeoutError("late"))
    assert (left.at("0.1").status, left.at("0.1").attempt) == ("queued", 0)


def test_the_tokens_of_one_delivery_have_its_mark_and_never_come_back() -> None:
    """By which they are found; one that nobody has named has none."""
    mark = delivery_mark("message@worker:1")
    tokens = {new_token(mark) for _ in range(1000)}
    assert len(tokens) == 1000
    assert all(token.startswith(mark) for token in tokens)
    assert delivery_mark("") == ""
    assert delivery_mark("message@worker:2") != mark
