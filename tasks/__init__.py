"""The Celery tasks: few, with the same names in every worker. They call the engine, which does the work."""

from orchestrator.tasks.install import CeleryParts, install, orchestrator_of

__all__ = ["CeleryParts", "install", "orchestrator_of"]
