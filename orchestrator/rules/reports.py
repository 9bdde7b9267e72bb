"""Reports: telling of a settling that is recorded, by a call of a hook or a delivery to the result backend.

A report is an activation of the run like a step: it is claimed under a lease, tried again when it fails or when its
worker is lost, and given up in the end, which the log of the run tells. What it is not is a part of the run's walk: it
keeps nothing from settling, and it goes on whatever becomes of the run. So a hook that fails, or a result backend that
is away, costs no run its end (decision 11).

The reports of one settling make a chain. The commit of the settling begins the first, and the commit of each outcome
the next, mostly claimed for the worker that is at it. A report that has failed leaves the chain, and is tried again by
itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from orchestrator.rules import events
from orchestrator.rules.change import CreateActivation, UpdateActivation
from orchestrator.rules.graph import Retry
from orchestrator.rules.model import (
    FINAL,
    Activation,
    ActivationFields,
    ActivationStatus,
    Phase,
    Report,
    Role,
    StoredStatus,
    report_path,
)
from orchestrator.rules.plan import ClaimedNode, Plan

HOOKS = frozenset({Report.ON_FINISH, Report.ON_ERROR})
# A hook mostly writes into a database of the user's: eight tries more outlast a restart of it, some three minutes. A
# result backend may be away for longer, and nothing but this delivery brings the result there: more than an hour.
_RETRIES = {
    Report.ON_FINISH: Retry(8, 1.0, backoff=True, backoff_max=60.0, jitter=False),
    Report.ON_ERROR: Retry(8, 1.0, backoff=True, backoff_max=60.0, jitter=False),
    Report.RESULT: Retry(20, 1.0, backoff=True, backoff_max=300.0, jitter=False),
}


@dataclass(frozen=True, slots=True)
class Told:
    """The parties that are to be told of a settling."""

    hooks: Collection[str] = ()  # the names of the workflow's hooks
    delivers: bool = False  # there is a result backend
    # The hooks may be called by the worker that commits: it knows them, and no time limit of a step is over it.
    hooks_here: bool = True

    def chains(self, status: StoredStatus) -> tuple[tuple[Report, ...], tuple[Report, ...]]:
        """Return the reports that the committing worker goes on with, and those that begin in the queue."""
        calls = tuple(report for report in Report if report in self.hooks and _is_called(report, status))
        delivery = (Report.RESULT,) if self.delivers and status in FINAL else ()
        # A hook is called before the result is delivered, as long as it is the same worker that does both.
        return ((*calls, *delivery), ()) if self.hooks_here else (delivery, calls)


NOBODY = Told()


def _is_called(report: Report, status: StoredStatus) -> bool:
    # A run that is paused goes on when its caller resumes it: nothing has finished. Of a suspension the hook is told
    # before it is recorded (`begin_again`).
    if report is Report.ON_FINISH:
        return status in FINAL
    return report is Report.ON_ERROR and status in (StoredStatus.FAILED, StoredStatus.TRIPWIRE)


def begin(settle_count: int, status: StoredStatus, told: Told, route: str, token: str) -> list[CreateActivation]:
    """Begin to tell of a settling. The first report of the worker's own is claimed under `token`, if there is one."""
    here, queued = told.chains(status)
    made = []
    if here:
        made.append(CreateActivation(_make(settle_count, status, here, route), token))
    if queued:
        made.append(CreateActivation(_make(settle_count, status, queued, route)))
    return made


def begin_again(claim: ClaimedNode, status: StoredStatus, *, is_lost: bool) -> CreateActivation:
    """Let another call follow one of `on_finish` that came before its settling was recorded, and has failed.

    So it is of a suspension. Where it has cost so many workers (`is_lost`) the report is for who gives it up.
    """
    report = _make(claim.header.settle_count + 1, status, (Report.ON_FINISH,), claim.activation.route)
    if is_lost:
        return CreateActivation(replace(report, abandoned_attempts=claim.activation.abandoned_attempts))
    retrying = replace(report, status=ActivationStatus.RETRYING.value, attempt=1)
    return CreateActivation(retrying, delay=_pause(Report.ON_FINISH, 1))


def _make(settle_count: int, status: str, reports: Sequence[Report], route: str) -> Activation:
    first, *others = reports
    return Activation(
        path=report_path(settle_count, first),
        step=first.value,
        component="REPORT",
        role=Role.BLOCK.value,
        phase=Phase.REPORT.value,
        quiet=True,
        route=route,
        settled=str(status),
        following=" ".join(others),
    )


def _pause(report: Report, attempt: int) -> int:
    """Return the milliseconds before this attempt; the first retry is 1."""
    return round(_RETRIES[report].pause(attempt, 0.0) * 1000)


def find_report_pause(activation: Activation) -> int | None:
    """Return the milliseconds until a report that has failed is tried again; None where it is given up."""
    report = Report(activation.step)
    return _pause(report, activation.attempt + 1) if activation.attempt < _RETRIES[report].attempts else None


def on_report_done(claim: ClaimedNode, *, here: bool) -> Plan:
    """Its party has been told: begin the next report of the settling, for this worker where that may be."""
    plan = _plan(claim)
    plan.ops.append(
        UpdateActivation(claim.activation.path, {"status": ActivationStatus.SUCCESS.value, "following": ""})
    )
    return _begin_next(plan, claim, here)


def retry_report(claim: ClaimedNode, delay: int, *, here: bool) -> Plan:
    """Its party could not be told: let another attempt follow after `delay` milliseconds. The next one begins now."""
    plan = _plan(claim)
    # What follows a report leaves it with its first outcome. So nothing follows twice.
    fields: ActivationFields = {
        "status": ActivationStatus.RETRYING.value,
        "attempt": claim.activation.attempt + 1,
        "following": "",
    }
    plan.ops.append(UpdateActivation(claim.activation.path, fields, delay=delay))
    return _begin_next(plan, claim, here)


def give_up_report(claim: ClaimedNode, error_id: str, *, here: bool) -> Plan:
    """Its party could not be told in all the attempts that it has: leave it, and say so in the log of the run."""
    plan = _plan(claim)
    activation = claim.activation
    fields: ActivationFields = {"status": ActivationStatus.FAILED.value, "error": error_id, "following": ""}
    plan.ops.append(UpdateActivation(activation.path, fields))
    plan.events.append(events.make_report_failed(activation.step, activation.settled, error_id))
    return _begin_next(plan, claim, here)


def _plan(claim: ClaimedNode) -> Plan:
    return Plan(claim.graph, claim.token)


def _begin_next(plan: Plan, claim: ClaimedNode, here: bool) -> Plan:
    activation = claim.activation
    following = [Report(name) for name in activation.following.split()]
    if following:
        settle_count = -activation.at[0]
        made = _make(settle_count, activation.settled, following, activation.route)
        # A delivery is short, and no function of the user's: it goes on under whatever limit there is.
        is_ours = here or following[0] is Report.RESULT
        plan.ops.append(CreateActivation(made, claim.token if is_ours else ""))
    return plan
