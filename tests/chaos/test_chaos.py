"""Random workflows on real workers under faults: nothing is lost, stuck, wrong or done twice, whatever strikes.

The short form has a handful of faults. The long one has all of them, again and again;
`python -m tests.chaos --help` says how to play other rounds.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS, kinds_for
from tests.chaos.report import as_table
from tests.chaos.rounds import Form, play
from tests.chaos.servers import COMBINATIONS
from tests.servers import Unavailable
from tests.vendor import missing

SHORT = Form(seconds=0, pause=0.7, lease=5, pace=1.2)
LONG = Form(seconds=180, long_every=12, patience=300, together=True)
EVERYWHERE = ("KILL to a child", "TERM to a group", "KILL to a group", "store: lost answers", "a caller killed")
FEW = {
    "redis+redis": (*EVERYWHERE, "store: killed", "broker: flushed", "STOP to a child"),
    "rabbitmq+postgresql": (*EVERYWHERE, "store: cut", "broker: blink", "QUIT to a main process"),
}


def play_and_judge(combination: str, seed: int, form: Form, folder: Path, kinds: list[str]) -> None:
    try:
        played = play(combination, seed, form, folder / "round", kinds)
    except Unavailable as error:
        missing(str(error))
    table = as_table([played])
    print(table)
    assert sum(strike.hit > 0 for strike in played.strikes) >= len(played.strikes) / 2, table
    assert not played.violations, table


@pytest.mark.slow
@pytest.mark.parametrize("combination", FEW)
def test_a_few_faults_harm_nothing(combination: str, tmp_path: Path) -> None:
    """Each strikes once. The two rounds have every server, and take a minute each."""
    play_and_judge(combination, 11, SHORT, tmp_path, list(FEW[combination]))


@pytest.mark.chaos
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_all_faults_harm_nothing(combination: str, tmp_path: Path) -> None:
    """Each strikes once at least; processes, store and broker side by side; every twelfth outage is long."""
    play_and_judge(combination, 12, LONG, tmp_path, kinds_for(combination))


def test_every_combination_has_the_faults_of_its_servers() -> None:
    """Redis alone can be killed and filled: it is a process of the round's own."""
    assert set(kinds_for("redis+redis")) == set(FAULTS)
    assert set(FAULTS) - set(kinds_for("redis+postgresql")) == {"store: killed", "store: full"}
    assert set(FAULTS) - set(kinds_for("rabbitmq+postgresql")) == {"store: killed", "store: full", "broker: killed"}
    for combination, kinds in FEW.items():
        assert set(kinds) <= set(kinds_for(combination))
