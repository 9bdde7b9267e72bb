"""A mutant as people read it: the function, and what is another in it. So the list of those that may live names it."""

from __future__ import annotations

import ast
import difflib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_AROUND = 50  # characters around what is another
SURVIVORS = Path(__file__).with_name("survivors.toml")
_NAME = re.compile(r"(?P<module>[\w.]+)\.x(?:_|ǁ(?P<cls>\w+)ǁ)(?P<function>\w+)__mutmut_\d+")


@dataclass(frozen=True, order=True)
class Mutant:
    """A function with one small fault. Two that read the same are one."""

    function: str  # the dotted name, from the package on
    change: str  # "before => after": the lines that are others, as Python writes a syntax tree


def split_name(name: str) -> tuple[str, str]:
    """Return the module, and the dotted name of the function in it, of a mutant as mutmut names it."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"{name!r} is no name of a mutant")
    return found["module"], ".".join(filter(None, (found["cls"], found["function"])))


def read_mutants(module: str, mutated: Path, names: list[str]) -> dict[str, Mutant]:
    """Read these mutants of one module from the file that mutmut has made of it."""
    bodies = {node.name: node for node in ast.walk(ast.parse(mutated.read_text())) if isinstance(node, ast.FunctionDef)}
    made: dict[str, Mutant] = {}
    for name in names:
        short = name.removeprefix(f"{module}.")
        original, mutant = bodies[re.sub(r"__mutmut_\d+$", "__mutmut_orig", short)], bodies[short]
        original.name = mutant.name = "f"
        made[name] = Mutant(f"{module}.{split_name(name)[1]}", _difference(original, mutant))
    return made


def _difference(original: ast.FunctionDef, mutant: ast.FunctionDef) -> str:
    """Describe what is another, with as much around it as it takes to find it."""
    before, after = ast.unparse(original).splitlines(), ast.unparse(mutant).splitlines()
    gone: list[str] = []
    come: list[str] = []
    for tag, start, end, other_start, other_end in difflib.SequenceMatcher(a=before, b=after).get_opcodes():
        if tag != "equal":
            gone += [line.strip() for line in before[start:end]]
            come += [line.strip() for line in after[other_start:other_end]]
    one, other = " / ".join(gone), " / ".join(come)
    alike = _shared_length(one, other)
    alike_behind = _shared_length(one[alike:][::-1], other[alike:][::-1])
    return " => ".join(_cut(text, alike, len(text) - alike_behind) for text in (one, other))


def _shared_length(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _cut(text: str, start: int, end: int) -> str:
    """Leave the words around a part of a text, and no more."""
    first = text.find(" ", start - _AROUND) + 1 if start > _AROUND else 0
    behind = text.find(" ", end + _AROUND) if end + _AROUND < len(text) else -1
    return ("… " if first else "") + (text[first:behind] + " …" if behind >= 0 else text[first:])


def read_survivors(path: Path = SURVIVORS) -> dict[Mutant, str]:
    """Read the mutants that may live, each with the reason."""
    return dict(_survivors(tomllib.loads(path.read_text())))


def _survivors(doc: dict[str, dict[str, str]]) -> Iterator[tuple[Mutant, str]]:
    for function, changes in doc.items():
        for change, reason in changes.items():
            yield Mutant(function, change), reason


def as_toml(mutants: list[Mutant]) -> str:
    """Write mutants as the list of survivors has them, without the reasons."""
    lines: list[str] = []
    for function in sorted({mutant.function for mutant in mutants}):
        lines.append(f'\n["{function}"]')
        lines += [f'{_quoted(one.change)} = ""' for one in sorted(mutants) if one.function == function]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return f"'{text}'" if "'" not in text else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
