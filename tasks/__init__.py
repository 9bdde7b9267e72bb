"""The Celery tasks: few, registered under the same names in every worker, and humble. The engine does the work."""

from orchestrator.tasks.install import CeleryParts, install, orchestrator_of

__all__ = ["CeleryParts", "install", "orchestrator_of"]
