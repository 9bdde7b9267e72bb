"""The keyword arguments that several verbs of `Run` share, typed once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict


class StartKeywords(TypedDict, total=False):
    """The keywords of every way to start a run."""

    # The run's first state, checked against the workflow's `state` model.
    state: Mapping[str, Any] | None
    # Values for steps that are no data of the run: the caller's name, a tenant, credentials.
    request_context: Mapping[str, Any] | None
    # Pause after each step.
    per_step: bool


class ResumeKeywords(TypedDict, total=False):
    """The keywords of every way to resume a run."""

    # The suspended step: an id, a step, a list of either, a dotted path.
    step: Any
    # The label with which it was suspended.
    label: str | None
    # The item of a foreach.
    index: int | None
    # One suspension, as `resume_tokens` shows it; refused with `SuspensionOver` once that is over.
    token: str | None
    # Values that are merged into the run's request context.
    request_context: Mapping[str, Any] | None
    # Go on by one step, and pause again.
    per_step: bool


class TravelKeywords(TypedDict, total=False):
    """The keywords of every way to let a run go on from one of its steps."""

    # The output of the step before the target.
    input: Any
    # Step results that replace the stored ones, by step id.
    context: Mapping[str, Any] | None
    # The same of nested workflows, by workflow and step id.
    nested_context: Mapping[str, Mapping[str, Any]] | None
    # Goes to the steps at or behind the target that had suspended, else to the target.
    resume_data: Any
    # Replaces the run's state.
    state: Mapping[str, Any] | None
    # Values that are merged into the run's request context.
    request_context: Mapping[str, Any] | None
    # Pause after each step.
    per_step: bool


def require_known(verb: str, given: Mapping[str, Any], keywords: type) -> None:
    """Raise TypeError for a keyword that the verb does not have, as Python does where each is a parameter."""
    if unknown := [name for name in given if name not in keywords.__annotations__]:
        raise TypeError(f"Run.{verb}() got an unexpected keyword argument {unknown[0]!r}")
