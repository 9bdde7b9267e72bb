"""The model and the library agree where there are no faults: in the default runtime, over a store in memory."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator import Orchestrator, Run, RunResult
from tests.chaos import effects, flows
from tests.chaos.programs import BLOCKS, Fate, Way, expect, make_programs, steps_of

SEED = 3


def test_programs_have_every_kind_of_block_way_and_fate() -> None:
    """A few dozen programs hold everything that can be made."""
    programs = make_programs(SEED, 40)

    assert {step.way for program in programs for step in steps_of(program.flow)} == set(Way)
    assert {program.fate for program in programs} == set(Fate)
    assert len({type(node) for program in programs for node in program.flow}) == 8
    assert programs == make_programs(SEED, 40)
    assert programs != make_programs(SEED + 1, 40)


@pytest.mark.parametrize("number", range(2 * len(BLOCKS)))
def test_the_model_says_what_happens(number: int, tmp_path: Path) -> None:
    """Status, result and executions are as they were worked out."""
    program = make_programs(SEED, number + 1)[number]
    expected = expect(program, 7, 1000 + number)
    with Orchestrator(workflows=[flows.build(program, tmp_path)], tick_seconds=0.1, lease_seconds=2) as orchestrator:
        run = orchestrator.create_run(program.id)
        for event, data in expected.events.items():
            run.send_event(event, data)
        run.start(1000 + number, timeout=60)
        result = answer(run)
        if program.fate is Fate.TRAVEL:
            assert (result.status, result.result) == (expected.status, expected.result)
            run.time_travel(program.target_step, timeout=60)
            result = answer(run)

    assert (result.status, result.result) == (expected.status, expected.result)
    assert expected.state <= set(result.state or ()) <= expected.state | expected.open_state
    seen = {(each.step, each.attempt, each.resumed, each.key) for each in effects.read(tmp_path) if each.key}
    assert expected.executions + expected.travelled == _count(seen)


def answer(run: Run) -> RunResult:
    """Resume what asks, until the run has ended or only what stays is left."""
    while True:
        result = run.result(60)
        if result.status != "suspended" or any(label.startswith("stay:") for label in result.resume_labels):
            return result
        for label in result.resume_labels:
            run.submit_resume("me", label=label)
        time.sleep(0.02)  # a wait with a timeout is suspended too, until that has come


def _count(seen: set[tuple[str, int, bool, str]]) -> dict[tuple[str, int, bool], int]:
    counted: dict[tuple[str, int, bool], int] = {}
    for step, attempt, resumed, _ in seen:
        counted[step, attempt, resumed] = counted.get((step, attempt, resumed), 0) + 1
    return counted
