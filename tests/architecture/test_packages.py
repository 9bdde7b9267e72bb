"""The explicit list of packages in pyproject.toml is what stands in the folders."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINKED = {"orchestrator.canvas": "canvas", "orchestrator.tasks": "tasks"}
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def packages_below(name: str, folder: Path) -> set[str]:
    """Return a package and its subpackages, without what is only linked."""
    found = {name}
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink() and any(child.glob("*.py")):
            found |= packages_below(f"{name}.{child.name}", child)
    return found


def test_every_package_is_listed_and_every_listed_package_exists() -> None:
    """A forgotten package would be missing from the wheel without any error."""
    real = packages_below("orchestrator", ROOT / "orchestrator")
    for name, folder in LINKED.items():
        real |= packages_below(name, ROOT / folder)
    listed = SETTINGS["packages"]
    wanted = "".join(f'    "{name}",\n' for name in sorted(real))
    assert sorted(listed) == sorted(real), f"pyproject.toml should say\npackages = [\n{wanted}]"


def test_every_package_folder_has_an_init() -> None:
    """A namespace package by accident is found by some tools and not by others."""
    folders = {path.parent for top in ("orchestrator", "canvas", "tasks") for path in (ROOT / top).rglob("*.py")}
    assert not [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()]


def test_the_linked_folders_are_mapped() -> None:
    """The map tells setuptools where the linked packages are when the links are not there."""
    assert SETTINGS["package-dir"] == {"orchestrator": "orchestrator"} | LINKED


def test_the_links_point_at_the_folders() -> None:
    """In a checkout with links, both names are the same folder."""
    for name, folder in LINKED.items():
        link = ROOT / name.replace(".", "/")
        assert link.resolve() == ROOT / folder


def test_the_library_says_that_it_is_typed() -> None:
    """Without py.typed no type checker reads the annotations of an installed library."""
    assert (ROOT / "orchestrator" / "py.typed").exists()
