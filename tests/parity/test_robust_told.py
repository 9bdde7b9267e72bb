"""R-EWF, R-ESE, R-ONS, R-DEF, R-MID: what a run tells by its events, errors, hooks and ids."""

from __future__ import annotations

import json

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from orchestrator import RemoteError, Workflow
from orchestrator.engine.observe import observer
from tests.parity.calls import calls, count, note_for
from tests.parity.flows import robust_told as flows
from tests.parity.harness import Harness, Streamed
from tests.parity.robust import stored


def told(streamed: Streamed) -> list[str]:
    """Return the types of the events, without what they have in common."""
    return [event.type.removeprefix("workflow-") for event in streamed.events]


STEP = ["step-start", "step-result", "step-finish"]


@pytest.mark.parity("R-EWF-01")
def test_the_stream_of_a_single_step_ends_with_the_pause(runtime: Harness) -> None:
    """It has one start and one finish."""
    streamed = runtime.stream(flows.two_steps, {}, per_step=True)

    assert told(streamed) == ["start", *STEP, "paused", "finish"]
    assert streamed.events[-1].payload["workflow_status"] == "paused"
    assert streamed.result.status == "paused"


@pytest.mark.parity("R-EWF-02")
def test_the_stream_of_a_sleep_tells_that_it_waits(runtime: Harness) -> None:
    """In place of its start."""
    streamed = runtime.stream(flows.napping, {})

    assert told(streamed) == ["start", *STEP, "step-waiting", "step-result", "step-finish", *STEP, "finish"]
    assert [event.payload["id"] for event in streamed.events[1:-1]] == ["step1"] * 3 + ["nap"] * 3 + ["step2"] * 3
    assert streamed.result.status == "success"


@pytest.mark.parity("R-EWF-03")
def test_an_event_of_a_step_before_its_suspension_is_streamed_once(runtime: Harness) -> None:
    """Under its own type; the stream of the resumption has what was written then."""
    streamed = runtime.stream(flows.asking, {})
    resumed = runtime.resume_stream(flows.asking, streamed.result.run_id, {})

    assert [event.payload for event in streamed.of_type("asked")] == [{"by": "ask"}]
    assert (streamed.result.status, resumed.result.status) == ("suspended", "success")
    assert [event.type for event in resumed.of_type("asked", "answered")] == ["answered"]


@pytest.mark.parity("R-EWF-04")
def test_an_error_with_attributes_arrives_whole(runtime: Harness) -> None:
    """On the result and on the step, as the exception it was."""
    result = runtime.execute(flows.api_error, {})

    assert result.status == "failed"
    for error in (result.error, result.steps["call"].error):
        assert isinstance(error, flows.ApiError)
        assert str(error) == "too many requests"
        assert (error.status_code, error.request_id, error.is_retryable) == (429, "req-123", True)
        assert error.response_headers == {"retry-after": "60"}


@pytest.mark.parity("R-ESE-03")
def test_a_sleep_function_is_told_of_its_run(runtime: Harness) -> None:
    """The run's id, its input, the init data, earlier results, and that nothing was resumed."""
    result = runtime.start(flows.computed_nap, {"init": True})

    assert result.status == "success"
    assert calls(result.run_id, "nap") == [
        {
            "run_id": result.run_id,
            "input": {"value": 1},
            "init": {"init": True},
            "step1": {"value": 1},
            "resumed": False,
            "resume_data": None,
        }
    ]


@pytest.mark.parity("R-ESE-04")
def test_a_sleep_function_that_raises_fails_the_run(runtime: Harness) -> None:
    """It is not taken for no time at all."""
    result = runtime.start(flows.raising_nap, {})

    assert result.status == "failed"
    assert str(result.error) == "how long?"
    assert result.steps["nap"].status == "failed"
    assert count(result.run_id, "step2") == 0


@pytest.mark.parametrize(
    "kind, name",
    [
        pytest.param("plain", "ValueError", marks=pytest.mark.parity("R-ESE-05")),
        pytest.param("ours", "OrchestratorError", marks=pytest.mark.parity("R-ESE-06")),
    ],
)
def test_a_stored_error_has_no_stack(runtime: Harness, kind: str, name: str) -> None:
    """It has its name and its message."""
    run_id = runtime.start(flows.FAILING[kind], {}).run_id

    record = stored(runtime, run_id).to_dict()

    for error in (record["error"], record["steps"]["fails"]["error"]):
        assert error["message"] == "the message only"
        assert error["name"].endswith(name)
    text = json.dumps(record)
    assert "Traceback" not in text
    assert "robust_told.py" not in text
    error = stored(runtime, run_id).error
    assert error is not None
    assert not isinstance(error, RemoteError)
    assert error.__traceback__ is None


@pytest.mark.parity("R-ONS-01")
def test_the_start_hook_comes_before_the_steps(runtime: Harness) -> None:
    """It is told the ids, the input and the request context, and has a logger."""
    run_id = runtime.start(flows.started, {"order": 7}, request_context={"tenant": "acme"}).run_id

    assert calls(run_id, "on_start") == [
        {"workflow_id": flows.started.id, "init": {"order": 7}, "context": {"tenant": "acme"}, "ran": 0}
    ]
    assert count(run_id, "step1") == 1


@pytest.mark.parity("R-ONS-02")
def test_a_start_hook_that_raises_rejects_the_start(runtime: Harness) -> None:
    """No step runs, and the run is stored as pending."""
    with runtime.open() as orchestrator:
        run = orchestrator.create_run(flows.started)
        with pytest.raises(PermissionError, match="not this tenant"):
            run.start({}, request_context={"tenant": "nobody"})

    assert stored(runtime, run.run_id).status == "pending"
    assert (count(run.run_id, "on_start"), count(run.run_id, "step1")) == (1, 0)


@pytest.mark.parity("R-ONS-03")
def test_the_start_hook_does_not_hear_of_a_resume(runtime: Harness) -> None:
    """It is called once for the run, by its start."""
    run_id = runtime.start(flows.started, {}).run_id

    assert runtime.resume(flows.started, run_id, {}).status == "success"
    assert count(run_id, "on_start") == 1


@pytest.mark.parity("R-ONS-04")
def test_the_start_hook_hears_of_a_streamed_start(runtime: Harness) -> None:
    """It is called once there too."""
    streamed = runtime.stream(flows.started, {})

    assert count(streamed.result.run_id, "on_start") == 1


@pytest.mark.parity("R-ONS-05")
def test_the_span_of_a_run_whose_start_hook_raises_ends_with_the_error(
    runtime: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the only one: nothing was begun below it."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setattr(observer, "SILENCE", 0.0)
    monkeypatch.setattr(observer, "_silent_until", 0.0)

    with runtime.open() as orchestrator, pytest.raises(PermissionError):
        orchestrator.create_run(flows.started).start({}, request_context={"tenant": "nobody"})
    spans = [span for span in exporter.get_finished_spans() if span.instrumentation_scope.name == "orchestrator"]  # type: ignore[union-attr]
    provider.shutdown()

    assert [span.status.status_code for span in spans] == [trace.StatusCode.ERROR]
    assert "not this tenant" in str([dict(event.attributes or {}) for event in spans[0].events])


@pytest.mark.parity("R-DEF-01")
def test_a_start_without_waiting_gives_the_run_at_once(runtime: Harness) -> None:
    """It completes by itself."""
    with runtime.open() as orchestrator:
        run = orchestrator.create_run(flows.slow)
        begun = run.submit({})
        assert (begun.run_id, begun.status) == (run.run_id, "running")
        note_for(run.run_id, "go")
        result = run.result()

    assert result.result == "done"


@pytest.mark.parity("R-DEF-02")
def test_the_errors_of_steps_are_logged(runtime: Harness) -> None:
    """A handler of the application's own gets them, with the names of run, workflow and step."""
    run_id = runtime.start(flows.FAILING["plain"], {}).run_id

    ((step, message),) = calls(run_id, "log")
    assert step == "fails"
    assert run_id in message
    assert "the message only" in message


# --------------------------------------------------------------------------------------------------------- maps, R-MID


def mapped(workflow_id: str = "robust-mapped") -> Workflow:
    """Build a workflow with a map, as a new process would."""
    return Workflow(workflow_id).then(flows.first).map(lambda data: data).commit()


@pytest.mark.parity("R-MID-01")
def test_a_map_has_the_same_id_whenever_it_is_built() -> None:
    """It is made of the workflow's id and the map's number."""
    assert list(mapped().steps) == list(mapped().steps) == ["step1", "mapping_robust-mapped_0"]


@pytest.mark.parity("R-MID-02")
def test_a_map_may_have_an_id_of_its_own() -> None:
    """It is taken as it is."""
    workflow = Workflow("robust-mapped").map(lambda data: data, id="mine").commit()

    assert list(workflow.steps) == ["mine"]


@pytest.mark.parity("R-MID-03")
def test_two_maps_are_numbered() -> None:
    """In the order of the flow."""
    workflow = Workflow("robust-mapped").map(lambda data: data).map(lambda data: data).commit()

    assert list(workflow.steps) == ["mapping_robust-mapped_0", "mapping_robust-mapped_1"]


@pytest.mark.parity("R-MID-04")
def test_maps_of_an_outer_and_a_nested_workflow_have_different_ids() -> None:
    """Each has its own workflow's id in its own."""
    inner = mapped("robust-mapped-inner")
    outer = Workflow("robust-mapped").then(inner).map(lambda data: data).commit()

    assert list(outer.steps) == ["robust-mapped-inner", "mapping_robust-mapped_0"]
    assert list(inner.steps) == ["step1", "mapping_robust-mapped-inner_0"]
