"""The application: what users hold. The one place that chooses a runtime and a store, and wires them."""

from orchestrator.app.orchestrator import Orchestrator
from orchestrator.app.run import CancelReport, Run
from orchestrator.app.runs import RunPage, Runs
from orchestrator.app.stream import AsyncRunStream, RunStream

__all__ = ["AsyncRunStream", "CancelReport", "Orchestrator", "Run", "RunPage", "RunStream", "Runs"]
