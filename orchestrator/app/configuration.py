"""The arguments of an `Orchestrator`, checked. Settings come from keywords first, then from the Celery app's
configuration, then from the defaults.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, Protocol

from orchestrator.definitions import Workflow
from orchestrator.engine.settings import Settings
from orchestrator.ports import Store

_NAMES = tuple(f.name for f in fields(Settings))


class CeleryApp(Protocol):
    """A Celery app, as far as this package looks at one."""

    main: Any
    conf: Any


def require_app(app: object) -> None:
    """Raise TypeError for what is no Celery app. The message never shows it: it may be a URL with a password."""
    if app is not None and not hasattr(app, "conf"):
        remedy = "a store's URL goes to `store=`, workflows go to `workflows=[...]`"
        raise TypeError(f"the first argument of Orchestrator() is a Celery app, not a {type(app).__name__}: {remedy}")


def check_workflows(given: object) -> list[Workflow]:
    """Return the workflows that were given as a list. Raises TypeError for a single one, and for what is none."""
    if isinstance(given, (Workflow, str)) or not isinstance(given, Iterable):
        raise TypeError(f"`workflows` takes a list of workflows: write workflows=[...], not {given!r} alone")
    found = list(given)
    if others := [each for each in found if not isinstance(each, Workflow)]:
        raise TypeError(f"`workflows` takes a list of workflows, and {others[0]!r} is none")
    return found


def read_settings(
    app: CeleryApp | None, store: str | Store | None, given: dict[str, Any]
) -> tuple[str | Store, Settings]:
    """Return the store (or its URL) and the settings. Raises TypeError for a keyword that is no setting."""
    unknown = set(given) - set(_NAMES)
    if unknown:
        raise TypeError(f"no setting {', '.join(sorted(unknown))}: choose from store, {', '.join(_NAMES)}")
    if app is None:
        return store or "memory://", Settings(**given)
    found = {name: value for name in _NAMES if (value := app.conf.get(f"orchestrator_{name}")) is not None}
    if "namespace" not in found:
        found["namespace"] = app.main or "default"
    settings = Settings(**{**found, **given})
    url = store or app.conf.get("orchestrator_store") or app.conf.get("orchestrator_database_url")
    if url is None and app.conf.task_always_eager:
        url = "memory://"
    if url is None:
        raise ValueError(
            "an orchestrator on Celery workers needs a store that they share: set `orchestrator_store` in the app's "
            "configuration, for example 'redis://localhost/1' or 'sqlite:///runs.db'"
        )
    return url, settings
