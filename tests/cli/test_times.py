"""The time of a run by kind: the arithmetic on activations as stores keep them, and what `show --times` says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest

from orchestrator import Workflow, step
from orchestrator.engine.read.timing import Timing, compute_timing
from orchestrator.ports import StoredEvent
from orchestrator.rules.model import Activation, ActivationStatus, Role, RunHeader, StoredStatus
from tests.cli.test_standalone import calling, data

HEADER = RunHeader(run_id="run", status=StoredStatus.SUCCESS, started_at=1_000, ended_at=2_000)
NOW = 9_000


@step(retries=3, retry_delay=0.1)
def steady(number: int) -> int:
    return number


@step(retries=3, retry_backoff=True)
def by_chance(number: int) -> int:
    return number


RETRYING = Workflow("retrying").then(steady).then(by_chance).commit()


def activation(path: str, queued: int, started: int, ended: int, **fields: Any) -> Activation:
    """A step that has ended well."""
    about: dict[str, Any] = {"step": f"s{path}", "component": "STEP", "status": ActivationStatus.SUCCESS, **fields}
    return Activation(path=path, queued_at=queued, started_at=started, ended_at=ended, first_seq=started, **about)


def event(at: int, kind: str, path: str = "", visit: str = "", **doc: Any) -> StoredEvent:
    """A stored event, as far as times go."""
    return StoredEvent(str(at), at, {"type": kind, "path": path, "visit": visit, "step": f"s{path}", **doc})


def of(
    activations: Sequence[Activation], events: Sequence[StoredEvent] = (), header: RunHeader = HEADER, flow: Any = None
) -> Timing:
    """Return the timing of a run that has these activations."""
    return compute_timing(header, activations, events, flow.compiled if flow is not None else None, NOW)


def took(found: Timing, path: str) -> dict[str, int]:
    """Return the times of a step that are not zero."""
    [found_step] = [found_step for found_step in found.steps if found_step.path == path]
    return {kind: ms for kind, ms in found_step.took.items() if ms}


def path(found: Timing) -> list[str]:
    """Return the critical path."""
    return [act.path for act in found.critical]


def test_a_chain_is_queue_and_run_and_the_rest_is_the_engines() -> None:
    """The gap between two steps, and what comes after the last one."""
    found = of([activation("0", 1_000, 1_100, 1_300), activation("1", 1_350, 1_400, 1_900)])

    assert took(found, "0") == {"queue": 100, "run": 200}
    assert took(found, "1") == {"queue": 50, "run": 500}
    assert (found.total, found.engine) == (1_000, 150)
    assert (found.took["queue"], found.took["run"]) == (150, 700)
    assert path(found) == ["0", "1"]


def test_the_critical_path_goes_through_the_slowest_arm() -> None:
    """The arms beside it cost nothing; sums count them, the engine's time does not."""
    block = activation("1", 0, 1_100, 1_900, component="PARALLEL", role=Role.BLOCK)
    arms = [activation("1.0", 1_100, 1_150, 1_400), activation("1.1", 1_100, 1_200, 1_900)]
    found = of([activation("0", 1_000, 1_000, 1_100), block, *arms, activation("2", 1_900, 1_900, 2_000)])

    assert path(found) == ["0", "1.1", "2"]
    assert [found_step.path for found_step in found.steps] == ["0", "1.0", "1.1", "2"], "blocks do nothing themselves"
    assert [found_step.critical for found_step in found.steps] == [True, False, True, True]
    assert found.engine == 0
    assert found.took["run"] == 100 + 250 + 700 + 100


def test_mappings_of_no_length_stand_in_their_order() -> None:
    """They end when they begin, and are gone through once."""
    found = of(
        [activation("0", 0, 1_000, 1_500), activation("1", 0, 1_500, 1_500), activation("2", 1_500, 1_500, 2_000)]
    )
    assert path(found) == ["0", "1", "2"]
    assert found.engine == 0


def test_what_was_suspended_is_told_apart_from_what_ran() -> None:
    """Each time, by its events; the last wait in the queue by the activation."""
    suspended = activation("0", 1_650, 1_000, 2_000, suspended_at=1_500, resumed_at=1_650, resumed=True)
    told = [
        event(1_000, "workflow-start"),
        event(1_000, "workflow-step-start", "0"),
        event(1_100, "workflow-step-suspended", "0"),
        event(1_400, "workflow-step-start", "0", resume="x"),
        event(1_500, "workflow-step-suspended", "0"),
        event(1_700, "workflow-step-start", "0", resume="x"),
        event(2_000, "workflow-step-result", "0"),
    ]
    assert took(of([suspended], told), "0") == {"run": 100 + 100 + 300, "suspended": 300 + 150, "queue": 50}
    assert took(of([suspended]), "0") == {"run": 500 + 350, "suspended": 150}, "without events: the last time alone"


def test_what_is_suspended_now_is_so_until_now() -> None:
    """The run has not ended."""
    header = RunHeader(run_id="run", status=StoredStatus.SUSPENDED, started_at=1_000)
    suspended = activation("0", 1_000, 1_100, 0, status=ActivationStatus.SUSPENDED, suspended_at=1_200)
    found = of([suspended], header=header)
    assert took(found, "0") == {"queue": 100, "run": 100, "suspended": NOW - 1_200}
    assert found.end == NOW


def test_a_step_in_the_queue_waits_until_now() -> None:
    """Also one that was taken from a lost worker."""
    header = RunHeader(run_id="run", status=StoredStatus.RUNNING, started_at=1_000)
    fresh = activation("0", 1_000, 0, 0, status=ActivationStatus.QUEUED)
    again = activation("1", 8_000, 2_000, 0, status=ActivationStatus.QUEUED, restarted=True)
    found = of([fresh, again], header=header)
    assert took(found, "0") == {"queue": NOW - 1_000}
    assert took(found, "1") == {"run": 6_000, "queue": 1_000}


def test_pauses_between_attempts_are_those_of_the_policy() -> None:
    """Exact where they are fixed, an estimate where they are spread by chance or not known."""
    activations = [
        activation("0", 1_300, 1_000, 1_400, attempt=2),
        activation("1", 1_400, 1_400, 3_900, attempt=1),
    ]
    header = RunHeader(run_id="run", status=StoredStatus.SUCCESS, started_at=1_000, ended_at=4_000)
    found = of(activations, header=header, flow=RETRYING)
    assert took(found, "0") == {"run": 200, "retry": 200}
    assert took(found, "1") == {"run": 2_000, "retry": 500}
    assert [found_step.estimated for found_step in found.steps] == [False, True]
    unknown = of(activations, header=header)
    assert took(unknown, "0") == {"run": 400}
    assert all(found_step.estimated for found_step in unknown.steps)


def test_the_first_wait_of_what_was_queued_again_ends_where_its_predecessor_did() -> None:
    """The activation does not keep when it was queued first."""
    found = of([activation("0", 1_000, 1_000, 1_200), activation("1", 1_800, 1_500, 2_000, attempt=1)], flow=RETRYING)
    assert took(found, "1")["queue"] == 300


def test_sleeps_and_waits_have_kinds_of_their_own() -> None:
    """A sleep that was woken through the queue; a wait that was followed by what runs on its timeout."""
    activations = [
        activation("0", 1_500, 1_000, 1_550, component="SLEEP"),
        activation("1", 1_700, 1_550, 1_900, component="WAIT", suspended_at=1_560, resumed_at=1_700),
        activation("1.0", 1_720, 1_730, 1_900),
    ]
    found = of(activations)
    assert took(found, "0") == {"asleep": 500, "queue": 50}
    assert took(found, "1") == {"run": 10, "suspended": 140}
    assert path(found) == ["0", "1", "1.0"]


def test_earlier_iterations_are_known_by_their_events() -> None:
    """Of the last one there is the activation; all count for their step."""
    loop = activation("0", 0, 1_000, 2_000, component="LOOP", role=Role.BLOCK)
    last = activation("0.0", 1_500, 1_600, 2_000, visit="2")
    told = [
        event(1_000, "workflow-start"),
        event(1_050, "workflow-step-start", "0.0", "1"),
        event(1_450, "workflow-step-result", "0.0", "1"),
        event(1_600, "workflow-step-start", "0.0", "2"),
        event(2_000, "workflow-step-result", "0.0", "2"),
    ]
    found = of([loop, last], told)
    assert took(found, "0.0") == {"run": 400 + 400, "queue": 100}
    assert found.steps[0].runs == 2
    assert [(act.path, act.visit) for act in found.critical] == [("0.0", "1"), ("0.0", "2")]
    assert found.engine == 50 + 50


def test_a_run_that_has_travelled_counts_its_present_generation() -> None:
    """Steps that were carried over took their time then."""
    told = [event(1_000, "workflow-start"), event(1_700, "workflow-start")]
    found = of([activation("0", 1_000, 1_000, 1_200), activation("1", 1_700, 1_750, 1_900)], told)
    assert (found.begin, found.total, path(found)) == (1_700, 300, ["1"])


def test_a_run_of_nothing_yet_took_nothing() -> None:
    """Pending: no start, no steps."""
    found = of([], header=RunHeader(run_id="run", started_at=0, created_at=NOW))
    assert found.steps == ()
    assert found.critical == ()


@pytest.mark.parametrize("workflow, given", [("checkout", '{"sku": "a", "qty": 2}'), ("many", "[1, 2, 3]")])
def test_the_command_says_where_the_time_went(workflow: str, given: str) -> None:
    """For people and as JSON; what belongs to no step is the engine's."""
    call = calling("--store", f"memory://cli-{uuid4().hex}", "--workflows", "tests.cli.flows:ALL")
    call("start", workflow, given, "--run-id", "one")

    times = data(call("show", "one", "--times", "--json"))["times"]

    names = [found["step"] for found in times["steps"]]
    assert names == (["reserve", "pay.charge"] if workflow == "checkout" else [f"pay[{n}].charge" for n in range(3)])
    assert times["total"] == times["end"] - times["begin"]
    assert 0 <= times["engine"] <= times["total"]
    assert times["critical_path"][-1]["step"] == names[-1]
    shown = call("show", "one", "--times").stdout
    for said in ("TIME OF", "ENGINE", "CRITICAL PATH", "(all steps)", *names):
        assert said in shown
