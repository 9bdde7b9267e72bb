"""Every path of this repository that a document names exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md"), ROOT / "tests/README.md"]
)
TOP = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"build", "dist"}
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s#]+)(?:#[^)]*)?\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"[\w.@-]+(?:/[\w.*@-]+)*/?")


def named_paths(document: Path) -> Iterator[tuple[str, Path]]:
    """Give every path that a document names, as written and as a place: links, and code in a folder of ours."""
    text = FENCE.sub("", document.read_text())
    for target in LINK.findall(text):
        if "://" not in target and not target.startswith(("mailto:", "<")):
            yield target, (ROOT / target[1:] if target.startswith("/") else document.parent / target)
    for code in CODE.findall(text):
        if "/" in code and PATH.fullmatch(code) and code.split("/")[0] in TOP and ".venv" not in code:
            yield code, ROOT / code


def exists(place: Path) -> bool:
    """Tell whether a path, or a pattern with stars, stands for something."""
    if "*" in str(place):
        return any(ROOT.glob(str(place.relative_to(ROOT))))
    return place.exists()


@pytest.mark.parametrize(
    "document", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in DOCUMENTS if path.exists()]
)
def test_every_path_that_a_document_names_exists(document: Path) -> None:
    """A renamed file takes the documents with it."""
    missing = sorted({written for written, place in named_paths(document) if not exists(place)})
    assert not missing, f"{document.relative_to(ROOT)} names {', '.join(missing)}"
