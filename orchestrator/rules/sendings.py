"""Tasks that are steps: each is sent as itself, and the run learns of its end.

A *sending* is one task id: its first message, and the retries and the replacement that keep that id. An *execution* is
one call of the task by a worker. The activation of a task is claimed to send it, and is `sent` then. What was sent
claims it again where its worker has this library; word of the end comes too, from whoever has executed it. Three things
keep the present apart from the past: the number of the sending (what comes from outside), the claim that has sent the
message (which message may be executed), and the lease token of an execution (whose outcome counts). This module must
not know how a task is sent, or where its result is looked up.
"""

from __future__ import annotations

from orchestrator.rules.change import UpdateActivation
from orchestrator.rules.model import Activation, ActivationFields, ActivationStatus, Phase, RunHeader, StoredStatus
from orchestrator.rules.plan import ClaimedNode, Plan
from orchestrator.rules.transitions import LIVE

_LONGEST_PAUSE = 300_000  # milliseconds between two looks


def begin_anew(activation: Activation, *, forget: bool = False) -> ActivationFields:
    """Return the fields by which the next sending begins; none for what is no task.

    Whatever is still to come of the present one is of the past then: its messages, its links, its executions. So it is
    after an execution was lost: Celery itself calls the task failed, under the old id, which must not be taken for the
    end of the next. What a retry has chosen as arguments stays, unless `forget`: another attempt of the step has its
    own.
    """
    if not activation.sending:
        return {}
    fields: ActivationFields = {
        "sending": activation.sending + 1,
        "phase": Phase.RUN.value,
        "sender": "",
        "sent_at": 0,
    }
    return {**fields, "arguments": "", "task_retries": 0} if forget else fields


def after_loss(activation: Activation) -> ActivationFields:
    """Return what else follows where a claim of a task is lost: of one that was at work, the next sending."""
    # A sender that died may have sent: it is sent again under the same id, and one of the two is executed.
    return begin_anew(activation) if activation.phase == Phase.EXECUTE else {}


def is_looking(activation: Activation) -> bool:
    """Tell whether a claim of a task only looks after it: nothing is lost with it."""
    return activation.phase in (Phase.LOOK, Phase.SEND_AGAIN)


def may_end(header: RunHeader, activation: Activation, sending: int) -> bool:
    """Tell whether word of the end of this sending counts: it is the present one, and its step still to end.

    Where it was sent does not matter: a link may be faster than the commit that says so.
    """
    goes_on = header.status == StoredStatus.RUNNING and not header.closed
    return goes_on and activation.sending == sending and activation.status in LIVE


def look(activation: Activation, *, again: bool) -> UpdateActivation:
    """Let a worker look after a task that was sent; with `again`, it sends the message again if there is no end."""
    phase = Phase.SEND_AGAIN if again else Phase.LOOK
    return UpdateActivation(activation.path, {"status": ActivationStatus.QUEUED.value, "phase": phase.value})


def _plan_sent(claim: ClaimedNode, delay: int, fields: ActivationFields) -> Plan:
    plan = Plan(claim.graph, "", claim.header.quiet)
    sent: ActivationFields = {"status": ActivationStatus.SENT.value, **fields}
    plan.ops.append(UpdateActivation(claim.activation.path, sent, delay=delay))
    return plan


def send(claim: ClaimedNode, grace: int) -> Plan:
    """The task was sent: it is looked for if nothing is heard of it for `grace` ms."""
    return _plan_sent(claim, grace, {})


def retry_task(claim: ClaimedNode, delay: int, arguments: str, grace: int) -> Plan:
    """The task has sent its own retry, due in `delay` ms: that is the present message now, with these arguments."""
    fields: ActivationFields = {
        "arguments": arguments,
        "task_retries": claim.activation.task_retries + 1,
        "sent_at": 0,
    }
    return _plan_sent(claim, delay + grace, fields)


def replace_task(claim: ClaimedNode, grace: int) -> Plan:
    """The task has put something else into its place: no message is executed for it any more, word of the end comes."""
    return _plan_sent(claim, grace, {"sender": "", "sent_at": 0})


def return_message(claim: ClaimedNode, sender: str, grace: int) -> Plan:
    """The worker has given the message back to the broker, which delivers it again as it was."""
    return _plan_sent(claim, grace, {"sender": sender})


def waited_for(header: RunHeader, activation: Activation) -> int:
    """Return for how many ms nothing was heard of a task that was sent, by the clock of the store."""
    return max(0, header.updated_at - activation.sent_at)


def look_later(claim: ClaimedNode, grace: int, left: int | None) -> Plan:
    """The task has not ended: look again, after as long as it has taken until now, in bounds.

    `left` is how many ms may pass before it is given up; None where it never is.
    """
    pause = min(_LONGEST_PAUSE, max(grace, waited_for(claim.header, claim.activation)))
    return _plan_sent(claim, pause if left is None else min(pause, left), {})
