"""The commands, as both groups have them: their names, their options, and the functions that carry them out.

Light: Celery loads this module for each of its commands. The function of a command is imported when it runs.
"""

from __future__ import annotations

from datetime import timedelta
from typing import IO, Any

import click

from orchestrator.cli import exits, options
from orchestrator.cli.access import session

_STATUS = click.Choice(options.STATUSES)
_POSITIVE = click.IntRange(min=1)
_NATURAL = click.IntRange(min=0)


@click.command("list", epilog=exits.HELP)
@click.option("--workflow", metavar="ID", help="Only runs of this workflow.")
@click.option("--status", type=_STATUS, help="Only runs in this state.")
@click.option("--resource", metavar="ID", help="Only runs for this resource.")
@click.option("--limit", type=_POSITIVE, default=20, show_default=True, help="How many to show at most.")
@click.option("--offset", type=_NATURAL, default=0, show_default=True, help="How many of the newest to leave out.")
@options.as_json
@click.pass_context
def list_runs(
    ctx: click.Context,
    workflow: str | None,
    status: str | None,
    resource: str | None,
    limit: int,
    offset: int,
    as_json: bool,
) -> None:
    """List stored runs, newest first."""
    from orchestrator.cli import stored

    with session(ctx, as_json) as at:
        page = at.orchestrator.runs.list(
            workflow=workflow, status=status, resource_id=resource, limit=limit, offset=offset
        )
        stored.show_page(at, page, offset)


@click.command(epilog=exits.HELP)
@click.argument("workflow", metavar="WORKFLOW")
@click.argument("text", metavar="[INPUT-JSON | -]", required=False)
@options.given_by_file
@click.option("--run-id", metavar="ID", help="The run's id; a new one by default.")
@click.option("--resource", metavar="ID", help="Whom or what the run is for.")
@click.option("--state", metavar="JSON", callback=options.json_object, help="The run's first state, a JSON object.")
@options.wait_options
@options.as_json
@click.pass_context
def start(
    ctx: click.Context,
    workflow: str,
    text: str | None,
    file: IO[str] | None,
    run_id: str | None,
    resource: str | None,
    state: dict[str, Any] | None,
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Start a run of WORKFLOW and wait for what it comes to.

    The input is JSON: an argument, a file (--input) or stdin (-). A negative number stands behind a double dash:
    `start WORKFLOW -- -5`.
    """
    from orchestrator.cli import running

    value = options.value_given(text, file)
    with session(ctx, as_json, stored=False) as at:
        args = running.Start(workflow, value, run_id, resource, state)
        ctx.exit(running.start(at, args, wait=wait, timeout=timeout))


@click.command(epilog=exits.HELP)
@click.argument("run_id", metavar="RUN_ID")
@click.argument("text", metavar="[DATA-JSON | -]", required=False)
@options.given_by_file
@click.option("--step", metavar="PATH", help="The step to resume: its id, dotted inside nested workflows.")
@click.option("--label", metavar="LABEL", help="The label with which the step was suspended.")
@click.option("--index", type=_NATURAL, help="The item of a foreach.")
@click.option("--token", metavar="TOKEN", help="One suspension, as `waiting --json` has it; refused once it is over.")
@click.option("--per-step", is_flag=True, help="Go on by one step and pause again.")
@options.wait_options
@options.as_json
@click.pass_context
def resume(
    ctx: click.Context,
    run_id: str,
    text: str | None,
    file: IO[str] | None,
    step: str | None,
    label: str | None,
    index: int | None,
    token: str | None,
    per_step: bool,
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Hand data to the suspended step of a run and wait for what the run comes to next.

    A paused run goes on without data. What no data and `null` mean may differ to a step.
    """
    from orchestrator.cli import running

    value = options.value_given(text, file)
    with session(ctx, as_json) as at:
        args = running.Resume(run_id, value, step, label, index, token, per_step)
        ctx.exit(running.resume(at, args, wait=wait, timeout=timeout))


@click.command(epilog=exits.HELP)
@click.argument("run_id", metavar="RUN_ID")
@options.as_json
@click.pass_context
def cancel(ctx: click.Context, run_id: str, as_json: bool) -> None:
    """Cancel a run. One that has ended stays as it is."""
    from orchestrator.cli import running

    with session(ctx, as_json) as at:
        ctx.exit(running.cancel(at, run_id))


@click.command(epilog=exits.HELP)
@click.argument("run_id", metavar="RUN_ID")
@click.option("--events", is_flag=True, help="The stored events too.")
@click.option("--times", is_flag=True, help="Where the time went, step by step, and the critical path.")
@click.option("--follow", is_flag=True, help="Show the steps while the run goes on, and all of it once it settles.")
@options.as_json
@click.pass_context
def show(ctx: click.Context, run_id: str, events: bool, times: bool, follow: bool, as_json: bool) -> None:
    """Show a stored run and its steps."""
    from orchestrator.cli import following, stored

    with session(ctx, as_json) as at:
        if follow:
            following.follow(at, run_id)
        stored.show_run(at, run_id, events=events, times=times)


@click.command(epilog=exits.HELP)
@click.argument("workflow", metavar="[WORKFLOW]", required=False)
@click.option("--run", "run_id", metavar="RUN_ID", help="This run's workflow, coloured by the states of its steps.")
@click.option("--format", "kind", type=click.Choice(options.PICTURES), default="mermaid", show_default=True)
@options.as_json
@click.pass_context
def graph(ctx: click.Context, workflow: str | None, run_id: str | None, kind: str, as_json: bool) -> None:
    """Print a workflow as a Mermaid flowchart, or as an SVG picture."""
    from orchestrator.cli import stored

    if (workflow is None) == (run_id is None):
        raise click.UsageError("name either a workflow or, by --run, a run", ctx)
    with session(ctx, as_json, stored=run_id is not None) as at:
        stored.show_graph(at, workflow, run_id, kind)


@click.command(epilog=exits.HELP)
@click.option(
    "--older-than", required=True, metavar="AGE", callback=options.age, help="Last written before: 30d, 1d12h."
)
@click.option("--status", type=click.Choice(options.PURGEABLE), help="Only runs in this state; else all ended ones.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.as_json
@click.pass_context
def purge(ctx: click.Context, older_than: timedelta, status: str | None, yes: bool, as_json: bool) -> None:
    """Remove old runs that have ended."""
    from orchestrator.cli import stored

    with session(ctx, as_json) as at:
        stored.purge(at, older_than, status, ask=not yes)


@click.command(epilog=exits.HELP)
@click.argument("run_id", metavar="[RUN_ID]", required=False)
@click.option("--active", is_flag=True, help="All active runs of the workflows that are known here.")
@options.wait_options
@options.as_json
@click.pass_context
def restart(
    ctx: click.Context, run_id: str | None, active: bool, wait: bool, timeout: float | None, as_json: bool
) -> None:
    """Start again whatever a run was doing when its workers died, and wait for what it comes to.

    You vouch that they are dead: their claims are taken away. Finished steps stay; a run that has ended stays as it is.
    """
    from orchestrator.cli import redo

    if (run_id is None) != active:
        raise click.UsageError("name either a run or --active", ctx)
    with session(ctx, as_json) as at:
        if run_id is None:
            ctx.exit(redo.restart_active(at, wait=wait, timeout=timeout))
        ctx.exit(redo.restart(at, run_id, wait=wait, timeout=timeout))


@click.command(epilog=exits.HELP)
@click.argument("run_id", metavar="RUN_ID")
@click.argument("step", metavar="STEP")
@click.option("--input", "given", metavar="JSON", callback=options.json_value, help="The input of the step.")
@click.option("--context", metavar="JSON", callback=options.json_object, help="Results of earlier steps, by their ids.")
@click.option("--nested-context", metavar="JSON", callback=options.json_object, help="The same in nested workflows.")
@click.option("--state", metavar="JSON", callback=options.json_object, help="Takes the place of the run's state.")
@click.option("--resume-data", metavar="JSON", callback=options.json_value, help="The step begins as one resumed.")
@click.option("--per-step", is_flag=True, help="Pause after the step.")
@options.wait_options
@options.as_json
@click.pass_context
def travel(
    ctx: click.Context,
    run_id: str,
    step: str,
    given: Any,
    context: dict[str, Any] | None,
    nested_context: dict[str, Any] | None,
    state: dict[str, Any] | None,
    resume_data: Any,
    per_step: bool,
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Let a run that has settled go on from STEP (its id, dotted inside nested workflows) and wait for its result.

    Steps before STEP keep their stored results, or get those in --context, as in
    '{"first": {"status": "success", "output": 1}}', or from --nested-context, as in
    '{"inner": {"first": {"status": "success", "output": 1}}}'.
    """
    from orchestrator.cli import redo

    with session(ctx, as_json) as at:
        args = redo.Travel(run_id, step, given, context, nested_context, state, resume_data, per_step)
        ctx.exit(redo.travel(at, args, wait=wait, timeout=timeout))


@click.command(epilog=exits.HELP)
@click.argument("run_id", metavar="RUN_ID")
@click.argument("name", metavar="NAME")
@click.argument("text", metavar="[DATA-JSON | -]", required=False)
@options.given_by_file
@options.wait_options
@options.as_json
@click.pass_context
def send_event(
    ctx: click.Context,
    run_id: str,
    name: str,
    text: str | None,
    file: IO[str] | None,
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Send the event NAME to a run that waits for it, or will, and wait until the run settles.

    One wait receives the event. Without data it is `null`.
    """
    from orchestrator.cli import redo

    value = options.value_given(text, file)
    with session(ctx, as_json) as at:
        ctx.exit(redo.send_event(at, run_id, name, value, wait=wait, timeout=timeout))


@click.command("waiting", epilog=exits.HELP)
@click.option("--workflow", metavar="ID", help="Only runs of this workflow.")
@click.option("--resource", metavar="ID", help="Only runs for this resource.")
@options.as_json
@click.pass_context
def list_waiting(ctx: click.Context, workflow: str | None, resource: str | None, as_json: bool) -> None:
    """Show the steps that wait for a resume or an event, since when and until when. Longest first."""
    from orchestrator.cli import waiting

    with session(ctx, as_json) as at:
        waiting.show(at, workflow, resource)


@click.command(epilog=exits.HELP)
@click.option("--once", is_flag=True, help="One tick.")
@click.option(
    "--for", "seconds", type=click.FloatRange(min=0.0, min_open=True), metavar="SECONDS", help="Tick for so long."
)
@options.as_json
@click.pass_context
def tick(ctx: click.Context, once: bool, seconds: float | None, as_json: bool) -> None:
    """Sweep timers as the schedulers of workers do, without a worker: for ever, or with an option for a time.

    Shows for each tick how many timers were due, how many messages were sent (again), and how many leases had ended;
    with --json on one line each. One scheduler at a time does the work. A lease is ended only by ticks that follow each
    other within the time of a lease.
    """
    from orchestrator.cli import ticking

    if once and seconds is not None:
        raise click.UsageError("--once is one tick, and --for says how long to tick: leave one of them out", ctx)
    with session(ctx, as_json) as at:
        ticking.tick(at, once=once, seconds=seconds)


@click.command(epilog=exits.DOCTOR_HELP)
@click.option(
    "--timeout",
    "seconds",
    type=click.FloatRange(min=0.0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long each question may take.",
)
@options.as_json
@click.pass_context
def doctor(ctx: click.Context, seconds: float, as_json: bool) -> None:
    """Examine a deployment: its configuration, store, broker, workers, queues and stuck runs. Changes nothing."""
    from orchestrator.cli import doctor as examination

    with session(ctx, as_json, usable=False) as at:
        ctx.exit(examination.doctor(at, seconds))


ALL = (list_runs, start, show, graph, list_waiting, resume, send_event, cancel, restart, travel, tick, purge, doctor)
