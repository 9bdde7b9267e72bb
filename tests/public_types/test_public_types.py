"""The public API is typed as a user's strict mypy sees it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def complaints(name: str) -> list[str]:
    """What mypy --strict says of a file in this folder."""
    path = f"tests/public_types/{name}"
    command = [sys.executable, "-m", "mypy", "--strict", path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True, timeout=600)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith(path)]


def test_steps_and_their_results_are_typed() -> None:
    """mypy agrees with every statement of usage.py."""
    assert complaints("usage.py") == []


def test_contexts_are_typed() -> None:
    """mypy agrees with every statement of contexts.py."""
    assert complaints("contexts.py") == []


def test_workflows_are_typed() -> None:
    """mypy agrees with every statement of workflows.py."""
    assert complaints("workflows.py") == []
