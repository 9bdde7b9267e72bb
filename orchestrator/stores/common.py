"""Functions that several stores share."""

from __future__ import annotations

import re

from orchestrator.ports import RunQuery
from orchestrator.rules.model import RunHeader

SLACK = 50  # events by which a log may exceed its limit: it is cut now and then, not at each commit

_NUMBER = re.compile(r"[0-9]{1,18}")


def number_of(cursor: str) -> int:
    """Return the number of the event behind which the cursor stands, where a run's events are numbered from 1."""
    if cursor and not _NUMBER.fullmatch(cursor):
        raise ValueError(f"{cursor!r} is no cursor of this store")
    return int(cursor or 0)


def matches(header: RunHeader, query: RunQuery) -> bool:
    """Return True for a run that the query selects."""
    return (
        query.workflow_id in (None, header.workflow_id)
        and query.status in (None, header.status)
        and query.resource_id in (None, header.resource_id)
        and (query.before is None or header.updated_at < query.before)
    )
