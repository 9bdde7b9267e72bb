"""The threads of a Django project: its database connections belong to them, and so do coroutines that use those.

Nothing here imports Django: a project that uses it has done so.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable
from typing import Any

_CANCEL = 5.0  # seconds that a coroutine whose caller was interrupted may take to clean up


def has_django() -> bool:
    """Tell whether this process is one of a Django project."""
    conf = sys.modules.get("django.conf")
    return conf is not None and conf.settings.configured


def close_connections() -> None:
    """Close the database connections of this thread, which has nothing more to do for now; none without Django."""
    # Nobody else would: Django closes those of its requests, Celery those of its tasks.
    db: Any = sys.modules.get("django.db")
    if db is not None and has_django():
        db.connections.close_all()


def await_in_this_thread(value: Awaitable[Any], *, is_dying: Any) -> Any:
    """Await it, while what it gives to Django's threads (the ORM's queries) runs in this thread.

    So it uses the connection, and the transaction, that plain functions use here. By itself asgiref would keep a thread
    for all coroutines of the process, whose connection nobody ever closes: once it is broken, it stays so.

    What interrupts this thread cancels the coroutine, as it would in a loop of the thread's own. It has a moment to
    clean up, unless `is_dying(error)` says that the process ends.
    """
    from asgiref.sync import async_to_sync

    place: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []
    ended = threading.Event()

    async def wait() -> Any:
        task = asyncio.current_task()
        assert task is not None
        place.append((asyncio.get_running_loop(), task))
        try:
            return await value
        finally:
            ended.set()

    try:
        return async_to_sync(wait)()
    except BaseException as error:
        if place and not ended.is_set():
            loop, task = place[0]
            loop.call_soon_threadsafe(task.cancel)
            if not is_dying(error):
                ended.wait(_CANCEL)
        raise
