"""The library declares all that it loads: nothing that only the development tools happen to bring."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOADS = """
import sys
from importlib.abc import MetaPathFinder
from importlib.metadata import packages_distributions

declared = set(sys.argv[1].split())
owners = packages_distributions()


class Undeclared(MetaPathFinder):
    # What belongs to none of the declared distributions is not there.
    def find_spec(self, name, path=None, target=None):
        of = {owner.lower().replace("_", "-") for owner in owners.get(name.partition(".")[0], [])}
        if of and not of & declared:
            raise ModuleNotFoundError(f"{name}: of {of}, which nobody declares", name=name)
        return None


sys.meta_path.insert(0, Undeclared())
import celery.backends.redis, kombu.transport.redis, kombu.transport.pyamqp, kombu.transport.memory
import orchestrator, orchestrator.cli.plugin, orchestrator.contrib.events
import orchestrator.canvas.runtime, orchestrator.tasks, orchestrator.stores.redis
from orchestrator.stores import open_store

assert "kombu.transport.redis" in sys.modules
for url in ("sqlite:///runs.db", "postgresql://host/db"):
    try:
        print(type(open_store(url)).__name__)
    except ImportError as error:
        print(error)
"""


def required(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """Everything that installing it brings."""
    found = {canonicalize_name(name)}
    todo = [(name, extras)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        name, extras = todo.pop()
        if (canonicalize_name(name), extras) in seen:
            continue
        seen.add((canonicalize_name(name), extras))
        found.add(canonicalize_name(name))
        for text in distribution(name).requires or []:
            wanted = Requirement(text)
            applies = [wanted.marker is None or wanted.marker.evaluate({"extra": extra}) for extra in extras or {""}]
            if any(applies):
                todo.append((wanted.name, frozenset(wanted.extras)))
    return found


@pytest.mark.parametrize(
    "extra, loaded",
    [
        ("", ("sqlalchemy", "[sqlite]", "sqlalchemy", "[postgres]")),
        ("sqlite", ("SqlStore", "psycopg", "[postgres]")),
        ("postgres", ("SqlStore", "SqlStore")),
    ],
)
def test_everything_that_is_needed_is_declared(extra: str, loaded: tuple[str, ...]) -> None:
    """The library, its stores and the brokers that it is tested with; a store that is not there names its extra."""
    declared = " ".join(sorted(required("celery-orchestrator", frozenset({extra} - {""}))))
    assert "kombu" in declared
    assert "pytest" not in declared
    words = [sys.executable, "-c", LOADS, declared]
    done = subprocess.run(words, capture_output=True, check=False, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = tuple(re.findall(r"SqlStore|(?<=needs )\w+|\[\w+\]", done.stdout))
    assert said == loaded, done.stdout
