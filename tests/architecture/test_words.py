"""The naming rules of CONTRIBUTING.md that a program can check, and the checks themselves on small samples."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ("orchestrator", "canvas", "tasks")
DECIDING = ("orchestrator/rules", "orchestrator/engine")  # where names and reasons matter most
MIN_COMMENTS = 7  # for 100 lines that are not blank
MAX_STATEMENTS = 30

Function = ast.FunctionDef | ast.AsyncFunctionDef

# Verbs and nouns that end like a participle are told apart; `read`, `set`, `split` and the like are verbs as well.
PARTICIPLE = re.compile(
    r"(?!(?:bring|embed|exceed|feed|need|ping|proceed|ring|seed|speed|string|succeed)$)\w+(?:ed|ing)"
)
IRREGULAR = re.compile(
    r"begun|bound|brought|chosen|done|drawn|fallen|found|given|gone|got|heard|held|hidden|kept|known|left|lost|made|meant|met"
    r"|paid|said|seen|sent|shown|spent|taken|told|woken|written"
)
ADVERB = re.compile(
    r"about|above|again|ahead|alone|already|around|away|below|beneath|beside|early|either|elsewhere|here|later?|meanwhile"
    r"|once|soon|still|then|there|together"
)
PROPERTIES = frozenset({"property", "cached_property"})
QUESTION = re.compile(r"(What|Whatever|Whether|Who|Whoever|Whom|Whose|Where|Wherever|Which|Whichever|How|However)\b")
DIRECTIVE = re.compile(r"#\s*(type:|noqa|pragma|fmt:|ruff:|mypy:)")
CLASS_NAME = re.compile(r"`([A-Z]\w+)`")


def sources(*folders: str) -> Iterator[Path]:
    """Give every Python file below these folders once; linked folders are read where they really are."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not any(parent.is_symlink() for parent in path.parents if parent != ROOT and ROOT in parent.parents):
                yield path


def functions(tree: ast.AST) -> Iterator[Function]:
    """Give every function and method, nested ones too."""
    yield from (node for node in ast.walk(tree) if isinstance(node, Function))


def is_property(function: Function) -> bool:
    """Tell whether it reads like an attribute: then it may be named as one."""
    names = [getattr(mark, "id", getattr(mark, "attr", "")) for mark in function.decorator_list]
    return any(name in PROPERTIES for name in names)


def is_bare(name: str) -> bool:
    """Tell whether a function's name is one participle or adverb and nothing else."""
    word = name.strip("_")
    if name.startswith("__") or "_" in word:
        return False
    return any(pattern.fullmatch(word) for pattern in (PARTICIPLE, IRREGULAR, ADVERB))


def bare_names(tree: ast.AST) -> list[tuple[int, str]]:
    """Return line and name of the functions that are named by a bare participle or adverb."""
    return [(node.lineno, node.name) for node in functions(tree) if is_bare(node.name) and not is_property(node)]


def questions(tree: ast.AST) -> list[tuple[int, str]]:
    """Return line and first words of the docstrings that begin like a question."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | Function):
            text = ast.get_docstring(node)
            if text and QUESTION.match(text):
                found.append((node.body[0].lineno, " ".join(text.split()[:6])))
    return found


def long_functions(tree: ast.AST) -> list[tuple[int, str]]:
    """Return line and name of the functions with too many statements; those of functions inside count too."""
    return [
        (node.lineno, f"{node.name} has {count} statements")
        for node in functions(tree)
        if (count := sum(isinstance(part, ast.stmt) for part in ast.walk(node)) - 1) > MAX_STATEMENTS
    ]


def comments(text: str) -> int:
    """Count the comments of a source text; directives for tools are none."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return sum(token.type == tokenize.COMMENT and not DIRECTIVE.match(token.string) for token in tokens)


def listed(found: Iterable[tuple[Path, tuple[int, str]]]) -> str:
    """Return one line for each place, as an editor opens it."""
    return "\n".join(f"{path.relative_to(ROOT)}:{line} {what}" for path, (line, what) in found)


def test_functions_that_decide_are_named_by_verbs() -> None:
    """`joined` or `again` tells nobody what the function does: name it by a verb, or `on_<what happened>`."""
    found = [(path, place) for path in sources(*DECIDING) for place in bare_names(ast.parse(path.read_text()))]
    assert not found, f"bare participles or adverbs as function names (a verb, or on_<what happened>):\n{listed(found)}"


def test_docstrings_begin_with_their_subject_or_an_imperative() -> None:
    """`Whether it is live` is half a sentence; `Return True if it is live` is one."""
    found = [(path, place) for path in sources(*LIBRARY) for place in questions(ast.parse(path.read_text()))]
    assert not found, f"docstrings that begin like a question:\n{listed(found)}"


def test_functions_are_short() -> None:
    """The length of its longest functions separates readable code from other code."""
    found = [(path, place) for path in sources(*LIBRARY) for place in long_functions(ast.parse(path.read_text()))]
    assert not found, f"functions of more than {MAX_STATEMENTS} statements:\n{listed(found)}"


def test_reasons_stand_beside_the_rules(figures: list[str]) -> None:
    """A rule without its reason is changed by the first reader who does not know the history behind it."""
    lines = reasons = 0
    for folder in DECIDING:
        texts = [path.read_text() for path in sources(folder)]
        assert texts, f"{folder} has no Python files"
        here, among = sum(map(comments, texts)), sum(bool(line.strip()) for text in texts for line in text.splitlines())
        figures.append(f"{folder + ':':21} {100 * here / among:.1f} comments for 100 lines")
        reasons, lines = reasons + here, lines + among
    assert 100 * reasons / lines >= MIN_COMMENTS, f"fewer than {MIN_COMMENTS} comments for 100 lines: {figures}"


def test_the_glossary_names_classes_that_exist() -> None:
    """A renamed class takes its line of the glossary with it."""
    defined = {
        node.name
        for path in sources(*LIBRARY)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    named = set(CLASS_NAME.findall(glossary))
    assert named
    assert not named - defined, f"docs/glossary.md names {', '.join(sorted(named - defined))}"


def test_the_words_of_the_glossary_are_explained_once() -> None:
    """Two lines for one word would be two meanings."""
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|(]+?)(?: \([^|]*\))? \|", glossary, re.MULTILINE)
    words = [word for row in rows if row not in ("word", "---") for word in row.split(", ")]
    assert len(words) > len(rows) / 2
    assert not {word for word in words if words.count(word) > 1}


# --- the checks, on samples ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["joined", "_asleeping", "again", "_held", "told", "listening", "alone"])
def test_a_bare_participle_or_adverb_is_found(name: str) -> None:
    """With an underscore before it, too."""
    assert bare_names(ast.parse(f"class A:\n    def {name}(self): ...")) == [(2, name)]


@pytest.mark.parametrize("name", ["on_children_done", "load_awaiting", "ping", "need", "split", "_read", "__added__"])
def test_a_verb_is_not_found(name: str) -> None:
    """Nor one that happens to end like a participle, nor a participle with a verb before it."""
    assert not bare_names(ast.parse(f"async def {name}(): ..."))


def test_a_property_may_be_named_like_an_attribute() -> None:
    """`graph.committed` reads as an adjective should."""
    text = "class A:\n  @property\n  def committed(self): ...\n  @functools.cached_property\n  def known(self): ..."
    assert not bare_names(ast.parse(text))


@pytest.mark.parametrize(
    "docstring", ["What a run is.", "Whether it lives.", "Who waits.", "How late\nit is.", "Which one."]
)
def test_a_docstring_that_begins_like_a_question_is_found(docstring: str) -> None:
    """Of a module, a class and a function alike."""
    text = f'"""{docstring}"""\n\nclass A:\n    """{docstring}"""\n\n    def run(self):\n        """{docstring}"""'
    assert len(questions(ast.parse(text))) == 3


def test_a_docstring_that_says_something_is_not_found() -> None:
    """`However` and `Whole` are told apart, and no docstring is no finding."""
    text = '"""Whole runs."""\n\ndef read():\n    """Return what is left, wherever it is."""\n\ndef write(): ...'
    assert not questions(ast.parse(text))


def test_a_long_function_is_found() -> None:
    """Thirty statements are allowed, and one more is too many."""
    body = "\n    ".join("x = 1" for _ in range(MAX_STATEMENTS))
    assert not long_functions(ast.parse(f"def run():\n    {body}"))
    assert long_functions(ast.parse(f"def run():\n    {body}\n    y = 2")) == [(1, "run has 31 statements")]


def test_comments_are_counted_and_directives_are_not() -> None:
    """A `#` inside a text is no comment either."""
    assert comments('# why\nx = "# no"  # and why\ny = 1  # type: ignore[misc]\nz = 2  # noqa: A001\n') == 2
