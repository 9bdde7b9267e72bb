"""The command in a process of its own: terminals, pipes that break, and what the plug-in imports."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, environment, run_python

MAIN = ["-c", "from orchestrator.cli import main; main()"]
ORDER = '{"sku": "a", "qty": 2}'


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """A store of this test's own and the workflows of these tests."""
    return ["--store", f"sqlite:///{tmp_path / 'runs.db'}", "--workflows", "tests.cli.flows:ALL"]


def on_a_terminal(*arguments: str, cwd: Path, **more: str) -> str:
    """Run the command on a pseudo terminal; return what it showed."""
    ours, theirs = pty.openpty()
    env = environment(TERM="xterm-256color", COLUMNS="120", LINES="40", **more)
    process = subprocess.Popen(
        [sys.executable, *MAIN, *arguments], cwd=cwd, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # Linux ends a terminal by EIO
        while chunk := os.read(ours, 65_536):
            shown += chunk
    os.close(ours)
    assert process.wait(30) == 0, shown
    return shown.decode()


def test_a_terminal_gets_colours_unless_they_are_unwanted(options: list[str], tmp_path: Path) -> None:
    """NO_COLOR leaves the table and takes the colours."""
    run_python(*MAIN, *options, "start", "checkout", ORDER, "--run-id", "one", cwd=tmp_path)

    coloured = on_a_terminal(*options, "show", "one", cwd=tmp_path)
    plain = on_a_terminal(*options, "show", "one", cwd=tmp_path, NO_COLOR="1")

    assert "\x1b[32msuccess" in coloured
    assert "\x1b[32m" not in plain
    assert "success" in plain
    assert "    charge" not in plain
    assert "  charge" in plain, "steps of nested workflows are set in"


def test_a_terminal_shows_the_steps_while_it_waits(options: list[str], tmp_path: Path) -> None:
    """The table is drawn while the run goes on, and the result stands at the end."""
    shown = on_a_terminal(*options, "start", "checkout", ORDER, cwd=tmp_path, NO_COLOR="1")
    assert "reserve" in shown
    assert "running" in shown
    assert shown.rstrip().endswith("200")


def test_a_reader_that_goes_away_changes_nothing(options: list[str], tmp_path: Path) -> None:
    """The exit code is the command's own and there is no complaint."""
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, *MAIN, *options, "start", "checkout", ORDER, "--run-id", "one", "--json"]
    with os.fdopen(theirs, "wb") as broken:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(), stdout=broken, stderr=subprocess.PIPE, check=False, text=True
        )
    assert (done.returncode, done.stderr) == (0, "")
    shown = run_python(*MAIN, *options, "show", "one", "--json", cwd=tmp_path)
    assert json.loads(shown.stdout)["status"] == "success"


IMPORTS = """
import json, sys, types
import click
package = types.ModuleType("orchestrator")
package.__path__ = [sys.argv[1]]
sys.modules["orchestrator"] = package
before = set(sys.modules)
import orchestrator.cli.plugin
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_the_plug_in_imports_click_alone(tmp_path: Path) -> None:
    """Celery loads it for each of its commands; what the package `orchestrator` itself imports is not counted here."""
    done = run_python("-c", IMPORTS, str(ROOT / "orchestrator"), cwd=tmp_path)
    found = json.loads(done.stdout)
    ours = {name for name in found if name.split(".")[0] == "orchestrator"}
    parts = {f"orchestrator.cli{end}" for end in ("", ".access", ".commands", ".exits", ".options", ".plugin")}
    assert ours == {*parts, "orchestrator.safe_text"}
    assert not {name.split(".")[0] for name in found} - set(sys.stdlib_module_names) - {"orchestrator", "click"}
