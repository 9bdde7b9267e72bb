"""A round and a session in numbers: as a table, and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.chaos.faults import Strike
from tests.chaos.verdict import KINDS, Judgement, Violation


@dataclass
class Round:
    """What came of one round."""

    combination: str
    seed: int
    seconds: float
    # by status
    runs: dict[str, int]
    judgement: Judgement
    strikes: list[Strike]
    # seconds from the last fault to the moment at which every run was where it had to be
    recovery: float
    # how often the supervisor started a process again
    starts: int
    # where its logs are kept, if it failed
    folder: Path | None = None
    # the histories of the runs that failed, for print
    histories: dict[str, list[str]] = field(default_factory=dict)

    @property
    def violations(self) -> list[Violation]:
        """What must not be."""
        return self.judgement.violations


def as_json(rounds: Sequence[Round]) -> str:
    """Return the rounds as JSON."""
    return json.dumps([asdict(each) for each in rounds], default=_plain, indent=1)


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, frozenset) else str(value)


def as_table(rounds: Sequence[Round]) -> str:
    """Return the rounds as a table: numbers, verdicts, faults."""
    hit, tried = Counter[str](), Counter[str]()
    for each in (strike for round_ in rounds for strike in round_.strikes):
        tried[each.kind] += 1
        hit[each.kind] += each.hit > 0
    verdicts = Counter(violation.kind for round_ in rounds for violation in round_.violations)
    statuses = sum((Counter(round_.runs) for round_ in rounds), Counter[str]())
    numbers = {
        "rounds": len(rounds),
        "seeds": ", ".join(f"{each.combination} {each.seed}" for each in rounds),
        "seconds": f"{sum(each.seconds for each in rounds):.0f}",
        "runs": f"{statuses.total()} ({', '.join(f'{n} {status}' for status, n in statuses.most_common())})",
        "executions": sum(each.judgement.executions for each in rounds),
        "repeated by a fault": sum(each.judgement.repeated for each in rounds),
        "given up after three dead workers": sum(each.judgement.given_up for each in rounds),
        "races": sum(each.judgement.races for each in rounds),
        "processes started again": sum(each.starts for each in rounds),
        "slowest recovery": f"{max((each.recovery for each in rounds), default=0):.1f} s",
        "faults that hit": f"{hit.total()} of {tried.total()}",
    }
    lines = [f"{name:36}{value}" for name, value in numbers.items()]
    lines += [f"  {kind:34}{hit[kind]} of {count}" for kind, count in sorted(tried.items())]
    lines += [f"{kind:36}{verdicts[kind]}" for kind in KINDS]
    for round_ in rounds:
        if round_.violations:
            lines.append(f"round {round_.combination} of seed {round_.seed}; logs in {round_.folder}")
            lines += [f"  {each.kind}: {each.run} {each.text}" for each in round_.violations]
            for run, history in round_.histories.items():
                lines += [f"  history of {run}", *(f"    {line}" for line in history)]
    return "\n".join(lines)
