"""Finished iterations of a loop: what they have made is read, and goes as the setting says."""

from __future__ import annotations

from orchestrator.engine.attempt import Attempt
from orchestrator.rules.iterations import FinishedIteration, Release, find_outgoing, release


def release_finished(attempt: Attempt) -> Release | None:
    """Return what goes as the loop of this attempt begins another iteration; None where it keeps all."""
    keep = attempt.services.settings.iterations_max_kept
    if not keep:
        return None
    claim = attempt.as_claimed_node()
    iteration = FinishedIteration(claim)
    # A level at a time: as many round trips as blocks stand in each other, however many items they have.
    while iteration.paths:
        iteration.add(attempt.load(iteration.paths))
    texts = attempt.values.read_texts([*iteration.manifests, *find_outgoing(attempt.activation, keep)])
    return release(claim, iteration, keep, texts, attempt.values.closure(attempt.activation.input))
