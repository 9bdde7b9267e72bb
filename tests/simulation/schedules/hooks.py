"""The hook of a schedule's run, and the verdict on who was told of what: `on_finish`, and the result backend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from orchestrator.definitions.run_info import RunInfo
from orchestrator.rules.events import EventType
from orchestrator.rules.model import FINAL, RunHeader, is_report
from orchestrator.rules.transitions import LIVE
from tests.simulation.schedules.callers import RUN, Told
from tests.simulation.schedules.cluster import Cluster
from tests.simulation.schedules.faults import LOSES

LENGTHS = (0.0,) * 8 + (0.2,) * 4 + (9.0,)  # seconds that a call takes; more than a lease is among them
SUSPENDED = "suspended"


class Hook:
    """`on_finish`: it notes its calls, by the status that it is told, takes its time, and may fail."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.begun: Counter[str] = Counter()
        self.returned: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()

    def call(self, info: RunInfo) -> None:
        """Be called."""
        cluster, process, status = self._cluster, info.orchestrator, str(info.status)
        process.at()
        self.begun[status] += 1
        cluster.note(f"{process.name} calls on_finish ({status})")
        cluster.hub.pause(cluster.hub.die.choice(LENGTHS))
        if process.at("hook fails"):
            self.failed[status] += 1
            raise RuntimeError("on_finish fails on purpose")
        self.returned[status] += 1

    def judge(self, header: RunHeader, told: Told) -> Iterator[str]:
        """An end is told at least once, and exactly once unless a worker was lost or a call has failed."""
        end = header.status
        ends = self._count_ends()
        if set(self.begun) - {end, SUSPENDED}:
            yield f"on_finish was called with {dict(self.begun)}, and the run is {end}"
        for status in (end, SUSPENDED):
            if self.returned[status] < ends[status]:
                yield f"on_finish was told {self.returned[status]} times of {ends[status]} times {status}"
        lost = sum(kind in LOSES for _, kind in self._cluster.faults.struck) + told.restarts
        # Of a suspension it is told before that is recorded. A caller may let the run go on in between.
        most = {end: 1, SUSPENDED: 1 + told.reopened}
        for status, calls in self.begun.items():
            if calls > most.get(status, 0) + lost + self.failed[status]:
                yield f"on_finish was told {calls} times of {status}, {lost} workers were lost, and {self.failed}"

    def _count_ends(self) -> Counter[str]:
        """Count how often the run has settled, by the statuses with which it did."""
        found = self._cluster.store.events(RUN, limit=100_000)
        return Counter(one.doc["status"] for one in found if one.doc["type"] == EventType.WORKFLOW_FINISH)


def is_telling(cluster: Cluster) -> bool:
    """Tell whether somebody has still to be told of an end."""
    return any(is_report(one.path) and one.status in LIVE for one in cluster.store.load(RUN))


def judge_reports(cluster: Cluster, header: RunHeader, output: Any) -> Iterator[str]:
    """The result backend has the end of the run, and nothing was given up."""
    found, result = cluster.results.get(RUN), output if header.status == "success" else None
    if header.status in FINAL and found != (header.status, result):
        yield f"the result backend has {found}, and the run is {header.status} with {result}"
    if any(one.doc["type"] == EventType.REPORT_FAILED for one in cluster.store.events(RUN, limit=100_000)):
        yield "a report was given up"
