"""A record of all that happens to a task: hooks, signals, arguments, headers, results. One file for each run of one."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from celery import current_task, signals

FOLDER = "FOREIGN_RECORDINGS"
OWN = "orchestrator"  # our header, and the beginning of our tasks' names


def path_of(label: str) -> Path:
    """The file of one run of a task."""
    return Path(os.environ[FOLDER]) / f"{label}.jsonl"


def note(label: Any, what: str, **about: Any) -> None:
    """Record one thing."""
    if not isinstance(label, str) or FOLDER not in os.environ:
        return
    if current_task and what != "errback":  # which of several executions this belongs to: they may overlap
        args = [one for one in current_task.request.args or () if isinstance(one, str | int)]
        about["turn"] = [current_task.request.retries, args]
    with path_of(label).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps({"what": what, **about}, default=repr) + "\n")


def recorded(label: str) -> list[dict[str, Any]]:
    """All that was recorded, in its order."""
    path = path_of(label)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def label_of(args: Any, kwargs: Any) -> Any:
    """The label of a run: the first argument of each task of this project."""
    if args:
        return args[0]
    return (kwargs or {}).get("label")


def about(request: Any) -> dict[str, Any]:
    """The request as the task's code sees it, without what is ours or drawn anew each time."""
    headers = {name: value for name, value in (request.headers or {}).items() if name == "x-trace"}
    links = [link["task"] for link in request.callbacks or () if not link["task"].startswith(OWN)]
    errbacks = [link["task"] for link in request.errbacks or () if not link["task"].startswith(OWN)]
    return {
        "id": request.id,
        "args": list(request.args or ()),
        "kwargs": dict(request.kwargs or {}),
        "retries": request.retries,
        "headers": headers,
        "links": links,
        "errbacks": errbacks,
        "eta": request.eta is not None,
        "expires": request.expires is not None,
        "queue": (request.delivery_info or {}).get("routing_key"),
        "timelimit": list(request.timelimit or ()),
    }


@signals.task_prerun.connect
def _prerun(sender: Any = None, args: Any = None, kwargs: Any = None, **_: Any) -> None:
    note(label_of(args, kwargs), "signal prerun", task=sender.name, args=list(args), kwargs=kwargs)


@signals.task_postrun.connect
def _postrun(
    sender: Any = None, args: Any = None, kwargs: Any = None, state: Any = None, retval: Any = None, **_: Any
) -> None:
    note(label_of(args, kwargs), "signal postrun", task=sender.name, state=state, value=shown(retval))


@signals.task_success.connect
def _success(sender: Any = None, result: Any = None, **_: Any) -> None:
    note(label_of(sender.request.args, sender.request.kwargs), "signal success", task=sender.name, value=shown(result))


@signals.task_failure.connect
def _failure(sender: Any = None, exception: Any = None, args: Any = None, kwargs: Any = None, **_: Any) -> None:
    note(label_of(args, kwargs), "signal failure", task=sender.name, error=shown(exception))


@signals.task_retry.connect
def _retry(sender: Any = None, request: Any = None, reason: Any = None, **_: Any) -> None:
    note(label_of(request.args, request.kwargs), "signal retry", task=sender.name, reason=shown(reason))


@signals.task_revoked.connect
def _revoked(sender: Any = None, request: Any = None, terminated: Any = None, expired: Any = None, **_: Any) -> None:
    found = label_of(request.args, request.kwargs)
    note(found, "signal revoked", task=sender.name, terminated=bool(terminated), expired=bool(expired))


def shown(value: Any) -> str:
    """A value without what differs from run to run: the places of objects."""
    text = repr(value)
    return text.partition(" at 0x")[0] if " at 0x" in text else text
