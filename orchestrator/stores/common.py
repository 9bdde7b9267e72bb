"""Rules that several stores share. This module knows none of them."""

from __future__ import annotations

import re

from orchestrator.ports import RunQuery
from orchestrator.rules.model import RunHeader

SLACK = 50  # events that a log may be longer than it should: it is cut now and then, not each time

_NUMBER = re.compile(r"[0-9]{1,18}")


def number_of(cursor: str) -> int:
    """The number of the event that the cursor stands behind, in a store that numbers a run's events from 1."""
    if cursor and not _NUMBER.fullmatch(cursor):
        raise ValueError(f"{cursor!r} is no cursor of this store")
    return int(cursor or 0)


def matches(header: RunHeader, query: RunQuery) -> bool:
    """True for a run that the query asks for."""
    return (
        query.workflow_id in (None, header.workflow_id)
        and query.status in (None, header.status)
        and query.resource_id in (None, header.resource_id)
        and (query.before is None or header.updated_at < query.before)
    )
