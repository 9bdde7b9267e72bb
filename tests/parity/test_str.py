"""STR and STRX: what a stream shows of a run, when it ends, and how a reader goes on with it."""

from __future__ import annotations

import threading
import uuid
from datetime import datetime
from unittest.mock import ANY

import pytest

from orchestrator.app.run import Run
from tests.parity.calls import count, names
from tests.parity.flows import str_
from tests.parity.harness import Harness, Seen, Streamed, seen

LIFECYCLE = ["workflow-step-start", "workflow-step-result", "workflow-step-finish"]


def kinds(streamed: Streamed) -> list[str]:
    """Return the types of a stream's events, in order."""
    return [event.type for event in streamed.events]


@pytest.mark.parity("STR-01")
def test_a_streamed_run_has_its_steps_outputs(runtime: Harness) -> None:
    """An input that does not fit is not looked at where that is switched off."""
    streamed = runtime.stream(str_.str_01)

    assert streamed.result.status == "success"
    assert streamed.result.steps["step1"].output == {"value": 1}
    assert streamed.result.steps["step2"].output == {"result": "success2"}


@pytest.mark.parity("STR-02")
def test_streamed_steps_run_in_order(runtime: Harness) -> None:
    """One after the other, as without a stream."""
    streamed = runtime.stream(str_.str_02)

    assert names(streamed.result.run_id) == ["step1", "step2", "step3"]
    assert [streamed.result.steps[name].status for name in ("step1", "step2", "step3")] == ["success"] * 3
    assert [event.payload["id"] for event in streamed.of_type("workflow-step-start")] == ["step1", "step2", "step3"]


@pytest.mark.parity("STR-04")
def test_steps_side_by_side_are_all_on_the_stream(runtime: Harness) -> None:
    """Each starts, ends and finishes once."""
    streamed = runtime.stream(str_.str_04)

    assert streamed.result.status == "success"
    for name in ("step1", "step2", "step3"):
        assert streamed.result.steps[name].output == {"value": name}
        assert [event.type for event in streamed.events if event.payload.get("id") == name] == LIFECYCLE


@pytest.mark.parity("STR-05")
def test_a_streamed_run_is_suspended_like_any_other(runtime: Harness) -> None:
    """The stream ends by itself, and the run record has the payload."""
    streamed = runtime.stream(str_.str_05)

    assert streamed.result.status == "suspended"
    assert streamed.result.steps["step1"].status == "success"
    assert streamed.result.steps["step2"].status == "suspended"
    assert streamed.result.steps["step2"].suspend_payload == {"reason": "approval needed"}


@pytest.mark.parity("STR-06")
def test_a_stream_has_an_event_of_every_kind(runtime: Harness) -> None:
    """Two steps: two starts and two results."""
    streamed = runtime.stream(str_.str_07, {"value": 5}, close_on_suspend=False)

    assert {"workflow-start", "workflow-finish", *LIFECYCLE} <= set(kinds(streamed))
    assert streamed.of_type("workflow-start")[0].payload
    assert len(streamed.of_type("workflow-step-start")) == 2
    assert len(streamed.of_type("workflow-step-result")) == 2
    assert streamed.of_type("workflow-step-result")[0].payload["status"] == "success"


@pytest.mark.parity("STR-07")
def test_two_steps_are_exactly_eight_events(runtime: Harness) -> None:
    """Exactly one start and one finish, and three events for each step, in order."""
    run_id = f"test-run-id-{uuid.uuid4()}"

    streamed = runtime.stream(str_.str_07, {"value": 5}, run_id=run_id, close_on_suspend=False)

    assert kinds(streamed) == ["workflow-start", *LIFECYCLE, *LIFECYCLE, "workflow-finish"]
    start, start_1, result_1, finish_1, start_2, result_2, finish_2, finish = (e.payload for e in streamed.events)
    assert start["run_id"] == finish["run_id"] == run_id
    assert finish["workflow_status"] == "success"
    first, second = {"value": 5}, {"doubled": 10}
    started = {"step_call_id": ANY, "started_at": ANY, "status": "running"}
    assert start_1 == {"id": "step1", "payload": first, **started}
    assert start_2 == {"id": "step2", "payload": second, **started}
    ended = {"step_call_id": ANY, "ended_at": ANY, "status": "success"}
    assert result_1 == {"id": "step1", "output": second, **ended}
    assert result_2 == {"id": "step2", "output": {"result": 11}, **ended}
    assert finish_1 == {"id": "step1", "step_call_id": ANY, "metadata": {}}
    assert finish_2 == {"id": "step2", "step_call_id": ANY, "metadata": {}}
    for number in (start_1["started_at"], result_1["ended_at"], start_2["started_at"], result_2["ended_at"]):
        assert isinstance(number, int)
    assert start_1["step_call_id"] == result_1["step_call_id"] == finish_1["step_call_id"]
    assert start_1["step_call_id"] != start_2["step_call_id"]
    for name in ("step1", "step2"):
        assert isinstance(streamed.result.steps[name].started_at, datetime)
        assert isinstance(streamed.result.steps[name].ended_at, datetime)


@pytest.mark.parity("STR-08")
def test_every_workflow_event_is_the_workflows(runtime: Harness) -> None:
    """Its source says so, and each has the run's id."""
    streamed = runtime.stream(str_.str_07, {"value": 5})

    assert {"workflow-start", "workflow-step-start", "workflow-step-result", "workflow-finish"} <= set(kinds(streamed))
    assert {event.source for event in streamed.events} == {"WORKFLOW"}
    assert {event.run_id for event in streamed.events} == {streamed.result.run_id}


@pytest.mark.parity("STR-09")
def test_a_stream_ends_with_a_suspension_and_another_goes_on(runtime: Harness) -> None:
    """All that the second needs is a run id taken from an event."""
    streamed = runtime.stream(str_.str_09, close_on_suspend=True)

    assert streamed.result.status == "suspended"
    assert {"workflow-start", "workflow-step-start", "workflow-step-suspended"} <= set(kinds(streamed))
    run_id = streamed.events[0].run_id
    assert count(run_id, "step3") == 0

    resumed = runtime.resume_stream(str_.str_09, run_id, {"approved": True}, step=str_.wait_for_approval)

    assert resumed.result.status == "success"
    assert kinds(resumed) == [*LIFECYCLE, *LIFECYCLE, "workflow-finish"]
    assert resumed.events[0].payload["resume_payload"] == {"approved": True}
    assert count(run_id, "step3") == 1


@pytest.mark.parity("STR-10")
def test_one_iteration_goes_on_over_a_suspension(runtime: Harness) -> None:
    """A resume on the same run, made while its events are read, is followed by the same reader to the end."""
    with runtime.open() as orchestrator:
        run = orchestrator.create_run(str_.str_10)
        stream = run.stream({"input": "test"}, close_on_suspend=False)
        helpers: list[threading.Thread] = []
        events: list[Seen] = []
        for event in stream:
            events.append(seen(event))
            if event.type == "workflow-step-suspended":
                helpers.append(threading.Thread(target=_resume, args=(run,)))
                helpers[-1].start()
        result = stream.result()
        for helper in helpers:
            helper.join()

    assert len(helpers) == 1
    assert events[-1].type == "workflow-finish"
    assert events[-1].payload["workflow_status"] == "success"
    assert count(result.run_id, "improve") == 1
    assert result.status == "success"
    assert result.input == {"input": "test"}
    record = result.steps["prompt-agent"].to_dict()
    assert record["status"] == "success"
    assert record["output"] == {"model_output": "test output"}
    assert record["resume_payload"] == {"model_output": "test output"}
    for moment in ("started_at", "ended_at", "suspended_at", "resumed_at"):
        assert isinstance(record[moment], int)
    assert result.steps["improve"].status == "success"


def _resume(run: Run) -> None:
    run.resume({"model_output": "test output"}, step="prompt-agent")


@pytest.mark.parity("STR-11")
def test_what_is_written_before_a_suspension_is_on_the_stream(runtime: Harness) -> None:
    """It stands before the suspension, once; what is written after the resumption is on the next stream."""
    streamed = runtime.stream(str_.str_11)

    assert kinds(streamed) == [
        "workflow-start",
        "workflow-step-start",
        "workflow-step-output",
        "custom-event",
        "workflow-step-suspended",
        "workflow-finish",
    ]
    said, own = streamed.events[2:4]
    assert said.payload == {"id": "talker", "step_call_id": ANY, "attempt": ANY, "output": {"said": "before"}}
    assert said.source == "WORKFLOW"
    assert (own.payload, own.source) == ({"n": 1}, "talker")
    suspended = streamed.events[4].payload
    assert (suspended["id"], suspended["status"]) == ("talker", "suspended")
    assert suspended["suspend_payload"] == {"reason": "more?"}

    resumed = runtime.resume_stream(str_.str_11, streamed.result.run_id, {})

    assert resumed.result.status == "success"
    outputs = [event.payload["output"] for event in resumed.of_type("workflow-step-output")]
    assert outputs == [{"said": "after"}]
    with runtime.open() as orchestrator:
        recorded = [seen(event) for event in orchestrator.get_run(streamed.result.run_id).events()]
    assert recorded == [*streamed.events, *resumed.events]


@pytest.mark.parity("STR-12")
def test_a_streamed_failure_keeps_the_errors_attributes(runtime: Harness) -> None:
    """Message, numbers and headers."""
    streamed = runtime.stream(str_.str_12)

    error = streamed.result.error
    assert streamed.result.status == "failed"
    assert isinstance(error, str_.TooManyRequests)
    assert str(error) == "Rate limit exceeded"
    assert error.status_code == 429
    assert error.response_headers == {"retry-after": "60"}
    shown = streamed.of_type("workflow-step-result")[0].payload
    assert shown["status"] == "failed"
    assert shown["error"]["message"] == "Rate limit exceeded"


PROMPTS = {"prompt1": "Capital of France", "prompt2": "Capital of UK"}


@pytest.mark.parity("STR-13")
def test_agents_stream_what_they_yield(runtime: Harness) -> None:
    """Word by word, between the step's start and its result, each pair under one call id."""
    streamed = runtime.stream(str_.str_13, PROMPTS)

    assert streamed.result.status == "success"
    assert streamed.result.result == {"text": "London"}
    for name, words in (("test-agent-1", ["Paris", "is", "it"]), ("test-agent-2", ["London", "it", "is"])):
        own = [event for event in streamed.events if event.payload.get("id") == name]
        start, *outputs, result, finish = own
        assert [start.type, result.type, finish.type] == LIFECYCLE
        assert {event.type for event in outputs} == {"workflow-step-output"}
        assert [event.payload["output"]["delta"] for event in outputs] == words
        assert len({event.payload["step_call_id"] for event in own}) == 1


@pytest.mark.parity("STR-18")
def test_an_agents_result_has_nothing_but_what_every_result_has(runtime: Harness) -> None:
    """Streamed or not; and the step says what it is for."""
    result = runtime.start(str_.str_13, PROMPTS)

    assert result.status == "success"
    for name, prompt, text in (
        ("test-agent-1", "Capital of France", "Paris"),
        ("test-agent-2", "Capital of UK", "London"),
    ):
        assert result.steps[name].to_dict() == {
            "status": "success",
            "output": {"text": text},
            "payload": {"prompt": prompt},
            "started_at": ANY,
            "ended_at": ANY,
        }
    assert str_.str_13.steps["test-agent-1"].description == "Knows France"
    assert str_.str_13.steps["test-agent-1"].component == "STEP"


@pytest.mark.parity("STR-20")
def test_an_agent_that_is_stopped_ends_the_run_as_tripwire(runtime: Harness) -> None:
    """With the reason, the wish to retry and who stopped it."""
    result = runtime.start(str_.str_20, {"retry": True, "metadata": {"severity": "high"}})

    assert result.status == "tripwire"
    assert result.tripwire is not None
    assert result.tripwire.reason == "Content blocked by policy"
    assert result.tripwire.retry is True
    assert result.tripwire.metadata == {"severity": "high"}
    assert result.tripwire.processor_id == "content-blocker"
    assert count(result.run_id, "after") == 0


@pytest.mark.parity("STR-21")
def test_a_streamed_agent_that_is_stopped_ends_the_run_as_tripwire(runtime: Harness) -> None:
    """The same over the stream, which says so last."""
    streamed = runtime.stream(str_.str_20, {"retry": False, "metadata": {"type": "forbidden"}})

    assert streamed.result.status == "tripwire"
    assert streamed.result.tripwire is not None
    assert streamed.result.tripwire.reason == "Content blocked by policy"
    assert streamed.result.tripwire.retry is False
    assert streamed.result.tripwire.metadata == {"type": "forbidden"}
    assert streamed.result.tripwire.processor_id == "content-blocker"
    assert streamed.events[-1].payload["workflow_status"] == "tripwire"


@pytest.mark.parity("STR-22")
def test_an_agent_is_stopped_in_the_middle_of_its_answer(runtime: Harness) -> None:
    """The words before it are on the stream."""
    streamed = runtime.stream(str_.str_22, {"prompt": "?"})

    assert streamed.result.status == "tripwire"
    assert streamed.result.tripwire is not None
    assert streamed.result.tripwire.reason == "Output stream blocked"
    assert streamed.result.tripwire.retry is True
    assert streamed.result.tripwire.processor_id == "output-blocker"
    said = [event.payload["output"]["delta"] for event in streamed.of_type("workflow-step-output")]
    assert said == ["Some", "thing"]


@pytest.mark.parity("STR-23")
def test_an_agent_answers_with_an_object(runtime: Harness) -> None:
    """The next step gets it as its type."""
    result = runtime.execute(str_.str_23, {"prompt": "write"})

    assert result.status == "success"
    assert result.result == {"processed": True, "tag_count": 2}
    assert result.steps["writer"].output == str_.Article(title="A", summary="B", tags=["test", "workflow"])


@pytest.mark.parity("STRX-01")
def test_a_foreach_tells_of_each_item(runtime: Harness) -> None:
    """One after the other, counted."""
    streamed = runtime.stream(str_.strx_01, [1, 22, 333])

    assert streamed.result.result == [12, 33, 344]
    progress = [event.payload for event in streamed.of_type("workflow-step-progress")]
    assert progress == [
        {
            "id": "map",
            "step_call_id": ANY,
            "completed_count": number + 1,
            "total_count": 3,
            "current_index": number,
            "iteration_status": "success",
            "iteration_output": output,
        }
        for number, output in enumerate([12, 33, 344])
    ]


@pytest.mark.parity("STRX-02")
def test_items_side_by_side_are_counted_too(runtime: Harness) -> None:
    """In whatever order they end, the last makes it complete."""
    streamed = runtime.stream(str_.strx_02, [1, 22, 333])

    assert streamed.result.result == [12, 33, 344]
    progress = [event.payload for event in streamed.of_type("workflow-step-progress")]
    assert [each["completed_count"] for each in progress] == [1, 2, 3]
    assert {each["total_count"] for each in progress} == {3}
    assert sorted(each["current_index"] for each in progress) == [0, 1, 2]
    assert {each["iteration_status"] for each in progress} == {"success"}


@pytest.mark.parity("STRX-03")
def test_an_item_that_fails_is_told_of(runtime: Harness) -> None:
    """After the one that did not."""
    streamed = runtime.stream(str_.strx_03, [1, 22, 333])

    assert streamed.result.status == "failed"
    progress = [event.payload for event in streamed.of_type("workflow-step-progress")]
    first = progress[0]
    assert (first["iteration_status"], first["current_index"]) == ("success", 0)
    assert (first["completed_count"], first["total_count"]) == (1, 3)
    assert any(each["iteration_status"] == "failed" and each["current_index"] == 1 for each in progress)


def test_an_item_that_suspends_is_told_of(runtime: Harness) -> None:
    """The item, what it said, and how far the others are."""
    streamed = runtime.stream(str_.strx_suspended, [1, 22, 333])

    assert streamed.result.status == "suspended"
    progress = [event.payload for event in streamed.of_type("workflow-step-progress")]
    assert [each["iteration_status"] for each in progress] == ["success", "suspended"]
    assert progress[1] | {"step_call_id": ""} == {
        "id": "map",
        "step_call_id": "",
        "completed_count": 1,
        "total_count": 3,
        "current_index": 1,
        "iteration_status": "suspended",
    }
    (suspended,) = streamed.of_type("workflow-step-suspended")
    assert (suspended.payload["id"], suspended.payload["current_index"]) == ("map", 1)
    assert suspended.payload["suspend_payload"] == {"value": 22}


def test_every_iteration_has_a_call_id_of_its_own(runtime: Harness) -> None:
    """The chunks that it writes carry the id too."""
    streamed = runtime.stream(str_.strx_loop, 0)

    own = [event for event in streamed.events if event.payload.get("id") == "body"]
    ids = [event.payload["step_call_id"] for event in own if event.type == "workflow-step-start"]
    assert len(set(ids)) == 3
    for number, call in enumerate(ids, 1):
        mine = [event for event in own if event.payload["step_call_id"] == call]
        assert [event.type for event in mine] == [LIFECYCLE[0], "workflow-step-output", *LIFECYCLE[1:]]
        assert mine[1].payload["output"] == number


def test_a_sleep_is_waiting_and_never_starts(runtime: Harness) -> None:
    """Otherwise it is on the stream like a step."""
    streamed = runtime.stream(str_.strx_sleep)

    asleep = ["workflow-step-waiting", *LIFECYCLE[1:]]
    assert kinds(streamed) == ["workflow-start", *LIFECYCLE, *asleep, *LIFECYCLE, "workflow-finish"]
    waiting = streamed.of_type("workflow-step-waiting")[0].payload
    assert (waiting["id"], waiting["status"]) == ("nap", "waiting")


def test_a_workflow_without_step_events_streams_what_its_steps_write(runtime: Harness) -> None:
    """Start, finish, and the steps' own."""
    streamed = runtime.stream(str_.strx_quiet)

    assert kinds(streamed) == ["workflow-start", "workflow-step-output", "custom-event", "workflow-finish"]
    assert runtime.resume(str_.strx_quiet, streamed.result.run_id, {}).status == "success"
