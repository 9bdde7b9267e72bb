"""The Celery tasks: few, registered under the same names in every worker, and humble. The engine does the work."""

from orchestrator.tasks.install import install, orchestrator_of

__all__ = ["install", "orchestrator_of"]
