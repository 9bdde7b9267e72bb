"""The application: the objects that users hold, and the one place that puts their parts together."""

from orchestrator.app.orchestrator import Orchestrator
from orchestrator.app.run import CancelReport, Run
from orchestrator.app.runs import RunPage, Runs
from orchestrator.app.streams import AsyncRunStream, RunStream

__all__ = ["AsyncRunStream", "CancelReport", "Orchestrator", "Run", "RunPage", "RunStream", "Runs"]
