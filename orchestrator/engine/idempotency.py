"""The idempotency key: user code passes it to other systems, so that they can tell one activation from another."""

from __future__ import annotations

import hashlib

from orchestrator.rules.model import Activation, RunHeader, visits


def idempotency_key(header: RunHeader, activation: Activation) -> str:
    """Return the key of one activation: the same for each of its attempts, and for no other activation."""
    # A step runs at least once, so an attempt may repeat effects that an earlier one has had on other systems. By the
    # same key those systems recognise the repeat. After a time travel, or in the next iteration of a loop, the effects
    # are to happen again: so generation and visit are part of the key. And a run id may be used again once its run has
    # been deleted: the id of the input is drawn by each start, and no two starts draw the same.
    start = hashlib.sha256(header.input.encode()).hexdigest()[:_START_DIGITS]
    # The key says `life` for generation: other systems know the keys, so they stay.
    life = f".life.{header.generation}" if header.generation else ""
    key = f"{header.run_id}.{start}{life}/{activation.path}"
    again = any(number > 1 for number in visits(activation))
    return f"{key}.iter.{activation.visit}" if again else key


_START_DIGITS = 12
