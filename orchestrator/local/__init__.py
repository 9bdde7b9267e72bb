"""The default runtime: carries dispatches to threads of this process."""

from orchestrator.local.runtime import LocalRuntime

__all__ = ["LocalRuntime"]
