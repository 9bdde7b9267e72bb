"""Every promise of docs/guarantees.md names a test that exists, or says that there is none.

A footnote is a promise's test: `[^killed]` behind a sentence or in the last column of a table, and at the foot of the
page `[^killed]: path::name`, or the path alone where a whole file is it. Rows and points without one say "not tested".
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "guarantees.md"

DEFINITION = re.compile(r"^\[\^([\w-]+)\]: (.*)$")
MARK = re.compile(r"\[\^([\w-]+)\]")
CODE = re.compile(r"`([^`]+)`")
POINT = re.compile(r"(\*|\d+\.) ")
UNTESTED = "not tested"
MEASURED = "Measured under faults"  # the section whose tables are figures, and no promises


@dataclass
class Page:
    """The promises of a page, and its footnotes."""

    # rows of tables (their last cell) and points of lists (all of them), each with its line
    promises: list[tuple[int, str]] = field(default_factory=list)
    # by label
    definitions: dict[str, str] = field(default_factory=dict)
    # of all marks
    labels: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def untested(self) -> list[int]:
        """The lines of the promises that say that they have no test."""
        return [line for line, text in self.promises if UNTESTED in text.lower()]


def parse(text: str) -> Page:
    """Read a page."""
    page, section, head = Page(), "", 0
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if match := DEFINITION.match(line):
            if match[1] in page.definitions:
                page.faults.append(f"line {number}: [^{match[1]}] is defined twice")
            page.definitions[match[1]] = match[2]
            continue
        page.labels += MARK.findall(line)
        if line.startswith("#"):
            section = line.strip("# ")
        is_row = line.startswith("|") and section != MEASURED
        if is_row and not head:
            head = number
            if cells(line)[-1] != "test":
                page.faults.append(f"line {number}: the last column of the table is not `test`")
        elif is_row and number > head + 1:
            page.promises.append((number, cells(line)[-1]))
        elif not is_row:
            head = 0
        if POINT.match(line):
            page.promises.append((number, " ".join(point(lines[number - 1 :]))))
    return page


def cells(row: str) -> list[str]:
    """Return the cells of a table's row; a bar inside code may be escaped."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def point(lines: list[str]) -> Iterator[str]:
    """Give the lines of the point of a list that begins here."""
    yield lines[0]
    for line in lines[1:]:
        if not line.startswith("  "):
            return
        yield line.strip()


@cache
def names_of_tests(path: Path) -> frozenset[str]:
    """Return the names of the tests in a file, alone and with their classes."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        inside = [(f"{node.name}::", each) for each in node.body] if isinstance(node, ast.ClassDef) else [("", node)]
        for prefix, each in inside:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name.startswith("test_"):
                names |= {each.name, prefix + each.name}
    return frozenset(names)


def problems(page: Page, root: Path = ROOT) -> list[str]:
    """Return what is wrong with the promises and the footnotes of a page."""
    found = list(page.faults)
    for line, text in page.promises:
        if not MARK.search(text) and UNTESTED not in text.lower():
            found.append(f"line {line} names no test")
    found += [f"[^{label}] stands nowhere at the foot" for label in {*page.labels} - {*page.definitions}]
    found += [f"[^{label}] stands behind nothing" for label in {*page.definitions} - {*page.labels}]
    for label, definition in page.definitions.items():
        references = CODE.findall(definition)
        if not references:
            found.append(f"[^{label}] names no test")
        found += [f"[^{label}]: {each} does not exist" for each in references if not is_test(each, root)]
    return sorted(found)


def is_test(reference: str, root: Path) -> bool:
    """Return True if there is such a test, or such a file of tests."""
    place, _, name = reference.partition("::")
    path = root / place
    if path.suffix != ".py" or not path.is_file():
        return False
    names = names_of_tests(path)
    return name in names if name else bool(names)


def test_every_promise_names_a_test_that_exists(figures: list[str]) -> None:
    """A test that is renamed takes the page with it, and a row that is added brings its test."""
    page = parse(PAGE.read_text())
    assert not problems(page)
    tests = sum(len(CODE.findall(text)) for text in page.definitions.values())
    figures.append(f"docs/guarantees.md: {len(page.promises)} promises, {tests} tests, {len(page.untested)} not tested")


GOOD = """
* A point that goes on
  in its second line.[^one]

| what happens | what follows | test |
|---|---|---|
| This \\| that | follows | [^one] [^all] |
| Another | is lost | not tested |

## Measured under faults

| runs | lost |
|---|---|
| 1 | 0 |

[^one]: `tests/test_a.py::test_it`, `tests/test_a.py::Kind::test_other`
[^all]: `tests/test_a.py`
"""


@pytest.mark.parametrize(
    "before, after, problem",
    [
        ("", "", ""),
        ("not tested", "of course", "line 8 names no test"),
        ("line.[^one]", "line.", "line 2 names no test"),
        ("| test |", "| proof |", "line 5: the last column of the table is not `test`"),
        ("[^all] |", "[^al] |", "[^al] stands nowhere at the foot"),
        (" [^all] |", " |", "[^all] stands behind nothing"),
        ("[^all]:", "[^one]:", "line 17: [^one] is defined twice"),
        ("`tests/test_a.py`", "the whole file", "[^all] names no test"),
        ("`tests/test_a.py`", "`tests/test_b.py`", "[^all]: tests/test_b.py does not exist"),
        ("`tests/test_a.py`", "`tests/nothing.py`", "[^all]: tests/nothing.py does not exist"),
        ("::test_it", "::test_its", "[^one]: tests/test_a.py::test_its does not exist"),
        ("::test_it", "::helper", "[^one]: tests/test_a.py::helper does not exist"),
        ("Kind::", "Other::", "[^one]: tests/test_a.py::Other::test_other does not exist"),
    ],
)
def test_what_is_wrong_is_found(before: str, after: str, problem: str, tmp_path: Path) -> None:
    """On a small page and a small file of tests."""
    (tmp_path / "tests").mkdir()
    text = "def test_it(): ...\ndef helper(): ...\nclass Kind:\n    def test_other(self): ...\n"
    (tmp_path / "tests" / "test_a.py").write_text(text)
    (tmp_path / "tests" / "nothing.py").write_text("x = 1\n")
    found = problems(parse(GOOD.replace(before, after, 1) if before else GOOD), tmp_path)
    assert problem in found if problem else not found
