"""Imports point inwards only: the contracts of pyproject.toml hold, and what they cannot say is said here."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Linked folders are read where they really are.
FOLDERS = ("orchestrator", "canvas", "tasks", "tests", "benchmarks", "docs")


def sources(*folders: str) -> Iterator[Path]:
    """Give every Python file below these folders once."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not any(parent.is_symlink() for parent in path.parents if parent != ROOT and ROOT in parent.parents):
                yield path


def imports(path: Path) -> Iterator[tuple[int, str, int]]:
    """Give line, absolute or relative module name and level of every import of a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or "", node.level


def test_the_import_contracts_hold() -> None:
    """import-linter finds every contract of pyproject.toml kept."""
    command = [
        sys.executable,
        "-c",
        "import importlinter.cli as cli; cli.lint_imports_command()",
        "--no-cache",
        "--no-logo",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def layers_of(lines: Iterable[str]) -> list[set[str]]:
    """Return the layers that these lines name, outermost first; parentheses and separators say nothing of which."""
    return [set(re.findall(r"\w+", line)) for line in lines]


def test_contributors_are_told_the_layers_that_are_checked() -> None:
    """The list in CONTRIBUTING.md and the table in docs/architecture.md are the contract of pyproject.toml."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (checked,) = [layers_of(each["layers"]) for each in contracts if each.get("containers") == ["orchestrator"]]
    told = (ROOT / "CONTRIBUTING.md").read_text()
    (block,) = re.findall(r"```\n(contrib .*?)```", told, re.DOTALL)
    assert layers_of(block.splitlines()) == checked
    table = (ROOT / "docs" / "architecture.md").read_text().partition("| layer |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| ([a-z_, ]+) \|", table, re.MULTILINE)
    assert layers_of(rows) == checked


def test_changes_are_built_in_the_rules_alone() -> None:
    """A pure function of the rules makes whatever is committed, so that the explorer explores it."""
    built = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources("orchestrator", "canvas", "tasks")
        if not path.is_relative_to(ROOT / "orchestrator/rules")
        if not path.is_relative_to(ROOT / "orchestrator/testing")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Change"
    ]
    assert not built


def test_the_contracts_see_the_linked_folders() -> None:
    """The import graph has the modules of canvas/ and tasks/ under the package's name."""
    import grimp

    graph = grimp.build_graph("orchestrator", cache_dir=None)
    missing = {module for folder in ("canvas", "tasks") for module in modules(folder) if module not in graph.modules}
    assert not missing


def modules(folder: str) -> Iterator[str]:
    """Give the import names of a linked folder's files."""
    for path in sources(folder):
        words = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(("orchestrator", *(words[:-1] if words[-1] == "__init__" else words)))


def test_the_rules_import_the_standard_library_and_the_errors_alone() -> None:
    """No clock, no randomness, no logging, no I/O, no library in orchestrator/rules."""
    forbidden = {"asyncio", "io", "logging", "os", "random", "secrets", "socket", "threading", "time"}
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources("orchestrator/rules")
        for line, name, level in imports(path)
        if level == 0
        and not name.startswith(("orchestrator.rules", "orchestrator.errors"))
        and (name.split(".")[0] not in sys.stdlib_module_names or name.split(".")[0] in forbidden)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("folder", FOLDERS)
def test_nothing_imports_the_linked_folders_by_their_bare_names(folder: str) -> None:
    """`import canvas` and `import tasks` are the user's files, in every folder of this project."""
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(folder)
        for line, name, level in imports(path)
        if level == 0 and name.split(".")[0] in ("canvas", "tasks")
    ]
    assert not found, "\n".join(found)


def test_no_folder_of_tests_is_named_like_an_import() -> None:
    """A package tests/typing would stand in the way of `typing` for tools that put tests/ on the path."""
    names = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    assert not names & sys.stdlib_module_names
