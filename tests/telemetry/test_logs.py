"""Every log record of a run says of which run it is."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from orchestrator import Context, Orchestrator, Workflow, step
from tests.telemetry.flows import breaking


@step
def talk(data: object, ctx: Context) -> None:
    ctx.logger.warning("from the step", extra={"mine": 1, "step": "theirs"})


inner = Workflow("inner").then(talk).commit()


def hook(info: object) -> None:
    info.logger.warning("from the hook")  # type: ignore[attr-defined]


talking = Workflow("talking", on_start=hook, on_finish=hook).then(inner).commit()


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Give pytest's capture of logs, from DEBUG on."""
    with caplog.at_level(logging.DEBUG, "orchestrator"):
        yield caplog


def test_what_user_code_logs_says_where(logged: pytest.LogCaptureFixture) -> None:
    """A step's own `extra` is kept, and cannot say of another step."""
    with Orchestrator(workflows=[talking]) as orchestrator:
        run = orchestrator.create_run(talking)
        run.start()

    about = [vars(record) for record in logged.records if record.getMessage() == "from the step"]
    assert [(a["run_id"], a["workflow_id"], a["step"], a["mine"]) for a in about] == [(run.run_id, "inner", "talk", 1)]
    hooks = [vars(record) for record in logged.records if record.getMessage() == "from the hook"]
    assert [(a["run_id"], a["workflow_id"]) for a in hooks] == [(run.run_id, "talking")] * 2


def test_a_run_that_goes_well_leaves_a_line_with_its_id(logged: pytest.LogCaptureFixture) -> None:
    """Who looks for a run in the log of a worker finds it, and what became of it."""
    with Orchestrator(workflows=[talking]) as orchestrator:
        run = orchestrator.create_run(talking)
        run.start()
    lines = [each for each in logged.records if each.getMessage() == f"run {run.run_id} of talking is success"]
    assert [(each.levelname, vars(each)["run_id"]) for each in lines] == [("INFO", run.run_id)]


def test_what_the_engine_logs_says_where(logged: pytest.LogCaptureFixture) -> None:
    """Of the step that has failed."""
    with Orchestrator(workflows=[breaking]) as orchestrator:
        run = orchestrator.create_run(breaking)
        run.start()

    (failed,) = [vars(record) for record in logged.records if record.levelno == logging.ERROR]
    assert (failed["run_id"], failed["workflow_id"], failed["step"]) == (run.run_id, "inside", "break_down")
