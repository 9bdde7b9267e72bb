"""No module imports itself by way of others: not under TYPE_CHECKING and not inside a function either.

A circle that is dodged stays one for readers: none of its files can be understood before the others. What a
package's own `__init__` re-exports is not counted, because it says nothing about the modules that it names.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "orchestrator"
FOLDERS = ("orchestrator", "canvas", "tasks")  # the last two are linked into the package, and read where they are

Graph = Mapping[str, frozenset[str]]


def package_files() -> dict[str, Path]:
    """Give every module of the package with its file."""
    found = {}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            inside = path.relative_to(ROOT)
            if not any((ROOT / parent).is_symlink() for parent in inside.parents):
                found[module_name(inside)] = path
    return found


def module_name(path: Path) -> str:
    """Return the import name of a file, given by its path from the root of the checkout."""
    parts = list(path.with_suffix("").parts)
    if parts[0] != PACKAGE:
        parts.insert(0, PACKAGE)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(source: str, package: str) -> Iterator[str]:
    """Give the names that a source imports, wherever that stands: `a.b.c` for `from a.b import c`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def import_graph(sources: Mapping[str, str], packages: Iterable[str]) -> Graph:
    """Return the imports of each module, given sources by module name. `packages` are those that are an `__init__`."""
    inits = frozenset(packages)

    def targets(name: str) -> Iterator[str]:
        for found in imported_names(sources[name], name.rpartition(".")[0]):
            module = found if found in sources else found.rpartition(".")[0]
            if module in sources and module not in inits and module != name:
                yield module

    return {name: frozenset(targets(name)) for name in sources if name not in inits}


def circles(graph: Graph) -> list[list[str]]:
    """Return the modules that reach each other, circle by circle."""
    reach = {name: reachable(graph, name) for name in graph}
    found = {frozenset({name, *(other for other in reach[name] if name in reach[other])}) for name in graph}
    return sorted(sorted(circle) for circle in found if len(circle) > 1)


def reachable(graph: Graph, start: str) -> set[str]:
    """Return all modules to which imports lead from here."""
    found: set[str] = set()
    todo = [start]
    while todo:
        new = graph[todo.pop()] - found
        found |= new
        todo += new
    return found


def test_no_module_imports_itself_by_way_of_others() -> None:
    """The package with its linked folders has no circle."""
    files = package_files()
    sources = {name: path.read_text() for name, path in files.items()}
    graph = import_graph(sources, (name for name, path in files.items() if path.name == "__init__.py"))
    assert {f"{PACKAGE}.canvas.messages", f"{PACKAGE}.tasks.install", f"{PACKAGE}.engine.services"} <= graph.keys()
    found = circles(graph)
    assert not found, "\n".join(f"a circle of {len(circle)}: {', '.join(circle)}" for circle in found)


@pytest.mark.parametrize(
    "source",
    [
        "from p import a",
        "from p.a import something",
        "import p.a",
        "from . import a",
        "from .a import something",
        "if TYPE_CHECKING:\n    from p.a import something",
        "def call():\n    from p.a import something",
    ],
)
def test_a_circle_is_seen_however_it_is_closed(source: str) -> None:
    """Each form of import counts, under TYPE_CHECKING and in a function too."""
    graph = import_graph({"p": "", "p.a": "from p.b import x", "p.b": source, "p.c": "import p.a"}, ["p"])
    assert circles(graph) == [["p.a", "p.b"]]


def test_a_re_export_closes_no_circle() -> None:
    """A package may name what is below it, and that may import from the package."""
    graph = import_graph({"p": "from p.a import x", "p.a": "from p import y", "p.b": "import p.a"}, ["p"])
    assert circles(graph) == []


def test_a_longer_circle_is_named_whole() -> None:
    """All of its files, and no others."""
    sources = {"p.a": "import p.b", "p.b": "import p.c", "p.c": "import p.a", "p.d": "import p.a"}
    assert circles(import_graph(sources, [])) == [["p.a", "p.b", "p.c"]]
