"""STORAGE: what is kept of a run, and how it is listed, looked up and removed."""

from __future__ import annotations

import uuid

import pytest

from orchestrator import RunRecord
from tests.parity.calls import calls
from tests.parity.flows import storage
from tests.parity.harness import Harness


def stored(runtime: Harness, run_id: str) -> RunRecord:
    """Return the record of a run that has to be there."""
    record = runtime.runs.get(run_id)
    assert record is not None
    return record


@pytest.mark.parity("STORAGE-01")
def test_the_runs_of_a_workflow_are_listed(runtime: Harness) -> None:
    """Each record says of which workflow it is."""
    ids = {runtime.execute(storage.storage_01, run_id=f"storage-01-{uuid.uuid4().hex}").run_id for _ in range(2)}

    page = runtime.runs.list(workflow="storage-01")

    assert page.total >= 2
    assert len(page.runs) >= 2
    assert ids <= {record.run_id for record in page.runs}
    assert {record.workflow_id for record in page.runs} == {"storage-01"}


@pytest.mark.parity("STORAGE-02")
def test_a_run_is_looked_up_and_removed(runtime: Harness) -> None:
    """A removed run is None, like one that never was."""
    run_id = runtime.execute(storage.storage_02).run_id

    record = stored(runtime, run_id)
    assert record.run_id == run_id
    assert record.workflow_id == "storage-02"
    assert record.status == "success"
    assert record.steps["step1"].output == {"value": "result1"}

    runtime.runs.delete(run_id)
    assert runtime.runs.get(run_id) is None


@pytest.mark.parity("STORAGE-03")
def test_a_run_keeps_its_resource(runtime: Harness) -> None:
    """The list and the lookup both show it."""
    run_id = runtime.execute(storage.storage_03, resource_id="user-123").run_id

    [listed] = [record for record in runtime.runs.list(workflow="storage-03").runs if record.run_id == run_id]
    assert listed.resource_id == "user-123"
    assert stored(runtime, run_id).resource_id == "user-123"


@pytest.mark.parity("STORAGE-04")
def test_a_resumed_run_keeps_its_resource(runtime: Harness) -> None:
    """The caller that resumes does not have to know it, and the list finds the run by it once."""
    resource_id = f"user-{uuid.uuid4().hex}"
    started = runtime.execute(storage.storage_04, resource_id=resource_id)
    assert started.status == "suspended"
    assert stored(runtime, started.run_id).resource_id == resource_id

    resumed = runtime.resume(storage.storage_04, started.run_id, {"message": "hello"}, step="suspendingStep")

    assert resumed.status == "success"
    assert resumed.steps["suspendingStep"].output == {"resumed": True, "data": {"message": "hello"}}
    assert stored(runtime, started.run_id).resource_id == resource_id
    assert [record.run_id for record in runtime.runs.list(resource_id=resource_id).runs] == [started.run_id]


@pytest.mark.parity("STORAGE-05")
def test_every_iteration_of_a_loop_finds_the_resource_stored(runtime: Harness) -> None:
    """No write of the loop's own loses it."""
    result = runtime.execute(storage.storage_05, {"value": 0}, resource_id="user-loop-456")

    assert result.status == "success"
    assert calls(result.run_id, "resource_id") == ["user-loop-456"] * 3
    assert stored(runtime, result.run_id).resource_id == "user-loop-456"


@pytest.mark.parity("STORAGE-06")
def test_a_lookup_reads_only_the_fields_it_is_asked_for(runtime: Harness) -> None:
    """A field that was not asked for is None."""
    run_id = runtime.execute(storage.storage_06).run_id

    only_status = runtime.runs.get(run_id, fields=["status"])
    assert only_status is not None
    assert only_status.status == "success"
    assert only_status.steps is None
    assert only_status.result is None

    with_steps = runtime.runs.get(run_id, fields=["status", "steps"])
    assert with_steps is not None
    assert with_steps.status == "success"
    assert with_steps.steps["step1"].status == "success"
    assert with_steps.steps["step1"].output == {"value": "result1"}
    assert with_steps.result is None

    everything = stored(runtime, run_id)
    assert everything.status == "success"
    assert set(everything.steps) == {"step1", "step2"}
    assert everything.result == {"value": "result2"}
    assert everything.run_id == run_id
    assert everything.workflow_id == "storage-06"
