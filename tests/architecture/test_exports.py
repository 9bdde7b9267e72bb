"""The exported names are frozen: taking one away, or adding one, is a decision and not an accident."""

from __future__ import annotations

import orchestrator
import orchestrator.testing

EXPORTED = """
AsyncRunStream BrokerUnavailable CancelReport Context Event FlowNotCommitted FlowNotDefined GraphChanged GraphInvalid
InputInvalid MailboxFull NoConsumer Orchestrator OrchestratorError PayloadTooLarge RemoteError RestartAlreadyClaimed
ResumeAlreadyClaimed ResumeAmbiguous Run RunCanceled RunFailed RunInfo RunIsNested RunNotActive RunNotFinished
RunNotFound RunNotSuspended RunPage RunRecord RunResult RunStatus RunStillRunning RunStream SecretUnavailable
StartAlreadyClaimed StateConflict Step StepNotFound StepNotSuspended StepResult StepStatus StoreRefused
StoreUnavailable SuspensionOver TripWire ValueNotSerializable Workflow WorkflowNotRegistered clone_step clone_workflow
constant from_context from_input from_step step template
"""

FOR_TESTS = """
FailingStore StoreContract VirtualClock WorkerLost deliver_again make_context
"""


def test_the_package_exports_just_these_names() -> None:
    """Each of them exists, and nothing else is promised."""
    assert sorted(orchestrator.__all__) == EXPORTED.split()
    assert all(getattr(orchestrator, name) is not None for name in orchestrator.__all__)


def test_the_testing_package_exports_just_these_names() -> None:
    """Users' own tests import these names."""
    assert sorted(orchestrator.testing.__all__) == FOR_TESTS.split()
    assert all(getattr(orchestrator.testing, name) is not None for name in orchestrator.testing.__all__)
