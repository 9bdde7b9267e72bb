"""A mutant as people read it: the function, and what is another in it. So the list of those that may live names it."""

from __future__ import annotations

import ast
import difflib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LEAST = 60  # characters of what is described, where there are as many
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


def _difference(original: ast.AST, mutant: ast.AST) -> str:
    """Describe what is another, with as much around it as it takes to recognize it."""
    before, after = _text(original), _text(mutant)
    found = list(_other_children(original, mutant))
    if len(found) == 1 and found[0][0] is not original and len(_text(found[0][0])) + len(_text(found[0][1])) >= _LEAST:
        return _difference(*found[0])
    if not isinstance(original, ast.expr) and "\n" in before + after:
        return " / ".join(_other_lines(before.splitlines(), after.splitlines()))
    return f"{before} => {after}"


def _other_children(original: ast.AST, mutant: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Give the parts in which two nodes differ; themselves, where that is not to be told of their parts."""
    for name in original._fields:
        one, other = getattr(original, name), getattr(mutant, name, None)
        ones, others = (one, other) if isinstance(one, list) and isinstance(other, list) else ([one], [other])
        if len(ones) != len(others):
            yield original, mutant
            continue
        for here, there in zip(ones, others, strict=True):
            if isinstance(here, ast.AST) and isinstance(there, ast.AST):
                if ast.dump(here) != ast.dump(there):
                    yield here, there
            elif here != there:
                yield original, mutant


def _text(node: ast.AST) -> str:
    return ast.unparse(node)


def _other_lines(before: list[str], after: list[str]) -> Iterator[str]:
    for tag, start, end, other_start, other_end in difflib.SequenceMatcher(a=before, b=after).get_opcodes():
        if tag != "equal":
            gone, come = before[start:end], after[other_start:other_end]
            yield " / ".join(line.strip() for line in gone) + " => " + " / ".join(line.strip() for line in come)


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
