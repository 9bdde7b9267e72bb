"""Of two processes that want the same, one gets it and the other is refused; what they do happens once.

Every round is a new run. A racer is sometimes delayed a little, so that the rounds meet at different moments.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from orchestrator import Orchestrator
from tests.parity import calls
from tests.races import flows
from tests.races.racers import Act, Outcome, Race

SHORT, LONG = 4, 60
LATEST = 0.004  # seconds that a racer is delayed at most
REFUSED_RESUME = {"ResumeAlreadyClaimed", "RunNotSuspended", "StepNotSuspended"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder in which the effects are noted."""
    return tmp_path_factory.mktemp("races")


@pytest.fixture(scope="module", params=["redis", "postgresql", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of this module's own."""
    if request.param == "redis":
        return str(request.getfixturevalue("redis_server").url(9))
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_server").new_schema())
    return f"sqlite:///{tmp_path_factory.mktemp('races-store') / 'runs.db'}"


@pytest.fixture(scope="module")
def race(url: str, folder: Path) -> Iterator[Race]:
    """The racers live over all rounds on a store."""
    with Race(url, str(folder)) as race:
        yield race


@pytest.fixture
def orchestrator(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Orchestrator]:
    """Give the orchestrator that prepares the runs and looks at them afterwards."""
    monkeypatch.setenv(calls.FOLDER, str(folder))
    with Orchestrator(store=url, workflows=flows.ALL) as orchestrator:
        yield orchestrator


@pytest.fixture(params=[SHORT, pytest.param(LONG, marks=[pytest.mark.chaos, pytest.mark.slow])], ids=["short", "long"])
def rounds(request: pytest.FixtureRequest) -> Iterator[tuple[str, float, float]]:
    """Give so many rounds: a run id each, and how late the two begin."""
    chance = random.Random(request.param)
    return iter([(uuid4().hex, *_late(chance)) for _ in range(request.param)])


def _late(chance: random.Random) -> tuple[float, float]:
    late = chance.choice([0.0, chance.random() * LATEST])
    return (late, 0.0) if chance.random() < 0.5 else (0.0, late)


Rounds = Iterator[tuple[str, float, float]]


def one_won(outcomes: tuple[Outcome, Outcome], refusals: set[str]) -> None:
    """Exactly one; the other was refused with an error of its own class."""
    winners = [outcome for outcome in outcomes if outcome.won]
    losers = [outcome for outcome in outcomes if not outcome.won]
    assert len(winners) == 1, outcomes
    assert winners[0].status == "success", outcomes
    assert losers[0].error in refusals, outcomes


def test_one_of_two_resumes_wins(race: Race, orchestrator: Orchestrator, rounds: Rounds) -> None:
    """The step gets the winner's data, once."""
    for run_id, early, late in rounds:
        assert orchestrator.create_run("race-one", run_id=run_id).start("x").status == "suspended"
        acts = [Act("resume", run_id, data, late=behind) for data, behind in (("first", early), ("second", late))]

        outcomes = race.run(*acts)

        one_won(outcomes, REFUSED_RESUME)
        told = "first" if outcomes[0].won else "second"
        assert calls.calls(run_id, "ask") == [told]
        assert calls.calls(run_id, "charge") == [told]
        assert orchestrator.get_run(run_id).result().result == told


def test_one_of_two_starts_wins(race: Race, orchestrator: Orchestrator, rounds: Rounds) -> None:
    """Under one run id there is one run, with the winner's input."""
    for run_id, early, late in rounds:
        outcomes = race.run(Act("start", run_id, "first", late=early), Act("start", run_id, "second", late=late))

        one_won(outcomes, {"StartAlreadyClaimed"})
        told = "first" if outcomes[0].won else "second"
        assert calls.calls(run_id, "charge") == [told]
        assert orchestrator.get_run(run_id).result().input == told


def test_a_resume_and_a_cancel_agree_on_what_the_run_is(race: Race, orchestrator: Orchestrator, rounds: Rounds) -> None:
    """Either the run has been canceled, or it has ended; both say the same of it, and the effect fits."""
    ways: Counter[str] = Counter()
    for run_id, early, late in rounds:
        assert orchestrator.create_run("race-one", run_id=run_id).start("x").status == "suspended"

        resumed, canceled = race.run(Act("resume", run_id, "go", late=early), Act("cancel", run_id, late=late))

        status = orchestrator.get_run(run_id).status
        assert canceled == Outcome(status), (resumed, canceled)
        assert status in ("canceled", "success")
        if status == "success":
            assert resumed == Outcome("success")
            assert calls.count(run_id, "charge") == 1
        elif resumed.won:  # it went on, and was canceled in the middle
            assert resumed.status == "canceled"
            assert calls.count(run_id, "charge") <= 1
        else:
            assert resumed.error in REFUSED_RESUME, resumed
            assert (calls.count(run_id, "ask"), calls.count(run_id, "charge")) == (0, 0)
        ways[f"{status}, resume {'taken' if resumed.won else 'refused'}"] += 1
    print(dict(ways))


def test_resumes_of_two_steps_both_win(race: Race, orchestrator: Orchestrator, rounds: Rounds) -> None:
    """Each step gets its own, and what follows both happens once."""
    for run_id, early, late in rounds:
        assert orchestrator.create_run("race-two", run_id=run_id).start("x").status == "suspended"

        left, right = race.run(
            Act("resume", run_id, "l", "left", late=early), Act("resume", run_id, "r", "right", late=late)
        )

        assert left.won, left
        assert right.won, right
        result = orchestrator.get_run(run_id).result(20)
        assert (result.status, result.result) == ("success", {"left": "l", "right": "r"})
        assert (calls.calls(run_id, "left"), calls.calls(run_id, "right")) == (["l"], ["r"])
        assert calls.count(run_id, "charge") == 1
