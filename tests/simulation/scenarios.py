"""The small workflows that the explorer walks through, and the faults that each is walked through with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.rules.addressing import Target
from orchestrator.rules.graph import Graph
from orchestrator.rules.model import Report
from orchestrator.rules.reports import HOOKS, Told
from tests.simulation.acts import Reports, branch, foreach, graph, loop, nested, parallel, sleep, step, wait


@dataclass(frozen=True)
class Scenario:
    """A workflow, the outcomes it may have, the faults of the short form and those of the full one."""

    graph: Graph
    outcomes: frozenset[str]
    short: tuple[Mapping[str, int], ...]
    full: tuple[Mapping[str, int], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


def _ends(*outcomes: str) -> frozenset[str]:
    return frozenset(outcomes)


KILLS = {"kill": 2}
ZOMBIES = {"expire": 1, "lose": 1}
RESENDS = {"resend": 1, "kill": 1}
REPEATS = {"repeat": 1, "early": 1, "late": 0, "timer": 0}
SCHEDULERS = {"pause": 1, "renew": 1, "expire": 1}
GLANCES = {"glance": 1, "repeat": 1, "early": 1, "timer": 0}
EVERYBODY = Told(HOOKS, delivers=True)
MOST = {"kill": 1, "expire": 1, "lose": 1, "repeat": 1}

SCENARIOS = {
    "a sequence with a step that suspends": Scenario(
        graph(step("a"), step("b", suspends=1), step("c")),
        _ends("success", "suspended"),
        (KILLS, ZOMBIES, RESENDS, REPEATS, SCHEDULERS, GLANCES),
        (MOST, {"kill": 2, "expire": 1}, {"resend": 1, "expire": 1, "kill": 1}, {**SCHEDULERS, "kill": 1, "late": 0}),
    ),
    "a join of a parallel in a parallel": Scenario(
        graph(parallel("q", parallel("n", step("a", suspends=1), step("b")), step("c")), step("f")),
        _ends("success", "suspended"),
        ({"kill": 1}, {"expire": 1}, {"resend": 1}),
        (KILLS, ZOMBIES, RESENDS, REPEATS, SCHEDULERS, {"expire": 2}),
    ),
    "a foreach with a window": Scenario(
        graph(foreach("each", 4, 2, step("item")), step("f")),
        _ends("success"),
        ({"kill": 1}, {"expire": 1}, REPEATS, SCHEDULERS),
        (KILLS, ZOMBIES, RESENDS, {"expire": 2}),
    ),
    "a foreach with an item that fails": Scenario(
        graph(foreach("each", 4, 2, step("item", bad=frozenset({1})))),
        _ends("failed"),
        ({"kill": 1}, {"expire": 1}),
        (KILLS, ZOMBIES, RESENDS, REPEATS),
    ),
    "a loop around a nested workflow": Scenario(
        graph(loop("again", 2, nested("in", step("a"), step("b"))), step("f")),
        _ends("success"),
        ({"kill": 1}, {"expire": 1}, {"resend": 1}, REPEATS),
        (KILLS, MOST, {"expire": 2}, RESENDS, SCHEDULERS),
    ),
    "a foreach of nested workflows that check their input": Scenario(
        graph(foreach("each", 2, 2, nested("in", step("a"), step("b"), checks=True))),
        _ends("success"),
        ({"kill": 1},),
        ({"expire": 1}, RESENDS, REPEATS),
    ),
    "a retry and a sleep": Scenario(
        graph(step("a", fails=1, retries=1), sleep("nap"), sleep("computed", None)),
        _ends("success"),
        (KILLS, ZOMBIES, RESENDS, REPEATS, SCHEDULERS, GLANCES),
        ({**GLANCES, "expire": 1}, MOST, {"repeat": 2, "early": 2, "late": 0}),
    ),
    "a failure beside a step that suspends": Scenario(
        graph(parallel("q", step("a", suspends=1), step("b", fails=1)), step("f")),
        _ends("failed"),
        ({"kill": 1}, ZOMBIES, RESENDS),
        (KILLS, MOST, SCHEDULERS),
    ),
    "a failure that is allowed beside a step that suspends": Scenario(
        graph(parallel("q", step("a", suspends=1), step("b", fails=1), allow_failure=True)),
        _ends("success", "suspended"),
        ({"kill": 1}, ZOMBIES, RESENDS),
        (KILLS, MOST, SCHEDULERS),
    ),
    "steps that write the state side by side": Scenario(
        graph(parallel("q", step("a", notes=True), step("b", notes=True, fails=1, retries=1)), step("f", notes=True)),
        _ends("success"),
        ({"kill": 1}, {"expire": 1}, {"resend": 1}),
        (KILLS, ZOMBIES, RESENDS, REPEATS),
    ),
    "a bail while others are at work": Scenario(
        graph(parallel("q", step("a", suspends=1), step("b", closes="bail"), step("c"))),
        _ends("success"),
        ({"kill": 1}, {"expire": 1}),
        (KILLS, ZOMBIES, RESENDS, SCHEDULERS, {"cancel": 1, "kill": 1}),
    ),
    "an abort beside a window": Scenario(
        graph(parallel("q", foreach("each", 3, 2, step("item")), step("b", closes="abort"))),
        _ends("canceled"),
        ({"kill": 1},),
        (ZOMBIES, RESENDS),
    ),
    "a branch of which two arms run, in one worker as far as it goes": Scenario(
        graph(
            branch("which", (0, 2), step("a"), step("b"), nested("in", step("c", suspends=1), step("d", inline=True)))
        ),
        _ends("success", "suspended"),
        ({"kill": 1}, {"expire": 1}, {"resend": 1}),
        (KILLS, ZOMBIES, RESENDS, REPEATS, SCHEDULERS),
        {"inline": True},
    ),
    "an event that may come too late": Scenario(
        graph(wait("w", 1.0, step("late")), step("a")),
        _ends("success", "suspended"),
        ({"send": 2, "kill": 1}, {"send": 1, "expire": 1}, {"send": 1, "resend": 1}, {"send": 1, "pause": 1}),
        ({"send": 2, "kill": 2}, {"send": 2, "expire": 1, "lose": 1}, {"send": 2, "resend": 1, "kill": 1}),
    ),
    "two waits for the same event": Scenario(
        graph(parallel("q", wait("v"), wait("w"))),
        _ends("success", "suspended"),
        ({"send": 2}, {"send": 3}, {"send": 2, "insist": 1}),
        ({"send": 3, "insist": 2}, {"send": 2, "kill": 1}, {"send": 2, "expire": 1}, {"send": 3, "resend": 1}),
    ),
    "a user who cancels": Scenario(
        graph(parallel("q", step("a", suspends=1), step("b")), step("f")),
        _ends("success", "suspended", "canceled"),
        ({"cancel": 1}, {"cancel": 1, "kill": 1}),
        ({"cancel": 1, "expire": 1, "lose": 1}, {"cancel": 1, **RESENDS}),
    ),
    # --- schedulers whose clocks differ, and messages that cannot be sent ---
    "two schedulers": Scenario(
        graph(step("a", fails=1, retries=1), sleep("nap"), step("b", suspends=1)),
        _ends("success", "suspended"),
        ({"second": 0, "pause": 1, "expire": 1}, {"second": 0, "pause": 1, "timer": 0}, {"second": 0, "kill": 1}),
        ({"second": 0, "pause": 2, "expire": 1, "renew": 1}, {"second": 0, "pause": 1, "kill": 1, "cancel": 1}),
    ),
    "two schedulers beside a join": Scenario(
        graph(parallel("q", step("a"), step("b")), step("f")),
        _ends("success"),
        ({"second": 0, "pause": 1, "expire": 1},),
        ({"second": 0, "pause": 2, "expire": 1}, {"second": 0, "pause": 1, "restart": 1}),
    ),
    "messages that cannot be sent": Scenario(
        graph(parallel("q", step("a"), step("b", suspends=1)), step("f")),
        _ends("success", "suspended"),
        ({"unsent": 2}, {"unsent": 1, "kill": 1}, {"unsent": 1, "expire": 1}),
        ({"unsent": 2, "expire": 1, "lose": 1}, {"unsent": 2, "second": 0, "pause": 1}, {"unsent": 1, "cancel": 1}),
    ),
    "timers whose messages cannot be sent": Scenario(
        graph(step("a", fails=1, retries=1), sleep("nap"), wait("w", 1.0, step("late"))),
        _ends("success", "suspended"),
        ({"unsent": 2}, {"unsent": 1, "second": 0, "pause": 1}),
        ({"unsent": 2, "kill": 1}, {"unsent": 1, "send": 1}, {"unsent": 1, "restart": 1, "race": 1}),
    ),
    # --- users who read, and come late with what they want ---
    "items that wait for people, who mean one of them or all": Scenario(
        graph(foreach("each", 2, 2, step("item", suspends=1)), step("f")),
        _ends("success", "suspended"),
        ({"race": 1}, {"insist": 1}),
        (
            {"race": 2},
            {"race": 1, "kill": 1},
            {"race": 1, "cancel": 1},
            {"race": 1, "expire": 1},
            {"insist": 2},
            {"insist": 1, "race": 1, "cancel": 1},
        ),
        {"wishes": (Target(index=0), Target(index=1), Target())},
    ),
    "items that wait in a window": Scenario(
        graph(foreach("each", 3, 2, step("item", suspends=1))),
        _ends("success", "suspended"),
        (),
        ({"race": 1}, {"kill": 1}),
        {"wishes": (Target(index=0), Target(index=1), Target(index=2), Target())},
    ),
    "labels, and a step inside a nested workflow": Scenario(
        graph(parallel("q", nested("n", step("a", suspends=1, label="A")), step("b", suspends=1, label="B"))),
        _ends("success", "suspended"),
        ({"race": 1},),
        ({"race": 2}, {"race": 1, "kill": 1}, {"race": 1, "insist": 1}, {"race": 1, "cancel": 1}),
        {"wishes": (Target(label="A 0.0.0"), Target(label="B 0.1"), Target(step="n"), Target(scope=(0, 0)))},
    ),
    "labels of items, inside nested workflows": Scenario(
        graph(foreach("each", 2, 2, nested("n", step("a", suspends=1, label="A")))),
        _ends("success", "suspended"),
        (),
        ({"race": 1}, {"race": 2}),
        {"wishes": (Target(label="A 0.0.0"), Target(label="A 0.1.0"), Target(step="n.a", index=1), Target(step="n"))},
    ),
    "a step that suspends again": Scenario(
        graph(step("a", suspends=1), step("b")),
        _ends("success", "suspended"),
        (
            {"race": 2, "again": 1},
            {"race": 1, "again": 1, "cancel": 1},
            {"insist": 1, "again": 1},
            {"race": 1, "away": 1},
        ),
        (
            {"race": 2, "again": 2, "cancel": 1},
            {"race": 1, "again": 1, "expire": 1, "kill": 1},
            {"race": 2, "insist": 1, "again": 1},
        ),
    ),
    "a start that is taken back": Scenario(
        graph(step("a"), step("b")),
        _ends("success", "pending"),
        ({"unstart": 1, "cancel": 1}, {"unstart": 1, "travel": 1}),
        ({"unstart": 1, "kill": 1, "cancel": 1}, {"unstart": 1, "travel": 1, "race": 1, "kill": 1}),
        {"targets": ("a", "b")},
    ),
    "two users who start the same run": Scenario(
        graph(step("a"), step("b")),
        _ends("success"),
        ({"start": 1, "kill": 1}, {"start": 1, "insist": 1}, {"start": 1, "insist": 1, "cancel": 1, "travel": 1}),
        ({"start": 1, "insist": 2, "cancel": 1, "travel": 1},
         {"start": 1, "kill": 2, "lose": 1}, {"start": 1, "cancel": 1, "expire": 1}),
    ),
    "two users who start the same run, of whom one takes it back": Scenario(
        graph(step("a"), step("b")),
        _ends("success", "pending"),
        ({"start": 1, "unstart": 1},),
        ({"start": 1, "unstart": 1, "kill": 1, "cancel": 1},),
    ),
    "a start for later": Scenario(
        graph(parallel("q", step("a"), sleep("nap")), step("b")),
        _ends("success"),
        ({"kill": 1}, {"restart": 1}),
        ({"kill": 2}, {"restart": 2, "race": 1}, {"timer": 0, "pause": 1}),
        {"delay": 60_000},
    ),
    # --- workers that cannot, and steps that say something on their way ---
    "workers that have another graph": Scenario(
        graph(parallel("q", step("a"), step("b", suspends=1)), step("f")),
        _ends("success", "suspended"),
        ({"defer": 2}, {"defer": 1, "kill": 1}),
        ({"defer": 1, "expire": 1}, {"defer": 2, "kill": 1, "cancel": 1}, {"defer": 2, "restart": 1, "race": 1}),
    ),
    "workers that have another graph, for a wait and a foreach": Scenario(
        graph(foreach("each", 2, 1, step("item")), wait("w", 1.0, step("late"))),
        _ends("success", "suspended"),
        ({"defer": 1, "send": 1},),
        ({"defer": 2, "send": 1, "kill": 1},),
    ),
    "steps that stream": Scenario(
        graph(step("a"), step("b", suspends=1)),
        _ends("success", "suspended"),
        ({"flush": 2, "resend": 1}, {"flush": 2, "expire": 1}),
        ({"flush": 2, "resend": 2, "kill": 1}, {"flush": 2, "resend": 1, "expire": 1, "cancel": 1}),
    ),
    "a parent that sees its worker die": Scenario(
        graph(step("a"), parallel("q", step("b"), step("c"))),
        _ends("success"),
        ({"kill": 1, "release": 1},),
        ({"kill": 2, "release": 2}, {"kill": 1, "release": 1, "expire": 1, "cancel": 1}),
    ),
    "a parent that sees a time limit": Scenario(
        graph(parallel("q", step("a", retries=1), step("b")), step("f")),
        _ends("success", "failed"),
        ({"kill": 1, "fail": 1},),
        ({"kill": 2, "fail": 2}, {"kill": 1, "fail": 1, "expire": 1, "resend": 1}),
    ),
    "a parent that stops its worker": Scenario(
        graph(step("a"), parallel("q", step("b"), step("c"))),
        _ends("success"),
        ({"kill": 1, "stop": 1},),
        ({"kill": 3, "stop": 3}, {"kill": 1, "stop": 1, "expire": 1, "cancel": 1}),
    ),
    "a worker that outruns a limit, and lives": Scenario(
        graph(parallel("q", step("a", retries=1), step("b")), step("f")),
        _ends("success", "failed"),
        ({"outrun": 1, "resend": 1},),
        ({"outrun": 2, "expire": 1}, {"outrun": 1, "kill": 1, "release": 1}),
    ),
    # --- users who restart ---
    "a restart, of workers alive or dead": Scenario(
        graph(parallel("q", step("a"), step("b")), step("f")),
        _ends("success"),
        (
            {"restart": 2, "race": 1},
            {"restart": 1, "race": 1, "cancel": 1},
            {"restart": 1, "kill": 1},
            {"restart": 1, "insist": 1},
        ),
        (
            {"restart": 2, "race": 2, "kill": 1},
            {"restart": 1, "race": 1, **RESENDS},
            {"restart": 2, **ZOMBIES},
            {"restart": 1, **SCHEDULERS},
        ),
    ),
    "a restart of a retry, a sleep and a step that was resumed": Scenario(
        graph(step("a", fails=1, retries=1), sleep("nap"), step("b", suspends=1)),
        _ends("success", "suspended"),
        ({"restart": 1, "race": 1}, {"restart": 1, "pause": 1, "timer": 0}),
        ({"restart": 2, "race": 1, "timer": 0}, {"restart": 1, "race": 1, "kill": 1}, {"restart": 1, **ZOMBIES}),
    ),
    "a run that nobody restarts but a user": Scenario(
        graph(parallel("q", step("a"), step("b")), step("f")),
        _ends("success"),
        ({"kill": 1},),
        ({"kill": 2}, {"kill": 1, "expire": 1}),
        {"auto_restart": False},
    ),
    # --- users who travel in time ---
    "a time travel along a sequence": Scenario(
        graph(step("a"), step("b", suspends=1), step("c")),
        _ends("success", "suspended"),
        (
            {"travel": 1, "race": 1, "cancel": 1},
            {"travel": 1, "expire": 1, "late": 0},
            {"travel": 1, "cancel": 1, "resend": 1},
            {"travel": 1, "insist": 1},
        ),
        (
            {"travel": 2, "race": 2},
            {"travel": 2, "race": 1, "cancel": 1, "late": 0},
            {"travel": 1, "race": 1, "again": 1, "insist": 1},
            {"travel": 1, "cancel": 1, "kill": 1, **ZOMBIES},
            {"travel": 1, "restart": 1, "race": 1, "cancel": 1},
        ),
        {"targets": ("a", "b")},
    ),
    "a time travel inside blocks, after a failure": Scenario(
        graph(branch("q", (0, 1), nested("n", step("a"), step("b", suspends=1)), step("c", fails=1)), step("f")),
        _ends("success", "suspended", "failed"),
        ({"travel": 1, "cancel": 1},),
        ({"travel": 1, "kill": 1}, {"travel": 2, "race": 1}, {"travel": 1, "cancel": 1, "expire": 1}),
        {"targets": ("n.b", "c")},
    ),
    "a time travel beside what waits": Scenario(
        graph(parallel("q", nested("n", step("a"), step("b", suspends=1)), step("c")), step("f")),
        _ends("success", "suspended"),
        ({"travel": 1, "race": 1},),
        ({"travel": 1, "cancel": 1}, {"travel": 1, "kill": 1}, {"travel": 2, "race": 1}),
        {"targets": ("n.b", "c")},
    ),
    "a time travel into a loop": Scenario(
        graph(loop("again", 2, nested("in", step("a"), step("b", suspends=1))), step("f")),
        _ends("success", "suspended"),
        ({"travel": 1, "cancel": 1},),
        ({"travel": 2, "race": 1}, {"travel": 1, "cancel": 1, "expire": 1, "late": 0}),
        {"targets": ("in", "in.b")},
    ),
    "a time travel to items of which one has failed": Scenario(
        graph(foreach("each", 3, 2, step("item", bad=frozenset({1})))),
        _ends("failed"),
        ({"travel": 1, "race": 1},),
        ({"travel": 1, "cancel": 1, "expire": 1}, {"travel": 1, **RESENDS}),
        {"targets": ("item",)},
    ),
    "a time travel back to a wait": Scenario(
        graph(wait("w", 1.0, step("late")), step("a")),
        _ends("success", "suspended"),
        ({"travel": 1, "send": 1, "pause": 1},),
        ({"travel": 1, "send": 2, "race": 1}, {"travel": 2, "send": 1, "cancel": 1}),
        {"targets": ("w",)},
    ),
    "a time travel after a bail": Scenario(
        graph(parallel("q", step("a", suspends=1), step("b", closes="bail"))),
        _ends("success", "suspended"),
        ({"travel": 1},),
        ({"travel": 1, "cancel": 1, "expire": 1}, {"travel": 2, "race": 1}),
        {"targets": ("a", "b")},
    ),
    # --- reports ---
    "a run whose hooks and result backend are told of its end": Scenario(
        graph(step("a", bad=frozenset({-1}))),
        _ends("failed"),
        (KILLS, ZOMBIES, RESENDS, REPEATS, SCHEDULERS, {"cancel": 1}, {"release": 1, "kill": 1}, {"kill": 3}),
        (MOST, {"cancel": 1, "kill": 1, "expire": 1}, {"resend": 1, "expire": 1, "kill": 1}, {"fail": 1, "kill": 1}),
        {"tells": Reports(EVERYBODY)},
    ),
    "reports that fail at first": Scenario(
        graph(step("a")),
        _ends("success"),
        (KILLS, ZOMBIES, {"resend": 1}, {"cancel": 1}, {"repeat": 1, "early": 1}),
        (MOST, RESENDS, REPEATS, SCHEDULERS, {"cancel": 1, "race": 1, "kill": 1}),
        {"tells": Reports(EVERYBODY, fails=1)},
    ),
    "a hook that fails when the run is suspended": Scenario(
        graph(step("a", suspends=1)),
        _ends("success", "suspended"),
        ({"kill": 1}, {"lose": 1}, {"resend": 1}, {"cancel": 1}),
        (KILLS, ZOMBIES, RESENDS, REPEATS, SCHEDULERS, {"cancel": 1, "race": 1, "kill": 1}),
        {"tells": Reports(Told({Report.ON_FINISH}), fails=1)},
    ),
    "hooks that are called by another worker than settles the run": Scenario(
        graph(step("a")),
        _ends("success"),
        (KILLS, ZOMBIES, RESENDS, {"cancel": 1, "race": 1}, {"unsent": 1}),
        (MOST, REPEATS, SCHEDULERS, {"cancel": 1, "kill": 2}),
        {"tells": Reports(replace(EVERYBODY, hooks_here=False))},
    ),
    "a hook that kills its workers": Scenario(
        graph(step("a")),
        _ends("success"),
        ({"kill": 4},),
        (),
        {"tells": Reports(Told({Report.ON_FINISH})), "workers": 1},
    ),
    "a run that is restarted or travels while it is reported": Scenario(
        graph(step("a")),
        _ends("success"),
        ({"restart": 1, "kill": 1}, {"travel": 1}, {"travel": 1, "kill": 1}),
        ({"travel": 1, "expire": 1, "late": 0}, {"restart": 1, "expire": 1, "race": 1}),
        {"tells": Reports(EVERYBODY), "targets": ("a",)},
    ),
    # --- step by step ---
    "a run step by step": Scenario(
        graph(step("a"), parallel("q", step("b"), step("c", suspends=1)), step("d")),
        _ends("success", "suspended", "paused"),
        ({"kill": 1}, {"through": 1}),
        (
            {"race": 2},
            {"cancel": 1, "race": 1},
            {"through": 2, "race": 1, "kill": 1},
            {"restart": 1, "race": 1},
            ZOMBIES,
            RESENDS,
            SCHEDULERS,
        ),
        {"per_step": True},
    ),
    "a run step by step, through blocks": Scenario(
        graph(
            branch("which", (0, 1), step("a"), step("b")),
            loop("again", 2, nested("in", step("c"), step("d"), checks=True)),
            foreach("each", 2, 1, step("e")),
        ),
        _ends("success", "paused"),
        ({"race": 1},),
        (KILLS, {"race": 1, "cancel": 1}, ZOMBIES, RESENDS),
        {"per_step": True},
    ),
    "a run step by step, canceled or traveling": Scenario(
        graph(step("a"), step("b"), step("c")),
        _ends("success", "paused"),
        ({"travel": 1, "race": 1}, {"cancel": 1, "race": 2}),
        ({"travel": 2, "race": 1, "cancel": 1}, {"travel": 1, "kill": 1, "expire": 1}),
        {"per_step": True, "targets": ("b",)},
    ),
}  # fmt: skip
