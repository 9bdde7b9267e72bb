"""Dispatches that nobody could be told of: their timers are pulled forward, so that a scheduler tries again soon."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from orchestrator.engine.logs import log_context
from orchestrator.errors import StoreUnavailable
from orchestrator.ports import Store
from orchestrator.rules.change import Dispatch, Refused
from orchestrator.rules.model import RunHeader
from orchestrator.rules.timers import on_unsent

log = logging.getLogger("orchestrator")

_SINGLY = 100  # dispatches that are looked at one by one where some of them have gone out after all


def note_unsent(
    store: Store,
    header: RunHeader,
    dispatches: Sequence[Dispatch],
    delay: int,
    *,
    sends: Mapping[str, int] | None = None,
) -> None:
    """Have a scheduler look at these again after `delay` ms. Where the store is away too, it does so later."""
    unsent = [dispatch for dispatch in dispatches if not dispatch.delay]  # whose moment is to come has a timer for it
    if not unsent:
        return
    try:
        answer = store.commit(header.run_id, on_unsent(unsent, delay, sends=sends))
        if isinstance(answer, Refused) and len(unsent) > 1:
            for dispatch in unsent[:_SINGLY]:
                store.commit(header.run_id, on_unsent([dispatch], delay, sends=sends))
    except StoreUnavailable as error:
        log.warning("run %s: %s", header.run_id, error, extra=log_context(header))
