"""Definitions: the steps, workflows and mappings that users write, and the graphs that follow from them.

This package knows annotations and functions. It must not know runs, stores or Celery: a Celery task is recognised by
its shape, and starting a workflow is asked of whatever it is bound to.
"""

from orchestrator.definitions.clone import clone_step, clone_workflow
from orchestrator.definitions.context import Context
from orchestrator.definitions.run_info import RunInfo
from orchestrator.definitions.sources import constant, from_context, from_input, from_step, template
from orchestrator.definitions.step import Step, step
from orchestrator.definitions.workflow import Launcher, Workflow

__all__ = [
    "Context",
    "Launcher",
    "RunInfo",
    "Step",
    "Workflow",
    "clone_step",
    "clone_workflow",
    "constant",
    "from_context",
    "from_input",
    "from_step",
    "step",
    "template",
]
