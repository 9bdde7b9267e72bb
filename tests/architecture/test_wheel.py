"""The installed package works outside the checkout, beside a user's own tasks.py and canvas.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NOT_SOURCE = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", "*.db", ".coverage*"
)

USER_TASKS = """
from celery import Celery
from orchestrator import Orchestrator, Workflow, step

app = Celery("shop", broker="memory://")


@app.task
def mine():
    return "the user's task"


@step
def double(number: int) -> int:
    return number * 2


@step
def describe(number: int) -> str:
    return f"{number} pieces"


order = Workflow("order", input=int, output=str).then(double).then(describe).commit()
"""
USER_CANVAS = """
OWNER = "the user"
"""
USER_MAIN = """
import pathlib
import sys

import canvas
import orchestrator
import orchestrator.canvas
import orchestrator.tasks
import tasks

here = pathlib.Path(__file__).resolve().parent
assert canvas.OWNER == "the user"
assert pathlib.Path(canvas.__file__).resolve() == here / "canvas.py", canvas.__file__
assert pathlib.Path(tasks.__file__).resolve() == here / "tasks.py", tasks.__file__
for module in (orchestrator, orchestrator.canvas, orchestrator.tasks):
    assert pathlib.Path(sys.prefix).resolve() in pathlib.Path(module.__file__).resolve().parents, module.__file__

with orchestrator.Orchestrator(workflows=[tasks.order]) as orch:
    result = orch.create_run("order").start(21)
assert result.status == "success", result
assert result.unwrap() == "42 pieces", result
print("it works")
"""


def run(command: Sequence[str | Path], cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run a command without this checkout on any path; fail with all that it printed."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "COVERAGE_PROCESS_START")}
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env=clean | (env or {}), capture_output=True, check=False, text=True, timeout=300
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(source: Path, kind: str, into: Path) -> Path:
    """Build one distribution with the environment's own setuptools: nothing is downloaded."""
    run([sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", into, source], source)
    return next(into.iterdir())


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, so that building leaves nothing behind in the real one."""
    copy = tmp_path_factory.mktemp("check out") / "source"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=NOT_SOURCE)
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from the checkout."""
    return build(checkout, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution built from the checkout."""
    return build(checkout, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel_of_sdist(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from the unpacked source distribution, as an installer does it."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return build(next(folder.iterdir()), "wheel", tmp_path_factory.mktemp("wheel-of-sdist"))


def content(archive: Path) -> set[str]:
    """Return what a wheel installs, without its metadata."""
    with zipfile.ZipFile(archive) as opened:
        return {name for name in opened.namelist() if ".dist-info/" not in name}


def expected() -> set[str]:
    """Return every file of the package's folders under the name that it is installed by."""
    found = set()
    for folder, name in (
        ("orchestrator", "orchestrator"),
        ("canvas", "orchestrator/canvas"),
        ("tasks", "orchestrator/tasks"),
    ):
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT / folder)
            linked = any((ROOT / folder / part).is_symlink() for part in [inside, *inside.parents])
            if path.is_file() and not linked and "__pycache__" not in inside.parts and inside.suffix != ".md":
                found.add(f"{name}/{inside.as_posix()}")
    return found


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    """Scripts, templates and py.typed too; nothing under the bare names canvas and tasks."""
    assert content(wheel) == expected()


def test_the_sdist_builds_the_same_wheel(wheel: Path, wheel_of_sdist: Path) -> None:
    """An installation from source has all that the wheel has."""
    assert content(wheel_of_sdist) == content(wheel)


def test_a_checkout_without_links_builds_the_same_wheel(checkout: Path, wheel: Path, tmp_path: Path) -> None:
    """A downloaded archive, or a clone where links become text files, loses nothing."""
    copy = tmp_path / "source"
    shutil.copytree(checkout, copy, symlinks=True, ignore=NOT_SOURCE)
    for name in ("canvas", "tasks"):
        (copy / "orchestrator" / name).unlink()
        (copy / "orchestrator" / name).write_text(f"../{name}")
    assert content(build(copy, "wheel", tmp_path / "out")) == content(wheel)


@pytest.mark.parametrize("origin", ["wheel", "wheel_of_sdist"])
def test_a_users_project_with_tasks_and_canvas_of_its_own_works(
    origin: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Installed outside the checkout, the library runs a workflow, and the bare names stay the user's."""
    python = installed(request.getfixturevalue(origin), tmp_path / "environment")
    project = tmp_path / "shop"
    project.mkdir()
    for name, text in (("tasks.py", USER_TASKS), ("canvas.py", USER_CANVAS), ("main.py", USER_MAIN)):
        (project / name).write_text(text)

    assert "it works" in run([python, "main.py"], project)
    assert "software" in run([python, "-m", "celery", "-A", "tasks", "report"], project)


def installed(wheel: Path, folder: Path) -> Path:
    """Install a wheel into a new environment that borrows its dependencies from this one; return its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel], folder)
    # Path files of a folder named in a path file are not read: an editable install of this checkout stays out of sight.
    own = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    borrowed = sysconfig.get_path("purelib")
    Path(own, "borrowed.pth").write_text(borrowed + "\n")
    return python
