"""Runs mutmut on the rules and the scheduler, and shows which mutants no quick test notices.

mutmut copies what it mutates, and does not follow the links to `canvas/` and `tasks/`. So it gets a copy of the
checkout in which they are folders. What it has found out stays there, and a run that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from fnmatch import fnmatch
from pathlib import Path

from tests.mutation.mutants import SURVIVORS, Mutant, as_toml, read_mutants, read_survivors, split_name

ROOT = Path(__file__).resolve().parents[2]
STAGE = ROOT / "build" / "mutation"
MUTATED = STAGE / "mutants"  # mutmut's own folder
_COPIED = ("orchestrator", "tests", "docs", "examples", "pyproject.toml", "README.md", "CHANGELOG.md")
_UNCALLED = "no quick test calls it"
_COLUMNS = ("killed", "timeout", "survived", "known", "no tests", "not checked")


def stage() -> None:
    """Bring the copy up to date. What mutmut knows of mutants stays, as far as their functions are the same."""
    for name in _COPIED:
        source, target = ROOT / name, STAGE / name
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    # mutmut never copies a file again that it does not mutate.
    for path in MUTATED.rglob("*.py"):
        if not path.with_name(f"{path.name}.meta").exists():
            path.unlink()


def mutmut(*arguments: str) -> list[str]:
    """Call mutmut, and return what it prints."""
    command = [sys.executable, "-m", "mutmut", *arguments]
    return subprocess.run(command, cwd=STAGE, check=True, text=True, capture_output=True).stdout.splitlines()


def run(patterns: list[str], jobs: int) -> None:
    """Try the mutants of these names, or all that have not been tried."""
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(jobs), *patterns]
    subprocess.run(command, cwd=STAGE, check=True, stdin=subprocess.DEVNULL)


def read_statuses() -> dict[str, str]:
    """Return what has become of each mutant."""
    lines = (line.strip().rpartition(": ") for line in mutmut("results", "--all", "true"))
    return {name: status for name, _, status in lines if "__mutmut_" in name}


def read_living(statuses: dict[str, str]) -> dict[str, Mutant]:
    """Read the mutants that no test has noticed."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    living: dict[str, Mutant] = {}
    for name, status in statuses.items():
        module, function = split_name(name)
        if status == "no tests":
            living[name] = Mutant(f"{module}.{function}", _UNCALLED)
        elif status in ("survived", "suspicious"):
            names[module].append(name)
    for module, alive in names.items():
        living |= read_mutants(module, MUTATED / f"{module.replace('.', '/')}.py", alive)
    return living


def report(statuses: dict[str, str]) -> bool:
    """Print what was found, by module, and the survivors without a reason. Tell whether there are none."""
    known, living = read_survivors(), read_living(statuses)
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, status in statuses.items():
        listed = name in living and living[name] in known
        counts[split_name(name)[0].removeprefix("orchestrator.")]["known" if listed else status] += 1
    print(f"{'':24}" + "".join(f"{column:>13}" for column in ("mutants", *_COLUMNS)))
    for module, found in [*sorted(counts.items()), ("all", sum(counts.values(), Counter()))]:
        print(f"{module:24}" + "".join(f"{n:13}" for n in (found.total(), *(found[column] for column in _COLUMNS))))
    new = list(dict.fromkeys(mutant for mutant in living.values() if mutant not in known))
    if new:
        print(f"\nNo quick test notices these. A test should, or {SURVIVORS.relative_to(ROOT)} says why none need:")
        print(as_toml(new))
    pending = {".".join(split_name(name)) for name, status in statuses.items() if status == "not checked"}
    if gone := [mutant for mutant in known if mutant.function not in pending and mutant not in living.values()]:
        print(f"\nThese are listed in {SURVIVORS.relative_to(ROOT)}, and are no survivors (any more):")
        print(as_toml(gone))
    return not new and not gone


def choose(options: argparse.Namespace) -> list[str]:
    """Choose the mutants to be tried: as names, or as patterns of names."""
    patterns = [f"orchestrator.{module}.*" for module in options.modules]
    if not options.survivors and not options.sample:
        return patterns
    if not any(MUTATED.rglob("*.meta")):
        run(["orchestrator.rules.value_ids.*"], options.jobs)  # mutmut lists all mutants before it tries any
    statuses = read_statuses()
    names = sorted(name for name in statuses if not patterns or any(fnmatch(name, pattern) for pattern in patterns))
    if options.survivors:
        alive = read_living(statuses)
        return [name for name in names if name in alive]
    print(f"a sample of {options.sample} %, seed {options.seed}")
    return random.Random(options.seed).sample(names, round(len(names) * options.sample / 100))


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="make.py mutate", description=__doc__)
    parser.add_argument("modules", nargs="*", help="as in rules.timers; all of them without one")
    parser.add_argument("--jobs", type=int, default=1, help="how many mutants at a time")
    parser.add_argument("--sample", type=float, default=0, help="try so many percent of the mutants")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--survivors", action="store_true", help="try again those that have survived")
    parser.add_argument("--report", action="store_true", help="try none: show what is known")
    options = parser.parse_args()
    if not options.report:
        stage()
        run(choose(options), options.jobs)
    if not report(read_statuses()):
        sys.exit(1)


if __name__ == "__main__":
    main()
