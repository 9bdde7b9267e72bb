"""Resume data that is pending after a time travel, read for the steps that begin and for nothing else."""

from __future__ import annotations

from orchestrator.engine.attempt import Attempt
from orchestrator.rules.pending_resumes import (
    Progress,
    begin_resumed,
    find_beginning,
    make_progress_id,
    parse_progress,
)
from orchestrator.rules.plan import Plan


def read_progress(attempt: Attempt, total: int) -> Progress:
    """Return where the foreach of this attempt, of `total` items, goes on."""
    id_ = make_progress_id(attempt.header.pending_resumes, attempt.activation)
    return parse_progress(_read(attempt, [id_]).get(id_) if id_ else None, total)


def resume_beginning(attempt: Attempt, plan: Plan) -> None:
    """Let the steps that begin by this plan begin as resumed ones, where resume data is pending for them."""
    # A run that has not travelled with resume data reads nothing here; another asks once for each of its outcomes.
    if ids := find_beginning(attempt.header.pending_resumes, plan.ops):
        plan.ops = begin_resumed(attempt.header.pending_resumes, plan.ops, _read(attempt, ids))


def _read(attempt: Attempt, ids: list[str]) -> dict[str, str]:
    store, run_id = attempt.store, attempt.header.run_id
    return attempt.services.retry_while_unavailable(lambda: store.values(run_id, ids))
