"""Many schedules, on all cores: `python -m tests.simulation.schedules --schedules 1000000`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from tests.simulation.schedules.schedule import Verdict, run_schedule, shrink

_CHUNK = 250  # schedules that one process goes through before it reports
_SHOWN = 5  # violations that are shrunk and shown


@dataclass
class Report:
    """The numbers of many schedules."""

    schedules: int = 0
    calls: int = 0
    turns: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[int, list[str]]] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        """Count one schedule."""
        self.schedules += 1
        self.calls += verdict.calls
        self.turns += verdict.turns
        self.ends[verdict.status] += 1
        self.faults.update(kind for _, kind in verdict.faults)
        if verdict.violations:
            self.violations.append((verdict.seed, verdict.violations))

    def add_all(self, other: Report) -> None:
        """Count those of another report too."""
        for name in ("schedules", "calls", "turns"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.faults += other.faults
        self.ends += other.ends
        self.violations += other.violations

    def lines(self) -> Iterator[str]:
        """Return the report as text."""
        yield f"schedules   {self.schedules:>12,}"
        yield f"turns       {self.turns:>12,}"
        yield f"calls       {self.calls:>12,}"
        yield f"faults      {sum(self.faults.values()):>12,}"
        yield from (f"  {kind:12}{count:>10,}" for kind, count in sorted(self.faults.items()))
        yield from (f"runs {end:12}{count:>7,}" for end, count in sorted(self.ends.items()))
        yield f"violations  {len(self.violations):>12,}"


def go_through(seeds: Iterable[int]) -> Report:
    """Go through the schedules of these seeds."""
    report = Report()
    for seed in seeds:
        report.add(run_schedule(seed))
    return report


def tell(seed: int) -> None:
    """Print the shortest story that was found of a violation."""
    verdict = shrink(run_schedule(seed))
    print(f"\nseed {seed}: {'; '.join(verdict.violations)}\nfaults: {verdict.faults}")
    print(*verdict.story, sep="\n")


def main() -> int:
    """Go through schedules, print a report, and fail where there was a violation."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.simulation.schedules")
    parser.add_argument("--schedules", type=int, default=100_000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tell", type=int, metavar="SEED", help="show this one schedule instead")
    options = parser.parse_args()
    if options.tell is not None:
        tell(options.tell)
        return 0
    report, last, shown = Report(), options.seed + options.schedules, time.monotonic()
    chunks = [range(at, min(at + _CHUNK, last)) for at in range(options.seed, last, _CHUNK)]
    # Of an executor, because it says so where one of its processes dies: a pool would wait for it for ever.
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("fork")) as pool:
        for part in pool.map(go_through, chunks):
            report.add_all(part)
            if time.monotonic() - shown > 60:
                print(f"{report.schedules:,} schedules, {len(report.violations)} violations", flush=True)
                shown = time.monotonic()
    for seed, _ in sorted(report.violations)[:_SHOWN]:
        tell(seed)
    print(*report.lines(), sep="\n")
    return 1 if report.violations else 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of texts would be gone through in another order each time
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation.schedules", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
