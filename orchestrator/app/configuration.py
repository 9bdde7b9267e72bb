"""The arguments of an `Orchestrator`, checked. Settings come from keywords first, then from the Celery app's
configuration, then from the defaults.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any, Protocol, get_type_hints

from pydantic import ValidationError

from orchestrator.app import django_database
from orchestrator.codec import type_adapter
from orchestrator.definitions import Workflow
from orchestrator.engine.settings import Settings
from orchestrator.ports import Store

_NAMES = tuple(f.name for f in fields(Settings))
_PREFIX = "orchestrator_"  # of the names of settings in the configuration of a Celery app
# Both name the store. Celery masks the second in `celery report` and `inspect conf`, for the word in it.
_STORE, _SECRET_STORE = "store", "database_url"


class CeleryApp(Protocol):
    """A Celery app, as far as this package looks at one."""

    main: Any
    conf: Any
    # Of the names of settings in the user's module; None for none.
    namespace: Any


def require_app(app: object) -> None:
    """Raise TypeError for what is no Celery app. The message never shows it: it may be a URL with a password."""
    if app is not None and not hasattr(app, "conf"):
        remedy = "a store's URL goes to `store=`, workflows go to `workflows=[...]`"
        raise TypeError(f"the first argument of Orchestrator() is a Celery app, not a {type(app).__name__}: {remedy}")


def check_store(given: object) -> None:
    """Raise TypeError for what is no store and no URL, and ValueError for an empty text, which names none."""
    # The message never shows it: what is no text may still be a URL with a password.
    if given == "":
        raise ValueError("`store` is an empty text: give a store's URL, or leave it away")
    if given is not None and not isinstance(given, str) and not hasattr(given, "commit"):
        raise TypeError(
            f"`store` takes a store or its URL, a text such as 'sqlite:///runs.db', not a {type(given).__name__}"
        )


def check_workflows(given: object) -> list[Workflow]:
    """Return the workflows that were given as a list. Raises TypeError for a single one, and for what is none."""
    if isinstance(given, (Workflow, str)) or not isinstance(given, Iterable):
        raise TypeError(f"`workflows` takes a list of workflows: write workflows=[...], not {given!r} alone")
    found = list(given)
    if others := [each for each in found if not isinstance(each, Workflow)]:
        raise TypeError(f"`workflows` takes a list of workflows, and {others[0]!r} is none")
    return found


def check_keywords(given: dict[str, Any]) -> None:
    """Raise TypeError for a keyword that is no setting, and ValueError for a value of the wrong type."""
    unknown = set(given) - set(_NAMES)
    if unknown:
        raise TypeError(f"no setting {', '.join(sorted(unknown))}: choose from store, {', '.join(_NAMES)}")
    _parse_all(given)


def read_settings(
    app: CeleryApp | None, store: str | Store | None, given: dict[str, Any]
) -> tuple[str | Store, Settings]:
    """Return the store (or its URL) and the settings.

    Raises ValueError for a name in the app's configuration that is no setting, for a value of the wrong type, and for a
    password where Celery would show it.
    """
    if app is None:
        return store or "memory://", _make_settings(given)
    _refuse_misspelled(app)
    found = {name: value for name in _NAMES if (value := app.conf.get(_PREFIX + name)) is not None}
    if "namespace" not in found:
        found["namespace"] = app.main or "default"
    settings = _make_settings({**found, **given})
    url = store or _configured_store(app)
    if url is None and app.conf.task_always_eager:
        url = "memory://"
    if url is None:
        raise ValueError(
            f"an orchestrator on Celery workers needs a store that they share: set `{_name_of_store(app)}` in the "
            "app's configuration, for example to 'redis://localhost/1' or 'sqlite:///runs.db'"
        )
    return url, settings


def refuse_real_database(app: CeleryApp | None, store: str | Store | None) -> None:
    """Raise ValueError while Django's tests run, if the store is in a database of Django's that they do not use."""
    is_given = store is not None or app is None
    url = store if is_given or app is None else _configured_store(app)
    django_database.refuse_real_database(url, "`store`" if is_given or app is None else _name_of_store(app))


def _name_of_store(app: CeleryApp) -> str:
    name = _PREFIX + _SECRET_STORE
    return f"{app.namespace}_{name}".upper() if app.namespace else name


def _make_settings(given: dict[str, Any]) -> Settings:
    """Make the settings of what was given: texts, as an environment has them, become numbers and truth values."""
    if isinstance(given.get("secret_context_keys"), str):
        return Settings(**given)  # refused there: to pydantic a text is a collection, too
    return Settings(**_parse_all(given))


def _parse_all(given: dict[str, Any]) -> dict[str, Any]:
    types = get_type_hints(Settings)
    return {name: _parse(name, types[name], value) for name, value in given.items()}


def _parse(name: str, kind: Any, value: Any) -> Any:
    try:
        return type_adapter(kind).validate_python(value)
    except ValidationError as error:
        # Without the value: it may be a secret.
        problem = error.errors(include_input=False, include_url=False)[0]["msg"]
        raise ValueError(f"{_PREFIX}{name}: {problem} (it is of the type {type(value).__name__})") from None


def _refuse_misspelled(app: CeleryApp) -> None:
    """Raise ValueError for a setting of ours that is none: it would be left out without a word."""
    known = [*_NAMES, _STORE, _SECRET_STORE]
    for name in _own_names(app):
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            remedy = f"did you mean {_PREFIX}{near[0]}?" if near else f"choose from {', '.join(known)}"
            raise ValueError(f"the app's configuration has {_PREFIX}{name}, which is no setting: {remedy}")


def _own_names(app: CeleryApp) -> Iterator[str]:
    # With a namespace (`namespace="CELERY"` in Django) the names in the user's module begin with that.
    prefix = (app.namespace or "").lower()
    begins = tuple(f"{start}{_PREFIX}" for start in ({"", f"{prefix}_"} if prefix else {""}))
    for key in filter(lambda key: isinstance(key, str), app.conf):
        start = next((each for each in begins if key.lower().startswith(each)), None)
        # Beside a namespace, a plain name in capitals is the user's own, which Celery does not read.
        if start is not None and (start != _PREFIX or not prefix or key.islower()):
            yield key.lower()[len(start) :]


def _configured_store(app: CeleryApp) -> Any:
    shown, masked = app.conf.get(_PREFIX + _STORE), app.conf.get(_PREFIX + _SECRET_STORE)
    if isinstance(shown, str) and _has_password(shown):
        raise ValueError(
            f"{_PREFIX}{_STORE} has a password, which `celery report` and `celery inspect conf` would show to whoever "
            f"asks: name the setting {_PREFIX}{_SECRET_STORE}, which they mask"
        )
    return shown or masked


def _has_password(url: str) -> bool:
    # Not by `urlsplit`: a password that holds a slash unquoted ends the host too early for it.
    return re.search(r"^(?!sqlite|memory)[^:]+://[^@]*:[^@]*@|[?&][^=&]*password=", url) is not None
