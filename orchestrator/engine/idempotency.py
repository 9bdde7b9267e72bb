"""The key under which user code tells others apart one activation from another."""

from __future__ import annotations

from orchestrator.rules.model import Activation, visits


def idempotency_key(run_id: str, generation: int, activation: Activation) -> str:
    """Return the key of one activation, the same for every attempt of it: made of run, life, path and visit alone."""
    # A step runs at least once, so an attempt may repeat what an earlier one has done outside; there the key says so.
    # After a time travel the same step is to happen again, and an iteration of a loop is none of the one before.
    key = f"{run_id}/{activation.path}" if not generation else f"{run_id}.life.{generation}/{activation.path}"
    again = any(number > 1 for number in visits(activation))
    return f"{key}.iter.{activation.visit}" if again else key
