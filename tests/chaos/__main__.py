"""The long form: `python -m tests.chaos --seconds 600 --seeds 1,2 --combinations redis+redis --report FILE`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.chaos.faults import FAULTS
from tests.chaos.report import as_json, as_table
from tests.chaos.rounds import Form, play
from tests.chaos.servers import COMBINATIONS


def main() -> int:
    """Play a round for each seed and combination; returns 1 if something must not be."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=180, help="how long faults strike in each round, each kind at least once"
    )
    parser.add_argument("--seeds", default="", help="numbers, separated by commas; without it one by chance")
    parser.add_argument("--combinations", default=",".join(COMBINATIONS))
    parser.add_argument("--faults", default="", help="kinds of faults, separated by commas; without it all")
    parser.add_argument("--outage", type=float, default=1.0, help="seconds")
    parser.add_argument("--long-outage", type=float, default=120.0, help="seconds; every 12th fault")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds after which a run is stuck")
    parser.add_argument("--lease", type=float, default=8.0)
    parser.add_argument("--pace", type=float, default=0.8, help="seconds between two starts of a starter")
    parser.add_argument("--together", action="store_true", help="strike processes, store and broker side by side")
    parser.add_argument("--folder", type=Path, help="where rounds are kept; without it a temporary folder")
    parser.add_argument("--report", type=Path, help="a file for the numbers as JSON")
    given = parser.parse_args()
    kinds = [kind.strip() for kind in given.faults.split(",") if kind.strip()]
    if unknown := set(kinds) - set(FAULTS):
        parser.error(f"unknown faults {sorted(unknown)}; there are: {', '.join(FAULTS)}")
    form = Form(
        given.seconds,
        given.outage,
        long_every=12,
        long_outage=given.long_outage,
        patience=given.patience,
        lease=given.lease,
        pace=given.pace,
        together=given.together,
    )
    folder = given.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    seeds = [int(seed) for seed in given.seeds.split(",") if seed] or [random.SystemRandom().randrange(10**6)]
    rounds = []
    for seed in seeds:
        for combination in given.combinations.split(","):
            print(f"round {combination}, seed {seed}, in {folder}", flush=True)
            rounds.append(play(combination, seed, form, folder / f"{combination}-{seed}", kinds))
            print(as_table(rounds[-1:]), flush=True)
            if given.report:
                given.report.write_text(as_json(rounds))
    if len(rounds) > 1:
        print(as_table(rounds))
    return int(any(each.violations for each in rounds))


if __name__ == "__main__":
    sys.exit(main())
