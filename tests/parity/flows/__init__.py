"""The steps and workflows of the parity tests: modules, so that workers import the same ones.

Every committed workflow that a module of this package holds under a name, or in a list or dict named `WORKFLOWS`, is
registered. A name with a leading underscore is left out: a nested workflow is registered through its outer one, and
two of them may have the same id.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from orchestrator import Workflow


def all_workflows() -> list[Workflow]:
    """Import every module of the package and return its workflows; raise where two of them share an id."""
    found: dict[str, Workflow] = {}
    for info in pkgutil.iter_modules(__path__):
        for workflow in _workflows(importlib.import_module(f"{__name__}.{info.name}")):
            if found.setdefault(workflow.id, workflow) is not workflow:
                raise ValueError(f"{info.name}: another workflow is named {workflow.id!r} already")
    return list(found.values())


def _workflows(module: ModuleType) -> Iterator[Workflow]:
    """Yield the committed workflows of one module; one that was never committed is there to be refused."""
    names = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    several = names.get("WORKFLOWS", [])
    for value in (*names.values(), *(several.values() if isinstance(several, dict) else several)):
        if isinstance(value, Workflow) and value.committed:
            yield value
