"""The writes of one attempt into the run's state: values to set, and functions that compute them from the state."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

# Given the state, returns the top-level keys to write.
StateUpdate = Callable[[Mapping[str, Any]], Mapping[str, Any]]
StateWrite = Mapping[str, Any] | StateUpdate


def check_update(update: Any) -> StateUpdate:
    """Return the function as it is. Raises TypeError for what is none, and for one that has to be awaited."""
    if not callable(update):
        raise TypeError(
            f"ctx.update_state() takes a function of the state, not {update!r}; ctx.set_state() takes values"
        )
    if inspect.iscoroutinefunction(update):
        raise TypeError(f"ctx.update_state() calls a plain function, and {update!r} is async: await before you call it")
    return update  # type: ignore[no-any-return]


def has_updates(writes: Sequence[StateWrite]) -> bool:
    """Tell whether some of these writes are computed from the state."""
    return any(callable(write) for write in writes)


def merge_writes(state: Mapping[str, Any], writes: Sequence[StateWrite]) -> dict[str, Any]:
    """Return the keys that these writes, one after the other, leave written over `state`.

    Raises TypeError for a function that returns no mapping, and whatever a function raises.
    """
    written: dict[str, Any] = {}
    for write in writes:
        # A copy, as a function may change in place what it is given, and is called again with the same.
        written.update(_apply_update(write, deepcopy({**state, **written})) if callable(write) else write)
    return written


def _apply_update(update: StateUpdate, state: dict[str, Any]) -> Mapping[str, Any]:
    patch: Any = update(state)
    if inspect.iscoroutine(patch):
        patch.close()  # else Python warns of it somewhere else
    if not isinstance(patch, Mapping):
        text = f"the function of ctx.update_state() returned {patch!r}: it has to return a mapping of the keys to write"
        raise TypeError(text)
    return patch
