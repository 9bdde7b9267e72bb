"""Workflows of the entries about the request context and the resource: R-EAT and R-ERI."""

from __future__ import annotations

from typing import Any

from orchestrator import Context, RunInfo, Workflow, step
from tests.parity.calls import note, note_for

Data = dict[str, Any]
SECRET = "authorization"


def tell(name: str) -> Any:
    """Make a step that notes the secret it sees, and hands its input on."""

    @step(id=name)
    def telling(data: Any, ctx: Context) -> Any:
        """Note the secret, log and stream something else, and count."""
        note(ctx, name, ctx.request_context.get(SECRET))
        ctx.logger.info("step %s works for %s", name, ctx.request_context["tenant"])
        ctx.write({"by": name})
        ctx.request_context["seen"] = ctx.request_context.get("seen", 0) + 1
        return data

    return telling


@step(id="gate")
def gate(data: Any, ctx: Context) -> Any:
    """Suspend, and note the secret before and after."""
    note(ctx, "gate", ctx.request_context.get(SECRET))
    if not ctx.resumed:
        ctx.suspend({"tenant": ctx.request_context["tenant"]})
    return data


@step(id="renew")
def renew(data: Any, ctx: Context) -> Any:
    """Put another secret in the place of the one there is."""
    ctx.request_context[SECRET] = "Bearer renewed-by-a-step"
    return data


def tell_end(info: RunInfo) -> None:
    """Note the secret that a callback sees."""
    note_for(info.run_id, "on_finish", [info.status, info.request_context.get(SECRET)])


def has_secret(data: Any, ctx: Context) -> bool:
    """Note the secret that a condition sees, and let its arm run."""
    note(ctx, "condition", ctx.request_context.get(SECRET))
    return True


_nested = Workflow("nested-secret").then(tell("nested")).commit()
carrying = (
    Workflow("robust-context-carrying", on_finish=tell_end)
    .then(tell("plain"))
    .parallel(tell("left"), tell("right"))
    .map(lambda data: [1, 2])
    .foreach(tell("item"), concurrency=2)
    .branch((has_secret, tell("arm")))
    .then(_nested)
    .sleep(0.01, id="nap")
    .then(gate)
    .then(tell("resumed"))
    .then(renew)
    .then(tell("last"))
    .commit()
)


@step(id="whose")
def tell_resource(ctx: Context) -> str | None:
    """Return the user of the run, before a suspension and after it."""
    note(ctx, "whose", ctx.resource_id)
    if not ctx.resumed:
        ctx.suspend({})
    return ctx.resource_id


resource = Workflow("robust-context-resource").then(tell_resource).commit()
