"""The model and the library agree where there are no faults: in the default runtime, over a store in memory."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator import Orchestrator, Run, RunResult
from tests.chaos import effects, flows
from tests.chaos.programs import BLOCKS, Fate, Program, Way, expect, make_programs, steps_of

SEED = 3
PROGRAMS = make_programs(SEED, 3 * len(BLOCKS))


def test_programs_have_every_kind_of_block_way_and_fate() -> None:
    """A few dozen programs hold everything that can be made, and a seed makes the same ones each time."""
    programs = make_programs(SEED, 40)

    assert {step.way for program in programs for step in steps_of(program.flow)} == set(Way)
    assert {program.fate for program in programs} == set(Fate)
    assert len({type(node) for program in programs for node in program.flow}) == 8
    assert programs == make_programs(SEED, 40)
    assert programs != make_programs(SEED + 1, 40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the effects of all programs."""
    return tmp_path_factory.mktemp("effects")


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, RunResult]:
    """The results of all programs, which are played side by side, since most of them wait."""
    workflows = [flows.build(program, folder) for program in PROGRAMS]
    with (
        Orchestrator(workflows=workflows, tick_seconds=0.1, lease_seconds=2) as orchestrator,
        ThreadPoolExecutor(len(PROGRAMS)) as pool,
    ):
        return dict(pool.map(lambda program: (program.id, play(orchestrator, program)), PROGRAMS))


def play(orchestrator: Orchestrator, program: Program) -> RunResult:
    """Start a run, do to it what the program says, and return what came of it."""
    run = orchestrator.create_run(program.id, run_id=program.id)
    for event, data in expect(program, 7, 1000).events.items():
        run.send_event(event, data)
    run.submit(1000)
    result = answer(run)
    if program.fate is Fate.TRAVEL:
        assert result.status == "success"
        run.submit_time_travel(program.target_step)
        result = answer(run)
    return result


def answer(run: Run) -> RunResult:
    """Resume what asks, until the run has ended or only what stays is left."""
    while True:
        result = run.result(60)
        if result.status != "suspended" or any(label.startswith("stay:") for label in result.resume_labels):
            return result
        for label in result.resume_labels:
            run.submit_resume("me", label=label)
        time.sleep(0.02)  # a wait with a timeout is suspended too, until that has come


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.id)
def test_the_model_says_what_happens(program: Program, results: dict[str, RunResult], folder: Path) -> None:
    """Status, result, state and executions are as they were worked out."""
    expected, result = expect(program, 7, 1000), results[program.id]

    assert (result.status, result.result) == (expected.status, expected.result)
    assert expected.state <= set(result.state or ()) <= expected.state | expected.open_state
    begun = {
        ((each.step, each.attempt, each.resumed), each.key)
        for each in effects.read(folder)
        if each.run == program.id and each.what == effects.BEGIN
    }
    assert Counter(execution for execution, _ in begun) == expected.executions + expected.travelled
