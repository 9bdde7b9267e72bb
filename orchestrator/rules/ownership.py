"""The runtime and namespace to which a run belongs: those of the process that has last let it go on.

Schedulers sweep the timers of their own namespace, and none sweeps those of a run in its caller's process.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from orchestrator.rules.change import Change, RequestGuard, UpdateActivation, UpdateRun
from orchestrator.rules.model import Activation, RunHeader
from orchestrator.rules.timers import is_swept


def adopt(
    change: Change,
    header: RunHeader,
    activations: Iterable[Activation],
    runtime: str,
    namespace: str,
    *,
    takes_all: bool = False,
) -> Change:
    """Let the run that a change lets go on belong to this runtime and namespace from then on.

    Timers are swept for those whom a run belongs to. So whoever lets it go on gets all of them: each activation that
    has a deadline is written once more, and a store then writes its timer as the header says. `header` and
    `activations` are all of the run as it was read, and the change is refused where it has moved since.

    Where workers are busy with the run, a process that has no sweep leaves it to them, with the timers: it could go on
    with what it lets go on, but not with the rest. Unless the change `takes_all` that is live.
    """
    here = replace(header, runtime=runtime, namespace=namespace)
    if here == header or (header.live and is_swept(header) and not is_swept(here) and not takes_all):
        return change
    moved = {op.path for op in change.ops if isinstance(op, UpdateActivation)} | set(change.drop)
    timers = (one for one in activations if one.deadline and one.path not in moved)
    assert isinstance(change.guard, RequestGuard)
    return replace(
        change,
        guard=replace(change.guard, commits=header.commits),
        ops=(
            UpdateRun({"runtime": runtime, "namespace": namespace}),
            *change.ops,
            *(UpdateActivation(one.path, {}) for one in timers),
        ),
    )
