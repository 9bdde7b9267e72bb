"""The errors of the public API: codes, details, messages, and being made anew."""

from __future__ import annotations

import ast
import copy
import inspect

import pytest

from orchestrator import errors
from orchestrator.errors import (
    FlowNotCommitted,
    FlowNotDefined,
    GraphInvalid,
    InputInvalid,
    Issue,
    OrchestratorError,
    RemoteError,
    ResumeAmbiguous,
    RunNotFound,
    TripWire,
)
from tests.codec.test_exceptions import own_errors

QUOTED = {
    "ResumeAlreadyClaimed": "WORKFLOW_RESUME_ALREADY_CLAIMED",
    "StartAlreadyClaimed": "WORKFLOW_START_ALREADY_CLAIMED",
    "RestartAlreadyClaimed": "WORKFLOW_RESTART_ALREADY_CLAIMED",
    "RunNotSuspended": "WORKFLOW_RUN_NOT_SUSPENDED",
    "RunNotActive": "WORKFLOW_RUN_NOT_ACTIVE",
    "MailboxFull": "MAILBOX_FULL",
    "RunStillRunning": "WORKFLOW_RUN_STILL_RUNNING",
    "RunNotFound": "WORKFLOW_SNAPSHOT_NOT_FOUND",
    "NoConsumer": "EVENTED_WORKFLOW_NO_EVENT_CONSUMER",
}
DERIVED = {
    "OrchestratorError": "ORCHESTRATOR_ERROR",
    "FlowNotDefined": "FLOW_NOT_DEFINED",
    "FlowNotCommitted": "FLOW_NOT_COMMITTED",
    "GraphInvalid": "GRAPH_INVALID",
    "GraphChanged": "GRAPH_CHANGED",
    "InputInvalid": "INPUT_INVALID",
    "BrokerUnavailable": "BROKER_UNAVAILABLE",
    "StoreRefused": "STORE_REFUSED",
    "StoreUnavailable": "STORE_UNAVAILABLE",
    "RunNotFinished": "RUN_NOT_FINISHED",
    "RunCanceled": "RUN_CANCELED",
    "RunFailed": "RUN_FAILED",
    "TaskError": "TASK_ERROR",
    "TaskFailed": "TASK_FAILED",
    "TaskIgnored": "TASK_IGNORED",
    "TaskRejected": "TASK_REJECTED",
    "TaskRevoked": "TASK_REVOKED",
    "TaskTimeout": "TASK_TIMEOUT",
    "SecretUnavailable": "SECRET_UNAVAILABLE",
    "StateConflict": "STATE_CONFLICT",
    "RemoteError": "REMOTE_ERROR",
    "ResumeAmbiguous": "RESUME_AMBIGUOUS",
    "StepNotSuspended": "STEP_NOT_SUSPENDED",
    "SuspensionOver": "SUSPENSION_OVER",
    "RunIsNested": "RUN_IS_NESTED",
    "StepNotFound": "STEP_NOT_FOUND",
    "WorkflowNotRegistered": "WORKFLOW_NOT_REGISTERED",
    "PayloadTooLarge": "PAYLOAD_TOO_LARGE",
    "ValueNotSerializable": "VALUE_NOT_SERIALIZABLE",
    "ValueNotReadable": "VALUE_NOT_READABLE",
    "CompressionUnavailable": "COMPRESSION_UNAVAILABLE",
}


def test_every_error_has_its_code() -> None:
    found = {
        name: cls.code
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and issubclass(cls, OrchestratorError)
    }
    assert found == QUOTED | DERIVED


def test_a_users_own_error_has_a_code_of_its_own() -> None:
    class StockEmpty(OrchestratorError):
        pass

    assert StockEmpty.code == "STOCK_EMPTY"
    assert str(StockEmpty()) == "StockEmpty"


def test_details_hold_what_is_known() -> None:
    error = RunNotFound("gone", workflow_id="w", run_id="r", actual_status="success", shard=3)
    assert str(error) == "gone"
    assert error.details == {"workflow_id": "w", "run_id": "r", "actual_status": "success", "shard": 3}
    assert RunNotFound().details == {}


def test_details_have_no_status() -> None:
    with pytest.raises(TypeError, match="actual_status"):
        RunNotFound("gone", status="success")


def test_an_error_without_a_message_says_what_its_class_says() -> None:
    assert str(RunNotFound()) == "No run of this id is stored."
    assert "Execution flow of workflow is not defined" in str(FlowNotDefined())
    assert "Uncommitted step flow changes detected" in str(FlowNotCommitted())


def test_an_invalid_input_lists_its_issues() -> None:
    found = [Issue("a.b", "missing", "Field required"), Issue("", "value_error", "Too much")]
    assert str(InputInvalid(found)) == "Invalid input data: \n- a.b: Field required\n- Too much"
    assert InputInvalid(iter(found)).issues == tuple(found)


def test_an_invalid_graph_lists_its_problems() -> None:
    error = GraphInvalid(["no steps", "id twice: a"], workflow_id="w")
    assert error.problems == ("no steps", "id twice: a")
    assert str(error).endswith(":\n- no steps\n- id twice: a")
    assert GraphInvalid("only one").problems == ("only one",)


def test_an_ambiguous_resume_names_the_candidates() -> None:
    error = ResumeAmbiguous(candidates=["a", "b.c"])
    assert error.candidates == ("a", "b.c")
    assert str(error).startswith("Multiple suspended steps")
    assert str(error).endswith("Candidates: a, b.c")


def test_a_trip_wire_is_no_error_of_the_orchestrator() -> None:
    wire = TripWire("why", retry=True, metadata={"a": 1}, processor_id="p")
    assert not isinstance(wire, OrchestratorError)
    assert (str(wire), wire.reason, wire.retry, wire.metadata, wire.processor_id) == ("why", "why", True, {"a": 1}, "p")


def test_a_stand_in_shows_the_originals_attributes_but_stays_an_exception() -> None:
    error = RemoteError("m", name="a.B", attributes={"code": 5, "message": "x", "add_note": 1, "__class__": 2})
    assert vars(error)["code"] == 5
    assert (error.message, error.name) == ("m", "a.B")
    error.add_note("n")
    assert error.attributes["add_note"] == 1
    assert type(error) is RemoteError
    assert str(RemoteError("", name="a.B")) == ""


@pytest.mark.parametrize("error", own_errors(), ids=lambda error: type(error).__name__)
def test_an_error_can_be_copied(error: Exception) -> None:
    for made in (copy.copy(error), copy.deepcopy(error)):
        assert type(made) is type(error)
        assert str(made) == str(error)
        assert made.args == error.args
        assert vars(made) == vars(error)


def test_the_module_imports_nothing_of_the_project() -> None:
    tree = ast.parse(inspect.getsource(errors))
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert not [name for name in modules + names if name.startswith("orchestrator")]
