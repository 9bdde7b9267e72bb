"""Random workflows on real workers under faults: nothing is lost, stuck, wrong or done twice, whatever strikes.

The short form has a handful of faults for each combination of servers. The long one has all of them, again and again;
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

SHORT = Form(seconds=0, pause=0.7, lease=5)
LONG = Form(seconds=180, long_every=12, patience=300)
FEW = {
    "redis+redis": ("KILL to a child", "TERM to a group", "store: killed", "broker: flushed", "STOP to a child"),
    "rabbitmq+postgresql": ("KILL to a main process", "store: cut", "broker: blink", "TERM to a child"),
    "redis+postgresql": ("KILL to a group", "broker: killed", "store: black hole", "QUIT to a main process"),
}
EVERYWHERE = ("store: lost answers", "a caller killed")


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
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_a_few_faults_harm_nothing(combination: str, tmp_path: Path) -> None:
    """Each strikes once."""
    play_and_judge(combination, 11, SHORT, tmp_path, [*FEW[combination], *EVERYWHERE])


@pytest.mark.chaos
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_all_faults_harm_nothing(combination: str, tmp_path: Path) -> None:
    """Each strikes once at least, and every twelfth outage is long."""
    play_and_judge(combination, 12, LONG, tmp_path, kinds_for(combination))


def test_every_combination_has_the_faults_of_its_servers() -> None:
    """Redis alone can be killed and filled: it is a process of the round's own."""
    assert set(kinds_for("redis+redis")) == set(FAULTS)
    assert set(FAULTS) - set(kinds_for("redis+postgresql")) == {"store: killed", "store: full"}
    assert set(FAULTS) - set(kinds_for("rabbitmq+postgresql")) == {"store: killed", "store: full", "broker: killed"}
    for combination in COMBINATIONS:
        assert set(FEW[combination]) | set(EVERYWHERE) <= set(kinds_for(combination))
