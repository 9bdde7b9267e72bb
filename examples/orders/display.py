"""The display of the demo: progress while a run goes on, what waits, and what it all came to.

Nothing here starts or changes a run; it is all read from events, results and the graph.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from orchestrator.cli.following import LiveTree, can_redraw
from orchestrator.cli.progress import read_rows, show_during

WORST_FIRST = ["failed", "canceled", "suspended", "waiting", "retrying", "running", "queued", "success", "skipped"]
STYLES = {"success": "green", "failed": "red", "running": "blue", "retrying": "yellow", "skipped": "dim"}

console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)


def say(text: str, style: str = "") -> None:
    """Print a line as it is: no markup, no wrapping."""
    console.print(text, style=style, markup=False, soft_wrap=True)


# --- what waits ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Waiting:
    """One step that waits for a person."""

    workflow: str
    run_id: str
    step: str
    since: datetime
    label: str
    request: dict[str, Any]


def waiting_in(run: Any) -> list[Waiting]:
    """Return what waits in a stored run, as `orchestrator.runs.get` gives it."""
    found = []
    for label, place in run.resume_labels.items():
        outer, _, step = place["step_id"].rpartition(".")
        name = f"{outer}[{place['foreach_index']}].{step}"
        result = run.steps[name]
        found.append(Waiting(run.workflow_id, run.run_id, name, result.suspended_at, label, result.suspend_payload))
    return found


def waiting_table(waiting: list[Waiting]) -> Table:
    table = Table(title="What waits for a person", title_justify="left")
    for heading in ("workflow", "run", "step", "since", "label", "payload"):
        table.add_column(heading)
    for one in waiting:
        since = one.since.astimezone().strftime("%H:%M:%S")
        payload = f"{one.request['customer']}, {one.request['total']} EUR"
        table.add_row(one.workflow, one.run_id, one.step, since, one.label, payload)
    return table


# --- while it goes on ----------------------------------------------------------------------------------------------


def news_in(event: Any) -> str:
    """A line that is worth saying of an event, or the empty text."""
    payload = event.payload
    match event.type:
        case "workflow-step-suspended" if payload["id"] == "approve":
            return f"order {payload['suspend_payload']['number']}: waits for a person"
        case "workflow-step-result":
            if "/" in payload["step_call_id"] and "." not in payload["step_call_id"].split("/")[-1]:
                return f"step {payload['id']}: {payload['status']}"
        case "workflow-step-progress" if payload["id"] == "order":
            return f"orders: {payload['completed_count']} of {payload['total_count']} done"
        case "order-total":  # this one and the next are the example's own, written by its steps
            return f"order {payload['number']}: {payload['lines']} lines, {payload['total']} EUR"
        case "invoice-repeated":
            return f"order {payload['number']}: the invoice gets through at attempt {payload['attempt']}"
        case "workflow-finish" if payload["workflow_status"] != "suspended":
            return f"run: {payload['workflow_status']}"
    return ""


def follow(orchestrator: Any, run: Any, stream: Any, *, keep: bool = False) -> None:
    """Show a run while it goes on: on a terminal as a tree with the news below it, elsewhere a line now and then.

    The tree is the one of `celery -A app workflow show RUN --follow`. `keep` leaves its last picture on the screen.
    """
    if not can_redraw(console):
        tell(stream, say)
        return
    tree = LiveTree(console, run.run_id, keep=keep)
    show_during(lambda: tell(stream, tree.say), tree, lambda: read_rows(orchestrator, run))


def tell(stream: Any, say_it: Callable[[str], None]) -> None:
    """Say what is worth it of a stream, until it ends."""
    for event in stream:
        if line := news_in(event):
            say_it(line)


# --- what it came to -----------------------------------------------------------------------------------------------


def without_items(name: str) -> str:
    """`order[3].price[0].look_up` as `order.price.look_up`."""
    return "".join(part.partition("]")[2] if "]" in part else part for part in name.replace("[", "\0[").split("\0"))


def states_of(steps: dict[str, Any]) -> dict[str, str]:
    """One state for each place in the graph: the one that most needs attention, of all items that came by."""
    found: dict[str, set[str]] = {}
    for name, result in steps.items():
        found.setdefault(without_items(name), set()).add(str(result.status))
    return {name: next((state for state in WORST_FIRST if state in states), "queued") for name, states in found.items()}


def places(entries: list[dict[str, Any]], scope: str = "") -> Iterator[str]:
    """Every place of a graph that keeps results, in order."""
    for entry in entries:
        match entry["type"]:
            case "parallel":
                yield from places(entry["entries"], scope)
            case "branch":
                yield from places([arm["entry"] for arm in entry["arms"]], scope)
            case "loop" | "foreach":
                yield from places([entry["entry"]], scope)
            case _:
                yield scope + entry["id"]
                yield from places(entry.get("entries", []), f"{scope}{entry['id']}.")


def steps_table(graph: dict[str, Any], steps: dict[str, Any], states: dict[str, str]) -> Table:
    """One row for each place in the graph: of how many steps, how they are, and how long the longest of them took."""
    table = Table(title="The steps of the run; their time includes waiting", title_justify="left")
    for heading in ("step", "state", "steps", "longest"):
        table.add_column(heading, justify="right" if heading in ("steps", "longest") else "left")
    results: dict[str, list[Any]] = {}
    for name, result in steps.items():
        results.setdefault(without_items(name), []).append(result)
    for place in places(graph["entries"]):
        here = results.get(place, [])
        seconds = [(r.ended_at - r.started_at).total_seconds() for r in here if r.ended_at and r.started_at]
        longest = f"{max(seconds) * 1000:.0f} ms" if seconds else "-"
        state = states.get(place, "not run")
        table.add_row(place, f"[{STYLES.get(state, 'magenta')}]{state}[/]", str(len(here)), longest)
    return table


def graph_tree(graph: dict[str, Any], states: dict[str, str]) -> Tree:
    """The graph as a tree; what never ran says so."""
    tree = Tree(f"[bold]{graph['id']}[/]")
    for entry in graph["entries"]:
        add_entry(tree, entry, states, "")
    return tree


def add_entry(tree: Tree, entry: dict[str, Any], states: dict[str, str], scope: str, note: str = "") -> None:
    match entry["type"]:
        case "parallel":
            inner = tree.add("parallel")
            for arm in entry["entries"]:
                add_entry(inner, arm, states, scope)
        case "branch":
            inner = tree.add("branch")
            for arm in entry["arms"]:
                add_entry(inner, arm["entry"], states, scope, f" if {arm['condition']}")
        case "loop":
            word = "until" if entry["until"] else "while"
            add_entry(tree, entry["entry"], states, scope, f" again {word} {entry['condition']}")
        case "foreach":
            width = entry["computed"] or entry["concurrency"]
            add_entry(tree, entry["entry"], states, scope, f" for each item, {width} at a time")
        case kind:
            state = states.get(scope + entry["id"], "not run")
            label = f"{entry['id']} [{STYLES.get(state, 'magenta')}]{state}[/][dim]{note}[/]"
            inner = tree.add(label if kind == "step" else f"{label} [dim]({kind})[/]")
            for child in entry.get("entries", ()):
                add_entry(inner, child, states, f"{scope}{entry['id']}.")


def totals_table(summary: Any) -> Table:
    table = Table(title="Orders", title_justify="left")
    for heading in ("order", "customer", "decided by", "parcels", "amount"):
        table.add_column(heading, justify="right" if heading in ("parcels", "amount") else "left")
    for receipt in summary.receipts:
        amount, parcels = f"{receipt.amount:.2f}", str(receipt.parcels)
        table.add_row(receipt.number, receipt.customer, receipt.decided_by, parcels, amount)
    table.add_section()
    table.add_row("", "total", "", "", f"{summary.total:.2f}")
    return table


def rejected_table(summary: Any) -> Table:
    table = Table(title="Set aside", title_justify="left")
    for heading in ("line", "order", "reason"):
        table.add_column(heading)
    for rejected in summary.rejected:
        table.add_row(str(rejected.line), rejected.number, rejected.reason)
    return table
