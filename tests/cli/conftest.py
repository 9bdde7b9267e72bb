"""Fixtures: the commands in a process of their own, and a user's project with Celery."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def with_plugin(folder: Path) -> Path:
    """Let Celery find the plug-in where the project is not installed, by the entry points of pyproject.toml."""
    if not importlib.metadata.entry_points(group="celery.commands", name="workflow"):
        points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["celery.commands"]
        info = folder / "celery_orchestrator-0.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: celery-orchestrator\nVersion: 0\n")
        lines = [f"{name} = {target}\n" for name, target in points.items()]
        info.joinpath("entry_points.txt").write_text("[celery.commands]\n" + "".join(lines))
    return folder


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment with the repository importable."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def run_python(*arguments: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with more variables in its environment."""
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment(**more), capture_output=True, check=False, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder in which Celery finds the plug-in."""
    return with_plugin(tmp_path_factory.mktemp("project"))
