"""The list of survivors, and how a mutant is described in it."""

from __future__ import annotations

import pkgutil
from pathlib import Path

import pytest

from tests.mutation.mutants import Mutant, as_toml, read_mutants, read_survivors, split_name

MUTATED = '''
def x_decide__mutmut_orig(first: int, second: int) -> bool:
    """Decide."""
    total = first + second
    return total > 3 and first < second
def x_decide__mutmut_1(first: int, second: int) -> bool:
    """Decide."""
    total = None
    return total > 3 and first < second
def x_decide__mutmut_2(first: int, second: int) -> bool:
    """Decide."""
    total = first + second
    return total > 3 or first < second
class Judge:
    def xǁJudgeǁsay__mutmut_orig(self) -> str:
        self.asked += 1
        return "it's"
    def xǁJudgeǁsay__mutmut_1(self) -> str:
        return "it's"
'''


@pytest.mark.parametrize("survivor", read_survivors(), ids=lambda survivor: survivor.function)
def test_a_listed_survivor_is_of_a_function_that_exists(survivor: Mutant) -> None:
    """And it is listed with a reason."""
    assert read_survivors()[survivor]
    assert callable(pkgutil.resolve_name(survivor.function))


def test_a_mutant_is_described_by_what_is_another_in_it(tmp_path: Path) -> None:
    """With as much around it as it takes to find the place; what mutmut calls it changes with every edit."""
    path = tmp_path / "rules.py"
    path.write_text(MUTATED)
    names = ["a.rules.x_decide__mutmut_1", "a.rules.x_decide__mutmut_2", "a.rules.xǁJudgeǁsay__mutmut_1"]
    assert [split_name(name)[1] for name in names] == ["decide", "decide", "Judge.say"]
    assert list(read_mutants("a.rules", path, names).values()) == [
        Mutant("a.rules.decide", "total = first + second => total = None"),
        Mutant("a.rules.decide", "return total > 3 and first < second => return total > 3 or first < second"),
        Mutant("a.rules.Judge.say", "self.asked += 1 => "),
    ]


def test_what_is_printed_can_be_pasted(tmp_path: Path) -> None:
    """Only the reasons are missing."""
    mutants = [Mutant("a.b", "x => 'y'"), Mutant("a.b", "x => y"), Mutant("a.c", '"it\'s" => "\\n"')]
    path = tmp_path / "survivors.toml"
    path.write_text(as_toml(mutants))
    assert sorted(read_survivors(path)) == sorted(mutants)
