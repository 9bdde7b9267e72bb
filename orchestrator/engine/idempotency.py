"""The idempotency key: user code passes it to other systems, so that they can tell one activation from another."""

from __future__ import annotations

from orchestrator.rules.model import Activation, visits


def idempotency_key(run_id: str, generation: int, activation: Activation) -> str:
    """Return the key of one activation: the same for each of its attempts, and for no other activation."""
    # A step runs at least once, so an attempt may repeat effects that an earlier one has had on other systems. By the
    # same key those systems recognise the repeat. After a time travel, or in the next iteration of a loop, the effects
    # are to happen again: so generation and visit are part of the key.
    # The key says `life` for generation: other systems know the keys, so they stay.
    key = f"{run_id}/{activation.path}" if not generation else f"{run_id}.life.{generation}/{activation.path}"
    again = any(number > 1 for number in visits(activation))
    return f"{key}.iter.{activation.visit}" if again else key
