#!/usr/bin/env python3
"""The project's targets: `python make.py <target>`, or `make <target>`.

Plain standard library, so that a fresh checkout needs nothing but Python. It must not know what the
targets test or show.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "installed-from"
OLDEST = (3, 11)
# Parts of the tests that run beside all others. They begin processes, and wait for them, for faults and for clocks.
_PARALLEL_PARTS = (
    ("tests/parity",),
    ("tests/workers",),
    ("tests/cli", "tests/chaos", "tests/telemetry", "tests/foreign"),
)
LEFTOVERS = (
    ".matrix",
    "build",
    "dist",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".import_linter_cache",
    ".hypothesis",
    ".coverage",
)


def venv_python() -> Path:
    """Return the interpreter of the project's environment."""
    return VENV / "bin" / "python"


def run(*command: str | Path) -> None:
    """Run one command in the checkout; end with its exit code if it fails."""
    words = [str(word) for word in command]
    code = subprocess.run(words, cwd=ROOT, check=False).returncode
    if code:
        shown = " ".join(words).replace(str(ROOT) + os.sep, "")
        print(f"make.py: `{shown}` ended with {code}", file=sys.stderr)
        raise SystemExit(code if code > 0 else 128 - code)


def in_venv(*arguments: str | Path) -> None:
    """Install what is missing, then run the environment's Python with these arguments."""
    install()
    run(venv_python(), *arguments)


def fingerprint() -> str:
    """Return what the environment depends on: the project's metadata and the checkout's place."""
    return hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + os.fsencode(ROOT)).hexdigest()


def create_venv() -> None:
    """Make `.venv` with venv, or with virtualenv where the system's Python comes without venv or ensurepip (Debian)."""
    base = getattr(sys, "_base_executable", sys.executable) or sys.executable
    if all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        run(base, "-m", "venv", VENV)
    elif importlib.util.find_spec("virtualenv"):
        run(sys.executable, "-m", "virtualenv", "--quiet", "--python", base, VENV)
    elif virtualenv := shutil.which("virtualenv"):
        run(virtualenv, "--quiet", "--python", base, VENV)
    else:
        raise SystemExit("make.py: this Python has neither venv with ensurepip nor virtualenv; install one of them")


def install(*_: str) -> None:
    """Make the environment and install the project with its development tools; quick when nothing has changed."""
    wanted = fingerprint()
    if venv_python().exists() and STAMP.exists() and STAMP.read_text() == wanted:
        return
    print("make.py: setting up .venv; the first time this takes a minute or two", flush=True)
    if not venv_python().exists():
        create_venv()
    run(venv_python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", ".[dev]")
    STAMP.write_text(wanted)


def test(*arguments: str) -> None:
    """Run the tests; the end of the output says which servers and runtimes took part and which could not.

    Without arguments several parts of them run side by side: each waits about as much as it computes.
    """
    if arguments:
        in_venv("-m", "pytest", "-m", "not chaos", *arguments)
        return
    install()
    pytest = (venv_python(), "-m", "pytest", "-m", "not chaos")
    others = [f"--ignore={folder}" for part in _PARALLEL_PARTS for folder in part]
    side_by_side((*pytest, *others), *((*pytest, *part) for part in _PARALLEL_PARTS))


def side_by_side(first: Sequence[str | Path], *others: Sequence[str | Path]) -> None:
    """Run commands at once; what the others print follows what the first has printed. Fails if any of them does."""
    with contextlib.ExitStack() as stack:
        beside = []
        for command in others:
            kept = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace"))
            words = list(map(str, command))
            beside.append((subprocess.Popen(words, cwd=ROOT, stdout=kept, stderr=subprocess.STDOUT), kept))
        try:
            codes = [subprocess.run(list(map(str, first)), cwd=ROOT, check=False).returncode]
            codes += [process.wait() for process, _ in beside]
        finally:
            for process, _ in beside:
                process.terminate()
                process.wait()
        for _, kept in beside:
            kept.seek(0)
            shutil.copyfileobj(kept, sys.stdout)
    if code := next(filter(None, codes), 0):
        raise SystemExit(code if code > 0 else 128 - code)


def chaos(*arguments: str) -> None:
    """Run the tests that kill processes and cut connections; `python -m tests.chaos` plays single rounds of them."""
    in_venv("-m", "pytest", "-m", "chaos", *arguments)


def simulate(*arguments: str) -> None:
    """Run the real engine through seeded schedules of turns and faults; `--schedules N` says how many."""
    in_venv("-m", "tests.simulation.schedules", *arguments)


def matrix(*arguments: str) -> None:
    """Run a selection of the tests with each set of versions of Celery and Python, in environments of their own."""
    run(sys.executable, "-m", "tests.matrix", *arguments)


def mutate(*arguments: str) -> None:
    """Try the quick tests on small faults in the rules and the scheduler (an hour); `--sample 10` tries a tenth."""
    install()
    run(venv_python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", ".[mutation]")
    run(venv_python(), "-m", "tests.mutation", *arguments)


def lint(*_: str) -> None:
    """Check style, formatting and the layers."""
    in_venv("-m", "ruff", "check", ".")
    run(venv_python(), "-m", "ruff", "format", "--check", ".")
    run(venv_python(), "-c", "import importlinter.cli as cli; cli.lint_imports_command()", "--no-logo")


def typecheck(*_: str) -> None:
    """Check the types of the library as installed, linked packages included."""
    in_venv("-m", "mypy", "-p", "orchestrator")


def script(path: str, *arguments: str) -> None:
    """Run one of the project's programs, or say that it is missing."""
    if not (ROOT / path).is_file():
        raise SystemExit(f"make.py: there is no {path} in this checkout")
    in_venv(path, *arguments)


def demo(*arguments: str) -> None:
    """Run the order example."""
    script("examples/orders/demo.py", *arguments)


def bench(*arguments: str) -> None:
    """Run all benchmarks."""
    script("benchmarks/full.py", *arguments)


def bench_quick(*arguments: str) -> None:
    """Run the benchmarks that take a minute."""
    script("benchmarks/quick.py", *arguments)


def flower_shots(*arguments: str) -> None:
    """Take the pictures of docs/flower.md anew (needs Chromium)."""
    script("docs/flower_shots.py", *arguments)


def docs(*_: str) -> None:
    """Check that every path and every test that the documents name exists."""
    in_venv("-m", "pytest", "-q", "tests/architecture/test_docs_paths.py", "tests/architecture/test_guarantees.py")


def clean(*_: str) -> None:
    """Remove the environment and everything the tools left behind."""
    for path in [VENV, *(ROOT / name for name in LEFTOVERS), *ROOT.glob("*.egg-info")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for cache in ROOT.rglob("__pycache__"):
        shutil.rmtree(cache, ignore_errors=True)


TARGETS = {
    function.__name__.replace("_", "-"): function
    for function in (
        *(install, demo, test, lint, typecheck, bench, bench_quick),
        *(chaos, simulate, mutate, matrix, docs, flower_shots, clean),
    )
}


def main() -> None:
    """Run the target named on the command line."""
    if sys.version_info < OLDEST:
        raise SystemExit("make.py: Python {}.{} or newer is needed (make PYTHON=python3.11 …)".format(*OLDEST))
    listing = "\n".join(f"  {name:12} {function.__doc__}" for name, function in TARGETS.items())
    parser = argparse.ArgumentParser(epilog=listing, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS, metavar="target")
    known, rest = parser.parse_known_args()
    TARGETS[known.target](*rest)


if __name__ == "__main__":
    main()
